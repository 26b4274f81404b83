/* A checked search is bound to its tables: vectors are read, distinct contexts compiled and planned.
 *
 * All this runs where the request was decoded, not on the executor. It reads only what never changes: versions, schemas,
 * profiles, a resident's postings.
 */
#include "request.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "f16.h"
#include "pados.pb-c.h"
#include "score.h"

#define MAX_MIX_TABLES 16u

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the request");
}

void pd_search_warn(pd_search *search, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (uint32_t i = 0; i < search->nwarnings; i++)
        if (!strcmp(search->warnings[i], text)) return;
    if (search->nwarnings == sizeof search->warnings / sizeof search->warnings[0]) return;
    pd_utf8_clean(text);
    char *copy = pd_arena_text(&search->arena, text, strlen(text));
    if (copy) search->warnings[search->nwarnings++] = copy;
}

/* --------------------------------------------------------------------------------------------------- vectors --- */

static void widen(const Pados__V1__Matrix *m, float *out)
{
    size_t n = (size_t)m->rows * m->dim;
    const uint8_t *data = m->data.data;
    for (size_t i = 0; i < n; i++) {
        if (m->dtype == PADOS__V1__DTYPE__F16) {
            pd_f16 half;
            memcpy(&half, data + 2 * i, sizeof half);
            out[i] = pd_f16_to_f32(half);
        } else {
            out[i] = m->dtype == PADOS__V1__DTYPE__I8 ? (float)(int8_t)data[i] : (float)data[i];
        }
    }
}

static pd_status read_vectors(pd_search *s, pd_error *err)
{
    const Pados__V1__Matrix *m = s->ask->vectors;
    uint32_t dim = s->info->shape.dim;
    if (m && m->dim != dim)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.dim is %u but table \"%s\" has dimension %u",
                       m->dim, s->served->table, dim);
    if (m && m->dtype == PADOS__V1__DTYPE__F32 && (uintptr_t)m->data.data % sizeof(float) == 0) {
        s->vectors = (float *)(void *)m->data.data; /* in place: the message is ours */
    } else if (m || s->ask->n_from_ids || s->ask->n_mixes) {
        s->vectors = s->own_vectors = calloc((size_t)s->count * dim, sizeof(float));
        if (!s->vectors) return no_memory(err);
        s->held_bytes += (uint64_t)s->count * dim * sizeof(float);
        if (m && m->dtype == PADOS__V1__DTYPE__F32)
            memcpy(s->vectors, m->data.data, m->data.len);
        else if (m)
            widen(m, s->vectors);
    }
    for (uint32_t q = 0; m && q < s->count; q++) {
        float *v = s->vectors + (size_t)q * dim;
        for (uint32_t d = 0; d < dim; d++)
            if (!isfinite(v[d]))
                return pd_fail(err, PD_INVALID_ARGUMENT, "vectors: query %u, dimension %u is %s", q, d,
                               isnan(v[d]) ? "NaN" : "infinite");
        if (s->info->shape.metric == PD_COSINE && !pd_normalise(v, dim))
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "vectors: query %u has no direction (its length is zero or "
                           "overflows), which cosine needs",
                           q);
        s->one[q].has_vector = 1;
    }
    return PD_OK;
}

/* ----------------------------------------------------------------------------------------------------- tables --- */

static pd_status check_space(const pd_search *s, const pd_served *from, const char *field, pd_error *err)
{
    const pd_schema *a = s->info->schema, *b = from->info->schema;
    if (*a->space && *b->space && strcmp(a->space, b->space) != 0)
        return pd_fail(
            err, PD_INVALID_ARGUMENT,
            "%s: table \"%s\" is in space \"%s\" and \"%s\" in \"%s\": they cannot query each other", field,
            from->table, b->space, s->served->table, a->space);
    if (from->info->shape.dim != s->info->shape.dim)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: table \"%s\" has dimension %u and \"%s\" has %u", field,
                       from->table, from->info->shape.dim, s->served->table, s->info->shape.dim);
    return PD_OK;
}

static pd_status hold_from(pd_search *s, pd_error *err)
{
    if (!s->ask->n_from_ids) return PD_OK;
    pd_status status =
        pd_catalog_hold(s->catalog, *s->ask->from_table ? s->ask->from_table : s->ask->table, &s->from, err);
    if (status) return pd_prefix(err, "from_table");
    return check_space(s, s->from, "from_table", err);
}

static pd_status hold_mix_table(pd_search *s, uint32_t i, const char **names, pd_error *err)
{
    const char *name = *s->ask->mixes[i]->table ? s->ask->mixes[i]->table : s->ask->table;
    for (uint32_t j = 0; j < s->nheld; j++)
        if (!strcmp(name, names[j])) {
            s->mix_tables[i] = s->held[j];
            return PD_OK;
        }
    if (s->nheld == MAX_MIX_TABLES)
        return pd_fail(err, PD_INVALID_ARGUMENT, "mixes name more than %u tables", MAX_MIX_TABLES);
    pd_served *served;
    pd_status status = pd_catalog_hold(s->catalog, name, &served, err);
    if (status) return pd_prefix(err, "mixes[%u].table", i);
    names[s->nheld] = name;
    s->held[s->nheld++] = served;
    s->mix_tables[i] = served;
    return check_space(s, served, "mixes", err);
}

static pd_status hold_mixes(pd_search *s, pd_error *err)
{
    if (!s->ask->n_mixes) return PD_OK;
    s->mix_tables = pd_arena_take(&s->arena, s->count * sizeof s->mix_tables[0]);
    s->held = pd_arena_take(&s->arena, MAX_MIX_TABLES * sizeof s->held[0]);
    if (!s->mix_tables || !s->held) return no_memory(err);
    const char *names[MAX_MIX_TABLES];
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < s->count; i++)
        status = hold_mix_table(s, i, names, err);
    return status;
}

static pd_status hold_profile(pd_search *s, pd_error *err)
{
    if (!*s->ask->profile) return PD_OK;
    pd_status status = pd_catalog_profile(s->catalog, s->ask->profile, &s->profile, err);
    if (status) return status;
    if (strcmp(pd_profile_table(s->profile), s->served->table) != 0)
        return pd_fail(err, PD_INVALID_ARGUMENT, "profile \"%s\" is for table \"%s\", not for \"%s\"",
                       s->ask->profile, pd_profile_table(s->profile), s->served->table);
    return PD_OK;
}

/* --------------------------------------------------------------------------------------------------- contexts --- */

static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return (hash ^ 0xff) * 0x100000001b3u;
}

static uint64_t hash_context(const Pados__V1__Context *c)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < c->n_keys; i++)
        hash = hash_text(hash_text(hash, c->keys[i]), c->values[i]);
    return hash ^ hash >> 29;
}

static int same_context(const Pados__V1__Context *a, const Pados__V1__Context *b)
{
    if (a->n_keys != b->n_keys) return 0;
    for (size_t i = 0; i < a->n_keys; i++)
        if (strcmp(a->keys[i], b->keys[i]) != 0 || strcmp(a->values[i], b->values[i]) != 0) return 0;
    return 1;
}

/* groups[]: the distinct contexts; group_of[i]: which of them contexts[i] is. */
static pd_status find_groups(pd_search *s, uint32_t *group_of, pd_error *err)
{
    const Pados__V1__Search *ask = s->ask;
    uint32_t slots = 1;
    while (slots < 2 * ask->n_contexts)
        slots *= 2;
    uint32_t *table = calloc(slots, sizeof *table); /* group + 1 */
    if (!table) return no_memory(err);
    for (size_t i = 0; i < ask->n_contexts; i++) {
        uint32_t at = (uint32_t)hash_context(ask->contexts[i]) & (slots - 1);
        while (table[at] && !same_context(s->groups[table[at] - 1].context, ask->contexts[i]))
            at = (at + 1) & (slots - 1);
        if (!table[at]) {
            s->groups[s->ngroups].context = ask->contexts[i];
            table[at] = ++s->ngroups;
        }
        group_of[i] = table[at] - 1;
    }
    free(table);
    return PD_OK;
}

static pd_status make_groups(pd_search *s, pd_error *err)
{
    const Pados__V1__Search *ask = s->ask;
    size_t most = ask->n_contexts ? ask->n_contexts : 1;
    s->groups = pd_arena_take(&s->arena, most * sizeof s->groups[0]);
    uint32_t *group_of = pd_arena_take(&s->arena, most * sizeof *group_of);
    if (!s->groups || !group_of) return no_memory(err);
    pd_status status = find_groups(s, group_of, err);
    if (status) return status;
    if (s->ngroups == 0) s->ngroups = 1;
    for (uint32_t q = 0; q < s->count; q++)
        s->one[q].group = ask->n_context_of     ? group_of[ask->context_of[q]]
                          : ask->n_contexts > 1 ? group_of[q]
                                                : group_of[0];
    uint64_t bytes = (uint64_t)s->ngroups * s->info->layout.weights * sizeof(float);
    if (bytes > PD_MAX_COMPILED)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "contexts: %u distinct ones need %llu bytes of weights; %u are allowed in one request",
                       s->ngroups, (unsigned long long)bytes, PD_MAX_COMPILED);
    s->held_bytes += bytes + s->ngroups * sizeof s->groups[0];
    return PD_OK;
}

static pd_status read_caps(pd_search *s, pd_cap *caps, pd_error *err)
{
    for (size_t i = 0; i < s->ask->n_diversity; i++) {
        const char *name = s->ask->diversity[i]->attribute;
        const pd_attribute *attribute = pd_schema_find(s->info->schema, name);
        if (!attribute)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "diversity[%zu]: table \"%s\" has no attribute \"%.64s\"", i, s->served->table,
                           name);
        if (attribute->type != PD_CATEGORY && attribute->type != PD_KEY)
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "diversity[%zu]: attribute \"%s\" is neither a category nor a key", i, name);
        caps[i] = (pd_cap){.attribute = attribute, .at_most = s->ask->diversity[i]->at_most};
    }
    return PD_OK;
}

static pd_status compile_groups(pd_search *s, pd_error *err)
{
    const Pados__V1__Search *ask = s->ask;
    pd_override *overrides = pd_arena_take(&s->arena, ask->n_overrides * sizeof *overrides);
    pd_condition *conditions = pd_arena_take(&s->arena, ask->n_filters * sizeof *conditions);
    pd_cap *caps = pd_arena_take(&s->arena, ask->n_diversity * sizeof *caps);
    if (!overrides || !conditions || !caps) return no_memory(err);
    for (size_t i = 0; i < ask->n_overrides; i++) {
        const Pados__V1__Override *o = ask->overrides[i];
        overrides[i] = (pd_override){
            .attribute = o->attribute, .value = *o->value ? o->value : NULL, .weight = o->weight};
    }
    for (size_t i = 0; i < ask->n_filters; i++) {
        const Pados__V1__Condition *c = ask->filters[i];
        conditions[i] = (pd_condition){.attribute = c->attribute,
                                       .kind = (pd_condition_kind)c->kind,
                                       .count = (uint32_t)c->n_values,
                                       .values = (const char *const *)c->values};
    }
    pd_status status = read_caps(s, caps, err);
    double now = pd_days_now();
    for (uint32_t g = 0; !status && g < s->ngroups; g++) {
        pd_group *group = &s->groups[g];
        pd_context context = {0};
        if (group->context)
            context = (pd_context){.count = (uint32_t)group->context->n_keys,
                                   .keys = (const char *const *)group->context->keys,
                                   .values = (const char *const *)group->context->values};
        pd_ask one = {.context = group->context ? &context : NULL,
                      .overrides = overrides,
                      .noverrides = (uint32_t)ask->n_overrides,
                      .conditions = conditions,
                      .nconditions = (uint32_t)ask->n_filters,
                      .caps = caps,
                      .ncaps = (uint32_t)ask->n_diversity,
                      .now = now};
        status = pd_compile(s->info->schema, &s->info->layout, s->profile, &one, &group->compiled, err);
        for (uint32_t w = 0; !status && w < group->compiled.nwarnings; w++)
            pd_search_warn(s, "%s", group->compiled.warnings[w]);
    }
    return status;
}

pd_status pd_search_plan(pd_search *s, uint32_t query, const pd_plan **out, pd_error *err)
{
    pd_group *group = &s->groups[s->one[query].group];
    int has_vector = s->one[query].has_vector;
    pd_plan *plan = has_vector ? &group->with_vector : &group->bare;
    int *planned = has_vector ? &group->planned : &group->planned_bare;
    if (!*planned) {
        pd_want want = s->want;
        /* Diversity caps look deeper than k: probe for that. */
        if (group->compiled.ncaps) want.k = want.k > PD_MAX_K / 4 ? PD_MAX_K : 4 * want.k;
        pd_status status = pd_plan_make(s->served->resident, &group->compiled, &want, has_vector, plan, err);
        if (status) return status;
        *planned = 1;
        s->held_bytes += (uint64_t)plan->nslots * sizeof plan->slots[0];
        if (plan->note[0]) pd_search_warn(s, "%s", plan->note);
    }
    *out = plan;
    return PD_OK;
}

/* Plans of queries whose kind is known already; those by id or mix are mostly found, so they are planned as vectors. */
static pd_status plan_groups(pd_search *s, pd_error *err)
{
    const pd_plan *plan;
    for (uint32_t q = 0; q < s->count; q++) {
        pd_one *one = &s->one[q];
        int known = one->has_vector;
        one->has_vector = s->vectors != NULL;
        pd_status status = pd_search_plan(s, q, &plan, err);
        one->has_vector = known;
        if (status) return status;
        if (q == 0) {
            uint32_t size = 0;
            for (uint32_t n = plan->nprobe; n > 1; n /= 2)
                size++;
            s->task.cost_class = (uint32_t)plan->path << 8 | size;
        }
    }
    return PD_OK;
}

/* -------------------------------------------------------------------------------------------- attributes asked --- */

static pd_status check_attributes(const pd_search *s, pd_error *err)
{
    uint64_t columns = 0;
    for (size_t i = 0; i < s->ask->n_attributes; i++) {
        if (!strcmp(s->ask->attributes[i], "*")) {
            columns += s->info->schema->nattributes;
        } else if (pd_schema_find(s->info->schema, s->ask->attributes[i])) {
            columns++;
        } else {
            return pd_fail(err, PD_INVALID_ARGUMENT,
                           "attributes[%zu]: table \"%s\" has no attribute \"%.64s\"", i, s->served->table,
                           s->ask->attributes[i]);
        }
    }
    uint64_t cells = columns * s->count * s->k;
    if (cells > PD_MAX_CELLS)
        return pd_fail(
            err, PD_INVALID_ARGUMENT,
            "attributes: %llu columns of %u x %u hits are %llu values; %u are allowed in one request",
            (unsigned long long)columns, s->count, s->k, (unsigned long long)cells, PD_MAX_CELLS);
    return PD_OK;
}

static pd_status bind(pd_search *s, pd_error *err)
{
    const Pados__V1__Search *ask = s->ask;
    s->count = ask->count;
    s->k = ask->k;
    s->want = (pd_want){.k = ask->k,
                        .recall = ask->recall,
                        .nprobe = ask->nprobe,
                        .exact = ask->exact != 0,
                        .min_score = ask->has_min_score ? ask->min_score : -INFINITY};
    s->want_columns = ask->explain || ask->n_attributes;
    pd_status status = pd_catalog_hold(s->catalog, ask->table, &s->served, err);
    if (status) return status;
    s->info = s->served->info;
    s->one = calloc(s->count, sizeof s->one[0]);
    s->waiting = calloc(s->count, sizeof s->waiting[0]);
    s->taken = calloc(s->count, sizeof s->taken[0]);
    if (!s->one || !s->waiting || !s->taken) return no_memory(err);
    s->held_bytes += s->count * (sizeof s->one[0] + 2 * sizeof s->waiting[0]);
    if (!status) status = check_attributes(s, err);
    if (!status) status = read_vectors(s, err);
    if (!status) status = hold_from(s, err);
    if (!status) status = hold_mixes(s, err);
    if (!status) status = hold_profile(s, err);
    if (!status) status = make_groups(s, err);
    if (!status) status = compile_groups(s, err);
    if (!status) status = plan_groups(s, err);
    return status;
}

pd_status pd_search_open(pd_catalog *catalog, const pd_config *config, pd_wire *wire, uint64_t born_ns,
                         pd_search **out, pd_error *err)
{
    const Pados__V1__Request *request = pd_wire_request(wire);
    pd_status status = pd_search_check(request->search, config, err);
    if (status) return status;
    uint32_t ms = request->deadline_ms ? request->deadline_ms : config->deadline_ms;
    if (ms > config->max_deadline_ms) ms = config->max_deadline_ms;
    pd_search *s = calloc(1, sizeof *s);
    if (!s) return no_memory(err);
    s->catalog = catalog;
    s->ask = request->search;
    s->born_ns = born_ns;
    s->recall = 1;
    s->held_bytes = sizeof *s + pd_wire_held(wire);
    status = bind(s, err);
    if (status) {
        pd_search_free(s);
        return status;
    }
    s->wire = wire;
    s->task.type = &pd_search_task;
    s->task.index = pd_resident_index(s->served->resident);
    s->task.deadline_ns = born_ns + ms * 1000000ull;
    s->task.queries = s->count;
    s->decoded_ns = pd_now_ns();
    *out = s;
    return PD_OK;
}

void pd_search_free(pd_search *s)
{
    if (!s) return;
    for (uint32_t g = 0; s->groups && g < s->ngroups; g++) {
        pd_group *group = &s->groups[g];
        if (group->planned) pd_plan_free(&group->with_vector);
        if (group->planned_bare) pd_plan_free(&group->bare);
        pd_compiled_free(&group->compiled);
    }
    if (s->profile) pd_profile_release(s->profile);
    for (uint32_t i = 0; i < s->nheld; i++)
        pd_catalog_release(s->held[i]);
    if (s->from) pd_catalog_release(s->from);
    if (s->served) pd_catalog_release(s->served);
    free(s->own_vectors);
    free(s->one);
    free(s->waiting);
    free(s->taken);
    free(s->hits);
    free(s->scratch);
    free(s->exact_queries);
    free(s->exact_answers);
    free(s->bytes);
    free(s->floats);
    free(s->keys);
    pd_arena_free(&s->arena);
    pd_wire_free(s->wire);
    free(s);
}
