/* Planning one compiled context: path, probes, and rows from postings.
 *
 * The probes come from the calibration at the spread that the weights make. What weighs much and is held by few rows
 * (a boosted brand, a rare value) would widen that spread and still be missed, as no list is full of it; such rows are
 * taken from postings instead, all of them, and are left out of the spread.
 *
 * A selective filter is answered from the fewest rows that one of its tests leaves, where looking at them is cheaper than
 * the lists would be: all rows that can pass are scored, so the answer is complete. Any other filter widens the probes, and
 * the reply says so: k hits among a share s of the rows lie as deep as k / s among all. That holds where what passes is
 * a random share of each list; where it follows the lists the probes are widened by 1 / s, and nothing is promised. What a
 * filter leaves is estimated in plan_filter.c.
 */
#include "plan.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate.h"
#include "live.h"
#include "plan_impl.h"

#define DEFAULT_RECALL 0.95f
#define MOST_SLOTS     65536u /* rows from postings besides the probes */
#define HEAVY          2.0 /* a weight this many deviations of the similarity over its column's mean is heavy */
#define FEW_ROWS       1024u /* that a filter leaves: they are looked at without asking what lists would cost */
#define ROW_COST       64.0 /* of a row from postings, in rows of a list (pados-filters-bench measures it) */
#define RARE           64u  /* a value held by fewer than one row in this many is rare */

const char *pd_path_name(pd_path path)
{
    static const char *const names[] = {"ivf", "rows", "attributes", "exact", "all"};
    return (unsigned)path < sizeof names / sizeof *names ? names[path] : "unknown";
}

void pd_plan_free(pd_plan *plan)
{
    free(plan->slots);
    plan->slots = NULL;
    plan->nslots = 0;
}

static void add_note(pd_plan *plan, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_note(pd_plan *plan, const char *format, ...)
{
    size_t at = strlen(plan->note);
    if (at > 0 && at + 2 < sizeof plan->note) {
        memcpy(plan->note + at, "; ", 3);
        at += 2;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(plan->note + at, sizeof plan->note - at, format, args);
    va_end(args);
}

/* ------------------------------------------------------------------------------------------------ boosts --- */

/* Something heavy and rare, with its rows. */
typedef struct boost {
    double weight;
    pd_matches matches; /* not listed: too frequent */
    uint32_t weight_at; /* in the weight table; UINT32_MAX: a key */
    float instead;      /* what the table's entry counts as once its rows are taken in */
} boost;

typedef struct boosts {
    boost *at;
    uint32_t count, room;
} boosts;

static pd_status add_boost(boosts *list, boost one, pd_error *err)
{
    if (list->count == list->room) {
        uint32_t room = list->room ? list->room * 2 : 64;
        boost *grown = realloc(list->at, room * sizeof *grown);
        if (!grown) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to plan");
        list->at = grown;
        list->room = room;
    }
    list->at[list->count++] = one;
    return PD_OK;
}

static const pd_attribute *key_attribute(const pd_schema *schema, uint32_t column)
{
    for (uint32_t i = 0; i < schema->nattributes; i++)
        if (schema->attributes[i].type == PD_KEY && schema->attributes[i].key_column == column)
            return &schema->attributes[i];
    return NULL;
}

static pd_status find_keys(const pd_resident *resident, const pd_compiled *compiled, boosts *list,
                           pd_error *err)
{
    const pd_schema *schema = pd_version_info_of(pd_resident_version(resident))->schema;
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < compiled->nkey_weights; i++) {
        const pd_key_weight *key = &compiled->key_weights[i];
        const pd_attribute *attribute = key_attribute(schema, key->column);
        if (!attribute) continue;
        boost one = {.weight = (double)key->weight, .weight_at = UINT32_MAX};
        pd_resident_posting(resident, attribute, key->value, &one.matches);
        if (one.matches.rows) status = add_boost(list, one, err);
    }
    return status;
}

static double column_mean(const uint64_t *histogram, const float *table, uint32_t used, uint64_t rows)
{
    double sum = 0;
    for (uint32_t v = 0; v < used; v++)
        sum += (double)histogram[v] * (double)table[v];
    return sum / (double)rows;
}

static int is_rare(const pd_matches *matches, uint64_t rows)
{
    return matches->listed && matches->rows && matches->rows < rows / RARE;
}

/* Rare heavy values of one category. heavy: how far over the mean. */
static pd_status find_values(const pd_resident *resident, const pd_attribute *attribute, const float *weights,
                             double heavy, boosts *list, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    uint32_t column = attribute->byte_column, used = pd_resident_used(resident, column);
    uint32_t start = info->layout.weight_at[column];
    const uint64_t *histogram = pd_resident_histogram(resident, column);
    uint64_t rows = pd_resident_rows(resident);
    double mean = column_mean(histogram, weights + start, used, rows);
    pd_status status = PD_OK;
    for (uint32_t v = 1; !status && v < used; v++) {
        double weight = (double)weights[start + v];
        if (!(weight > 0) || weight - mean <= heavy) continue;
        /* Once its rows are taken in, the entry weighs what the other rows weigh in the mean. */
        double share = (double)histogram[v] / (double)rows;
        float others = share < 1 ? (float)((mean - share * weight) / (1 - share)) : 0.0f;
        boost one = {.weight = weight, .weight_at = start + v, .instead = others};
        pd_resident_posting(resident, attribute, v, &one.matches);
        if (is_rare(&one.matches, rows)) status = add_boost(list, one, err);
    }
    return status;
}

/* Rare heavy members of one set. A member's weight is its plane's entry with only its bit set; the entries of other
 * combinations are sums of these, so the spread is left as it is: an over-estimate. */
static pd_status find_members(const pd_resident *resident, const pd_attribute *attribute,
                              const float *weights, double heavy, boosts *list, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    pd_status status = PD_OK;
    for (uint32_t m = 0; !status && m < pd_attribute_values(attribute); m++) {
        uint32_t column = attribute->byte_column + m / 8, entry = 1u << (m % 8);
        if (entry >= info->shape.sizes[column]) continue;
        const float *plane = weights + info->layout.weight_at[column];
        boost one = {.weight = (double)plane[entry] - (double)plane[0], .weight_at = UINT32_MAX - 1};
        if (one.weight <= heavy) continue;
        pd_resident_posting(resident, attribute, m, &one.matches);
        if (is_rare(&one.matches, pd_resident_rows(resident))) status = add_boost(list, one, err);
    }
    return status;
}

static int by_weight(const void *left, const void *right)
{
    const boost *l = left, *r = right;
    if (l->weight != r->weight) return l->weight < r->weight ? 1 : -1;
    return (l->matches.rows > r->matches.rows) - (l->matches.rows < r->matches.rows);
}

static int by_slot(const void *left, const void *right)
{
    uint32_t l = *(const uint32_t *)left, r = *(const uint32_t *)right;
    return (l > r) - (l < r);
}

/* Sorts slots and removes repeats; returns how many are left. */
static uint32_t distinct(uint32_t *slots, uint32_t n)
{
    if (n == 0) return 0;
    qsort(slots, n, sizeof *slots, by_slot);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!kept || slots[i] != slots[kept - 1]) slots[kept++] = slots[i];
    return kept;
}

static uint64_t slots_of(const pd_matches *matches)
{
    return matches->nslots + matches->nmore;
}

/* Takes boosts into plan->slots, heaviest first, and what they carry out of weights (a copy). *left: the variance of the
 * keys that stay outside. */
static pd_status take_boosts(const boosts *list, uint64_t rows, float *weights, pd_plan *plan, double *left,
                             pd_error *err)
{
    uint64_t total = 0;
    uint32_t cut = 0;
    for (uint32_t i = 0; i < list->count; i++)
        if (list->at[i].matches.listed && list->at[i].weight > 0) total += slots_of(&list->at[i].matches);
    if (total > MOST_SLOTS) total = MOST_SLOTS;
    if (total && !(plan->slots = malloc(total * sizeof *plan->slots)))
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %llu rows from postings",
                       (unsigned long long)total);
    for (uint32_t i = 0; i < list->count; i++) {
        const boost *one = &list->at[i];
        int wanted = one->matches.listed && one->weight > 0;
        if (wanted && plan->nslots + slots_of(&one->matches) <= total) {
            plan->nslots += (uint32_t)pd_matches_copy(&one->matches, plan->slots + plan->nslots);
            if (weights && one->weight_at < UINT32_MAX - 1) weights[one->weight_at] = one->instead;
            continue;
        }
        cut += (uint32_t)wanted;
        double share = (double)one->matches.rows / (double)rows;
        if (one->weight_at == UINT32_MAX) *left += one->weight * one->weight * share * (1 - share);
    }
    if (cut) add_note(plan, "%u boosted values are held by too many rows to be looked up", cut);
    return PD_OK;
}

/* Slots from postings, and the spread of what is left. */
static pd_status plan_boosts(const pd_resident *resident, const pd_compiled *compiled, pd_plan *plan,
                             pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    double sd = (double)info->calibration->similarity_sd * (double)compiled->similarity, left = 0;
    boosts list = {0};
    float *weights = NULL;
    pd_status status = find_keys(resident, compiled, &list, err);
    for (uint32_t i = 0; !status && compiled->weights && i < info->schema->nattributes; i++) {
        const pd_attribute *attribute = &info->schema->attributes[i];
        if (attribute->type == PD_CATEGORY)
            status = find_values(resident, attribute, compiled->weights, HEAVY * sd, &list, err);
        if (attribute->type == PD_SET)
            status = find_members(resident, attribute, compiled->weights, HEAVY * sd, &list, err);
    }
    /* A copy that entries are taken out of; without boosts none are. */
    if (!status && compiled->weights && list.count) {
        size_t bytes = (size_t)info->layout.weights * sizeof *weights;
        weights = malloc(bytes + 1);
        if (!weights)
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to plan");
        else
            memcpy(weights, compiled->weights, bytes);
    }
    if (!status && list.count) qsort(list.at, list.count, sizeof *list.at, by_weight);
    if (!status) status = take_boosts(&list, pd_resident_rows(resident), weights, plan, &left, err);
    if (!status) {
        const float *left_in = weights ? weights : compiled->weights;
        double own = left_in ? (double)pd_weights_sd(resident, left_in) : 0;
        double whole = sqrt(own * own + left);
        plan->spread = whole == 0 ? 0.0f : sd > 0 ? (float)(whole / sd) : INFINITY;
    }
    free(weights);
    free(list.at);
    return status;
}

/* ------------------------------------------------------------------------------------------------ probes --- */

static void plan_probes(const pd_version_info *info, const pd_want *want, pd_plan *plan)
{
    const pd_calibration *calibration = info->calibration;
    uint32_t nlist = info->shape.nlist;
    float recall = want->recall > 0 ? want->recall : DEFAULT_RECALL, last = pd_spread_at[PD_SPREADS - 1];
    if (want->nprobe) {
        plan->nprobe = want->nprobe;
    } else if (!calibration->measured) {
        plan->nprobe = nlist / 16 > 8 ? nlist / 16 : 8;
        add_note(plan, "the version is not calibrated: %u of %u lists are probed without a promise",
                 plan->nprobe < nlist ? plan->nprobe : nlist, nlist);
    } else {
        int reached = 0;
        plan->nprobe = pd_calibrated_nprobe(calibration, nlist, want->k, plan->spread, recall, &reached);
        plan->recall = reached && plan->spread <= last ? recall : 0.0f;
        if (!reached)
            add_note(plan, "recall %g was not reached when the version was calibrated; every list is probed",
                     (double)recall);
        else if (plan->spread > last)
            add_note(plan,
                     "the weights spread %.2g times as far as the similarity, more than was calibrated (%g)",
                     (double)plan->spread, (double)last);
    }
    if (plan->nprobe > nlist) plan->nprobe = nlist;
}

/* Probes under a filter that is blind to the vectors: k hits of a share s of the rows lie as deep as k / s of all, and
 * are as many of those as of any, so that the curve for k / s holds: between bands linearly in log k, over the last one
 * in proportion. *promised: 0 over the last. */
static double probes_behind(const pd_version_info *info, const pd_want *want, double share,
                            const pd_plan *plan, int *promised)
{
    const pd_calibration *calibration = info->calibration;
    float recall = want->recall > 0 ? want->recall : DEFAULT_RECALL;
    double deep = (double)want->k / share, log_before = 0, before = 0;
    *promised = 1;
    for (uint32_t b = 0; b < PD_BANDS && calibration->curves[b][0].points; b++) {
        int reached;
        double at = log((double)pd_band_k[b]),
               here = (double)pd_calibrated_nprobe(calibration, info->shape.nlist, pd_band_k[b], plan->spread,
                                                   recall, &reached);
        *promised = *promised && reached;
        if (here < before) here = before;
        if (deep <= (double)pd_band_k[b])
            return b ? before + (here - before) * (log(deep) - log_before) / (at - log_before) : here;
        log_before = at;
        before = here;
    }
    *promised = 0;
    return before * deep / exp(log_before);
}

static void widen(const pd_version_info *info, const pd_want *want, const pd_leaves *leaves, pd_plan *plan)
{
    float recall = plan->recall;
    plan->recall = 0.0f;
    if (want->nprobe) return; /* the caller's word */
    uint32_t nlist = info->shape.nlist;
    double nprobe = ceil((double)plan->nprobe / leaves->share);
    if (info->calibration->measured && !leaves->tied) {
        int promised;
        double behind = probes_behind(info, want, leaves->share, plan, &promised);
        if (behind < nprobe) nprobe = ceil(behind);
        if (promised) plan->recall = recall;
    }
    uint32_t wide = nprobe < (double)nlist ? (uint32_t)nprobe : nlist;
    if (wide > plan->nprobe)
        add_note(plan, "probes widened from %u to %u for a filter that leaves about %.2g%% of the rows",
                 plan->nprobe, wide, leaves->share * 100);
    if (recall > 0 && plan->recall == 0 && wide < nlist)
        add_note(plan, leaves->tied ? "what it leaves may follow the vectors: recall is not promised"
                                    : "it is deeper than was calibrated: recall is not promised");
    plan->nprobe = wide;
}

/* Is looking at every row of the cover cheaper than the lists that would be probed? A row from postings is a page from
 * memory for one query; a row of a list shares its page with 31 others, and with other queries of the batch. */
static int rows_are_cheaper(const pd_resident *resident, const pd_cover *cover, uint32_t nprobe)
{
    if (!cover->attribute) return 0;
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    double visited = (double)nprobe / (double)info->shape.nlist * (double)pd_resident_rows(resident);
    return cover->slots <= FEW_ROWS || (double)cover->slots * ROW_COST <= visited;
}

/* ------------------------------------------------------------------------------------------------ the whole --- */

static pd_status check_want(const pd_want *want, pd_error *err)
{
    if (want->k == 0 || want->k > PD_MAX_K)
        return pd_fail(err, PD_INVALID_ARGUMENT, "k is %u, it must be 1 to %u", want->k, PD_MAX_K);
    if (!(want->recall >= 0 && want->recall <= 1))
        return pd_fail(err, PD_INVALID_ARGUMENT, "recall is %g, it must be over 0 and at most 1",
                       (double)want->recall);
    if (want->recall > 0 && want->nprobe)
        return pd_fail(err, PD_INVALID_ARGUMENT, "recall and nprobe cannot both be asked for");
    return PD_OK;
}

static pd_status plan_vector(const pd_resident *resident, const pd_compiled *compiled, const pd_want *want,
                             pd_plan *plan, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    pd_leaves leaves = {.share = 1};
    pd_status status =
        compiled->has_filter ? pd_plan_leaves(resident, &compiled->filter, &leaves, err) : PD_OK;
    if (!status) status = plan_boosts(resident, compiled, plan, err);
    if (status) return status;
    plan_probes(info, want, plan);
    if (compiled->has_filter) widen(info, want, &leaves, plan);
    if (compiled->has_filter && rows_are_cheaper(resident, &leaves.best, plan->nprobe))
        return pd_plan_rows(resident, &leaves.best, plan, err);
    if (!(compiled->similarity > 0)) plan->nprobe = info->shape.nlist; /* no list is nearer than another */
    if (plan->nprobe >= info->shape.nlist) {
        plan->path = PD_PATH_ALL;
        pd_plan_free(plan); /* every row is scored in any case */
    }
    return PD_OK;
}

uint32_t pd_plan_depth(const pd_resident *resident, const pd_plan *plan, uint32_t hits)
{
    /* Every other path is to be as near to exact as the codes allow. */
    if (plan->path != PD_PATH_IVF) return 0;
    return pd_calibrated_depth(pd_version_info_of(pd_resident_version(resident))->calibration, hits,
                               plan->spread, plan->nprobe);
}

/* What is read of the resident stays as it is meanwhile. Slots come in any order, some twice. */
static pd_status plan_locked(const pd_resident *resident, const pd_compiled *compiled, const pd_want *want,
                             int has_vector, pd_plan *out, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(pd_resident_version(resident));
    pd_status status = PD_OK;
    if (!has_vector) {
        out->path = PD_PATH_ATTRIBUTES;
        out->recall = 1.0f;
    } else if (want->exact) {
        out->path = PD_PATH_EXACT;
        out->recall = 1.0f;
    } else if (pd_resident_rows(resident) == 0 || info->shape.nlist == 0) {
        out->path = PD_PATH_ALL;
        out->nprobe = info->shape.nlist;
        out->recall = 1.0f;
    } else {
        status = plan_vector(resident, compiled, want, out, err);
        out->depth = pd_plan_depth(resident, out, want->k);
        if (status) pd_plan_free(out);
    }
    return status;
}

pd_status pd_plan_make(const pd_resident *resident, const pd_compiled *compiled, const pd_want *want,
                       int has_vector, pd_plan *out, pd_error *err)
{
    memset(out, 0, sizeof *out);
    pd_status status = check_want(want, err);
    if (status) return status;
    pd_resident_lock(resident);
    status = plan_locked(resident, compiled, want, has_vector, out, err);
    pd_resident_unlock(resident);
    /* Sorting takes longer than the rest, and changes wait for the lock. */
    out->nslots = distinct(out->slots, out->nslots);
    return status;
}
