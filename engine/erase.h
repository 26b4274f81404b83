/* Erasures: rows that must be forgotten.
 *
 * A row goes from memory at once: its deletion is logged as an erasure and applied before the request is answered. What is left of it
 * on the disk (each kept version's files, the records of the log) is scrubbed by a job, by the deadline; a receipt among the log's documents
 * says what is done and what is pending, and survives restarts; a finished one is kept for receipt_days. A version that is built from rows gathered or uploaded before the
 * erasure is scrubbed when it is switched in. What stays is the id: in the receipt, and in the log until its front is trimmed.
 */
#ifndef PD_ERASE_H
#define PD_ERASE_H

#include "catalog_impl.h"

struct Pados__V1__Request;
struct Pados__V1__Reply;

/* Answers an Erase or an ErasureList with receipts. Waits for the deletion to be visible. */
pd_status pd_erase_ask(pd_catalog *catalog, struct Pados__V1__Request *request,
                       struct Pados__V1__Reply *reply, pd_error *err);
/* A page of them: those that come after a number. */
pd_status pd_erase_list(pd_catalog *catalog, int pending, uint64_t after, struct Pados__V1__Reply *reply,
                        pd_error *err);

/* Start, once the writer runs: rows of receipts that were not deleted yet (a restored snapshot) are deleted, and jobs queued for what
 * is pending. */
pd_status pd_erase_start(pd_catalog *catalog, pd_error *err);
/* Builder: queues jobs for what is pending and not tried lately, warns of deadlines that have passed, and forgets receipts that were
 * finished receipt_days ago. */
void pd_erase_upkeep(pd_catalog *catalog);
/* Builder: the version that was switched in may hold rows that were erased after its rows were taken: ids [n]. */
void pd_erase_version(pd_catalog *catalog, const char *table, uint64_t number, const uint64_t *ids,
                      uint32_t n);
/* Builder: scrubs what was built of rows that were uploaded from after that change on, before anybody loads it. */
pd_status pd_erase_since(pd_catalog *catalog, const char *table, uint64_t number, uint64_t sequence,
                         pd_error *err);

typedef struct pd_erase_stats {
    uint64_t pending, overdue;
} pd_erase_stats;
void pd_erase_stats_of(pd_catalog *catalog, pd_erase_stats *stats);

#endif
