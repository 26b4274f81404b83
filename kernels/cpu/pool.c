/* A pool that sleeps on a condition between runs. Tasks are handed out by an atomic counter. */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct pd_pool {
    uint32_t threads, spawned;
    int idle;
    pthread_t *handles; /* [spawned] */
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    /* Under lock. */
    uint64_t run; /* counts runs, so that a worker takes part once */
    uint32_t active;
    int closing;
    uint32_t born; /* workers that have taken their number */
    /* Set before a run begins. */
    pd_task task;
    void *context;
    uint32_t tasks;
    atomic_uint next;
};

static void work(pd_pool *pool, uint32_t worker)
{
    for (;;) {
        uint32_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks) return;
        pool->task(pool->context, task, worker);
    }
}

static void *worker_main(void *argument)
{
    pd_pool *pool = argument;
    uint64_t seen = 0;
    if (pool->idle) {
        /* A wish: without it the builder only competes on equal terms. */
        struct sched_param none = {0};
        (void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    }
    pthread_mutex_lock(&pool->lock);
    uint32_t worker = pool->born++ + (pool->idle ? 0 : 1);
    for (;;) {
        while (pool->run == seen && !pool->closing)
            pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->closing) break;
        seen = pool->run;
        pthread_mutex_unlock(&pool->lock);
        work(pool, worker);
        pthread_mutex_lock(&pool->lock);
        if (--pool->active == 0) pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
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

pd_status pd_pool_open(uint32_t threads, int idle, pd_pool **out, pd_error *err)
{
    pd_pool *pool = calloc(1, sizeof *pool);
    uint32_t wanted = idle ? threads : threads - 1;
    if (pool) pool->handles = calloc(wanted ? wanted : 1, sizeof *pool->handles);
    if (!pool || !pool->handles) {
        free(pool);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u threads", threads);
    }
    pool->threads = threads;
    pool->idle = idle;
    atomic_init(&pool->next, 0);
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
    pool->closing = 1;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (uint32_t i = 0; i < pool->spawned; i++)
        pthread_join(pool->handles[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->start);
    pthread_mutex_destroy(&pool->lock);
    free(pool->handles);
    free(pool);
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
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->active = pool->spawned;
    pool->run++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    if (!pool->idle) work(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->active > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
