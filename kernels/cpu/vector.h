/* Vectors of the width that a translation unit is compiled for, by GCC's vector extensions; the few operations that C
 * cannot say (pairs of i16 products, comparison masks, half floats) are one intrinsic an instruction set, with plain C
 * where there is none. */
#ifndef PD_CPU_VECTOR_H
#define PD_CPU_VECTOR_H

#include <stdint.h>
#include <string.h>

#include "f16.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)
#define VB 64
#elif defined(__AVX2__)
#define VB 32
#else
#define VB 16
#endif

#define INLINE static inline __attribute__((always_inline))

#define VF (VB / 4) /* floats of a vector */
#define VR (VB / 8) /* rows of a page whose four i16 codes fill a vector */

typedef float vfloat __attribute__((vector_size(VB)));
typedef int32_t vint __attribute__((vector_size(VB)));
typedef int16_t vshort __attribute__((vector_size(VB)));
typedef int64_t vlong __attribute__((vector_size(VB)));
typedef int8_t vbytes __attribute__((vector_size(VB / 2)));

INLINE vfloat v_load(const float *from)
{
    vfloat out;
    memcpy(&out, from, sizeof out);
    return out;
}

INLINE void v_store(float *to, vfloat value)
{
    memcpy(to, &value, sizeof value);
}

INLINE vfloat v_splat(float value)
{
    return value - (vfloat){0};
}

/* a > b ? a : b, and a < b ? a : b, lane by lane. */
INLINE vfloat v_max(vfloat a, vfloat b)
{
#if VB == 64
    return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif VB == 32
    return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vint mask = a > b;
    return (vfloat)(((vint)a & mask) | ((vint)b & ~mask));
#endif
}
INLINE vfloat v_min(vfloat a, vfloat b)
{
#if VB == 64
    return (vfloat)_mm512_min_ps((__m512)a, (__m512)b);
#elif VB == 32
    return (vfloat)_mm256_min_ps((__m256)a, (__m256)b);
#else
    vint mask = a < b;
    return (vfloat)(((vint)a & mask) | ((vint)b & ~mask));
#endif
}

/* Whole numbers in [-127, 127] as bytes. */
INLINE void v_store_codes(int8_t *to, vfloat value)
{
    typedef int8_t codes __attribute__((vector_size(VF)));
    codes out = __builtin_convertvector(__builtin_convertvector(value, vint), codes);
    memcpy(to, &out, sizeof out);
}

/* Sign-extends VB / 2 codes. */
INLINE vshort v_widen(const int8_t *from)
{
#if VB == 64
    return (vshort)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)from));
#elif VB == 32
    return (vshort)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)from));
#else
    vbytes bytes;
    memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, vshort);
#endif
}

/* Four i16, over and over. */
INLINE vshort v_splat4(const int16_t *from)
{
    int64_t four;
    memcpy(&four, from, sizeof four);
    return (vshort)(four - (vlong){0});
}

/* a[2i] * b[2i] + a[2i + 1] * b[2i + 1] */
INLINE vint v_pairs(vshort a, vshort b)
{
#if VB == 64
    return (vint)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif VB == 32
    return (vint)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (vint)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    vint alow = (vint)a << 16 >> 16, blow = (vint)b << 16 >> 16;
    return alow * blow + ((vint)a >> 16) * ((vint)b >> 16);
#endif
}

/* Bit i: value[i] >= bar, of VF. */
INLINE uint32_t v_at_least(vfloat value, float bar)
{
#if VB == 64
    return _mm512_cmp_ps_mask((__m512)value, _mm512_set1_ps(bar), _CMP_GE_OQ);
#elif VB == 32
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)value, _mm256_set1_ps(bar), _CMP_GE_OQ));
#elif defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps(_mm_cmpge_ps((__m128)value, _mm_set1_ps(bar)));
#else
    uint32_t mask = 0;
    for (uint32_t i = 0; i < VF; i++)
        mask |= (uint32_t)(value[i] >= bar) << i;
    return mask;
#endif
}

/* Bit i: from[i] >= bar, of 16. */
INLINE uint32_t v_at_least16(const float *from, float bar)
{
#if VB == 64
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(from), _mm512_set1_ps(bar), _CMP_GE_OQ);
#elif VB == 32
    __m256 limit = _mm256_set1_ps(bar);
    uint32_t low = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(from), limit, _CMP_GE_OQ));
    uint32_t high = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(from + 8), limit, _CMP_GE_OQ));
    return low | high << 8;
#else
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 16; i++)
        mask |= (uint32_t)(from[i] >= bar) << i;
    return mask;
#endif
}

/* pd_f16_to_f32 without branches, so that a loop over it vectorises. */
INLINE float v_half(pd_f16 half)
{
    uint32_t rest = half & 0x7fffu;
    float tiny = (float)(int32_t)rest * 0x1p-24f;
    uint32_t tiny_bits, bits = (rest << 13) + 0x38000000u;
    bits += 0x38000000u & (0u - (uint32_t)(rest >= 0x7c00u));
    memcpy(&tiny_bits, &tiny, sizeof tiny_bits);
    uint32_t small = 0u - (uint32_t)(rest < 0x400u);
    bits = (tiny_bits & small) | (bits & ~small) | (uint32_t)(half & 0x8000u) << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* Half floats to floats, exactly. */
static inline void v_halves(const pd_f16 *from, float *to, uint32_t count)
{
    uint32_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i))));
#endif
    for (; i < count; i++)
        to[i] = v_half(from[i]);
}

/* VF small whole numbers as floats. wide: the intrinsic's name for their kind */
#if VB == 64
#define V_LOAD_WHOLE(from, wide)                                                                             \
    return (vfloat)_mm512_cvtepi32_ps(_mm512_cvt##wide##_epi32(_mm_loadu_si128((const __m128i *)(from))))
#elif VB == 32
#define V_LOAD_WHOLE(from, wide)                                                                             \
    return (vfloat)_mm256_cvtepi32_ps(_mm256_cvt##wide##_epi32(_mm_loadl_epi64((const __m128i *)(from))))
#else
#define V_LOAD_WHOLE(from, wide)                                                                             \
    vfloat out;                                                                                              \
    for (uint32_t i = 0; i < VF; i++)                                                                        \
        out[i] = (float)(from)[i];                                                                           \
    return out
#endif
INLINE vfloat v_load_u8(const uint8_t *from)
{
    V_LOAD_WHOLE(from, epu8);
}
INLINE vfloat v_load_i8(const int8_t *from)
{
    V_LOAD_WHOLE(from, epi8);
}

/* VF half floats as floats. */
INLINE vfloat v_load_half(const pd_f16 *from)
{
#if VB == 64
    return (vfloat)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
#elif VB == 32
    return (vfloat)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
    vfloat out;
    for (uint32_t i = 0; i < VF; i++)
        out[i] = v_half(from[i]);
    return out;
#endif
}

#endif
