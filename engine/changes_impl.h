/* The log's insides, shared by its files: changes.c (life cycle, append), changes_env.c (the LMDB environment: opened, found
 * wanting and opened again; who may be in it), changes_check.c (is the file what LMDB takes it for?), changes_record.c (bytes of
 * a record), changes_read.c, changes_documents.c, changes_trim.c (what removes and replaces), changes_copy.c (compaction, copies).
 *
 * The rules of the locks. `writing` is held for the length of any write, so there is one at a time, whoever calls. `gate` guards
 * small things: who reads, what waits to be stored, whether the environment is being exchanged. Readers stay inside the gate
 * for the length of their LMDB transaction; the environment is closed, opened, or its map moved, only when nobody is inside.
 * Order: writing, copying, gate.
 *
 * Databases in the environment. Numbers are little-endian; a *sealed* value is the XXH3-64 of its key and its bytes, then the bytes.
 *
 *     records    u64 sequence -> record (changes_record.c)
 *     keys       idempotency key -> sealed u64 sequence
 *     order      u64 sequence -> idempotency key: which key is the oldest
 *     floors     table -> sealed u64 sequence
 *     state      "last" -> sealed u64 sequence; "format" -> sealed u64
 *     documents  collection, 0, u64 number big-endian -> sealed bytes
 */
#ifndef PD_CHANGES_IMPL_H
#define PD_CHANGES_IMPL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#include "changes.h"
#include "files.h"

#define PD_CHANGES_FORMAT  1u
#define PD_CHANGES_READERS 1022u /* transactions at a time */
#define PD_CHANGES_SLICE                                                                                     \
    ((size_t)16u << 20)        /* bytes of records in one transaction of a trim, a rewrite or a read */
#define PD_CHANGES_STEPS 1024u /* records in one */
#define PD_PENDING_BYTES                                                                                     \
    ((size_t)64u << 20)          /* PD_DURABLE_INTERVAL: what waits is stored beyond this, or beyond */
#define PD_PENDING_RECORDS 4096u /* that many records */
#define PD_COLLECTION      200u  /* bytes of a collection's name */
#define PD_SEAL            8u
#define PD_SOUND           16384u

enum { PD_DB_RECORDS, PD_DB_KEYS, PD_DB_ORDER, PD_DB_FLOORS, PD_DB_STATE, PD_DB_DOCUMENTS, PD_DBS };
typedef struct pd_database {
    const char *name;
    unsigned flags;
    int sealed; /* its values are */
} pd_database;
extern const pd_database pd_databases[PD_DBS];

/* A record that is acknowledged and not stored yet (PD_DURABLE_INTERVAL). Counted: a reader may hold it beyond its storing. */
typedef struct pd_pending {
    atomic_uint refs;
    pd_record record;
    unsigned char bytes[];
} pd_pending;

struct pd_changes {
    char folder[PD_PATH_ROOM];
    char file[PD_PATH_ROOM]; /* data.mdb */
    uint64_t map_bytes;
    pd_durability durability;
    uint32_t keys;

    pthread_mutex_t writing;
    int broken; /* a commit failed: the next write opens the environment again */
    int code;   /* LMDB's, of the last failure */

    pthread_mutex_t copying; /* held by a copy for its length, so that nobody waits inside the gate for it */

    pthread_mutex_t gate;
    pthread_cond_t moved; /* a reader left, the gate is open again */
    unsigned readers;
    int closing;
    MDB_env *env; /* NULL: it could not be opened again; the next write tries */
    MDB_dbi db[PD_DBS];
    pd_pending *
        *pending; /* in the order of their numbers, under gate; changed by the holder of writing alone */
    uint32_t npending;
    size_t pending_bytes;

    /* Sequences whose body's sum was seen to fit, by sequence % PD_SOUND: rows of a batch are got one by one, and summing the whole batch for
     * each would be most of the work. Forgotten when the bytes are replaced. */
    _Atomic uint64_t sound[PD_SOUND];

    _Atomic uint64_t last; /* with what is pending */
    uint64_t stored;       /* without; under writing */
    _Atomic uint64_t commits, failures, reopened;
    atomic_int failing;
    atomic_int littered;
};

/* ------------------------------------------------------------------------------------------ changes_env.c --- */

/* What LMDB's (or errno's) code says about the log: "cannot VERB the log FILE: REASON", with the status that fits. */
pd_status pd_changes_fail(const pd_changes *log, int code, const char *verb, pd_error *err);

/* Makes or opens the environment and syncs its folder; with nobody inside the gate, env == NULL. After a failure of the sync
 * alone it is open, for reading; otherwise env is NULL. */
pd_status pd_changes_env_open(pd_changes *log, pd_error *err);
void pd_changes_env_close(pd_changes *log); /* nobody inside; NULL is allowed */

/* Nobody is inside, and nobody comes in, until it is opened again. */
void pd_changes_gate_close(pd_changes *log);
void pd_changes_gate_open(pd_changes *log);

/* A read transaction; the thread stays inside the gate until its end. */
pd_status pd_changes_enter(pd_changes *log, MDB_txn **txn, pd_error *err);
void pd_changes_leave(pd_changes *log, MDB_txn *txn);

/* A write transaction; opens the environment again where an earlier failure asks for it. With writing held. */
pd_status pd_changes_begin(pd_changes *log, MDB_txn **txn, pd_error *err);
/* Commits; after a failure nothing of it is there. */
pd_status pd_changes_commit(pd_changes *log, MDB_txn *txn, pd_error *err);
/* Aborts, counts the failure, and says it. */
pd_status pd_changes_undo(pd_changes *log, MDB_txn *txn, int code, const char *verb, pd_error *err);

/* The map, so large and no smaller than what is in it. With writing held, outside of transactions. */
pd_status pd_changes_remap(pd_changes *log, uint64_t bytes, pd_error *err);

/* ---------------------------------------------------------------------------------------- changes_check.c --- */

/* Walks the file's pages as LMDB will: DATA_LOSS naming file and offset where one cannot be what it should. A file without
 * bytes passes. */
pd_status pd_changes_check(const char *file, pd_error *err);
/* Writes the two meta pages as they are and syncs the file, so that the disk and the system's cache agree on them. */
pd_status pd_changes_settle(const char *file, pd_error *err);

/* --------------------------------------------------------------------------------------- changes_record.c --- */

/* Bytes of a record in the log. */
size_t pd_record_size(const pd_record *record);
void pd_record_write(const pd_record *record, void *to);
/* Head and names, without the body's sum: NULL, or why not. record->bytes points into bytes. */
const char *pd_record_head(uint64_t sequence, const void *bytes, size_t length, pd_record *record);
/* The body's sum: NULL, or why not. */
const char *pd_record_body(const void *bytes, const pd_record *record);
/* DATA_LOSS naming file, sequence and offset of what LMDB returned in a read transaction. */
pd_status pd_record_damaged(const pd_changes *log, uint64_t sequence, const MDB_val *value, const char *why,
                            pd_error *err);

/* Sealed values. unseal: 0: the seal does not fit. */
int pd_seal_put(MDB_txn *txn, MDB_dbi db, const void *key, size_t nkey, const void *bytes, size_t length);
int pd_seal_fits(const MDB_val *key, const MDB_val *value);
/* A sealed number: an LMDB code, MDB_NOTFOUND, or MDB_CORRUPTED where the seal does not fit. */
int pd_seal_number(MDB_txn *txn, MDB_dbi db, const void *key, size_t nkey, uint64_t *number);

/* ---------------------------------------------------------------------------------------------- changes.c --- */

/* Stores what is pending; with writing held. */
pd_status pd_changes_flush(pd_changes *log, pd_error *err);
/* A counted copy of what is pending from a sequence on; freed with pd_pending_free_all. */
pd_status pd_pending_from(pd_changes *log, uint64_t from, pd_pending ***out, uint32_t *n, pd_error *err);
void pd_pending_release(pd_pending *pending);

#endif
