# What tests/gpu.sh runs on a GPU: target gpu, not part of the default build.
set(mt_gpu_includes ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
set(mt_gpu_transport ${mt_gpu_kernels})
# Kernels alone: neither the module that the program loads nor what it has of NCCL.
list(FILTER mt_gpu_kernels EXCLUDE REGEX "/(module|transport_[a-z_]*)\\.o$")
list(FILTER mt_gpu_transport INCLUDE REGEX "/transport_[a-z_]*\\.o$")
add_custom_target(gpu_kernels DEPENDS ${mt_gpu_kernels})

# A program of these sources, the kernels, and the toolkit's libraries.
add_custom_target(gpu)
if(TARGET cuda_module)
    add_dependencies(gpu cuda_module)
endif()
function(mt_gpu_program name)
    add_executable(${name} EXCLUDE_FROM_ALL ${ARGN})
    add_dependencies(${name} gpu_kernels)
    add_dependencies(gpu ${name})
    target_include_directories(${name} PRIVATE ${mt_gpu_includes})
    target_include_directories(${name} SYSTEM PRIVATE ${toolkit}/../include)
    target_link_libraries(${name} PRIVATE mt_kernel_test PkgConfig::CMOCKA ${mt_gpu_kernels}
                          mt_device ${MT_CUBLAS} ${MT_CUDART} stdc++)
endfunction()

set(mt_gpu_table table.cc table_products.cc table_layers.cc table_experts.cc table_rows.cc staging.cc)
list(TRANSFORM mt_gpu_table PREPEND ${CMAKE_SOURCE_DIR}/tests/emulation/)
list(APPEND mt_gpu_table ${CMAKE_CURRENT_SOURCE_DIR}/hardware.cc)
add_library(mt_gpu_table OBJECT EXCLUDE_FROM_ALL ${mt_gpu_table})
set_source_files_properties(${mt_gpu_table} PROPERTIES COMPILE_OPTIONS "-Wno-shadow")
target_include_directories(mt_gpu_table PRIVATE ${mt_gpu_includes})
target_include_directories(mt_gpu_table SYSTEM PRIVATE ${toolkit}/../include)
target_link_libraries(mt_gpu_table PRIVATE mt_kernel_test PkgConfig::CMOCKA)

# The parity table: forward order only, for a GPU orders its threads itself.
foreach(op adamw attention bfloat16 bias cross_entropy embedding expert gate grouped linear rms_norm
        router rows sigmoid sums)
    mt_gpu_program(gpu_${op} ${CMAKE_SOURCE_DIR}/tests/kernel/test_${op}.c
                   $<TARGET_OBJECTS:mt_gpu_table>)
    target_link_options(gpu_${op} PRIVATE -Wl,--wrap=_cmocka_run_group_tests)
endforeach()
mt_gpu_program(gpu_attention_bf16 ${CMAKE_SOURCE_DIR}/tests/kernel/test_attention.c
               $<TARGET_OBJECTS:mt_gpu_table>)
target_compile_definitions(gpu_attention_bf16 PRIVATE MT_TEST_DTYPE=MT_BFLOAT16
                           MT_TEST_ROUNDED_HEAD=128)
target_link_options(gpu_attention_bf16 PRIVATE -Wl,--wrap=_cmocka_run_group_tests)

# What measures the kernels; the same on the emulated device with small sizes is a test, so that
# nothing in it waits for the first GPU to be tried.
file(GLOB mt_measure CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/measure*.cc)
set_source_files_properties(${mt_measure} PROPERTIES COMPILE_OPTIONS "-Wno-shadow")
mt_gpu_program(gpu_measure ${mt_measure})

# What measures collectives, a rank a GPU.
if(mt_nccl_sources)
    set(mt_case_folder ${CMAKE_SOURCE_DIR}/tests/comm)
    set_source_files_properties(collectives.cc PROPERTIES COMPILE_OPTIONS "-Wno-shadow")
    add_custom_target(gpu_transport DEPENDS ${mt_gpu_transport})
    mt_gpu_program(gpu_collectives ${CMAKE_CURRENT_SOURCE_DIR}/collectives.cc
                   ${mt_case_folder}/cases.c ${mt_case_folder}/case_exchange.c
                   ${mt_case_folder}/case_sparse.c)
    add_dependencies(gpu_collectives gpu_transport)
    target_compile_definitions(gpu_collectives PRIVATE OMPI_SKIP_MPICXX)
    target_link_libraries(gpu_collectives PRIVATE mt_comm mt_test_support ${mt_gpu_transport}
                          ${MT_NCCL_LIBRARY} ${mt_gpu_kernels} ${MT_CUBLAS} ${MT_CUDART})
endif()
