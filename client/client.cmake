# libpados (libpados.a, libpados.so) and the pados command.
pkg_check_modules(CLIENT_XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(CLIENT_JANSSON REQUIRED IMPORTED_TARGET jansson)
find_package(Threads REQUIRED)
set_target_properties(pados_wire PROPERTIES POSITION_INDEPENDENT_CODE ON)

add_library(pados_client_objects OBJECT link.c connection.c search.c result.c admin.c push.c write.c
  erase.c)
set_target_properties(pados_client_objects PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_include_directories(pados_client_objects
  PUBLIC ${CMAKE_CURRENT_SOURCE_DIR} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/../kernels)
target_link_libraries(pados_client_objects
  PUBLIC pados_wire PRIVATE pados_flags nng::nng PkgConfig::CLIENT_XXHASH)

add_library(pados_client STATIC $<TARGET_OBJECTS:pados_client_objects>)
set_target_properties(pados_client PROPERTIES OUTPUT_NAME pados)
target_include_directories(pados_client PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_client PUBLIC pados_wire PRIVATE nng::nng PkgConfig::CLIENT_XXHASH Threads::Threads)

add_library(pados_client_shared SHARED $<TARGET_OBJECTS:pados_client_objects>)
set_target_properties(pados_client_shared PROPERTIES OUTPUT_NAME pados VERSION ${PROJECT_VERSION} SOVERSION 0
  LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/libpados.map)
target_include_directories(pados_client_shared PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_options(pados_client_shared PRIVATE -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/libpados.map)
target_link_libraries(pados_client_shared
  PRIVATE pados_wire nng::nng PkgConfig::CLIENT_XXHASH Threads::Threads)

add_executable(pados command/main.c command/args.c command/connect.c command/output.c command/query.c
  command/files.c command/titles.c command/hits.c command/cmd_push.c command/cmd_search.c command/cmd_table.c
  command/cmd_profile.c command/cells.c command/batches.c command/cmd_upsert.c command/cmd_update.c
  command/cmd_erase.c)
target_link_libraries(pados PRIVATE pados_client pados_readers pados_kernels PkgConfig::CLIENT_JANSSON pados_flags)

# Packages found here are linked to from other folders through pados_client: let them be seen there.
get_property(found_here DIRECTORY PROPERTY IMPORTED_TARGETS)
foreach(imported nng::nng PkgConfig::PROTOBUF_C PkgConfig::CLIENT_XXHASH PkgConfig::CLIENT_JANSSON Threads::Threads)
  if(imported IN_LIST found_here)
    set_target_properties(${imported} PROPERTIES IMPORTED_GLOBAL TRUE)
  endif()
endforeach()
