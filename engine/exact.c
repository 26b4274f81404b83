/* The exact worker: one thread, one queue, one idle-priority device. A search that runs past its deadline is broken off at the
 * next piece of the source file. */
#include "exact.h"

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
        status = pd_resident_exact(s->served->resident, pd_served_source(s->served), worker->device,
                                   s->exact_queries, n, s->exact_answers, over, w, &err);
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
    pd_device_options options = {
        .threads = config->builder_threads, .idle = 1, .isa = *config->isa ? config->isa : NULL};
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

void pd_exact_close(pd_exact_worker *worker)
{
    if (!worker) return;
    atomic_store(&worker->stopping, 1);
    pd_workers_close(worker->workers);
    pd_device_close(worker->device);
    free(worker);
}
