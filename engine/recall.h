/* Recall in production: a share of the live queries is asked again, exactly, after they were answered.
 *
 *     pd_recall_offer   the thread that sends replies: throws a die for each query, and copies what is needed of those that it
 *                       picks. Nothing of the search is held, and no version: a table can be switched while copies wait
 *     a thread          takes the copies that wait for a table, asks the exact worker for all of them in one reading of the table, when it
 *                       has nothing else to do, and at most half of the time
 *     recall_book.h     what came of it
 *
 * Not asked again: exact searches, those without a vector, those of a version by number ("products@7"), those whose copy would be over
 * 1 MiB (long exclude lists) or whose diversity caps went very deep. Rows that change between the answer and its repetition count as
 * misses or as found by luck: with few changes a second, a small error.
 */
#ifndef PD_RECALL_H
#define PD_RECALL_H

#include <stdint.h>

#include "catalog.h"
#include "exact.h"
#include "recall_book.h"

struct pd_search;
typedef struct pd_recall pd_recall;

/* A share of many throws, each as likely as any other, the same ones from the same state. */
typedef struct pd_recall_dice {
    uint64_t state; /* the seed */
    double share;   /* of the last throw; its owner's: 0 */
    uint64_t skip;  /* throws until the next hit */
} pd_recall_dice;
int pd_recall_throw(pd_recall_dice *dice, double share);

/* All borrowed. */
pd_status pd_recall_open(pd_catalog *catalog, pd_executor *executor, pd_exact_worker *exact,
                         pd_recall_book *book, pd_recall **out, pd_error *err);
/* The search was answered; nothing of it changes that its owner still needs. share: config.recall_sample. Any thread. */
void pd_recall_offer(pd_recall *recall, struct pd_search *search, double share);
/* Ends the thread, breaking off what it does; offers are then turned away. Before the exact worker closes. NULL is allowed. */
void pd_recall_stop(pd_recall *recall);
void pd_recall_close(pd_recall *recall); /* NULL is allowed */

/* For /metrics: what waits, what was not asked again and why. */
void pd_recall_tell(pd_recall *recall,
                    void (*visit)(void *context, const char *name, const char *labels, double value),
                    void *context);

#endif
