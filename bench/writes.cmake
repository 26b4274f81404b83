# pados-writes: what changes cost a table that serves, and those who search it meanwhile.
add_executable(pados-writes
  writes.c writes_server.c writes_load.c writes_ceilings.c generate.c)
target_include_directories(pados-writes PRIVATE ${CMAKE_SOURCE_DIR}/engine)
target_link_libraries(pados-writes PRIVATE
  pados_client pados_wire pados_changes pados_store pados_readers PkgConfig::JANSSON pados_flags)
