/* Scheduling, on a backend made for it: its clock is the work that it is given, and it can be held at a gate, so that what waits
 * meanwhile is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "executor.h"

enum { MOST = 4096, TASKS = 64 };

static struct lab {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int gate;   /* searches wait while it is shut */
    int inside; /* one waits there */
    uint64_t query_ns;
    uint32_t slices;
    uint32_t largest;
    struct {
        int task;
        uint32_t n;
    } ran[200000]; /* which task's queries were searched, in order */
    uint32_t nran;
    int order[TASKS]; /* tasks in the order that they ended */
    pd_status status[TASKS];
    int nended;
    int fail_task; /* a batch that holds its queries fails */
    int lost;
} lab = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void spin(uint64_t ns)
{
    uint64_t until = pd_now_ns() + ns;
    while (pd_now_ns() < until) {
    }
}

/* A query's k tells its task: 1 + task. */
static pd_status lab_search(pd_index *index, const pd_query *queries, uint32_t count, pd_answer *answers,
                            pd_timing *timing, pd_error *err)
{
    (void)index;
    pthread_mutex_lock(&lab.lock);
    lab.inside = 1;
    pthread_cond_broadcast(&lab.changed);
    while (lab.gate)
        pthread_cond_wait(&lab.changed, &lab.lock);
    lab.inside = 0;
    if (lab.lost) {
        pthread_mutex_unlock(&lab.lock);
        return pd_fail(err, PD_UNAVAILABLE, "the device fell off");
    }
    for (uint32_t i = 0; i < count; i++)
        if (lab.fail_task && queries[i].k == (uint32_t)lab.fail_task + 1) {
            pthread_mutex_unlock(&lab.lock);
            return pd_fail(err, PD_INTERNAL, "query %u of the batch is bad", i);
        }
    lab.slices++;
    if (count > lab.largest) lab.largest = count;
    for (uint32_t i = 0; i < count; i++) {
        int task = (int)queries[i].k - 1;
        if (lab.nran && lab.ran[lab.nran - 1].task == task && i) {
            lab.ran[lab.nran - 1].n++;
        } else {
            lab.ran[lab.nran].task = task;
            lab.ran[lab.nran++].n = 1;
        }
        /* The answer depends on the query alone. */
        answers[i].count = 1;
        answers[i].hits[0] =
            (pd_hit){.id = (uint64_t)queries[i].nexclude * 3 + 1, .score = (float)queries[i].nexclude};
    }
    pthread_mutex_unlock(&lab.lock);
    spin(lab.query_ns * count);
    timing->scan_ns += 1;
    return PD_OK;
}

static void lab_close(pd_device *device)
{
    (void)device;
}
static const pd_backend lab_backend = {.name = "lab", .close = lab_close, .search = lab_search};
static pd_index lab_index = {.backend = &lab_backend, .shape = {.metric = PD_IP, .dim = 1, .nlist = 1}};
static pd_index other_index = {.backend = &lab_backend, .shape = {.metric = PD_IP, .dim = 1, .nlist = 1}};

/* ---------------------------------------------------------------------------------------------------- tasks --- */

typedef struct job {
    pd_task task;
    int number;
    uint32_t next, count;
    pd_hit hits[MOST];
    int unwanted;
    int parks; /* how often it parks before it searches */
} job;

static pd_status job_prepare(pd_task *task, pd_next *next, pd_error *err)
{
    job *j = (job *)task;
    (void)err;
    task->pending = j->count;
    *next = j->parks-- > 0 ? PD_NEXT_PARK : PD_NEXT_SEARCH;
    return PD_OK;
}

static uint32_t job_take(pd_task *task, uint32_t max, pd_query *queries, pd_answer *answers)
{
    static const float vector[1] = {1};
    static const uint64_t nothing[MOST];
    job *j = (job *)task;
    uint32_t n = task->pending < max ? task->pending : max;
    for (uint32_t i = 0; i < n; i++) {
        queries[i] = (pd_query){.vector = vector,
                                .similarity = 1,
                                .k = (uint32_t)j->number + 1,
                                .nprobe = 1,
                                .exclude = nothing,
                                .nexclude = j->next + i,
                                .min_score = -INFINITY};
        answers[i] = (pd_answer){.hits = &j->hits[j->next + i]};
    }
    return n;
}

static pd_status job_absorb(pd_task *task, const pd_query *queries, const pd_answer *answers, uint32_t n,
                            const pd_timing *timing, pd_next *next, pd_error *err)
{
    job *j = (job *)task;
    (void)queries;
    (void)answers;
    (void)timing;
    (void)err;
    j->next += n;
    task->pending -= n;
    *next = task->pending ? PD_NEXT_SEARCH : PD_NEXT_DONE;
    return PD_OK;
}

static void job_park(pd_task *task)
{
    (void)task; /* the test resumes it */
    pthread_mutex_lock(&lab.lock);
    lab.inside = 1;
    pthread_cond_broadcast(&lab.changed);
    pthread_mutex_unlock(&lab.lock);
}

static int job_wanted(pd_task *task)
{
    return !((job *)task)->unwanted;
}

static void job_done(pd_task *task, pd_status status, const pd_error *err)
{
    (void)err;
    pthread_mutex_lock(&lab.lock);
    lab.status[((job *)task)->number] = status;
    lab.order[lab.nended++] = ((job *)task)->number;
    pthread_cond_broadcast(&lab.changed);
    pthread_mutex_unlock(&lab.lock);
}

static const pd_task_type job_type = {.prepare = job_prepare,
                                      .take = job_take,
                                      .absorb = job_absorb,
                                      .park = job_park,
                                      .wanted = job_wanted,
                                      .done = job_done};

static job jobs[TASKS];
static pd_executor *executor;

static void open_with(uint32_t slice_us, uint32_t queue_requests, uint32_t stop_ms)
{
    pd_error err = {0};
    pd_config config = {.queue_requests = queue_requests,
                        .queue_queries = 1u << 20,
                        .batch_queries = 4096,
                        .batch_wait_us = 0,
                        .slice_us = slice_us,
                        .stop_ms = stop_ms};
    pthread_mutex_lock(&lab.lock);
    lab.gate = lab.inside = lab.nended = lab.fail_task = lab.lost = 0;
    lab.slices = lab.largest = lab.nran = 0;
    lab.query_ns = 1000;
    memset(jobs, 0, sizeof jobs);
    pthread_mutex_unlock(&lab.lock);
    assert_int_equal(pd_executor_open(&config, NULL, &executor, &err), PD_OK);
}

static pd_status submit(int number, uint32_t count, uint32_t deadline_ms, pd_error *err)
{
    jobs[number].number = number;
    jobs[number].count = count;
    jobs[number].task.type = &job_type;
    if (!jobs[number].task.index) jobs[number].task.index = &lab_index;
    jobs[number].task.queries = count;
    jobs[number].task.deadline_ns = pd_now_ns() + deadline_ms * 1000000ull;
    return pd_executor_submit(executor, &jobs[number].task, err);
}

static void put(int number, uint32_t count, uint32_t deadline_ms)
{
    pd_error err = {0};
    if (submit(number, count, deadline_ms, &err)) fail_msg("%s", err.message);
}

static void gate(int shut)
{
    pthread_mutex_lock(&lab.lock);
    lab.gate = shut;
    pthread_cond_broadcast(&lab.changed);
    pthread_mutex_unlock(&lab.lock);
}

static void wait_inside(void)
{
    pthread_mutex_lock(&lab.lock);
    while (!lab.inside)
        pthread_cond_wait(&lab.changed, &lab.lock);
    pthread_mutex_unlock(&lab.lock);
}

static void wait_ended(int n)
{
    pthread_mutex_lock(&lab.lock);
    while (lab.nended < n)
        pthread_cond_wait(&lab.changed, &lab.lock);
    pthread_mutex_unlock(&lab.lock);
}

/* Task 0 holds the device at the gate; what is put meanwhile waits together. */
static void hold(void)
{
    gate(1);
    put(0, 1, 60000);
    wait_inside();
}

static int place(int number)
{
    for (int i = 0; i < lab.nended; i++)
        if (lab.order[i] == number) return i;
    return -1;
}

/* --------------------------------------------------------------------------------------------------- tests --- */

static void test_the_earliest_deadline_is_first(void **state)
{
    (void)state;
    open_with(5000, 64, 1000);
    /* Different indexes do not share a batch, so that the order shows. */
    hold();
    jobs[2].task.index = &other_index;
    put(1, 5, 9000);
    put(2, 5, 4000);
    put(3, 5, 6000);
    gate(0);
    wait_ended(4);
    assert_int_equal(place(2), 1);
    assert_int_equal(lab.status[1] | lab.status[2] | lab.status[3], PD_OK);
    pd_executor_close(executor);
}

static void test_a_large_request_does_not_hold_up_small_ones(void **state)
{
    (void)state;
    open_with(1000, 64, 1000);
    lab.query_ns = 50000; /* 20 queries a slice: the large one needs 200 slices */
    put(0, 4000, 60000);
    uint64_t start = pd_now_ns();
    for (int i = 1; i <= 20; i++) {
        put(i, 1, 60000);
        wait_ended(i);
        assert_int_equal(place(i), i - 1); /* ended before the large one */
    }
    uint64_t took = pd_now_ns() - start;
    /* Each waits a slice or two, of about a millisecond: far from the 200 ms of the large one, even on a loaded machine. */
    assert_true(took / 20 < 100000000u);
    wait_ended(21);
    assert_int_equal(lab.status[0], PD_OK);
    assert_true(lab.slices > 100);
    pd_executor_close(executor);
}

static void test_a_large_request_on_another_table_goes_on_beside_small_ones(void **state)
{
    (void)state;
    open_with(1000, 64, 1000);
    lab.query_ns = 500000; /* a second of work, beside 20 that take a slice or two of a millisecond each */
    jobs[0].task.index = &other_index;
    put(0, 2000, 60000);
    for (int i = 1; i <= 20; i++) {
        put(i, 1, 60000);
        wait_ended(i);
    }
    assert_int_equal(place(0), -1);
    wait_ended(21); /* and it is not starved */
    assert_int_equal(lab.status[0], PD_OK);
    pd_executor_close(executor);
}

static void test_an_expired_request_is_dropped_when_it_is_taken(void **state)
{
    (void)state;
    pd_error err = {0};
    open_with(5000, 64, 1000);
    hold();
    put(1, 10, 1);
    put(2, 10, 60000);
    spin(2000000);
    gate(0);
    wait_ended(3);
    assert_int_equal(lab.status[1], PD_DEADLINE_EXCEEDED);
    assert_int_equal(lab.status[2], PD_OK);
    for (uint32_t i = 0; i < lab.nran; i++)
        assert_int_not_equal(lab.ran[i].task, 1);
    assert_int_equal(submit(3, 1, 0, &err), PD_DEADLINE_EXCEEDED);
    pd_executor_close(executor);
}

static void test_who_hung_up_leaves_the_queue_at_once(void **state)
{
    (void)state;
    open_with(5000, 64, 1000);
    hold();
    for (int i = 1; i <= 30; i++) {
        jobs[i].unwanted = i % 2;
        put(i, 100, 60000);
    }
    pd_executor_sweep(executor);
    gate(0);
    wait_ended(31);
    for (int i = 1; i <= 30; i++) {
        assert_int_equal(lab.status[i], i % 2 ? PD_CANCELLED : PD_OK);
        if (i % 2) assert_true(place(i) <= 15); /* before any other was searched */
    }
    pd_executor_close(executor);
}

static void test_a_full_queue_refuses_at_once_and_names_its_bound(void **state)
{
    (void)state;
    pd_error err = {0};
    open_with(5000, 4, 1000);
    hold();
    for (int i = 1; i <= 3; i++)
        put(i, 1, 60000);
    assert_int_equal(submit(4, 1, 60000, &err), PD_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "4 requests"));
    gate(0);
    wait_ended(4);
    put(4, 1, 60000);
    wait_ended(5);
    pd_executor_close(executor);
}

static void test_the_cut_of_batches_does_not_show_in_results(void **state)
{
    (void)state;
    static pd_hit first[MOST];
    static const uint32_t slices[] = {100, 700, 5000, 1000000};
    for (size_t s = 0; s < sizeof slices / sizeof slices[0]; s++) {
        open_with(slices[s], 64, 1000);
        hold();
        put(1, 1000, 60000);
        put(2, 333, 60000);
        put(3, 1, 60000);
        gate(0);
        wait_ended(4);
        for (uint32_t i = 0; i < 1000; i++) {
            assert_true(jobs[1].hits[i].id == (uint64_t)i * 3 + 1);
            if (s == 0) first[i] = jobs[1].hits[i];
        }
        assert_memory_equal(first, jobs[1].hits, 1000 * sizeof first[0]);
        assert_true(jobs[2].hits[332].id == 997 && jobs[3].hits[0].id == 1);
        pd_executor_close(executor);
    }
}

static void test_requests_of_one_table_share_a_slice(void **state)
{
    (void)state;
    open_with(100000, 64, 1000);
    hold();
    for (int i = 1; i <= 10; i++)
        put(i, 3, 60000);
    gate(0);
    wait_ended(11);
    assert_true(lab.largest == 30);
    assert_true(lab.slices == 2);
    pd_executor_close(executor);
}

static void test_one_bad_request_of_a_batch_fails_alone(void **state)
{
    (void)state;
    open_with(100000, 64, 1000);
    hold();
    lab.fail_task = 5;
    for (int i = 1; i <= 8; i++)
        put(i, 3, 60000);
    gate(0);
    wait_ended(9);
    for (int i = 1; i <= 8; i++)
        assert_int_equal(lab.status[i], i == 5 ? PD_INTERNAL : PD_OK);
    pd_executor_close(executor);
}

static void test_a_parked_task_comes_back_or_ends(void **state)
{
    (void)state;
    pd_error err = {0};
    open_with(5000, 64, 1000);
    jobs[1].parks = 1;
    put(1, 3, 60000);
    wait_inside();
    pd_executor_resume(executor, &jobs[1].task, PD_OK, NULL);
    wait_ended(1);
    assert_int_equal(lab.status[1], PD_OK);
    lab.inside = 0;
    jobs[2].parks = 1;
    put(2, 3, 60000);
    wait_inside();
    pd_fail(&err, PD_INTERNAL, "no");
    pd_executor_resume(executor, &jobs[2].task, PD_INTERNAL, &err);
    wait_ended(2);
    assert_int_equal(lab.status[2], PD_INTERNAL);
    pd_executor_close(executor);
}

static void test_stop_finishes_what_is_queued_and_refuses_the_rest(void **state)
{
    (void)state;
    pd_error err = {0};
    open_with(1000, 64, 60000);
    lab.query_ns = 10000;
    for (int i = 0; i < 10; i++)
        put(i, 300, 60000);
    pd_executor_stop(executor);
    assert_int_equal(lab.nended, 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(lab.status[i], PD_OK);
    assert_int_equal(submit(11, 1, 1000, &err), PD_UNAVAILABLE);
    pd_executor_close(executor);
}

static void test_stop_gives_up_after_its_time(void **state)
{
    (void)state;
    open_with(1000, 64, 0);
    hold();
    for (int i = 1; i < 10; i++)
        put(i, 300, 60000);
    pthread_t stopper;
    assert_int_equal(
        pthread_create(&stopper, NULL, (void *(*)(void *))(void (*)(void))pd_executor_stop, executor), 0);
    pd_executor_stats stats = {0};
    while (!stats.stopping)
        pd_executor_stats_of(executor, &stats);
    gate(0);
    pthread_join(stopper, NULL);
    assert_int_equal(lab.nended, 10);
    for (int i = 1; i < 10; i++)
        assert_int_equal(lab.status[i], PD_UNAVAILABLE);
    pd_executor_close(executor);
}

static void test_a_lost_device_is_said_to_everybody(void **state)
{
    (void)state;
    pd_error err = {0};
    pd_executor_stats stats;
    open_with(1000, 64, 1000);
    hold();
    for (int i = 1; i < 5; i++)
        put(i, 300, 60000);
    lab.lost = 1;
    gate(0);
    wait_ended(5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(lab.status[i], PD_UNAVAILABLE);
    assert_int_equal(submit(6, 1, 1000, &err), PD_UNAVAILABLE);
    assert_non_null(strstr(err.message, "fell off"));
    pd_executor_stats_of(executor, &stats);
    assert_true(stats.lost);
    pd_executor_close(executor);
}

/* ------------------------------------------------------------------------------------------------ background --- */

typedef struct behind {
    pthread_t thread;
    pd_status status;
    pd_hit hits[2000];
} behind;

static void *run_behind(void *context)
{
    static const float vector[1] = {1};
    behind *b = context;
    pd_error err;
    pd_query *queries = calloc(2000, sizeof *queries);
    pd_answer *answers = calloc(2000, sizeof *answers);
    for (int i = 0; i < 2000; i++) {
        queries[i] =
            (pd_query){.vector = vector, .similarity = 1, .k = 64, .nprobe = 1, .min_score = -INFINITY};
        answers[i].hits = malloc(64 * sizeof(pd_hit));
    }
    b->status = pd_executor_background_index(executor, &lab_index, queries, 2000, answers, &err);
    for (int i = 0; i < 2000; i++) {
        b->hits[i] = answers[i].hits[0];
        free(answers[i].hits);
    }
    free(queries);
    free(answers);
    return NULL;
}

static void test_background_work_gets_its_slice_in_twenty_and_no_more(void **state)
{
    (void)state;
    static behind b;
    open_with(1000, 64, 1000);
    lab.query_ns = 10000;
    hold();
    put(1, 4000, 60000);
    put(2, 4000, 60000);
    assert_int_equal(pthread_create(&b.thread, NULL, run_behind, &b), 0);
    pd_executor_stats stats = {0};
    while (!stats.background)
        pd_executor_stats_of(executor, &stats);
    gate(0);
    wait_ended(3);
    pthread_join(b.thread, NULL);
    /* What ran while the others waited, by the order of the slices: its queries ask for 64. */
    uint32_t last = 0, behind_slices = 0, others = 0;
    for (uint32_t i = 0; i < lab.nran; i++)
        if (lab.ran[i].task != 63) last = i;
    for (uint32_t i = 0; i <= last; i++) {
        behind_slices += lab.ran[i].task == 63;
        others += lab.ran[i].task != 63;
    }
    assert_true(behind_slices >= 1);
    assert_true(behind_slices * 10 <= others);
    pd_executor_stats_of(executor, &stats);
    assert_true(stats.background_slices >= behind_slices);
    assert_int_equal(b.status, PD_OK);
    assert_true(b.hits[1999].id == 1);
    pd_executor_close(executor);
}

static void test_stopping_cancels_background_work(void **state)
{
    (void)state;
    static behind b;
    open_with(1000, 64, 1000);
    hold();
    assert_int_equal(pthread_create(&b.thread, NULL, run_behind, &b), 0);
    pd_executor_stats stats = {0};
    while (!stats.background)
        pd_executor_stats_of(executor, &stats);
    pthread_t stopper;
    assert_int_equal(
        pthread_create(&stopper, NULL, (void *(*)(void *))(void (*)(void))pd_executor_stop, executor), 0);
    while (!stats.stopping)
        pd_executor_stats_of(executor, &stats);
    gate(0);
    pthread_join(stopper, NULL);
    pthread_join(b.thread, NULL);
    assert_int_equal(b.status, PD_CANCELLED);
    pd_executor_close(executor);
}

/* Work of other threads between two slices. */
typedef struct called {
    pthread_t thread;
    int number;
    pd_status answer, status;
    pd_error err;
} called;

static struct {
    atomic_int running, count;
    int order[8];
} calls;

static pd_status work(void *argument, pd_error *err)
{
    called *c = argument;
    assert_int_equal(atomic_fetch_add(&calls.running, 1), 0); /* one at a time, and none during a search */
    assert_int_equal(lab.inside, 0);
    calls.order[atomic_fetch_add(&calls.count, 1)] = c->number;
    atomic_fetch_sub(&calls.running, 1);
    return c->answer ? pd_fail(err, c->answer, "call %d says so", c->number) : PD_OK;
}

static void *call(void *argument)
{
    called *c = argument;
    c->status = pd_executor_call(executor, work, c, &c->err);
    return NULL;
}

static void test_calls_run_between_slices_one_at_a_time_and_say_what_they_say(void **state)
{
    (void)state;
    static called all[4];
    open_with(1000, 64, 1000);
    memset(&calls, 0, sizeof calls);
    hold(); /* a search is inside */
    for (int i = 0; i < 4; i++) {
        all[i] = (called){.number = i, .answer = i == 2 ? PD_NOT_FOUND : PD_OK};
        assert_int_equal(pthread_create(&all[i].thread, NULL, call, &all[i]), 0);
    }
    spin(20000000);
    assert_int_equal(atomic_load(&calls.count), 0);
    gate(0);
    for (int i = 0; i < 4; i++)
        pthread_join(all[i].thread, NULL);
    assert_int_equal(atomic_load(&calls.count), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(all[i].status, i == 2 ? PD_NOT_FOUND : PD_OK);
    assert_string_equal(all[2].err.message, "call 2 says so");
    /* A call that loses the device loses it for everybody. */
    all[0] = (called){.answer = PD_UNAVAILABLE};
    call(&all[0]);
    assert_int_equal(all[0].status, PD_UNAVAILABLE);
    int before = atomic_load(&calls.count);
    all[1] = (called){.number = 1};
    call(&all[1]);
    assert_int_equal(all[1].status, PD_UNAVAILABLE);
    assert_int_equal(atomic_load(&calls.count), before);
    pd_executor_stop(executor);
    call(&all[1]);
    assert_int_equal(all[1].status, PD_CANCELLED);
    pd_executor_close(executor);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_earliest_deadline_is_first),
        cmocka_unit_test(test_a_large_request_does_not_hold_up_small_ones),
        cmocka_unit_test(test_a_large_request_on_another_table_goes_on_beside_small_ones),
        cmocka_unit_test(test_an_expired_request_is_dropped_when_it_is_taken),
        cmocka_unit_test(test_who_hung_up_leaves_the_queue_at_once),
        cmocka_unit_test(test_a_full_queue_refuses_at_once_and_names_its_bound),
        cmocka_unit_test(test_the_cut_of_batches_does_not_show_in_results),
        cmocka_unit_test(test_requests_of_one_table_share_a_slice),
        cmocka_unit_test(test_one_bad_request_of_a_batch_fails_alone),
        cmocka_unit_test(test_a_parked_task_comes_back_or_ends),
        cmocka_unit_test(test_stop_finishes_what_is_queued_and_refuses_the_rest),
        cmocka_unit_test(test_stop_gives_up_after_its_time),
        cmocka_unit_test(test_a_lost_device_is_said_to_everybody),
        cmocka_unit_test(test_background_work_gets_its_slice_in_twenty_and_no_more),
        cmocka_unit_test(test_stopping_cancels_background_work),
        cmocka_unit_test(test_calls_run_between_slices_one_at_a_time_and_say_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
