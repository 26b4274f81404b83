/* The power goes at random moments: the disk is rebuilt from a diary of every write, sync and name (tests/fault), and
 * padosd started on it. kill -9 alone cannot show a sync that is missing.
 *
 *     PADOS_SEED=n PADOS_CUTS=n PADOS_SECONDS=n (of load)
 */
#include "drills.h"

static void check_cut(const faulty *f, load_client *clients, const load_pushes *pushes, uint64_t filled,
                      uint64_t at, uint64_t seed, double *start)
{
    server other = {0};
    char why[300];
    pados_error error;
    pados_client *client;
    snprintf(other.folder, sizeof other.folder, "%.100s/cut", f->host.folder);
    assert_int_equal(shell("rm -rf %s; mkdir %s; %s --journal %s/journal --at %llu --seed %llu --out %s/data",
                           other.folder, other.folder, FAULT_REBUILD, f->host.folder, (unsigned long long)at,
                           (unsigned long long)seed, other.folder),
                     0);
    double from = seconds_now();
    server_start(&other, load_sets);
    *start += seconds_now() - from;
    must(pados_open(other.url, NULL, &client, &error), error);
    bool well = at < filled || load_check(clients, LOAD_CLIENTS, client, at, why);
    if (well) well = load_check_pushes(pushes, client, at, why);
    if (!well)
        fail_msg("cut at %llu, seed %llu: %s (%s)", (unsigned long long)at, (unsigned long long)seed, why,
                 f->host.folder);
    pados_close(client);
    server_kill(&other);
}

static void test_no_power_cut_loses_what_was_acknowledged(void **state)
{
    (void)state;
    static load_client clients[LOAD_CLIENTS];
    static load_pushes pushes;
    static faulty f;
    atomic_bool stop = false;
    uint64_t seed = seed_of_run();
    uint32_t cuts = (uint32_t)number_of("PADOS_CUTS", 12), acknowledged = 0;
    pados_error error;
    double start = 0;
    faulty_start(&f, load_sets, true);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_open(&clients[c], &f.host, c, seed, 20000, f.state);
    load_fill(clients);
    uint64_t filled = atomic_load(&f.state->journal);
    pados_options patient = {.timeout_ms = 20000};
    pushes = (load_pushes){.host = &f.host, .diary = f.state};
    must(pados_open(f.host.url, &patient, &pushes.client, &error), error);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_start(&clients[c], &stop);
    load_push_start(&pushes, &stop);
    wait_ms((uint32_t)number_of("PADOS_SECONDS", 2) * 1000);
    atomic_store(&stop, true);
    pthread_join(pushes.thread, NULL);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++) {
        pthread_join(clients[c].thread, NULL);
        if (clients[c].refused) fail_msg("client %u: refused: %s", c, clients[c].last_message);
        if (clients[c].wrong[0]) fail_msg("client %u: %s", c, clients[c].wrong);
        acknowledged += clients[c].acknowledged;
    }
    if (pushes.wrong[0]) fail_msg("%s", pushes.wrong);
    uint64_t end = atomic_load(&f.state->journal);
    server_kill(&f.host);
    double from = seconds_now();
    for (uint32_t i = 0; i < cuts; i++) {
        uint64_t at = model_random(&seed) % (end + 1);
        /* Every third just when a write was acknowledged. */
        const load_client *c = &clients[i % LOAD_CLIENTS];
        if (i % 3 == 0 && c->count) at = c->writes[model_below(&seed, c->count)].acknowledged;
        if (at > end) at = end;
        check_cut(&f, clients, &pushes, filled, at, model_random(&seed) >> 34, &start);
    }
    print_message(
        "%u cuts of a diary of %.1f MiB, %u writes acknowledged in it, %u pushes, %u rebuilds: 0 lost; "
        "%.0f s, of which %.0f s were starts\n",
        cuts, (double)end / (1 << 20), acknowledged, pushes.count, pushes.rebuilds, seconds_now() - from,
        start);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_close(&clients[c]);
    pados_close(pushes.client);
    faulty_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_power_cut_loses_what_was_acknowledged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
