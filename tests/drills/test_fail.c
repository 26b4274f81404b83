/* Every call fails once, in turn: writes, syncs, changes of names and allocations of a sequence of writes, of a push and of a
 * rebuild, of an erasure and of the job that scrubs what is left of the row. An error is answered, what is served and what a restart
 * finds are what the client was told, and service goes on; what was erased is finished once nothing fails any more.
 *
 *     PADOS_SEED=n PADOS_STRIDE=n (1: every call) PADOS_ONLY=writes|push|erasure
 */
#include "drills.h"

#include <errno.h>

#include "on_disk.h"

typedef struct failing {
    faulty f;
    load_client clients[LOAD_CLIENTS]; /* the first one writes; the others' rows must stay */
    load_pushes pushes;
    uint32_t refused, unknown, silent, restarts;
    /* The erasure of the round. */
    uint32_t own, receipts; /* the row, how many receipts there were before */
    uint64_t id;
    float vector[MODEL_DIM];
    bool told; /* it was acknowledged */
} failing;

typedef struct sequence {
    const char *what;
    void (*prepare)(failing *x); /* before each round; NULL: nothing */
    void (*run)(failing *x);     /* what the calls are of */
    void (*settle)(failing *x,
                   const char *when); /* waits for what a round left to be done later; NULL: nothing */
} sequence;

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

static const sequence writes = {.what = "writes", .run = sequence_of_writes};
static const sequence push = {.what = "push", .run = a_push_and_a_rebuild};

/* ------------------------------------------------------------------------------------------------- erasures --- */

/* A row in the version's files and in the log's records, and one whose record was trimmed. */
static void a_row(failing *x)
{
    load_client *c = &x->clients[0];
    uint64_t version;
    pados_error error;
    x->own = (x->own + 1) % LOAD_IDS;
    for (int i = 0; i < 2; i++) {
        assert_true(load_step_on(c, LOAD_UPSERT, x->own));
        if (!i) must(pados_rebuild(x->pushes.client, "t", NULL, NULL, &version, &error), error);
    }
    x->id = load_row(c, x->own, x->vector);
}

/* Jobs of erasures that have ended, as the log has them: asking the server would be calls of its own. */
static uint32_t ended_jobs(const failing *x)
{
    char path[200], line[1000];
    uint32_t n = 0;
    snprintf(path, sizeof path, "%s/log", x->f.host.folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        n += strstr(line, "(erasure of ") && (strstr(line, " is done in ") || strstr(line, " failed: "));
    fclose(file);
    return n;
}

/* Until its job has ended, or the call has failed: what comes then is told afterwards. */
static void an_erasure(failing *x)
{
    load_client *c = &x->clients[0];
    uint32_t before = ended_jobs(x);
    uint64_t failed = atomic_load(&x->f.state->failed);
    x->told = load_step_on(c, LOAD_ERASE, x->own);
    x->unknown += !x->told;
    x->silent += !x->told && c->last_error == DEADLINE_EXCEEDED;
    for (int i = 0; i < 500 && ended_jobs(x) == before && atomic_load(&x->f.state->failed) == failed; i++)
        wait_ms(10);
}

static uint32_t receipts_of(failing *x, bool pending)
{
    pados_erasures *list;
    pados_error error;
    must(pados_erasures_list(x->pushes.client, pending, &list, &error), error);
    uint32_t n = (uint32_t)list->count;
    pados_erasures_free(list);
    return n;
}

/* All that was acknowledged, or begun, is finished by and by, without being asked for again, and nothing of the row is left. */
static void erased(failing *x, const char *when)
{
    char why[300], *json;
    pados_error error;
    for (int i = 0; receipts_of(x, true); i++) {
        if (i == 1200)
            fail_msg("%s (%s): an erasure stays pending (%s)", when, x->f.state->what, x->f.host.folder);
        wait_ms(100);
    }
    if (!load_check(x->clients, LOAD_CLIENTS, x->clients[1].client, UINT64_MAX, why))
        fail_msg("%s (%s): %s (%s)", when, x->f.state->what, why, x->f.host.folder);
    bool there = x->clients[0].now[x->own].there;
    uint32_t receipts = receipts_of(x, false), more = receipts - x->receipts;
    x->receipts = receipts;
    if ((x->told && there) || more != !there)
        fail_msg("%s (%s): the row is %s, of an erasure that was %s, with %u receipts (%s)", when,
                 x->f.state->what, there ? "there" : "gone", x->told ? "acknowledged" : "refused", more,
                 x->f.host.folder);
    x->refused += there;
    if (there) return;
    must(pados_export(x->pushes.client, "t", x->id, &json, &error), error);
    if (!strstr(json, "\"versions\":[]"))
        fail_msg("%s (%s): it is in a version's files: %s", when, x->f.state->what, json);
    free(json);
    if (on_disk(&x->f.host, "changes", x->vector, sizeof x->vector))
        fail_msg("%s (%s): the row's vector is still in the log (%s)", when, x->f.state->what,
                 x->f.host.folder);
}

static const sequence erasure = {"erasure", a_row, an_erasure, erased};

/* ----------------------------------------------------------------------------------------------- every call --- */

static void restart(failing *x)
{
    server_kill(&x->f.host);
    faulty_start(&x->f, load_sets, false);
    x->restarts++;
}

/* One round: the nth call fails; 0: none. now: the server is killed at once, while there may be something left to do. */
static void round_of(failing *x, const sequence *s, uint32_t class, uint64_t n, int32_t error, bool made,
                     bool now, const char *when)
{
    if (s->prepare) s->prepare(x);
    arm(x, class, n, error, made);
    s->run(x);
    disarm(x);
    if (s->settle && now) restart(x);
    if (s->settle) s->settle(x, when);
    must_hold(x, when);
}

/* The sequence with each call of the class failing in turn. */
static void every_call(failing *x, const sequence *s, uint32_t class, int32_t error, bool made,
                       uint32_t stride, uint32_t each_restart)
{
    const char *what = s->what, *only = getenv("PADOS_ONLY");
    char when[120];
    if (only && strcmp(only, what)) return;
    round_of(x, s, class, 0, error, made, false, "counting");
    uint64_t calls = atomic_load(&x->f.state->calls), failed = atomic_load(&x->f.state->failed);
    assert_true(calls > 0);
    x->refused = x->unknown = x->silent = 0;
    uint32_t done = 0;
    for (uint64_t n = 1 + (stride > 1 ? calls % stride : 0); n <= calls; n += stride, done++) {
        snprintf(when, sizeof when, "%s: class %u, call %llu of %llu, errno %d", what, class,
                 (unsigned long long)n, (unsigned long long)calls, error);
        round_of(x, s, class, n, error, made, done % each_restart == 0, when);
        if (!load_step(&x->clients[0], LOAD_UPSERT))
            fail_msg("%s (%s): service does not go on: %s (%s)", when, x->f.state->what,
                     x->clients[0].last_message, x->f.host.folder);
        if (done % each_restart) continue;
        restart(x);
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
    every_call(&x, &writes, PD_FAULT_WRITE, EIO, false, stride > 3 ? 3 : 1, 1);
    every_call(&x, &writes, PD_FAULT_WRITE, EIO, true, stride > 3 ? 3 : 1, 1);
    every_call(&x, &writes, PD_FAULT_WRITE, ENOSPC, false, stride > 3 ? 3 : 1, 4);
    every_call(&x, &writes, PD_FAULT_SYNC, EIO, false, stride > 3 ? 2 : 1, 1);
    every_call(&x, &writes, PD_FAULT_ALLOC, ENOMEM, false, allocations > 8 ? allocations : 1, 8);
    every_call(&x, &push, PD_FAULT_WRITE, ENOSPC, false, stride * 2, 4);
    every_call(&x, &push, PD_FAULT_SYNC, EIO, false, stride, 4);
    every_call(&x, &push, PD_FAULT_RENAME, EIO, false, stride, 4);
    every_call(&x, &push, PD_FAULT_ALLOC, ENOMEM, false, allocations > 8 ? allocations * 8 : 8, 16);
    every_call(&x, &erasure, PD_FAULT_WRITE, EIO, false, stride, 2);
    every_call(&x, &erasure, PD_FAULT_WRITE, ENOSPC, false, stride, 2);
    every_call(&x, &erasure, PD_FAULT_SYNC, EIO, false, stride, 2);
    every_call(&x, &erasure, PD_FAULT_SYNC, EIO, true, stride, 2);
    every_call(&x, &erasure, PD_FAULT_RENAME, EIO, false, stride, 2);
    every_call(&x, &erasure, PD_FAULT_ALLOC, ENOMEM, false, allocations > 8 ? allocations : 1, 4);
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
