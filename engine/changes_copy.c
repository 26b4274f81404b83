/* Compaction, copies, and how full the log is. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes_impl.h"
#include "version.h" /* pd_folder_sync, pd_folder_remove */

static pd_status sync_file(const char *path, pd_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return pd_fail_errno(err, "open", path);
    pd_status status = fsync(fd) != 0 ? pd_fail_errno(err, "sync", path) : PD_OK;
    close(fd);
    return status;
}

/* The environment, without its free pages, into folder/data.mdb, synced. Readers and copying as the caller has them. */
static pd_status copy_into(pd_changes *log, const char *folder, pd_error *err)
{
    char file[PD_PATH_ROOM];
    pd_status status = pd_path_join(file, folder, "data.mdb", err);
    if (status) return status;
    int rc = mdb_env_copy2(log->env, folder, MDB_CP_COMPACT);
    if (rc) return pd_changes_fail(log, rc, "copy", err);
    return sync_file(file, err);
}

/* ---------------------------------------------------------------------------------------------- compaction --- */

/* The copy takes the log's place. Nobody writes; readers are waited for. */
static pd_status take_its_place(pd_changes *log, const char *fresh, pd_error *err)
{
    pd_error said;
    pd_changes_gate_close(log);
    pd_changes_env_close(log);
    for (uint32_t i = 0; i < PD_SOUND; i++)
        atomic_store(&log->sound[i], 0);
    pd_status status = rename(fresh, log->file) != 0 ? pd_fail_errno(err, "rename to", log->file) : PD_OK;
    /* Opening syncs the folder, so that no write comes before the new name is there to stay. */
    pd_status opened = pd_changes_env_open(log, &said);
    if (opened) log->broken = 1;
    pd_changes_gate_open(log);
    if (!status && opened) {
        if (err) *err = said;
        status = opened;
    }
    return status;
}

pd_status pd_changes_compact(pd_changes *log, pd_error *err)
{
    char folder[PD_PATH_ROOM], fresh[PD_PATH_ROOM];
    MDB_txn *txn;
    pd_status status = pd_path_join(folder, log->folder, "compact.tmp", err);
    if (!status) status = pd_path_join(fresh, folder, "data.mdb", err);
    if (status) return status;
    pthread_mutex_lock(&log->writing);
    status = pd_changes_flush(log, err);
    /* What has to be opened again is, before it is copied. */
    if (!status) status = pd_changes_begin(log, &txn, err);
    if (status) goto out;
    mdb_txn_abort(txn);
    if (access(folder, F_OK) == 0) status = pd_folder_remove(folder, err);
    if (!status && mkdir(folder, 0755) != 0) status = pd_fail_errno(err, "make the folder", folder);
    if (status) goto out;
    pthread_mutex_lock(&log->copying);
    status = copy_into(log, folder, err);
    if (!status) status = take_its_place(log, fresh, err);
    if (!status) atomic_store(&log->littered, 0);
    pthread_mutex_unlock(&log->copying);
    pd_error said;
    pd_status removed = pd_folder_remove(folder, &said);
    if (removed && !status) {
        if (err) *err = said;
        status = removed;
    }
out:
    pthread_mutex_unlock(&log->writing);
    return status;
}

int pd_changes_littered(const pd_changes *log)
{
    return atomic_load(&log->littered);
}

/* ------------------------------------------------------------------------------------------------- copying --- */

/* The last number in a copy: the copy is of a moment that only it knows. */
static int last_of_copy(const char *folder, uint64_t *last)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi state;
    int rc = mdb_env_create(&env);
    if (rc) return rc;
    rc = mdb_env_set_maxdbs(env, PD_DBS);
    if (!rc) rc = mdb_env_open(env, folder, MDB_RDONLY | MDB_NOLOCK, 0644);
    if (rc) goto err_after_create;
    rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc) goto err_after_create;
    rc = mdb_dbi_open(txn, "state", 0, &state);
    if (!rc) rc = pd_seal_number(txn, state, "last", 4, last);
    mdb_txn_abort(txn);
err_after_create:
    mdb_env_close(env);
    return rc;
}

pd_status pd_changes_copy(pd_changes *log, const char *folder, uint64_t *last, pd_error *err)
{
    pthread_mutex_lock(&log->writing);
    pd_status status = pd_changes_flush(log, err);
    pthread_mutex_unlock(&log->writing);
    if (status) return status;
    pthread_mutex_lock(&log->copying);
    MDB_txn *txn;
    status = pd_changes_enter(log, &txn, err); /* the environment stays */
    if (!status) {
        status = copy_into(log, folder, err);
        pd_changes_leave(log, txn);
    }
    pthread_mutex_unlock(&log->copying);
    if (!status) status = pd_folder_sync(folder, err);
    if (status) return status;
    int rc = last_of_copy(folder, last);
    return rc ? pd_prefix((pd_changes_fail(log, rc, "read back a copy of", err), err), "%s", folder) : PD_OK;
}

/* -------------------------------------------------------------------------------------------- how full it is --- */

static uint64_t pages_of(const MDB_stat *stat)
{
    return stat->ms_branch_pages + stat->ms_leaf_pages + stat->ms_overflow_pages;
}

void pd_changes_stats_of(pd_changes *log, pd_changes_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    stats->last = atomic_load(&log->last);
    stats->commits = atomic_load(&log->commits);
    stats->failures = atomic_load(&log->failures);
    stats->reopened = atomic_load(&log->reopened);
    stats->failing = atomic_load(&log->failing);
    stats->map_bytes = log->map_bytes;
    pthread_mutex_lock(&log->gate);
    stats->records = log->npending;
    pthread_mutex_unlock(&log->gate);
    MDB_txn *txn;
    pd_error err;
    if (pd_changes_enter(log, &txn, &err)) return;
    /* 0 and 1 are LMDB's own: free pages, names. */
    for (MDB_dbi i = 0; i < 2 + PD_DBS; i++) {
        MDB_stat stat;
        if (mdb_stat(txn, i < 2 ? i : log->db[i - 2], &stat)) continue;
        stats->used_bytes += pages_of(&stat) * stat.ms_psize;
        if (i >= 2 && i - 2 == PD_DB_RECORDS) stats->records += stat.ms_entries;
    }
    pd_changes_leave(log, txn);
}
