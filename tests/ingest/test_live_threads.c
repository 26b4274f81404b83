/* A writer, an executor, plans and an exact search at once: what a plan was handed stays as it is until it lets go, and the exact search
 * sees rows that are there. The sanitizer for threads sees the rest. */
#include <pthread.h>

#include "live_check.h"

enum { PLANNERS = 2, STEPS = 250 };

/* One call at a time for the thread that searches. */
typedef struct executor {
    pthread_mutex_t lock;
    pthread_cond_t asked, done;
    pd_status (*fn)(void *argument, pd_error *err);
    void *argument;
    pd_error *err;
    pd_status status;
    int waiting, stop; /* waiting: 1: to be done, 2: done */
    pthread_t thread;
} executor;

typedef struct shared {
    live_world *w;
    executor e;
    int stop;
    uint64_t seed;
} shared;

static void *execute(void *context)
{
    executor *e = context;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        while (e->waiting != 1 && !e->stop)
            pthread_cond_wait(&e->asked, &e->lock);
        if (e->waiting != 1) break;
        pthread_mutex_unlock(&e->lock);
        pd_status status = e->fn(e->argument, e->err);
        pthread_mutex_lock(&e->lock);
        e->status = status;
        e->waiting = 2;
        pthread_cond_broadcast(&e->done);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static pd_status on_executor(void *context, pd_status (*fn)(void *argument, pd_error *err), void *argument,
                             pd_error *err)
{
    executor *e = &((shared *)context)->e;
    pthread_mutex_lock(&e->lock);
    while (e->waiting)
        pthread_cond_wait(&e->done, &e->lock);
    e->fn = fn;
    e->argument = argument;
    e->err = err;
    e->waiting = 1;
    pthread_cond_broadcast(&e->asked);
    while (e->waiting != 2)
        pthread_cond_wait(&e->done, &e->lock);
    pd_status status = e->status;
    e->waiting = 0;
    pthread_cond_broadcast(&e->done);
    pthread_mutex_unlock(&e->lock);
    return status;
}

static pd_status row_of_shared(void *context, uint64_t sequence, uint32_t row, float *vector, pd_error *err)
{
    return row_of_log(((shared *)context)->w, sequence, row, vector, err);
}

typedef struct applying {
    live_world *w;
    pd_staged **staged;
    uint32_t n;
} applying;

static pd_status apply_all(void *argument, pd_error *err)
{
    applying *a = argument;
    pd_status status = PD_OK;
    for (uint32_t i = 0; i < a->n; i++)
        if (!status) status = pd_resident_apply(a->w->resident, a->staged[i], err);
    return status;
}

static void *plan(void *context)
{
    const shared *s = context;
    const live_world *w = s->w;
    uint64_t random = s->seed;
    uint32_t *copy = malloc(1 << 20);
    while (copy && !__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
        pd_matches matches, again;
        uint64_t value = pd_random_below(&random, 10), sum = 0, rows = 0;
        pd_resident_lock(w->resident);
        pd_resident_posting(w->resident, w->zones, value, &matches);
        uint64_t n = matches.nslots + matches.nmore < (1 << 18) ? pd_matches_copy(&matches, copy) : 0;
        pd_resident_posting(w->resident, w->zones, value, &again);
        assert_memory_equal(&matches, &again, sizeof matches);
        for (uint64_t i = 0; i < n; i++)
            sum += copy[i] != (i < matches.nslots ? matches.slots[i] : matches.more[i - matches.nslots]);
        pd_resident_posting(w->resident, w->brand, 100 + value, &matches);
        pd_matches_copy(&matches, copy);
        pd_resident_range(w->resident, w->price, 0, 50, &matches);
        pd_matches_copy(&matches, copy);
        for (uint32_t v = 0; v < 256; v++)
            rows += pd_resident_histogram(w->resident, w->kind->byte_column)[v];
        assert_true(sum == 0 && rows == pd_resident_rows(w->resident));
        pd_resident_unlock(w->resident);
        pd_resident_slot(w->resident, id_of((uint32_t)value));
        pd_live_stats stats;
        pd_resident_live(w->resident, &stats);
        assert_true(stats.rows <= IDS);
        pd_resident_host_bytes(w->resident);
    }
    free(copy);
    return NULL;
}

static void *search_exactly(void *context)
{
    shared *s = context;
    pd_live_source source = {.context = s, .on_executor = on_executor, .source_row = row_of_shared};
    static answers got;
    pd_device *device = device_make("cpu", 0); /* the other one assigns */
    while (!__atomic_load_n(&s->stop, __ATOMIC_ACQUIRE)) {
        float vector[DIM] = {1, 2, 3};
        pd_query query = {.vector = vector, .similarity = 1, .k = 50, .min_score = -INFINITY};
        pd_error err;
        got.answer = (pd_answer){.hits = got.hits};
        ok(pd_resident_exact(s->w->resident, &source, device, &query, 1, &got.answer, NULL, NULL, &err),
           &err);
        assert_true(got.answer.count > 0);
    }
    pd_device_close(device);
    return NULL;
}

static void write_changes(shared *s)
{
    live_world *w = s->w;
    static made changes[3];
    for (int step = 0; step < STEPS; step++) {
        pd_staged *staged[3];
        pd_stage_counts counts;
        uint32_t n = 1 + below(w, 3);
        pd_error err;
        for (uint32_t i = 0; i < n; i++) {
            make_change(w, &changes[i], random_kind(w));
            ok(pd_resident_stage(w->resident, &changes[i].change, changes[i].encoded, &staged[i], &counts,
                                 &err),
               &err);
        }
        if (below(w, 6) == 0) {
            pd_staged_drop(w->resident, staged, n);
        } else {
            for (uint32_t i = 0; i < n; i++)
                log_change(w, &changes[i]);
            applying all = {.w = w, .staged = staged, .n = n};
            ok(on_executor(s, apply_all, &all, &err), &err);
            for (uint32_t i = 0; i < n; i++)
                follow(w, &changes[i], w->rows);
        }
        for (uint32_t i = 0; i < n; i++)
            pd_encoded_free(changes[i].encoded);
    }
}

static void test_plans_and_searches_go_on_while_rows_change(void **state)
{
    (void)state;
    static shared s;
    shared planners[PLANNERS];
    pthread_t threads[PLANNERS], exact;
    s.w = live_open((live_case){.backend = "cpu", .metric = "l2", .more = "refine = \"f32\";"}, 21, SPARE);
    pthread_mutex_init(&s.e.lock, NULL);
    pthread_cond_init(&s.e.asked, NULL);
    pthread_cond_init(&s.e.done, NULL);
    assert_int_equal(pthread_create(&s.e.thread, NULL, execute, &s.e), 0);
    assert_int_equal(pthread_create(&exact, NULL, search_exactly, &s), 0);
    for (int i = 0; i < PLANNERS; i++) {
        planners[i] = (shared){.w = s.w, .seed = (uint64_t)i};
        assert_int_equal(pthread_create(&threads[i], NULL, plan, &planners[i]), 0);
    }
    write_changes(&s);
    __atomic_store_n(&s.stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < PLANNERS; i++) {
        __atomic_store_n(&planners[i].stop, 1, __ATOMIC_RELEASE);
        pthread_join(threads[i], NULL);
    }
    pthread_join(exact, NULL);
    pthread_mutex_lock(&s.e.lock);
    s.e.stop = 1;
    pthread_cond_broadcast(&s.e.asked);
    pthread_mutex_unlock(&s.e.lock);
    pthread_join(s.e.thread, NULL);
    check_all(s.w);
    live_close(s.w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans_and_searches_go_on_while_rows_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
