pados_test(engine plan pados_plan)
