/* What can be said of a search without looking at any table. Every refusal names the field. */
#include <math.h>
#include <string.h>

#include "pados.pb-c.h"
#include "request.h"

#define MAX_OVERRIDES 256u
#define MAX_FILTERS   64u
#define MAX_VALUES    1024u
#define MAX_CAPS      16u

static pd_status check_counts(const Pados__V1__Search *ask, const pd_config *config, pd_error *err)
{
    if (!*ask->table) return pd_fail(err, PD_INVALID_ARGUMENT, "table is empty");
    if (ask->count < 1 || ask->count > config->max_queries)
        return pd_fail(err, PD_INVALID_ARGUMENT, "count is %u; 1 to %u queries are allowed", ask->count,
                       config->max_queries);
    if (ask->k < 1 || ask->k > PD_MAX_K)
        return pd_fail(err, PD_INVALID_ARGUMENT, "k is %u; 1 to %u are allowed", ask->k, PD_MAX_K);
    uint64_t hits = (uint64_t)ask->count * ask->k;
    if (hits > config->max_hits)
        return pd_fail(err, PD_INVALID_ARGUMENT, "count x k is %u x %u = %llu hits; %llu are allowed",
                       ask->count, ask->k, (unsigned long long)hits, (unsigned long long)config->max_hits);
    if (ask->explain && hits > PD_MAX_EXPLAINED)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "explain: count x k is %llu hits; %u can be explained in one request",
                       (unsigned long long)hits, PD_MAX_EXPLAINED);
    return PD_OK;
}

static pd_status check_vectors(const Pados__V1__Search *ask, pd_error *err)
{
    static const uint32_t sizes[4] = {4, 2, 1, 1};
    const Pados__V1__Matrix *m = ask->vectors;
    if (!m) return PD_OK;
    if ((unsigned)m->dtype > 3u)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.dtype %d is unknown", (int)m->dtype);
    if (m->rows != ask->count)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.rows is %u but count is %u", m->rows, ask->count);
    if (m->dim < 1 || m->dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.dim is %u; 1 to %u are allowed", m->dim,
                       PD_MAX_DIM);
    uint64_t need = (uint64_t)m->rows * m->dim * sizes[m->dtype];
    if (m->data.len != need)
        return pd_fail(err, PD_INVALID_ARGUMENT, "vectors.data has %zu bytes; %u x %u of this dtype are %llu",
                       m->data.len, m->rows, m->dim, (unsigned long long)need);
    return PD_OK;
}

static pd_status check_mixes(const Pados__V1__Search *ask, pd_error *err)
{
    uint64_t all = 0;
    for (size_t i = 0; i < ask->n_mixes; i++) {
        const Pados__V1__Mix *mix = ask->mixes[i];
        if (mix->n_ids == 0) return pd_fail(err, PD_INVALID_ARGUMENT, "mixes[%zu] has no ids", i);
        if (mix->n_ids != mix->n_weights)
            return pd_fail(err, PD_INVALID_ARGUMENT, "mixes[%zu] has %zu ids but %zu weights", i, mix->n_ids,
                           mix->n_weights);
        if (mix->n_ids > PD_MAX_MIX)
            return pd_fail(err, PD_INVALID_ARGUMENT, "mixes[%zu] has %zu ids; %u are allowed", i, mix->n_ids,
                           PD_MAX_MIX);
        for (size_t j = 0; j < mix->n_weights; j++)
            if (!isfinite(mix->weights[j]))
                return pd_fail(err, PD_INVALID_ARGUMENT, "mixes[%zu].weights[%zu] is not finite", i, j);
        all += mix->n_ids;
    }
    if (all > PD_MAX_MIXED)
        return pd_fail(err, PD_INVALID_ARGUMENT, "mixes have %llu ids in all; %u are allowed",
                       (unsigned long long)all, PD_MAX_MIXED);
    return PD_OK;
}

static pd_status check_sources(const Pados__V1__Search *ask, pd_error *err)
{
    if (ask->n_from_ids && ask->n_from_ids != ask->count)
        return pd_fail(err, PD_INVALID_ARGUMENT, "from_ids has %zu ids but count is %u", ask->n_from_ids,
                       ask->count);
    if (*ask->from_table && !ask->n_from_ids)
        return pd_fail(err, PD_INVALID_ARGUMENT, "from_table is given without from_ids");
    if (ask->n_mixes && ask->n_mixes != ask->count)
        return pd_fail(err, PD_INVALID_ARGUMENT, "mixes has %zu entries but count is %u", ask->n_mixes,
                       ask->count);
    if (ask->n_mixes && (ask->vectors || ask->n_from_ids))
        return pd_fail(err, PD_INVALID_ARGUMENT, "mixes cannot be given with %s",
                       ask->vectors ? "vectors" : "from_ids");
    pd_status status = check_vectors(ask, err);
    return status ? status : check_mixes(ask, err);
}

static pd_status check_aim(const Pados__V1__Search *ask, pd_error *err)
{
    if (!(ask->recall >= 0.0f && ask->recall <= 1.0f))
        return pd_fail(err, PD_INVALID_ARGUMENT, "recall is %g; it must be over 0 and at most 1",
                       (double)ask->recall);
    if ((ask->recall > 0) + (ask->nprobe > 0) + (ask->exact != 0) > 1)
        return pd_fail(err, PD_INVALID_ARGUMENT, "at most one of recall, nprobe and exact may be given");
    if (ask->has_min_score && isnan(ask->min_score))
        return pd_fail(err, PD_INVALID_ARGUMENT, "min_score is NaN");
    return PD_OK;
}

static pd_status check_contexts(const Pados__V1__Search *ask, pd_error *err)
{
    for (size_t i = 0; i < ask->n_contexts; i++)
        if (ask->contexts[i]->n_keys != ask->contexts[i]->n_values)
            return pd_fail(err, PD_INVALID_ARGUMENT, "contexts[%zu] has %zu keys but %zu values", i,
                           ask->contexts[i]->n_keys, ask->contexts[i]->n_values);
    if (ask->n_context_of) {
        if (ask->n_context_of != ask->count)
            return pd_fail(err, PD_INVALID_ARGUMENT, "context_of has %zu entries but count is %u",
                           ask->n_context_of, ask->count);
        for (size_t i = 0; i < ask->n_context_of; i++)
            if (ask->context_of[i] >= ask->n_contexts)
                return pd_fail(err, PD_INVALID_ARGUMENT, "context_of[%zu] is %u but there are %zu contexts",
                               i, ask->context_of[i], ask->n_contexts);
        if (ask->n_contexts > ask->count)
            return pd_fail(err, PD_INVALID_ARGUMENT, "contexts has %zu entries for %u queries",
                           ask->n_contexts, ask->count);
    } else if (ask->n_contexts > 1 && ask->n_contexts != ask->count) {
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "contexts has %zu entries: 0, 1, or count (%u) are allowed without "
                       "context_of",
                       ask->n_contexts, ask->count);
    }
    return PD_OK;
}

static pd_status check_terms(const Pados__V1__Search *ask, pd_error *err)
{
    if (ask->n_overrides > MAX_OVERRIDES)
        return pd_fail(err, PD_INVALID_ARGUMENT, "overrides has %zu entries; %u are allowed",
                       ask->n_overrides, MAX_OVERRIDES);
    for (size_t i = 0; i < ask->n_overrides; i++)
        if (!isfinite(ask->overrides[i]->weight))
            return pd_fail(err, PD_INVALID_ARGUMENT, "overrides[%zu].weight is not finite", i);
    if (ask->n_filters > MAX_FILTERS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "filters has %zu entries; %u are allowed", ask->n_filters,
                       MAX_FILTERS);
    for (size_t i = 0; i < ask->n_filters; i++) {
        const Pados__V1__Condition *c = ask->filters[i];
        if ((unsigned)c->kind > (unsigned)PD_NONE_OF)
            return pd_fail(err, PD_INVALID_ARGUMENT, "filters[%zu].kind %d is unknown", i, (int)c->kind);
        if (c->n_values == 0 || c->n_values > MAX_VALUES)
            return pd_fail(err, PD_INVALID_ARGUMENT, "filters[%zu] has %zu values; 1 to %u are allowed", i,
                           c->n_values, MAX_VALUES);
    }
    if (ask->n_diversity > MAX_CAPS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "diversity has %zu entries; %u are allowed",
                       ask->n_diversity, MAX_CAPS);
    for (size_t i = 0; i < ask->n_diversity; i++)
        if (ask->diversity[i]->at_most < 1)
            return pd_fail(err, PD_INVALID_ARGUMENT, "diversity[%zu].at_most is 0", i);
    if (ask->n_attributes > PD_MAX_ATTRIBUTES)
        return pd_fail(err, PD_INVALID_ARGUMENT, "attributes has %zu entries; %d are allowed",
                       ask->n_attributes, PD_MAX_ATTRIBUTES);
    return PD_OK;
}

static pd_status check_exclude(const Pados__V1__Search *ask, pd_error *err)
{
    if (ask->n_exclude > 1 && ask->n_exclude != ask->count)
        return pd_fail(err, PD_INVALID_ARGUMENT, "exclude has %zu lists: 0, 1, or count (%u) are allowed",
                       ask->n_exclude, ask->count);
    for (size_t i = 0; i < ask->n_exclude; i++)
        if (ask->exclude[i]->n_ids > PD_MAX_EXCLUDE)
            return pd_fail(err, PD_INVALID_ARGUMENT, "exclude[%zu] has %zu ids; %u are allowed", i,
                           ask->exclude[i]->n_ids, PD_MAX_EXCLUDE);
    return PD_OK;
}

pd_status pd_search_check(const Pados__V1__Search *ask, const pd_config *config, pd_error *err)
{
    pd_status status = check_counts(ask, config, err);
    if (!status) status = check_sources(ask, err);
    if (!status) status = check_aim(ask, err);
    if (!status) status = check_contexts(ask, err);
    if (!status) status = check_terms(ask, err);
    if (!status) status = check_exclude(ask, err);
    return status;
}
