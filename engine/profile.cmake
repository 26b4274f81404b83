# Profiles: parsed, checked, compiled with a context, explained.
add_library(pados_profile STATIC profile.c profile_parse.c compile.c compile_override.c compile_filter.c explain.c)
target_include_directories(pados_profile PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
# Weights are the same wherever they are compiled.
target_compile_options(pados_profile PRIVATE -ffp-contract=off)
target_link_libraries(pados_profile PUBLIC pados_schema PRIVATE pados_flags m)
