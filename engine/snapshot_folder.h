/* Snapshots of the data folder: written while serving, checked, restored from.
 *
 *     FOLDER/snapshot.json                      sealed: what is here, and the sums of all but the versions' own files
 *     FOLDER/tables/NAME/CURRENT                as in the data folder
 *     FOLDER/tables/NAME/vNNNNNNNN/             whole versions, linked where both folders lie on one file system
 *     FOLDER/profiles/NAME/vNNNNNNNN.conf
 *     FOLDER/changes/data.mdb                   the log, compacted
 *
 * snapshot.json is written last, the folder is made as FOLDER.tmp and renamed: one with the final name is whole. The log is copied
 * after the versions: with the changes that it holds beyond them it is of the moment of its copy.
 */
#ifndef PD_SNAPSHOT_FOLDER_H
#define PD_SNAPSHOT_FOLDER_H

#include <jansson.h>
#include <stdint.h>

#include "catalog.h"
#include "config.h"
#include "files.h"
#include "schema.h"
#include "status.h"

#define PD_SNAPSHOT_FORMAT 1
#define PD_SNAPSHOT_FILE   "snapshot.json"

typedef struct pd_snapshot_made {
    uint64_t sequence; /* the last change in it */
    uint64_t bytes;    /* of all its files, those that are shared with the data folder too */
    uint32_t tables;
    double seconds;
} pd_snapshot_made;

/* Writes a snapshot while the catalog serves. Whatever was acknowledged before the call is in it. Builds go on, but no version is switched,
 * removed or scrubbed meanwhile. folder: absolute; its parent is there. INVALID_ARGUMENT: it is not absolute, or lies in the data
 * folder; ALREADY_EXISTS: it, or FOLDER.tmp, is there; NOT_FOUND: its parent is not; RESOURCE_EXHAUSTED: the disk is full, naming
 * the file. Nothing is left after a failure. One at a time; others wait. */
pd_status pd_snapshot_write(pd_catalog *catalog, const char *folder, pd_snapshot_made *out, pd_error *err);

/* A snapshot that was read: names are checked, files are not. */
typedef struct pd_snapshot {
    char folder[PD_PATH_ROOM];
    json_t *body;
    const json_t *tables; /* [{"name", "versions": [numbers]}] */
    const json_t *files;  /* [{"name", "bytes", "xxh3"}] */
    const char *taken;    /* "2026-11-27T21:00:00Z" */
    uint64_t sequence;
} pd_snapshot;

/* NOT_FOUND: there is no snapshot.json; DATA_LOSS: its sum does not fit, or it says what no server writes. */
pd_status pd_snapshot_open(const char *folder, pd_snapshot *out, pd_error *err);
void pd_snapshot_close(pd_snapshot *snapshot); /* a zeroed one is allowed */
/* Compares every byte with its sum, those of the versions too. DATA_LOSS naming the file. */
pd_status pd_snapshot_check(const pd_snapshot *snapshot, pd_error *err);
/* One entry of files. */
void pd_snapshot_entry(const json_t *file, const char **name, uint64_t *bytes, uint64_t *sum);
/* Whether an entry is a file of a version's folder. */
int pd_snapshot_in_version(const char *name);
/* "tables/NAME/vNNNNNNNN" below root. */
pd_status pd_snapshot_version_path(const char *root, const char *table, uint64_t number, char *path,
                                   pd_error *err);

/* Makes the data folder of config from a checked snapshot, which is only read. A data folder that is there and not empty is moved
 * aside, to DATA.before-restore-SECONDS, which is told in aside ([PD_PATH_ROOM]; "" where there was none); erasures that it knows
 * and the snapshot does not come along as pending, *carried of them, so that what was erased since is erased again by the next
 * start. FAILED_PRECONDITION: the data folder is in use. After a failure the data folder is what it was. */
pd_status pd_snapshot_restore(const pd_snapshot *snapshot, const pd_config *config, char *aside,
                              uint32_t *carried, pd_error *err);

/* Removes a folder and all that is below it, as far as that goes. */
void pd_snapshot_discard(const char *folder);

#endif
