/* The exact worker: one thread, one queue, one idle-priority device. A search that runs past its deadline is broken off at the
 * next piece of the source file. Passes for nobody (recall.c) come through the same queue and give way to searches. */
#include "exact.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "request.h"
#include "workers.h"

struct pd_exact_worker {
    pd_device *device;
    pd_executor *executor;
    pd_workers *workers;
    atomic_int stopping;
};

typedef struct exact_work {
    pd_work work;
    pd_exact_worker *worker;
    pd_search *search;
} exact_work;

/* How a table is searched exactly: all of what it holds, from full-precision rows. */
static pd_status answer(pd_exact_worker *worker, const pd_served *served, const pd_query *queries, uint32_t n,
                        pd_answer *answers, pd_progress progress, void *context, pd_error *err)
{
    return pd_resident_exact(served->resident, pd_served_source(served), worker->device, queries, n, answers,
                             progress, context, err);
}

/* -------------------------------------------------------------------------------------------------- searches --- */

static int over(void *context, const char *stage, uint64_t done, uint64_t total)
{
    exact_work *w = context;
    (void)stage;
    (void)done;
    (void)total;
    return atomic_load(&w->worker->stopping) || pd_now_ns() >= w->search->task.deadline_ns ||
           !w->search->wanted(w->search);
}

static void run(pd_work *work)
{
    exact_work *w = (exact_work *)work;
    pd_search *s = w->search;
    pd_exact_worker *worker = w->worker;
    pd_error err = {0};
    pd_status status = PD_OK;
    uint64_t began = pd_now_ns();
    uint32_t n = over(w, "", 0, 0) ? 0 : pd_search_take_exact(s);
    if (n)
        status = answer(worker, s->served, s->exact_queries, n, s->exact_answers, over, w, &err);
    else if (!over(w, "", 0, 0))
        status = pd_fail(&err, PD_RESOURCE_EXHAUSTED, "no memory for an exact search");
    s->timing.scan_ns += pd_now_ns() - began;
    if (atomic_load(&worker->stopping))
        status = pd_fail(&err, PD_UNAVAILABLE, "stopping");
    else if (!s->wanted(s))
        status = pd_fail(&err, PD_CANCELLED, "the connection has gone");
    else if (over(w, "", 0, 0))
        status = pd_fail(&err, PD_DEADLINE_EXCEEDED, "the deadline passed during the exact search");
    free(w);
    pd_executor_resume(worker->executor, &s->task, status, &err);
}

pd_status pd_exact_open(const pd_config *config, pd_executor *executor, uint32_t bound, pd_exact_worker **out,
                        pd_error *err)
{
    pd_exact_worker *worker = calloc(1, sizeof *worker);
    if (!worker) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the exact worker");
    worker->executor = executor;
    pd_device_options options = {.threads = config->builder_threads,
                                 .idle = !config->builder_normal,
                                 .isa = *config->isa ? config->isa : NULL};
    const char *backend = strcmp(config->backend, "reference") ? "cpu" : "reference";
    if (strcmp(config->backend, "cpu") && strcmp(config->backend, "reference")) options.isa = NULL;
    pd_status status = pd_device_open(backend, &options, &worker->device, err);
    if (!status) status = pd_workers_open("pd-exact", 1, bound, &worker->workers, err);
    if (status) {
        pd_exact_close(worker);
        return status;
    }
    *out = worker;
    return PD_OK;
}

void pd_exact_add(pd_exact_worker *worker, pd_search *search)
{
    pd_error err;
    pd_status status;
    exact_work *w = malloc(sizeof *w);
    if (!w) {
        status = pd_fail(&err, PD_RESOURCE_EXHAUSTED, "no memory for an exact search");
    } else {
        *w = (exact_work){.work.run = run, .worker = worker, .search = search};
        status = pd_workers_add(worker->workers, &w->work, &err);
        if (status) free(w);
    }
    if (status) pd_executor_resume(worker->executor, &search->task, status, &err);
}

/* ---------------------------------------------------------------------------------------------------- passes --- */

typedef struct exact_pass {
    pd_work work;
    pd_exact_worker *worker;
    const pd_served *served;
    const pd_query *queries;
    uint32_t n;
    pd_answer *answers;
    int (*stop)(void *context);
    void *context;
    pd_status status;
    pd_error *err;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    int over;
} exact_pass;

static int give_way(void *context, const char *stage, uint64_t done, uint64_t total)
{
    exact_pass *p = context;
    (void)stage;
    (void)done;
    (void)total;
    return atomic_load(&p->worker->stopping) || pd_workers_waiting(p->worker->workers) || p->stop(p->context);
}

static void run_pass(pd_work *work)
{
    exact_pass *p = (exact_pass *)work;
    if (give_way(p, "", 0, 0))
        p->status = pd_fail(p->err, PD_CANCELLED, "the exact search was stopped");
    else
        p->status = answer(p->worker, p->served, p->queries, p->n, p->answers, give_way, p, p->err);
    pthread_mutex_lock(&p->lock);
    p->over = 1;
    pthread_cond_signal(&p->ended);
    pthread_mutex_unlock(&p->lock);
}

pd_status pd_exact_pass(pd_exact_worker *worker, const pd_served *served, const pd_query *queries, uint32_t n,
                        pd_answer *answers, int (*stop)(void *context), void *context, pd_error *err)
{
    exact_pass p = {.work.run = run_pass,
                    .worker = worker,
                    .served = served,
                    .queries = queries,
                    .n = n,
                    .answers = answers,
                    .stop = stop,
                    .context = context,
                    .err = err};
    if (pd_workers_waiting(worker->workers)) return pd_fail(err, PD_CANCELLED, "exact searches wait");
    pthread_mutex_init(&p.lock, NULL);
    pthread_cond_init(&p.ended, NULL);
    pd_status status = pd_workers_add(worker->workers, &p.work, err);
    if (!status) {
        pthread_mutex_lock(&p.lock);
        while (!p.over)
            pthread_cond_wait(&p.ended, &p.lock);
        pthread_mutex_unlock(&p.lock);
        status = p.status;
    }
    pthread_cond_destroy(&p.ended);
    pthread_mutex_destroy(&p.lock);
    return status;
}

void pd_exact_close(pd_exact_worker *worker)
{
    if (!worker) return;
    atomic_store(&worker->stopping, 1);
    pd_workers_close(worker->workers);
    pd_device_close(worker->device);
    free(worker);
}
