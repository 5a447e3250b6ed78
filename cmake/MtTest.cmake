# mt_test(test_gate ROOM moe LABELS unit quick [RANKS 1 2 3] [SOURCES extra.c])
# builds tests/<dir>/test_gate.c against the room (and the rooms above it) and registers it, with the
# source tree in $MT_SOURCE:
# once without mpirun, or once per rank count with it. Names are <room>.<test>[.np<R>].
find_package(PkgConfig REQUIRED)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)

set(MT_MPIRUN timeout -k 5 300 ${MPIEXEC_EXECUTABLE} -q --oversubscribe --allow-run-as-root
    --bind-to none --mca btl_vader_single_copy_mechanism none)
# pml=ob1 is what Open MPI chooses on one machine, after it has looked for Omni-Path for 0.1 to 0.2 s a
# start; the tests start moetrain more than a thousand times.
set(MT_TEST_ENV "OMP_NUM_THREADS=1" "OMPI_MCA_mpi_yield_when_idle=1" "OMPI_MCA_pml=ob1" "OMP_WAIT_POLICY=passive"
    "ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:exitcode=99" "UBSAN_OPTIONS=print_stacktrace=1"
    "MT_SOURCE=${CMAKE_SOURCE_DIR}")
# A shim of pyenv or asdf takes 0.2 s to find the interpreter, at each of the scripts' hundreds of calls: they are given
# the interpreter itself. The folder before their PATH holds nothing else, so no other program is found elsewhere by it.
execute_process(COMMAND python3 -c "import sys; print(sys.executable)"
                OUTPUT_VARIABLE mt_python OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(mt_python)
    set(mt_python_folder ${CMAKE_BINARY_DIR}/tests/python)
    file(WRITE ${mt_python_folder}/python3 "#!/bin/sh\nexec '${mt_python}' \"$@\"\n")
    file(CHMOD ${mt_python_folder}/python3 PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endif()

function(mt_test name)
    cmake_parse_arguments(T "" "ROOM;TIMEOUT" "LABELS;RANKS;SOURCES" ${ARGN})
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 300)
    endif()
    add_executable(${name} ${name}.c ${T_SOURCES})
    target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_link_libraries(${name} PRIVATE mt_test_support mt_${T_ROOM} PkgConfig::CMOCKA)
    if(NOT T_RANKS)
        add_test(NAME ${T_ROOM}.${name} COMMAND ${name})
        set_tests_properties(${T_ROOM}.${name} PROPERTIES LABELS "${T_LABELS}"
            TIMEOUT ${T_TIMEOUT} ENVIRONMENT "${MT_TEST_ENV}")
    endif()
    foreach(ranks IN LISTS T_RANKS)
        set(cores 2)
        if(ranks EQUAL 1)
            set(cores 1)
        endif()
        add_test(NAME ${T_ROOM}.${name}.np${ranks}
                 COMMAND ${MT_MPIRUN} -np ${ranks} $<TARGET_FILE:${name}>)
        set_tests_properties(${T_ROOM}.${name}.np${ranks} PROPERTIES LABELS "${T_LABELS}"
            TIMEOUT ${T_TIMEOUT} ENVIRONMENT "${MT_TEST_ENV}" PROCESSORS ${cores})
    endforeach()
endfunction()

# mt_script_test(exit_codes DIR cli LABELS fault) registers tests/<dir>/<name>.sh, which finds the
# program in $MOETRAIN, the source tree in $MT_SOURCE and may write below its own $PWD.
function(mt_script_test name)
    cmake_parse_arguments(T "" "DIR;TIMEOUT" "LABELS" ${ARGN})
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 300)
    endif()
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/tests/${T_DIR}/${name}.dir)
    add_test(NAME ${T_DIR}.${name} COMMAND bash ${CMAKE_SOURCE_DIR}/tests/${T_DIR}/${name}.sh
             WORKING_DIRECTORY ${CMAKE_BINARY_DIR}/tests/${T_DIR}/${name}.dir)
    set_tests_properties(${T_DIR}.${name} PROPERTIES LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT}
        ENVIRONMENT "${MT_TEST_ENV};MOETRAIN=${CMAKE_BINARY_DIR}/moetrain;MT_BUILD=${CMAKE_BINARY_DIR}")
    if(mt_python_folder)
        set_tests_properties(${T_DIR}.${name} PROPERTIES
            ENVIRONMENT_MODIFICATION "PATH=path_list_prepend:${mt_python_folder}")
    endif()
endfunction()
