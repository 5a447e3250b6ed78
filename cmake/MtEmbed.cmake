# Files of the report's page, as strings of the program: src/profile/report_assets.h. As a script
# (cmake -P), writes the source; included, adds the rule that runs it whenever a file changes.
set(MT_REPORT_PAGE_HTML page.html)
set(MT_REPORT_STYLE_CSS style.css)
set(MT_REPORT_SCRIPT_JS base.js charts.js sections.js)

if(CMAKE_SCRIPT_MODE_FILE)
    set(text "#include \"profile/report_assets.h\"\n")
    foreach(name page_html style_css script_js)
        string(TOUPPER MT_REPORT_${name} files)
        set(bytes "")
        foreach(file IN LISTS ${files})
            file(READ ${MT_FOLDER}/${file} hex HEX)
            string(APPEND bytes "${hex}")
        endforeach()
        string(REGEX REPLACE "(........................)" "\\1\n" bytes "${bytes}")
        string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${bytes}")
        string(APPEND text "const char mt_asset_${name}[] = {\n${bytes}0\n};\n")
    endforeach()
    file(WRITE ${MT_OUTPUT} "${text}")
    return()
endif()

set(mt_report_folder ${CMAKE_SOURCE_DIR}/src/profile/report)
set(mt_report_assets ${CMAKE_BINARY_DIR}/generated/report_assets.c)
list(TRANSFORM MT_REPORT_PAGE_HTML PREPEND ${mt_report_folder}/ OUTPUT_VARIABLE mt_report_files)
foreach(file IN LISTS MT_REPORT_STYLE_CSS MT_REPORT_SCRIPT_JS)
    list(APPEND mt_report_files ${mt_report_folder}/${file})
endforeach()
add_custom_command(OUTPUT ${mt_report_assets}
    COMMAND ${CMAKE_COMMAND} -DMT_FOLDER=${mt_report_folder} -DMT_OUTPUT=${mt_report_assets}
            -P ${CMAKE_CURRENT_LIST_DIR}/MtEmbed.cmake
    DEPENDS ${mt_report_files} ${CMAKE_CURRENT_LIST_DIR}/MtEmbed.cmake VERBATIM)
target_sources(mt_profile PRIVATE ${mt_report_assets})
