# The wire's C code, generated from pados.proto: static library pados_wire.
find_program(PROTOC_C protoc-c REQUIRED)
set(PADOS_PROTO ${CMAKE_CURRENT_SOURCE_DIR}/proto/pados.proto)
set(PADOS_PROTO_OUT ${CMAKE_CURRENT_BINARY_DIR}/proto)
file(MAKE_DIRECTORY ${PADOS_PROTO_OUT})
add_custom_command(
  OUTPUT ${PADOS_PROTO_OUT}/pados.pb-c.c ${PADOS_PROTO_OUT}/pados.pb-c.h
  COMMAND ${PROTOC_C} --proto_path=${CMAKE_CURRENT_SOURCE_DIR}/proto --c_out=${PADOS_PROTO_OUT} pados.proto
  DEPENDS ${PADOS_PROTO} VERBATIM)
add_library(pados_wire STATIC ${PADOS_PROTO_OUT}/pados.pb-c.c)
target_include_directories(pados_wire PUBLIC ${PADOS_PROTO_OUT})
target_link_libraries(pados_wire PUBLIC PkgConfig::PROTOBUF_C)
