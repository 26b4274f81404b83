/* IEEE half precision by integer arithmetic: the same bits on every machine and in every compiler. */
#ifndef PD_F16_H
#define PD_F16_H

#include <stdint.h>
#include <string.h>

/* Device code shares these functions: cuda/simt.cuh says what it takes. */
#ifndef PD_HD
#define PD_HD
#endif

typedef uint16_t pd_f16; /* the bits */

static inline PD_HD float pd_f16_to_f32(pd_f16 half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t rest = half & 0x7fffu;
    uint32_t bits;
    if (rest >= 0x7c00u) {
        bits = sign | 0x7f800000u | ((rest & 0x3ffu) << 13); /* infinity or NaN */
    } else if (rest >= 0x400u) {
        bits = sign | ((rest << 13) + 0x38000000u);
    } else {
        /* Subnormal: rest * 2^-24, exact in f32. */
        float value = (float)rest * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* Rounds to nearest, ties to even; overflows to infinity; a NaN stays one. */
static inline PD_HD pd_f16 pd_f32_to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t mag = bits & 0x7fffffffu;
    if (mag >= 0x7f800000u) return (pd_f16)(sign | 0x7c00u | (mag > 0x7f800000u ? 0x200u : 0u));
    if (mag >= 0x477ff000u) return (pd_f16)(sign | 0x7c00u);
    if (mag < 0x38800000u) {
        /* Below the smallest normal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits. */
        float shifted;
        memcpy(&shifted, &mag, sizeof shifted);
        shifted += 0.5f;
        uint32_t sum;
        memcpy(&sum, &shifted, sizeof sum);
        return (pd_f16)(sign | (sum - 0x3f000000u));
    }
    uint32_t odd = (mag >> 13) & 1u;
    return (pd_f16)(sign | ((mag - 0x38000000u + 0xfffu + odd) >> 13));
}

#endif
