/* What removes records and replaces them: in transactions of bounded size, so that neither LMDB's list of freed pages nor
 * the memory for changed ones grows with the log.
 *
 * LMDB copies the pages that it changes, so deleting from a full map fails for want of room. Then the map is made larger for
 * the time of the deletion, and is the bound again after it.
 */
#include <stdlib.h>
#include <string.h>

#include "changes_impl.h"

#define GROWTHS    8u                   /* how often a map is made larger for one transaction */
#define GROW_LEAST ((uint64_t)4u << 20) /* by how much, at least */

typedef struct pass {
    pd_changes *log;
    const char *table;
    uint64_t next, upto; /* what is still to be looked at */
    int done;
    pd_changes_replace replace;
    void *context;
    pd_status refused; /* what replace returned */
    uint64_t damaged;  /* records that were left alone */
    pd_error first;    /* the first of them */
} pass;
typedef int (*pass_work)(pass *p, MDB_txn *txn, pd_error *err);

/* Does a piece of work in a transaction, in a larger map where that is what it needs; p is as before when it failed. */
static pd_status step(pass *p, pass_work work, const char *verb, pd_error *err)
{
    pd_changes *log = p->log;
    uint64_t room = log->map_bytes;
    pd_status status;
    for (unsigned grown = 0;; grown++) {
        MDB_txn *txn;
        pass before = *p;
        status = pd_changes_begin(log, &txn, err);
        if (status) break;
        int rc = work(p, txn, err);
        if (p->refused) {
            mdb_txn_abort(txn);
            status = p->refused;
            break;
        }
        status = rc ? pd_changes_undo(log, txn, rc, verb, err) : pd_changes_commit(log, txn, err);
        if (!status) break;
        *p = before;
        if (log->code != MDB_MAP_FULL || grown == GROWTHS) break;
        room += room / 16 > GROW_LEAST ? room / 16 : GROW_LEAST;
        status = pd_changes_remap(log, room, err);
        if (status) break;
    }
    if (room != log->map_bytes) {
        pd_error said;
        pd_status back = pd_changes_remap(log, log->map_bytes, &said);
        if (back && !status) {
            if (err) *err = said;
            status = back;
        }
    }
    return status;
}

/* ----------------------------------------------------------------------------------------------- trimming --- */

static int trim_some(pass *p, MDB_txn *txn, pd_error *err)
{
    (void)err;
    MDB_cursor *cursor;
    MDB_dbi records = p->log->db[PD_DB_RECORDS];
    int rc = mdb_cursor_open(txn, records, &cursor);
    if (rc) return rc;
    size_t bytes = 0;
    MDB_val key = {sizeof p->next, &p->next}, value;
    MDB_cursor_op move = MDB_SET_RANGE;
    uint32_t deleted = 0;
    while (deleted < PD_CHANGES_STEPS && bytes < PD_CHANGES_SLICE) {
        rc = mdb_cursor_get(cursor, &key, &value, move);
        if (rc) break;
        uint64_t sequence;
        pd_record record;
        memcpy(&sequence, key.mv_data, sizeof sequence);
        if (sequence > p->upto) {
            rc = MDB_NOTFOUND;
            break;
        }
        p->next = sequence + 1;
        move = MDB_NEXT;
        /* A head that cannot be read may be another table's: it stays. */
        if (pd_record_head(sequence, value.mv_data, value.mv_size, &record) || strcmp(record.table, p->table))
            continue;
        bytes += value.mv_size;
        atomic_store(&p->log->littered, 1);
        rc = mdb_cursor_del(cursor, 0);
        if (rc) break;
        deleted++;
        /* Found anew: where a cursor stands after a deletion that joined two pages is not worth relying on. */
        key = (MDB_val){sizeof p->next, &p->next};
        move = MDB_SET_RANGE;
    }
    mdb_cursor_close(cursor);
    p->done = rc == MDB_NOTFOUND;
    if (rc && !p->done) return rc;
    /* Never said to be gone before it is, nor there when it is not. */
    uint64_t floor = p->done ? p->upto : p->next - 1;
    return pd_seal_put(txn, p->log->db[PD_DB_FLOORS], p->table, strlen(p->table), &floor, sizeof floor);
}

/* LMDB gives out pages freed by a transaction to the second one after it. In a full map the first could not be an append, so it
 * is this one. */
static int touch_floor(pass *p, MDB_txn *txn, pd_error *err)
{
    (void)err;
    return pd_seal_put(txn, p->log->db[PD_DB_FLOORS], p->table, strlen(p->table), &p->upto, sizeof p->upto);
}

pd_status pd_changes_trim(pd_changes *log, const char *table, uint64_t upto, pd_error *err)
{
    uint64_t floor;
    pthread_mutex_lock(&log->writing);
    pd_status status = pd_changes_flush(log, err);
    if (!status) status = pd_changes_floor(log, table, &floor, err);
    if (!status) {
        if (upto > log->stored) upto = log->stored;
        pass p = {.log = log, .table = table, .next = floor + 1, .upto = upto, .done = upto <= floor};
        int trimmed = !p.done;
        while (!status && !p.done)
            status = step(&p, trim_some, "trim", err);
        if (!status && trimmed) status = step(&p, touch_floor, "trim", err);
    }
    pthread_mutex_unlock(&log->writing);
    return status;
}

/* ---------------------------------------------------------------------------------------------- rewriting --- */

static int put_in_place(pass *p, MDB_txn *txn, const pd_record *old, void *bytes, size_t length)
{
    pd_record fresh = *old;
    uint64_t sequence = old->sequence;
    fresh.bytes = bytes;
    fresh.length = length;
    MDB_val key = {sizeof sequence, &sequence}, value = {pd_record_size(&fresh), NULL};
    atomic_store(&p->log->sound[sequence % PD_SOUND], 0);
    atomic_store(&p->log->littered, 1);
    int rc = mdb_put(txn, p->log->db[PD_DB_RECORDS], &key, &value, MDB_RESERVE);
    if (!rc) pd_record_write(&fresh, value.mv_data);
    return rc;
}

static int rewrite_one(pass *p, MDB_txn *txn, uint64_t sequence, const MDB_val *value, size_t *bytes,
                       pd_error *err)
{
    pd_record record;
    const char *why = pd_record_head(sequence, value->mv_data, value->mv_size, &record);
    if (!why && strcmp(record.table, p->table)) return 0;
    if (!why) why = pd_record_body(value->mv_data, &record);
    if (why) {
        if (!p->damaged++)
            pd_fail(&p->first, PD_DATA_LOSS, "%s: the record %llu is damaged: %s", p->log->file,
                    (unsigned long long)sequence, why);
        return 0;
    }
    void *fresh = NULL;
    size_t length = 0;
    *bytes += value->mv_size;
    p->refused = p->replace(p->context, &record, &fresh, &length, err);
    int rc = fresh && !p->refused ? put_in_place(p, txn, &record, fresh, length) : 0;
    if (fresh) *bytes += length;
    free(fresh);
    return rc;
}

static int rewrite_some(pass *p, MDB_txn *txn, pd_error *err)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, p->log->db[PD_DB_RECORDS], &cursor);
    if (rc) return rc;
    size_t bytes = 0;
    for (uint32_t steps = 0; steps < PD_CHANGES_STEPS && bytes < PD_CHANGES_SLICE; steps++) {
        /* Found anew each time: a record that was replaced has moved others. */
        uint64_t sequence = p->next;
        MDB_val key = {sizeof sequence, &sequence}, value;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc) break;
        memcpy(&sequence, key.mv_data, sizeof sequence);
        if (sequence > p->upto) {
            rc = MDB_NOTFOUND;
            break;
        }
        rc = rewrite_one(p, txn, sequence, &value, &bytes, err);
        if (rc || p->refused) break;
        p->next = sequence + 1;
    }
    mdb_cursor_close(cursor);
    p->done = rc == MDB_NOTFOUND;
    return p->done ? 0 : rc;
}

pd_status pd_changes_rewrite(pd_changes *log, const char *table, pd_changes_replace replace, void *context,
                             pd_error *err)
{
    pthread_mutex_lock(&log->writing);
    pd_status status = pd_changes_flush(log, err);
    pass p = {
        .log = log, .table = table, .next = 1, .upto = log->stored, .replace = replace, .context = context};
    p.done = !p.upto;
    while (!status && !p.done)
        status = step(&p, rewrite_some, "rewrite records of", err);
    pthread_mutex_unlock(&log->writing);
    if (status || !p.damaged) return status;
    if (err) *err = p.first;
    return PD_DATA_LOSS;
}
