/* Integer dots by AVX2. vpmaddubsw wants one side unsigned: it gets the magnitudes of the page's codes, and the query's
 * codes take their signs. Codes lie in [-127, 127], so that a pair of products is at most 32,258 and never saturates;
 * vpmaddwd adds the pairs up in 32 bits. */
#include <immintrin.h>
#include <string.h>

#include "ops.h"

#define INLINE static inline __attribute__((always_inline))
#define MOST   4u /* queries of a block */

/* n queries and 8 * wide rows. */
INLINE void block(const int8_t *codes, uint32_t groups, const unsigned char *queries, size_t apart,
                  const uint32_t n, const uint32_t wide, int32_t *out)
{
    const __m256i ones = _mm256_set1_epi16(1);
    for (uint32_t row = 0; row < PD_PAGE_ROWS; row += 8 * wide) {
        __m256i sum[MOST][4];
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 4
            for (uint32_t v = 0; v < wide; v++)
                sum[i][v] = _mm256_setzero_si256();
        const int8_t *at = codes + row * 4;
        for (uint32_t g = 0; g < groups; g++, at += PD_PAGE_ROWS * 4) {
#pragma GCC unroll 4
            for (uint32_t v = 0; v < wide; v++) {
                __m256i code = _mm256_loadu_si256((const __m256i *)(at + v * 32));
                __m256i size = _mm256_abs_epi8(code);
#pragma GCC unroll 4
                for (uint32_t i = 0; i < n; i++) {
                    int32_t four;
                    memcpy(&four, queries + i * apart + 4 * (size_t)g, sizeof four);
                    __m256i query = _mm256_sign_epi8(_mm256_set1_epi32(four), code);
                    __m256i pairs = _mm256_maddubs_epi16(size, query);
                    sum[i][v] = _mm256_add_epi32(sum[i][v], _mm256_madd_epi16(pairs, ones));
                }
            }
        }
#pragma GCC unroll 4
        for (uint32_t i = 0; i < n; i++)
#pragma GCC unroll 4
            for (uint32_t v = 0; v < wide; v++)
                _mm256_storeu_si256((__m256i *)(out + i * PD_PAGE_ROWS + row + v * 8), sum[i][v]);
    }
}

static void dots(const int8_t *codes, uint32_t groups, uint32_t dim64, const void *queries, uint32_t n,
                 int32_t *out)
{
    const unsigned char *at = (const unsigned char *)queries;
    size_t apart = (size_t)dim64 + 64;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4)
        block(codes, groups, at + i * apart, apart, 4, 2, out + i * PD_PAGE_ROWS);
    if (n - i == 3) block(codes, groups, at + i * apart, apart, 3, 2, out + i * PD_PAGE_ROWS);
    if (n - i == 2) block(codes, groups, at + i * apart, apart, 2, 4, out + i * PD_PAGE_ROWS);
    if (n - i == 1) block(codes, groups, at + i * apart, apart, 1, 4, out + i * PD_PAGE_ROWS);
}

static void pack(const int8_t *codes, uint32_t dim64, void *out)
{
    memcpy(out, codes, dim64);
}

const pd_cpu_i8 pd_cpu_i8_avx2 = {.isa = "avx2", .width = 1, .pack = pack, .dots = dots};
