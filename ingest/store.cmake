# Version files, building, residents, exact search and calibration.
add_library(pados_store STATIC
  files.c manifest.c curve.c lists_file.c version.c version_names.c ahead.c version_load.c version_find.c exact.c snapshot.c
  scrub.c scrub_pages.c scrub_lists.c
  idmap.c ranges.c postings.c resident.c
  live_places.c live_postings.c live_encode.c live_stage.c live_apply.c live_exact.c counter.c
  build.c build_rows.c build_columns.c build_given.c build_lists.c build_groups.c build_project.c build_write.c principal.c
  weights.c calibrate.c calibrate_curve.c)
target_include_directories(pados_store PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_store PUBLIC pados_kernels pados_schema pados_readers pados_flags PkgConfig::JANSSON
  PRIVATE PkgConfig::XXHASH m)
