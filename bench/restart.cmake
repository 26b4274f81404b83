# pados-restart-bench: how fast a version is loaded, against the disk's own speed.
add_executable(pados-restart-bench restart_bench.c)
target_link_libraries(pados-restart-bench PRIVATE pados_store pados_readers PkgConfig::JANSSON pados_flags)
