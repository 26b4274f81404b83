pados_test(ingest build pados_store)
pados_test(ingest version pados_store PkgConfig::JANSSON)
pados_test(ingest resident pados_store)
pados_test(ingest calibrate pados_store)
