/* A batch of changes: from the wire to the log, and from the log to what a resident understands.
 *
 * A batch is made from a request or from a record of the log; both ways lead through the record's bytes (docs/FILES.md), so that what
 * is replayed after a crash is read by the code that read it the first time. Bound to a version of its table it becomes a
 * pd_change (ingest/live.h): names become numbers, vectors f32; an upsert is encoded as well. Binding it again, to another version,
 * forgets the first.
 */
#ifndef PD_BATCH_H
#define PD_BATCH_H

#include <stdint.h>

#include "arena.h"
#include "changes.h"
#include "live.h"
#include "status.h"
#include "version.h"

struct Pados__V1__Request;
struct Pados__V1__Update;

/* pd_record.kind. The numbers are on disk. */
typedef enum pd_batch_kind {
    PD_BATCH_UPSERT = 1,
    PD_BATCH_UPDATE = 2,
    PD_BATCH_DELETE = 3,
    PD_BATCH_COUNT = 4,    /* new values of one counter; what feedback becomes */
    PD_BATCH_ERASE = 5,    /* rows that must be gone from every file as well */
    PD_BATCH_FEEDBACK = 6, /* events; never logged */
} pd_batch_kind;

#define PD_BATCH_KEY 128u /* bytes of a client's idempotency key */

/* What a version could not take of a batch that was made for another one, while it catches up. */
typedef struct pd_batch_losses {
    uint64_t attributes; /* the version has no attribute of that name or type; each batch counts once */
    uint64_t
        values; /* a value that a closed dictionary does not know, or for which there is no room: unknown now */
    char first[200]; /* what was met first, for people */
} pd_batch_losses;

/* What the events of a batch add to an item's counter. */
typedef struct pd_raise {
    uint64_t item;
    double weight;
} pd_raise;

typedef struct pd_batch {
    pd_batch_kind kind;
    uint64_t sequence; /* of a record; 0: not logged yet */
    double time;       /* days since 1970-01-01 */
    char table[PD_MAX_NAME + 1];
    char key[PD_CHANGE_KEY + 1]; /* "TABLE/KEY": a key means one batch of one table; "": none */
    unsigned char *bytes;        /* the record's body; owned */
    size_t length;
    uint32_t n;
    const uint64_t *ids; /* [n] */
    /* Of the body. */
    uint32_t dim, dtype;
    const unsigned char *vectors;
    struct Pados__V1__Update *attributes; /* names and values; NULL: none */
    /* PD_BATCH_FEEDBACK */
    char counter[PD_MAX_NAME + 1];     /* the attribute; "": the only one */
    struct Pados__V1__Request *events; /* borrowed; read by bind */
    /* After bind. */
    pd_arena arena;
    pd_change change;
    pd_change_column *columns;
    pd_encoded *encoded;
    pd_raise *event; /* [nevents], of a feedback, by item */
    uint32_t nevents;
    uint32_t counts; /* of a feedback: the number of the attribute */
} pd_batch;

/* From a request whose body is an upsert, update, delete, feedback or erase; the request may go once it is bound, of a feedback, and at
 * once else. INVALID_ARGUMENT naming the field and the row: ids that repeat, lengths that differ, more than PD_CHANGE_ROWS rows
 * (of an erasure 1,024). */
pd_status pd_batch_of_request(struct Pados__V1__Request *request, pd_batch **out, pd_error *err);
/* From a record. DATA_LOSS: the sum fits, and the bytes are no batch. */
pd_status pd_batch_of_record(const pd_record *record, pd_batch **out, pd_error *err);
/* New values of a counter: [n] each. */
pd_status pd_batch_of_counters(const char *table, const char *attribute, const uint64_t *ids,
                               const double *counters, uint32_t n, double time, pd_batch **out,
                               pd_error *err);
void pd_batch_free(pd_batch *batch); /* NULL is allowed */

/* Fills change (its sequence is the caller's) and, of an upsert, encoded. device: assigns. losses NULL: what the version cannot take
 * is INVALID_ARGUMENT, naming it; else it is left out and counted there. Rows of another width are FAILED_PRECONDITION in any case. */
pd_status pd_batch_bind(pd_batch *batch, pd_version *version, pd_device *device, pd_batch_losses *losses,
                        pd_error *err);

/* The body of a record without what it says of some rows: ids: [n] ascending. *bytes: malloc'ed; NULL where it says nothing of
 * them. */
pd_status pd_batch_forget(const pd_record *record, const uint64_t *ids, uint32_t n, void **bytes,
                          size_t *length, pd_error *err);

/* The source row at a place of a record of upserts: vector [dim], normalised under cosine. DATA_LOSS. */
pd_status pd_record_row(const pd_record *record, uint32_t row, pd_metric metric, uint32_t dim, float *vector,
                        pd_error *err);

#endif
