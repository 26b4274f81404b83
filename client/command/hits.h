/* What a search prints, and the .npy files that it leaves. */
#ifndef HITS_H
#define HITS_H

#include "command.h"

typedef struct hits_view {
    const globals *g;
    const char *table;
    const char *from_table; /* of from_ids: "" the table itself; NULL: no ids */
    const uint64_t *from_ids;
    bool explain;
    const titles *titles;
    uint32_t k;
    uint64_t limit; /* queries to print */
} hits_view;

/* Collected over all batches of a search. */
typedef struct hits_sum {
    uint64_t queries, hits, requests, version, profile_version, scanned;
    uint64_t server_us;
    uint64_t sequence; /* the least of the requests': what all of them hold */
    bool complete;
    float recall;
    uint32_t *path, *nprobe, *rung; /* [queries] */
    char **segment;                 /* [queries], NULL where there is none */
    uint64_t room;
    char **warnings;
    size_t nwarnings;
    pados_timing timing; /* of the last request; of all, when there are several: their sum */
    char backend[64];
    double seconds;
} hits_sum;

void hits_add(hits_sum *sum, const pados_result *r);
void hits_free(hits_sum *sum);
/* Query 0 of r is query `first` of the search. */
void hits_print(const hits_view *view, const pados_result *r, uint64_t first);
void hits_summary(const hits_view *view, const hits_sum *sum, const char *profile);

#endif
