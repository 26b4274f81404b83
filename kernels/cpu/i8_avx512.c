/* Integer dots by AVX-512 VNNI: vpdpbusd takes four unsigned bytes times four signed ones into a 32-bit lane.
 *
 * A lane is a row of the page. Codes are made unsigned by adding 128 (one exclusive or for all queries of a block), the
 * query's four codes are broadcast, and 128 times the sum of the query's codes, kept behind them, is taken off at the
 * end: all of it exact. Eight queries times 32 rows fill half of the registers; with more the compiler spills their addresses, and it is slower; smaller groups split the dimensions
 * over more accumulators, since one chain a lane would wait for itself (latency 4 or 5). */
#include <immintrin.h>
#include <string.h>

#include "ops.h"

/* In place: left to the intrinsic, gcc 12 copies half of the sums from register to register in every step. */
#define ADD(sum, codes, query) __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(query))
#define INLINE                 static inline __attribute__((always_inline))
#define MOST                   8u /* queries of a block */

INLINE void block(const int8_t *codes, uint32_t groups, uint32_t dim64, const unsigned char *queries,
                  size_t apart, const uint32_t n, const uint32_t split, int32_t *out)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    __m512i sum[MOST][2];
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n * split; i++)
        sum[i][0] = sum[i][1] = _mm512_setzero_si512();
    uint32_t g = 0;
    for (; g + split <= groups; g += split) {
#pragma GCC unroll 4
        for (uint32_t s = 0; s < split; s++) {
            const int8_t *at = codes + (size_t)(g + s) * 128;
            __m512i low = _mm512_xor_si512(_mm512_loadu_si512(at), flip);
            __m512i high = _mm512_xor_si512(_mm512_loadu_si512(at + 64), flip);
#pragma GCC unroll 8
            for (uint32_t i = 0; i < n; i++) {
                int32_t four;
                memcpy(&four, queries + i * apart + 4 * (size_t)(g + s), sizeof four);
                __m512i query = _mm512_set1_epi32(four);
                ADD(sum[i * split + s][0], low, query);
                ADD(sum[i * split + s][1], high, query);
            }
        }
    }
    for (; g < groups; g++) {
        const int8_t *at = codes + (size_t)g * 128;
        __m512i low = _mm512_xor_si512(_mm512_loadu_si512(at), flip);
        __m512i high = _mm512_xor_si512(_mm512_loadu_si512(at + 64), flip);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < n; i++) {
            int32_t four;
            memcpy(&four, queries + i * apart + 4 * (size_t)g, sizeof four);
            __m512i query = _mm512_set1_epi32(four);
            sum[i * split][0] = _mm512_dpbusd_epi32(sum[i * split][0], low, query);
            sum[i * split][1] = _mm512_dpbusd_epi32(sum[i * split][1], high, query);
        }
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < n; i++) {
        int32_t bias;
        memcpy(&bias, queries + i * apart + dim64, sizeof bias);
        __m512i low = sum[i * split][0], high = sum[i * split][1];
#pragma GCC unroll 4
        for (uint32_t s = 1; s < split; s++) {
            low = _mm512_add_epi32(low, sum[i * split + s][0]);
            high = _mm512_add_epi32(high, sum[i * split + s][1]);
        }
        _mm512_storeu_si512(out + i * PD_PAGE_ROWS, _mm512_sub_epi32(low, _mm512_set1_epi32(bias)));
        _mm512_storeu_si512(out + i * PD_PAGE_ROWS + 16, _mm512_sub_epi32(high, _mm512_set1_epi32(bias)));
    }
}

#define CASE(N, SPLIT)                                                                                       \
    case N:                                                                                                  \
        block(codes, groups, dim64, queries, apart, N, SPLIT, out);                                          \
        break;

static void some(const int8_t *codes, uint32_t groups, uint32_t dim64, const unsigned char *queries,
                 size_t apart, uint32_t n, int32_t *out)
{
    switch (n) {
        CASE(1, 4)
        CASE(2, 4)
        CASE(3, 2)
        CASE(4, 2)
        CASE(5, 1)
        CASE(6, 1)
        CASE(7, 1)
        CASE(8, 1)
    }
}

/* Blocks of even size: 13 queries are 7 and 6, not 12 and 1. */
static void dots(const int8_t *codes, uint32_t groups, uint32_t dim64, const void *queries, uint32_t n,
                 int32_t *out)
{
    const unsigned char *at = (const unsigned char *)queries;
    size_t apart = (size_t)dim64 + 64;
    uint32_t blocks = (n + MOST - 1) / MOST;
    for (uint32_t b = 0, first = 0; b < blocks; b++) {
        uint32_t last = (b + 1) * n / blocks;
        some(codes, groups, dim64, at + first * apart, apart, last - first, out + first * PD_PAGE_ROWS);
        first = last;
    }
}

static void pack(const int8_t *codes, uint32_t dim64, void *out)
{
    const __m512i ones = _mm512_set1_epi8(1);
    unsigned char *to = (unsigned char *)out;
    __m512i sum = _mm512_setzero_si512();
    for (uint32_t d = 0; d < dim64; d += 64) {
        __m512i some_codes = _mm512_loadu_si512(codes + d);
        _mm512_storeu_si512(to + d, some_codes);
        sum = _mm512_dpbusd_epi32(sum, ones, some_codes);
    }
    int32_t bias = 128 * _mm512_reduce_add_epi32(sum);
    memcpy(to + dim64, &bias, sizeof bias);
}

const pd_cpu_i8 pd_cpu_i8_avx512 = {.isa = "avx512", .width = 1, .pack = pack, .dots = dots};
