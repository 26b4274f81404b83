/* Jobs: what takes long, done one after the other by one thread at idle priority, the builder.
 *
 * The thread has the scheduler's idle class, which its children (FAISS's, OpenMP's) inherit, and the idle class of disk
 * input and output: a build takes what the searches leave. Progress is written to atomics, so that the builder, which may not
 * run for a while when the machine is busy, takes the catalog's mutex only a few times a job.
 */
#ifndef PD_JOBS_H
#define PD_JOBS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "schema.h"
#include "status.h"

#define PD_JOBS_QUEUED 32  /* waiting, at most */
#define PD_JOBS_KEPT   256 /* remembered in all */

typedef enum pd_job_kind {
    PD_JOB_BUILD,
    PD_JOB_PUBLISH,
    PD_JOB_ROLLBACK,
    PD_JOB_REBUILD,
    PD_JOB_ERASE
} pd_job_kind;
typedef enum pd_job_state {
    PD_JOB_QUEUED,
    PD_JOB_RUNNING,
    PD_JOB_DONE,
    PD_JOB_FAILED,
    PD_JOB_STATES
} pd_job_state;

typedef struct pd_job {
    uint64_t number;
    pd_job_kind kind;
    char table[PD_MAX_NAME + 1];
    uint64_t push; /* of a build */
    int publish;   /* of a build: 0 ends as staged */
    /* Under the mutex. */
    pd_job_state state;
    uint64_t version; /* 0: not known yet */
    uint64_t started_ms, ended_ms;
    pd_status status;
    char message[1200]; /* of a failed one why; else warnings, "" when there are none */
    /* Written by the builder while it runs. */
    _Atomic(const char *) stage;
    atomic_uint_fast64_t done, total;
    atomic_int cancel;
} pd_job;

typedef struct pd_jobs {
    pd_job *at[PD_JOBS_KEPT]; /* oldest first; running and waiting ones are the last */
    uint32_t count;
    uint64_t next;
    pthread_t thread;
    int running; /* the thread is */
} pd_jobs;

struct pd_catalog;

/* Starts and stops the builder. stop cancels what runs and fails what waits. */
pd_status pd_jobs_start(struct pd_catalog *catalog, pd_error *err);
void pd_jobs_stop(struct pd_catalog *catalog);
void pd_jobs_free(struct pd_catalog *catalog);

/* With the mutex held. RESOURCE_EXHAUSTED: the queue is full. */
pd_status pd_job_add(struct pd_catalog *catalog, pd_job_kind kind, const char *table, pd_job **out,
                     pd_error *err);
pd_job *pd_job_find(struct pd_catalog *catalog, uint64_t number); /* NULL */
/* A publish or rollback of this table that is not over; NULL: none. version 0: any. */
pd_job *pd_job_pending(struct pd_catalog *catalog, pd_job_kind kind, const char *table, uint64_t version);

/* For the builder's work: says where the job is; a pd_progress. Not 0: it must stop. */
int pd_job_progress(void *job_context, const char *stage, uint64_t done, uint64_t total);
typedef struct pd_job_context {
    struct pd_catalog *catalog;
    pd_job *job;
} pd_job_context;
/* Adds a sentence to the message of a job that goes on. */
void pd_job_warn(struct pd_catalog *catalog, pd_job *job, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The work itself (incoming.c, publish.c, rebuild.c, erase.c). */
pd_status pd_job_build(struct pd_catalog *catalog, pd_job *job, pd_error *err);
pd_status pd_job_publish(struct pd_catalog *catalog, pd_job *job, pd_error *err);
pd_status pd_job_rollback(struct pd_catalog *catalog, pd_job *job, pd_error *err);
pd_status pd_job_rebuild(struct pd_catalog *catalog, pd_job *job, pd_error *err);
pd_status pd_job_erase(struct pd_catalog *catalog, pd_job *job, pd_error *err);

#endif
