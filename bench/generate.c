/* A synthetic data set that is hard in the way that real embeddings are, made from nothing but a seed.
 *
 * The law: a mixture of DEPARTMENTS x STYLES normal clouds, in two levels. A style's centre is its department's centre plus
 * its own step; a row is its style's centre plus noise. Every draw has the same decaying spectrum, coordinate j with the
 * standard deviation 1 / sqrt(1 + (j / KNEE)^2), turned by a reflection that each department has of its own, so that no axis
 * is special and every department spreads in directions of its own. Departments, and styles within one, are of unequal
 * weight (a draw u becomes place u^2), and styles are of unequal width. The steps between centres are about as long as the
 * noise within, so clouds overlap: the neighbours of a row lie in many of the lists that k-means makes, and no list is pure.
 *
 * Queries come from the same law, from draws that no row has. The law does not know how many rows there are: a table of
 * 100,000 rows is the first 100,000 of a table of 5,000,000, only sparser.
 *
 * Normal draws are sums of four 16-bit uniform ones and nothing here calls libm, fuses or reorders: the bytes are the same on
 * every machine and with any number of threads.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "calibrate.h"
#include "score.h"

#define DEPARTMENTS 40u
#define STYLES      60u
#define KNEE        24.0f
#define APART       0.7f /* a department's centre, in units of the noise */
#define STEP        0.5f /* a style's step from it */

/* Streams of draws: no two of them meet. */
enum {
    STREAM_DEPARTMENT,
    STREAM_STYLE,
    STREAM_TURN,
    STREAM_WIDTH,
    STREAM_ROWS,
    STREAM_QUERIES,
    STREAM_CALIBRATION
};

typedef struct law {
    uint64_t seed;
    uint32_t dim;
    float *spectrum; /* [dim] */
    float *turns;    /* [DEPARTMENTS][dim], unit length */
    float *centres;  /* [DEPARTMENTS * STYLES][dim] */
    float *widths;   /* [DEPARTMENTS * STYLES] */
} law;

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The key of draws for one object of a stream; draw(key, j) is its j-th. */
static uint64_t key_of(uint64_t seed, uint64_t stream, uint64_t object)
{
    return mix(mix(seed * 0x9e3779b97f4a7c15u + stream + 1) + object);
}

static uint64_t draw(uint64_t key, uint64_t j)
{
    return mix(key + (j + 1) * 0x9e3779b97f4a7c15u);
}

static float uniform(uint64_t bits)
{
    return (float)(bits >> 40) * 0x1p-24f;
}

/* Four uniform 16-bit numbers added: mean 131070, standard deviation 65536 / sqrt(3). */
static float normal(uint64_t bits)
{
    int32_t sum = (int32_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (float)(sum - 131070) * (1.7320508f / 65536.0f);
}

/* out += width * reflect(turn, spectrum * normal draws): the reflection across the plane that turn stands on. */
static void add_noise(const law *l, uint64_t key, const float *turn, float width, float *noise, float *out)
{
    float along = 0;
    for (uint32_t j = 0; j < l->dim; j++) {
        noise[j] = l->spectrum[j] * normal(draw(key, j));
        along += noise[j] * turn[j];
    }
    for (uint32_t j = 0; j < l->dim; j++)
        out[j] += width * (noise[j] - 2 * along * turn[j]);
}

/* A place of n, the first ones likelier: the square of a uniform draw. */
static uint32_t skewed(uint64_t bits, uint32_t n)
{
    float u = uniform(bits);
    return (uint32_t)(u * u * (float)n);
}

static void one_row(const law *l, uint64_t stream, uint64_t object, float *noise, float *out)
{
    uint64_t key = key_of(l->seed, stream, object);
    uint32_t department = skewed(draw(key, l->dim), DEPARTMENTS),
             style = department * STYLES + skewed(draw(key, l->dim + 1), STYLES);
    memcpy(out, l->centres + (size_t)style * l->dim, l->dim * sizeof *out);
    add_noise(l, key, l->turns + (size_t)department * l->dim, l->widths[style], noise, out);
}

static void law_close(law *l)
{
    free(l->spectrum);
    free(l->turns);
    free(l->centres);
    free(l->widths);
}

static pd_status law_open(uint64_t seed, uint32_t dim, law *out, pd_error *err)
{
    law l = {.seed = seed, .dim = dim};
    float *noise = malloc(dim * sizeof *noise), *zero = calloc(dim, sizeof *zero);
    l.spectrum = malloc(dim * sizeof *l.spectrum);
    l.turns = malloc((size_t)DEPARTMENTS * dim * sizeof *l.turns);
    l.centres = calloc((size_t)DEPARTMENTS * STYLES * dim, sizeof *l.centres);
    l.widths = malloc(DEPARTMENTS * STYLES * sizeof *l.widths);
    if (!noise || !zero || !l.spectrum || !l.turns || !l.centres || !l.widths) {
        free(noise);
        free(zero);
        law_close(&l);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the generator's law");
    }
    for (uint32_t j = 0; j < dim; j++)
        l.spectrum[j] = 1 / __builtin_sqrtf(1 + (float)j / KNEE * ((float)j / KNEE));
    for (uint32_t d = 0; d < DEPARTMENTS; d++) {
        float *turn = l.turns + (size_t)d * dim, square = 0;
        for (uint32_t j = 0; j < dim; j++) {
            turn[j] = normal(draw(key_of(seed, STREAM_TURN, d), j));
            square += turn[j] * turn[j];
        }
        for (uint32_t j = 0; j < dim; j++)
            turn[j] /= __builtin_sqrtf(square > 0 ? square : 1);
        for (uint32_t s = d * STYLES; s < (d + 1) * STYLES; s++) {
            float *centre = l.centres + (size_t)s * dim;
            add_noise(&l, key_of(seed, STREAM_DEPARTMENT, d), zero, APART, noise, centre);
            add_noise(&l, key_of(seed, STREAM_STYLE, s), turn, STEP, noise, centre);
            l.widths[s] = 0.6f + 0.8f * uniform(draw(key_of(seed, STREAM_WIDTH, s), 0));
        }
    }
    free(noise);
    free(zero);
    *out = l;
    return PD_OK;
}

typedef struct share {
    pthread_t thread;
    const law *law;
    uint64_t stream, first, end;
    float *noise; /* [dim] */
    float *rows;  /* of the whole stream: [..][dim] */
} share;

static void *work(void *context)
{
    share *s = context;
    for (uint64_t i = s->first; i < s->end; i++)
        one_row(s->law, s->stream, i, s->noise, s->rows + i * s->law->dim);
    return NULL;
}

/* Rows 0..n-1 of a stream, on threads: [n][dim], freed by the caller. */
static pd_status make(const law *l, uint64_t stream, uint64_t n, uint32_t threads, float **out, pd_error *err)
{
    if (threads > n) threads = (uint32_t)n;
    float *rows = malloc(n * l->dim * sizeof *rows),
          *noise = malloc((size_t)threads * l->dim * sizeof *noise);
    share *shares = calloc(threads, sizeof *shares);
    pd_status status = PD_OK;
    if (!rows || !noise || !shares)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %llu x %u generated values",
                         (unsigned long long)n, l->dim);
    uint32_t started = 0;
    for (; !status && started < threads; started++) {
        shares[started] = (share){.law = l,
                                  .stream = stream,
                                  .first = n * started / threads,
                                  .end = n * (started + 1) / threads,
                                  .noise = noise + (size_t)started * l->dim,
                                  .rows = rows};
        if (pthread_create(&shares[started].thread, NULL, work, &shares[started])) {
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "a thread to generate rows could not be started");
            break;
        }
    }
    for (uint32_t t = 0; t < started; t++)
        pthread_join(shares[t].thread, NULL);
    free(shares);
    free(noise);
    if (status)
        free(rows);
    else
        *out = rows;
    return status;
}

pd_status bench_generate(const bench_options *o, bench_data *data, pd_error *err)
{
    law l;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t threads = processors > 0 ? (uint32_t)processors : 1;
    uint32_t measured = o->queries ? o->queries : BENCH_GENERATED_QUERIES;
    pd_status status = law_open(o->generate_seed, o->generate_dim, &l, err);
    if (status) return status;
    data->rows = o->generate_rows;
    data->dim = o->generate_dim;
    data->nqueries = measured;
    data->ncalibration = PD_CALIBRATION_QUERIES;
    snprintf(data->calibration_name, sizeof data->calibration_name, "%u queries of the same law",
             data->ncalibration);
    status = make(&l, STREAM_ROWS, data->rows, threads, &data->base, err);
    if (!status) status = make(&l, STREAM_QUERIES, measured, threads, &data->queries, err);
    if (!status) status = make(&l, STREAM_CALIBRATION, data->ncalibration, threads, &data->calibration, err);
    law_close(&l);
    return status;
}
