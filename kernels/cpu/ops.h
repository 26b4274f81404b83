/* The hot loops of the cpu backend, written once (ops.c) and compiled once for each instruction set; a device chooses
 * one table when it opens. All tables give the same bits: integer dots are exact, and each f32 lane sees the same
 * operations in the same order whatever the width of the registers.
 *
 * "Rows of 16 lanes" are f32 rows padded with zeros to dim16 (a multiple of 16) floats.
 */
#ifndef PD_CPU_OPS_H
#define PD_CPU_OPS_H

#include "backend.h"

#define PD_GROUP 16u /* queries that go through a page together */

/* A byte column that a query weighs. Values past the column's size weigh nothing. */
typedef struct pd_cpu_column {
    uint32_t column;
    float most; /* the largest of table */
    float table[256];
} pd_cpu_column;

/* What a query makes of a similarity. */
typedef struct pd_cpu_weigh {
    int vector; /* 0: scores start at 0 */
    float a;
    uint32_t ncolumns, nkeys;
    const pd_cpu_column *columns; /* [ncolumns], ascending, none all zero */
    const pd_key_weight *keys;    /* [nkeys] */
} pd_cpu_weigh;

typedef struct pd_cpu_ops {
    const char *isa;
    /* Integer dots of n <= PD_GROUP queries (i16 codes, [4 * groups]) with a page's codes [groups][32][4].
     * out: [n][32] */
    void (*dots_i8)(const int8_t *codes, uint32_t groups, const int16_t *const *queries, uint32_t n,
                    int32_t *out);
    /* sims[r] = (lt + term[r]) + (qf * scale[r]) * dots[r] */
    void (*sims_i8)(const int32_t *dots, const float *term, const float *scale, float lt, float qf,
                    float *sims);
    /* Similarities of n <= PD_GROUP queries to codes [dim][32]: f32 sums over d ascending. out: [n][32] */
    void (*sims_f32)(const float *codes, uint32_t dim, const float *const *queries, uint32_t n, int l2,
                     float *out);
    void (*sims_f16)(const uint16_t *codes, uint32_t dim, const float *const *queries, uint32_t n, int l2,
                     float *out);
    /* pd_dot, or pd_l2 where l2 is set, of each query with each row, both of 16 lanes.
     * rows: [nrows][dim16], out: [n][stride] */
    void (*lanes)(const float *const *queries, uint32_t n, const float *rows, uint32_t nrows, uint32_t dim16,
                  int l2, float *out, size_t stride);
    /* The same of one query of 16 lanes with n rows anywhere, of dim values. */
    void (*rows_f32)(const float *query, const float *const *rows, uint32_t n, uint32_t dim, int l2,
                     float *out);
    void (*rows_f16)(const float *query, const uint16_t *const *rows, uint32_t n, uint32_t dim, int l2,
                     float *out);
    /* count rows [dim] into rows of 16 lanes. */
    void (*pad_f32)(const float *rows, uint32_t count, uint32_t dim, float *out);
    void (*pad_f16)(const uint16_t *rows, uint32_t count, uint32_t dim, float *out);
    /* Bit r: values[r] >= bar, of 32. */
    uint32_t (*at_least)(const float *values, float bar);
    /* Scores a page: similarities in, scores out. Returns the rows that reach the bar; the scores of others are not
     * complete. */
    uint32_t (*weigh)(const pd_cpu_weigh *weigh, const pd_layout *layout, const void *page, float *scores,
                      float bar);
    /* out[l] += pd_log(max(sum_v histogram[v][l] * pd_exp(beta * weights[v]), 1e-30)) / beta, over nlist lists.
     * sums: [nlist] to work in */
    void (*summary)(const float *histogram, const float *weights, uint32_t values, uint32_t nlist, float beta,
                    float *sums, float *out);
} pd_cpu_ops;

extern const pd_cpu_ops pd_cpu_ops_portable;
#if defined(__x86_64__)
extern const pd_cpu_ops pd_cpu_ops_avx2;   /* x86-64-v3 */
extern const pd_cpu_ops pd_cpu_ops_avx512; /* x86-64-v4 */
#endif

/* NULL isa: the best that this machine has. NULL back: there is no such isa, or not on this machine. */
const pd_cpu_ops *pd_cpu_ops_find(const char *isa);

#endif
