/* The executor's thread: who is next, how much of it, and what a slice may cost.
 *
 * New tasks come through a locked inbox and wait in a heap that only the executor's thread touches. A task's place is its
 * deadline plus 4 times the device time that it has already had: so a large request that was first goes behind the
 * small ones that came a little later, yet keeps about a fifth of the device and never starves. (Pure earliest-deadline-first
 * would run the large one to its end, since equal time limits make the first comer the earliest.)
 *
 * A slice is made of the first task's queries and of those of others on the same index, in order: each gets an equal share of slice_us,
 * then what is left over goes to the first. What a query costs is estimated by index and class, a running
 * mean of what slices took. Background tasks run when nobody else waits, and at least once in BACKGROUND_EVERY slices; theirs are
 * shorter.
 *
 * Waiting for a batch to fill helps only when several requests are about; so it is done only after a batch
 * that held more than one.
 */
#include "executor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"

#define BACKGROUND_EVERY 20u
#define BACKGROUND_PART  8u /* of a slice */
#define USED_WEIGHT      4u
#define MAX_TASKS        256u /* in one batch */
#define COSTS            1024u
#define CALLS_NS         500000u /* of others' work between two slices; the last piece of it ends when it ends */
#define FIRST_COST_NS    200000.0 /* of a query never measured: a first slice of 25 */

typedef struct cost {
    const pd_index *index;
    uint32_t class;
    float ns;
} cost;

typedef struct share {
    pd_task *task;
    uint32_t first, n;
} share;

/* Work of another thread, which waits for it. */
typedef struct call {
    pd_executor_work fn;
    void *argument;
    pd_status status;
    pd_error *err;
    int over;
    struct call *next;
} call;

struct pd_executor {
    pthread_mutex_t lock;
    pthread_cond_t more, called; /* called: a call is over */
    call *calls, **calls_last;
    pd_task *inbox, **inbox_last;
    uint32_t requests, queries, waiting_background, parked;
    int stopping, lost, finished, sweep;
    uint64_t stop_at;
    char why[200];
    uint64_t slices, background_slices, expired;
    /* From the configuration; the atomic ones are read without the lock. */
    uint32_t max_requests, max_queries;
    uint64_t stop_ns;
    atomic_uint batch_queries;
    atomic_uint_fast64_t wait_ns, slice_ns;
    uint32_t room_requests, room_batch; /* that heap and slice_queries hold */
    void (*observe)(void *context, uint32_t queries, int background);
    void *observe_context;
    pthread_t thread;
    int started;
    /* The executor thread's own. */
    pd_task **heap;
    uint32_t nheap;
    pd_task *background, **background_last;
    uint32_t since_background;
    uint64_t sequence;
    int crowded; /* the last batch held more than one task */
    pd_query *slice_queries;
    pd_answer *slice_answers;
    cost costs[COSTS];
};

/* ------------------------------------------------------------------------------------------------------ heap --- */

static int before(const pd_task *a, const pd_task *b)
{
    if (a->key != b->key) return a->key < b->key;
    return a->sequence < b->sequence;
}

/* Room for every admitted task was reserved at the start, so that this cannot fail. */
static void heap_push(pd_executor *e, pd_task *task)
{
    uint32_t at = e->nheap++;
    while (at > 0 && before(task, e->heap[(at - 1) / 2])) {
        e->heap[at] = e->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->heap[at] = task;
}

static pd_task *heap_pop(pd_executor *e)
{
    pd_task *top = e->heap[0], *last = e->heap[--e->nheap];
    uint32_t at = 0;
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= e->nheap) break;
        if (child + 1 < e->nheap && before(e->heap[child + 1], e->heap[child])) child++;
        if (!before(e->heap[child], last)) break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return top;
}

/* --------------------------------------------------------------------------------------------------- endings --- */

static void finish(pd_executor *e, pd_task *task, pd_status status, const pd_error *err)
{
    pthread_mutex_lock(&e->lock);
    if (task->background) {
        e->waiting_background--;
    } else {
        e->requests--;
        e->queries -= task->queries;
    }
    if (status == PD_DEADLINE_EXCEEDED) e->expired++;
    pthread_mutex_unlock(&e->lock);
    task->type->done(task, status, err);
}

static void lose_device(pd_executor *e, const pd_error *err)
{
    pthread_mutex_lock(&e->lock);
    if (!e->lost) {
        e->lost = 1;
        snprintf(e->why, sizeof e->why, "%.*s", (int)sizeof e->why - 1, err->message);
        pd_log(PD_LOG_ERROR, "the device is lost: %s", e->why);
    }
    pthread_mutex_unlock(&e->lock);
}

static void fail_task(pd_executor *e, pd_task *task, const pd_error *err)
{
    if (err->status == PD_UNAVAILABLE) lose_device(e, err);
    finish(e, task, err->status, err);
}

/* Ended when its time is over or nobody waits for it (1), else left alone (0). */
static int expire(pd_executor *e, pd_task *task)
{
    uint64_t now = pd_now_ns();
    pd_error err;
    if (task->type->wanted && !task->type->wanted(task)) {
        finish(e, task, pd_fail(&err, PD_CANCELLED, "the connection has gone"), &err);
        return 1;
    }
    if (now < task->deadline_ns) return 0;
    pd_fail(&err, PD_DEADLINE_EXCEEDED, "the deadline passed after %u ms, %s",
            pd_us_between(task->enqueued_ns, now) / 1000u,
            task->taken_ns ? "before every query was answered" : "while the request waited");
    finish(e, task, err.status, &err);
    return 1;
}

static void go_on(pd_executor *e, pd_task *task, pd_next next)
{
    if (next == PD_NEXT_DONE) {
        finish(e, task, PD_OK, NULL);
    } else if (next == PD_NEXT_PARK) {
        pthread_mutex_lock(&e->lock);
        e->parked++;
        pthread_mutex_unlock(&e->lock);
        task->type->park(task);
    } else if (task->background) {
        task->link = NULL;
        *e->background_last = task;
        e->background_last = &task->link;
    } else {
        uint64_t penalty = task->used_ns * USED_WEIGHT;
        task->key = task->deadline_ns > UINT64_MAX - penalty ? UINT64_MAX : task->deadline_ns + penalty;
        heap_push(e, task);
    }
}

/* Ready to be searched (1); else it has been dealt with (0). */
static int prepare(pd_executor *e, pd_task *task)
{
    if (expire(e, task)) return 0;
    if (!task->taken_ns) task->taken_ns = pd_now_ns();
    if (task->prepared) return 1;
    pd_error err = {0};
    pd_next next = PD_NEXT_SEARCH;
    uint64_t start = pd_now_ns();
    task->prepared = 1;
    if (task->type->prepare(task, &next, &err)) {
        fail_task(e, task, &err);
        return 0;
    }
    task->used_ns += pd_now_ns() - start;
    if (next == PD_NEXT_SEARCH) return 1;
    go_on(e, task, next);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- costs --- */

static cost *cost_of(pd_executor *e, const pd_task *task)
{
    uint64_t hash = ((uintptr_t)task->index >> 4) * 0x9e3779b97f4a7c15u + task->cost_class * 0x85ebca6bu;
    cost *c = &e->costs[(hash >> 40) % COSTS];
    if (c->index != task->index || c->class != task->cost_class)
        *c = (cost){.index = task->index, .class = task->cost_class, .ns = (float)FIRST_COST_NS};
    return c;
}

/* What the slice took is laid on its classes in proportion to what was expected of them. */
static void learn(pd_executor *e, const share *shares, uint32_t n, uint64_t took_ns)
{
    double expected = 0;
    for (uint32_t i = 0; i < n; i++)
        expected += (double)cost_of(e, shares[i].task)->ns * shares[i].n;
    if (expected <= 0) return;
    double ratio = (double)took_ns / expected;
    for (uint32_t i = 0; i < n; i++) {
        if (shares[i].n == 0) continue;
        cost *c = cost_of(e, shares[i].task);
        double ns = c->ns * (0.7 + 0.3 * ratio);
        c->ns = (float)(ns < 20 ? 20 : ns > 1e12 ? 1e12 : ns);
    }
}

/* --------------------------------------------------------------------------------------------------- slices --- */

static uint32_t affordable(double ns, double each, uint32_t wanted, uint32_t room)
{
    double n = ns / each;
    uint32_t most = wanted < room ? wanted : room;
    return n >= most ? most : (uint32_t)n;
}

/* How many queries each task may have: an equal share of the slice each, then the rest in order; the first at least one. */
static void divide(pd_executor *e, share *shares, uint32_t n)
{
    uint32_t room = e->batch_queries;
    /* A search that comes while nobody else is there waits for the rest of a background slice. */
    double left = (double)e->slice_ns / (shares[0].task->background ? BACKGROUND_PART : 1), part = left / n;
    for (uint32_t i = 0; i < n; i++) {
        double each = cost_of(e, shares[i].task)->ns;
        shares[i].n = affordable(part, each, shares[i].task->pending, room);
        if (i == 0 && shares[i].n == 0) shares[i].n = 1;
        left -= each * shares[i].n;
        room -= shares[i].n;
    }
    for (uint32_t i = 0; i < n && left > 0 && room > 0; i++) {
        double each = cost_of(e, shares[i].task)->ns;
        uint32_t more = affordable(left, each, shares[i].task->pending - shares[i].n, room);
        shares[i].n += more;
        left -= each * more;
        room -= more;
    }
}

static void absorb(pd_executor *e, share *s, const pd_timing *timing, uint64_t took_ns)
{
    pd_error err = {0};
    pd_next next = PD_NEXT_DONE;
    s->task->used_ns += took_ns;
    if (s->task->type->absorb(s->task, e->slice_queries + s->first, e->slice_answers + s->first, s->n, timing,
                              &next, &err))
        fail_task(e, s->task, &err);
    else
        go_on(e, s->task, next);
}

static void run_alone(pd_executor *e, share *s)
{
    pd_error err = {0};
    pd_timing timing = {0};
    uint64_t start = pd_now_ns();
    if (pd_index_search(s->task->index, e->slice_queries + s->first, s->n, e->slice_answers + s->first,
                        &timing, &err))
        fail_task(e, s->task, &err);
    else
        absorb(e, s, &timing, pd_now_ns() - start);
}

/* shares[..n]: tasks that are prepared and in no queue. */
static void run_slice(pd_executor *e, share *shares, uint32_t n)
{
    divide(e, shares, n);
    uint32_t total = 0, kept = 0;
    int background = shares[0].task->background;
    for (uint32_t i = 0; i < n; i++) {
        share s = shares[i];
        if (s.n == 0) {
            go_on(e, s.task, PD_NEXT_SEARCH);
            continue;
        }
        s.first = total;
        s.n = s.task->type->take(s.task, s.n, e->slice_queries + total, e->slice_answers + total);
        if (s.n == 0) {
            pd_error err;
            pd_fail(&err, PD_RESOURCE_EXHAUSTED, "no memory for the hits of a slice");
            finish(e, s.task, err.status, &err);
            continue;
        }
        total += s.n;
        shares[kept++] = s;
    }
    if (kept == 0) return;
    pd_error err = {0};
    pd_timing timing = {0};
    uint64_t start = pd_now_ns();
    pd_index *index = shares[0].task->index;
    pd_status status = pd_index_search(index, e->slice_queries, total, e->slice_answers, &timing, &err);
    uint64_t took = pd_now_ns() - start;
    pthread_mutex_lock(&e->lock);
    e->slices += !background;
    e->background_slices += background;
    pthread_mutex_unlock(&e->lock);
    if (e->observe) e->observe(e->observe_context, total, background);
    if (status && (kept == 1 || status == PD_UNAVAILABLE)) {
        for (uint32_t i = 0; i < kept; i++)
            fail_task(e, shares[i].task, &err);
    } else if (status) {
        /* The batch fails as a whole: find out whose fault it is. */
        for (uint32_t i = 0; i < kept; i++)
            run_alone(e, &shares[i]);
    } else {
        learn(e, shares, kept, took);
        for (uint32_t i = 0; i < kept; i++)
            absorb(e, &shares[i], &timing, took * shares[i].n / total);
    }
}

static void run_background(pd_executor *e)
{
    pd_task *task = e->background;
    e->background = task->link;
    if (!e->background) e->background_last = &e->background;
    e->since_background = 0;
    if (!prepare(e, task)) return;
    share one = {.task = task};
    run_slice(e, &one, 1);
}

static void run_batch(pd_executor *e)
{
    share shares[MAX_TASKS];
    pd_task *aside[MAX_TASKS];
    uint32_t n = 0, naside = 0;
    double wanted = 0;
    uint64_t wanted_queries = 0;
    while (e->nheap && n < MAX_TASKS && naside < MAX_TASKS && wanted_queries < e->batch_queries) {
        /* A slice that is full of the first task alone still takes a few of the others along: see divide(). */
        if (wanted >= (double)e->slice_ns && n >= 8) break;
        pd_task *task = heap_pop(e);
        if (n && task->index != shares[0].task->index) {
            aside[naside++] = task;
            continue;
        }
        if (!prepare(e, task)) continue;
        double each = cost_of(e, task)->ns, most = (double)e->slice_ns / 2;
        wanted += each * task->pending > most ? most : each * task->pending;
        wanted_queries += each * task->pending > most ? 1 : task->pending;
        shares[n++].task = task;
    }
    for (uint32_t i = 0; i < naside; i++)
        heap_push(e, aside[i]);
    e->crowded = n > 1;
    e->since_background++;
    if (n) run_slice(e, shares, n);
}

/* ---------------------------------------------------------------------------------------------------- thread --- */

static void take_inbox(pd_executor *e)
{
    pd_task *task = e->inbox;
    e->inbox = NULL;
    e->inbox_last = &e->inbox;
    while (task) {
        pd_task *next = task->link;
        if (!task->sequence) task->sequence = ++e->sequence;
        go_on(e, task, PD_NEXT_SEARCH);
        task = next;
    }
}

static uint64_t waiting_queries(const pd_executor *e)
{
    uint64_t queries = 0;
    for (uint32_t i = 0; i < e->nheap && i < MAX_TASKS; i++)
        queries += e->heap[i]->prepared ? e->heap[i]->pending : e->heap[i]->queries;
    return queries;
}

/* Is it worth waiting for the batch to fill? Until when; 0: no. */
static uint64_t wait_until(const pd_executor *e)
{
    if (!e->crowded || !e->wait_ns || !e->nheap || e->stopping) return 0;
    const pd_task *first = e->heap[0];
    uint64_t until = first->enqueued_ns + e->wait_ns;
    if (first->taken_ns || until > first->deadline_ns || pd_now_ns() >= until) return 0;
    return waiting_queries(e) >= e->batch_queries ? 0 : until;
}

/* With the lock held: waits for something to do. 0: the executor is to end. */
static int wait_for_work(pd_executor *e)
{
    for (;;) {
        take_inbox(e);
        if (e->calls) return 1;
        if (e->stopping) {
            if (pd_now_ns() >= e->stop_at) return 0;
            if (!e->nheap && !e->background && !e->parked) return 0;
        }
        uint64_t until = wait_until(e);
        if (e->sweep || (!until && (e->nheap || e->background))) return 1;
        if (e->stopping) until = e->stop_at;
        if (until) {
            struct timespec at = pd_clock_at(until);
            pthread_cond_timedwait(&e->more, &e->lock, &at);
        } else {
            pthread_cond_wait(&e->more, &e->lock);
        }
    }
}

/* Whoever hung up leaves the queue at once: what it had waiting would still count against its bound. */
static void sweep(pd_executor *e)
{
    uint32_t n = e->nheap;
    e->nheap = 0;
    for (uint32_t i = 0; i < n; i++) {
        pd_task *task = e->heap[i];
        /* The place it is pushed to is at or before i: everything there was looked at. */
        if (!expire(e, task)) heap_push(e, task);
    }
}

static void refuse_background(pd_executor *e, pd_status status, const char *why)
{
    pd_error err;
    while (e->background) {
        pd_task *task = e->background;
        e->background = task->link;
        pd_fail(&err, status, "%s", why);
        finish(e, task, status, &err);
    }
    e->background_last = &e->background;
}

static void refuse_all(pd_executor *e, pd_status status, pd_status background, const char *why)
{
    pd_error err;
    while (e->nheap) {
        pd_fail(&err, status, "%s", why);
        finish(e, heap_pop(e), status, &err);
    }
    refuse_background(e, background, why);
}

/* With the lock held, which is let go of meanwhile. Where searches wait, they come after CALLS_NS of it. */
static void run_calls(pd_executor *e)
{
    uint64_t until = pd_now_ns() + CALLS_NS;
    while (e->calls && (!(e->nheap || e->inbox) || pd_now_ns() < until)) {
        call *c = e->calls;
        e->calls = c->next;
        if (!e->calls) e->calls_last = &e->calls;
        int lost = e->lost;
        pthread_mutex_unlock(&e->lock);
        c->status = lost ? pd_fail(c->err, PD_UNAVAILABLE, "the device is lost: %s", e->why)
                         : c->fn(c->argument, c->err);
        if (c->status == PD_UNAVAILABLE && !lost) lose_device(e, c->err);
        pthread_mutex_lock(&e->lock);
        c->over = 1;
        pthread_cond_broadcast(&e->called);
    }
}

static void *serve(void *context)
{
    pd_executor *e = context;
    pthread_mutex_lock(&e->lock);
    while (wait_for_work(e)) {
        run_calls(e);
        int lost = e->lost, stopping = e->stopping, sweeping = e->sweep;
        e->sweep = 0;
        pthread_mutex_unlock(&e->lock);
        if (sweeping) sweep(e);
        if (lost)
            refuse_all(e, PD_UNAVAILABLE, PD_UNAVAILABLE, e->why);
        else if (stopping && e->background)
            refuse_background(e, PD_CANCELLED, "stopping");
        else if ((!e->nheap || e->since_background + 1 >= BACKGROUND_EVERY) && e->background)
            run_background(e);
        else if (e->nheap)
            run_batch(e);
        pthread_mutex_lock(&e->lock);
    }
    while (e->calls)
        run_calls(e);
    e->finished = 1;
    take_inbox(e);
    pthread_mutex_unlock(&e->lock);
    refuse_all(e, PD_UNAVAILABLE, PD_CANCELLED, "stopping: the time to finish what was queued is over");
    return NULL;
}

/* ----------------------------------------------------------------------------------------------------- calls --- */

static void take_over(pd_executor *e, const pd_config *config)
{
    e->max_requests = config->queue_requests;
    e->max_queries = config->queue_queries;
    e->stop_ns = config->stop_ms * 1000000ull;
    atomic_store(&e->batch_queries, config->batch_queries);
    atomic_store(&e->wait_ns, config->batch_wait_us * 1000ull);
    atomic_store(&e->slice_ns, config->slice_us * 1000ull);
}

pd_status pd_executor_configure(pd_executor *e, const pd_config *config, pd_error *err)
{
    if (config->queue_requests > e->room_requests)
        return pd_fail(err, PD_FAILED_PRECONDITION,
                       "queue_requests is %u, over the %u that were reserved at start: restart for it",
                       config->queue_requests, e->room_requests);
    if (config->batch_queries > e->room_batch)
        return pd_fail(err, PD_FAILED_PRECONDITION,
                       "batch_queries is %u, over the %u that were reserved at start: restart for it",
                       config->batch_queries, e->room_batch);
    pthread_mutex_lock(&e->lock);
    take_over(e, config);
    pthread_mutex_unlock(&e->lock);
    return PD_OK;
}

pd_status pd_executor_open(const pd_config *config, pd_device *device, pd_executor **out, pd_error *err)
{
    (void)device; /* indexes know theirs */
    pd_executor *e = calloc(1, sizeof *e);
    if (!e) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the executor");
    e->room_requests = config->queue_requests;
    e->room_batch = config->batch_queries;
    take_over(e, config);
    e->inbox_last = &e->inbox;
    e->background_last = &e->background;
    e->calls_last = &e->calls;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->called, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&e->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    e->heap = calloc(e->room_requests, sizeof e->heap[0]);
    e->slice_queries = calloc(e->room_batch, sizeof e->slice_queries[0]);
    e->slice_answers = calloc(e->room_batch, sizeof e->slice_answers[0]);
    pd_status status = PD_OK;
    if (!e->heap || !e->slice_queries || !e->slice_answers)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a queue of %u requests", e->max_requests);
    int failed = status ? 0 : pthread_create(&e->thread, NULL, serve, e);
    if (failed) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "the executor's thread: %s", strerror(failed));
    if (status) {
        pd_executor_close(e);
        return status;
    }
    e->started = 1;
    pthread_setname_np(e->thread, "pd-executor");
    *out = e;
    return PD_OK;
}

void pd_executor_observe(pd_executor *e, void (*observe)(void *context, uint32_t queries, int background),
                         void *context)
{
    e->observe_context = context;
    e->observe = observe;
}

/* With the lock held. */
static void post(pd_executor *e, pd_task *task)
{
    task->link = NULL;
    *e->inbox_last = task;
    e->inbox_last = &task->link;
    pthread_cond_signal(&e->more);
}

pd_status pd_executor_submit(pd_executor *e, pd_task *task, pd_error *err)
{
    pd_status status = PD_OK;
    task->enqueued_ns = pd_now_ns();
    task->taken_ns = task->used_ns = task->sequence = 0;
    task->prepared = 0;
    pthread_mutex_lock(&e->lock);
    if (task->enqueued_ns >= task->deadline_ns) {
        status = pd_fail(err, PD_DEADLINE_EXCEEDED, "the deadline passed before the request was queued");
    } else if (e->lost) {
        status = pd_fail(err, PD_UNAVAILABLE, "the device is lost: %s", e->why);
    } else if (e->stopping) {
        status = pd_fail(err, task->background ? PD_CANCELLED : PD_UNAVAILABLE, "stopping");
    } else if (task->background) {
        e->waiting_background++;
        post(e, task);
    } else if (e->requests >= e->max_requests) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED,
                         "the search queue is full: %u requests wait (queue_requests)", e->max_requests);
    } else if (e->queries >= e->max_queries || task->queries > e->max_queries - e->queries) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED,
                         "the search queue is full: %u queries wait and %u more would pass its bound of %u "
                         "(queue_queries)",
                         e->queries, task->queries, e->max_queries);
    } else {
        e->requests++;
        e->queries += task->queries;
        post(e, task);
    }
    pthread_mutex_unlock(&e->lock);
    return status;
}

void pd_executor_resume(pd_executor *e, pd_task *task, pd_status status, const pd_error *failed)
{
    pd_error err;
    pthread_mutex_lock(&e->lock);
    int finished = e->finished;
    e->parked--;
    task->prepared = 0;
    if (!finished && !status) post(e, task);
    if (e->stopping) pthread_cond_signal(&e->more);
    pthread_mutex_unlock(&e->lock);
    if (finished && !status) {
        status = pd_fail(&err, PD_UNAVAILABLE, "stopping");
        failed = &err;
    }
    if (status) finish(e, task, status, failed);
}

pd_status pd_executor_call(pd_executor *e, pd_executor_work fn, void *argument, pd_error *err)
{
    pd_error own;
    call c = {.fn = fn, .argument = argument, .err = err ? err : &own};
    pthread_mutex_lock(&e->lock);
    if (e->finished) {
        c.status = pd_fail(c.err, PD_CANCELLED, "stopping");
    } else {
        *e->calls_last = &c;
        e->calls_last = &c.next;
        pthread_cond_signal(&e->more);
        while (!c.over)
            pthread_cond_wait(&e->called, &e->lock);
    }
    pthread_mutex_unlock(&e->lock);
    return c.status;
}

void pd_executor_sweep(pd_executor *e)
{
    pthread_mutex_lock(&e->lock);
    e->sweep = 1;
    pthread_cond_signal(&e->more);
    pthread_mutex_unlock(&e->lock);
}

void pd_executor_stats_of(pd_executor *e, pd_executor_stats *stats)
{
    pthread_mutex_lock(&e->lock);
    *stats = (pd_executor_stats){.requests = e->requests,
                                 .queries = e->queries,
                                 .background = e->waiting_background,
                                 .slices = e->slices,
                                 .background_slices = e->background_slices,
                                 .expired = e->expired,
                                 .stopping = e->stopping,
                                 .lost = e->lost};
    memcpy(stats->why, e->why, sizeof stats->why);
    pthread_mutex_unlock(&e->lock);
}

void pd_executor_stop(pd_executor *e)
{
    pthread_mutex_lock(&e->lock);
    if (!e->stopping) {
        e->stopping = 1;
        e->stop_at = pd_now_ns() + e->stop_ns;
    }
    pthread_cond_broadcast(&e->more);
    pthread_mutex_unlock(&e->lock);
    if (e->started) pthread_join(e->thread, NULL);
    e->started = 0;
}

void pd_executor_close(pd_executor *e)
{
    if (!e) return;
    pd_executor_stop(e);
    pthread_cond_destroy(&e->more);
    pthread_cond_destroy(&e->called);
    pthread_mutex_destroy(&e->lock);
    free(e->heap);
    free(e->slice_queries);
    free(e->slice_answers);
    free(e);
}
