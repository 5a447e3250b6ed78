# `cmake --install`: the program, its man page and the example configurations.
include(GNUInstallDirs)
if(TARGET moetrain)
    install(TARGETS moetrain RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/moetrain.1
        COMMAND moetrain --man > ${CMAKE_BINARY_DIR}/moetrain.1 DEPENDS moetrain VERBATIM)
    add_custom_target(man ALL DEPENDS ${CMAKE_BINARY_DIR}/moetrain.1)
    # All that is installed, without tests.
    add_custom_target(program DEPENDS moetrain man mtplace_shared mtplace_static)
    install(FILES ${CMAKE_BINARY_DIR}/moetrain.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
    install(DIRECTORY ${CMAKE_SOURCE_DIR}/configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/moetrain/configs)
endif()
