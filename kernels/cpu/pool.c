/* A pool that waits awake for a moment, then asleep.
 *
 * A run ends when its tasks are done, not when every worker has looked at it: a worker that wakes late finds nothing to do
 * and nobody has waited for it. What is left to hand out is therefore one atomic word, the run's number above the count
 * of tasks, so that a worker that comes late from one run cannot take the next one's tasks for its own.
 *
 * A search runs the pool several times within microseconds, and waking a sleeper takes longer than many a run: workers
 * therefore look for the next run for about SPIN_NS before they sleep on a condition, and so does the caller for the last
 * tasks. Nobody waits awake in an idle pool, or where there are fewer cores than threads: there it would take the core
 * from the one that is waited for.
 *
 * Workers are pinned where the pool has exactly as many threads as the mask of the thread that opens it has cores: then
 * each core has one thread of the pool anyway, and pinning only saves the caches and the wandering. With cores to spare it
 * would take away the scheduler's means to step aside for others. The caller is worker 0 and belongs to somebody
 * else: its mask is never touched, and the one core that is left is where the scheduler will put it.
 */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPIN_NS     20000
#define SPIN_ROUNDS 64 /* looks between two looks at the clock */

struct pd_pool {
    /* Set before a run begins, read by all in it. */
    pd_task task;
    void *context;
    uint32_t tasks;
    uint32_t threads, spawned;
    int idle, awake;    /* awake: those who wait do so awake at first */
    pthread_t *handles; /* [spawned] */
    int *cores;         /* [spawned] to pin to; NULL: nobody is pinned */
    /* Written by everybody: a line each. */
    alignas(64) _Atomic uint64_t queue; /* run << 32 | tasks that nobody has taken */
    alignas(64) atomic_uint left;       /* tasks that are not done */
    alignas(64) pthread_mutex_t lock;
    pthread_cond_t start, done;
    /* Under lock. */
    uint32_t sleepers;
    int waiting; /* the caller sleeps on done */
    void (*rest)(void);
    atomic_int closing;
    uint32_t born; /* workers that have taken their number */
};

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* There is something to do. */
static int queued(const pd_pool *pool)
{
    return (uint32_t)atomic_load_explicit(&pool->queue, memory_order_acquire) > 0;
}

static int finished(const pd_pool *pool)
{
    return atomic_load_explicit(&pool->left, memory_order_acquire) == 0;
}

/* Waits awake for a while. What it waits for is looked at again. */
static void look_for(const pd_pool *pool, int (*come)(const pd_pool *pool))
{
    if (!pool->awake) return;
    int64_t until = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < SPIN_ROUNDS; i++) {
            if (come(pool) || atomic_load_explicit(&pool->closing, memory_order_relaxed)) return;
            relax();
        }
    } while (now_ns() < until);
}

/* Takes tasks until there are none. The fields of the run stand still as long as a task that was taken is not done. */
static void work(pd_pool *pool, uint32_t worker)
{
    uint64_t queue = atomic_load_explicit(&pool->queue, memory_order_acquire);
    while ((uint32_t)queue > 0) {
        if (!atomic_compare_exchange_weak_explicit(&pool->queue, &queue, queue - 1, memory_order_acquire,
                                                   memory_order_acquire))
            continue;
        pool->task(pool->context, pool->tasks - (uint32_t)queue, worker);
        if (atomic_fetch_sub_explicit(&pool->left, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->lock);
            if (pool->waiting) pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
        queue = atomic_load_explicit(&pool->queue, memory_order_acquire);
    }
}

/* The worker's number, from 1 where the caller works too. */
static uint32_t begin(pd_pool *pool)
{
    if (pool->idle) {
        /* A wish: without it the builder only competes on equal terms. */
        struct sched_param none = {0};
        (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    }
    pthread_mutex_lock(&pool->lock);
    uint32_t number = pool->born++;
    pthread_mutex_unlock(&pool->lock);
    if (pool->cores) {
        /* A wish too. */
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)pool->cores[number], &one);
        (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    }
    return number + (pool->idle ? 0 : 1);
}

static void *worker_main(void *argument)
{
    pd_pool *pool = argument;
    uint32_t worker = begin(pool);
    for (;;) {
        look_for(pool, queued);
        if (!queued(pool)) {
            pthread_mutex_lock(&pool->lock);
            if (pool->rest && !queued(pool)) pool->rest();
            pool->sleepers++;
            while (!queued(pool) && !atomic_load(&pool->closing))
                pthread_cond_wait(&pool->start, &pool->lock);
            pool->sleepers--;
            pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->closing)) return NULL;
        work(pool, worker);
    }
}

/* Signals are for the threads of the program, not for workers. */
static int spawn(pd_pool *pool, pthread_t *handle)
{
    sigset_t all, before;
    sigfillset(&all);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0) return -1;
    int code = pthread_create(handle, NULL, worker_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

/* What may be had of the machine: whether to wait awake, and the workers' cores, of which the first is left to the
 * caller. Without an answer (more cores than a cpu_set_t) neither. */
static pd_status choose_cores(pd_pool *pool, uint32_t workers, pd_error *err)
{
    cpu_set_t mask;
    if (pool->idle || workers == 0 || sched_getaffinity(0, sizeof mask, &mask) != 0) return PD_OK;
    uint32_t cores = (uint32_t)CPU_COUNT(&mask);
    pool->awake = cores >= pool->threads;
    if (cores != pool->threads) return PD_OK;
    pool->cores = malloc(workers * sizeof *pool->cores);
    if (!pool->cores) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u threads", pool->threads);
    uint32_t seen = 0;
    for (int core = 0; core < CPU_SETSIZE && seen <= workers; core++) {
        if (!CPU_ISSET((size_t)core, &mask)) continue;
        if (seen > 0) pool->cores[seen - 1] = core;
        seen++;
    }
    return PD_OK;
}

static void pool_free(pd_pool *pool)
{
    free(pool->cores);
    free(pool->handles);
    free(pool);
}

pd_status pd_pool_open(uint32_t threads, int idle, pd_pool **out, pd_error *err)
{
    pd_pool *pool = aligned_alloc(64, sizeof *pool);
    uint32_t wanted = idle ? threads : threads - 1;
    if (pool) {
        memset(pool, 0, sizeof *pool);
        pool->handles = calloc(wanted ? wanted : 1, sizeof *pool->handles);
    }
    if (!pool || !pool->handles) {
        free(pool);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u threads", threads);
    }
    pool->threads = threads;
    pool->idle = idle;
    pd_status status = choose_cores(pool, wanted, err);
    if (status != PD_OK) {
        pool_free(pool);
        return status;
    }
    atomic_init(&pool->queue, 0);
    atomic_init(&pool->left, 0);
    atomic_init(&pool->closing, 0);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->done, NULL);
    for (; pool->spawned < wanted; pool->spawned++) {
        int code = spawn(pool, &pool->handles[pool->spawned]);
        if (code != 0) {
            uint32_t started = pool->spawned;
            pd_pool_close(pool);
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "starting thread %u of %u failed: %s", started + 1,
                           wanted, code > 0 ? strerror(code) : "its signal mask cannot be set");
        }
    }
    *out = pool;
    return PD_OK;
}

void pd_pool_close(pd_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->closing, 1);
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->spawned; i++)
        pthread_join(pool->handles[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->start);
    pthread_mutex_destroy(&pool->lock);
    pool_free(pool);
}

void pd_pool_before_sleep(pd_pool *pool, void (*rest)(void))
{
    pthread_mutex_lock(&pool->lock);
    pool->rest = rest;
    pthread_mutex_unlock(&pool->lock);
}

uint32_t pd_pool_threads(const pd_pool *pool)
{
    return pool->threads;
}

int pd_pool_idle(const pd_pool *pool)
{
    return pool->idle;
}

void pd_pool_run(pd_pool *pool, uint32_t tasks, pd_task task, void *context)
{
    if (tasks == 0) return;
    if (!pool->idle && (tasks == 1 || pool->spawned == 0)) {
        for (uint32_t i = 0; i < tasks; i++)
            task(context, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->context = context;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->left, tasks, memory_order_relaxed);
    uint64_t run = (atomic_load_explicit(&pool->queue, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&pool->queue, run << 32 | tasks, memory_order_release);
    if (pool->sleepers > 0) pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    if (!pool->idle) work(pool, 0);
    look_for(pool, finished);
    if (finished(pool)) return;
    pthread_mutex_lock(&pool->lock);
    pool->waiting = 1;
    while (!finished(pool))
        pthread_cond_wait(&pool->done, &pool->lock);
    pool->waiting = 0;
    pthread_mutex_unlock(&pool->lock);
}
