/* exp and log for the lists' weight summaries, branch-free so that loops over them vectorise. The polynomials are those
 * of the Cephes library (expf.c, logf.c); every step is one f32 operation, so the bits are the same everywhere. score.h
 * exports them as functions. */
#ifndef PD_FMATH_H
#define PD_FMATH_H

#include <stdint.h>
#include <string.h>

/* Device code shares these functions: cuda/simt.cuh says what it takes. */
#ifndef PD_HD
#define PD_HD
#endif

static inline PD_HD float pd_bits_float(uint32_t bits)
{
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static inline PD_HD uint32_t pd_float_bits(float value)
{
    uint32_t out;
    memcpy(&out, &value, sizeof out);
    return out;
}

/* To the nearest whole number, ties to even, without a library call: adding 1.5 * 2^23 leaves no room for a fraction.
 * |x| < 2^22. */
static inline PD_HD float pd_round(float x)
{
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

static inline PD_HD float pd_exp_inline(float x)
{
    x = x > 60.0f ? 60.0f : x;
    x = x < -60.0f ? -60.0f : x;
    float n = pd_round(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    float y = p * (r * r) + r;
    y = y + 1.0f;
    return y * pd_bits_float((uint32_t)((int32_t)n + 127) << 23);
}

static inline PD_HD float pd_log_inline(float x)
{
    /* Subnormals are lifted into the normal range first. */
    int tiny = x < 1.17549435e-38f;
    x = tiny ? x * 16777216.0f : x;
    float lift = tiny ? 24.0f : 0.0f;
    /* x = m * 2^e with m in [sqrt(1/2), sqrt(2)). */
    uint32_t bits = pd_float_bits(x) + (0x3f800000u - 0x3f3504f3u);
    float e = (float)((int32_t)(bits >> 23) - 127) - lift;
    float m = pd_bits_float((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m + -1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m + -1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m + -1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m + -2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float y = (m * z) * p;
    y = y + e * -2.12194440e-4f;
    y = y - 0.5f * z;
    return (m + y) + e * 0.693359375f;
}

#endif
