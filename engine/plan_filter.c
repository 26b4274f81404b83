/* Filters in a plan: what they leave, and whether postings can answer them outright. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plan_impl.h"

typedef struct estimate {
    const pd_resident *resident;
    const pd_version_info *info;
    uint64_t rows;
    double share;
    int unknown; /* whether some test follows the lists cannot be told */
    pd_cover best;
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

static uint64_t rows_of(const estimate *e, const pd_attribute *attribute, uint64_t value, pd_cover *cover)
{
    pd_matches matches;
    pd_resident_posting(e->resident, attribute, value, &matches);
    cover->slots += matches.nslots + matches.nmore;
    if (!matches.listed) cover->attribute = NULL;
    return matches.rows;
}

/* Takes in one test: it leaves rows (at most), and, where the cover has an attribute, postings hold all of them. */
static void take_in(estimate *e, uint64_t rows, pd_cover how)
{
    double share = (double)rows / (double)e->rows;
    e->share *= share < 1 ? share : 1;
    if (how.attribute && (!e->best.attribute || how.slots < e->best.slots)) e->best = how;
}

static void byte_test(estimate *e, const pd_byte_test *test)
{
    const pd_attribute *category = attribute_at(e->info->schema, PD_CATEGORY, test->column);
    /* The buckets of a range, which is taken in by itself. */
    for (uint32_t i = 0; !category && i < e->info->schema->nattributes; i++)
        if (e->info->schema->attributes[i].type == PD_NUMBER &&
            e->info->schema->attributes[i].byte_column == test->column)
            return;
    const uint64_t *histogram = pd_resident_histogram(e->resident, test->column);
    uint64_t rows = 0;
    pd_cover cover = {.attribute = category, .byte = test};
    for (uint32_t v = 0; v < e->info->shape.sizes[test->column]; v++) {
        if (!(test->allow[v / 64] >> (v % 64) & 1)) continue;
        rows += histogram[v];
        if (category) rows_of(e, category, v, &cover);
    }
    take_in(e, rows, cover);
}

static void range_test(estimate *e, const pd_range_test *test)
{
    const pd_attribute *number = attribute_at(e->info->schema, PD_NUMBER, test->column);
    if (!number) return;
    pd_matches matches;
    pd_resident_range(e->resident, number, test->low, test->high, &matches);
    take_in(e, matches.rows,
            (pd_cover){.attribute = matches.listed ? number : NULL,
                       .range = test,
                       .slots = matches.nslots + matches.nmore});
}

static void set_test(estimate *e, const pd_set_test *test)
{
    const pd_attribute *set = attribute_at(e->info->schema, PD_SET, test->column);
    if (!set) return;
    uint64_t any_rows = 0;
    pd_cover any = {.attribute = set, .members = test->any};
    for (uint32_t m = 0; m < PD_MAX_MEMBERS; m++) {
        uint64_t bit = 1ull << m;
        pd_cover one = {.attribute = set, .members = bit};
        if (!((test->any | test->all | test->none) & bit)) continue;
        uint64_t rows = rows_of(e, set, m, &one);
        if (test->all & bit) take_in(e, rows, one);
        if (test->none & bit) take_in(e, e->rows - rows, (pd_cover){0});
        if (!(test->any & bit)) continue;
        any_rows += rows;
        any.slots += one.slots;
        if (!one.attribute) any.attribute = NULL;
    }
    if (test->any) take_in(e, any_rows, any);
}

static void key_test(estimate *e, const pd_key_test *test)
{
    const pd_attribute *key = attribute_at(e->info->schema, PD_KEY, test->column);
    if (!key) return;
    e->unknown |= !test->negate;
    uint64_t rows = 0;
    pd_cover cover = {.attribute = key, .key = test};
    for (uint32_t i = 0; i < test->count; i++)
        rows += rows_of(e, key, test->values[i], &cover);
    if (test->negate)
        take_in(e, rows < e->rows ? e->rows - rows : 0, (pd_cover){0});
    else
        take_in(e, rows, cover);
}

/* ------------------------------------------------------------------------------------------------ lists --- */

/* shares[l] *= the share of list l that passes a byte test. */
static void list_shares(const pd_version_info *info, const pd_byte_test *test, double *shares, double *here)
{
    const float *histograms =
        info->lists.histograms + (size_t)info->layout.weight_at[test->column] * info->shape.nlist;
    uint32_t nlist = info->shape.nlist, size = info->shape.sizes[test->column], allowed = 0;
    for (uint32_t v = 0; v < size; v++)
        allowed += test->allow[v / 64] >> (v % 64) & 1;
    int inverse = allowed > size / 2; /* the fewer, as the shares of a list add up to 1 */
    for (uint32_t l = 0; l < nlist; l++)
        here[l] = 0;
    for (uint32_t v = 0; v < size; v++) {
        if ((int)(test->allow[v / 64] >> (v % 64) & 1) == inverse) continue;
        for (uint32_t l = 0; l < nlist; l++)
            here[l] += (double)histograms[(size_t)v * nlist + l];
    }
    for (uint32_t l = 0; l < nlist; l++)
        shares[l] *= inverse ? fmax(1 - here[l], 0) : here[l];
}

/* Does what passes follow the lists? A row that passes shares its list with others that pass: if the filter is blind to
 * the vectors these are the share s of the rest, and with it itself s + (1 - s) / n for n rows a list; where they are
 * more by a tenth the filter is not blind. */
static int follows(const pd_version_info *info, const double *shares)
{
    double rows = 0, pass = 0, squares = 0, lists = 0;
    for (uint32_t l = 0; l < info->shape.nlist; l++) {
        double n = (double)info->lists.rows[l];
        rows += n;
        pass += n * shares[l];
        squares += n * shares[l] * shares[l];
        lists += n > 0;
    }
    if (!(pass > 0)) return 0;
    double share = pass / rows, chance = share + (1 - share) * lists / rows;
    return squares / pass > 1.1 * chance;
}

/* The values of one plane that a set test lets through; "any of" counts where all its members lie in this plane. Returns
 * 0 where the test says nothing of the plane. */
static int plane_test(const pd_set_test *test, uint32_t plane, pd_byte_test *out)
{
    uint32_t shift = 8 * plane;
    uint64_t all = test->all >> shift & 255, none = test->none >> shift & 255;
    uint64_t any = test->any & ~((uint64_t)255 << shift) ? 0 : test->any >> shift & 255;
    *out = (pd_byte_test){.column = test->column + plane};
    for (uint64_t v = 0; v < 256; v++)
        if ((v & all) == all && !(v & none) && (!any || (v & any)))
            out->allow[v / 64] |= UINT64_C(1) << v % 64;
    return (all | none | any) != 0;
}

/* Of sets too; *told: 0 where the planes cannot tell. */
static void set_shares(const pd_version_info *info, const pd_set_test *test, double *shares, double *here,
                       int *told)
{
    uint32_t planes = 0;
    for (uint32_t plane = 0; plane < 8; plane++) {
        pd_byte_test byte;
        planes += (test->any >> (8 * plane) & 255) != 0;
        if (plane_test(test, plane, &byte) && info->shape.sizes[byte.column])
            list_shares(info, &byte, shares, here);
    }
    if (planes > 1) *told = 0;
}

static pd_status find_tied(const pd_version_info *info, const pd_filter *filter, int *tied, pd_error *err)
{
    uint32_t nlist = info->shape.nlist;
    int told = 1;
    if (*tied || filter->nbytes + filter->nsets == 0 || !nlist || !info->lists.histograms) return PD_OK;
    double *shares = malloc(2 * (size_t)nlist * sizeof *shares);
    if (!shares) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to plan");
    for (uint32_t l = 0; l < nlist; l++)
        shares[l] = 1;
    for (uint32_t i = 0; i < filter->nbytes; i++)
        list_shares(info, &filter->bytes[i], shares, shares + nlist);
    for (uint32_t i = 0; i < filter->nsets; i++)
        set_shares(info, &filter->sets[i], shares, shares + nlist, &told);
    *tied = !told || follows(info, shares);
    free(shares);
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------ rows --- */

static void append(const pd_resident *resident, const pd_cover *best, uint64_t value, pd_plan *plan)
{
    pd_matches matches;
    pd_resident_posting(resident, best->attribute, value, &matches);
    plan->nslots += (uint32_t)pd_matches_copy(&matches, plan->slots + plan->nslots);
}

pd_status pd_plan_rows(const pd_resident *resident, const pd_cover *best, pd_plan *plan, pd_error *err)
{
    pd_plan_free(plan);
    plan->slots = malloc((best->slots + 1) * sizeof *plan->slots);
    if (!plan->slots)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %llu rows",
                       (unsigned long long)best->slots);
    for (uint32_t v = 0; best->byte && v < 256; v++)
        if (best->byte->allow[v / 64] >> (v % 64) & 1) append(resident, best, v, plan);
    for (uint32_t m = 0; best->members && m < PD_MAX_MEMBERS; m++)
        if (best->members >> m & 1) append(resident, best, m, plan);
    for (uint32_t i = 0; best->key && i < best->key->count; i++)
        append(resident, best, best->key->values[i], plan);
    if (best->range) {
        pd_matches matches;
        pd_resident_range(resident, best->attribute, best->range->low, best->range->high, &matches);
        plan->nslots = (uint32_t)pd_matches_copy(&matches, plan->slots);
    }
    plan->path = PD_PATH_ROWS;
    plan->nprobe = 0;
    plan->recall = 1.0f;
    plan->note[0] = 0;
    return PD_OK;
}

pd_status pd_plan_leaves(const pd_resident *resident, const pd_filter *filter, pd_leaves *out, pd_error *err)
{
    estimate e = {.resident = resident,
                  .info = pd_version_info_of(pd_resident_version(resident)),
                  .rows = pd_resident_rows(resident),
                  .share = 1};
    for (uint32_t i = 0; i < filter->nbytes; i++)
        byte_test(&e, &filter->bytes[i]);
    for (uint32_t i = 0; i < filter->nranges; i++)
        range_test(&e, &filter->ranges[i]);
    for (uint32_t i = 0; i < filter->nsets; i++)
        set_test(&e, &filter->sets[i]);
    for (uint32_t i = 0; i < filter->nkeys; i++)
        key_test(&e, &filter->keys[i]);
    double least = 1.0 / (double)e.rows;
    *out = (pd_leaves){.share = e.share > least ? e.share : least, .tied = e.unknown, .best = e.best};
    return find_tied(e.info, filter, &out->tied, err);
}
