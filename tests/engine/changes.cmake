pados_test(engine changes pados_changes)
