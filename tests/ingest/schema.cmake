pados_test(ingest conf pados_schema)
pados_test(ingest schema pados_schema)
