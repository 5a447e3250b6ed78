# Messages of TensorBoard's event files, as C by protoc-c: <event.pb-c.h> for train/events.c.
set(mt_proto ${CMAKE_SOURCE_DIR}/src/train/event.proto)
set(mt_proto_folder ${CMAKE_BINARY_DIR}/generated)
file(MAKE_DIRECTORY ${mt_proto_folder})
add_custom_command(OUTPUT ${mt_proto_folder}/event.pb-c.c ${mt_proto_folder}/event.pb-c.h
    COMMAND ${PROTOC_C} --c_out=${mt_proto_folder} -I ${CMAKE_SOURCE_DIR}/src/train ${mt_proto}
    DEPENDS ${mt_proto} VERBATIM)
set_source_files_properties(${mt_proto_folder}/event.pb-c.c PROPERTIES COMPILE_OPTIONS -w)
target_sources(mt_train PRIVATE ${mt_proto_folder}/event.pb-c.c ${mt_proto_folder}/event.pb-c.h)
target_include_directories(mt_train SYSTEM PRIVATE ${mt_proto_folder})
