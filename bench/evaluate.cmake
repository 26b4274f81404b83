# pados-evaluate: hit rate and recall on the held-out weeks, asked of a running padosd.
add_executable(pados-evaluate evaluate.c)
target_link_libraries(pados-evaluate PRIVATE pados_client pados_readers pados_flags)
