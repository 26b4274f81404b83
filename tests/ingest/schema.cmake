pados_test(ingest conf pados_schema)
pados_test(ingest schema pados_schema)
target_compile_definitions(test_ingest_schema PRIVATE PADOS_CONFIGS="${PROJECT_SOURCE_DIR}/configs")
