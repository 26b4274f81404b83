# Planning: path, probes and rows from postings for a compiled context; diversity caps.
add_library(pados_plan STATIC plan.c plan_filter.c diversify.c)
target_include_directories(pados_plan PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_plan PUBLIC pados_store pados_profile PRIVATE pados_flags m)
