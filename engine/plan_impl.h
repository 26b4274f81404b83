/* What the parts of planning share: plan.c (boosts and probes), plan_filter.c (filters). */
#ifndef PD_PLAN_IMPL_H
#define PD_PLAN_IMPL_H

#include "plan.h"

/* Sorts slots and removes repeats; returns how many are left. */
uint32_t pd_plan_distinct(uint32_t *slots, uint32_t n);

/* Looks for a posting list that holds every row that can pass. found: it is short enough, and the plan is made (rows
 * only). *share: the share of the rows that the filter is estimated to leave, over 0. */
pd_status pd_plan_filter(const pd_resident *resident, const pd_filter *filter, pd_plan *plan, int *found,
                         double *share, pd_error *err);

#endif
