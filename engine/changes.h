/* The log of changes: what was acknowledged after a version was built, in one LMDB environment for all tables.
 *
 *     DATA/changes/data.mdb, lock.mdb
 *
 * One record a write batch, keyed by its sequence number (one count over all tables), appended in the order of the numbers; a
 * record is what came over the wire, under a header with the table, the kind, the time and an XXH3-64 over all of it. Beside the
 * records: the idempotency keys of the latest PD_CHANGES_KEYS batches; the floor of each table (what was deleted from the
 * front); erasures. docs/FILES.md gives the bytes.
 *
 * One thread writes (append, trim, rewrite, compact ...); any thread may read. After a failed write LMDB may refuse all more
 * until the environment is opened again: the next write does that by itself, and until it succeeds writes answer UNAVAILABLE
 * (RESOURCE_EXHAUSTED where the disk or the map is full) and reading goes on where it can. What failed left nothing that is read;
 * after a crash, a batch whose append failed or did not return may be there.
 */
#ifndef PD_CHANGES_H
#define PD_CHANGES_H

#include <stddef.h>
#include <stdint.h>

#include "schema.h" /* PD_MAX_NAME */
#include "status.h"

#define PD_CHANGES_KEYS 100000u /* batches whose keys are remembered */
#define PD_CHANGE_KEY   200u    /* bytes of an idempotency key, with what its user puts before it */

typedef enum pd_durability {
    PD_DURABLE_SYNC, /* a commit is on the disk before append returns */
    PD_DURABLE_INTERVAL, /* the writer calls pd_changes_sync() now and then; what came since is in memory, where reads find it, and
                          * is lost with the process; the file is whole at any moment */
    PD_DURABLE_NONE, /* when the system likes; a power cut may lose the whole log */
} pd_durability;

typedef struct pd_changes pd_changes;
typedef struct pd_changes_options {
    const char *folder; /* DATA/changes; made where absent */
    uint64_t map_bytes; /* the log's bound on the disk; RESOURCE_EXHAUSTED beyond */
    pd_durability durability;
    uint32_t keys; /* how many batches' keys are remembered; 0: PD_CHANGES_KEYS */
} pd_changes_options;

typedef struct pd_record {
    uint64_t sequence;
    uint32_t kind; /* the engine's */
    double time;   /* days since 1970-01-01 */
    char table[PD_MAX_NAME + 1];
    char key[PD_CHANGE_KEY + 1]; /* idempotency; "": none */
    const void *bytes;
    size_t length;
} pd_record;

/* DATA_LOSS naming the file: LMDB says that it is corrupt, or of another kind. RESOURCE_EXHAUSTED, UNAVAILABLE: the system's words. */
pd_status pd_changes_open(const pd_changes_options *options, pd_changes **out, pd_error *err);
void pd_changes_close(pd_changes *changes); /* syncs what can be; NULL is allowed */

/* The last sequence that is in the log (or was: it never goes back). 0: none ever. */
uint64_t pd_changes_last(const pd_changes *changes);
/* Numbers up to and with `upto` are not given out again: a version holds their changes, though the log has lost them (they were not
 * on the disk yet, or its folder went). Before the first write. */
void pd_changes_pass(pd_changes *changes, uint64_t upto);

/* ---------------------------------------------------------------------------------------------------- writing --- */

/* All of them or none, in one transaction, with one sync. records[i].sequence must be last + 1 + i; 0 records: nothing.
 * RESOURCE_EXHAUSTED: the disk or the map is full; UNAVAILABLE: the log cannot be written now, with the system's words. */
pd_status pd_changes_append(pd_changes *changes, const pd_record *records, uint32_t n, pd_error *err);
pd_status pd_changes_sync(pd_changes *changes, pd_error *err); /* PD_DURABLE_INTERVAL */

/* Deletes the table's records up to and with `upto` and remembers that as its floor. In transactions of bounded size. */
pd_status pd_changes_trim(pd_changes *changes, const char *table, uint64_t upto, pd_error *err);

/* Visits every record of the table and may replace its bytes: *bytes (malloc'ed, the log's to free) and *length, or NULL: leave
 * it. Asks again for records whose transaction needed more room. A damaged record is left, and is DATA_LOSS at the end. In
 * transactions of bounded size. */
typedef pd_status (*pd_changes_replace)(void *context, const pd_record *record, void **bytes, size_t *length,
                                        pd_error *err);
pd_status pd_changes_rewrite(pd_changes *changes, const char *table, pd_changes_replace replace,
                             void *context, pd_error *err);
/* Copies what is there to a new file and takes its place, so that nothing deleted or replaced is left in free pages. */
pd_status pd_changes_compact(pd_changes *changes, pd_error *err);
/* Whether free pages may hold anything of records: some were deleted, replaced or not committed since the last compaction, or the log
 * was opened since. */
int pd_changes_littered(const pd_changes *changes);

/* ---------------------------------------------------------------------------------------------------- reading --- */

/* The sequence under which a key was logged; NOT_FOUND. Any thread. */
pd_status pd_changes_find_key(pd_changes *changes, const char *key, uint64_t *sequence, pd_error *err);
/* What is gone from the front of a table's records: all of them up to here; 0: nothing. */
pd_status pd_changes_floor(pd_changes *changes, const char *table, uint64_t *floor, pd_error *err);
/* Calls visit for the records of the table ("" for all tables) from sequence `from` on, in order, at most up to and with
 * `upto`; bytes are valid during the call. A record whose sum does not fit is DATA_LOSS naming file, sequence and byte offset in
 * the file where that can be told; damaged (may be NULL) is called for it instead where given, and the rest goes on. visit may read
 * the log, never write to it: a write may wait for all readers to leave. */
typedef pd_status (*pd_changes_visit)(void *context, const pd_record *record, pd_error *err);
typedef void (*pd_changes_damaged)(void *context, uint64_t sequence, const char *why);
pd_status pd_changes_read(pd_changes *changes, const char *table, uint64_t from, uint64_t upto,
                          pd_changes_visit visit, pd_changes_damaged damaged, void *context, pd_error *err);
/* One record; NOT_FOUND, DATA_LOSS. *out is valid until end is called with *transaction, by the same thread, which writes nothing
 * meanwhile. The sum of a record that was found whole is not looked at again for a time: getting one often is cheap. Any thread. */
pd_status pd_changes_get(pd_changes *changes, uint64_t sequence, pd_record *out, void **transaction,
                         pd_error *err);
void pd_changes_end(pd_changes *changes, void *transaction);

/* ---------------------------------------------------------------------------------------------------- the rest --- */

/* Small documents by name, synced (receipts of erasures): one collection a name. */
typedef struct pd_document {
    const char *collection;
    uint64_t number;
    const void *bytes;
    size_t length; /* 0: it is deleted */
} pd_document;
/* All of them or none, in one transaction. */
pd_status pd_changes_put(pd_changes *changes, const pd_document *documents, uint32_t n, pd_error *err);
/* Those of a collection from the number `from` on, in order. A visit that returns PD_CANCELLED has seen enough, which is no failure. */
typedef pd_status (*pd_changes_document)(void *context, uint64_t number, const void *bytes, size_t length,
                                         pd_error *err);
pd_status pd_changes_documents(pd_changes *changes, const char *collection, uint64_t from,
                               pd_changes_document visit, void *context, pd_error *err);
/* The largest number of a collection; 0: it is empty. */
pd_status pd_changes_last_document(pd_changes *changes, const char *collection, uint64_t *number,
                                   pd_error *err);

/* A consistent copy of everything into folder (which is there and empty), synced. *last: the last sequence in it. Any thread. */
pd_status pd_changes_copy(pd_changes *changes, const char *folder, uint64_t *last, pd_error *err);

typedef struct pd_changes_stats {
    uint64_t last, records, used_bytes, map_bytes;
    uint64_t commits, failures, reopened;
    int failing; /* the last write failed and none has succeeded since */
} pd_changes_stats;
void pd_changes_stats_of(pd_changes *changes, pd_changes_stats *stats);

#endif
