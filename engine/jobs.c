/* The builder's queue and thread, as jobs.h says. */
#include "jobs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "catalog_impl.h"
#include "log.h"
#include "upkeep.h"

#define TICK_MS     1000u /* how often the builder looks after the tables, between two jobs */
#define EXPIRE_EACH 60u   /* rounds: how often it looks for uploads that nobody continues */

/* From the kernel's linux/ioprio.h, which not every system has. */
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE        (3 << 13)

static const char *const kind_name[] = {"push", "publish", "rollback", "rebuild", "erasure"};

/* ---------------------------------------------------------------------------------------------- the queue --- */

pd_job *pd_job_find(pd_catalog *catalog, uint64_t number)
{
    const pd_jobs *jobs = &catalog->jobs;
    for (uint32_t i = jobs->count; i-- > 0;)
        if (jobs->at[i]->number == number) return jobs->at[i];
    return NULL;
}

pd_job *pd_job_pending(pd_catalog *catalog, pd_job_kind kind, const char *table, uint64_t version)
{
    const pd_jobs *jobs = &catalog->jobs;
    for (uint32_t i = jobs->count; i-- > 0;) {
        pd_job *job = jobs->at[i];
        if ((job->state == PD_JOB_QUEUED || job->state == PD_JOB_RUNNING) && job->kind == kind &&
            (!version || job->version == version) && !strcmp(job->table, table))
            return job;
    }
    return NULL;
}

pd_status pd_job_add(pd_catalog *catalog, pd_job_kind kind, const char *table, pd_job **out, pd_error *err)
{
    pd_jobs *jobs = &catalog->jobs;
    uint32_t queued = 0;
    for (uint32_t i = 0; i < jobs->count; i++)
        queued += jobs->at[i]->state == PD_JOB_QUEUED;
    if (atomic_load(&catalog->stopping)) return pd_fail(err, PD_UNAVAILABLE, "the server is stopping");
    if (queued >= PD_JOBS_QUEUED)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u jobs wait already; try again later", queued);
    pd_job *job = calloc(1, sizeof *job);
    if (!job) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a job");
    if (jobs->count == PD_JOBS_KEPT) { /* the oldest is over: only PD_JOBS_QUEUED + 1 are not */
        free(jobs->at[0]);
        memmove(&jobs->at[0], &jobs->at[1], (PD_JOBS_KEPT - 1) * sizeof jobs->at[0]);
        jobs->count--;
    }
    job->number = jobs->next++;
    job->kind = kind;
    snprintf(job->table, sizeof job->table, "%s", table);
    job->started_ms = pd_now_ms();
    atomic_init(&job->stage, "queued");
    jobs->at[jobs->count++] = job;
    *out = job;
    pthread_cond_broadcast(&catalog->changed);
    return PD_OK;
}

int pd_job_progress(void *job_context, const char *stage, uint64_t done, uint64_t total)
{
    /* A reader may look at the stage at any later time: only strings that stay are kept. */
    static const char *const stages[] = {"validate",  "train", "assign", "write", "load",
                                         "calibrate", "warm",  "switch", "gather"};
    pd_job_context *context = job_context;
    pd_job *job = context->job;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (!strcmp(stage, stages[i])) atomic_store(&job->stage, stages[i]);
    atomic_store(&job->total, total);
    atomic_store(&job->done, done);
    pd_catalog_bury(context->catalog);
    pd_upkeep_counters(context->catalog);
    return atomic_load(&job->cancel) || atomic_load(&context->catalog->stopping);
}

void pd_job_warn(pd_catalog *catalog, pd_job *job, const char *format, ...)
{
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pd_log(PD_LOG_WARNING, "job %llu (%s of \"%s\"): %s", (unsigned long long)job->number,
           kind_name[job->kind], job->table, text);
    pthread_mutex_lock(&catalog->mutex);
    size_t used = strlen(job->message);
    if (used + 3 < sizeof job->message)
        snprintf(job->message + used, sizeof job->message - used, "%s%s", used ? "; " : "", text);
    pthread_mutex_unlock(&catalog->mutex);
}

/* --------------------------------------------------------------------------------------------- the thread --- */

/* A build takes what searching leaves. Where the system refuses, it builds at the normal priority: worth a line. */
static void be_idle(void)
{
    struct sched_param none = {0};
    if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &none) != 0)
        pd_log(PD_LOG_WARNING, "the builder cannot run at idle priority");
#ifdef SYS_ioprio_set
    if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) != 0)
        pd_log(PD_LOG_DEBUG, "the builder cannot have idle disk priority: %s", strerror(errno));
#endif
}

/* When the tables are looked after next. It is kept across waits and jobs: whoever lets go of a table wakes the builder, so that a table
 * that is used all the time never lets it sleep a tick through. */
typedef struct rounds {
    uint64_t due_ns;
    uint32_t done;
} rounds;

static void look_after(pd_catalog *catalog, rounds *r)
{
    if (pd_now_ns() < r->due_ns) return;
    pd_upkeep(catalog);
    if (++r->done % EXPIRE_EACH == 0) pd_push_expire(catalog);
    r->due_ns = pd_now_ns() + TICK_MS * 1000000ull;
}

/* The next job, marked as running; NULL: the catalog closes. */
static pd_job *take_job(pd_catalog *catalog, rounds *r)
{
    for (;;) {
        pd_catalog_bury(catalog);
        look_after(catalog, r);
        pd_job *job = NULL;
        struct timespec until = pd_clock_at(r->due_ns);
        pthread_mutex_lock(&catalog->mutex);
        int stop = atomic_load(&catalog->stopping);
        for (uint32_t i = 0; !stop && !job && i < catalog->jobs.count; i++)
            if (catalog->jobs.at[i]->state == PD_JOB_QUEUED) job = catalog->jobs.at[i];
        if (job) {
            job->state = PD_JOB_RUNNING;
            job->started_ms = pd_now_ms();
        } else if (!stop && !catalog->dead) {
            pthread_cond_timedwait(&catalog->changed, &catalog->mutex, &until);
        }
        pthread_mutex_unlock(&catalog->mutex);
        if (job || stop) return job;
    }
}

static void finish_job(pd_catalog *catalog, pd_job *job, pd_status status, const pd_error *err)
{
    uint64_t version;
    pthread_mutex_lock(&catalog->mutex);
    job->status = status;
    job->state = status ? PD_JOB_FAILED : PD_JOB_DONE;
    job->ended_ms = pd_now_ms();
    version = job->version;
    if (status) snprintf(job->message, sizeof job->message, "%s", err->message);
    atomic_store(&job->stage, status ? "failed" : "done");
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    if (status)
        pd_log(PD_LOG_ERROR, "job %llu (%s of \"%s\", version %llu) failed: %s: %s",
               (unsigned long long)job->number, kind_name[job->kind], job->table, (unsigned long long)version,
               pd_status_name(status), err->message);
    else
        pd_log(PD_LOG_INFO, "job %llu (%s of \"%s\", version %llu) is done in %.1f s",
               (unsigned long long)job->number, kind_name[job->kind], job->table, (unsigned long long)version,
               (double)(job->ended_ms - job->started_ms) / 1000);
}

static void *builder(void *argument)
{
    pd_catalog *catalog = argument;
    if (!catalog->config->builder_normal) be_idle();
    pd_job *job;
    rounds r = {.due_ns = pd_now_ns() + TICK_MS * 1000000ull};
    while ((job = take_job(catalog, &r)) != NULL) {
        pd_error err = {0};
        pd_status status;
        if (atomic_load(&job->cancel))
            status = pd_fail(&err, PD_CANCELLED, "the job was cancelled before it began");
        else if (job->kind == PD_JOB_BUILD)
            status = pd_job_build(catalog, job, &err);
        else if (job->kind == PD_JOB_PUBLISH)
            status = pd_job_publish(catalog, job, &err);
        else if (job->kind == PD_JOB_REBUILD)
            status = pd_job_rebuild(catalog, job, &err);
        else if (job->kind == PD_JOB_ERASE)
            status = pd_job_erase(catalog, job, &err);
        else
            status = pd_job_rollback(catalog, job, &err);
        if (job->kind == PD_JOB_BUILD) pd_push_finish(catalog, job->push, status != PD_OK);
        finish_job(catalog, job, status, &err);
    }
    return NULL;
}

pd_status pd_jobs_start(pd_catalog *catalog, pd_error *err)
{
    int bad = pthread_create(&catalog->jobs.thread, NULL, builder, catalog);
    if (bad) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "cannot start the builder: %s", strerror(bad));
    catalog->jobs.running = 1;
    return PD_OK;
}

void pd_jobs_stop(pd_catalog *catalog)
{
    pthread_mutex_lock(&catalog->mutex);
    atomic_store(&catalog->stopping, 1);
    pthread_cond_broadcast(&catalog->changed);
    pthread_mutex_unlock(&catalog->mutex);
    if (catalog->jobs.running) pthread_join(catalog->jobs.thread, NULL);
    catalog->jobs.running = 0;
}

void pd_jobs_free(pd_catalog *catalog)
{
    for (uint32_t i = 0; i < catalog->jobs.count; i++)
        free(catalog->jobs.at[i]);
    catalog->jobs.count = 0;
}
