/* The executor: the one thread that owns a device.
 *
 * Searches wait in a bounded queue, ordered by deadline. The executor takes the earliest, gathers others of the same version
 * until the batch is full or the longest wait is over, cuts the batch into slices of about slice_us of work (by a running
 * estimate of the cost of a query) and puts what is left back, so that one large request cannot hold up the rest. A task whose
 * deadline has passed when it is taken is answered DEADLINE_EXCEEDED and costs nothing more.
 */
#ifndef PD_EXECUTOR_H
#define PD_EXECUTOR_H

#include <stdint.h>

#include "backend.h"
#include "config.h"
#include "resident.h"
#include "status.h"

typedef struct pd_executor pd_executor;

/* ----------------------------------------------------------------------------------------------- tasks ---
 *
 * A task is queries over one index with a deadline. Its type says how it is prepared, which queries come next and what
 * becomes of their answers, so that the executor knows scheduling and nothing of requests. All calls but done come on the
 * executor's thread. */

typedef enum pd_next {
    PD_NEXT_SEARCH, /* queries wait: task->pending > 0 */
    PD_NEXT_PARK,   /* others work on it; pd_executor_resume brings it back */
    PD_NEXT_DONE,
} pd_next;

typedef struct pd_task pd_task;
typedef struct pd_task_type {
    /* When the task is taken for the first time, and after each resume. Sets pending. */
    pd_status (*prepare)(pd_task *task, pd_next *next, pd_error *err);
    /* Fills queries and answers of the next queries that wait, at most max (>= 1); returns how many, 0 when memory is
     * short. They stay valid until absorb. The same queries are searched as one call or several: results do not depend
     * on it. */
    uint32_t (*take)(pd_task *task, uint32_t max, pd_query *queries, pd_answer *answers);
    /* Gives the n that take filled back, answered; timing is that of the whole slice. Updates pending. */
    pd_status (*absorb)(pd_task *task, const pd_query *queries, const pd_answer *answers, uint32_t n,
                        const pd_timing *timing, pd_next *next, pd_error *err);
    /* Must see to it that pd_executor_resume is called later, even when it fails. */
    void (*park)(pd_task *task);
    /* Optional. 0: nobody waits for the answer any more; the task is ended with CANCELLED. */
    int (*wanted)(pd_task *task);
    /* The last call, on any thread; quick. err is set where status is not OK. The task is the type's to free. */
    void (*done)(pd_task *task, pd_status status, const pd_error *err);
} pd_task_type;

struct pd_task {
    const pd_task_type *type;
    pd_index *index;
    uint64_t deadline_ns; /* on pd_now_ns(); UINT64_MAX: none */
    uint32_t queries;     /* for the queue's bound */
    uint32_t pending;     /* queries that wait */
    uint32_t cost_class;  /* queries of one index and class cost about the same */
    int background;       /* lowest priority, no bound */
    /* The executor's own. */
    uint64_t enqueued_ns, taken_ns, used_ns, key, sequence;
    int prepared;
    pd_task *link;
};

/* RESOURCE_EXHAUSTED naming the bound; DEADLINE_EXCEEDED: it is over already; UNAVAILABLE: stopping, or the device is lost. On success done will be called. */
pd_status pd_executor_submit(pd_executor *executor, pd_task *task, pd_error *err);
/* Brings a parked task back. failed: ends it with that. */
void pd_executor_resume(pd_executor *executor, pd_task *task, pd_status status, const pd_error *failed);

/* Ends the waiting tasks that nobody wants any more, soon; without it that is seen when each is taken. */
void pd_executor_sweep(pd_executor *executor);

/* Runs fn on the executor's thread between two slices, before any search that waits, and waits for it: how others change or
 * read what only the executor may touch. Short: searches wait for it. Not from the executor's own thread. Returns what fn
 * returns; UNAVAILABLE when the device is lost (fn is not called), or by fn, and then the device is lost; CANCELLED: the executor has
 * ended (fn is not called). Calls are run in the order in which they came. */
typedef pd_status (*pd_executor_work)(void *argument, pd_error *err);
pd_status pd_executor_call(pd_executor *executor, pd_executor_work fn, void *argument, pd_error *err);

typedef struct pd_executor_stats {
    uint32_t requests, queries; /* admitted and not done */
    uint32_t background;
    uint64_t slices, background_slices, expired;
    int stopping, lost;
    char why[200]; /* the device is lost */
} pd_executor_stats;
void pd_executor_stats_of(pd_executor *executor, pd_executor_stats *stats);
/* observe is called after each slice, on the executor's thread, with its queries. Set before the first task. */
void pd_executor_observe(pd_executor *executor,
                         void (*observe)(void *context, uint32_t queries, int background), void *context);
/* The first half of close: drains and joins the thread; submit and resume may still be called and refuse. */
void pd_executor_stop(pd_executor *executor);
/* The same as pd_executor_background, for an index alone. */
pd_status pd_executor_background_index(pd_executor *executor, pd_index *index, const pd_query *queries,
                                       uint32_t count, pd_answer *answers, pd_error *err);

/* ------------------------------------------------------------------------------------------------------------ */

/* Starts the thread. The device is the executor's until close. */
pd_status pd_executor_open(const pd_config *config, pd_device *device, pd_executor **out, pd_error *err);
/* Takes over queue_requests, queue_queries, batch_queries, batch_wait_us, slice_us and stop_ms; what waits stays. FAILED_PRECONDITION
 * naming the key whose memory was not reserved at start; nothing is taken over then. Any thread. */
pd_status pd_executor_configure(pd_executor *executor, const pd_config *config, pd_error *err);
/* Finishes what is queued (at most stop_ms), refuses the rest with UNAVAILABLE, joins the thread. */
void pd_executor_close(pd_executor *executor);

/* Blocking searches at the lowest priority, cut into slices like any other: calibration and comparison use it. Not to be called
 * from the executor's own thread. answers as for pd_index_search. CANCELLED when the executor is stopping. */
pd_status pd_executor_background(pd_executor *executor, pd_resident *resident, const pd_query *queries,
                                 uint32_t count, pd_answer *answers, pd_error *err);

#endif
