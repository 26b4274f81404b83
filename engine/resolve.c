/* Ids and mixes become vectors, on the executor, because rows are gathered from a device's index. Tables change between two
 * steps of the executor and never within one: a slot that is looked up here still holds its row when it is gathered.
 *
 * An id that is not there goes down the chain that the table of the ids declares: the vector given with the request, the mean of
 * the segment that the request's context names, no vector at all. Without a declared chain it is (given, attributes), but for
 * a row of the searched table itself only (given): "more like this" of an item that is not there is a mistake, a
 * shopper who is new is not. A row whose consent attribute says "no" is never a query: it goes down the chain as if it were
 * not there, and the reply says why.
 */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "consent.h"
#include "pados.pb-c.h"
#include "score.h"

#define GATHER 1024u /* rows fetched at once */
#define NAMED  16u   /* refusals that are warned of one by one */

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to resolve the queries");
}

static int same_table(const pd_search *s, const pd_served *other)
{
    return strcmp(s->served->table, other->table) == 0;
}

static int usable(const pd_search *s, float *vector)
{
    if (s->info->shape.metric == PD_COSINE) return pd_normalise(vector, s->info->shape.dim);
    return 1;
}

/* --------------------------------------------------------------------------------------------------- exclude --- */

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint32_t sort_distinct(uint64_t *ids, size_t n)
{
    if (n == 0) return 0;
    qsort(ids, n, sizeof *ids, by_id);
    uint32_t kept = 1;
    for (size_t i = 1; i < n; i++)
        if (ids[i] != ids[kept - 1]) ids[kept++] = ids[i];
    return kept;
}

/* The request's list for query q (sorted in place once, where it lies in the message) and the query's own rows. */
static pd_status exclude_of(pd_search *s, uint32_t q, const uint64_t *own, size_t nown, uint64_t *copied,
                            pd_error *err)
{
    const Pados__V1__Search *ask = s->ask;
    pd_one *one = &s->one[q];
    const Pados__V1__Ids *list = ask->n_exclude == 0 ? NULL : ask->exclude[ask->n_exclude > 1 ? q : 0];
    size_t nlist = list ? list->n_ids : 0;
    if (nown == 0) {
        one->exclude = list ? list->ids : NULL;
        one->nexclude = (uint32_t)nlist;
        return PD_OK;
    }
    *copied += nlist + nown;
    if (*copied > PD_MAX_EXCLUDED_COPY)
        return pd_fail(
            err, PD_INVALID_ARGUMENT,
            "exclude: %zu ids for each of %u queries that exclude rows of their own are over %u in all",
            nlist, s->count, PD_MAX_EXCLUDED_COPY);
    uint64_t *ids = pd_arena_take(&s->arena, (nlist + nown) * sizeof *ids);
    if (!ids) return no_memory(err);
    if (nlist) memcpy(ids, list->ids, nlist * sizeof *ids);
    memcpy(ids + nlist, own, nown * sizeof *ids);
    one->exclude = ids;
    one->nexclude = sort_distinct(ids, nlist + nown);
    return PD_OK;
}

static pd_status make_excludes(pd_search *s, pd_error *err)
{
    const Pados__V1__Search *ask = s->ask;
    uint64_t copied = 0;
    for (size_t i = 0; i < ask->n_exclude; i++)
        ask->exclude[i]->n_ids = sort_distinct(ask->exclude[i]->ids, ask->exclude[i]->n_ids);
    pd_status status = PD_OK;
    for (uint32_t q = 0; !status && q < s->count; q++) {
        const uint64_t *own = NULL;
        size_t nown = 0;
        if (s->from && same_table(s, s->from)) {
            own = &ask->from_ids[q];
            nown = 1;
        } else if (ask->n_mixes && same_table(s, s->mix_tables[q])) {
            own = ask->mixes[q]->ids;
            nown = ask->mixes[q]->n_ids;
        }
        status = exclude_of(s, q, own, nown, &copied, err);
    }
    return status;
}

/* -------------------------------------------------------------------------------------------------- fallback --- */

static const char *const rung_names[] = {"the given vector", "the row", "the segment's mean",
                                         "attributes alone"};

static const char *context_value(const pd_search *s, uint32_t q, const char *key)
{
    const Pados__V1__Context *context = s->groups[s->one[q].group].context;
    for (size_t i = 0; context && i < context->n_keys; i++)
        if (!strcmp(context->keys[i], key)) return context->values[i];
    return NULL;
}

/* The mean of the segment that the context names. 0: it names none, or nobody is in it. */
static int take_segment(pd_search *s, uint32_t q, const char *name, float *out)
{
    const pd_version_info *info = s->from->info;
    const pd_attribute *attribute = pd_schema_find(info->schema, name);
    const char *text = context_value(s, q, name);
    if (!attribute || !text) return 0;
    uint32_t at = (uint32_t)(attribute - info->schema->attributes);
    int value = pd_attribute_value(attribute, text);
    if (value <= 0 || !pd_version_segment(s->from->version, at, (uint32_t)value, out)) return 0;
    if (!usable(s, out)) return 0;
    size_t length = strlen(name) + strlen(text) + 2;
    char *segment = pd_arena_take(&s->arena, length);
    if (segment) {
        strcpy(segment, name);
        strcat(segment, "=");
        strcat(segment, text);
        pd_utf8_clean(segment);
    }
    s->one[q].segment = segment;
    return 1;
}

static int take_rung(pd_search *s, uint32_t q, pd_rung_kind kind, const char *attribute, float *out)
{
    pd_one *one = &s->one[q];
    switch (kind) {
    case PD_RUNG_GIVEN:
        if (!s->ask->vectors) return 0;
        one->rung = PD_RUNG_AS_IS; /* read with the request: it is in out already */
        one->has_vector = 1;
        return 1;
    case PD_RUNG_SEGMENT:
        /* out holds nothing that is still wanted: "given" came before or was not given. */
        if (!take_segment(s, q, attribute, out)) return 0;
        one->rung = PD_RUNG_MEAN;
        one->has_vector = 1;
        return 1;
    case PD_RUNG_ATTRIBUTES:
        one->rung = PD_RUNG_BARE;
        one->has_vector = 0;
        return 1;
    }
    return 0;
}

static pd_status fall_back(pd_search *s, uint32_t q, int refused, pd_error *err)
{
    const pd_schema *schema = s->from->info->schema;
    float *out = s->vectors + (size_t)q * s->info->shape.dim;
    int found = 0;
    for (uint32_t i = 0; !found && i < schema->nfallback; i++)
        found = take_rung(s, q, schema->fallback[i].kind, schema->fallback[i].attribute, out);
    if (schema->nfallback == 0) {
        found = take_rung(s, q, PD_RUNG_GIVEN, NULL, out);
        if (!found && !same_table(s, s->from)) found = take_rung(s, q, PD_RUNG_ATTRIBUTES, NULL, out);
    }
    if (found) return PD_OK;
    return pd_fail(err, PD_NOT_FOUND, "from_ids[%u]: row %llu %s table \"%s\"%s", q,
                   (unsigned long long)s->ask->from_ids[q],
                   refused ? "does not consent to being a query of" : "is not in", s->from->table,
                   schema->nfallback ? " and its fallback chain ends with nothing" : "");
}

static void warn_of_refusal(pd_search *s, uint32_t q, uint32_t so_far)
{
    if (so_far < NAMED)
        pd_search_warn(s, "from_ids[%u]: row %llu does not consent to being a query: %s served", q,
                       (unsigned long long)s->ask->from_ids[q], rung_names[s->one[q].rung]);
    else if (so_far == NAMED)
        pd_search_warn(s, "from_ids: more rows than these do not consent to being queries");
}

/* ---------------------------------------------------------------------------------------------------- rows --- */

/* Room for rows that are fetched at once, and who of them refuses. */
typedef struct fetched {
    uint32_t *slots, *which; /* which: the query, or the place in a mix */
    float *rows;
    uint8_t *bytes;
    uint32_t refused; /* of all so far */
} fetched;

static pd_status open_fetched(fetched *f, size_t most, uint32_t dim, uint32_t nbytes, pd_error *err)
{
    f->slots = malloc(2 * most * sizeof *f->slots);
    f->which = f->slots ? f->slots + most : NULL;
    f->rows = malloc(most * dim * sizeof *f->rows);
    f->bytes = malloc(most * nbytes + 1);
    return f->slots && f->rows && f->bytes ? PD_OK : no_memory(err);
}

static void close_fetched(fetched *f)
{
    free(f->slots);
    free(f->rows);
    free(f->bytes);
}

static pd_status fetch(const fetched *f, const pd_served *from, const pd_consent *consent, uint32_t n,
                       pd_error *err)
{
    pd_rows want = {.vectors = f->rows, .bytes = consent->no ? f->bytes : NULL};
    return n ? pd_index_gather(pd_resident_index(from->resident), f->slots, n, &want, err) : PD_OK;
}

/* Rows by id of one table, in bounded gathers: queries first..first + n. A row found replaces the vector given. */
static pd_status gather_some(pd_search *s, uint32_t first, uint32_t n, fetched *f, pd_error *err)
{
    pd_consent consent = pd_consent_of(s->from->info->schema);
    uint32_t dim = s->info->shape.dim, nbytes = s->from->info->shape.nbytes, found = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = pd_resident_slot(s->from->resident, s->ask->from_ids[first + i]);
        if (slot == PD_NO_SLOT) continue;
        f->slots[found] = slot;
        f->which[found++] = first + i;
    }
    pd_status status = fetch(f, s->from, &consent, found, err);
    uint32_t at = 0;
    for (uint32_t q = first; !status && q < first + n; q++) {
        int refused = 0;
        if (at < found && f->which[at] == q) {
            float *row = f->rows + (size_t)at * dim;
            refused = pd_consent_refused(&consent, f->bytes + (size_t)at++ * nbytes);
            /* A stored row without direction says nothing of its user: it counts as absent. */
            if (!refused && usable(s, row)) {
                memcpy(s->vectors + (size_t)q * dim, row, dim * sizeof *row);
                s->one[q].rung = PD_RUNG_ROW;
                s->one[q].has_vector = 1;
                continue;
            }
        }
        status = fall_back(s, q, refused, err);
        if (!status && refused) warn_of_refusal(s, q, f->refused++);
    }
    return status;
}

static pd_status resolve_ids(pd_search *s, pd_error *err)
{
    uint32_t most = s->count < GATHER ? s->count : GATHER;
    fetched f = {0};
    pd_status status = open_fetched(&f, most, s->info->shape.dim, s->from->info->shape.nbytes, err);
    for (uint32_t q = 0; !status && q < s->count; q += most) {
        uint32_t n = s->count - q < most ? s->count - q : most;
        status = gather_some(s, q, n, &f, err);
    }
    close_fetched(&f);
    return status;
}

/* --------------------------------------------------------------------------------------------------- mixes --- */

/* The rows of a mix that are there and may be asked with: their rows and places, to the front. */
static pd_status fetch_mix(pd_search *s, uint32_t q, fetched *f, uint32_t *count, pd_error *err)
{
    const Pados__V1__Mix *mix = s->ask->mixes[q];
    const pd_served *from = s->mix_tables[q];
    pd_consent consent = pd_consent_of(from->info->schema);
    uint32_t dim = s->info->shape.dim, nbytes = from->info->shape.nbytes, found = 0, kept = 0;
    for (size_t i = 0; i < mix->n_ids; i++) {
        uint32_t slot = pd_resident_slot(from->resident, mix->ids[i]);
        if (slot == PD_NO_SLOT) continue;
        f->slots[found] = slot;
        f->which[found++] = (uint32_t)i;
    }
    pd_status status = fetch(f, from, &consent, found, err);
    if (status) return status;
    for (uint32_t i = 0; i < found; i++) {
        if (pd_consent_refused(&consent, f->bytes + (size_t)i * nbytes)) continue;
        if (kept < i) memcpy(f->rows + (size_t)kept * dim, f->rows + (size_t)i * dim, dim * sizeof *f->rows);
        f->which[kept++] = f->which[i];
    }
    if (kept == 0)
        return pd_fail(
            err, PD_NOT_FOUND,
            found ? "mixes[%u]: of its %zu rows none that is in table \"%s\" consents to being a query"
                  : "mixes[%u]: none of its %zu rows is in table \"%s\"",
            q, mix->n_ids, from->table);
    if (found < mix->n_ids)
        pd_search_warn(s, "mixes[%u]: %zu of %zu rows are not in table \"%s\" and were left out", q,
                       mix->n_ids - found, mix->n_ids, from->table);
    if (kept < found)
        pd_search_warn(s, "mixes[%u]: %u of %zu rows do not consent to being queries and were left out", q,
                       found - kept, mix->n_ids);
    *count = kept;
    return PD_OK;
}

static pd_status resolve_mix(pd_search *s, uint32_t q, fetched *f, pd_error *err)
{
    const Pados__V1__Mix *mix = s->ask->mixes[q];
    uint32_t dim = s->info->shape.dim, n = 0;
    pd_status status = fetch_mix(s, q, f, &n, err);
    if (status) return status;
    float *out = s->vectors + (size_t)q * dim;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t d = 0; d < dim; d++)
            out[d] += mix->weights[f->which[i]] * f->rows[(size_t)i * dim + d];
    for (uint32_t d = 0; d < dim; d++)
        if (!isfinite(out[d]))
            return pd_fail(err, PD_INVALID_ARGUMENT, "mixes[%u]: the weighted sum overflows", q);
    if (!usable(s, out))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "mixes[%u]: the weighted sum has no direction, which cosine needs", q);
    s->one[q].rung = PD_RUNG_ROW;
    s->one[q].has_vector = 1;
    return PD_OK;
}

static pd_status resolve_mixes(pd_search *s, pd_error *err)
{
    size_t most = 1;
    uint32_t nbytes = 0;
    for (uint32_t q = 0; q < s->count; q++) {
        if (s->ask->mixes[q]->n_ids > most) most = s->ask->mixes[q]->n_ids;
        if (s->mix_tables[q]->info->shape.nbytes > nbytes) nbytes = s->mix_tables[q]->info->shape.nbytes;
    }
    fetched f = {0};
    pd_status status = open_fetched(&f, most, s->info->shape.dim, nbytes, err);
    for (uint32_t q = 0; !status && q < s->count; q++)
        status = resolve_mix(s, q, &f, err);
    close_fetched(&f);
    return status;
}

pd_status pd_resolve(pd_search *s, pd_error *err)
{
    pd_status status = PD_OK;
    if (s->ask->n_from_ids)
        status = resolve_ids(s, err);
    else if (s->ask->n_mixes)
        status = resolve_mixes(s, err);
    if (!status) status = make_excludes(s, err);
    return status;
}
