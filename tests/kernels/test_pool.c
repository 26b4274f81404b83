/* The pool: every task once, runs apart from one another, nobody's cores but its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "cpu/pool.h"

#define MOST_TASKS 1000u
#define THREADS    4u

typedef struct trial {
    uint32_t tasks, threads;
    uint64_t round; /* plain: written before a run, read by its tasks */
    atomic_uint done[MOST_TASKS];
    atomic_uint busy[THREADS];
    atomic_uint wrong;
    pthread_t caller;
    atomic_uint by_caller;
    cpu_set_t mask;
} trial;

static trial *trial_make(void)
{
    trial *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->caller = pthread_self();
    return t;
}

static pd_pool *pool_make(uint32_t threads, int idle)
{
    pd_pool *pool = NULL;
    pd_error err = {0};
    if (pd_pool_open(threads, idle, &pool, &err)) fail_msg("%s", err.message);
    assert_int_equal(pd_pool_threads(pool), threads);
    assert_int_equal(pd_pool_idle(pool), idle);
    return pool;
}

static void count(void *context, uint32_t task, uint32_t worker)
{
    trial *t = context;
    if (task >= t->tasks || worker >= t->threads || atomic_fetch_add(&t->busy[worker], 1) != 0)
        atomic_fetch_add(&t->wrong, 1);
    atomic_fetch_add(&t->done[task], 1);
    if (pthread_equal(pthread_self(), t->caller)) {
        atomic_fetch_add(&t->by_caller, 1);
        if (worker != 0) atomic_fetch_add(&t->wrong, 1);
    }
    atomic_fetch_sub(&t->busy[worker], 1);
}

static void test_every_task_runs_once_and_one_at_a_time_for_each_worker(void **state)
{
    (void)state;
    trial *t = trial_make();
    for (int idle = 0; idle <= 1; idle++) {
        for (uint32_t threads = 1; threads <= THREADS; threads++) {
            pd_pool *pool = pool_make(threads, idle);
            for (uint32_t tasks = 0; tasks < 300; tasks += tasks < 9 ? 1 : 97) {
                memset(t->done, 0, sizeof t->done);
                t->tasks = tasks;
                t->threads = threads;
                pd_pool_run(pool, tasks, count, t);
                for (uint32_t i = 0; i < MOST_TASKS; i++)
                    assert_int_equal(atomic_load(&t->done[i]), i < tasks);
            }
            pd_pool_close(pool);
        }
    }
    assert_int_equal(atomic_load(&t->wrong), 0);
    free(t);
}

static void check_round(void *context, uint32_t task, uint32_t worker)
{
    (void)worker;
    trial *t = context;
    if (task >= t->tasks) atomic_fetch_add(&t->wrong, 1);
    atomic_fetch_add(&t->done[task], (unsigned)t->round);
}

static void test_runs_that_follow_at_once_do_not_mix(void **state)
{
    (void)state;
    trial *t = trial_make();
    pd_pool *pool = pool_make(THREADS, 0);
    for (uint64_t round = 1; round <= 3000; round++) {
        t->round = round;
        t->tasks = (uint32_t)(2 + round % 5);
        for (uint32_t i = 0; i < t->tasks; i++)
            atomic_store(&t->done[i], 0);
        pd_pool_run(pool, t->tasks, check_round, t);
        for (uint32_t i = 0; i < t->tasks; i++)
            assert_int_equal(atomic_load(&t->done[i]), round);
    }
    pd_pool_close(pool);
    assert_int_equal(atomic_load(&t->wrong), 0);
    free(t);
}

static void test_the_caller_works_too_unless_the_pool_is_idle(void **state)
{
    (void)state;
    trial *t = trial_make();
    t->tasks = 200;
    t->threads = 2;
    pd_pool *pool = pool_make(2, 1);
    pd_pool_run(pool, 200, count, t);
    pd_pool_close(pool);
    assert_int_equal(atomic_load(&t->by_caller), 0);
    pool = pool_make(1, 0);
    t->threads = 1;
    pd_pool_run(pool, 200, count, t);
    pd_pool_close(pool);
    assert_int_equal(atomic_load(&t->by_caller), 200);
    assert_int_equal(atomic_load(&t->wrong), 0);
    free(t);
}

/* Each worker holds a task until all have one, so that each shows its mask. */
static void show_mask(void *context, uint32_t task, uint32_t worker)
{
    (void)task;
    (void)worker;
    trial *t = context;
    cpu_set_t own, both;
    atomic_fetch_add(&t->done[0], 1);
    while (atomic_load(&t->done[0]) < t->threads)
        sched_yield();
    if (sched_getaffinity(0, sizeof own, &own) != 0) atomic_fetch_add(&t->wrong, 1);
    CPU_AND(&both, &own, &t->mask);
    if (CPU_COUNT(&own) == 0 || !CPU_EQUAL(&both, &own)) atomic_fetch_add(&t->wrong, 1);
}

static void test_a_pool_stays_inside_its_callers_mask_and_leaves_it_as_it_is(void **state)
{
    (void)state;
    cpu_set_t before, after, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    trial *t = trial_make();
    for (int narrow = 0; narrow <= 1; narrow++) {
        t->mask = before;
        if (narrow) {
            int core = 0;
            while (!CPU_ISSET((size_t)core, &before))
                core++;
            CPU_ZERO(&one);
            CPU_SET((size_t)core, &one);
            t->mask = one;
            assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
        }
        for (uint32_t threads = 1; threads <= THREADS; threads++) {
            pd_pool *pool = pool_make(threads, 0);
            atomic_store(&t->done[0], 0);
            t->threads = threads;
            pd_pool_run(pool, threads, show_mask, t);
            pd_pool_close(pool);
            assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
            assert_true(CPU_EQUAL(&after, &t->mask));
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_int_equal(atomic_load(&t->wrong), 0);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_runs_once_and_one_at_a_time_for_each_worker),
        cmocka_unit_test(test_runs_that_follow_at_once_do_not_mix),
        cmocka_unit_test(test_the_caller_works_too_unless_the_pool_is_idle),
        cmocka_unit_test(test_a_pool_stays_inside_its_callers_mask_and_leaves_it_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
