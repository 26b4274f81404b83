/* Uploads: a table's rows on their way in, chunk by chunk, each part a file under push/NUMBER/.
 *
 * A chunk says where it belongs and carries its checksum, so that it may come twice, late or out of order: what is there is
 * kept as a short list of runs for each part. An upload begun again under the same idempotency key is the same upload and says
 * what it has. After the commit the files are the job's.
 */
#ifndef PD_PUSH_H
#define PD_PUSH_H

#include <stddef.h>
#include <stdint.h>

#include "reader.h"
#include "schema.h"
#include "status.h"

#define PD_PUSHES_OPEN  16 /* at once */
#define PD_PUSHES_DONE  64 /* remembered, so that a repeated commit finds its job */
#define PD_PUSH_IDLE_MS (3600u * 1000u)
#define PD_PUSH_RUNS    64         /* separate pieces of one part */
#define PD_PUSH_KEY     128        /* bytes of an idempotency key */
#define PD_SCHEMA_TEXT  (4u << 20) /* bytes of a schema's text */

enum { PD_PART_ROWS, PD_PART_IDS, PD_PART_ATTRIBUTES, PD_PART_QUERIES, PD_PARTS };
extern const char *const pd_part_file[PD_PARTS]; /* the part's file below push/NUMBER/ */

typedef enum pd_push_state { PD_PUSH_MAKING, PD_PUSH_OPEN, PD_PUSH_CLOSING, PD_PUSH_COMMITTED } pd_push_state;

typedef struct pd_part {
    uint64_t bytes; /* that it will have */
    int fd;
    uint32_t nruns;
    struct {
        uint64_t begin, end;
    } runs[PD_PUSH_RUNS]; /* ascending, apart from each other */
} pd_part;

/* What a push is asked to be. */
typedef struct pd_push_ask {
    char table[PD_MAX_NAME + 1];
    char *schema;        /* text; NULL: none was given */
    uint64_t schema_sum; /* of the text, to tell another one; filled by begin */
    char metric[16];
    pd_dtype dtype;
    uint32_t dim, nlist;
    uint64_t rows, ids_bytes, attributes_bytes, queries_rows;
    char attributes_name[256];
    char key[PD_PUSH_KEY + 1]; /* "": none */
} pd_push_ask;

typedef struct pd_push {
    uint64_t number;
    pd_push_ask ask;
    uint64_t sequence; /* the last change when it began: later ones are newer than its rows */
    pd_push_state state;
    pd_part parts[PD_PARTS];
    uint32_t writers;    /* threads in the middle of a chunk */
    uint64_t touched_ms; /* the last chunk */
    uint64_t job;        /* once committed */
    int finished;        /* the job is over */
} pd_push;

typedef struct pd_pushes {
    pd_push *at[PD_PUSHES_OPEN + PD_PUSHES_DONE];
    uint32_t count;
    uint64_t next;
    uint64_t received_bytes; /* since the start */
} pd_pushes;

struct pd_catalog;

void pd_push_folder(const struct pd_catalog *catalog, uint64_t number, char *path); /* path: [PD_PATH_ROOM] */

/* Each may read and write files and takes the catalog's mutex itself. received: [PD_PARTS] bytes from each part's start on
 * that are there. begin: takes ask's texts in any case. INVALID_ARGUMENT, RESOURCE_EXHAUSTED (too many, too large, no room on
 * the disk), FAILED_PRECONDITION (the key is another push's). */
pd_status pd_push_begin(struct pd_catalog *catalog, pd_push_ask *ask, uint64_t *number, uint64_t *received,
                        pd_error *err);
/* DATA_LOSS: the checksum does not fit; nothing is written. */
pd_status pd_push_chunk(struct pd_catalog *catalog, uint64_t number, int part, uint64_t offset,
                        const void *data, size_t length, uint64_t checksum, uint64_t *received,
                        pd_error *err);
/* Queues the job that builds it. The same commit again finds the same job. FAILED_PRECONDITION: bytes are missing. */
pd_status pd_push_commit(struct pd_catalog *catalog, uint64_t number, int publish, uint64_t *job,
                         pd_error *err);
/* Drops the upload, or cancels the job that it became. */
pd_status pd_push_abort(struct pd_catalog *catalog, uint64_t number, pd_error *err);
/* Drops uploads that nobody has touched for PD_PUSH_IDLE_MS. */
void pd_push_expire(struct pd_catalog *catalog);

/* For the job: its upload, which stays where it is until pd_push_finish. With the mutex held. */
pd_push *pd_push_find(struct pd_catalog *catalog, uint64_t number);
/* The job is over: removes the files; a failed one's key is free again. Without the mutex. */
void pd_push_finish(struct pd_catalog *catalog, uint64_t number, int failed);
void pd_pushes_free(struct pd_catalog *catalog);
/* Start: removes all uploads that an earlier process left. */
pd_status pd_pushes_clean(struct pd_catalog *catalog, pd_error *err);

#endif
