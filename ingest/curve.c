/* Recall curves: calibration.json, and reading an nprobe off them.
 *
 * A curve is what was measured and nothing is fitted to it. Between two points the nprobe is interpolated along the
 * lower bounds, linearly in log nprobe: recall over log nprobe bends downwards near its top, so that the chord asks for
 * too many probes rather than too few. Points measured on fewer queries may dip; a running maximum takes the dips out.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate.h"
#include "files.h"
#include "manifest.h"

#define CALIBRATION_LIMIT (1u << 20)

const uint32_t pd_band_k[PD_BANDS] = {1, 10, 100, 1000};
const float pd_spread_at[PD_SPREADS] = {0.0f, 0.1f, 0.3f, 0.5f, 1.0f};

/* ------------------------------------------------------------------------------------------------ the file --- */

static json_t *curve_json(const pd_curve *curve, uint32_t band, uint32_t spread)
{
    json_t *points = json_array();
    for (uint32_t i = 0; points && i < curve->points; i++) {
        json_t *point =
            json_pack("[I, f, f, I]", (json_int_t)curve->at[i].nprobe, (double)curve->at[i].recall,
                      (double)curve->at[i].lower, (json_int_t)curve->at[i].depth);
        if (!point || json_array_append_new(points, point) != 0) {
            json_decref(points);
            points = NULL;
        }
    }
    if (!points) return NULL;
    return json_pack("{s:i, s:f, s:o}", "k", (int)pd_band_k[band], "spread",
                     round((double)pd_spread_at[spread] * 1000) / 1000, "points", points);
}

pd_status pd_calibration_text(const pd_calibration *c, char **text, size_t *length, pd_error *err)
{
    json_t *curves = json_array();
    for (uint32_t b = 0; b < PD_BANDS; b++) {
        for (uint32_t s = 0; curves && s < PD_SPREADS; s++) {
            if (!c->curves[b][s].points) continue;
            if (json_array_append_new(curves, curve_json(&c->curves[b][s], b, s)) != 0) {
                json_decref(curves);
                curves = NULL;
            }
        }
    }
    json_t *root =
        curves ? json_pack("{s:b, s:I, s:s, s:f, s:f, s:o}", "measured", c->measured, "queries",
                           (json_int_t)c->queries, "source", c->source, "similarity_sd",
                           (double)c->similarity_sd, "residual_sd", (double)c->residual_sd, "curves", curves)
               : NULL;
    if (!root) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to write the calibration");
    pd_status status = pd_sealed_text(root, text, length, err);
    json_decref(root);
    return status;
}

static int is_depth(const json_t *depth, uint32_t k)
{
    json_int_t n = json_integer_value(depth);
    return json_is_integer(depth) && (n == 0 || (n >= (json_int_t)k && n <= (json_int_t)pd_refine_depth(k)));
}

/* depth: of points that do not say */
static int read_point(const json_t *point, uint32_t k, uint32_t depth, pd_curve *curve)
{
    const json_t *nprobe = json_array_get(point, 0), *recall = json_array_get(point, 1);
    const json_t *lower = json_array_get(point, 2), *own = json_array_get(point, 3);
    if (!json_is_integer(nprobe) || !json_is_number(recall) || !json_is_number(lower)) return 0;
    if (own && !is_depth(own, k)) return 0;
    json_int_t n = json_integer_value(nprobe);
    double r = json_number_value(recall), l = json_number_value(lower);
    uint32_t before = curve->points ? curve->at[curve->points - 1].nprobe : 0;
    if (n <= (json_int_t)before || n > (json_int_t)PD_MAX_NLIST || !(r >= 0 && r <= 1) || !(l >= 0 && l <= r))
        return 0;
    curve->at[curve->points].nprobe = (uint32_t)n;
    curve->at[curve->points].depth = own ? (uint32_t)json_integer_value(own) : depth;
    curve->at[curve->points].recall = (float)r;
    curve->at[curve->points].lower = (float)l;
    curve->points++;
    return 1;
}

static int read_curve(const json_t *entry, const uint32_t *depths, pd_calibration *c)
{
    json_int_t k = json_integer_value(json_object_get(entry, "k"));
    double spread = json_number_value(json_object_get(entry, "spread"));
    json_t *points = json_object_get(entry, "points");
    size_t count = json_array_size(points);
    if (count == 0 || count > PD_CURVE_POINTS) return 0;
    for (uint32_t b = 0; b < PD_BANDS; b++) {
        for (uint32_t s = 0; s < PD_SPREADS; s++) {
            if (k != (json_int_t)pd_band_k[b] || fabs(spread - (double)pd_spread_at[s]) > 1e-4) continue;
            pd_curve *curve = &c->curves[b][s];
            if (curve->points) return 0; /* given twice */
            for (size_t i = 0; i < count; i++)
                if (!read_point(json_array_get(points, i), pd_band_k[b], depths[b], curve)) return 0;
            return 1;
        }
    }
    return 0;
}

/* Files of before points had depths of their own have one for each band, or none. */
static int read_depths(const json_t *depths, uint32_t *out)
{
    if (!depths) return 1;
    if (json_array_size(depths) != PD_BANDS) return 0;
    for (uint32_t b = 0; b < PD_BANDS; b++) {
        if (!is_depth(json_array_get(depths, b), pd_band_k[b])) return 0;
        out[b] = (uint32_t)json_integer_value(json_array_get(depths, b));
    }
    return 1;
}

static int read_all(const json_t *root, pd_calibration *c)
{
    const json_t *queries = json_object_get(root, "queries"), *curves = json_object_get(root, "curves");
    const char *source = json_string_value(json_object_get(root, "source"));
    double sd = json_number_value(json_object_get(root, "similarity_sd"));
    double residual = json_number_value(json_object_get(root, "residual_sd"));
    uint32_t depths[PD_BANDS] = {0};
    if (!json_is_boolean(json_object_get(root, "measured")) || !json_is_integer(queries) ||
        !json_is_array(curves) || json_integer_value(queries) < 0 ||
        json_integer_value(queries) > INT32_MAX || !source || strlen(source) >= sizeof c->source ||
        !(sd >= 0 && sd < 1e30) || !(residual >= 0 && residual < 1e30) ||
        !read_depths(json_object_get(root, "depths"), depths))
        return 0;
    c->measured = json_is_true(json_object_get(root, "measured"));
    c->queries = (uint32_t)json_integer_value(queries);
    memcpy(c->source, source, strlen(source) + 1);
    c->similarity_sd = (float)sd;
    c->residual_sd = (float)residual;
    for (size_t i = 0; i < json_array_size(curves); i++)
        if (!read_curve(json_array_get(curves, i), depths, c)) return 0;
    return 1;
}

pd_status pd_calibration_read(const char *path, pd_calibration *c, pd_error *err)
{
    memset(c, 0, sizeof *c);
    json_t *root = NULL;
    pd_status status = pd_sealed_read(path, CALIBRATION_LIMIT, &root, err);
    if (status == PD_NOT_FOUND) return PD_OK;
    if (status) return status;
    if (!read_all(root, c)) {
        memset(c, 0, sizeof *c);
        status = pd_fail(err, PD_DATA_LOSS, "%s does not hold a calibration", path);
    }
    json_decref(root);
    return status;
}

pd_status pd_version_set_calibration(const char *folder, const pd_calibration *calibration, pd_error *err)
{
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, folder, "calibration.json", err);
    if (status) return status;
    char *text = NULL;
    size_t length = 0;
    status = pd_calibration_text(calibration, &text, &length, err);
    if (status) return status;
    status = pd_file_replace(path, text, length, err);
    free(text);
    return status;
}

/* ------------------------------------------------------------------------------------------------ reading off --- */

/* The nprobe at which a curve's lower bound meets recall. 0: it never does. */
static double need_of(const pd_curve *curve, float recall)
{
    double before = 0, at_before = 1;
    for (uint32_t i = 0; i < curve->points; i++) {
        double lower = (double)curve->at[i].lower, nprobe = (double)curve->at[i].nprobe;
        if (lower >= (double)recall) {
            if (i == 0 || lower <= before) return nprobe;
            double part = ((double)recall - before) / (lower - before);
            return exp(log(at_before) + part * (log(nprobe) - log(at_before)));
        }
        if (lower > before || i == 0) {
            before = lower;
            at_before = nprobe;
        }
    }
    return 0;
}

/* The same for a spread between those measured. */
static double need_at_spread(const pd_curve curves[PD_SPREADS], float spread, float recall)
{
    uint32_t last = PD_SPREADS - 1;
    if (!(spread < pd_spread_at[last])) {
        /* Nothing was measured out there: the cut through the lists widens with the square of the spread. */
        double ratio = (double)spread / (double)pd_spread_at[last];
        return need_of(&curves[last], recall) * ratio * ratio;
    }
    uint32_t s = 0;
    while (s + 1 < last && spread >= pd_spread_at[s + 1])
        s++;
    double low = need_of(&curves[s], recall), high = need_of(&curves[s + 1], recall);
    if (spread == pd_spread_at[s]) return low;
    if (low == 0 || high == 0) return 0;
    if (high < low) high = low;
    double part = (double)((spread - pd_spread_at[s]) / (pd_spread_at[s + 1] - pd_spread_at[s]));
    return low + (high - low) * part;
}

/* The bands on either side of k; where one was not measured (more than there are rows), the nearest below. */
static void bands_of(const pd_calibration *c, uint32_t k, uint32_t *below, uint32_t *above)
{
    *above = 0;
    while (*above + 1 < PD_BANDS && pd_band_k[*above] < k)
        ++*above;
    while (*above > 0 && !c->curves[*above][0].points)
        --*above;
    *below = *above > 0 && pd_band_k[*above] > k ? *above - 1 : *above;
}

/* The depth of the first point with as many probes; of the last where none has. */
static uint32_t depth_on(const pd_curve *curve, uint32_t nprobe)
{
    uint32_t i = 0;
    while (i + 1 < curve->points && curve->at[i].nprobe < nprobe)
        i++;
    return curve->points ? curve->at[i].depth : 0;
}

uint32_t pd_calibrated_depth(const pd_calibration *c, uint32_t k, float spread, uint32_t nprobe)
{
    if (!c->measured || k == 0) return 0;
    uint32_t below, above, s = 0;
    bands_of(c, k, &below, &above);
    while (s + 1 < PD_SPREADS - 1 && spread >= pd_spread_at[s + 1])
        s++;
    double ratio = 0;
    for (uint32_t b = below; b <= above; b++) {
        for (uint32_t at = s; at <= s + (spread > 0); at++) {
            uint32_t depth = depth_on(&c->curves[b][at], nprobe);
            if (!depth) return 0;
            if (depth > ratio * pd_band_k[b]) ratio = (double)depth / pd_band_k[b];
        }
    }
    double depth = ceil((double)k * ratio - 1e-6), whole = pd_refine_depth(k);
    return (uint32_t)(depth < whole ? depth : whole);
}

uint32_t pd_calibrated_nprobe(const pd_calibration *c, uint32_t nlist, uint32_t k, float spread, float recall,
                              int *reached)
{
    if (reached) *reached = 0;
    if (!c->measured || nlist == 0) return nlist;
    if (!(spread > 0)) spread = 0; /* a NaN too */
    uint32_t below, above;
    bands_of(c, k, &below, &above);
    double need = 0;
    for (uint32_t b = below; b <= above; b++) {
        double here = need_at_spread(c->curves[b], spread, recall);
        if (here == 0) return nlist;
        if (here > need) need = here;
    }
    if (reached) *reached = 1;
    double whole = ceil(need - 1e-6);
    return whole >= (double)nlist ? nlist : whole < 1 ? 1 : (uint32_t)whole;
}
