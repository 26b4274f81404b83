/* Integer dots for any machine: codes and queries are widened to 16 bits, and pairs of products are added in 32 (SSE2's
 * pmaddwd where the machine is an x86, plain C elsewhere). Queries are widened once, when they are packed; codes once
 * for all queries of a block. */
#include <string.h>

#include "ops.h"
#include "vector.h"

#define MOST 4u /* queries of a block */

/* n queries, `wide` vectors of rows at a time. */
INLINE void block(const int8_t *codes, uint32_t groups, const unsigned char *queries, size_t apart,
                  const uint32_t n, const uint32_t wide, int32_t *out)
{
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row += wide * VR) {
        vint sum[MOST][8];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 8
            for (uint32_t v = 0; v < wide; v++)
                sum[i][v] = (vint){0};
        const int8_t *at = codes + row * 4;
        for (uint32_t g = 0; g < groups; g++, at += PD_PAGE_ROWS * 4) {
            vshort code[8];
#pragma GCC unroll 8
            for (uint32_t v = 0; v < wide; v++)
                code[v] = v_widen(at + v * (VB / 2));
#pragma GCC unroll 4
            for (uint32_t i = 0; i < n; i++) {
                vshort query = v_splat4((const int16_t *)(const void *)(queries + i * apart) + 4 * g);
#pragma GCC unroll 8
                for (uint32_t v = 0; v < wide; v++)
                    sum[i][v] += v_pairs(code[v], query);
            }
        }
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++) {
            int32_t halves[8 * VF];
            memcpy(halves, sum[i], wide * VB);
            for (uint32_t r = 0; r < wide * VR; r++)
                out[i * PD_PAGE_ROWS + row + r] = halves[2 * r] + halves[2 * r + 1];
        }
    }
}

static void dots(const int8_t *codes, uint32_t groups, uint32_t dim64, const void *queries, uint32_t n,
                 int32_t *out)
{
    const unsigned char *at = (const unsigned char *)queries;
    size_t apart = 2 * (size_t)dim64 + 64;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4)
        block(codes, groups, at + i * apart, apart, 4, 2, out + i * PD_PAGE_ROWS);
    if (n - i == 3) block(codes, groups, at + i * apart, apart, 3, 2, out + i * PD_PAGE_ROWS);
    if (n - i == 2) block(codes, groups, at + i * apart, apart, 2, 2, out + i * PD_PAGE_ROWS);
    if (n - i == 1) block(codes, groups, at + i * apart, apart, 1, 8, out + i * PD_PAGE_ROWS);
}

static void pack(const int8_t *codes, uint32_t dim64, void *out)
{
    int16_t *to = (int16_t *)out;
    for (uint32_t d = 0; d < dim64; d++)
        to[d] = codes[d];
}

const pd_cpu_i8 pd_cpu_i8_portable = {.isa = "portable", .width = 2, .pack = pack, .dots = dots};
