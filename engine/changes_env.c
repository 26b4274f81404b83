/* The LMDB environment: how it is opened, who may be in it, and what is done when a commit failed.
 *
 * What LMDB does at a commit, and what that asks of us: the changed pages go to free places of the file and are synced, then one of
 * the two meta pages is written through a descriptor opened with O_DSYNC. A failure before that leaves the file as it was.
 * A failure at the meta page is the hard one: nobody knows what the disk holds, LMDB writes the old bytes back into the system's
 * cache and refuses all further work (MDB_PANIC). If we just opened again and went on, the next commit would write over pages
 * that a meta page on the disk may point at, and a power cut then would find a broken tree. So an environment is opened only
 * after both meta pages, as the cache has them, were written and synced again (pd_changes_settle); and what a failed
 * commit may have left in spite of all is taken back before anything else is written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "changes_impl.h"
#include "version.h" /* pd_folder_sync */

const pd_database pd_databases[PD_DBS] = {
    [PD_DB_RECORDS] = {"records", MDB_INTEGERKEY, 0},
    [PD_DB_KEYS] = {"keys", 0, 1},
    [PD_DB_ORDER] = {"order", MDB_INTEGERKEY, 0},
    [PD_DB_FLOORS] = {"floors", 0, 1},
    [PD_DB_STATE] = {"state", 0, 1},
    [PD_DB_DOCUMENTS] = {"documents", 0, 1},
};

/* How many transactions this thread is inside with: one that is may go in again though the gate is closing, or it would wait for
 * itself. */
static _Thread_local unsigned inside;

pd_status pd_changes_fail(const pd_changes *log, int code, const char *verb, pd_error *err)
{
    pd_status status = PD_UNAVAILABLE;
    switch (code) {
    case MDB_MAP_FULL:
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "cannot %s the log %s: its %llu MiB are full", verb,
                       log->file, (unsigned long long)(log->map_bytes >> 20));
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case MDB_READERS_FULL:
        status = PD_RESOURCE_EXHAUSTED;
        break;
    case MDB_CORRUPTED:
    case MDB_INVALID:
    case MDB_PAGE_NOTFOUND:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        status = PD_DATA_LOSS;
        break;
    default:
        break;
    }
    return pd_fail(err, status, "cannot %s the log %s: %s", verb, log->file,
                   code > 0 ? strerror(code) : mdb_strerror(code));
}

/* A write that is cut short is EIO to LMDB, though a full disk was the reason. */
static int code_of_commit(const pd_changes *log, int code)
{
    struct statvfs disk;
    if (code == EIO && statvfs(log->folder, &disk) == 0 && disk.f_bavail < 64) return ENOSPC;
    return code;
}

/* ----------------------------------------------------------------------------------------------- the gate --- */

void pd_changes_gate_close(pd_changes *log)
{
    pthread_mutex_lock(&log->gate);
    log->closing = 1;
    while (log->readers)
        pthread_cond_wait(&log->moved, &log->gate);
    pthread_mutex_unlock(&log->gate);
}

void pd_changes_gate_open(pd_changes *log)
{
    pthread_mutex_lock(&log->gate);
    log->closing = 0;
    pthread_cond_broadcast(&log->moved);
    pthread_mutex_unlock(&log->gate);
}

static void step_out(pd_changes *log)
{
    pthread_mutex_lock(&log->gate);
    inside--;
    if (--log->readers == 0) pthread_cond_broadcast(&log->moved);
    pthread_mutex_unlock(&log->gate);
}

pd_status pd_changes_enter(pd_changes *log, MDB_txn **txn, pd_error *err)
{
    pthread_mutex_lock(&log->gate);
    while (log->closing && !inside)
        pthread_cond_wait(&log->moved, &log->gate);
    log->readers++;
    inside++;
    pthread_mutex_unlock(&log->gate);
    /* env changes only while nobody is inside. */
    if (!log->env) {
        step_out(log);
        return pd_fail(err, PD_UNAVAILABLE, "the log %s could not be opened again after a failure",
                       log->file);
    }
    int rc = mdb_txn_begin(log->env, NULL, MDB_RDONLY, txn);
    if (rc) {
        step_out(log);
        return pd_changes_fail(log, rc, "read", err);
    }
    return PD_OK;
}

void pd_changes_leave(pd_changes *log, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    step_out(log);
}

/* ------------------------------------------------------------------------------------------------ opening --- */

/* LMDB calls this before it aborts the process: the file changed under it in a way that the check at open did not see, or
 * its memory did. There is no way on that would not risk what is still whole. */
static void on_assert(MDB_env *env, const char *message)
{
    const pd_changes *log = mdb_env_get_userctx(env);
    fprintf(stderr, "the log %s is damaged beyond what can be read: %s\n", log ? log->file : "?", message);
}

static int open_databases(pd_changes *log)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(log->env, NULL, 0, &txn);
    for (int i = 0; !rc && i < PD_DBS; i++)
        rc = mdb_dbi_open(txn, pd_databases[i].name, pd_databases[i].flags | MDB_CREATE, &log->db[i]);
    if (rc) goto err_after_begin;
    uint64_t format = PD_CHANGES_FORMAT, last = 0;
    rc = pd_seal_number(txn, log->db[PD_DB_STATE], "format", 6, &format);
    if (rc == MDB_NOTFOUND) {
        rc = pd_seal_put(txn, log->db[PD_DB_STATE], "format", 6, &format, sizeof format);
        if (!rc) rc = pd_seal_put(txn, log->db[PD_DB_STATE], "last", 4, &last, sizeof last);
    }
    if (!rc && format != PD_CHANGES_FORMAT) rc = MDB_VERSION_MISMATCH;
    if (rc) goto err_after_begin;
    /* Nothing is written where nothing changed. */
    return mdb_txn_commit(txn);

err_after_begin:
    mdb_txn_abort(txn);
    return rc;
}

void pd_changes_env_close(pd_changes *log)
{
    if (log->env) mdb_env_close(log->env);
    log->env = NULL;
}

pd_status pd_changes_env_open(pd_changes *log, pd_error *err)
{
    unsigned flags = MDB_NOTLS | (log->durability == PD_DURABLE_NONE ? MDB_NOSYNC : 0);
    int rc = mdb_env_create(&log->env);
    if (rc) {
        log->env = NULL;
        return pd_changes_fail(log, rc, "open", err);
    }
    mdb_env_set_userctx(log->env, log);
    mdb_env_set_assert(log->env, on_assert);
    rc = mdb_env_set_mapsize(log->env, log->map_bytes);
    if (!rc) rc = mdb_env_set_maxdbs(log->env, PD_DBS);
    if (!rc) rc = mdb_env_set_maxreaders(log->env, PD_CHANGES_READERS);
    if (!rc) rc = mdb_env_open(log->env, log->folder, flags, 0644);
    int dead;
    if (!rc) rc = mdb_reader_check(log->env, &dead);
    if (!rc) rc = open_databases(log);
    if (rc) {
        pd_changes_env_close(log);
        return pd_changes_fail(log, rc, "open", err);
    }
    /* The names of new files, or the one that a compaction gave. */
    return pd_folder_sync(log->folder, err);
}

/* ----------------------------------------------------------------------------------- opening once more --- */

/* Takes back what is stored beyond what is known to be: of a commit that failed and yet reached the file. */
static int take_back(pd_changes *log)
{
    MDB_txn *txn;
    MDB_cursor *cursor = NULL;
    uint64_t last = 0;
    int rc = mdb_txn_begin(log->env, NULL, 0, &txn);
    if (rc) return rc;
    rc = pd_seal_number(txn, log->db[PD_DB_STATE], "last", 4, &last);
    if (rc || last == log->stored) goto out;
    if (last < log->stored) {
        rc = MDB_CORRUPTED; /* another file took its place */
        goto out;
    }
    rc = mdb_cursor_open(txn, log->db[PD_DB_RECORDS], &cursor);
    MDB_val key, value;
    while (!rc && (rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST)) == 0) {
        uint64_t sequence;
        memcpy(&sequence, key.mv_data, sizeof sequence);
        if (sequence <= log->stored) break;
        MDB_val name;
        rc = mdb_get(txn, log->db[PD_DB_ORDER], &key, &name);
        if (!rc) rc = mdb_del(txn, log->db[PD_DB_KEYS], &name, NULL);
        if (!rc || rc == MDB_NOTFOUND) rc = mdb_del(txn, log->db[PD_DB_ORDER], &key, NULL);
        if (!rc || rc == MDB_NOTFOUND) rc = mdb_cursor_del(cursor, 0);
    }
    if (rc == MDB_NOTFOUND) rc = 0;
    if (!rc) rc = pd_seal_put(txn, log->db[PD_DB_STATE], "last", 4, &log->stored, sizeof log->stored);
    if (!rc) {
        mdb_cursor_close(cursor);
        return mdb_txn_commit(txn);
    }
out:
    if (cursor) mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    return rc;
}

static pd_status open_again(pd_changes *log, pd_error *err)
{
    if (pthread_mutex_trylock(&log->copying) != 0)
        return pd_fail(err, PD_UNAVAILABLE, "the log %s is opened again once a copy of it is made",
                       log->file);
    pd_error said;
    pd_changes_gate_close(log);
    pd_changes_env_close(log);
    pd_status status = pd_changes_settle(log->file, err);
    /* For reading, even where it cannot be written. */
    pd_status opened = pd_changes_env_open(log, &said);
    if (!status && opened) {
        if (err) *err = said;
        status = opened;
    }
    if (!status) {
        int rc = take_back(log);
        if (rc) status = pd_changes_fail(log, rc, "write to", err);
    }
    pd_changes_gate_open(log);
    pthread_mutex_unlock(&log->copying);
    if (status) return status;
    log->broken = 0;
    atomic_fetch_add(&log->reopened, 1);
    return PD_OK;
}

static pd_status failed(pd_changes *log, pd_status status)
{
    atomic_fetch_add(&log->failures, 1);
    atomic_store(&log->failing, 1);
    atomic_store(&log->littered, 1);
    return status;
}

pd_status pd_changes_begin(pd_changes *log, MDB_txn **txn, pd_error *err)
{
    for (int tries = 0;; tries++) {
        if (log->broken || !log->env) {
            pd_status status = open_again(log, err);
            if (status) return failed(log, status);
        }
        int rc = mdb_txn_begin(log->env, NULL, 0, txn);
        if (!rc) return PD_OK;
        if (rc != MDB_PANIC || tries) return failed(log, pd_changes_fail(log, rc, "write to", err));
        log->broken = 1;
    }
}

/* LMDB refuses all transactions. */
static int panicked(pd_changes *log)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(log->env, NULL, MDB_RDONLY, &txn);
    if (!rc) mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

pd_status pd_changes_commit(pd_changes *log, MDB_txn *txn, pd_error *err)
{
    int rc = code_of_commit(log, mdb_txn_commit(txn));
    if (!rc) {
        atomic_fetch_add(&log->commits, 1);
        atomic_store(&log->failing, 0);
        return PD_OK;
    }
    /* A full disk or map fails before the meta page, as a rule, and LMDB survives it. */
    log->code = rc;
    pd_status status = pd_changes_fail(log, rc, "write to", err);
    if (status != PD_RESOURCE_EXHAUSTED || panicked(log)) {
        log->broken = 1;
        /* At once, so that reading goes on; where that fails too, the next write tries again. */
        pd_error said;
        (void)open_again(log, &said);
    }
    return failed(log, status);
}

pd_status pd_changes_undo(pd_changes *log, MDB_txn *txn, int code, const char *verb, pd_error *err)
{
    mdb_txn_abort(txn);
    log->code = code;
    return failed(log, pd_changes_fail(log, code, verb, err));
}

pd_status pd_changes_remap(pd_changes *log, uint64_t bytes, pd_error *err)
{
    pthread_mutex_lock(&log->copying);
    pd_changes_gate_close(log);
    int rc = log->env ? mdb_env_set_mapsize(log->env, bytes) : 0;
    pd_status status = rc ? pd_changes_fail(log, rc, "move the map of", err) : PD_OK;
    /* A map that could be neither moved nor put back is none. */
    if (rc) pd_changes_env_close(log);
    pd_changes_gate_open(log);
    pthread_mutex_unlock(&log->copying);
    return status;
}
