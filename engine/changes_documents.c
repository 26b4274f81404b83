/* Small documents beside the records: written at once, whatever the durability; read by collection, in the order of their numbers. */
#include <string.h>

#include "changes_impl.h"

/* Collection, 0, the number with its high byte first, so that the order is the numbers'. */
static pd_status document_key(const char *collection, uint64_t number, unsigned char *to, size_t *length,
                              pd_error *err)
{
    size_t n = strlen(collection);
    if (!n || n > PD_COLLECTION)
        return pd_fail(err, PD_INVALID_ARGUMENT, "a collection's name has 1 to %u bytes", PD_COLLECTION);
    memcpy(to, collection, n + 1);
    for (int i = 0; i < 8; i++)
        to[n + 1 + (size_t)i] = (unsigned char)(number >> (56 - 8 * i));
    *length = n + 9;
    return PD_OK;
}

static int put_one(pd_changes *log, MDB_txn *txn, const pd_document *d, unsigned char *name, size_t nname)
{
    MDB_val key = {nname, name};
    if (d->length) return pd_seal_put(txn, log->db[PD_DB_DOCUMENTS], name, nname, d->bytes, d->length);
    int rc = mdb_del(txn, log->db[PD_DB_DOCUMENTS], &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

pd_status pd_changes_put(pd_changes *log, const pd_document *documents, uint32_t n, pd_error *err)
{
    unsigned char name[PD_COLLECTION + 9];
    size_t nname = 0;
    MDB_txn *txn;
    if (n == 0) return PD_OK;
    pthread_mutex_lock(&log->writing);
    pd_status status = pd_changes_begin(log, &txn, err);
    if (status) goto out;
    int rc = 0;
    for (uint32_t i = 0; !status && !rc && i < n; i++) {
        status = document_key(documents[i].collection, documents[i].number, name, &nname, err);
        if (!status) rc = put_one(log, txn, &documents[i], name, nname);
    }
    if (status) {
        mdb_txn_abort(txn);
        goto out;
    }
    status =
        rc ? pd_changes_undo(log, txn, rc, "write a document to", err) : pd_changes_commit(log, txn, err);
    if (!status && log->durability == PD_DURABLE_NONE && (rc = mdb_env_sync(log->env, 1)) != 0)
        status = pd_changes_fail(log, rc, "sync", err);
out:
    pthread_mutex_unlock(&log->writing);
    return status;
}

static uint64_t number_in(const unsigned char *key, size_t nprefix)
{
    uint64_t number = 0;
    for (size_t i = 0; i < 8; i++)
        number = number << 8 | key[nprefix + i];
    return number;
}

pd_status pd_changes_documents(pd_changes *log, const char *collection, uint64_t from,
                               pd_changes_document visit, void *context, pd_error *err)
{
    unsigned char name[PD_COLLECTION + 9];
    size_t nname = 0, nprefix = strlen(collection) + 1;
    MDB_txn *txn;
    MDB_cursor *cursor;
    pd_status status = document_key(collection, from, name, &nname, err);
    if (!status) status = pd_changes_enter(log, &txn, err);
    if (status) return status;
    int rc = mdb_cursor_open(txn, log->db[PD_DB_DOCUMENTS], &cursor);
    if (rc) {
        pd_changes_leave(log, txn);
        return pd_changes_fail(log, rc, "read documents of", err);
    }
    MDB_val key = {nname, name}, value;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); !rc && !status;
         rc = status ? 0 : mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (key.mv_size != nname || memcmp(key.mv_data, collection, nprefix)) break;
        uint64_t number = number_in(key.mv_data, nprefix);
        if (!pd_seal_fits(&key, &value))
            status = pd_fail(err, PD_DATA_LOSS, "%s: the document %llu of %s is damaged", log->file,
                             (unsigned long long)number, collection);
        else
            status =
                visit(context, number, (const char *)value.mv_data + PD_SEAL, value.mv_size - PD_SEAL, err);
    }
    mdb_cursor_close(cursor);
    pd_changes_leave(log, txn);
    if (status == PD_CANCELLED) return PD_OK;
    if (!status && rc && rc != MDB_NOTFOUND) status = pd_changes_fail(log, rc, "read documents of", err);
    return status;
}

pd_status pd_changes_last_document(pd_changes *log, const char *collection, uint64_t *number, pd_error *err)
{
    unsigned char name[PD_COLLECTION + 9];
    size_t nname = 0, nprefix = strlen(collection) + 1;
    MDB_txn *txn;
    MDB_cursor *cursor;
    *number = 0;
    pd_status status = document_key(collection, UINT64_MAX, name, &nname, err);
    if (!status) status = pd_changes_enter(log, &txn, err);
    if (status) return status;
    int rc = mdb_cursor_open(txn, log->db[PD_DB_DOCUMENTS], &cursor);
    if (!rc) {
        MDB_val key = {nname, name}, value;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        /* What is at or after the largest number there can be; the one before it is the collection's last. */
        rc = mdb_cursor_get(cursor, &key, &value, rc ? MDB_LAST : MDB_PREV);
        if (!rc && key.mv_size == nname && !memcmp(key.mv_data, collection, nprefix))
            *number = number_in(key.mv_data, nprefix);
        mdb_cursor_close(cursor);
    }
    pd_changes_leave(log, txn);
    return rc && rc != MDB_NOTFOUND ? pd_changes_fail(log, rc, "read documents of", err) : PD_OK;
}
