# The double of NCCL, transport nccl on it, and their tests. Jobs of several processes: Open MPI takes
# its own locks in two orders when it starts, which ThreadSanitizer would call a failure of the job.
set(mt_nccl_environment "${MT_TEST_ENV}")
if(MT_SANITIZE MATCHES "thread")
    list(APPEND mt_nccl_environment "TSAN_OPTIONS=detect_deadlocks=0")
endif()
add_library(mt_emulator_nccl STATIC nccl.cc nccl_launch.cc gpu.cc)
target_compile_options(mt_emulator_nccl PRIVATE -O3)
set_source_files_properties(gpu.cc PROPERTIES COMPILE_OPTIONS "-Wno-shadow")
target_compile_definitions(mt_emulator_nccl PRIVATE OMPI_SKIP_MPICXX)
target_link_libraries(mt_emulator_nccl PUBLIC mt_emulated_kernels mt_emulator MPI::MPI_C)

file(GLOB mt_transport CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/comm/*.cu)
mt_emulated_kernels(mt_emulated_transport STATIC ${mt_transport})
target_link_libraries(mt_emulated_transport PUBLIC mt_emulator_nccl)

set(mt_case_folder ${CMAKE_SOURCE_DIR}/tests/comm)
set(mt_case_sources ${mt_case_folder}/cases.c ${mt_case_folder}/case_exchange.c
    ${mt_case_folder}/case_sparse.c)
# mt_nccl_test(test_nccl RANKS 1 2 SOURCES file.c)
function(mt_nccl_test name)
    cmake_parse_arguments(T "" "" "RANKS;SOURCES" ${ARGN})
    add_executable(${name} ${T_SOURCES})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_compile_definitions(${name} PRIVATE OMPI_SKIP_MPICXX)
    target_link_libraries(${name} PRIVATE mt_emulated_transport mt_test_support mt_comm
                          PkgConfig::CMOCKA)
    add_dependencies(emulated ${name})
    foreach(ranks IN LISTS T_RANKS)
        add_test(NAME emulation.${name}.np${ranks}
                 COMMAND ${MT_MPIRUN} -np ${ranks} $<TARGET_FILE:${name}>)
        set_tests_properties(emulation.${name}.np${ranks} PROPERTIES LABELS "emu;mpi"
                             TIMEOUT ${mt_emulated_timeout_s}
                             ENVIRONMENT "${mt_nccl_environment}" PROCESSORS 2)
    endforeach()
endfunction()
mt_nccl_test(test_nccl RANKS 1 2 3 4 SOURCES test_nccl.c ${mt_case_sources})
mt_nccl_test(test_nccl_double RANKS 2 SOURCES test_nccl_double.cc)
# Not tests by themselves: nccl_faults.sh runs the jobs and looks at how they end.
mt_nccl_test(nccl_faults SOURCES nccl_faults.c)
mt_script_test(nccl_faults DIR emulation LABELS emu fault mpi)
if(MT_SANITIZE MATCHES "thread")
    set_property(TEST emulation.nccl_faults APPEND PROPERTY ENVIRONMENT
                 "TSAN_OPTIONS=detect_deadlocks=0")
endif()
# What measures collectives between GPUs, with short messages.
set_source_files_properties(${CMAKE_SOURCE_DIR}/tests/cuda/collectives.cc PROPERTIES COMPILE_OPTIONS
                            "-Wno-shadow")
mt_nccl_test(emulated_collectives SOURCES ${CMAKE_SOURCE_DIR}/tests/cuda/collectives.cc
             ${mt_case_sources})
add_test(NAME emulation.collectives.np3
         COMMAND ${MT_MPIRUN} -np 3 $<TARGET_FILE:emulated_collectives> small)
set_tests_properties(emulation.collectives.np3 PROPERTIES LABELS "emu;mpi"
                     TIMEOUT ${mt_emulated_timeout_s} ENVIRONMENT "${mt_nccl_environment}" PROCESSORS 2)
