/* Publishing: a version on disk becomes resident, then the one that serves; and the way back.
 *
 * Builder only (or the thread that opens the catalog), without the mutex. The order of a switch is: everything that can
 * fail first (load, calibrate, warm, most of the changes since), then on the writer's thread the last changes, CURRENT on disk and the
 * pointer in memory, then the old ones' removal.
 */
#ifndef PD_PUBLISH_H
#define PD_PUBLISH_H

#include "catalog_impl.h"
#include "follow.h"

typedef struct pd_incoming {
    pd_catalog *catalog;
    char table[PD_MAX_NAME + 1];
    uint64_t number;
    pd_box *box;      /* held here; NULL: not loaded */
    uint64_t drained; /* the version taken out of service to make room; 0: none */
    int back;         /* a rollback: what serves until now does not join the way back */
    int any_width; /* it is older than what serves: rows of another width that came since are passed over */
    pd_followed followed; /* changes of the log that were applied to it */
} pd_incoming;

/* Opens and loads a version: RESOURCE_EXHAUSTED when it does not fit, DATA_LOSS when it is corrupt (it is then marked
 * broken). may_drain: where it does not fit beside the serving version and the table's policy is drain, that one is taken
 * out first. */
pd_status pd_incoming_load(pd_catalog *catalog, const char *table, uint64_t number, int may_drain,
                           pd_incoming *in, pd_error *err);
/* Searches a few rows, so that memory is touched and an index that cannot answer is not published. */
pd_status pd_incoming_warm(pd_incoming *in, pd_error *err);
/* It can be asked for as TABLE@NUMBER from now on, as it was built; replaces what was staged. */
void pd_incoming_stage(pd_incoming *in);
/* Builder: a staged version whose files were scrubbed is loaded from them again, so that memory forgets, too; where that fails it is no
 * longer staged. */
void pd_incoming_stage_again(pd_catalog *catalog, const char *table, uint64_t number);
/* It serves from now on. Then removes what is kept too long; job (which may be NULL) hears of profiles that no longer fit. */
pd_status pd_incoming_switch(pd_incoming *in, pd_job *job, pd_error *err);
/* After a failure or at the end: lets go of what is held; a version that was taken out is loaded again. */
void pd_incoming_end(pd_incoming *in);

/* For the files of this header. Opens a version, checks that the folder holds what its name says, and loads it with pages to spare; the box
 * has one holder. */
pd_status pd_box_open(pd_catalog *catalog, const char *table, uint64_t number, pd_box **out, pd_error *err);
/* As pd_incoming_warm. */
pd_status pd_box_warm(const pd_box *box, pd_error *err);
/* Marks a version that does not serve as broken, and says why. */
void pd_version_broken(pd_catalog *catalog, const char *table, uint64_t number, const char *problem);

/* Start: loads each table's current version, and prunes; where that does not load, the one that served before it, and so on. */
void pd_publish_restore(pd_catalog *catalog);

/* Kept versions beyond what the schema, or else the configuration, keeps go. spare: one that stays and does not count, 0: none. */
void pd_publish_prune(pd_catalog *catalog, const char *table, uint64_t spare);

/* A version's folder goes: renamed first, so that a crash leaves no half of it under its name. */
pd_status pd_version_remove(pd_catalog *catalog, const char *table, uint64_t number, pd_error *err);

#endif
