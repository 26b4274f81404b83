/* libpados: the C client of Pados, in one header.
 *
 * A pados_client is a connection to one padosd. It reconnects by itself; it never resends a search, and resends a write
 * under the same key, which the server does once. All calls block until the reply or the deadline; a client may be shared by
 * threads (each call uses a context of its own). Requests that the server would not answer (too many bytes, queries or
 * hits) are refused here, from the limits in the server's hello.
 *
 *     pados_client *client;
 *     pados_error error;
 *     if (pados_open("tcp://127.0.0.1:7461", NULL, &client, &error)) ...
 *     pados_search search = { .table = "products", .count = 1, .k = 10, .vectors = v, .dim = 64 };
 *     pados_result *result;
 *     if (pados_search_run(client, &search, &result, &error)) ...
 */
#ifndef PADOS_H
#define PADOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PADOS_DEFAULT_URL "tcp://127.0.0.1:7461"

/* A status is 0 or one of gRPC's canonical codes (3 INVALID_ARGUMENT, 4 DEADLINE_EXCEEDED, 5 NOT_FOUND,
 * 8 RESOURCE_EXHAUSTED, 14 UNAVAILABLE ...). */
typedef int pados_status;
const char *pados_status_name(pados_status status);
typedef struct pados_error {
    pados_status status;
    char message[480];
} pados_error;

typedef struct pados_client pados_client;

typedef struct pados_options {
    uint32_t timeout_ms;     /* of a call, sent as its deadline; 0: 10,000 */
    uint32_t connect_ms;     /* to wait for the first connection; 0: 5,000 */
    const char *token;       /* NULL: none */
    const char *ca_file;     /* PEM of the authority for tls+tcp:// URLs; NULL: none */
    const char *server_name; /* name in the server's certificate; NULL: the URL's host */
    const char *name;        /* of this client, for the server's log */
    const char *admin_url;   /* where administration goes; NULL: where the hello says */
} pados_options;

/* options NULL: defaults. Says hello, so that limits are known: UNAVAILABLE when nobody answers in connect_ms. */
pados_status pados_open(const char *url, const pados_options *options, pados_client **out,
                        pados_error *error);
/* No call may be in flight. Takes up to a second where a large request was half sent at its deadline. */
void pados_close(pados_client *client);

typedef struct pados_limits {
    uint64_t max_message, max_hits, max_chunk;
    uint32_t max_queries, max_k, max_deadline_ms;
    const char *server, *backend, *data_url, *admin_url; /* live as long as the client */
} pados_limits;
void pados_limits_of(const pados_client *client, pados_limits *limits);

/* ---------------------------------------------------------------------------------------------- search --- */

typedef struct pados_pair {
    const char *key, *value;
} pados_pair;
typedef struct pados_context {
    const pados_pair *pairs;
    size_t count;
} pados_context;
typedef struct pados_mix {
    const uint64_t *ids;
    const float *weights;
    size_t count;
    const char *table; /* NULL: the table searched */
} pados_mix;
typedef enum pados_condition_kind {
    PADOS_IS,
    PADOS_IS_NOT,
    PADOS_AT_LEAST,
    PADOS_AT_MOST,
    PADOS_ANY_OF,
    PADOS_ALL_OF,
    PADOS_NONE_OF
} pados_condition_kind;
typedef struct pados_condition {
    const char *attribute;
    pados_condition_kind kind;
    const char *const *values;
    size_t count;
} pados_condition;
typedef struct pados_override {
    const char *attribute, *value;
    float weight;
} pados_override;
typedef struct pados_cap {
    const char *attribute;
    uint32_t at_most;
} pados_cap;
typedef struct pados_ids {
    const uint64_t *ids;
    size_t count;
} pados_ids;

typedef struct pados_search {
    const char *table;
    uint32_t count, k;
    const float *vectors; /* [count][dim]; NULL: none */
    uint32_t dim;
    const char *from_table;   /* NULL: the table searched */
    const uint64_t *from_ids; /* [count]; NULL: none */
    const pados_mix *mixes;   /* [count]; NULL: none */
    float recall;             /* 0, else with nprobe 0 and exact false */
    uint32_t nprobe;
    bool exact;
    const char *profile; /* NULL: none */
    const pados_context *contexts;
    size_t ncontexts;           /* 0, 1 or count; or with context_of any number */
    const uint32_t *context_of; /* [count], NULL: none */
    const pados_override *overrides;
    size_t noverrides;
    const pados_condition *filters;
    size_t nfilters;
    const pados_cap *diversity;
    size_t ndiversity;
    const pados_ids *exclude;
    size_t nexclude;        /* 0, 1 or count */
    const float *min_score; /* NULL: none */
    bool explain;
    const char *const *attributes; /* to return */
    size_t nattributes;
    uint64_t at_least;   /* a pados_written's sequence, which the answer must hold; 0: none */
    uint32_t timeout_ms; /* 0: the client's */
} pados_search;

typedef struct pados_term {
    const char *attribute, *value;
    float weight;
} pados_term;
typedef struct pados_explanation {
    const pados_term *terms;
    size_t count;
} pados_explanation;
typedef struct pados_column {
    const char *attribute;
    const char *const *values; /* [hits] */
} pados_column;
typedef struct pados_timing { /* microseconds */
    uint32_t decode, queue, resolve, coarse, scan, refine, finish, total;
} pados_timing;

typedef struct pados_result {
    uint32_t count;                       /* queries */
    size_t hits;                          /* of all queries */
    const uint32_t *counts;               /* [count]; */
    const size_t *first;                  /* [count + 1] where query i's hits start */
    const uint64_t *ids;                  /* [hits] */
    const float *scores;                  /* [hits] */
    const uint32_t *nprobe, *path, *rung; /* [count], as in the .proto */
    const char *const *rung_segment;      /* [count] or NULL */
    uint64_t version, profile_version, scanned;
    bool complete;
    float recall;
    const pados_explanation *explanations; /* [hits] or NULL */
    const pados_column *columns;
    size_t ncolumns;
    const char *const *warnings;
    size_t nwarnings;
    pados_timing timing;
    const char *backend;
    uint64_t sequence; /* the last write of the table that the answer holds */
} pados_result;

const char *pados_path_name(uint32_t path); /* "ivf", "rows", "attributes", "exact", "all" */
const char *pados_rung_name(uint32_t rung); /* "given", "row", "segment", "attributes" */

/* result is freed with pados_result_free. */
pados_status pados_search_run(pados_client *client, const pados_search *search, pados_result **result,
                              pados_error *error);
void pados_result_free(pados_result *result);

/* --------------------------------------------------------------------------------------------- changes ---
 *
 * A write is answered when it is in the server's log and visible to the next search. It is resent under its key, after a lost
 * connection or UNAVAILABLE, until its deadline; the server does it once. An error of UNAVAILABLE or DEADLINE_EXCEEDED
 * leaves open whether it was done: its message names the key, under which the same write may be sent again. Any other
 * error: nothing of the batch was done. All of it goes to the admin listener. */

#define PADOS_MAX_BATCH 65536u /* rows of one write */
#define PADOS_MAX_KEY   128u   /* bytes of an idempotency key */

typedef enum pados_dtype { PADOS_F32 = 0, PADOS_F16 = 1, PADOS_I8 = 2, PADOS_U8 = 3 } pados_dtype;

typedef struct pados_values { /* one attribute, a value for each row of a batch: numbers, keys or texts */
    const char *attribute;
    const float *numbers; /* [count], NaN unknown; a time is days since 1970-01-01 */
    const uint64_t *keys; /* [count] */
    const char *const
        *texts;    /* cells as in a CSV: "" unknown, a set's members joined by |. [count], or with text_of: */
    size_t ntexts; /* as many texts */
    const uint32_t *text_of; /* [count] which of texts is the row's; NULL: texts is [count] */
} pados_values;

typedef struct pados_upsert { /* whole rows: an attribute that is not named becomes unknown, counters stay */
    const char *table;
    const uint64_t *ids; /* [count], distinct */
    uint32_t count;
    const void *vectors; /* [count][dim] of dtype */
    pados_dtype dtype;
    uint32_t dim;
    const pados_values *attributes;
    size_t nattributes;
    const char *key;     /* idempotency; NULL: one is made */
    uint32_t timeout_ms; /* 0: the client's */
} pados_upsert;
typedef struct pados_delete {
    const char *table;
    const uint64_t *ids; /* [count], distinct */
    uint32_t count;
    const char *key;
    uint32_t timeout_ms;
} pados_delete;
typedef struct pados_update { /* the named attributes of rows that are there */
    const char *table;
    const uint64_t *ids; /* [count], distinct */
    uint32_t count;
    const pados_values *attributes;
    size_t nattributes;
    const char *key;
    uint32_t timeout_ms;
} pados_update;
typedef struct pados_feedback { /* events that raise the items' counters */
    const char *table;          /* of the items */
    const uint64_t *items;      /* [count], may repeat */
    uint32_t count;
    const uint64_t *users;     /* [count] or NULL; not kept */
    const char *const *events; /* names; NULL: weight 1 each */
    size_t nevents;
    const uint32_t *event_of; /* [count] which of events is item i's; NULL: events is [count] */
    const float *weights;     /* [count] or NULL: 1; times the event's own */
    const char *attribute;    /* NULL: the table's only attribute with feedback */
    const char *key;
    uint32_t timeout_ms;
} pados_feedback;

typedef struct pados_written {
    uint64_t sequence; /* at_least of a search that must see it */
    bool durable;      /* on the disk, not only in the log's memory */
    uint32_t changed;  /* rows */
    uint32_t fresh;    /* of these, ids that were not there */
    uint32_t missing;  /* ids that are not there: passed over */
    bool repeated;     /* the key was seen before: nothing was done now */
} pados_written;

/* Limits (rows, bytes of the message, the key's length) and the shapes of the arrays are checked here, what a table knows by the
 * server: INVALID_ARGUMENT. */
pados_status pados_upsert_run(pados_client *client, const pados_upsert *upsert, pados_written *written,
                              pados_error *error);
pados_status pados_delete_run(pados_client *client, const pados_delete *gone, pados_written *written,
                              pados_error *error);
pados_status pados_update_run(pados_client *client, const pados_update *update, pados_written *written,
                              pados_error *error);
pados_status pados_feedback_run(pados_client *client, const pados_feedback *feedback, pados_written *written,
                                pados_error *error);

typedef struct pados_erasure { /* a receipt */
    uint64_t number, id;
    const char *table, *asked, *deadline, *finished; /* times as RFC 3339; finished "": not yet */
    const char *const *done;                         /* "memory", "version 7", "log" */
    size_t ndone;
    const char *const *pending; /* the same, with why where it failed */
    size_t npending;
} pados_erasure;
typedef struct pados_erasures {
    const pados_erasure *at;
    size_t count;
} pados_erasures;
/* Rows go from memory at once and from every file by the deadline that their receipts name. Not resent: an erasure asked for
 * twice has two receipts. Freed with pados_erasures_free. */
pados_status pados_erase(pados_client *client, const char *table, const uint64_t *ids, uint32_t count,
                         pados_erasures **out, pados_error *error);
pados_status pados_erasures_list(pados_client *client, bool only_pending, pados_erasures **out,
                                 pados_error *error);
void pados_erasures_free(pados_erasures *erasures); /* NULL is allowed */

/* All that is held about a row, as JSON, freed with free(). NOT_FOUND. */
pados_status pados_export(pados_client *client, const char *table, uint64_t id, char **json,
                          pados_error *error);

typedef struct pados_snapshot {
    const char *folder;  /* on the server; must not be there */
    uint32_t timeout_ms; /* 0: the client's, which is short for a large server */
} pados_snapshot;
typedef struct pados_snapshot_made {
    uint64_t sequence, bytes; /* the last write that is in it */
    uint32_t tables;
    double seconds;
} pados_snapshot_made;
/* A consistent copy of everything, written while the server serves. */
pados_status pados_snapshot_run(pados_client *client, const pados_snapshot *snapshot,
                                pados_snapshot_made *made, pados_error *error);

/* --------------------------------------------------------------------------------------- administration --- */

/* Pulls the next bytes of one part of a push: up to max into data; *got 0 at the end. A non-zero return stops the push and
 * is handed back. seek: start again from this byte (a resumed push); NULL when the part cannot. */
typedef struct pados_source {
    pados_status (*read)(void *context, void *data, size_t max, size_t *got, pados_error *error);
    pados_status (*seek)(void *context, uint64_t offset, pados_error *error);
    void *context;
    uint64_t bytes;
} pados_source;

typedef struct pados_job {
    uint64_t job, version, done, total;
    char table[72], stage[24];
    double seconds;
    pados_status status;
    char message[480];
} pados_job;
/* Called as a push goes on: stage "send" first, then the server's. Non-zero: stop (the push is aborted). */
typedef int (*pados_progress)(void *context, const pados_job *job);

typedef struct pados_push {
    const char *table;
    const char *schema; /* libconfig text; NULL: the table's own or a plain one */
    const char *metric; /* NULL: cosine */
    pados_dtype dtype;
    uint32_t dim;
    uint64_t rows;
    pados_source vectors;
    pados_source ids;        /* bytes 0: none */
    pados_source attributes; /* bytes 0: none */
    const char *attributes_name;
    pados_source queries; /* bytes 0: none */
    uint32_t nlist;
    bool stage_only;
    pados_progress progress;
    void *progress_context;
} pados_push;
/* Sends, commits and waits for the version to serve (or to be staged). *version: its number. */
pados_status pados_push_run(pados_client *client, const pados_push *push, uint64_t *version,
                            pados_error *error);

/* The rest of the administration, one call a command. Replies are the messages of the .proto, as protobuf-c unpacks them
 * (client/proto/pados.pb-c.h); freed with pados_reply_free. request is a Pados__V1__Request with its body set; id, token
 * and deadline are filled in. Goes to the admin listener, which the hello names. */
struct Pados__V1__Request;
struct Pados__V1__Reply;
pados_status pados_admin(pados_client *client, struct Pados__V1__Request *request,
                         struct Pados__V1__Reply **reply, pados_error *error);
void pados_reply_free(struct Pados__V1__Reply *reply);
/* Waits for a job: polls until it is done or failed (its status and message are then returned as the error). */
pados_status pados_job_wait(pados_client *client, uint64_t job, pados_progress progress, void *context,
                            uint64_t *version, pados_error *error);
/* A new version of the table from its rows as they are now; waits until it serves. *version: its number. */
pados_status pados_rebuild(pados_client *client, const char *table, pados_progress progress, void *context,
                           uint64_t *version, pados_error *error);

#ifdef __cplusplus
}
#endif

#endif
