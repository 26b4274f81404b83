/* The executor: the one thread that owns a device.
 *
 * Searches wait in a bounded queue, ordered by deadline. The executor takes the earliest, gathers others of the same version
 * until the batch is full or the longest wait is over, cuts the batch into slices of about slice_us of work (by a running
 * estimate of the cost of a query) and puts what is left back, so that one large request cannot hold up the rest. A task whose
 * deadline has passed when it is taken is answered DEADLINE_EXCEEDED and costs nothing more.
 */
#ifndef PD_EXECUTOR_H
#define PD_EXECUTOR_H

#include <stdint.h>

#include "backend.h"
#include "config.h"
#include "resident.h"
#include "status.h"

typedef struct pd_executor pd_executor;

/* Starts the thread. The device is the executor's until close. */
pd_status pd_executor_open(const pd_config *config, pd_device *device, pd_executor **out, pd_error *err);
/* Finishes what is queued (at most stop_ms), refuses the rest with UNAVAILABLE, joins the thread. */
void pd_executor_close(pd_executor *executor);

/* Blocking searches at the lowest priority, cut into slices like any other: calibration and comparison use it. Not to be called
 * from the executor's own thread. answers as for pd_index_search. CANCELLED when the executor is stopping. */
pd_status pd_executor_background(pd_executor *executor, pd_resident *resident, const pd_query *queries,
                                 uint32_t count, pd_answer *answers, pd_error *err);

#endif
