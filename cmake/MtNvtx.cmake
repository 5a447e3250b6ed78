# Spans as ranges of NVIDIA's profilers (Nsight Systems): -DMT_NVTX=ON. Takes headers of the CUDA
# toolkit, no library; without a profiler a range costs the test of a pointer.
option(MT_NVTX "Tell NVIDIA's profilers of the step's phases; needs the CUDA toolkit's headers" OFF)
if(MT_NVTX)
    find_path(MT_NVTX_FOLDER nvtx3/nvToolsExt.h HINTS ENV CUDA_HOME PATHS /usr/local/cuda
              PATH_SUFFIXES include REQUIRED)
    set_source_files_properties(src/base/ranges.c PROPERTIES COMPILE_DEFINITIONS MT_NVTX)
    target_include_directories(mt_base SYSTEM PRIVATE ${MT_NVTX_FOLDER})
    target_link_libraries(mt_base PUBLIC ${CMAKE_DL_LIBS})
endif()
