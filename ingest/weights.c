/* Weight tables seen as random variables: how much the summed weights vary over the rows of a table. */
#include <math.h>
#include <string.h>

#include "calibrate.h"
#include "random.h"

/* Variance over all rows of one column's weights. table: [size]. */
static double column_variance(const uint64_t *histogram, uint32_t size, uint64_t rows, const float *table)
{
    double sum = 0, squares = 0;
    if (rows == 0) return 0;
    for (uint32_t v = 0; v < size; v++) {
        double share = (double)histogram[v] / (double)rows, weight = (double)table[v];
        sum += share * weight;
        squares += share * weight * weight;
    }
    double variance = squares - sum * sum;
    return variance > 0 ? variance : 0;
}

static double table_variance(const pd_resident *resident, const float *weights, uint32_t *columns)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    double sum = 0;
    *columns = 0;
    for (uint32_t c = 0; c < info->shape.nbytes; c++) {
        if (!info->shape.sizes[c]) continue;
        double variance = column_variance(pd_resident_histogram(resident, c), info->shape.sizes[c],
                                          info->rows, weights + info->layout.weight_at[c]);
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

uint32_t pd_random_weights(const pd_resident *resident, uint64_t seed, float sd, float *weights)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    uint32_t total = info->layout.weights, columns = 0;
    uint64_t state = seed;
    memset(weights, 0, (size_t)total * sizeof *weights);
    for (uint32_t c = 0; c < info->shape.nbytes; c++)
        for (uint32_t v = 1; v < info->shape.sizes[c]; v++)
            weights[info->layout.weight_at[c] + v] = pd_random_normal(&state);
    double variance = table_variance(resident, weights, &columns);
    float scale = variance > 0 ? (float)((double)sd / sqrt(variance)) : 0.0f;
    for (uint32_t w = 0; w < total; w++)
        weights[w] *= scale;
    return columns;
}
