/* How a version differs from the serving one, on a sample of queries. */
#ifndef PD_COMPARE_H
#define PD_COMPARE_H

#include "catalog_impl.h"

typedef struct pd_comparison {
    uint64_t serving, version;
    uint32_t k, queries;
    float overlap;                        /* mean share of the top-k in common */
    float serving_recall, version_recall; /* of each against its own exact search */
    uint64_t only_serving, only_version;  /* row ids that only one of them has */
} pd_comparison;

/* version: staged (or serving). k 0: 10; queries 0: 1,000, at most 5,000. One at a time: RESOURCE_EXHAUSTED. */
pd_status pd_compare(pd_catalog *catalog, const char *table, uint64_t version, uint32_t k, uint32_t queries,
                     pd_comparison *out, pd_error *err);

#endif
