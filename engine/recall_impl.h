/* What is kept of a query until it is asked again: recall_sample.c copies it, recall.c asks. */
#ifndef PD_RECALL_IMPL_H
#define PD_RECALL_IMPL_H

#include "recall.h"
#include "request.h"

#define PD_RECALL_BYTES 1048576u /* of one sample */
#define PD_RECALL_DEPTH 4096u    /* hits of an exact answer, under diversity caps */

typedef struct pd_sampled_cap {
    uint32_t attribute; /* its number in the schema */
    uint32_t at_most;
} pd_sampled_cap;

/* One block of memory: free() ends it. */
typedef struct pd_sampled {
    struct pd_sampled *next;
    size_t bytes;
    uint64_t born_ns;
    char table[PD_MAX_NAME + 1], profile[PD_MAX_NAME + 1];
    uint64_t version;
    double created; /* of the version: its number may be another's after a table was dropped */
    int fused;
    float promise;
    pd_query query; /* for the exact slots: k is how many hits are needed before caps */
    uint32_t k;     /* asked for */
    uint32_t nids;
    uint64_t *ids; /* as answered */
    uint32_t ncaps;
    pd_sampled_cap *caps;
} pd_sampled;

/* Can query q of an answered search be asked again in a way that says something of recall? */
int pd_sampled_fits(const pd_search *search, uint32_t q);
/* NULL: no memory, or over PD_RECALL_BYTES (*large is set then). */
pd_sampled *pd_sampled_make(pd_search *search, uint32_t q, int *large);

#endif
