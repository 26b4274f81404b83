/* What rows are summed up in, and how it forgets some of them: lists' rows and shares, segments' means, centroids.
 *
 * Nothing is subtracted: sums of floats do not come back by subtraction, and a mean of two less one is the other's row to the bit only
 * if it is added up anew. Of what lost a row, and of that alone, the rows that stay are added up as the build did, in the order of the
 * slots. Where source rows are f32 a mean comes out as it would have been built; where they are f16, as rounded as they are.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "score.h"
#include "scrub_impl.h"

/* A centroid so near to a row, by the square of their distance over that of the row's norm, was trained on it alone (source rows
 * of f16 are off by less). */
#define SAME_ROW 1e-6f

static float *centroid_of(const pd_scrubbing *s, uint32_t list)
{
    /* The lists lie in memory of this scrub's own version. */
    return (float *)s->v->info.lists.centroids + (size_t)list * s->v->info.shape.dim;
}

static uint32_t *rows_of(const pd_scrubbing *s, uint32_t list)
{
    return (uint32_t *)s->v->info.lists.rows + list;
}

/* ------------------------------------------------------------------------------------------------ survey --- */

static pd_status make_room(pd_scrubbing *s, pd_error *err)
{
    const pd_schema *schema = s->v->schema;
    uint32_t nlist = s->v->info.shape.nlist;
    int enough = 1;
    if (nlist) {
        s->place = malloc(nlist * sizeof *s->place);
        s->moved = calloc(nlist, 1);
        enough = s->place && s->moved;
        for (uint32_t i = 0; s->place && i < nlist; i++)
            s->place[i] = PD_NO_PLACE;
    }
    for (uint32_t i = 0; enough && i < schema->nattributes; i++) {
        if (!s->v->segments.means[i]) continue;
        size_t nvalues = schema->attributes[i].nvalues;
        s->lost[i] = calloc(nvalues, 1);
        s->sums[i] = calloc(nvalues * s->v->info.shape.dim, sizeof(double));
        enough = s->lost[i] && s->sums[i];
    }
    return enough ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to scrub %s", s->v->folder);
}

static void survey_row(pd_scrubbing *s, uint32_t slot, const float *row, const uint8_t *bytes)
{
    const pd_schema *schema = s->v->schema;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        if (!s->lost[i]) continue;
        s->lost[i][bytes[schema->attributes[i].byte_column]] = 1;
        s->segments = 1;
    }
    if (!s->place) return;
    uint32_t list = s->v->page_list[slot / PD_PAGE_ROWS], dim = s->v->info.shape.dim;
    if (s->place[list] == PD_NO_PLACE) s->place[list] = s->touched++;
    --*rows_of(s, list);
    if (pd_l2(centroid_of(s, list), row, dim) <= SAME_ROW * pd_dot(row, row, dim)) s->moved[list] = 1;
}

static pd_status survey_rows(pd_scrubbing *s, pd_error *err)
{
    const pd_shape *shape = &s->v->info.shape;
    float *row = malloc(shape->dim * sizeof *row);
    uint8_t *bytes = malloc(shape->nbytes + 1);
    pd_status status = PD_OK;
    if (!row || !bytes) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to scrub %s", s->v->folder);
    pd_rows rows = {.vectors = row, .bytes = bytes};
    for (uint32_t i = 0; !status && i < s->n; i++) {
        status = pd_version_rows(s->v, &s->slots[i], 1, &rows, err);
        if (!status) survey_row(s, s->slots[i], row, bytes);
    }
    free(row);
    free(bytes);
    return status;
}

/* ------------------------------------------------------------------------------------------------ centroids --- */

static int goes(const pd_scrubbing *s, uint32_t slot)
{
    uint32_t low = 0, high = s->n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (s->slots[middle] < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low < s->n && s->slots[low] == slot;
}

/* To the mean of the rows that stay. The one of opposite rows has no direction: under cosine it is left as it is. */
static pd_status move_to_mean(pd_scrubbing *s, uint32_t list, pd_error *err)
{
    const pd_version *v = s->v;
    const pd_lists *lists = &v->info.lists;
    uint32_t dim = v->info.shape.dim;
    void *page = aligned_alloc(64, v->info.layout.page_bytes);
    void *source = malloc((size_t)v->files[PD_FILE_SOURCE].page_bytes);
    double *sum = calloc(dim, sizeof *sum);
    float *row = malloc(dim * sizeof *row);
    pd_status status = PD_OK;
    if (!page || !source || !sum || !row)
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a centroid");
    for (uint32_t at = lists->offsets[list]; !status && at < lists->offsets[list + 1]; at++) {
        uint32_t number = lists->pages[at];
        status = pd_version_read(v, number, 1, page, source, err);
        for (uint32_t r = 0; !status && r < PD_PAGE_ROWS; r++) {
            if (isinf(pd_page_term(&v->info.layout, page)[r]) || goes(s, number * PD_PAGE_ROWS + r)) continue;
            pd_source_row(v, source, r, row);
            for (uint32_t d = 0; d < dim; d++)
                sum[d] += (double)row[d];
        }
    }
    float *centroid = centroid_of(s, list);
    for (uint32_t d = 0; !status && d < dim; d++)
        centroid[d] = (float)(sum[d] / *rows_of(s, list));
    if (!status && v->info.shape.metric == PD_COSINE) pd_normalise(centroid, dim);
    free(page);
    free(source);
    free(sum);
    free(row);
    return status;
}

/* To that of the nearest list that has its own, so that what comes to it later comes from near; zeros where none has. */
static void move_to_neighbour(pd_scrubbing *s, uint32_t list)
{
    uint32_t dim = s->v->info.shape.dim, nearest = PD_NO_PLACE;
    float *centroid = centroid_of(s, list), least = INFINITY;
    for (uint32_t i = 0; i < s->v->info.shape.nlist; i++) {
        if (s->moved[i] && !*rows_of(s, i)) continue;
        float far = pd_l2(centroid, centroid_of(s, i), dim);
        if (far >= least) continue;
        least = far;
        nearest = i;
    }
    if (nearest == PD_NO_PLACE)
        memset(centroid, 0, dim * sizeof *centroid);
    else
        memcpy(centroid, centroid_of(s, nearest), dim * sizeof *centroid);
}

/* Terms of projected rows were made with the mean of all centroids; one of many that moves a little moves what is estimated by them less
 * than their rounding did, and refine rows decide. */
static pd_status move_centroids(pd_scrubbing *s, pd_error *err)
{
    const pd_shape *shape = &s->v->info.shape;
    pd_status status = PD_OK;
    int any = 0;
    for (uint32_t i = 0; !status && i < shape->nlist; i++) {
        if (s->moved[i] && *rows_of(s, i)) status = move_to_mean(s, i, err);
        any |= s->moved[i];
    }
    for (uint32_t i = 0; !status && i < shape->nlist; i++)
        if (s->moved[i] && !*rows_of(s, i)) move_to_neighbour(s, i);
    if (status || !any || !shape->code_dim) return status;
    const pd_lists *lists = &s->v->info.lists;
    return pd_projection_open(lists->projection, shape->code_dim, lists->centroids, shape->nlist, shape->dim,
                              &s->projection, err);
}

pd_status pd_scrub_survey(pd_scrubbing *s, pd_error *err)
{
    pd_status status = make_room(s, err);
    if (!status) status = survey_rows(s, err);
    if (!status && s->touched) {
        s->counts = calloc((size_t)s->touched * s->v->info.layout.weights + 1, sizeof *s->counts);
        if (!s->counts)
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the shares of %u lists", s->touched);
    }
    if (!status) status = move_centroids(s, err);
    /* What was counted with the rows that go is counted anew. */
    for (uint32_t i = 0; !status && i < PD_MAX_ATTRIBUTES; i++)
        for (uint32_t value = 0; s->lost[i] && value < s->v->schema->attributes[i].nvalues; value++)
            if (s->lost[i][value]) s->v->segments.counts[i][value] = 0;
    return status;
}

/* ------------------------------------------------------------------------------------------------ sums --- */

static void count_values(pd_scrubbing *s, uint32_t place, void *page, uint32_t r)
{
    const pd_shape *shape = &s->v->info.shape;
    const pd_layout *layout = &s->v->info.layout;
    uint32_t *counts = s->counts + (size_t)place * layout->weights;
    for (uint32_t c = 0; c < shape->nbytes; c++)
        if (shape->sizes[c]) counts[layout->weight_at[c] + pd_page_bytes(layout, page, c)[r]]++;
}

static void add_to_segments(pd_scrubbing *s, void *page, uint32_t r, const void *source, float *row)
{
    const pd_schema *schema = s->v->schema;
    uint32_t dim = s->v->info.shape.dim;
    int taken = 0;
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        if (!s->lost[i]) continue;
        uint8_t value = pd_page_bytes(&s->v->info.layout, page, schema->attributes[i].byte_column)[r];
        if (!s->lost[i][value]) continue;
        if (!taken++) pd_source_row(s->v, source, r, row);
        s->v->segments.counts[i][value]++;
        double *sum = s->sums[i] + (size_t)value * dim;
        for (uint32_t d = 0; d < dim; d++)
            sum[d] += (double)row[d];
    }
}

void pd_scrub_add(pd_scrubbing *s, uint32_t page, void *bytes, const void *source, float *row)
{
    uint32_t place = s->place ? s->place[s->v->page_list[page]] : PD_NO_PLACE;
    if (place == PD_NO_PLACE && !s->segments) return;
    const float *term = pd_page_term(&s->v->info.layout, bytes);
    for (uint32_t r = 0; r < PD_PAGE_ROWS; r++) {
        if (isinf(term[r])) continue;
        if (place != PD_NO_PLACE) count_values(s, place, bytes, r);
        if (s->segments) add_to_segments(s, bytes, r, source, row);
    }
}

/* As the build writes them: a list without rows is unknown in every column. */
static void share(pd_scrubbing *s, uint32_t list)
{
    const pd_shape *shape = &s->v->info.shape;
    const pd_layout *layout = &s->v->info.layout;
    float *histograms = (float *)s->v->info.lists.histograms;
    const uint32_t *counts = s->counts + (size_t)s->place[list] * layout->weights;
    uint32_t n = *rows_of(s, list);
    for (uint32_t c = 0; c < shape->nbytes; c++) {
        for (uint32_t value = 0; value < shape->sizes[c]; value++) {
            size_t at = (size_t)(layout->weight_at[c] + value) * shape->nlist + list;
            uint32_t held = n ? counts[layout->weight_at[c] + value] : value == 0;
            histograms[at] = (float)held / (float)(n ? n : 1);
        }
    }
}

static void finish_mean(pd_scrubbing *s, uint32_t attribute, uint32_t value)
{
    uint32_t dim = s->v->info.shape.dim;
    uint64_t *count = &s->v->segments.counts[attribute][value];
    float *mean = s->v->segments.means[attribute] + (size_t)value * dim;
    const double *sum = s->sums[attribute] + (size_t)value * dim;
    memset(mean, 0, dim * sizeof *mean);
    for (uint32_t d = 0; *count && d < dim; d++)
        mean[d] = (float)(sum[d] / (double)*count);
    if (s->v->info.shape.metric == PD_COSINE && *count && !pd_normalise(mean, dim)) *count = 0;
}

void pd_scrub_sum(pd_scrubbing *s)
{
    for (uint32_t i = 0; s->place && i < s->v->info.shape.nlist; i++)
        if (s->place[i] != PD_NO_PLACE) share(s, i);
    for (uint32_t i = 0; i < s->v->schema->nattributes; i++)
        for (uint32_t value = 0; s->lost[i] && value < s->v->schema->attributes[i].nvalues; value++)
            if (s->lost[i][value]) finish_mean(s, i, value);
}
