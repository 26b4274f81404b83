/* A bounded queue served by a few threads. One mutex and one condition: none of its users passes more than tens of
 * thousands of items a second. */
#include "workers.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct pd_workers {
    char name[16];
    pthread_mutex_t lock;
    pthread_cond_t more;
    pd_work *first, **last;
    uint32_t waiting, bound, nthreads;
    int stopping;
    pthread_t threads[];
};

static void *serve(void *context)
{
    pd_workers *w = context;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->first && !w->stopping)
            pthread_cond_wait(&w->more, &w->lock);
        pd_work *work = w->first;
        if (!work) break;
        w->first = work->next;
        if (!w->first) w->last = &w->first;
        w->waiting--;
        pthread_mutex_unlock(&w->lock);
        work->run(work);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

pd_status pd_workers_open(const char *name, uint32_t threads, uint32_t bound, pd_workers **out, pd_error *err)
{
    pd_workers *w = calloc(1, sizeof *w + threads * sizeof w->threads[0]);
    if (!w) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the %s threads", name);
    strncpy(w->name, name, sizeof w->name - 1);
    w->bound = bound;
    w->last = &w->first;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    for (; w->nthreads < threads; w->nthreads++) {
        int failed = pthread_create(&w->threads[w->nthreads], NULL, serve, w);
        if (failed) {
            pd_fail(err, PD_RESOURCE_EXHAUSTED, "the %s thread cannot start: %s", name, strerror(failed));
            pd_workers_close(w);
            return PD_RESOURCE_EXHAUSTED;
        }
        pthread_setname_np(w->threads[w->nthreads], w->name);
    }
    *out = w;
    return PD_OK;
}

pd_status pd_workers_add(pd_workers *w, pd_work *work, pd_error *err)
{
    pd_status status = PD_OK;
    work->next = NULL;
    pthread_mutex_lock(&w->lock);
    if (w->stopping) {
        status = pd_fail(err, PD_UNAVAILABLE, "stopping");
    } else if (w->waiting >= w->bound) {
        status =
            pd_fail(err, PD_RESOURCE_EXHAUSTED, "the %s queue is full: %u requests wait", w->name, w->bound);
    } else {
        *w->last = work;
        w->last = &work->next;
        w->waiting++;
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->lock);
    return status;
}

void pd_workers_bound(pd_workers *w, uint32_t bound)
{
    pthread_mutex_lock(&w->lock);
    w->bound = bound;
    pthread_mutex_unlock(&w->lock);
}

uint32_t pd_workers_waiting(pd_workers *w)
{
    pthread_mutex_lock(&w->lock);
    uint32_t waiting = w->waiting;
    pthread_mutex_unlock(&w->lock);
    return waiting;
}

void pd_workers_close(pd_workers *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stopping = 1;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (uint32_t i = 0; i < w->nthreads; i++)
        pthread_join(w->threads[i], NULL);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
