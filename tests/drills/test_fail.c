/* Every call fails once, in turn: writes, syncs, changes of names and allocations of a sequence of writes, of a push and of a
 * rebuild. An error is answered, what is served and what a restart finds are what the client was told, and service goes on.
 *
 *     PADOS_SEED=n PADOS_STRIDE=n (1: every call)
 */
#include "drills.h"

#include <errno.h>

typedef struct failing {
    faulty f;
    load_client clients[LOAD_CLIENTS]; /* the first one writes; the others' rows must stay */
    load_pushes pushes;
    uint32_t refused, unknown, silent, restarts;
} failing;

static void arm(failing *x, uint32_t class, uint64_t n, int32_t error, bool made)
{
    pd_fault_state *s = x->f.state;
    atomic_store(&s->class, PD_FAULT_NONE);
    atomic_store(&s->at, 0);
    atomic_store(&s->calls, 0);
    atomic_store(&s->error, error);
    atomic_store(&s->made, made);
    s->what[0] = 0;
    atomic_store(&s->at, n);
    atomic_store(&s->class, class);
}

static void disarm(failing *x)
{
    atomic_store(&x->f.state->class, PD_FAULT_NONE);
}

static void must_hold(failing *x, const char *when)
{
    char why[300];
    int status;
    if (waitpid(x->f.host.pid, &status, WNOHANG) != 0)
        fail_msg("%s (%s): the server ended (%s)", when, x->f.state->what, x->f.host.folder);
    if (!load_check(x->clients, LOAD_CLIENTS, x->clients[1].client, UINT64_MAX, why) ||
        !load_check_pushes(&x->pushes, x->clients[1].client, UINT64_MAX, why))
        fail_msg("%s (%s): %s (%s)", when, x->f.state->what, why, x->f.host.folder);
}

static void sequence_of_writes(failing *x)
{
    load_client *c = &x->clients[0];
    static const int kinds[] = {LOAD_UPSERT, LOAD_UPDATE, LOAD_COUNT, LOAD_DELETE, LOAD_UPSERT};
    for (uint32_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint32_t refused = c->refused;
        char why[300];
        if (!load_step(c, kinds[i])) {
            x->unknown++;
            x->silent += c->last_error == DEADLINE_EXCEEDED;
            /* Settled at once: the next write builds upon it. */
            if (!load_check(x->clients, LOAD_CLIENTS, x->clients[1].client, UINT64_MAX, why))
                fail_msg("a write that is open: %s (%s; %s)", why, x->f.state->what, x->f.host.folder);
        }
        x->refused += c->refused != refused;
    }
}

static void a_push_and_a_rebuild(failing *x)
{
    uint64_t version;
    pados_error error;
    load_push(&x->pushes, x->pushes.count + 1, false);
    if (pados_rebuild(x->pushes.client, "t", NULL, NULL, &version, &error)) x->refused++;
}

/* fn with each call of the class failing in turn. */
static void every_call(failing *x, void (*fn)(failing *), const char *what, uint32_t class, int32_t error,
                       bool made, uint32_t stride, uint32_t each_restart)
{
    char when[120];
    arm(x, class, 0, error, made);
    fn(x);
    uint64_t calls = atomic_load(&x->f.state->calls), failed = atomic_load(&x->f.state->failed);
    disarm(x);
    must_hold(x, "counting");
    assert_true(calls > 0);
    x->refused = x->unknown = x->silent = 0;
    uint32_t done = 0;
    for (uint64_t n = 1 + (stride > 1 ? calls % stride : 0); n <= calls; n += stride, done++) {
        snprintf(when, sizeof when, "%s: class %u, call %llu of %llu, errno %d", what, class,
                 (unsigned long long)n, (unsigned long long)calls, error);
        arm(x, class, n, error, made);
        fn(x);
        disarm(x);
        must_hold(x, when);
        if (!load_step(&x->clients[0], LOAD_UPSERT))
            fail_msg("%s (%s): service does not go on: %s (%s)", when, x->f.state->what,
                     x->clients[0].last_message, x->f.host.folder);
        if (done % each_restart) continue;
        server_kill(&x->f.host);
        faulty_start(&x->f, load_sets, false);
        x->restarts++;
        must_hold(x, when);
    }
    failed = atomic_load(&x->f.state->failed) - failed;
    print_message("%-8s class %u%s: %llu calls, %llu made to fail, %u writes refused, %u open, %u of them "
                  "not answered\n",
                  what, class, made ? " (made all the same)" : "", (unsigned long long)calls,
                  (unsigned long long)failed, x->refused, x->unknown, x->silent);
    assert_true(failed > 0);
}

static void test_every_call_fails_once(void **state)
{
    (void)state;
    static failing x;
    uint64_t seed = seed_of_run();
    uint32_t stride = (uint32_t)number_of("PADOS_STRIDE", 7);
    pados_error error;
    faulty_start(&x.f, load_sets, false);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_open(&x.clients[c], &x.f.host, c, seed, 3000, NULL);
    load_fill(x.clients);
    pados_options patient = {.timeout_ms = 5000};
    x.pushes = (load_pushes){.host = &x.f.host};
    must(pados_open(x.f.host.url, &patient, &x.pushes.client, &error), error);
    if (!load_push(&x.pushes, 1, false)) fail_msg("%s", x.pushes.wrong);
    uint32_t allocations = stride * 8;
    every_call(&x, sequence_of_writes, "writes", PD_FAULT_WRITE, EIO, false, stride > 3 ? 3 : 1, 1);
    every_call(&x, sequence_of_writes, "writes", PD_FAULT_WRITE, EIO, true, stride > 3 ? 3 : 1, 1);
    every_call(&x, sequence_of_writes, "writes", PD_FAULT_WRITE, ENOSPC, false, stride > 3 ? 3 : 1, 4);
    every_call(&x, sequence_of_writes, "writes", PD_FAULT_SYNC, EIO, false, stride > 3 ? 2 : 1, 1);
    every_call(&x, sequence_of_writes, "writes", PD_FAULT_ALLOC, ENOMEM, false,
               allocations > 8 ? allocations : 1, 8);
    every_call(&x, a_push_and_a_rebuild, "push", PD_FAULT_WRITE, ENOSPC, false, stride * 2, 4);
    every_call(&x, a_push_and_a_rebuild, "push", PD_FAULT_SYNC, EIO, false, stride, 4);
    every_call(&x, a_push_and_a_rebuild, "push", PD_FAULT_RENAME, EIO, false, stride, 4);
    every_call(&x, a_push_and_a_rebuild, "push", PD_FAULT_ALLOC, ENOMEM, false,
               allocations > 8 ? allocations * 8 : 8, 16);
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        load_close(&x.clients[c]);
    pados_close(x.pushes.client);
    server_kill(&x.f.host);
    faulty_end(&x.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_call_fails_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
