/* Counters outlive a push and a rebuild: what was counted of items that the new version has as well, and says nothing of, goes over
 * to it. */
#ifndef PD_CARRY_H
#define PD_CARRY_H

#include "publish.h"

/* Logs the serving version's counters, as they are, for the rows that the incoming one has without a count of its own: it takes them
 * up as it follows the log, and so does whoever starts from it later. Builder only, before the switch, once the incoming version has
 * followed the log so far. Nothing to do for a rollback, a table that serves nothing, or attributes without feedback. */
pd_status pd_carry_counters(pd_incoming *in, pd_error *err);

#endif
