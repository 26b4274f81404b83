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

pd_status pd_changes_put(pd_changes *log, const char *collection, uint64_t number, const void *bytes,
                         size_t length, pd_error *err)
{
    unsigned char name[PD_COLLECTION + 9];
    size_t nname = 0;
    MDB_txn *txn;
    pd_status status = document_key(collection, number, name, &nname, err);
    if (status) return status;
    pthread_mutex_lock(&log->writing);
    status = pd_changes_begin(log, &txn, err);
    if (status) goto out;
    MDB_val key = {nname, name};
    int rc;
    if (length) {
        rc = pd_seal_put(txn, log->db[PD_DB_DOCUMENTS], name, nname, bytes, length);
    } else {
        rc = mdb_del(txn, log->db[PD_DB_DOCUMENTS], &key, NULL);
        if (rc == MDB_NOTFOUND) rc = 0;
    }
    status =
        rc ? pd_changes_undo(log, txn, rc, "write a document to", err) : pd_changes_commit(log, txn, err);
    if (!status && log->durability == PD_DURABLE_NONE && (rc = mdb_env_sync(log->env, 1)) != 0)
        status = pd_changes_fail(log, rc, "sync", err);
out:
    pthread_mutex_unlock(&log->writing);
    return status;
}

pd_status pd_changes_documents(pd_changes *log, const char *collection, pd_changes_document visit,
                               void *context, pd_error *err)
{
    unsigned char name[PD_COLLECTION + 9];
    size_t nname = 0, nprefix = strlen(collection) + 1;
    MDB_txn *txn;
    MDB_cursor *cursor;
    pd_status status = document_key(collection, 0, name, &nname, err);
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
        const unsigned char *at = key.mv_data;
        if (key.mv_size != nname || memcmp(at, collection, nprefix)) break;
        uint64_t number = 0;
        for (size_t i = 0; i < 8; i++)
            number = number << 8 | at[nprefix + i];
        if (!pd_seal_fits(&key, &value))
            status = pd_fail(err, PD_DATA_LOSS, "%s: the document %llu of %s is damaged", log->file,
                             (unsigned long long)number, collection);
        else
            status =
                visit(context, number, (const char *)value.mv_data + PD_SEAL, value.mv_size - PD_SEAL, err);
    }
    mdb_cursor_close(cursor);
    pd_changes_leave(log, txn);
    if (!status && rc && rc != MDB_NOTFOUND) status = pd_changes_fail(log, rc, "read documents of", err);
    return status;
}
