# The GPU's module, libmoetrain_cuda.so, beside the program that loads it: by nvcc, where it is found,
# as a part of `ninja cuda` (tests/cuda/), which is not in the default build: it takes minutes.
set(MT_CUDA AUTO CACHE STRING "Compile the CUDA kernels (target cuda): AUTO, ON or OFF")
set(MT_CUDA_ARCHITECTURES 80 90 100 CACHE STRING "What `ninja cuda` compiles for")
if(MT_CUDA STREQUAL OFF)
    return()
endif()
find_program(MT_NVCC nvcc PATHS ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT MT_NVCC)
    if(MT_CUDA STREQUAL ON)
        message(FATAL_ERROR "MT_CUDA=ON, and no nvcc was found; expected the CUDA toolkit, 12.8 or "
                "later; install it or configure with -DMT_CUDA=AUTO")
    endif()
    message(STATUS "CUDA: no nvcc found; building for the CPU only")
    return()
endif()
message(STATUS "CUDA: ${MT_NVCC}; `ninja cuda` builds libmoetrain_cuda.so and checks its kernels")

# NCCL, where it is: without it a run has one GPU.
get_filename_component(mt_cuda_toolkit ${MT_NVCC} DIRECTORY)
find_path(MT_NCCL_INCLUDE nccl.h HINTS ${mt_cuda_toolkit}/../include)
find_library(MT_NCCL_LIBRARY nccl HINTS ${mt_cuda_toolkit}/../lib ${mt_cuda_toolkit}/../lib64)
set(mt_nccl_sources "")
set(mt_nccl_options "")
if(MT_NCCL_INCLUDE AND MT_NCCL_LIBRARY)
    message(STATUS "NCCL: ${MT_NCCL_LIBRARY}")
    file(GLOB mt_nccl_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/comm/*.cu)
    set(mt_nccl_options -DMT_HAS_NCCL -I${MT_NCCL_INCLUDE})
else()
    message(STATUS "NCCL: none found; libmoetrain_cuda.so is built without")
    set(MT_NCCL_LIBRARY "")
endif()

file(GLOB mt_cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernel/cuda/*.cu)
list(APPEND mt_cuda_sources ${mt_nccl_sources})
file(GLOB mt_cuda_headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernel/cuda/*.cuh
     ${CMAKE_SOURCE_DIR}/src/kernel/cuda/*.h ${CMAKE_SOURCE_DIR}/src/kernel/*.h
     ${CMAKE_SOURCE_DIR}/src/device/*.h ${CMAKE_SOURCE_DIR}/src/comm/*.h)
set(mt_cuda_folder ${CMAKE_BINARY_DIR}/cuda)
set(mt_cuda_codes "")
foreach(arch IN LISTS MT_CUDA_ARCHITECTURES)
    list(APPEND mt_cuda_codes -gencode arch=compute_${arch},code=sm_${arch})
endforeach()
set(mt_cuda_objects "")
foreach(source IN LISTS mt_cuda_sources)
    get_filename_component(name ${source} NAME_WE)
    add_custom_command(OUTPUT ${mt_cuda_folder}/${name}.o
        COMMAND ${CMAKE_COMMAND} -E make_directory ${mt_cuda_folder}
        COMMAND ${MT_NVCC} -std=c++17 -O3 ${mt_cuda_codes} -I${CMAKE_SOURCE_DIR}/src
                ${mt_nccl_options} -DMT_VERSION="${PROJECT_VERSION}" -Werror all-warnings
                -Xcompiler -Wall,-Wextra,-Werror,-fPIC,-fvisibility=hidden
                -c ${source} -o ${mt_cuda_folder}/${name}.o
        DEPENDS ${source} ${mt_cuda_headers} VERBATIM)
    list(APPEND mt_cuda_objects ${mt_cuda_folder}/${name}.o)
endforeach()
add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/libmoetrain_cuda.so
    COMMAND ${MT_NVCC} -shared -cudart shared -o ${CMAKE_BINARY_DIR}/libmoetrain_cuda.so
            ${mt_cuda_objects} -lcublas ${MT_NCCL_LIBRARY} -Xlinker --no-undefined
    DEPENDS ${mt_cuda_objects} VERBATIM)
add_custom_target(cuda_module DEPENDS ${CMAKE_BINARY_DIR}/libmoetrain_cuda.so)
