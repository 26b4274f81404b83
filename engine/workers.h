/* A bounded queue served by a few threads: administration, large requests' decoding, replies' encoding, exact searches. */
#ifndef PD_WORKERS_H
#define PD_WORKERS_H

#include <stdint.h>

#include "status.h"

typedef struct pd_workers pd_workers;
typedef struct pd_work {
    struct pd_work *next;
    void (*run)(struct pd_work *work); /* on a worker's thread */
} pd_work;

/* bound: items that may wait. name is for messages and threads (15 bytes). */
pd_status pd_workers_open(const char *name, uint32_t threads, uint32_t bound, pd_workers **out,
                          pd_error *err);
/* RESOURCE_EXHAUSTED naming the bound when it is full. */
pd_status pd_workers_add(pd_workers *workers, pd_work *work, pd_error *err);
/* More or fewer may wait from now on; what waits stays. */
void pd_workers_bound(pd_workers *workers, uint32_t bound);
uint32_t pd_workers_waiting(pd_workers *workers);
/* Runs what waits, then joins the threads. Nothing may be added any more. NULL is allowed. */
void pd_workers_close(pd_workers *workers);

#endif
