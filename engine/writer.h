/* The writer: the one thread that changes tables.
 *
 * It takes all batches that wait (at most a group's worth), stages each against the version that serves its table, appends them to
 * the log of changes in one transaction, has the executor apply them between two searches, and answers them. A batch is answered when
 * it is logged and visible, or when nothing of it was done (docs/decisions/0013-live-tables.md). What else must not come between two groups (a
 * switch of versions, a trim of the log, a snapshot) is run by it, too.
 *
 * While the log cannot be written batches are answered with the log's error, searches go on, and every group tries again.
 */
#ifndef PD_WRITER_H
#define PD_WRITER_H

#include <stdint.h>

#include "batch.h"
#include "catalog.h"
#include "executor.h"

#define PD_WRITES_WAITING 256u
#define PD_WRITES_BYTES   (256ull << 20) /* of the batches that wait */

typedef struct pd_writer pd_writer;

typedef struct pd_written {
    uint64_t sequence;
    int durable; /* on the disk */
    pd_stage_counts counts;
    int repeated; /* the key was seen before: nothing was done */
} pd_written;

typedef struct pd_write {
    pd_batch *batch;   /* bound to served */
    pd_served *served; /* held */
    uint64_t deadline_ns;
    /* The last call, on the writer's thread; quick. written is NULL where status is not OK. batch and served are the callee's to free
     * and release. */
    void (*done)(struct pd_write *write, pd_status status, const pd_error *err, const pd_written *written);
    /* Where it is not NULL, an upsert that finds no page may be held aside until its table is built again (held.h). Then this is called, on the
     * writer's thread, in place of done: served is NULL and to be held anew, the batch to be bound to it and submitted again. */
    void (*again)(struct pd_write *write);
    /* The writer's own. */
    struct pd_write *next;
    pd_staged *staged;
    pd_written written;
    pd_status status;
    pd_error err;
    uint32_t holds;  /* how often it was held aside */
    int resent;      /* another with its key was held aside, and may be done */
    uint64_t number; /* of the version that had no page for it */
} pd_write;

/* changes and executor outlive the writer. The catalog is asked which version serves. */
pd_status pd_writer_open(pd_catalog *catalog, pd_writer **out, pd_error *err);
/* Finishes what waits, refuses the rest with UNAVAILABLE, joins the thread. Work of pd_writer_run is still done, by its caller. */
void pd_writer_stop(pd_writer *writer);
void pd_writer_close(pd_writer *writer); /* NULL is allowed */

/* On success done will be called. RESOURCE_EXHAUSTED: too many wait; UNAVAILABLE: stopping. */
pd_status pd_writer_submit(pd_writer *writer, pd_write *write, pd_error *err);
/* Runs fn on the writer's thread between two groups, and waits for it; where the writer has stopped, at once. Not from the writer's
 * own thread, nor the executor's. */
typedef pd_status (*pd_writer_work)(void *argument, pd_error *err);
pd_status pd_writer_run(pd_writer *writer, pd_writer_work fn, void *argument, pd_error *err);
/* Assigns, at the writer's own priority; for work of pd_writer_run. */
pd_device *pd_writer_device(pd_writer *writer);
/* Logs and applies a batch from within fn of pd_writer_run, which is the writer's thread. served: the version the batch is bound to. */
pd_status pd_writer_now(pd_writer *writer, pd_batch *batch, pd_served *served, pd_written *written,
                        pd_error *err);

/* The last change that every search which starts now sees. Any thread. */
uint64_t pd_writer_visible(const pd_writer *writer);
/* Resumes the parked task once `sequence` is visible, or its deadline has passed. */
void pd_writer_await(pd_writer *writer, pd_task *task, uint64_t sequence);

typedef struct pd_writer_stats {
    uint32_t waiting, held; /* held: until their table is built again */
    uint64_t groups, batches, rows, refused, visible;
} pd_writer_stats;
void pd_writer_stats_of(pd_writer *writer, pd_writer_stats *stats);

#endif
