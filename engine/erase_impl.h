/* Receipts of erasures, shared by erase.c (requests, start, upkeep), erase_job.c (what goes from the disk) and receipt.c (their
 * documents). */
#ifndef PD_ERASE_IMPL_H
#define PD_ERASE_IMPL_H

#include "erase.h"

/* The collections: of what is pending, which is all that jobs read, and of what is finished. A receipt is in one of them, under one
 * number. */
#define PD_RECEIPTS    "erasures"
#define PD_FINISHED    "erased"
#define PD_STEP        200u /* bytes of a step: "version 7", or "version 7: why" */
#define PD_STEP_MEMORY "memory"
#define PD_STEP_LOG    "log"

typedef struct pd_steps {
    char (*at)[PD_STEP];
    uint32_t n, room;
} pd_steps;

typedef struct pd_receipt {
    uint64_t number;
    char table[PD_MAX_NAME + 1];
    uint64_t id;
    double asked, deadline, finished; /* days since 1970-01-01; finished 0: not yet */
    uint64_t sequence; /* of the deletion: what came after it is another row's; 0: not deleted yet */
    pd_steps done, pending;
    int lost; /* there was no memory for a step: it cannot be written */
} pd_receipt;

void pd_receipt_free(pd_receipt *receipt); /* a zeroed one is allowed */
/* Is the row's deletion still pending? */
int pd_receipt_wants_memory(const pd_receipt *receipt);
/* The document's bytes, freed with free(). */
pd_status pd_receipt_text(const pd_receipt *receipt, char **text, pd_error *err);
/* DATA_LOSS: it is no receipt. */
pd_status pd_receipt_read(uint64_t number, const void *bytes, size_t length, pd_receipt *out, pd_error *err);

/* A step is done, or pending with why ("": not tried yet). It is in one of the two afterwards. */
void pd_receipt_done(pd_receipt *receipt, const char *step);
void pd_receipt_pending(pd_receipt *receipt, const char *step, const char *why);

/* A collection's receipts from a number on, in order. A visit that returns PD_CANCELLED has seen enough. */
typedef pd_status (*pd_receipt_visit)(void *context, pd_receipt *receipt, pd_error *err);
pd_status pd_receipts(pd_catalog *catalog, const char *collection, uint64_t from, pd_receipt_visit visit,
                      void *context, pd_error *err);

typedef struct pd_receipt_list {
    pd_receipt *at;
    uint32_t n, room;
    const char *table; /* of this table alone; NULL: of all */
    uint64_t from;     /* from this number on */
    uint32_t most;     /* the first so many; 0: all */
    int more;          /* there are more */
} pd_receipt_list;
/* Adds those of a collection that the list's members ask for. */
pd_status pd_receipt_list_read(pd_catalog *catalog, const char *collection, pd_receipt_list *list,
                               pd_error *err);
/* The same of both collections, at most `most` in all, in the order of their numbers. */
pd_status pd_receipt_page(pd_catalog *catalog, pd_receipt_list *list, pd_error *err);
void pd_receipt_list_free(pd_receipt_list *list);

/* On the writer's thread. Writes them, each into its collection; those without a number get one. All or none of 1,024 at a time. */
pd_status pd_receipts_put(pd_catalog *catalog, pd_receipt *receipts, uint32_t n, pd_error *err);
/* On the writer's thread. Forgets some of those that were finished before that day, the oldest, and never the last one, whose number
 * must not be given out again. *forgotten: how many. */
pd_status pd_receipts_forget(pd_catalog *catalog, double before, uint32_t *forgotten, pd_error *err);

#endif
