/* Every table of hot loops that this machine has, by name, and numbers to feed them. */
#ifndef PD_TEST_TABLES_H
#define PD_TEST_TABLES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"

static const char *const table_names[] = {"portable", "avx2", "avx512"};
#define NTABLES (sizeof table_names / sizeof *table_names)

/* NULL: not on this machine. */
static inline const pd_cpu_ops *table_of(size_t i)
{
    const pd_cpu_ops *ops = NULL;
    const pd_cpu_i8 *i8 = NULL;
    return pd_cpu_ops_find(table_names[i], &ops, &i8) ? ops : NULL;
}

static uint64_t table_state = 0x9e3779b97f4a7c15ull;

static inline uint32_t table_below(uint32_t n)
{
    table_state ^= table_state << 13;
    table_state ^= table_state >> 7;
    table_state ^= table_state << 17;
    return (uint32_t)((table_state * 0x2545f4914f6cdd1dull >> 32) * n >> 32);
}

/* In [-1, 1). */
static inline float table_float(void)
{
    return (float)((int32_t)table_below(1u << 24) - (1 << 23)) * 0x1p-23f;
}

static inline void *table_copy(const void *data, size_t bytes)
{
    void *copy = malloc(bytes ? bytes : 1);
    if (!copy) abort();
    memcpy(copy, data, bytes);
    return copy;
}

static inline int same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

#endif
