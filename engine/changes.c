/* The log of changes: opened, appended to, closed.
 *
 * LMDB and not a file of our own, since it has what a log needs that is hard to get right: a commit that is whole or not there,
 * a map that many threads read while one writes, deletion in the middle, copies of a moment. It costs a second sync a
 * commit, which group commit spreads over a batch.
 *
 * PD_DURABLE_INTERVAL does not mean MDB_NOSYNC: without a sync between pages and meta page a power cut may leave a tree that
 * points nowhere, and the whole log would be the price of one second. What is appended stays in memory instead, where readers
 * find it, and becomes one ordinary transaction when it is synced.
 */
#include "changes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes_impl.h"
#include "version.h" /* pd_folder_remove */

/* ------------------------------------------------------------------------------------------------ pending --- */

void pd_pending_release(pd_pending *pending)
{
    if (atomic_fetch_sub(&pending->refs, 1) == 1) free(pending);
}

static pd_pending *pending_make(const pd_record *record)
{
    pd_pending *pending = malloc(sizeof *pending + record->length);
    if (!pending) return NULL;
    atomic_init(&pending->refs, 1);
    pending->record = *record;
    pending->record.bytes = pending->bytes;
    if (record->length) memcpy(pending->bytes, record->bytes, record->length);
    return pending;
}

pd_status pd_pending_from(pd_changes *log, uint64_t from, pd_pending ***out, uint32_t *n, pd_error *err)
{
    *out = NULL;
    *n = 0;
    pthread_mutex_lock(&log->gate);
    uint32_t first = 0;
    while (first < log->npending && log->pending[first]->record.sequence < from)
        first++;
    uint32_t count = log->npending - first;
    if (count) {
        *out = malloc(count * sizeof **out);
        for (uint32_t i = 0; *out && i < count; i++) {
            (*out)[i] = log->pending[first + i];
            atomic_fetch_add(&(*out)[i]->refs, 1);
        }
    }
    pthread_mutex_unlock(&log->gate);
    if (count && !*out)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to read %u records of the log", count);
    *n = count;
    return PD_OK;
}

/* Puts the new records behind those that wait: all of them, or none. */
static pd_status pend(pd_changes *log, const pd_record *records, uint32_t n, size_t bytes, pd_error *err)
{
    pd_pending **fresh = calloc(n, sizeof *fresh), **all = NULL;
    uint32_t made = 0;
    while (fresh && made < n && (fresh[made] = pending_make(&records[made])) != NULL)
        made++;
    if (made == n) {
        pthread_mutex_lock(&log->gate);
        all = realloc(log->pending, (log->npending + (size_t)n) * sizeof *all);
        if (all) {
            memcpy(all + log->npending, fresh, n * sizeof *fresh);
            log->pending = all;
            log->npending += n;
            log->pending_bytes += bytes;
            atomic_store(&log->last, records[n - 1].sequence);
        }
        pthread_mutex_unlock(&log->gate);
    }
    if (!all)
        for (uint32_t i = 0; i < made; i++)
            pd_pending_release(fresh[i]);
    free(fresh);
    return all ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u records of the log", n);
}

/* ---------------------------------------------------------------------------------------------- appending --- */

/* Remembers the key of a batch, and forgets the oldest ones beyond the bound. */
static int put_key(pd_changes *log, MDB_txn *txn, const pd_record *record)
{
    MDB_dbi keys = log->db[PD_DB_KEYS], order = log->db[PD_DB_ORDER];
    uint64_t sequence = record->sequence;
    MDB_val number = {sizeof sequence, &sequence},
            key = {strlen(record->key), (void *)(uintptr_t)record->key};
    int rc = pd_seal_put(txn, keys, key.mv_data, key.mv_size, &sequence, sizeof sequence);
    if (!rc) rc = mdb_put(txn, order, &number, &key, MDB_APPEND);
    MDB_stat stat;
    while (!rc && (rc = mdb_stat(txn, order, &stat)) == 0 && stat.ms_entries > log->keys) {
        MDB_cursor *cursor;
        rc = mdb_cursor_open(txn, order, &cursor);
        if (rc) break;
        rc = mdb_cursor_get(cursor, &number, &key, MDB_FIRST);
        if (!rc) {
            uint64_t oldest, now;
            memcpy(&oldest, number.mv_data, sizeof oldest);
            rc = pd_seal_number(txn, keys, key.mv_data, key.mv_size, &now);
            /* A key that was logged again since belongs to the newer record. */
            if (!rc && now == oldest) rc = mdb_del(txn, keys, &key, NULL);
            if (!rc || rc == MDB_NOTFOUND) rc = mdb_cursor_del(cursor, 0);
        }
        mdb_cursor_close(cursor);
    }
    return rc;
}

static int put_record(pd_changes *log, MDB_txn *txn, const pd_record *record)
{
    uint64_t sequence = record->sequence;
    MDB_val key = {sizeof sequence, &sequence}, value = {pd_record_size(record), NULL};
    int rc = mdb_put(txn, log->db[PD_DB_RECORDS], &key, &value, MDB_RESERVE | MDB_APPEND);
    if (rc) return rc;
    pd_record_write(record, value.mv_data);
    return record->key[0] ? put_key(log, txn, record) : 0;
}

/* What is pending, then these, in one transaction. */
static pd_status store(pd_changes *log, const pd_record *records, uint32_t n, pd_error *err)
{
    MDB_txn *txn;
    pd_status status = pd_changes_begin(log, &txn, err);
    if (status) return status;
    int rc = 0;
    uint64_t last = log->stored;
    for (uint32_t i = 0; !rc && i < log->npending; i++, last++)
        rc = put_record(log, txn, &log->pending[i]->record);
    for (uint32_t i = 0; !rc && i < n; i++, last++)
        rc = put_record(log, txn, &records[i]);
    if (!rc) rc = pd_seal_put(txn, log->db[PD_DB_STATE], "last", 4, &last, sizeof last);
    if (rc) return pd_changes_undo(log, txn, rc, "append to", err);
    status = pd_changes_commit(log, txn, err);
    if (status) return status;
    log->stored = last;
    /* Stored before they leave memory: a reader looks at memory first, so it finds them in one of the two. */
    pthread_mutex_lock(&log->gate);
    for (uint32_t i = 0; i < log->npending; i++)
        pd_pending_release(log->pending[i]);
    log->npending = 0;
    log->pending_bytes = 0;
    atomic_store(&log->last, last);
    pthread_mutex_unlock(&log->gate);
    return PD_OK;
}

static pd_status check_records(const pd_changes *log, const pd_record *records, uint32_t n, size_t *bytes,
                               pd_error *err)
{
    *bytes = 0;
    uint64_t next = atomic_load(&log->last) + 1;
    for (uint32_t i = 0; i < n; i++) {
        const pd_record *r = &records[i];
        if (r->sequence != next + i)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "record %u of the batch is %llu, where the log's next is %llu", i,
                           (unsigned long long)r->sequence, (unsigned long long)(next + i));
        size_t ntable = strnlen(r->table, sizeof r->table);
        if (!ntable || ntable > PD_MAX_NAME || strnlen(r->key, sizeof r->key) > PD_CHANGE_KEY)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "record %llu has no table, or a key of more than %u bytes",
                           (unsigned long long)r->sequence, PD_CHANGE_KEY);
        if (r->length > UINT32_MAX / 2)
            return pd_fail(err, PD_INVALID_ARGUMENT, "record %llu of %zu bytes is more than a record holds",
                           (unsigned long long)r->sequence, r->length);
        *bytes += sizeof(pd_pending) + r->length;
    }
    return PD_OK;
}

pd_status pd_changes_append(pd_changes *log, const pd_record *records, uint32_t n, pd_error *err)
{
    if (!n) return PD_OK;
    pthread_mutex_lock(&log->writing);
    size_t bytes;
    pd_status status = check_records(log, records, n, &bytes, err);
    int full =
        log->npending + (uint64_t)n > PD_PENDING_RECORDS || log->pending_bytes + bytes > PD_PENDING_BYTES;
    if (!status && log->durability == PD_DURABLE_INTERVAL && !full)
        status = pend(log, records, n, bytes, err);
    else if (!status)
        status = store(log, records, n, err);
    pthread_mutex_unlock(&log->writing);
    return status;
}

pd_status pd_changes_flush(pd_changes *log, pd_error *err)
{
    return log->npending ? store(log, NULL, 0, err) : PD_OK;
}

pd_status pd_changes_sync(pd_changes *log, pd_error *err)
{
    pthread_mutex_lock(&log->writing);
    pd_status status = pd_changes_flush(log, err);
    if (!status && log->durability == PD_DURABLE_NONE && log->env) {
        int rc = mdb_env_sync(log->env, 1);
        if (rc) status = pd_changes_fail(log, rc, "sync", err);
    }
    pthread_mutex_unlock(&log->writing);
    return status;
}

uint64_t pd_changes_last(const pd_changes *log)
{
    return atomic_load(&log->last);
}

void pd_changes_pass(pd_changes *log, uint64_t upto)
{
    pthread_mutex_lock(&log->writing);
    if (upto > log->stored) {
        log->stored = upto;
        atomic_store(&log->last, upto);
    }
    pthread_mutex_unlock(&log->writing);
}

/* ------------------------------------------------------------------------------------- opening and closing --- */

/* A new log is made aside and renamed: LMDB does not sync the first pages of a file before it writes more, so a power cut could leave
 * half of them under the final name. */
static pd_status make_first(pd_changes *log, const char *aside, pd_error *err)
{
    char file[PD_PATH_ROOM];
    pd_status status = pd_path_join(file, aside, "data.mdb", err);
    if (!status && mkdir(aside, 0755) != 0) status = pd_fail_errno(err, "make the folder", aside);
    if (status) return status;
    pd_changes *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the log of changes");
    memcpy(fresh->folder, aside, strlen(aside) + 1);
    memcpy(fresh->file, file, strlen(file) + 1);
    fresh->map_bytes = log->map_bytes;
    status = pd_changes_env_open(fresh, err);
    pd_changes_env_close(fresh);
    free(fresh);
    if (!status && rename(file, log->file) != 0) status = pd_fail_errno(err, "rename to", log->file);
    if (!status) status = pd_folder_sync(log->folder, err);
    if (!status) status = pd_folder_remove(aside, err);
    return status;
}

/* Removes what a compaction or a first start that did not end has left, and makes the file where there is none. */
static pd_status prepare(pd_changes *log, pd_error *err)
{
    char aside[PD_PATH_ROOM];
    pd_status status = pd_path_join(aside, log->folder, "compact.tmp", err);
    if (!status && access(aside, F_OK) == 0) status = pd_folder_remove(aside, err);
    if (!status && access(log->file, F_OK) != 0) status = make_first(log, aside, err);
    return status;
}

static pd_status read_last(pd_changes *log, pd_error *err)
{
    MDB_txn *txn;
    pd_status status = pd_changes_enter(log, &txn, err);
    if (status) return status;
    int rc = pd_seal_number(txn, log->db[PD_DB_STATE], "last", 4, &log->stored);
    if (rc)
        status =
            pd_changes_fail(log, rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc, "read the last number of", err);
    pd_changes_leave(log, txn);
    atomic_store(&log->last, log->stored);
    return status;
}

pd_status pd_changes_open(const pd_changes_options *options, pd_changes **out, pd_error *err)
{
    *out = NULL;
    pd_changes *log = calloc(1, sizeof *log);
    if (!log) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the log of changes");
    size_t length = strlen(options->folder);
    pd_status status = pd_path_join(log->file, options->folder, "data.mdb", err);
    if (status) {
        free(log);
        return status;
    }
    memcpy(log->folder, options->folder, length + 1);
    log->map_bytes = options->map_bytes;
    log->durability = options->durability;
    log->keys = options->keys ? options->keys : PD_CHANGES_KEYS;
    log->littered = 1; /* nobody knows what the last life left */
    pthread_mutex_init(&log->writing, NULL);
    pthread_mutex_init(&log->copying, NULL);
    pthread_mutex_init(&log->gate, NULL);
    pthread_cond_init(&log->moved, NULL);

    if (mkdir(log->folder, 0755) != 0 && errno != EEXIST)
        status = pd_fail_errno(err, "make the folder", log->folder);
    /* Also where it was there: an earlier start may have failed just here. */
    if (!status) status = pd_folder_sync_parent(log->folder, err);
    if (!status) status = prepare(log, err);
    if (!status) status = pd_changes_settle(log->file, err);
    if (!status) status = pd_changes_check(log->file, err);
    if (!status) status = pd_changes_env_open(log, err);
    if (!status) status = read_last(log, err);
    if (status) {
        pd_changes_close(log);
        return status;
    }
    *out = log;
    return PD_OK;
}

void pd_changes_close(pd_changes *log)
{
    if (!log) return;
    pd_error err;
    /* Nobody is left to tell: who wants to know syncs first. */
    if (log->env) (void)pd_changes_sync(log, &err);
    pd_changes_env_close(log);
    for (uint32_t i = 0; i < log->npending; i++)
        pd_pending_release(log->pending[i]);
    free(log->pending);
    pthread_cond_destroy(&log->moved);
    pthread_mutex_destroy(&log->gate);
    pthread_mutex_destroy(&log->copying);
    pthread_mutex_destroy(&log->writing);
    free(log);
}
