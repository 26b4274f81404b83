/* What recall was measured to be while serving, by table, profile and kind of score; and whether it is what was promised.
 *
 * A series has totals and a window of its last PD_RECALL_WINDOW queries. Those with a promise (the recall that their plan was
 * calibrated for) are held against it: where the upper 95% bound of their mean recall is below the mean promise, the promise is
 * broken, and the log says so, at most once an hour a series. A window is of one version of the table: another one starts it anew.
 */
#ifndef PD_RECALL_BOOK_H
#define PD_RECALL_BOOK_H

#include <stdint.h>

#include "status.h"

#define PD_RECALL_WINDOW 1000u
#define PD_RECALL_JUDGED 50u   /* queries with a promise before anything is said of it */
#define PD_RECALL_SERIES 1024u /* tables x profiles x kinds that are told apart; others are not measured */

typedef struct pd_recall_book pd_recall_book;

typedef struct pd_recall_outcome {
    const char *table;
    const char *profile; /* "": none */
    int fused;           /* the query has weights */
    uint64_t version;    /* of the table */
    float promise;       /* 0: none */
    uint32_t hits;       /* of the exact answer, how many the reply had */
    uint32_t wanted;     /* the exact answer's; 0: nothing was to be found */
} pd_recall_outcome;

pd_status pd_recall_book_open(pd_recall_book **out, pd_error *err);
void pd_recall_book_close(pd_recall_book *book); /* NULL is allowed */

/* All that follows: any thread. now_ns: pd_now_ns(). RESOURCE_EXHAUSTED: no memory, or a series too many. */
pd_status pd_recall_book_add(pd_recall_book *book, const pd_recall_outcome *outcome, uint64_t now_ns,
                             pd_error *err);
/* 1: recall of this version of the table is below a promise, in whatever series. */
int pd_recall_broken(pd_recall_book *book, const char *table, uint64_t version);
/* For /metrics: one family after the other. */
void pd_recall_book_tell(pd_recall_book *book,
                         void (*visit)(void *context, const char *name, const char *labels, double value),
                         void *context);

#endif
