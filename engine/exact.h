/* Exact searches: a thread and a device of their own, so that reading a whole table from disk never holds up the executor. */
#ifndef PD_EXACT_H
#define PD_EXACT_H

#include "catalog.h"
#include "executor.h"
#include "status.h"

typedef struct pd_exact_worker pd_exact_worker;
struct pd_search;

/* Opens a device without memory for tables. bound: searches that may wait. */
pd_status pd_exact_open(const pd_config *config, pd_executor *executor, uint32_t bound, pd_exact_worker **out,
                        pd_error *err);
/* Answers the search's waiting queries from the source rows, then resumes it; resumes it with the error otherwise. */
void pd_exact_add(pd_exact_worker *worker, struct pd_search *search);
/* Exact answers that nobody waits for, on the caller's time: blocks until they are there. CANCELLED when stop says so, a search
 * waits for the worker, or it closes; answers are then nothing. RESOURCE_EXHAUSTED, UNAVAILABLE: as pd_workers_add. */
pd_status pd_exact_pass(pd_exact_worker *worker, const pd_served *served, const pd_query *queries, uint32_t n,
                        pd_answer *answers, int (*stop)(void *context), void *context, pd_error *err);
/* Breaks off what runs with CANCELLED, ends what waits, joins. NULL is allowed. */
void pd_exact_close(pd_exact_worker *worker);

/* search_task.c: fills exact_queries, exact_answers and nexact with queries that wait; 0: no memory. */
uint32_t pd_search_take_exact(struct pd_search *search);

#endif
