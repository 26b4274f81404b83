/* A full disk: writes are refused with RESOURCE_EXHAUSTED, searches go on, nothing is corrupt, and with space it goes on. */
#include "drills.h"

#include <sys/mount.h>

typedef struct filling {
    server *host;
    load_client clients[LOAD_CLIENTS];
} filling;

static void must_hold(filling *x, const char *when)
{
    char why[300];
    pados_error error;
    pados_client *checker;
    must(pados_open(x->host->url, NULL, &checker, &error), error);
    if (!load_check(x->clients, LOAD_CLIENTS, checker, UINT64_MAX, why)) fail_msg("%s: %s", when, why);
    pados_close(checker);
}

/* Steps until one is refused. */
static bool write_until_refused(filling *x, uint32_t most)
{
    for (uint32_t i = 0; i < most; i++) {
        load_client *c = &x->clients[i % LOAD_CLIENTS];
        uint32_t before = c->refused;
        if (!load_step(c, (int)(i / LOAD_CLIENTS % 4)))
            fail_msg("a write on a full disk: %s %s", pados_status_name(c->last_error), c->wrong);
        if (c->refused == before) continue;
        assert_int_equal(c->last_error, RESOURCE_EXHAUSTED);
        return true;
    }
    return false;
}

static void write_well(filling *x, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        load_client *c = &x->clients[i % LOAD_CLIENTS];
        uint32_t before = c->refused;
        if (!load_step(c, (int)(i % 4)) || c->refused != before)
            fail_msg("with space, a write is answered %s %s", pados_status_name(c->last_error),
                     c->last_message);
    }
}

static void open_all(filling *x, uint64_t seed)
{
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_open(&x->clients[c], x->host, c, seed, 10000, NULL);
    load_fill(x->clients);
    write_well(x, 30);
}

static void close_all(filling *x)
{
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_close(&x->clients[c]);
}

#ifdef FAULT_LIBRARY
static void test_a_full_disk_refuses_writes_and_serves(void **state)
{
    (void)state;
    static faulty f;
    static filling x;
    uint64_t seed = seed_of_run();
    faulty_start(&f, load_sets, false);
    x.host = &f.host;
    open_all(&x, seed);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(shell("touch %s/full", f.host.folder), 0);
        /* The log's file may have room left inside. */
        assert_true(write_until_refused(&x, 20000));
        must_hold(&x, "full");
        pados_error error;
        uint64_t version;
        must_fail(pados_rebuild(x.clients[0].client, "t", NULL, NULL, &version, &error), error,
                  RESOURCE_EXHAUSTED, "");
        must_hold(&x, "full, after a rebuild");
        if (round == 1) {
            server_kill(&f.host);
            faulty_start(&f, load_sets, false);
            must_hold(&x, "full, started again");
        }
        assert_int_equal(shell("rm %s/full", f.host.folder), 0);
        write_well(&x, 60);
        must_hold(&x, "space again");
        server_kill(&f.host);
        faulty_start(&f, load_sets, false);
        must_hold(&x, "space again, started again");
    }
    close_all(&x);
    server_kill(&f.host);
    faulty_end(&f);
}
#endif

static void test_a_small_disk_fills_and_empties(void **state)
{
    (void)state;
    static server host;
    static filling x;
    uint64_t seed = seed_of_run();
    char folder[] = "/tmp/pados-full-XXXXXX";
    assert_non_null(mkdtemp(folder));
    if (mount("pados", folder, "tmpfs", 0, "size=24m") != 0) {
        rmdir(folder);
        print_message("no file system can be mounted here\n");
        skip();
    }
    snprintf(host.folder, sizeof host.folder, "%s/host", folder);
    assert_int_equal(mkdir(host.folder, 0755), 0);
    x = (filling){.host = &host};
    server_start(&host, load_sets);
    open_all(&x, seed);
    /* cat ends with an error when the disk is full, which is what is wanted. */
    (void)!shell("cat /dev/zero >%s/filler 2>/dev/null", folder);
    bool refused = write_until_refused(&x, 20000);
    if (refused) must_hold(&x, "full");
    unlink(strcat(strcpy((char[64]){0}, folder), "/filler"));
    if (refused) write_well(&x, 60);
    if (refused) must_hold(&x, "space again");
    server_kill(&host);
    if (refused) {
        server_start(&host, load_sets);
        must_hold(&x, "space again, started again");
        server_kill(&host);
    }
    close_all(&x);
    assert_int_equal(umount(folder), 0);
    rmdir(folder);
    assert_true(refused);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef FAULT_LIBRARY
        cmocka_unit_test(test_a_full_disk_refuses_writes_and_serves),
#endif
        cmocka_unit_test(test_a_small_disk_fills_and_empties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
