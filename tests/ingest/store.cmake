pados_test(ingest build pados_store)
