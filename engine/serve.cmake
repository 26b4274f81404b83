# padosd: sockets, queue, executor, search requests, HTTP.
find_package(nng REQUIRED CONFIG)

# The executor and the log: what the catalog needs of the serving half.
add_library(pados_executor STATIC executor.c executor_background.c log.c recall_book.c)
target_include_directories(pados_executor PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_executor PUBLIC pados_store PRIVATE pados_flags)
target_link_libraries(pados_catalog PUBLIC pados_executor)

add_library(pados_serve STATIC
  config.c config_change.c wire.c metrics.c workers.c tokens.c net.c conn.c http.c exact.c
  request_check.c request.c resolve.c search_task.c reply.c recall.c recall_sample.c
  serve.c writes.c pages.c server.c reload.c)
target_include_directories(pados_serve PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(pados_serve PUBLIC PADOS_VERSION="${PROJECT_VERSION}")
target_link_libraries(pados_serve PUBLIC pados_executor pados_catalog pados_plan pados_wire PRIVATE nng::nng pados_flags)

add_executable(padosd main.c)
target_link_libraries(padosd PRIVATE pados_serve pados_flags)
