/* Nearest centroids: a bound for every (row, centroid) pair from int8 codes, full precision for the few that it leaves.
 * The hot loops are written once (near.c) and compiled once for each instruction set, as those of ops.h are.
 *
 * With m the mean of the centroids, y = x - m and e = c - m, ||x - c||^2 = ||y||^2 - (2 <y, e> - ||e||^2), so the
 * nearest centroid has the largest 2 <y, e> - ||e||^2. Codes of y and e give <y, e> up to the length of what they lose:
 * by Cauchy and Schwarz at most  loss(y) ||e|| + ||y'|| loss(e),  y' being what y's code stands for. The centroid with the
 * largest upper bound is measured by pd_l2; only those whose upper bound reaches that are measured too. The answer is
 * therefore the least pd_l2, ties to the smaller list, whatever the codes, the instruction set and the number of threads.
 */
#ifndef PD_CPU_NEAR_H
#define PD_CPU_NEAR_H

#include <stdint.h>

#define PD_NEAR_ROWS  8u  /* rows that go through the centroids together */
#define PD_NEAR_LISTS 48u /* centroids are padded to a multiple of this */

/* Centroids made ready. */
typedef struct pd_near {
    uint32_t nlist, padded, dim, dim16, dim4;
    const float *mean;    /* [dim16] */
    const float *values;  /* [nlist][dim16], the centroids themselves */
    const uint8_t *codes; /* [padded / 16][dim4 / 4][16][4], i8 plus the table's bias */
    const float *scale;   /* [padded]: twice the codes' scale */
    const float *squares; /* [padded]: ||e||^2, less the slack; FLT_MAX behind nlist */
    const float *length;  /* [padded]: 2 ||e||, and the slack */
    float loss;           /* the largest loss(e) / ||e|| */
    float slack;          /* what f32 sums over dim may be off by, relative */
} pd_near;

/* A row made ready. */
typedef struct pd_near_row {
    const float *values; /* [dim16] */
    const void *codes;   /* [dim4], i8 or i16 as the table wants them */
    int32_t start;       /* where the integer dot starts, to take the bias off */
    float scale;
    float reach; /* times pd_near.length: how far a bound lies above */
    float squares;
} pd_near_row;

typedef struct pd_near_ops {
    const char *isa;
    uint8_t bias;
    /* Codes of row - mean: i8 in [-127, 127], zero from dim to dim4. sums: {||y||^2, ||y'||^2, loss(y)^2} */
    float (*quantise)(const float *row, const float *mean, uint32_t dim, uint32_t dim4, int8_t *codes,
                      float *sums);
    /* n <= PD_NEAR_ROWS rows [n][dim] made ready; values: [n][dim16], codes: [n][dim4] i16, both to work in. */
    void (*prepare)(const pd_near *near, const float *rows, uint32_t n, float *values, int16_t *codes,
                    pd_near_row *out);
    /* The nearest centroid of each of n <= PD_NEAR_ROWS rows. bounds: [PD_NEAR_ROWS][padded] to work in. Returns how
     * many pairs were measured in full precision. */
    uint64_t (*nearest)(const pd_near *near, const pd_near_row *rows, uint32_t n, float *bounds,
                        uint32_t *lists);
} pd_near_ops;

extern const pd_near_ops pd_near_ops_portable;
#if defined(__x86_64__)
extern const pd_near_ops pd_near_ops_avx2;   /* x86-64-v3 */
extern const pd_near_ops pd_near_ops_avx512; /* x86-64-v4 */
extern const pd_near_ops pd_near_ops_vnni;   /* x86-64-v4 and AVX-512 VNNI */
#endif

#endif
