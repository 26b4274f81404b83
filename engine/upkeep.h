/* What the builder sees to between two jobs: tables that have changed so much that they are rebuilt, counters whose worth has gone
 * down with time, the front of the log that no version needs any more. */
#ifndef PD_UPKEEP_H
#define PD_UPKEEP_H

#include "catalog_impl.h"

/* Every second or so, on the builder's thread, without the mutex. */
void pd_upkeep(pd_catalog *catalog);

/* Deletes from the log what is in every version that the table may serve from (all on its way back; where the log is more than half
 * full, in the serving one alone). Builder only. */
void pd_upkeep_trim(pd_catalog *catalog, const char *table);

/* A table has no page for more rows: it is rebuilt as soon as can be. 0: it is not, since nothing is rebuilt by itself or the last rebuild failed.
 * Any thread, without the mutex. */
int pd_upkeep_urge(pd_catalog *catalog, const char *table);

/* Refreshes the counters of tables that are due, at most about once a second; for long jobs as well. Builder only. */
void pd_upkeep_counters(pd_catalog *catalog);

/* A rebuild has ended well: the next may come soon. */
void pd_upkeep_rebuilt(pd_catalog *catalog, const char *table);

#endif
