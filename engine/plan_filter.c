/* Filters in a plan: what they leave, and whether postings can answer them outright. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan_impl.h"

/* The posting lists that together hold every row that passes one test. */
typedef struct cover {
    uint64_t count;                /* rows, repeats included */
    const pd_attribute *attribute; /* NULL: none found yet */
    uint64_t members;              /* of a set */
    const pd_byte_test *byte;
    const pd_key_test *key;
} cover;

typedef struct estimate {
    const pd_resident *resident;
    const pd_version_info *info;
    double share;
    cover best;
} estimate;

static const pd_attribute *attribute_at(const pd_schema *schema, pd_attribute_type type, uint32_t column)
{
    for (uint32_t i = 0; i < schema->nattributes; i++) {
        const pd_attribute *a = &schema->attributes[i];
        uint32_t at = type == PD_KEY ? a->key_column : type == PD_NUMBER ? a->float_column : a->byte_column;
        if (a->type == type && at == column) return a;
    }
    return NULL;
}

static uint64_t rows_of(const estimate *e, const pd_attribute *attribute, uint64_t value, int *listed)
{
    const uint32_t *slots;
    uint64_t count;
    pd_resident_posting(e->resident, attribute, value, &slots, &count);
    if (count && !slots) *listed = 0;
    return count;
}

/* Takes in one test: it leaves rows (at most), and, where listed, postings hold all of them. */
static void take_in(estimate *e, uint64_t rows, int listed, cover how)
{
    double share = (double)rows / (double)e->info->rows;
    e->share *= share < 1 ? share : 1;
    how.count = rows;
    if (listed && how.attribute && (!e->best.attribute || rows < e->best.count)) e->best = how;
}

static void byte_test(estimate *e, const pd_byte_test *test)
{
    const pd_attribute *category = attribute_at(e->info->schema, PD_CATEGORY, test->column);
    const uint64_t *histogram = pd_resident_histogram(e->resident, test->column);
    uint64_t rows = 0;
    int listed = 1;
    for (uint32_t v = 0; v < e->info->shape.sizes[test->column]; v++) {
        if (!(test->allow[v / 64] >> (v % 64) & 1)) continue;
        rows += histogram[v];
        if (category) rows_of(e, category, v, &listed);
    }
    take_in(e, rows, listed, (cover){.attribute = category, .byte = test});
}

/* The part of a bucket that lies within a range: whole, none, or by length where both its edges are known. */
static double part_of(const pd_attribute *a, uint32_t bucket, const pd_range_test *test)
{
    double from = bucket > 1 ? (double)a->knots[bucket - 2] : -INFINITY;
    double to = bucket <= a->nknots ? (double)a->knots[bucket - 1] : INFINITY;
    double low = (double)test->low, high = (double)test->high;
    if (high < from || low >= to) return 0;
    if (low <= from && high >= to) return 1;
    if (isinf(from) || isinf(to)) return 0.5;
    double part = ((high < to ? high : to) - (low > from ? low : from)) / (to - from);
    return part > 0.05 ? part : 0.05; /* a single value may be what the whole bucket holds */
}

static void range_test(estimate *e, const pd_range_test *test)
{
    const pd_attribute *number = attribute_at(e->info->schema, PD_NUMBER, test->column);
    if (!number) return;
    const uint64_t *histogram = pd_resident_histogram(e->resident, number->byte_column);
    double rows = 0;
    for (uint32_t b = 1; b <= number->nknots + 1; b++)
        rows += (double)histogram[b] * part_of(number, b, test);
    take_in(e, (uint64_t)rows, 0, (cover){0});
}

static void set_test(estimate *e, const pd_set_test *test)
{
    const pd_attribute *set = attribute_at(e->info->schema, PD_SET, test->column);
    if (!set) return;
    uint64_t any_rows = 0;
    int any_listed = 1;
    for (uint32_t m = 0; m < PD_MAX_MEMBERS; m++) {
        int listed = 1;
        uint64_t bit = 1ull << m;
        if (!((test->any | test->all | test->none) & bit)) continue;
        uint64_t rows = rows_of(e, set, m, &listed);
        if (test->all & bit) take_in(e, rows, listed, (cover){.attribute = set, .members = bit});
        if (test->none & bit) take_in(e, e->info->rows - rows, 0, (cover){0});
        if (test->any & bit) any_rows += rows;
        if (test->any & bit && !listed) any_listed = 0;
    }
    if (test->any) take_in(e, any_rows, any_listed, (cover){.attribute = set, .members = test->any});
}

static void key_test(estimate *e, const pd_key_test *test)
{
    const pd_attribute *key = attribute_at(e->info->schema, PD_KEY, test->column);
    if (!key) return;
    uint64_t rows = 0;
    int listed = 1;
    for (uint32_t i = 0; i < test->count; i++)
        rows += rows_of(e, key, test->values[i], &listed);
    if (test->negate)
        take_in(e, rows < e->info->rows ? e->info->rows - rows : 0, 0, (cover){0});
    else
        take_in(e, rows, listed, (cover){.attribute = key, .key = test});
}

/* ------------------------------------------------------------------------------------------------ rows --- */

static void append(const estimate *e, uint64_t value, pd_plan *plan)
{
    const uint32_t *slots;
    uint64_t count;
    pd_resident_posting(e->resident, e->best.attribute, value, &slots, &count);
    if (!count) return;
    memcpy(plan->slots + plan->nslots, slots, count * sizeof *slots);
    plan->nslots += (uint32_t)count;
}

static pd_status take_rows(const estimate *e, pd_plan *plan, pd_error *err)
{
    const cover *best = &e->best;
    plan->slots = malloc((best->count + 1) * sizeof *plan->slots);
    if (!plan->slots)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %llu rows",
                       (unsigned long long)best->count);
    for (uint32_t v = 0; best->byte && v < 256; v++)
        if (best->byte->allow[v / 64] >> (v % 64) & 1) append(e, v, plan);
    for (uint32_t m = 0; best->members && m < PD_MAX_MEMBERS; m++)
        if (best->members >> m & 1) append(e, m, plan);
    for (uint32_t i = 0; best->key && i < best->key->count; i++)
        append(e, best->key->values[i], plan);
    plan->nslots = pd_plan_distinct(plan->slots, plan->nslots);
    plan->path = PD_PATH_ROWS;
    plan->recall = 1.0f;
    return PD_OK;
}

pd_status pd_plan_filter(const pd_resident *resident, const pd_filter *filter, pd_plan *plan, int *found,
                         double *share, pd_error *err)
{
    estimate e = {
        .resident = resident, .info = pd_version_info_of(pd_resident_version(resident)), .share = 1};
    for (uint32_t i = 0; i < filter->nbytes; i++)
        byte_test(&e, &filter->bytes[i]);
    for (uint32_t i = 0; i < filter->nranges; i++)
        range_test(&e, &filter->ranges[i]);
    for (uint32_t i = 0; i < filter->nsets; i++)
        set_test(&e, &filter->sets[i]);
    for (uint32_t i = 0; i < filter->nkeys; i++)
        key_test(&e, &filter->keys[i]);
    uint64_t few = e.info->rows / 200 > 4096 ? e.info->rows / 200 : 4096;
    *found = e.best.attribute && e.best.count <= few;
    double least = 1.0 / (double)e.info->rows;
    *share = e.share > least ? e.share : least;
    return *found ? take_rows(&e, plan, err) : PD_OK;
}
