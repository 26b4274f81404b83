# The log of changes, over LMDB.
pkg_check_modules(LMDB REQUIRED IMPORTED_TARGET lmdb)
add_library(pados_changes STATIC
  changes.c changes_env.c changes_check.c changes_record.c changes_read.c changes_documents.c
  changes_trim.c changes_copy.c)
target_include_directories(pados_changes PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_changes PUBLIC pados_store PkgConfig::LMDB PRIVATE pados_flags Threads::Threads)
if(TARGET pados_catalog)
  target_link_libraries(pados_catalog PUBLIC pados_changes)
endif()
