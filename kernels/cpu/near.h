/* Nearest centroids: a bound for every (row, centroid) pair from int8 codes, full precision for the few that it leaves.
 * The integer dots are those of the scan (ops.h); the loops around them are written once (near.c) and compiled once for
 * each instruction set.
 *
 * With m the mean of the centroids, y = x - m and e = c - m, ||x - c||^2 = ||y||^2 - (2 <y, e> - ||e||^2), so the
 * nearest centroid has the largest 2 <y, e> - ||e||^2. Codes of y and e give <y, e> up to the length of what they lose:
 * by Cauchy and Schwarz at most  loss(y) ||e|| + ||y'|| loss(e),  y' being what y's code stands for. The centroid with the
 * largest upper bound is measured by pd_l2; only those whose upper bound reaches that are measured too. The answer is
 * therefore the least pd_l2, ties to the smaller list, whatever the codes, the instruction set and the number of threads.
 */
#ifndef PD_CPU_NEAR_H
#define PD_CPU_NEAR_H

#include "ops.h"

/* Centroids made ready, in pages of 32 as the scan's. */
typedef struct pd_near {
    uint32_t nlist, pages, dim, dim16, dim64;
    const float *mean;    /* [dim16] */
    const float *values;  /* [nlist][dim16], the centroids themselves */
    const int8_t *codes;  /* [pages][groups][32][4] */
    uint32_t groups;      /* of four dimensions */
    const float *scale;   /* [pages * 32]: twice the codes' scale */
    const float *squares; /* [pages * 32]: ||e||^2, less the slack; FLT_MAX behind nlist */
    const float *length;  /* [pages * 32]: 2 ||e||, and the slack */
    float loss;           /* the largest loss(e) / ||e|| */
    float slack;          /* what f32 sums over dim may be off by, relative */
} pd_near;

/* A row made ready. */
typedef struct pd_near_row {
    const float *values; /* [dim16] */
    float scale;
    float reach; /* times pd_near.length: how far a bound lies above */
    float squares;
} pd_near_row;

typedef struct pd_near_ops {
    const char *isa;
    /* Codes of row - mean: [dim64] i8 in [-127, 127], zero from dim on. sums: {||y||^2, ||y'||^2, loss(y)^2}. Returns
     * the scale. */
    float (*quantise)(const float *row, const float *mean, uint32_t dim, uint32_t dim64, int8_t *codes,
                      float *sums);
    /* The nearest centroid of each of n <= PD_GROUP rows. packed: their codes (pd_packed_bytes apart); bounds:
     * [n][pages * 16] to work in, 64-byte aligned. */
    void (*nearest)(const pd_near *near, const pd_cpu_i8 *i8, const pd_near_row *rows, const void *packed,
                    uint32_t n, float *bounds, uint32_t *lists);
} pd_near_ops;

extern const pd_near_ops pd_near_ops_portable;
#if defined(__x86_64__)
extern const pd_near_ops pd_near_ops_avx2;
extern const pd_near_ops pd_near_ops_avx512;
#endif

#endif
