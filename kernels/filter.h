/* Hard filters over a page: one bit a row. Tests come column by column, so that each is a loop over 32 neighbours that the
 * compiler turns into a few vectors, and stop as soon as no row is left. Columns are 32-byte aligned (layout.h). */
#ifndef PD_FILTER_H
#define PD_FILTER_H

#include <math.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "backend.h"

/* Rows that exist: their term is not minus infinity. */
static inline uint32_t pd_page_live(const pd_layout *layout, const void *page)
{
    const float *term = (const float *)((const unsigned char *)page + layout->term);
    uint32_t mask = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)(term[r] > -INFINITY) << r;
    return mask;
}

/* One bit a row from one byte a row: any value but 0 passes. bytes: [32], 32-byte aligned. */
static inline uint32_t pd_filter_bits(const uint8_t *bytes)
{
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    uint32_t low = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128((const __m128i *)bytes), zero));
    uint32_t high =
        (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128((const __m128i *)(bytes + 16)), zero));
    return ~(low | high << 16);
#else
    uint32_t mask = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)(bytes[r] != 0) << r;
    return mask;
#endif
}

/* Is the set one run of values, as one value, the buckets of a range, and "is not" (of what it does not hold) are? */
static inline int pd_filter_run(const uint64_t set[4], uint32_t *first, uint32_t *count)
{
    uint32_t n = 0, low = 256, high = 0;
    for (uint32_t w = 0; w < 4; w++) {
        if (!set[w]) continue;
        n += (uint32_t)__builtin_popcountll(set[w]);
        if (low == 256) low = 64 * w + (uint32_t)__builtin_ctzll(set[w]);
        high = 64 * w + 63 - (uint32_t)__builtin_clzll(set[w]);
    }
    *first = low;
    *count = n;
    return n > 0 && high - low + 1 == n;
}

/* Rows whose value lies in a run. column: 32-byte aligned. */
static inline uint32_t pd_filter_in_run(const uint8_t *column, uint32_t first, uint32_t count)
{
    uint8_t out[PD_PAGE_ROWS] __attribute__((aligned(32)));
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        out[r] = (uint8_t)(column[r] - first) <= (uint8_t)(count - 1) ? 0xff : 0;
    return pd_filter_bits(out);
}

static inline uint32_t pd_filter_byte(const pd_byte_test *test, const uint8_t *column)
{
    const uint64_t *allow = test->allow, refuse[4] = {~allow[0], ~allow[1], ~allow[2], ~allow[3]};
    uint32_t first, count, mask = 0;
    if (pd_filter_run(allow, &first, &count)) return pd_filter_in_run(column, first, count);
    if (pd_filter_run(refuse, &first, &count)) return ~pd_filter_in_run(column, first, count);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)(allow[column[r] >> 6] >> (column[r] & 63u) & 1u) << r;
    return mask;
}

static inline uint32_t pd_filter_range(const pd_range_test *test, const float *column)
{
    uint32_t mask = 0;
#ifdef __SSE2__
    const __m128 low = _mm_set1_ps(test->low), high = _mm_set1_ps(test->high);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r += 4) {
        __m128 values = _mm_load_ps(column + r);
        __m128 pass = _mm_and_ps(_mm_cmpge_ps(values, low), _mm_cmple_ps(values, high));
        mask |= (uint32_t)_mm_movemask_ps(pass) << r;
    }
#else
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)(column[r] >= test->low && column[r] <= test->high) << r;
#endif
    return mask;
}

/* Planes of which the test says nothing are not read. */
static inline uint32_t pd_filter_set(const pd_set_test *test, const uint8_t *planes)
{
    uint8_t some[PD_PAGE_ROWS] __attribute__((aligned(32))), bad[PD_PAGE_ROWS] __attribute__((aligned(32)));
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        some[r] = bad[r] = 0;
    for (uint32_t j = 0; j < 8; j++) {
        const uint8_t *plane = planes + j * PD_PAGE_ROWS;
        uint8_t any = (uint8_t)(test->any >> (8 * j)), all = (uint8_t)(test->all >> (8 * j)),
                none = (uint8_t)(test->none >> (8 * j));
        for (uint32_t r = 0; any && r < PD_PAGE_ROWS; r++)
            some[r] |= plane[r] & any;
        for (uint32_t r = 0; (all | none) && r < PD_PAGE_ROWS; r++)
            bad[r] |= (uint8_t)((~plane[r] & all) | (plane[r] & none));
    }
    uint32_t mask = ~pd_filter_bits(bad);
    return test->any ? mask & pd_filter_bits(some) : mask;
}

static inline int pd_key_among(const pd_key_test *test, uint64_t key)
{
    uint32_t low = 0, high = test->count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (test->values[mid] < key)
            low = mid + 1;
        else
            high = mid;
    }
    return low < test->count && test->values[low] == key;
}

static inline uint32_t pd_filter_key(const pd_key_test *test, const uint64_t *column)
{
    uint32_t mask = 0;
    if (test->count == 1 && !test->negate && test->values[0]) {
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            mask |= (uint32_t)(column[r] == test->values[0]) << r;
        return mask;
    }
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        int known = column[r] != 0;
        int among = known && pd_key_among(test, column[r]);
        mask |= (uint32_t)(test->negate ? !among : among) << r;
    }
    return mask;
}

/* The rows of mask that pass every test. filter may be NULL. */
static inline uint32_t pd_filter_page(const pd_layout *layout, const pd_filter *filter, const void *page,
                                      uint32_t mask)
{
    if (!filter) return mask;
    const unsigned char *base = (const unsigned char *)page;
    for (uint32_t i = 0; mask && i < filter->nbytes; i++)
        mask &= pd_filter_byte(&filter->bytes[i],
                               base + layout->bytes + (size_t)filter->bytes[i].column * PD_PAGE_ROWS);
    for (uint32_t i = 0; mask && i < filter->nranges; i++)
        mask &= pd_filter_range(&filter->ranges[i], (const float *)(base + layout->floats) +
                                                        (size_t)filter->ranges[i].column * PD_PAGE_ROWS);
    for (uint32_t i = 0; mask && i < filter->nsets; i++)
        mask &= pd_filter_set(&filter->sets[i],
                              base + layout->bytes + (size_t)filter->sets[i].column * PD_PAGE_ROWS);
    for (uint32_t i = 0; mask && i < filter->nkeys; i++)
        mask &= pd_filter_key(&filter->keys[i], (const uint64_t *)(base + layout->keys) +
                                                    (size_t)filter->keys[i].column * PD_PAGE_ROWS);
    return mask;
}

/* Is id in a sorted list? */
static inline int pd_excluded(const uint64_t *exclude, uint32_t count, uint64_t id)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (exclude[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < count && exclude[low] == id;
}

#endif
