/* The hot loops of the cpu backend. Integer dots are written by hand for each instruction set (i8_*.c: one table
 * each); everything in f32 is written once (ops.c) and compiled once for each width of registers. A device chooses one
 * of each when it opens. All tables give the same bits: integer dots are exact, and each f32 lane sees the same
 * operations in the same order whatever the width of the registers.
 *
 * "Rows of 16 lanes" are f32 rows padded with zeros to dim16 (a multiple of 16) floats.
 */
#ifndef PD_CPU_OPS_H
#define PD_CPU_OPS_H

#include "backend.h"

#define PD_GROUP 32u /* queries that go through a page together */

/* ------------------------------------------------------------------------------------------ integer dots --- */

/* A query's codes as prepare leaves them: dim64 (dim rounded up to 64) i8, zeros behind dim. Codes of queries and of
 * live rows lie in [-127, 127]. */
static inline uint32_t pd_dim64(uint32_t dim)
{
    return (dim + 63u) & ~63u;
}

typedef struct pd_cpu_i8 {
    const char *isa;
    uint32_t width; /* bytes of a packed code, 1 or 2 */
    /* codes: [dim64] i8; out: [pd_packed_bytes], 64-byte aligned: the codes at `width` bytes, then up to 64 bytes of the
     * instruction set's own. */
    void (*pack)(const int8_t *codes, uint32_t dim64, void *out);
    /* Dots of n <= PD_GROUP packed queries with 32 rows: codes [groups][32][4], the layout of a page.
     * queries: pd_packed_bytes apart. out: [n][32]. What codes holds in slots without a row does not matter. */
    void (*dots)(const int8_t *codes, uint32_t groups, uint32_t dim64, const void *queries, uint32_t n,
                 int32_t *out);
    /* A thread that called dots calls this when it will not for a while: it gives back registers that would be saved
     * at every context switch. dots may be called again without more ado. NULL: there is nothing to give back. */
    void (*rest)(void);
} pd_cpu_i8;

static inline size_t pd_packed_bytes(const pd_cpu_i8 *i8, uint32_t dim64)
{
    return (size_t)i8->width * dim64 + 64;
}

extern const pd_cpu_i8 pd_cpu_i8_portable;
#if defined(__x86_64__)
extern const pd_cpu_i8 pd_cpu_i8_avx2;
extern const pd_cpu_i8 pd_cpu_i8_avx512; /* VNNI */
extern const pd_cpu_i8 pd_cpu_i8_amx;    /* tiles for groups that fill them, VNNI for small ones */
/* Asks the system for tile registers, once a process. 0: it gives none. */
int pd_cpu_amx_allowed(void);
#endif

/* ---------------------------------------------------------------------------------------------- weights --- */

/* A byte column that a query weighs. Values past the column's size weigh nothing. */
typedef struct pd_cpu_column {
    uint32_t column, size;
    const float *table; /* [size] the query's own */
    float most; /* the largest weight of any value; where no list tells values apart, of any that occurs */
} pd_cpu_column;

/* Up to four weighed columns whose steps are looked up together: one table of `entries` bytes, `at` bytes into the query's, holds
 * those of column j from offset[j] on, for its values first[j] .. first[j] + count[j] - 1: what live rows hold. Offsets are
 * multiples of 16. Queries that weigh the same columns of an index have the same parts. */
#define PD_PART_COLUMNS 4u
typedef struct pd_cpu_part {
    uint32_t at, entries; /* 64, 128 or 256 */
    uint32_t n;
    uint16_t column[PD_PART_COLUMNS], count[PD_PART_COLUMNS];
    uint8_t first[PD_PART_COLUMNS], offset[PD_PART_COLUMNS];
} pd_cpu_part;

static inline float pd_cpu_weight(const pd_cpu_column *column, uint8_t value)
{
    return value < column->size ? column->table[value] : 0.0f;
}

/* What a query makes of a similarity. Before anything is looked up, bounds tell the rows that may still pass a bar
 * (both a little under it, by what rounding can do):
 *     score of the similarity alone   >= bar - most             every column gives its most
 *     the same + step * sum of steps  >= bar - least            the steps of the row's own values, at most 255 a column
 * The second is all there is to ask where steps are summed for every row anyway (weighed_i8). */
typedef struct pd_cpu_weigh {
    int vector; /* 0: scores start at 0 */
    float a;
    uint32_t ncolumns, nkeys;
    const pd_cpu_column *columns; /* [ncolumns], ascending, none all zero */
    const pd_key_weight *keys;    /* [nkeys] */
    uint32_t nparts, set;         /* set: queries with the same have the same parts, columns and all */
    const pd_cpu_part *parts;     /* [nparts] */
    /* An upper bound of each weight in whole steps over the least of its column: table[v] <= least + step * steps. 64-byte
     * aligned. */
    const uint8_t *steps;
    float step;
    double most;  /* the sum over columns and keys of the most that each can give */
    double least; /* the same with each column's least, where its own steps are added */
    double size;  /* the sum of their largest magnitudes: bounds what rounding can do */
} pd_cpu_weigh;

/* A bar lowered by gain (most or least), and by more than the rounding of the additions can take away. Sums that may pass the
 * largest float on their way are not bounded. */
static inline float pd_cpu_under(const pd_cpu_weigh *w, float bar, double gain)
{
    double size = (bar < 0 ? -(double)bar : (double)bar) + 2.0 * w->size;
    if (!(size < 0x1p126)) return -3.4028234663852886e38f;
    double under = (double)bar - gain - size * (double)(w->ncolumns + w->nkeys + 4) * 0x1p-23;
    return (float)under;
}

/* What a row's score is at least whose similarity and steps come to `bound`. Under -FLT_MAX where nothing is known. */
static inline float pd_cpu_over(const pd_cpu_weigh *w, float bound)
{
    double size = (bound < 0 ? -(double)bound : (double)bound) + 2.0 * w->size;
    if (!(size < 0x1p126)) return -3.4028234663852886e38f;
    /* A column's steps are at most one, and a millionth of its range, more than its weight. */
    double under =
        (double)w->ncolumns * (double)w->step * 1.0001 + size * (double)(w->ncolumns + 20) * 0x1p-23;
    return (float)((double)bound + w->least - under);
}

/* The written score of one row, from the score of its similarity. */
static inline float pd_cpu_weigh_row(const pd_cpu_weigh *w, const pd_layout *layout,
                                     const unsigned char *page, uint32_t row, float score)
{
    const unsigned char *bytes = page + layout->bytes + row;
    for (uint32_t c = 0; c < w->ncolumns; c++)
        score += pd_cpu_weight(&w->columns[c], bytes[(size_t)w->columns[c].column * PD_PAGE_ROWS]);
    for (uint32_t i = 0; i < w->nkeys; i++) {
        const uint64_t *keys =
            (const uint64_t *)(page + layout->keys) + (size_t)w->keys[i].column * PD_PAGE_ROWS;
        if (keys[row] == w->keys[i].value) score += w->keys[i].weight;
    }
    return score;
}

/* What a group of queries makes of a page's dots: for query i and row r
 *     score = a[i] * ((lt[i] + term[r]) + (qf[i] * scale[r]) * dot) + 0
 * Bit r of pass[i]: score >= bar[i]. */
typedef struct pd_cpu_group {
    float lt[PD_GROUP], qf[PD_GROUP], a[PD_GROUP], bar[PD_GROUP];
    uint32_t pass[PD_GROUP];
    float step[PD_GROUP];           /* of the weights */
    const uint8_t *steps[PD_GROUP]; /* the same */
} pd_cpu_group;

typedef struct pd_cpu_ops {
    const char *isa;
    /* dots: [n][32], scores: [n][apart]; fills group->pass. Returns the queries that have rows there. */
    uint32_t (*scores_i8)(const int32_t *dots, uint32_t n, const float *term, const float *scale,
                          pd_cpu_group *group, float *scores, size_t apart);
    /* The same for queries first .. last - 1, which weigh the columns of `parts`; bit r of pass[i] is
     *     score + step[i] * the sum of the steps of the row's values >= bar[i]
     * scores, bounds (what stands left of the bar): [n][32] */
    uint32_t (*weighed_i8)(const int32_t *dots, uint32_t first, uint32_t last, const pd_cpu_part *parts,
                           uint32_t nparts, const pd_layout *layout, const void *page, pd_cpu_group *group,
                           float *scores, float *bounds);
    /* Similarities of n <= PD_GROUP queries to codes [dim][32]: f32 sums over d ascending. out: [n][32] */
    void (*sims_f32)(const float *codes, uint32_t dim, const float *const *queries, uint32_t n, int l2,
                     float *out);
    void (*sims_f16)(const uint16_t *codes, uint32_t dim, const float *const *queries, uint32_t n, int l2,
                     float *out);
    /* pd_dot, or pd_l2 where l2 is set, of each query with each row, both of 16 lanes.
     * rows: [nrows][dim16], out: [n][stride] */
    void (*lanes)(const float *const *queries, uint32_t n, const float *rows, uint32_t nrows, uint32_t dim16,
                  int l2, float *out, size_t stride);
    /* The same of one query of 16 lanes with n rows anywhere, of 16 lanes too. */
    void (*lanes_any)(const float *query, const float *const *rows, uint32_t n, uint32_t dim16, int l2,
                      float *out);
    /* The same of one query of 16 lanes with n refine rows anywhere, of dim values of a kind. */
    void (*refine_rows)(pd_refine kind, const float *query, const void *const *rows, uint32_t n, uint32_t dim,
                        int l2, float *out);
    /* count rows of dim values of a kind, apart bytes from one to the next, into rows of 16 lanes. */
    void (*pad)(pd_refine kind, const void *rows, size_t apart, uint32_t count, uint32_t dim, float *out);
    /* Bit r: values[r] >= bar, of 32. */
    uint32_t (*at_least)(const float *values, float bar);
    /* Scores a page: similarities in, scores out. Returns the rows that reach the bar; the scores of others are not
     * complete. */
    uint32_t (*weigh)(const pd_cpu_weigh *weigh, const pd_layout *layout, const void *page, float *scores,
                      float bar);
    /* The rows of mask whose steps let them reach the bar (already lowered: pd_cpu_under(least)). scores: of the
     * similarity alone. */
    uint32_t (*steps)(const pd_cpu_weigh *weigh, const pd_layout *layout, const void *page,
                      const float *scores, float bar, uint32_t mask);
    /* Scores of the similarity alone in, scores out, for the rows of mask; those of others are not complete. Returns the
     * rows of mask that reach the bar. */
    uint32_t (*add_weights)(const pd_cpu_weigh *weigh, const pd_layout *layout, const void *page,
                            float *scores, uint32_t mask, float bar);
    /* values[i] += more[i] (NULL: nothing); what is then NaN or under -FLT_MAX becomes -FLT_MAX. */
    void (*settle)(float *values, const float *more, uint32_t n);
    /* Appends the scores, bounds (NULL: none) and slots (slot + row) of the rows of mask; up to 16 entries behind what it returns may be
     * written over. Returns how many. */
    uint32_t (*append)(const float *scores, const float *bounds, uint32_t slot, uint32_t mask,
                       float *out_scores, float *out_bounds, uint32_t *out_slots);
    /* Keeps the entries whose score is over t (and those at t where ties is set), in order, in place. Returns how
     * many. */
    uint32_t (*keep)(float *scores, float *others, uint32_t *slots, uint32_t n, float t, int ties);
    /* The k-th largest of n values, 1 <= k <= n, none NaN. scratch: [2 * (n + 32)] */
    float (*kth)(const float *values, uint32_t n, uint32_t k, float *scratch);
    /* pd_quantise_query of score.h, of query - less (NULL: of query). codes: [dim64], zero past dim */
    float (*quantise)(const float *query, const float *less, uint32_t dim, uint32_t dim64, int8_t *codes);
    /* One column of the weight summaries (backend.h). First what each value promises, once a query: out[v] =
     * pd_exp(beta * (weights[v] - most)) over what a value without weight promises, which is returned. */
    float (*powers)(const float *weights, uint32_t values, float most, float beta, float *out);
    /* Then over n lists: out[l] *= max(nothing + sum_v histogram[v][l] * power[v], 1e-4). histogram: [values][apart] */
    void (*summary)(const float *histogram, size_t apart, const float *power, uint32_t values, float nothing,
                    uint32_t n, float *out);
    /* values[l] = pd_log(values[l]) / beta */
    void (*logs)(float *values, uint32_t n, float beta);
} pd_cpu_ops;

extern const pd_cpu_ops pd_cpu_ops_portable;
#if defined(__x86_64__)
extern const pd_cpu_ops pd_cpu_ops_avx2;   /* x86-64-v3 */
extern const pd_cpu_ops pd_cpu_ops_avx512; /* x86-64-v4 */
#endif

/* "amx", "avx512", "avx2" or "portable". NULL isa: the best that this machine has. 0: there is no such isa, or not on
 * this machine. */
int pd_cpu_ops_find(const char *isa, const pd_cpu_ops **ops, const pd_cpu_i8 **i8);

#endif
