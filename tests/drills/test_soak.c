/* Mixed load for a while: nothing goes wrong and memory stays flat.
 *
 *     PADOS_SEED=n PADOS_SECONDS=n
 */
#include "drills.h"

enum { SAMPLES = 40000, EVERY_MS = 100 };

static int by_size(const void *left, const void *right)
{
    uint64_t l = *(const uint64_t *)left, r = *(const uint64_t *)right;
    return (l > r) - (l < r);
}

/* MiB. Pushes and rebuilds come and go: the middle says more than the top. */
static double median(uint64_t *samples, uint32_t n)
{
    qsort(samples, n, sizeof *samples, by_size);
    return n ? (double)samples[n / 2] / (1 << 20) : 0;
}

static void test_memory_stays_flat_under_mixed_load(void **state)
{
    (void)state;
    static load_client clients[LOAD_CLIENTS];
    static load_pushes pushes;
    static server host;
    atomic_bool stop = false;
    static uint64_t samples[SAMPLES];
    uint64_t seed = seed_of_run();
    uint32_t n = 0;
    uint32_t seconds = (uint32_t)number_of("PADOS_SECONDS", 15), writes = 0, searches = 0;
    char why[300];
    pados_error error;
    server_start(&host, load_sets);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_open(&clients[c], &host, c, seed, 20000, NULL);
    load_fill(clients);
    pados_options patient = {.timeout_ms = 20000};
    pushes = (load_pushes){.host = &host};
    must(pados_open(host.url, &patient, &pushes.client, &error), error);
    if (!load_push(&pushes, 1, false)) fail_msg("%s", pushes.wrong);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_start(&clients[c], &stop);
    load_push_start(&pushes, &stop);
    for (double end = seconds_now() + seconds; seconds_now() < end && n < SAMPLES;) {
        wait_ms(EVERY_MS);
        samples[n++] = server_own(&host);
    }
    atomic_store(&stop, true);
    pthread_join(pushes.thread, NULL);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++) {
        pthread_join(clients[c].thread, NULL);
        if (clients[c].refused) fail_msg("client %u: refused: %s", c, clients[c].last_message);
        if (clients[c].wrong[0]) fail_msg("client %u: %s", c, clients[c].wrong);
        if (clients[c].unknown) fail_msg("client %u: a write was not answered", c);
        writes += clients[c].acknowledged;
        searches += clients[c].searches;
    }
    if (pushes.wrong[0]) fail_msg("%s", pushes.wrong);
    if (!load_check(clients, LOAD_CLIENTS, clients[0].client, UINT64_MAX, why) ||
        !load_check_pushes(&pushes, clients[0].client, UINT64_MAX, why))
        fail_msg("%s", why);
    uint32_t fifth = n / 5;
    double warm = median(samples + fifth, fifth), end = median(samples + n - fifth, fifth);
    print_message(
        "%u s: %u writes, %u searches, %u pushes, %u rebuilds; memory of its own %.1f MiB in the second "
        "fifth, %.1f MiB in "
        "the last (medians)\n",
        seconds, writes, searches, pushes.count, pushes.rebuilds, warm, end);
#if !defined(__SANITIZE_ADDRESS__) &&                                                                        \
    !defined(__SANITIZE_THREAD__) /* which keep memory for reasons of their own */
    /* Short runs end before the memory has met everything at once. */
    if (end > warm * (seconds < 300 ? 1.2 : 1.05)) fail_msg("memory grows");
#endif
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_close(&clients[c]);
    pados_close(pushes.client);
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory_stays_flat_under_mixed_load)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
