/* Reading the log: records in order, one record, keys, floors.
 *
 * A read of many records goes in slices, each in a transaction of its own: a long transaction would keep LMDB from using the pages
 * that are freed meanwhile, and a compaction waiting. Records do not change between two slices but by an erasure, which a
 * reader may see or not see either way.
 */
#include <stdlib.h>
#include <string.h>

#include "changes_impl.h"

/* What get returns and end takes. */
typedef struct hold {
    MDB_txn *txn;        /* or */
    pd_pending *pending; /* where the record is not stored yet */
} hold;

typedef struct reading {
    pd_changes *log;
    const char *table; /* "": all */
    uint64_t next, upto;
    pd_changes_visit visit;
    pd_changes_damaged damaged;
    void *context;
} reading;

static pd_status visit_stored(const reading *r, uint64_t sequence, const MDB_val *value, pd_error *err)
{
    pd_record record;
    const char *why = pd_record_head(sequence, value->mv_data, value->mv_size, &record);
    /* A head that cannot be believed may be of any table. */
    if (!why && r->table[0] && strcmp(record.table, r->table)) return PD_OK;
    if (!why) why = pd_record_body(value->mv_data, &record);
    if (!why) return r->visit(r->context, &record, err);
    pd_error said;
    pd_record_damaged(r->log, sequence, value, why, &said);
    if (!r->damaged) {
        if (err) *err = said;
        return PD_DATA_LOSS;
    }
    r->damaged(r->context, sequence, said.message);
    return PD_OK;
}

/* Visits some of the stored records; *done: there are no more up to r->upto. */
static pd_status slice(reading *r, int *done, pd_error *err)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    pd_status status = pd_changes_enter(r->log, &txn, err);
    if (status) return status;
    int rc = mdb_cursor_open(txn, r->log->db[PD_DB_RECORDS], &cursor);
    if (rc) {
        status = pd_changes_fail(r->log, rc, "read", err);
        goto err_after_enter;
    }
    size_t bytes = 0;
    MDB_val key = {sizeof r->next, &r->next}, value;
    MDB_cursor_op move = MDB_SET_RANGE;
    for (uint32_t steps = 0; steps < PD_CHANGES_STEPS && bytes < PD_CHANGES_SLICE; steps++) {
        rc = mdb_cursor_get(cursor, &key, &value, move);
        if (rc) break;
        uint64_t sequence;
        memcpy(&sequence, key.mv_data, sizeof sequence);
        if (sequence > r->upto) {
            rc = MDB_NOTFOUND;
            break;
        }
        status = visit_stored(r, sequence, &value, err);
        if (status) break;
        bytes += value.mv_size;
        r->next = sequence + 1;
        move = MDB_NEXT;
    }
    mdb_cursor_close(cursor);
    *done = rc == MDB_NOTFOUND || r->next > r->upto || r->next == 0;
    if (!status && rc && rc != MDB_NOTFOUND) status = pd_changes_fail(r->log, rc, "read", err);
err_after_enter:
    pd_changes_leave(r->log, txn);
    return status;
}

pd_status pd_changes_read(pd_changes *log, const char *table, uint64_t from, uint64_t upto,
                          pd_changes_visit visit, pd_changes_damaged damaged, void *context, pd_error *err)
{
    /* What a failed commit may have left after the last is not there. */
    uint64_t last = atomic_load(&log->last);
    if (upto > last) upto = last;
    reading r = {log, table, from, upto, visit, damaged, context};
    /* Memory first: what leaves it meanwhile is stored by then, and is read there no more than up to what we hold. */
    pd_pending **pending;
    uint32_t n;
    pd_status status = pd_pending_from(log, from, &pending, &n, err);
    if (status) return status;
    if (n && pending[0]->record.sequence <= r.upto) r.upto = pending[0]->record.sequence - 1;
    int done = from > r.upto;
    while (!status && !done)
        status = slice(&r, &done, err);
    for (uint32_t i = 0; i < n; i++) {
        const pd_record *record = &pending[i]->record;
        if (!status && record->sequence <= upto && (!table[0] || !strcmp(record->table, table)))
            status = visit(context, record, err);
        pd_pending_release(pending[i]);
    }
    free(pending);
    return status;
}

/* The pending record of a number, or of a key, counted; NULL: none. */
static pd_pending *find_pending(pd_changes *log, uint64_t sequence, const char *key)
{
    pd_pending *found = NULL;
    pthread_mutex_lock(&log->gate);
    for (uint32_t i = log->npending; i-- > 0 && !found;) {
        const pd_record *record = &log->pending[i]->record;
        if (key ? !strcmp(record->key, key) : record->sequence == sequence) found = log->pending[i];
    }
    if (found) atomic_fetch_add(&found->refs, 1);
    pthread_mutex_unlock(&log->gate);
    return found;
}

pd_status pd_changes_get(pd_changes *log, uint64_t sequence, pd_record *out, void **transaction,
                         pd_error *err)
{
    *transaction = NULL;
    hold *h = calloc(1, sizeof *h);
    if (!h) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to read the log");
    h->pending = find_pending(log, sequence, NULL);
    if (h->pending) {
        *out = h->pending->record;
        *transaction = h;
        return PD_OK;
    }
    pd_status status = pd_changes_enter(log, &h->txn, err);
    if (status) goto err_after_calloc;
    MDB_val key = {sizeof sequence, &sequence}, value;
    int rc = sequence <= atomic_load(&log->last) ? mdb_get(h->txn, log->db[PD_DB_RECORDS], &key, &value)
                                                 : MDB_NOTFOUND;
    if (rc == MDB_NOTFOUND) {
        status = pd_fail(err, PD_NOT_FOUND, "the log has no record %llu", (unsigned long long)sequence);
    } else if (rc) {
        status = pd_changes_fail(log, rc, "read", err);
    } else {
        const char *why = pd_record_head(sequence, value.mv_data, value.mv_size, out);
        _Atomic uint64_t *sound = &log->sound[sequence % PD_SOUND];
        if (!why && atomic_load(sound) != sequence) {
            why = pd_record_body(value.mv_data, out);
            if (!why) atomic_store(sound, sequence);
        }
        if (why) status = pd_record_damaged(log, sequence, &value, why, err);
    }
    if (status) goto err_after_enter;
    *transaction = h;
    return PD_OK;

err_after_enter:
    pd_changes_leave(log, h->txn);
err_after_calloc:
    free(h);
    return status;
}

void pd_changes_end(pd_changes *log, void *transaction)
{
    hold *h = transaction;
    if (!h) return;
    if (h->pending)
        pd_pending_release(h->pending);
    else
        pd_changes_leave(log, h->txn);
    free(h);
}

pd_status pd_changes_find_key(pd_changes *log, const char *key, uint64_t *sequence, pd_error *err)
{
    size_t length = strlen(key);
    if (!length || length > PD_CHANGE_KEY) return pd_fail(err, PD_NOT_FOUND, "no batch has such a key");
    pd_pending *pending = find_pending(log, 0, key);
    if (pending) {
        *sequence = pending->record.sequence;
        pd_pending_release(pending);
        return PD_OK;
    }
    MDB_txn *txn;
    pd_status status = pd_changes_enter(log, &txn, err);
    if (status) return status;
    int rc = pd_seal_number(txn, log->db[PD_DB_KEYS], key, length, sequence);
    pd_changes_leave(log, txn);
    if (!rc && *sequence > atomic_load(&log->last)) rc = MDB_NOTFOUND;
    if (rc == MDB_NOTFOUND) return pd_fail(err, PD_NOT_FOUND, "no batch of the log has the key \"%s\"", key);
    if (rc) return pd_changes_fail(log, rc, "find a key in", err);
    return PD_OK;
}

pd_status pd_changes_floor(pd_changes *log, const char *table, uint64_t *floor, pd_error *err)
{
    MDB_txn *txn;
    *floor = 0;
    pd_status status = pd_changes_enter(log, &txn, err);
    if (status) return status;
    int rc = pd_seal_number(txn, log->db[PD_DB_FLOORS], table, strlen(table), floor);
    pd_changes_leave(log, txn);
    return rc && rc != MDB_NOTFOUND ? pd_changes_fail(log, rc, "read a table's floor in", err) : PD_OK;
}
