/* Files that must survive a crash: a checked writer with a running checksum, whole-file reads with a limit.
 *
 * Nothing here trusts a return value it has not looked at: every write, fsync, close and rename is checked, since a
 * disk says that it is full, or dying, in any of them. A full disk is RESOURCE_EXHAUSTED, a failing one DATA_LOSS.
 */
#ifndef PD_FILES_H
#define PD_FILES_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define PD_PATH_ROOM 4096

/* "FOLDER/NAME" into path: [PD_PATH_ROOM]. INVALID_ARGUMENT when it is too long. */
pd_status pd_path_join(char *path, const char *folder, const char *name, pd_error *err);

/* What errno says about path: "cannot VERB PATH: REASON", with the status that fits it. */
pd_status pd_fail_errno(pd_error *err, const char *verb, const char *path);

/* XXH3-64 of bytes. */
uint64_t pd_sum_of(const void *bytes, size_t length);

/* A file being written. Zero it before use: an abandon of a zeroed one does nothing. */
typedef struct pd_out {
    int open;
    int fd;
    char path[PD_PATH_ROOM];
    void *hash;            /* XXH3 over everything written */
    unsigned char *buffer; /* small writes gather here */
    size_t used;
    uint64_t bytes; /* written so far, gathered ones included */
} pd_out;

/* Creates FOLDER/NAME, which must not exist. */
pd_status pd_out_open(pd_out *out, const char *folder, const char *name, pd_error *err);
pd_status pd_out_write(pd_out *out, const void *bytes, size_t length, pd_error *err);
/* Flushes, syncs and closes; tells the file's length and checksum. After a failure the file is closed too. */
pd_status pd_out_finish(pd_out *out, uint64_t *bytes, uint64_t *sum, pd_error *err);
void pd_out_abandon(pd_out *out); /* closes; what was written stays for the folder's removal */

/* The whole of a file, with a NUL past the end; freed with free(). NOT_FOUND; DATA_LOSS when it is longer than limit. */
pd_status pd_file_read(const char *path, uint64_t limit, void **bytes, size_t *length, pd_error *err);
/* length bytes at offset. DATA_LOSS when the file ends before. */
pd_status pd_file_read_at(int fd, const char *path, uint64_t offset, size_t length, void *into,
                          pd_error *err);

/* The length and XXH3-64 of a file, read in pieces. NOT_FOUND. */
pd_status pd_file_sum(const char *path, uint64_t *bytes, uint64_t *sum, pd_error *err);

/* Syncs the folder that holds path, so that a rename to it lasts. */
pd_status pd_folder_sync_parent(const char *path, pd_error *err);

#endif
