/* kill -9 at random moments under mixed load: whatever was acknowledged is there after the start, what was deleted is not,
 * and a write that is sent again across the crash is done once.
 *
 *     PADOS_SEED=n PADOS_ROUNDS=n
 */
#include "drills.h"

/* Writes of the last client wait for the next life; those of the others end with the connection. */
enum { PATIENT = LOAD_CLIENTS - 1 };

static void test_no_crash_loses_what_was_acknowledged(void **state)
{
    (void)state;
    static load_client clients[LOAD_CLIENTS];
    static load_pushes pushes;
    static server host;
    uint64_t seed = seed_of_run();
    uint32_t rounds = (uint32_t)number_of("PADOS_ROUNDS", 8), open = 0;
    double slowest = 0;
    char why[300];
    pados_error error;
    server_start(&host, load_sets);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_open(&clients[c], &host, c, seed, c == PATIENT ? 20000 : 400, NULL);
    load_fill(clients);
    pados_options short_one = {.timeout_ms = 2000, .connect_ms = 20000};
    pados_client *checker;
    pushes = (load_pushes){.host = &host};
    must(pados_open(host.url, &short_one, &pushes.client, &error), error);
    if (!load_push(&pushes, 1, false)) fail_msg("%s", pushes.wrong);
    for (uint32_t round = 1; round <= rounds; round++) {
        atomic_bool stop = false;
        uint32_t ms = 5 + model_below(&seed, model_below(&seed, 4) ? 200 : 1200);
        for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
            load_start(&clients[c], &stop);
        load_push_start(&pushes, &stop);
        wait_ms(ms);
        server_kill(&host);
        double from = seconds_now();
        server_start(&host, load_sets);
        double took = seconds_now() - from;
        slowest = took > slowest ? took : slowest;
        atomic_store(&stop, true);
        for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
            pthread_join(clients[c].thread, NULL);
        pthread_join(pushes.thread, NULL);
        for (uint32_t c = 0; c < LOAD_CLIENTS; c++) {
            if (clients[c].refused) fail_msg("client %u: refused: %s", c, clients[c].last_message);
            if (clients[c].wrong[0]) fail_msg("round %u, client %u: %s", round, c, clients[c].wrong);
        }
        open += clients[0].count && clients[0].writes[clients[0].count - 1].acknowledged == UINT64_MAX;
        must(pados_open(host.url, NULL, &checker, &error), error);
        if (!load_check(clients, LOAD_CLIENTS, checker, UINT64_MAX, why))
            fail_msg("round %u, killed after %u ms: %s (%s)", round, ms, why, host.folder);
        if (!load_check_pushes(&pushes, checker, UINT64_MAX, why))
            fail_msg("round %u, killed after %u ms: %s (%s)", round, ms, why, host.folder);
        pados_close(checker);
    }
    uint32_t acknowledged = 0, repeated = 0;
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++) {
        acknowledged += clients[c].acknowledged;
        repeated += clients[c].repeated;
        load_close(&clients[c]);
    }
    print_message(
        "%u crashes, %u writes acknowledged, 0 lost, %u open at a crash, %u found done when sent again, "
        "%u pushes begun, slowest start %.2f s\n",
        rounds, acknowledged, open, repeated, pushes.count, slowest);
    pados_close(pushes.client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_crash_loses_what_was_acknowledged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
