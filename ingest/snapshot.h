/* Versions' folders in other places: a snapshot's, a scrub's.
 *
 * Files of a version are never changed in place (what replaces one comes by rename), so that another folder may share them by hard
 * links where the file system has those and both lie on it; elsewhere they are copied.
 */
#ifndef PD_SNAPSHOT_H
#define PD_SNAPSHOT_H

#include "status.h"

/* A version's folder as another, which must not exist: every file (but what a crash left, NAME.tmp) linked or copied, copies and the
 * folder synced; the parent's sync is the caller's, who may have more to put there. Nothing is left of it on failure. The folder must
 * not be scrubbed or removed meanwhile. NOT_FOUND, ALREADY_EXISTS; RESOURCE_EXHAUSTED or DATA_LOSS when the disk fails. */
pd_status pd_folder_copy(const char *from, const char *to, pd_error *err);

/* One file of a folder into another folder. NOT_FOUND; ALREADY_EXISTS. */
pd_status pd_file_share(const char *from, const char *to, const char *name, pd_error *err);

#endif
