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

/* Scores of the similarity alone, of VF rows, for query i of a group. */
INLINE vfloat code_scores(const int32_t *dots, const pd_cpu_group *group, uint32_t i, vfloat term,
                          vfloat scale)
{
    vint dot;
    memcpy(&dot, dots, sizeof dot);
    vfloat sim = (v_splat(group->lt[i]) + term) +
                 (v_splat(group->qf[i]) * scale) * __builtin_convertvector(dot, vfloat);
    return v_splat(group->a[i]) * sim + (vfloat){0};
}

/* ------------------------------------------------------------------------------------------------- steps --- */

#if VB == 64
/* The values of sixteen rows as indices into a part's table: a dword a row, a byte a column. */
INLINE __m512i part_values(const pd_cpu_part *part, const uint8_t *bytes, uint32_t row)
{
    __m512i values = _mm512_setzero_si512();
    for (uint32_t j = 0; j < part->n; j++) {
        const uint8_t *column = bytes + (size_t)part->column[j] * PD_PAGE_ROWS + row;
        __m128i at = _mm_add_epi8(_mm_loadu_si128((const __m128i *)column),
                                  _mm_set1_epi8((char)(part->offset[j] - part->first[j])));
        values = _mm512_or_si512(
            values, _mm512_sll_epi32(_mm512_cvtepu8_epi32(at), _mm_cvtsi32_si128((int32_t)(8 * j))));
    }
    return values;
}

/* 1 in the bytes of the columns that a part has. */
INLINE __m512i part_ones(const pd_cpu_part *part)
{
    return _mm512_set1_epi32((int32_t)(0x01010101u >> (8 * (PD_PART_COLUMNS - part->n))));
}

/* sums + the steps of sixteen rows. */
INLINE __m512i add_steps(__m512i sums, const uint8_t *table, uint32_t entries, __m512i values, __m512i ones)
{
    __m512i low = _mm512_load_si512(table), steps;
    if (entries == 64) {
        steps = _mm512_permutexvar_epi8(values, low);
    } else {
        steps = _mm512_permutex2var_epi8(low, values, _mm512_load_si512(table + 64));
        if (entries == 256) {
            __m512i high = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), values,
                                                    _mm512_load_si512(table + 192));
            steps = _mm512_mask_mov_epi8(steps, _mm512_movepi8_mask(values), high);
        }
    }
    return _mm512_dpbusd_epi32(sums, steps, ones);
}

INLINE __m512 with_steps(__m512i sums, vfloat scores, float step)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(step), (__m512)scores);
}

static uint32_t steps(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, const float *scores,
                      float bar, uint32_t mask)
{
    const uint8_t *bytes = (const uint8_t *)page + layout->bytes;
    uint32_t reach = 0;
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row += 16) {
        __m512i sums = _mm512_setzero_si512();
        for (uint32_t p = 0; p < w->nparts; p++) {
            const pd_cpu_part *part = &w->parts[p];
            sums = add_steps(sums, w->steps + part->at, part->entries, part_values(part, bytes, row),
                             part_ones(part));
        }
        reach |= v_at_least((vfloat)with_steps(sums, v_load(scores + row), w->step), bar) << row;
    }
    return mask & reach;
}

/* Half a page of query i. Returns the rows that may reach its bar. */
INLINE uint32_t score_half(const int32_t *dots, uint32_t i, uint32_t row, vfloat term, vfloat scale,
                           __m512i sums, const pd_cpu_group *group, float *scores, float *bounds)
{
    size_t at = (size_t)i * PD_PAGE_ROWS + row;
    vfloat score = code_scores(dots + at, group, i, term, scale);
    vfloat bound = (vfloat)with_steps(sums, score, group->step[i]);
    v_store(scores + at, score);
    v_store(bounds + at, bound);
    return v_at_least(bound, group->bar[i]) << row;
}

/* A page's values stay in registers while the queries pass, where two parts or one have them all. */
#define FEW_PARTS 2u
INLINE uint32_t weighed_few(const int32_t *dots, uint32_t first, uint32_t last, const pd_cpu_part *parts,
                            const uint32_t nparts, const uint32_t entries, const uint8_t *bytes,
                            const float *term, const float *scale, pd_cpu_group *group, float *scores,
                            float *bounds)
{
    const vfloat term0 = v_load(term), term1 = v_load(term + 16);
    const vfloat scale0 = v_load(scale), scale1 = v_load(scale + 16);
    __m512i values[FEW_PARTS][2], ones[FEW_PARTS];
    uint32_t some = 0, at[FEW_PARTS];
#pragma GCC unroll 2
    for (uint32_t p = 0; p < nparts; p++) {
        values[p][0] = part_values(&parts[p], bytes, 0);
        values[p][1] = part_values(&parts[p], bytes, 16);
        ones[p] = part_ones(&parts[p]);
        at[p] = parts[p].at;
    }
    for (uint32_t i = first; i < last; i++) {
        __m512i sums0 = _mm512_setzero_si512(), sums1 = sums0;
#pragma GCC unroll 2
        for (uint32_t p = 0; p < nparts; p++) {
            sums0 = add_steps(sums0, group->steps[i] + at[p], entries, values[p][0], ones[p]);
            sums1 = add_steps(sums1, group->steps[i] + at[p], entries, values[p][1], ones[p]);
        }
        uint32_t pass = score_half(dots, i, 0, term0, scale0, sums0, group, scores, bounds) |
                        score_half(dots, i, 16, term1, scale1, sums1, group, scores, bounds);
        group->pass[i] = pass;
        some |= (uint32_t)(pass != 0) << i;
    }
    return some;
}

static uint32_t weighed_many(const int32_t *dots, uint32_t first, uint32_t last, const pd_cpu_part *parts,
                             uint32_t nparts, const uint8_t *bytes, const float *term, const float *scale,
                             pd_cpu_group *group, float *scores, float *bounds)
{
    __m512i values[PD_MAX_BYTES][2];
    uint32_t some = 0;
    for (uint32_t p = 0; p < nparts; p++) {
        values[p][0] = part_values(&parts[p], bytes, 0);
        values[p][1] = part_values(&parts[p], bytes, 16);
    }
    for (uint32_t i = first; i < last; i++) {
        __m512i sums0 = _mm512_setzero_si512(), sums1 = sums0;
        for (uint32_t p = 0; p < nparts; p++) {
            const uint8_t *table = group->steps[i] + parts[p].at;
            __m512i ones = part_ones(&parts[p]);
            sums0 = add_steps(sums0, table, parts[p].entries, values[p][0], ones);
            sums1 = add_steps(sums1, table, parts[p].entries, values[p][1], ones);
        }
        uint32_t pass =
            score_half(dots, i, 0, v_load(term), v_load(scale), sums0, group, scores, bounds) |
            score_half(dots, i, 16, v_load(term + 16), v_load(scale + 16), sums1, group, scores, bounds);
        group->pass[i] = pass;
        some |= (uint32_t)(pass != 0) << i;
    }
    return some;
}

static uint32_t weighed_i8(const int32_t *dots, uint32_t first, uint32_t last, const pd_cpu_part *parts,
                           uint32_t nparts, const pd_layout *layout, const void *page, pd_cpu_group *group,
                           float *scores, float *bounds)
{
    const unsigned char *base = page;
    const uint8_t *bytes = base + layout->bytes;
    const float *term = (const float *)(base + layout->term), *scale = (const float *)(base + layout->scale);
    if (nparts == 1 && parts->entries == 64)
        return weighed_few(dots, first, last, parts, 1, 64, bytes, term, scale, group, scores, bounds);
    if (nparts == 1 && parts->entries == 128)
        return weighed_few(dots, first, last, parts, 1, 128, bytes, term, scale, group, scores, bounds);
    if (nparts == 2 && parts[0].entries == 128 && parts[1].entries == 128)
        return weighed_few(dots, first, last, parts, 2, 128, bytes, term, scale, group, scores, bounds);
    return weighed_many(dots, first, last, parts, nparts, bytes, term, scale, group, scores, bounds);
}
#else
/* Adds the steps of 32 rows' values in column j of a part to sums. */
#if VB == 32
INLINE void add_column_steps(const pd_cpu_part *part, uint32_t j, const uint8_t *values, const uint8_t *table,
                             uint16_t *sums)
{
    __m256i at =
        _mm256_sub_epi8(_mm256_loadu_si256((const __m256i *)values), _mm256_set1_epi8((char)part->first[j]));
    __m256i row = _mm256_and_si256(at, _mm256_set1_epi8((char)0xf0));
    __m256i in_row = _mm256_and_si256(at, _mm256_set1_epi8(0x0f)), own = _mm256_setzero_si256();
    for (uint32_t v = 0; v < part->count[j]; v += 16) {
        __m256i some = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(table + v)));
        __m256i here = _mm256_cmpeq_epi8(row, _mm256_set1_epi8((char)v));
        own = _mm256_or_si256(own, _mm256_and_si256(here, _mm256_shuffle_epi8(some, in_row)));
    }
    __m256i low = _mm256_cvtepu8_epi16(_mm256_castsi256_si128(own));
    __m256i high = _mm256_cvtepu8_epi16(_mm256_extracti128_si256(own, 1));
    __m256i *to = (__m256i *)sums;
    _mm256_storeu_si256(to, _mm256_add_epi16(_mm256_loadu_si256(to), low));
    _mm256_storeu_si256(to + 1, _mm256_add_epi16(_mm256_loadu_si256(to + 1), high));
}
#else
INLINE void add_column_steps(const pd_cpu_part *part, uint32_t j, const uint8_t *values, const uint8_t *table,
                             uint16_t *sums)
{
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        uint8_t at = (uint8_t)(values[r] - part->first[j]);
        sums[r] = (uint16_t)(sums[r] + (at < part->count[j] ? table[at] : 0));
    }
}
#endif

/* bounds: the scores and the steps of 32 rows. */
INLINE void with_steps(const pd_cpu_part *parts, uint32_t nparts, const uint8_t *bytes, const uint8_t *table,
                       const float *scores, float step, float *bounds)
{
    uint16_t sums[PD_PAGE_ROWS] = {0};
    for (uint32_t p = 0; p < nparts; p++)
        for (uint32_t j = 0; j < parts[p].n; j++)
            add_column_steps(&parts[p], j, bytes + (size_t)parts[p].column[j] * PD_PAGE_ROWS,
                             table + parts[p].at + parts[p].offset[j], sums);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        bounds[r] = scores[r] + step * (float)sums[r];
}

static uint32_t steps(const pd_cpu_weigh *w, const pd_layout *layout, const void *page, const float *scores,
                      float bar, uint32_t mask)
{
    float bounds[PD_PAGE_ROWS];
    with_steps(w->parts, w->nparts, (const uint8_t *)page + layout->bytes, w->steps, scores, w->step, bounds);
    return mask & at_least(bounds, bar);
}

static uint32_t weighed_i8(const int32_t *dots, uint32_t first, uint32_t last, const pd_cpu_part *parts,
                           uint32_t nparts, const pd_layout *layout, const void *page, pd_cpu_group *group,
                           float *scores, float *bounds)
{
    const unsigned char *base = page;
    const float *term = (const float *)(base + layout->term), *scale = (const float *)(base + layout->scale);
    uint32_t some = 0;
    for (uint32_t i = first; i < last; i++) {
        float *own = scores + i * PD_PAGE_ROWS;
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r += VF)
            v_store(own + r,
                    code_scores(dots + i * PD_PAGE_ROWS + r, group, i, v_load(term + r), v_load(scale + r)));
        with_steps(parts, nparts, base + layout->bytes, group->steps[i], own, group->step[i],
                   bounds + i * PD_PAGE_ROWS);
        group->pass[i] = at_least(bounds + i * PD_PAGE_ROWS, group->bar[i]);
        some |= (uint32_t)(group->pass[i] != 0) << i;
    }
    return some;
}
#endif

static float powers(const float *weights, uint32_t values, float most, float beta, float *out)
{
    /* Most values weigh nothing, for most profiles: they are taken together, since the shares of a list add up to 1.
     * Where the most is negative there are none, and what they would promise drowns the rest. */
    float nothing = most < 0.0f ? 0.0f : pd_exp_inline(beta * (0.0f - most));
    for (uint32_t v = 0; v < values; v++)
        out[v] = weights[v] == 0.0f ? 0.0f : pd_exp_inline(beta * (weights[v] - most)) - nothing;
    return nothing;
}

/* Some lists at a time, whose sums stay in registers while the values go by. */
#define SUMMARY_LISTS (4 * VF)

static void summary(const float *histogram, size_t apart, const float *power, uint32_t values, float nothing,
                    uint32_t nlist, float *out)
{
    uint32_t l = 0;
    for (; l + SUMMARY_LISTS <= nlist; l += SUMMARY_LISTS) {
        vfloat sums[4];
        for (uint32_t j = 0; j < 4; j++)
            sums[j] = v_splat(nothing);
        for (uint32_t v = 0; v < values; v++) {
            if (power[v] == 0.0f) continue;
            const float *share = histogram + v * apart + l;
            const vfloat weight = v_splat(power[v]);
#pragma GCC unroll 4
            for (uint32_t j = 0; j < 4; j++)
                sums[j] += v_load(share + j * VF) * weight;
        }
#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4; j++)
            v_store(out + l + j * VF, v_load(out + l + j * VF) * v_max(sums[j], v_splat(1e-4f)));
    }
    for (; l < nlist; l++) {
        float sum = nothing;
        for (uint32_t v = 0; v < values; v++)
            if (power[v] != 0.0f) sum += histogram[v * apart + l] * power[v];
        out[l] *= sum > 1e-4f ? sum : 1e-4f;
    }
}

static void logs(float *values, uint32_t n, float beta)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = pd_log_inline(values[i]) / beta;
}

#endif
