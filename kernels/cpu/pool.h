/* Worker threads. pd_pool_run spreads tasks over them and returns when all are done; the thread that calls works too,
 * as worker 0, unless the pool is idle (SCHED_IDLE): then it only waits, so that all the work is done at that priority.
 */
#ifndef PD_CPU_POOL_H
#define PD_CPU_POOL_H

#include <stdint.h>

#include "status.h"

typedef struct pd_pool pd_pool;

/* worker: 0 .. threads - 1; one task at a time for each */
typedef void (*pd_task)(void *context, uint32_t task, uint32_t worker);

pd_status pd_pool_open(uint32_t threads, int idle, pd_pool **out, pd_error *err);
void pd_pool_close(pd_pool *pool);
/* What a worker calls before it goes to sleep. Not while tasks run. NULL: nothing. */
void pd_pool_before_sleep(pd_pool *pool, void (*rest)(void));
uint32_t pd_pool_threads(const pd_pool *pool);
int pd_pool_idle(const pd_pool *pool);
/* One caller at a time. Tasks are taken in order, each by whoever is free. */
void pd_pool_run(pd_pool *pool, uint32_t tasks, pd_task task, void *context);

#endif
