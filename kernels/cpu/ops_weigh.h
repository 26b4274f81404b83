/* A part of ops.c, compiled with it: the loops over weights. Bounds of a page's rows, their exact weights, and what weights
 * promise of lists. */
#ifndef PD_CPU_OPS_WEIGH_H
#define PD_CPU_OPS_WEIGH_H

#include "fmath.h"
#include "ops.h"
#include "vector.h"

static uint32_t at_least(const float *values, float bar)
{
    return v_at_least16(values, bar) | v_at_least16(values + 16, bar) << 16;
}

/* Can any row still reach the bar, collecting the most of every column? Rounding is monotonic, so that the same
 * additions in the same order, each of at least as much, give at least as much. */
static uint32_t can_reach(const pd_cpu_weigh *w, const float *scores, float bar)
{
    float most[PD_PAGE_ROWS];
    memcpy(most, scores, sizeof most);
    for (uint32_t c = 0; c < w->ncolumns; c++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            most[r] += w->columns[c].most;
    for (uint32_t i = 0; i < w->nkeys; i++)
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            most[r] += w->keys[i].weight > 0.0f ? w->keys[i].weight : 0.0f;
    return at_least(most, bar);
}

/* Adds the weights of 32 values. */
#if VB == 64
static void add_column(const pd_cpu_column *column, const uint8_t *values, float *scores)
{
    uint32_t size = column->size < 64 ? column->size : 64;
    uint64_t there = size < 64 ? ((uint64_t)1 << size) - 1 : ~(uint64_t)0;
    __m512 part[4];
    for (uint32_t i = 0; i < 4; i++)
        part[i] = _mm512_maskz_loadu_ps((__mmask16)(there >> (16 * i)),
                                        column->table + (i * 16 < size ? i * 16 : 0));
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r += 16) {
        __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(values + r)));
        __mmask16 upper = _mm512_test_epi32_mask(at, _mm512_set1_epi32(32));
        __m512 weights = _mm512_permutex2var_ps(part[0], at, part[1]);
        weights = _mm512_mask_mov_ps(weights, upper, _mm512_permutex2var_ps(part[2], at, part[3]));
        if (column->size > 64) {
            __mmask16 far = _mm512_cmpge_epu32_mask(at, _mm512_set1_epi32(64));
            __mmask16 known = _mm512_cmplt_epu32_mask(at, _mm512_set1_epi32((int32_t)column->size));
            __m512 gathered =
                _mm512_mask_i32gather_ps(_mm512_setzero_ps(), far & known, at, column->table, 4);
            weights = _mm512_mask_mov_ps(weights, far, gathered);
        } else {
            /* A stray value is no index into these. */
            weights = _mm512_maskz_mov_ps(_mm512_cmplt_epu32_mask(at, _mm512_set1_epi32(64)), weights);
        }
        _mm512_storeu_ps(scores + r, _mm512_add_ps(_mm512_loadu_ps(scores + r), weights));
    }
}
#else
static void add_column(const pd_cpu_column *column, const uint8_t *values, float *scores)
{
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        scores[r] += pd_cpu_weight(column, values[r]);
}
#endif

/* Few rows one at a time, many all together. */
static uint32_t add_weights(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, float *scores,
                            uint32_t mask, float bar)
{
    const unsigned char *base = (const unsigned char *)page;
    if (__builtin_popcount(mask) <= 8) {
        uint32_t reach = 0;
        for (; mask; mask &= mask - 1) {
            uint32_t row = (uint32_t)__builtin_ctz(mask);
            scores[row] = pd_cpu_weigh_row(w, layout, base, row, scores[row]);
            reach |= (uint32_t)(scores[row] >= bar) << row;
        }
        return reach;
    }
    for (uint32_t c = 0; c < w->ncolumns; c++)
        add_column(&w->columns[c], base + layout->bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS,
                   scores);
    for (uint32_t i = 0; i < w->nkeys; i++) {
        const uint64_t *keys =
            (const uint64_t *)(base + layout->keys) + (size_t)w->keys[i].column * PD_PAGE_ROWS;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            scores[r] = keys[r] == w->keys[i].value ? scores[r] + w->keys[i].weight : scores[r];
    }
    return mask & at_least(scores, bar);
}

static uint32_t weigh(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, float *scores,
                      float bar)
{
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        scores[r] = w->vector ? w->a * scores[r] + 0.0f : 0.0f;
    if (w->ncolumns + w->nkeys == 0) return at_least(scores, bar);
    if (!can_reach(w, scores, bar)) return 0;
    return add_weights(w, layout, page, scores, 0xffffffffu, bar);
}

/* The steps of 32 rows' values in one column. */
#if VB == 64
INLINE __m256i steps_of(const pd_cpu_column *column, const uint8_t *values)
{
    __m512i at = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)values));
    __m512i table = _mm512_loadu_si512(column->steps);
    if (column->reach == 64) {
        at = _mm512_min_epu8(at, _mm512_set1_epi8(63));
        return _mm512_castsi512_si256(_mm512_permutexvar_epi8(at, table));
    }
    __m512i next = _mm512_loadu_si512(column->steps + 64);
    if (column->reach == 128) {
        at = _mm512_min_epu8(at, _mm512_set1_epi8(127));
        return _mm512_castsi512_si256(_mm512_permutex2var_epi8(table, at, next));
    }
    __m512i low = _mm512_permutex2var_epi8(table, at, next);
    __m512i high = _mm512_permutex2var_epi8(_mm512_loadu_si512(column->steps + 128), at,
                                            _mm512_loadu_si512(column->steps + 192));
    return _mm512_castsi512_si256(_mm512_mask_mov_epi8(low, _mm512_movepi8_mask(at), high));
}
#elif VB == 32
INLINE __m256i steps_of(const pd_cpu_column *column, const uint8_t *values)
{
    __m256i at = _mm256_loadu_si256((const __m256i *)values), sum = _mm256_setzero_si256();
    at = _mm256_min_epu8(at, _mm256_set1_epi8((char)(column->reach - 1)));
    __m256i row = _mm256_and_si256(at, _mm256_set1_epi8((char)0xf0));
    __m256i in_row = _mm256_and_si256(at, _mm256_set1_epi8(0x0f));
    for (uint32_t v = 0; v < column->reach; v += 16) {
        __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(column->steps + v)));
        __m256i here = _mm256_cmpeq_epi8(row, _mm256_set1_epi8((char)v));
        sum = _mm256_or_si256(sum, _mm256_and_si256(here, _mm256_shuffle_epi8(table, in_row)));
    }
    return sum;
}
#endif

static uint32_t steps(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, const float *scores,
                      float bar, uint32_t mask)
{
    const uint8_t *bytes = (const uint8_t *)page + layout->bytes;
#if VB > 16
    __m256i sum = _mm256_setzero_si256();
    for (uint32_t c = 0; c < w->ncolumns; c++)
        sum = _mm256_add_epi8(sum,
                              steps_of(&w->columns[c], bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS));
#endif
#if VB == 64
    const __m512 step = _mm512_set1_ps(w->step), limit = _mm512_set1_ps(bar);
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(sum)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(sum, 1)));
    low = _mm512_add_ps(_mm512_loadu_ps(scores), _mm512_mul_ps(step, low));
    high = _mm512_add_ps(_mm512_loadu_ps(scores + 16), _mm512_mul_ps(step, high));
    return mask & ((uint32_t)_mm512_cmp_ps_mask(low, limit, _CMP_GE_OQ) |
                   (uint32_t)_mm512_cmp_ps_mask(high, limit, _CMP_GE_OQ) << 16);
#else
    uint8_t sums[PD_PAGE_ROWS] = {0};
#if VB == 32
    _mm256_storeu_si256((__m256i *)sums, sum);
#else
    for (uint32_t c = 0; c < w->ncolumns; c++) {
        const uint8_t *values = bytes + (size_t)w->columns[c].column * PD_PAGE_ROWS;
        uint32_t last = w->columns[c].reach - 1;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            sums[r] = (uint8_t)(sums[r] + w->columns[c].steps[values[r] < last ? values[r] : last]);
    }
#endif
    float bound[PD_PAGE_ROWS];
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        bound[r] = scores[r] + w->step * (float)sums[r];
    return mask & at_least(bound, bar);
#endif
}

static void summary(const float *histogram, const float *weights, uint32_t values, float most, uint32_t nlist,
                    float beta, float *sums, float *out)
{
    /* Most values weigh nothing, for most profiles: they are taken together, since the shares of a list add up to 1.
     * Where the most is negative there are none, and what they would promise drowns the rest. */
    float nothing = most < 0.0f ? 0.0f : pd_exp_inline(beta * (0.0f - most));
    for (uint32_t l = 0; l < nlist; l++)
        sums[l] = nothing;
    for (uint32_t v = 0; v < values; v++) {
        if (weights[v] == 0.0f) continue;
        float power = pd_exp_inline(beta * (weights[v] - most)) - nothing;
        const float *share = histogram + (size_t)v * nlist;
        for (uint32_t l = 0; l < nlist; l++)
            sums[l] += share[l] * power;
    }
    for (uint32_t l = 0; l < nlist; l++)
        out[l] *= sums[l] > 1e-4f ? sums[l] : 1e-4f;
}

static void logs(float *values, uint32_t n, float beta)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = pd_log_inline(values[i]) / beta;
}

#endif
