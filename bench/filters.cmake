# pados-filters-bench: hard filters by kind and selectivity, on a table of its own making.
add_executable(pados-filters-bench filters_bench.c)
target_include_directories(pados-filters-bench PRIVATE ${CMAKE_SOURCE_DIR}/engine)
target_link_libraries(pados-filters-bench PRIVATE pados_plan pados_store pados_readers pados_flags)
