# libmtplace: the planners of placement/ for other programs, static and shared. It takes the few files
# of base/ that they need, none of which knows MPI, and shows nothing but include/mtplace.h.
include(GNUInstallDirs)
file(GLOB mtplace_face CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/placement/library/*.c)
file(GLOB mtplace_planners CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/placement/*.c)
list(FILTER mtplace_planners EXCLUDE REGEX "/bench\\.c$") # measures planners, is none
foreach(file memory memory_limit random size status)
    list(APPEND mtplace_planners ${CMAKE_SOURCE_DIR}/src/base/${file}.c)
endforeach()
# Compiled once for both kinds. All of them are in the database of compile commands as files of their
# rooms already: clang-tidy would take each twice.
add_library(mtplace_face OBJECT ${mtplace_face})
add_library(mtplace_planners OBJECT ${mtplace_planners})
foreach(target mtplace_face mtplace_planners)
    target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src
                               ${CMAKE_SOURCE_DIR}/include)
    target_link_libraries(${target} PRIVATE mt_options)
    set_target_properties(${target} PROPERTIES C_VISIBILITY_PRESET hidden
                          EXPORT_COMPILE_COMMANDS OFF)
endforeach()
foreach(kind SHARED STATIC)
    string(TOLOWER mtplace_${kind} target)
    add_library(${target} ${kind} $<TARGET_OBJECTS:mtplace_face>
                $<TARGET_OBJECTS:mtplace_planners>)
    target_include_directories(${target} PUBLIC ${CMAKE_SOURCE_DIR}/include)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:mt_options> PUBLIC m)
    set_target_properties(${target} PROPERTIES OUTPUT_NAME mtplace
                          VERSION ${PROJECT_VERSION} SOVERSION 1)
endforeach()
target_link_options(mtplace_shared PRIVATE -Wl,--no-undefined)
install(TARGETS mtplace_shared mtplace_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${CMAKE_SOURCE_DIR}/include/mtplace.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
