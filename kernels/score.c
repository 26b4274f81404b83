/* The written score's building blocks, one portable form of each: what score.h says, in the order it says it. */
#include "score.h"

#include <math.h>

#include "fmath.h"

/* Adds sixteen lanes in halves. */
static float add_lanes(float *lane)
{
    for (uint32_t half = PD_LANES / 2; half > 0; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    return lane[0];
}

float pd_dot(const float *a, const float *b, uint32_t dim)
{
    float lane[PD_LANES] = {0};
    uint32_t whole = dim & ~(PD_LANES - 1u);
    for (uint32_t d = 0; d < whole; d += PD_LANES)
        for (uint32_t j = 0; j < PD_LANES; j++)
            lane[j] += a[d + j] * b[d + j];
    for (uint32_t d = whole; d < dim; d++)
        lane[d - whole] += a[d] * b[d];
    return add_lanes(lane);
}

float pd_l2(const float *a, const float *b, uint32_t dim)
{
    float lane[PD_LANES] = {0};
    uint32_t whole = dim & ~(PD_LANES - 1u);
    for (uint32_t d = 0; d < whole; d += PD_LANES) {
        for (uint32_t j = 0; j < PD_LANES; j++) {
            float gap = a[d + j] - b[d + j];
            lane[j] += gap * gap;
        }
    }
    for (uint32_t d = whole; d < dim; d++) {
        float gap = a[d] - b[d];
        lane[d - whole] += gap * gap;
    }
    return add_lanes(lane);
}

int pd_normalise(float *vector, uint32_t dim)
{
    double sum = 0;
    for (uint32_t d = 0; d < dim; d++)
        sum += (double)vector[d] * (double)vector[d];
    if (!(sum > 0) || !isfinite(sum)) return 0;
    double norm = sqrt(sum);
    for (uint32_t d = 0; d < dim; d++)
        vector[d] = (float)((double)vector[d] / norm);
    return 1;
}

float pd_quantise_query(const float *query, uint32_t dim, uint32_t dim4, int8_t *codes)
{
    float most = 0.0f;
    for (uint32_t d = 0; d < dim; d++)
        most = fabsf(query[d]) > most ? fabsf(query[d]) : most;
    float qs = most / 127.0f, per = 127.0f / most;
    int some = per > 0.0f && per <= 3.40282347e+38f;
    for (uint32_t d = 0; d < dim4; d++) {
        float code = 0.0f;
        if (d < dim && some) {
            code = query[d] * per;
            code = code > 127.0f ? 127.0f : code;
            code = code < -127.0f ? -127.0f : code;
            code = pd_round(code);
        }
        codes[d] = (int8_t)code;
    }
    return some ? qs : 0.0f;
}

float pd_exp(float x)
{
    return pd_exp_inline(x);
}

float pd_log(float x)
{
    return pd_log_inline(x);
}
