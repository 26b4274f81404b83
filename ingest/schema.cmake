# Schemas and the strict libconfig wrapper.
add_library(pados_schema STATIC conf.c conf_scan.c conf_set.c schema.c schema_parse.c schema_text.c attribute.c)
target_include_directories(pados_schema PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_schema PUBLIC pados_kernels PRIVATE PkgConfig::LIBCONFIG pados_flags m)
