/* A part of ops.c, compiled with it: the loops under a shortlist. Appending what passes, the k-th largest of many scores,
 * throwing away what is under it. */
#ifndef PD_CPU_OPS_SELECT_H
#define PD_CPU_OPS_SELECT_H

#include <math.h>

#include "ops.h"
#include "vector.h"

#if VB == 64
/* Compressed in a register and stored whole: compressing into memory is microcode on some machines. */
static uint32_t append(const float *scores, const float *bounds, uint32_t slot, uint32_t mask,
                       float *out_scores, float *out_bounds, uint32_t *out_slots)
{
    const __m512i rows = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    uint32_t done = 0;
    for (uint32_t v = 0; v < 2; v++) {
        __mmask16 some = (__mmask16)(mask >> (16 * v));
        if (!some) continue;
        __m512i slots = _mm512_add_epi32(rows, _mm512_set1_epi32((int32_t)(slot + 16 * v)));
        _mm512_storeu_ps(out_scores + done, _mm512_maskz_compress_ps(some, _mm512_loadu_ps(scores + 16 * v)));
        _mm512_storeu_si512(out_slots + done, _mm512_maskz_compress_epi32(some, slots));
        if (bounds)
            _mm512_storeu_ps(out_bounds + done,
                             _mm512_maskz_compress_ps(some, _mm512_loadu_ps(bounds + 16 * v)));
        done += (uint32_t)__builtin_popcount(some);
    }
    return done;
}

static uint32_t keep(float *scores, float *others, uint32_t *slots, uint32_t n, float t, int ties)
{
    const __m512 limit = _mm512_set1_ps(t);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i += 16) {
        __mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xffff;
        __m512 some = _mm512_maskz_loadu_ps(there, scores + i);
        __m512i at = _mm512_maskz_loadu_epi32(there, slots + i);
        __mmask16 pass = ties ? _mm512_mask_cmp_ps_mask(there, some, limit, _CMP_GE_OQ)
                              : _mm512_mask_cmp_ps_mask(there, some, limit, _CMP_GT_OQ);
        if (others) {
            __m512 other = _mm512_maskz_loadu_ps(there, others + i);
            _mm512_storeu_ps(others + kept, _mm512_maskz_compress_ps(pass, other));
        }
        _mm512_storeu_ps(scores + kept, _mm512_maskz_compress_ps(pass, some));
        _mm512_storeu_si512(slots + kept, _mm512_maskz_compress_epi32(pass, at));
        kept += (uint32_t)__builtin_popcount(pass);
    }
    return kept;
}

/* The k-th largest of n <= 32: by taking the largest away while k is small, else by counting for each how many are larger, which
 * takes the same time for any k. */
static float kth_of_few(const float *values, uint32_t n, uint32_t k)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    uint32_t there = n < 32 ? (1u << n) - 1 : 0xffffffffu;
    __m512 low = _mm512_mask_loadu_ps(none, (__mmask16)there, values);
    __m512 high = _mm512_mask_loadu_ps(none, (__mmask16)(there >> 16), values + 16);
    if (k > 6) {
        const __m512i one = _mm512_set1_epi32(1), limit = _mm512_set1_epi32((int32_t)k);
        __m512i over_low = _mm512_setzero_si512(), over_high = over_low;
        for (uint32_t i = 0; i < n; i++) {
            __m512 value = _mm512_set1_ps(values[i]);
            over_low =
                _mm512_mask_add_epi32(over_low, _mm512_cmp_ps_mask(value, low, _CMP_GT_OQ), over_low, one);
            over_high =
                _mm512_mask_add_epi32(over_high, _mm512_cmp_ps_mask(value, high, _CMP_GT_OQ), over_high, one);
        }
        /* Of those with fewer than k over them, the smallest. */
        const __m512 most = _mm512_set1_ps(INFINITY);
        low = _mm512_mask_mov_ps(most, _mm512_cmplt_epi32_mask(over_low, limit) & (__mmask16)there, low);
        high = _mm512_mask_mov_ps(most, _mm512_cmplt_epi32_mask(over_high, limit) & (__mmask16)(there >> 16),
                                  high);
        return _mm512_reduce_min_ps(_mm512_min_ps(low, high));
    }
    for (;;) {
        float most = _mm512_reduce_max_ps(_mm512_max_ps(low, high));
        __m512 top = _mm512_set1_ps(most);
        __mmask16 in_low = _mm512_cmp_ps_mask(low, top, _CMP_EQ_OQ);
        __mmask16 in_high = _mm512_cmp_ps_mask(high, top, _CMP_EQ_OQ);
        uint32_t found = (uint32_t)(__builtin_popcount(in_low) + __builtin_popcount(in_high));
        if (k <= found) return most;
        k -= found;
        low = _mm512_mask_mov_ps(low, in_low, none);
        high = _mm512_mask_mov_ps(high, in_high, none);
    }
}

/* A value near the k-th largest, from 16 of them spread over the range. */
static float guess(const float *values, uint32_t n, uint32_t k)
{
    float some[16];
    for (uint32_t j = 0; j < 16; j++)
        some[j] = values[(uint64_t)n * j / 16];
    uint32_t rank = (uint32_t)(((uint64_t)k * 16 + n - 1) / n);
    return kth_of_few(some, 16, rank < 1 ? 1 : rank > 16 ? 16 : rank);
}

/* Quickselect whose partition is a compress to either side. */
static float kth(const float *values, uint32_t n, uint32_t k, float *scratch)
{
    float *over = scratch, *under = scratch + n + 32;
    while (n > 32) {
        const __m512 pivot = _mm512_set1_ps(guess(values, n, k));
        uint32_t nover = 0, nunder = 0;
        for (uint32_t i = 0; i < n; i += 16) {
            __mmask16 there = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : (__mmask16)0xffff;
            __m512 some = _mm512_maskz_loadu_ps(there, values + i);
            __mmask16 up = _mm512_mask_cmp_ps_mask(there, some, pivot, _CMP_GT_OQ);
            __mmask16 down = _mm512_mask_cmp_ps_mask(there, some, pivot, _CMP_LT_OQ);
            _mm512_storeu_ps(over + nover, _mm512_maskz_compress_ps(up, some));
            _mm512_storeu_ps(under + nunder, _mm512_maskz_compress_ps(down, some));
            nover += (uint32_t)__builtin_popcount(up);
            nunder += (uint32_t)__builtin_popcount(down);
        }
        if (k > nover && k <= n - nunder) return _mm512_cvtss_f32(pivot);
        int up_there = k <= nover;
        /* The side that goes on may be narrowed where it lies: what is written never overtakes what is read. */
        if (!up_there) k -= n - nunder;
        values = up_there ? over : under;
        n = up_there ? nover : nunder;
    }
    return kth_of_few(values, n, k);
}
#else
static uint32_t append(const float *scores, const float *bounds, uint32_t slot, uint32_t mask,
                       float *out_scores, float *out_bounds, uint32_t *out_slots)
{
    uint32_t done = 0;
    for (; mask; mask &= mask - 1) {
        uint32_t row = (uint32_t)__builtin_ctz(mask);
        out_scores[done] = scores[row];
        if (bounds) out_bounds[done] = bounds[row];
        out_slots[done++] = slot + row;
    }
    return done;
}

/* Without a branch: what does not pass is written over by the next. */
static uint32_t keep(float *scores, float *others, uint32_t *slots, uint32_t n, float t, int ties)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        float score = scores[i];
        uint32_t slot = slots[i];
        scores[kept] = score;
        slots[kept] = slot;
        if (others) others[kept] = others[i];
        kept += (uint32_t)(score > t) | (uint32_t)(ties && score == t);
    }
    return kept;
}

/* The middle one of three. */
INLINE float median(float a, float b, float c)
{
    float low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Quickselect whose partition copies to either side, without a branch. */
static float kth(const float *values, uint32_t n, uint32_t k, float *scratch)
{
    float *one = scratch, *two = scratch + n + 32;
    for (;;) {
        float pivot = median(values[0], values[n / 2], values[n - 1]);
        uint32_t nover = 0, nunder = 0;
        /* Two passes, so that a side may be narrowed where it lies. */
        for (uint32_t i = 0; i < n; i++) {
            nover += (uint32_t)(values[i] > pivot);
            nunder += (uint32_t)(values[i] < pivot);
        }
        if (k > nover && k <= n - nunder) return pivot;
        float *to = values == one ? two : one;
        uint32_t kept = 0;
        int up = k <= nover;
        for (uint32_t i = 0; i < n; i++) {
            to[kept] = values[i];
            kept += (uint32_t)(up ? values[i] > pivot : values[i] < pivot);
        }
        if (!up) k -= n - nunder;
        values = to;
        n = kept;
    }
}
#endif

#endif
