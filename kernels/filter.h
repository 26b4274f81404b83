/* Hard filters over a page: one bit a row. Tests come column by column, so that each is a loop over 32 neighbours, and
 * stop as soon as no row is left. */
#ifndef PD_FILTER_H
#define PD_FILTER_H

#include <math.h>

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

static inline uint32_t pd_filter_byte(const pd_byte_test *test, const uint8_t *column)
{
    uint32_t mask = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)(test->allow[column[r] >> 6] >> (column[r] & 63u) & 1u) << r;
    return mask;
}

static inline uint32_t pd_filter_range(const pd_range_test *test, const float *column)
{
    uint32_t mask = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
        mask |= (uint32_t)(column[r] >= test->low && column[r] <= test->high) << r;
    return mask;
}

static inline uint32_t pd_filter_set(const pd_set_test *test, const uint8_t *planes)
{
    uint32_t mask = 0;
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        uint64_t members = 0;
        for (uint32_t j = 0; j < 8; j++)
            members |= (uint64_t)planes[j * PD_PAGE_ROWS + r] << (8 * j);
        int pass = (test->any == 0 || (members & test->any) != 0) && (members & test->all) == test->all &&
                   (members & test->none) == 0;
        mask |= (uint32_t)pass << r;
    }
    return mask;
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
