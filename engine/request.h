/* One search request on its way: checked, bound to tables, compiled, planned; then a task of the executor.
 *
 *     pd_search_check     what needs no table: counts, lengths, what goes together
 *     pd_search_open      tables and profile held, vectors read, contexts compiled and planned: ready to be submitted
 *     resolve.c           on the executor: ids become vectors, or go down the fallback chain
 *     search_task.c       on the executor: slices, diversity, attribute values of what each slice found
 *     reply.c             on a reply thread: the message
 *
 * A search belongs to one thread at a time; it is handed on by queues.
 */
#ifndef PD_REQUEST_H
#define PD_REQUEST_H

#include <stdint.h>

#include "arena.h"
#include "catalog.h"
#include "config.h"
#include "executor.h"
#include "plan.h"
#include "wire.h"

#define PD_MAX_EXCLUDE   65536u      /* ids of one query's list */
#define PD_MAX_MIX       1024u       /* rows of one mix */
#define PD_MAX_MIXED     65536u      /* rows of all mixes of a request */
#define PD_MAX_EXPLAINED 100000u     /* hits of a request with explain */
#define PD_MAX_CELLS     4000000u    /* attribute values of a reply */
#define PD_MAX_COMPILED  (64u << 20) /* bytes of the weight tables of a request's distinct contexts */
#define PD_MAX_EXCLUDED_COPY                                                                                 \
    (8u << 20)                    /* ids of a shared exclude list copied because rows exclude themselves */
#define PD_MAX_REPLY (256u << 20) /* bytes */

struct Pados__V1__Search;
struct Pados__V1__Context;

/* INVALID_ARGUMENT naming the field. */
pd_status pd_search_check(const struct Pados__V1__Search *ask, const pd_config *config, pd_error *err);

/* Queries that share a context. */
typedef struct pd_group {
    const struct Pados__V1__Context *context; /* NULL: none */
    pd_compiled compiled;
    pd_plan with_vector, bare; /* bare: attributes alone */
    int planned, planned_bare;
} pd_group;

typedef enum pd_rung { PD_RUNG_AS_IS = 0, PD_RUNG_ROW = 1, PD_RUNG_MEAN = 2, PD_RUNG_BARE = 3 } pd_rung;

/* State of one query. */
typedef struct pd_one {
    uint32_t group;
    uint32_t rung;
    const char *segment; /* "age=25-34" where rung is PD_RUNG_MEAN */
    int has_vector;
    uint64_t *exclude; /* sorted, distinct */
    uint32_t nexclude;
    uint32_t depth;   /* hits to ask the index for: k, more under diversity caps */
    uint32_t refined; /* candidates that its last search re-scored, at most */
    uint32_t count;   /* hits found */
    uint32_t gone;    /* rows that an exact search found and that were deleted before it was over */
    uint32_t nprobe;
    uint32_t path;
    uint64_t scanned; /* rows looked at by its last search */
} pd_one;

struct pd_exact_worker;

typedef struct pd_search {
    pd_task task; /* first */
    void *owner;  /* the server's, for done */
    void (*done)(struct pd_search *search, pd_status status, const pd_error *err);
    int (*wanted)(struct pd_search *search); /* 0: nobody waits for the answer */
    struct pd_exact_worker *exact_worker;

    pd_wire *wire; /* strings and ids below point into it */
    const struct Pados__V1__Search *ask;
    pd_arena arena;
    pd_catalog *catalog;
    pd_served *served;
    const pd_version_info *info; /* of served */
    pd_served *from;             /* where from_ids are; NULL: none */
    pd_served **mix_tables;      /* [count], borrowed from held */
    pd_served **held;            /* distinct tables of the mixes */
    uint32_t nheld;
    pd_profile *profile;
    uint32_t count, k;
    pd_want want;
    pd_group *groups;
    uint32_t ngroups;
    pd_one *one;    /* [count] */
    float *vectors; /* [count][dim]; NULL: attributes alone */
    float *own_vectors;
    int resolved;
    int awaited;       /* it has waited for a change */
    uint64_t sequence; /* the last change of its table when it was first searched */

    uint32_t *waiting; /* [count] ring of queries to search; task.pending of them */
    uint32_t first_waiting;
    uint32_t *taken; /* [count] queries of the running slice */
    pd_hit *hits;    /* [count][k] */
    pd_hit *scratch; /* of the running slice, under diversity caps */
    pd_query *exact_queries;
    pd_answer *exact_answers;
    uint32_t nexact;

    uint32_t nhits;
    /* The hits' columns as they were when the hits were found, where explanations or attributes are asked for: hit i of query q
     * has row q * k + i of [count * k][nbytes] and so on. */
    uint8_t *bytes;
    float *floats;
    uint64_t *keys;
    int want_columns;

    const char *warnings[32];
    uint32_t nwarnings;
    uint64_t scanned;
    int complete;
    float recall;
    uint64_t born_ns, decoded_ns, resolve_ns, finish_ns, done_ns;
    pd_timing timing;
    uint64_t held_bytes; /* estimate of what it holds while it waits */
} pd_search;

/* wire must hold a search body; it is taken over on success only. born_ns: when decoding began. */
pd_status pd_search_open(pd_catalog *catalog, const pd_config *config, pd_wire *wire, uint64_t born_ns,
                         pd_search **out, pd_error *err);
void pd_search_free(pd_search *search); /* NULL is allowed */
/* A sentence for the reply, once; the text is copied. */
void pd_search_warn(pd_search *search, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The plan of a query, made now where it is not there yet (a fallback to attributes alone). */
pd_status pd_search_plan(pd_search *search, uint32_t query, const pd_plan **out, pd_error *err);

/* resolve.h */
pd_status pd_resolve(pd_search *search, pd_error *err);

extern const pd_task_type pd_search_task;
/* Fills one query of the kernels' from the search. hits: [depth]. */
pd_status pd_search_query(pd_search *search, uint32_t query, pd_hit *hits, pd_query *out, pd_answer *answer,
                          pd_error *err);

#endif
