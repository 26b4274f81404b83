/* Weight tables seen as random variables: how much the summed weights vary over the rows of a table. */
#include <math.h>
#include <string.h>

#include "calibrate.h"
#include "random.h"

/* Variance over all rows of one column's weights; values from `used` on have no rows. */
static double column_variance(const uint64_t *histogram, uint32_t used, uint64_t rows, const float *table)
{
    double sum = 0, squares = 0;
    if (rows == 0) return 0;
    for (uint32_t v = 0; v < used; v++) {
        double weight = (double)table[v], rows_of = (double)histogram[v];
        sum += rows_of * weight;
        squares += rows_of * weight * weight;
    }
    sum /= (double)rows;
    squares /= (double)rows;
    double variance = squares - sum * sum;
    return variance > 0 ? variance : 0;
}

static double table_variance(const pd_resident *resident, const float *weights, uint32_t *columns)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    uint64_t rows = pd_resident_rows(resident);
    double sum = 0;
    *columns = 0;
    for (uint32_t c = 0; c < info->shape.nbytes; c++) {
        if (!info->shape.sizes[c]) continue;
        double variance = column_variance(pd_resident_histogram(resident, c), pd_resident_used(resident, c),
                                          rows, weights + info->layout.weight_at[c]);
        *columns += variance > 0;
        sum += variance;
    }
    return sum;
}

float pd_weights_sd(const pd_resident *resident, const float *weights)
{
    uint32_t columns;
    return (float)sqrt(table_variance(resident, weights, &columns));
}

/* One normal weight for each value of a byte column; unknown weighs nothing. */
static void draw_values(uint64_t *state, uint32_t size, float *table)
{
    for (uint32_t v = 1; v < size; v++)
        table[v] = pd_random_normal(state);
}

/* One normal weight for each member of a plane; a mask weighs the sum of its members. */
static void draw_members(uint64_t *state, uint32_t size, float *table)
{
    float member[8];
    for (uint32_t m = 0; m < 8; m++)
        member[m] = pd_random_normal(state);
    for (uint32_t mask = 1; mask < size; mask++)
        table[mask] = table[mask & (mask - 1)] + member[__builtin_ctz(mask)];
}

static void draw_attribute(const pd_version_info *info, const pd_attribute *attribute, uint64_t *state,
                           float *weights)
{
    uint32_t planes = attribute->type == PD_SET ? 8 : 1;
    for (uint32_t c = attribute->byte_column; c < attribute->byte_column + planes; c++) {
        float *table = weights + info->layout.weight_at[c];
        if (attribute->type == PD_SET)
            draw_members(state, info->shape.sizes[c], table);
        else
            draw_values(state, info->shape.sizes[c], table);
    }
}

uint32_t pd_random_weights(const pd_resident *resident, uint64_t seed, float sd, float *weights)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    const pd_schema *schema = info->schema;
    uint32_t total = info->layout.weights, columns = 0, n = 0;
    const pd_attribute *drawn[PD_MAX_ATTRIBUTES];
    uint64_t state = seed;
    memset(weights, 0, (size_t)total * sizeof *weights);
    for (uint32_t i = 0; i < schema->nattributes; i++)
        if (schema->attributes[i].type != PD_KEY) drawn[n++] = &schema->attributes[i];
    for (uint32_t i = 0; i < n && i < PD_WEIGHED_ATTRIBUTES; i++) {
        uint32_t other = i + (uint32_t)pd_random_below(&state, n - i);
        const pd_attribute *attribute = drawn[other];
        drawn[other] = drawn[i];
        draw_attribute(info, attribute, &state, weights);
    }
    double variance = table_variance(resident, weights, &columns);
    float scale = variance > 0 ? (float)((double)sd / sqrt(variance)) : 0.0f;
    for (uint32_t w = 0; w < total; w++)
        weights[w] *= scale;
    return columns;
}
