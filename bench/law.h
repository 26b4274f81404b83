/* A synthetic data set that is hard in the way that real embeddings are, made from nothing but a seed.
 *
 * The law: a mixture of LAW_DEPARTMENTS x LAW_STYLES normal clouds, in two levels. A style's centre is its department's centre plus
 * its own step; a row is its style's centre plus noise. Every draw has the same decaying spectrum, coordinate j with the
 * standard deviation 1 / sqrt(1 + (j / LAW_KNEE)^2), turned by a reflection that each department has of its own, so that no axis
 * is special and every department spreads in directions of its own. Departments, and styles within one, are of unequal
 * weight (a draw u becomes place u^2), and styles are of unequal width. The steps between centres are about as long as the
 * noise within, so clouds overlap: the neighbours of a row lie in many of the lists that k-means makes, and no list is pure.
 *
 * Queries come from the same law, from draws that no row has. The law does not know how many rows there are: a table of
 * 100,000 rows is the first 100,000 of a table of 5,000,000, only sparser.
 *
 * Normal draws are sums of four 16-bit uniform ones and nothing here calls libm, fuses or reorders: the bytes are the same on
 * every machine and with any number of threads.
 *
 * A row is made by plain inline functions, so that a kernel makes the same one (LAW_CALL).
 */
#ifndef BENCH_LAW_H
#define BENCH_LAW_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

#ifndef LAW_CALL
#define LAW_CALL static inline
#endif

#define LAW_DEPARTMENTS 40u
#define LAW_STYLES      60u
#define LAW_KNEE        24.0f
#define LAW_APART       0.7f /* a department's centre, in units of the noise */
#define LAW_STEP        0.5f /* a style's step from it */

/* Streams of draws: no two of them meet. */
enum { LAW_DEPARTMENT, LAW_STYLE, LAW_TURN, LAW_WIDTH, LAW_ROWS, LAW_QUERIES, LAW_CALIBRATION };

typedef struct law {
    uint64_t seed;
    uint32_t dim;
    float *spectrum; /* [dim] */
    float *turns;    /* [LAW_DEPARTMENTS][dim], unit length */
    float *centres;  /* [LAW_DEPARTMENTS * LAW_STYLES][dim] */
    float *widths;   /* [LAW_DEPARTMENTS * LAW_STYLES] */
} law;

LAW_CALL uint64_t law_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The key of draws for one object of a stream; draw(key, j) is its j-th. */
LAW_CALL uint64_t law_key(uint64_t seed, uint64_t stream, uint64_t object)
{
    return law_mix(law_mix(seed * 0x9e3779b97f4a7c15u + stream + 1) + object);
}

LAW_CALL uint64_t law_draw(uint64_t key, uint64_t j)
{
    return law_mix(key + (j + 1) * 0x9e3779b97f4a7c15u);
}

LAW_CALL float law_uniform(uint64_t bits)
{
    return (float)(bits >> 40) * 0x1p-24f;
}

/* Four uniform 16-bit numbers added: mean 131070, standard deviation 65536 / sqrt(3). */
LAW_CALL float law_normal(uint64_t bits)
{
    int32_t sum = (int32_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (float)(sum - 131070) * (1.7320508f / 65536.0f);
}

/* out += width * reflect(turn, spectrum * normal draws): the reflection across the plane that turn stands on. */
LAW_CALL void law_noise(const law *l, uint64_t key, const float *turn, float width, float *noise, float *out)
{
    float along = 0;
    for (uint32_t j = 0; j < l->dim; j++) {
        noise[j] = l->spectrum[j] * law_normal(law_draw(key, j));
        along += noise[j] * turn[j];
    }
    for (uint32_t j = 0; j < l->dim; j++)
        out[j] += width * (noise[j] - 2 * along * turn[j]);
}

/* A place of n, the first ones likelier: the square of a uniform draw. */
LAW_CALL uint32_t law_skewed(uint64_t bits, uint32_t n)
{
    float u = law_uniform(bits);
    return (uint32_t)(u * u * (float)n);
}

LAW_CALL uint32_t law_style(const law *l, uint64_t key)
{
    uint32_t department = law_skewed(law_draw(key, l->dim), LAW_DEPARTMENTS);
    return department * LAW_STYLES + law_skewed(law_draw(key, l->dim + 1), LAW_STYLES);
}

/* noise: [dim], spoilt */
LAW_CALL void law_row(const law *l, uint64_t stream, uint64_t object, float *noise, float *out)
{
    uint64_t key = law_key(l->seed, stream, object);
    uint32_t style = law_style(l, key);
    memcpy(out, l->centres + (size_t)style * l->dim, l->dim * sizeof *out);
    law_noise(l, key, l->turns + (size_t)(style / LAW_STYLES) * l->dim, l->widths[style], noise, out);
}

/* The same row without a place for its noise, which is drawn twice. */
LAW_CALL void law_row_twice(const law *l, uint64_t stream, uint64_t object, float *out)
{
    uint64_t key = law_key(l->seed, stream, object);
    uint32_t style = law_style(l, key);
    const float *turn = l->turns + (size_t)(style / LAW_STYLES) * l->dim,
                *centre = l->centres + (size_t)style * l->dim;
    float along = 0, width = l->widths[style];
    for (uint32_t j = 0; j < l->dim; j++)
        along += l->spectrum[j] * law_normal(law_draw(key, j)) * turn[j];
    for (uint32_t j = 0; j < l->dim; j++)
        out[j] = centre[j] + width * (l->spectrum[j] * law_normal(law_draw(key, j)) - 2 * along * turn[j]);
}

static inline void law_close(law *l)
{
    free(l->spectrum);
    free(l->turns);
    free(l->centres);
    free(l->widths);
}

static inline pd_status law_open(uint64_t seed, uint32_t dim, law *out, pd_error *err)
{
    law l;
    l.seed = seed;
    l.dim = dim;
    float *noise = (float *)malloc(dim * sizeof *noise), *zero = (float *)calloc(dim, sizeof *zero);
    l.spectrum = (float *)malloc(dim * sizeof *l.spectrum);
    l.turns = (float *)malloc((size_t)LAW_DEPARTMENTS * dim * sizeof *l.turns);
    l.centres = (float *)calloc((size_t)LAW_DEPARTMENTS * LAW_STYLES * dim, sizeof *l.centres);
    l.widths = (float *)malloc(LAW_DEPARTMENTS * LAW_STYLES * sizeof *l.widths);
    if (!noise || !zero || !l.spectrum || !l.turns || !l.centres || !l.widths) {
        free(noise);
        free(zero);
        law_close(&l);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the generator's law");
    }
    for (uint32_t j = 0; j < dim; j++)
        l.spectrum[j] = 1 / __builtin_sqrtf(1 + (float)j / LAW_KNEE * ((float)j / LAW_KNEE));
    for (uint32_t d = 0; d < LAW_DEPARTMENTS; d++) {
        float *turn = l.turns + (size_t)d * dim, square = 0;
        for (uint32_t j = 0; j < dim; j++) {
            turn[j] = law_normal(law_draw(law_key(seed, LAW_TURN, d), j));
            square += turn[j] * turn[j];
        }
        for (uint32_t j = 0; j < dim; j++)
            turn[j] /= __builtin_sqrtf(square > 0 ? square : 1);
        for (uint32_t s = d * LAW_STYLES; s < (d + 1) * LAW_STYLES; s++) {
            float *centre = l.centres + (size_t)s * dim;
            law_noise(&l, law_key(seed, LAW_DEPARTMENT, d), zero, LAW_APART, noise, centre);
            law_noise(&l, law_key(seed, LAW_STYLE, s), turn, LAW_STEP, noise, centre);
            l.widths[s] = 0.6f + 0.8f * law_uniform(law_draw(law_key(seed, LAW_WIDTH, s), 0));
        }
    }
    free(noise);
    free(zero);
    *out = l;
    return PD_OK;
}

#endif
