/* What the parts of planning share: plan.c (boosts and probes), plan_filter.c (filters). */
#ifndef PD_PLAN_IMPL_H
#define PD_PLAN_IMPL_H

#include "plan.h"

/* The postings that together hold every row that passes one test. */
typedef struct pd_cover {
    uint64_t slots;                /* in them, repeats included */
    const pd_attribute *attribute; /* NULL: none found */
    uint64_t members;              /* of a set */
    const pd_byte_test *byte;
    const pd_range_test *range;
    const pd_key_test *key;
} pd_cover;

/* What a filter leaves. */
typedef struct pd_leaves {
    double share; /* of the rows, over 0; tests taken as independent of each other */
    int tied;     /* what passes follows the lists, or may, as far as is known: not a random share of each */
    pd_cover best;
} pd_leaves;

pd_status pd_plan_leaves(const pd_resident *resident, const pd_filter *filter, pd_leaves *out, pd_error *err);
/* The plan becomes the rows of the cover, in any order and some of them twice, and no lists. */
pd_status pd_plan_rows(const pd_resident *resident, const pd_cover *cover, pd_plan *plan, pd_error *err);

#endif
