# Compilers, warnings, sanitizers: one interface target that every room uses.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
# -O3 without -ffast-math: results are part of the promise. Assertions stay on (MT_ASSERT).
set(CMAKE_C_FLAGS_RELEASE "-O3")
set(CMAKE_CXX_FLAGS_RELEASE "-O2")

execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} rev-parse --short=12 HEAD
    OUTPUT_VARIABLE MT_REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT MT_REVISION)
    set(MT_REVISION unknown)
endif()

add_library(mt_options INTERFACE)
target_compile_definitions(mt_options INTERFACE _GNU_SOURCE MT_VERSION="${PROJECT_VERSION}"
                           MT_REVISION="${MT_REVISION}")
target_compile_options(mt_options INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wformat=2 -fno-math-errno -fno-trapping-math
    $<$<COMPILE_LANGUAGE:C>:-Wconversion -Wstrict-prototypes -Wmissing-prototypes
                            -Wdouble-promotion>)
# Ranks compare their plans in every build that is not for production (src/moe/plan_check.c).
target_compile_definitions(mt_options INTERFACE $<$<NOT:$<CONFIG:Release>>:MT_CHECK_PLANS>)
# One multiply-add rounding everywhere: contraction would make a kernel's result depend on the
# compiler's mood and on the instruction set that was picked at run time.
target_compile_options(mt_options INTERFACE -ffp-contract=off)
if(MT_WERROR)
    target_compile_options(mt_options INTERFACE -Werror)
endif()
if(MT_SANITIZE)
    target_compile_options(mt_options INTERFACE -fsanitize=${MT_SANITIZE}
                           -fno-omit-frame-pointer -fno-sanitize-recover=undefined -g)
    target_link_options(mt_options INTERFACE -fsanitize=${MT_SANITIZE})
endif()
