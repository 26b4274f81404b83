# Tables, versions, uploads, jobs, profiles and the administration requests.
add_library(pados_catalog STATIC
  catalog.c tables.c push.c push_send.c jobs.c incoming.c load.c switch.c publish.c sample.c compare.c profiles.c gauges.c admin.c
  batch.c batch_bind.c batch_forget.c writer.c held.c follow.c rebuild.c upkeep.c erase.c erase_job.c receipt.c export.c carry.c
  snapshot_write.c snapshot_read.c snapshot_restore.c)
target_include_directories(pados_catalog PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(pados_catalog PUBLIC pados_store pados_profile pados_wire PRIVATE pados_flags m)
