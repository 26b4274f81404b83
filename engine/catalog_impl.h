/* The catalog's insides, shared by its files: catalog.c (life cycle, hold and release), tables.c (what is known of each
 * table), push.c (uploads), jobs.c (the builder's queue), incoming.c (a push becomes a version), load.c (into memory),
 * switch.c (it serves), publish.c (publish, roll back, start), sample.c (queries to measure with), compare.c, profiles.c,
 * admin.c (the wire). What comes after a version: batch.c, writer.c, follow.c; new versions of it: rebuild.c, upkeep.c; what
 * must be forgotten: erase.c, erase_job.c, receipt.c; snapshot_write.c (a copy of it all).
 *
 * One mutex guards everything that changes here, and is held for the length of a look-up or of a pointer's switch, never
 * over file input or output, building or loading. Residents are opened and closed by the builder alone (and by the thread
 * that opens and closes the catalog): a version whose last holder lets go is put on the list of the dead, and the builder
 * buries it between two pieces of work. So a searching thread never pays for freeing gigabytes, and the device sees one
 * loader only, as backend.h asks.
 */
#ifndef PD_CATALOG_IMPL_H
#define PD_CATALOG_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "catalog.h"
#include "changes.h"
#include "clock.h"
#include "files.h"
#include "jobs.h"
#include "live.h"
#include "profiles.h"
#include "push.h"
#include "tables.h"

/* The data folder's path may be this long, so that every path below it fits PD_PATH_ROOM. */
#define PD_ROOT_ROOM 3072

/* A pd_served with its count. Holders see only the first member. */
typedef struct pd_box {
    pd_served served;
    char table[PD_MAX_NAME + 1];
    uint32_t refs; /* under the catalog's mutex */
    pd_catalog *catalog;
    /* The last change that was looked at for it, until it serves (then the writer sees to that). Whoever brings it in. */
    uint64_t followed;
    pd_live_source source;
    struct pd_box *next; /* of the dead */
} pd_box;

struct pd_catalog {
    _Atomic(const pd_config *) config; /* see pd_catalog_configure */
    pd_device *device;                 /* the executor's: residents live there */
    pd_executor *executor;
    pd_device *builder; /* the builder's own: assigns and scans exactly, at idle priority */
    char root[PD_ROOT_ROOM];
    int lock; /* of the data folder, held by flock */
    pthread_mutex_t mutex;
    pthread_cond_t
        changed; /* a job was added, a holder let go, an upload's writer finished; CLOCK_MONOTONIC */
    atomic_int stopping;
    pd_changes *changes;      /* the log of what came after the versions */
    struct pd_writer *writer; /* NULL until tables are restored */
    pd_tables tables;
    pd_pushes pushes;
    pd_jobs jobs;
    pd_profiles profiles;
    _Atomic(struct pd_recall_book *) recalled; /* NULL: nobody measures */
    uint64_t recount_again_ms;                 /* when counters are looked at again; the builder's */
    uint64_t erase_again_ms, erase_wait_ms;    /* when pending erasures are looked at again; the builder's */
    uint64_t forget_again_ms;                  /* and when receipts that are old */
    pd_box *dead;
    atomic_int deaths; /* the list of the dead is not empty */
    uint32_t boxes;    /* alive or dead, not yet buried */
    int orphaned;      /* the catalog is closed; the last holder frees it */
    pthread_mutex_t comparing;
    /* Whoever switches, removes or scrubs versions or trims the log holds this, and so does a snapshot, for as long as it takes. Taken before
     * the mutex and before work of the writer is waited for, never on the writer's thread. */
    pthread_mutex_t files;
};

/* What follows is catalog.c's, for the other files. */

/* A counted pd_served with one reference, of a version and its resident (both become its own). NULL: no memory. */
pd_box *pd_box_make(pd_catalog *catalog, const char *table, pd_version *version, pd_resident *resident);
static inline pd_box *pd_box_of(pd_served *served)
{
    return (pd_box *)served;
}
/* How the box's rows that came with changes are found (follow.c). */
pd_live_source pd_box_source(pd_box *box);
/* Adds what a resident version takes; box may be NULL. With the mutex held. */
void pd_box_bytes(const pd_box *box, uint64_t *device, uint64_t *host);
/* Closes the residents that nobody holds any more. Builder only, without the mutex. */
void pd_catalog_bury(pd_catalog *catalog);
/* Waits at most ms until the box has no holder but the caller. 0: somebody still holds it. Without the mutex. */
int pd_box_wait(pd_box *box, uint32_t ms);
/* Waits at most ms until every box that no table points at is dead, and buries them. 0: some are still held. */
int pd_catalog_wait_loose(pd_catalog *catalog, uint32_t ms);

/* A cpu device without a slab whose threads run at idle priority: for assigning and exact search. */
pd_status pd_catalog_idle_device(const pd_catalog *catalog, pd_device **out, pd_error *err);

static inline uint64_t pd_now_ms(void)
{
    return pd_now_ns() / 1000000u;
}
/* The moment ms from now, for the condition variables here. */
static inline struct timespec pd_clock_in(uint32_t ms)
{
    return pd_clock_at(pd_now_ns() + (uint64_t)ms * 1000000u);
}
/* A first number for uploads and jobs that no earlier life of this process has used, so that a client that speaks of one
 * after a restart is told NOT_FOUND and never touches another's. */
uint64_t pd_first_number(void);

#endif
