/* Receipts of erasures, shared by erase.c (requests, start, upkeep), erase_job.c (what goes from the disk) and receipt.c (their
 * documents). */
#ifndef PD_ERASE_IMPL_H
#define PD_ERASE_IMPL_H

#include "erase.h"

#define PD_RECEIPTS    "erasures" /* the collection */
#define PD_STEP        200u       /* bytes of a step: "version 7", or "version 7: why" */
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

/* Every receipt in turn, in the order of their numbers. */
typedef pd_status (*pd_receipt_visit)(void *context, pd_receipt *receipt, pd_error *err);
pd_status pd_receipts(pd_catalog *catalog, pd_receipt_visit visit, void *context, pd_error *err);

typedef struct pd_receipt_list {
    pd_receipt *at;
    uint32_t n, room;
    const char *table; /* of this table alone; NULL: of all */
    int pending;       /* unfinished ones alone */
    uint32_t most;     /* the last so many; 0: all */
} pd_receipt_list;
/* Reads those that the list's last three members ask for. */
pd_status pd_receipt_list_read(pd_catalog *catalog, pd_receipt_list *list, pd_error *err);
void pd_receipt_list_free(pd_receipt_list *list);

/* Writes them, on the writer's thread. Those without a number get one. */
pd_status pd_receipts_put(pd_catalog *catalog, pd_receipt *receipts, uint32_t n, pd_error *err);

#endif
