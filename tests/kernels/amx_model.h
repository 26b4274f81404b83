/* A scalar stand-in for the tile instructions, under the names of kernels/cpu/tile.h: 8 tiles of 16 rows x 64 bytes, a
 * configuration with its checks, and a failure (mock_assert of cmocka) wherever the processor would fault: a shape out
 * of bounds, a tile that is not configured, shapes that do not multiply, one tile in two places. Rows and bytes outside
 * a shape read as zeros after a load, as on the processor. */
#ifndef PD_AMX_MODEL_H
#define PD_AMX_MODEL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MODEL_TILES 8
#define MODEL_ROWS  16
#define MODEL_BYTES 64

/* What the processor calls TILECFG and TILEDATA, and how much was done. */
static struct model {
    tile_config config;
    uint8_t tile[MODEL_TILES][MODEL_ROWS][MODEL_BYTES];
    uint64_t configured, dots;
} model;

#define MODEL_MUST(what) mock_assert(what, #what, __FILE__, __LINE__)

static inline void tile_release(void)
{
    memset(&model.config, 0, sizeof model.config);
    memset(model.tile, 0, sizeof model.tile);
}

static inline void tile_configuration(tile_config *config)
{
    *config = model.config;
}

static inline void tile_configure(const tile_config *config)
{
    MODEL_MUST((uintptr_t)config % 64 == 0); /* no fault, but it would straddle two cache lines */
    model.configured++;
    if (config->palette == 0) {
        tile_release();
        return;
    }
    MODEL_MUST(config->palette == 1);
    for (size_t i = 0; i < sizeof config->zero; i++)
        MODEL_MUST(config->zero[i] == 0);
    for (int t = 0; t < 16; t++) {
        MODEL_MUST(config->rows[t] <= (t < MODEL_TILES ? MODEL_ROWS : 0));
        MODEL_MUST(config->colsb[t] <= (t < MODEL_TILES ? MODEL_BYTES : 0));
        MODEL_MUST((config->rows[t] == 0) == (config->colsb[t] == 0));
    }
    model.config = *config;
    memset(model.tile, 0, sizeof model.tile);
}

static inline void model_must_have(int t)
{
    MODEL_MUST(model.config.palette == 1);
    MODEL_MUST(t >= 0 && t < MODEL_TILES);
    MODEL_MUST(model.config.rows[t] > 0);
}

static inline void tile_zero(int t)
{
    model_must_have(t);
    memset(model.tile[t], 0, sizeof model.tile[t]);
}

static inline void tile_load(int t, const void *from, size_t stride)
{
    model_must_have(t);
    memset(model.tile[t], 0, sizeof model.tile[t]);
    for (size_t row = 0; row < model.config.rows[t]; row++)
        memcpy(model.tile[t][row], (const unsigned char *)from + row * stride, model.config.colsb[t]);
}

static inline void tile_store(int t, void *to, size_t stride)
{
    model_must_have(t);
    for (size_t row = 0; row < model.config.rows[t]; row++)
        memcpy((unsigned char *)to + row * stride, model.tile[t][row], model.config.colsb[t]);
}

/* TDPBSSD: sums[m][n] += a[m][4k .. 4k+3] . b[k][4n .. 4n+3], signed, without saturation. */
static inline void tile_dots(int sums, int a, int b)
{
    const tile_config *c = &model.config;
    model_must_have(sums);
    model_must_have(a);
    model_must_have(b);
    MODEL_MUST(sums != a && sums != b && a != b);
    MODEL_MUST(c->colsb[sums] % 4 == 0 && c->colsb[a] % 4 == 0 && c->colsb[b] % 4 == 0);
    MODEL_MUST(c->rows[a] == c->rows[sums]);
    MODEL_MUST(c->colsb[b] == c->colsb[sums]);
    MODEL_MUST(c->colsb[a] / 4 == c->rows[b]);
    model.dots++;
    for (uint32_t m = 0; m < c->rows[sums]; m++) {
        uint32_t line[MODEL_BYTES / 4];
        memcpy(line, model.tile[sums][m], sizeof line);
        for (uint32_t k = 0; k < c->rows[b]; k++) {
            int8_t four[4], codes[MODEL_BYTES];
            memcpy(four, &model.tile[a][m][4 * k], sizeof four);
            memcpy(codes, model.tile[b][k], sizeof codes);
            for (uint32_t n = 0; n < MODEL_BYTES / 4; n++)
                line[n] += (uint32_t)(four[0] * codes[4 * n] + four[1] * codes[4 * n + 1] +
                                      four[2] * codes[4 * n + 2] + four[3] * codes[4 * n + 3]);
        }
        memcpy(model.tile[sums][m], line, c->colsb[sums]);
    }
}

#endif
