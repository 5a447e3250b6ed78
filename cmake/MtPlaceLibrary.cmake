# libmtplace: the planners of placement/ for other programs, static and shared. It takes the few files
# of base/ that they need, none of which knows MPI, and shows nothing but include/mtplace.h.
include(GNUInstallDirs)
file(GLOB mtplace_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/placement/*.c
     ${CMAKE_SOURCE_DIR}/src/placement/library/*.c)
list(FILTER mtplace_sources EXCLUDE REGEX "/bench\\.c$") # measures planners, is none
foreach(file memory memory_limit random size status)
    list(APPEND mtplace_sources ${CMAKE_SOURCE_DIR}/src/base/${file}.c)
endforeach()
foreach(kind SHARED STATIC)
    string(TOLOWER mtplace_${kind} target)
    add_library(${target} ${kind} ${mtplace_sources})
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src
                               PUBLIC ${CMAKE_SOURCE_DIR}/include)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:mt_options> PUBLIC m)
    set_target_properties(${target} PROPERTIES OUTPUT_NAME mtplace C_VISIBILITY_PRESET hidden
                          VERSION ${PROJECT_VERSION} SOVERSION 1)
endforeach()
target_link_options(mtplace_shared PRIVATE -Wl,--no-undefined)
install(TARGETS mtplace_shared mtplace_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_SOURCE_DIR}/include/mtplace.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
