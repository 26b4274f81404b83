/* A pados_search becomes a message, after what the server would refuse for its size alone has been refused here.
 *
 * Only limits and shapes that libpados itself reads through are checked; what a table or a profile knows is the server's
 * to say. The message's small parts come from one arena that lives as long as the call; vectors, ids and strings are
 * pointed at where the caller has them and are copied once, into the packed message.
 */
#include "client_impl.h"

#include <stdlib.h>
#include <string.h>

typedef struct arena {
    struct chunk {
        struct chunk *next;
        _Alignas(max_align_t) char bytes[];
    } * chunks;
} arena;

static void *arena_take(arena *a, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
    struct chunk *c = calloc(1, sizeof *c + bytes);
    if (!c) return NULL;
    c->next = a->chunks;
    a->chunks = c;
    return c->bytes;
}

static void arena_free(arena *a)
{
    while (a->chunks) {
        struct chunk *c = a->chunks;
        a->chunks = c->next;
        free(c);
    }
}

/* An array of `count` messages of one type and the array of pointers to them that protobuf-c wants. */
#define MESSAGES(a, type, count, init, pointers)                                                             \
    (messages_pointers((a), (count), sizeof(type), &(const type)init, (void ***)(pointers)))

static bool messages_pointers(arena *a, size_t count, size_t size, const void *init, void ***pointers)
{
    char *bodies = arena_take(a, count, size);
    *pointers = arena_take(a, count, sizeof **pointers);
    if (!bodies || !*pointers) return false;
    for (size_t i = 0; i < count; i++) {
        memcpy(bodies + i * size, init, size);
        (*pointers)[i] = bodies + i * size;
    }
    return true;
}

static char *or_empty(const char *text)
{
    return (char *)(text ? text : "");
}

static pados_status check_limits(const pados_search *s, const pados_limits *limits, pados_error *error)
{
    if (!s->table || !*s->table) return pd_client_fail(error, PD_INVALID_ARGUMENT, "table: no name is given");
    if (!s->count) return pd_client_fail(error, PD_INVALID_ARGUMENT, "count: a search of no queries");
    if (!s->k) return pd_client_fail(error, PD_INVALID_ARGUMENT, "k: must be at least 1");
    if (limits->max_k && s->k > limits->max_k)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "k: %u is more than the server's %u", s->k,
                              limits->max_k);
    if (limits->max_queries && s->count > limits->max_queries)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "count: %u queries are more than the server's %u a request", s->count,
                              limits->max_queries);
    if (limits->max_hits && (uint64_t)s->count * s->k > limits->max_hits)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "count x k: %u x %u hits are more than the server's %llu a request", s->count,
                              s->k, (unsigned long long)limits->max_hits);
    if (s->vectors && !s->dim)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "dim: vectors of no dimension");
    if ((s->recall > 0) + (s->nprobe > 0) + s->exact > 1)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "recall, nprobe, exact: only one of them can be asked for");
    if (s->nexclude > 1 && s->nexclude != s->count)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "exclude: %zu lists for %u queries (one for all, or one a query)", s->nexclude,
                              s->count);
    if (!s->context_of && s->ncontexts > 1 && s->ncontexts != s->count)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "contexts: %zu for %u queries (one for all, or one a query)", s->ncontexts,
                              s->count);
    return PD_OK;
}

static bool put_contexts(arena *a, const pados_search *s, Pados__V1__Search *m)
{
    if (!MESSAGES(a, Pados__V1__Context, s->ncontexts, PADOS__V1__CONTEXT__INIT, &m->contexts)) return false;
    m->n_contexts = s->ncontexts;
    for (size_t i = 0; i < s->ncontexts; i++) {
        const pados_context *from = &s->contexts[i];
        Pados__V1__Context *to = m->contexts[i];
        to->keys = arena_take(a, from->count, sizeof *to->keys);
        to->values = arena_take(a, from->count, sizeof *to->values);
        if (!to->keys || !to->values) return false;
        to->n_keys = to->n_values = from->count;
        for (size_t p = 0; p < from->count; p++) {
            to->keys[p] = or_empty(from->pairs[p].key);
            to->values[p] = or_empty(from->pairs[p].value);
        }
    }
    if (s->context_of) {
        m->context_of = (uint32_t *)s->context_of;
        m->n_context_of = s->count;
    }
    return true;
}

static bool put_conditions(arena *a, const pados_search *s, Pados__V1__Search *m)
{
    if (!MESSAGES(a, Pados__V1__Condition, s->nfilters, PADOS__V1__CONDITION__INIT, &m->filters) ||
        !MESSAGES(a, Pados__V1__Override, s->noverrides, PADOS__V1__OVERRIDE__INIT, &m->overrides) ||
        !MESSAGES(a, Pados__V1__Cap, s->ndiversity, PADOS__V1__CAP__INIT, &m->diversity) ||
        !MESSAGES(a, Pados__V1__Ids, s->nexclude, PADOS__V1__IDS__INIT, &m->exclude))
        return false;
    m->n_filters = s->nfilters;
    for (size_t i = 0; i < s->nfilters; i++) {
        m->filters[i]->attribute = or_empty(s->filters[i].attribute);
        m->filters[i]->kind = (Pados__V1__Condition__Kind)s->filters[i].kind; /* the same numbers */
        m->filters[i]->values = (char **)s->filters[i].values;
        m->filters[i]->n_values = s->filters[i].count;
    }
    m->n_overrides = s->noverrides;
    for (size_t i = 0; i < s->noverrides; i++) {
        m->overrides[i]->attribute = or_empty(s->overrides[i].attribute);
        m->overrides[i]->value = or_empty(s->overrides[i].value);
        m->overrides[i]->weight = s->overrides[i].weight;
    }
    m->n_diversity = s->ndiversity;
    for (size_t i = 0; i < s->ndiversity; i++) {
        m->diversity[i]->attribute = or_empty(s->diversity[i].attribute);
        m->diversity[i]->at_most = s->diversity[i].at_most;
    }
    m->n_exclude = s->nexclude;
    for (size_t i = 0; i < s->nexclude; i++) {
        m->exclude[i]->ids = (uint64_t *)s->exclude[i].ids;
        m->exclude[i]->n_ids = s->exclude[i].count;
    }
    return true;
}

static bool put_queries(arena *a, const pados_search *s, Pados__V1__Search *m)
{
    if (s->vectors) {
        Pados__V1__Matrix *matrix = arena_take(a, 1, sizeof *matrix);
        if (!matrix) return false;
        *matrix = (Pados__V1__Matrix)PADOS__V1__MATRIX__INIT;
        matrix->dtype = PADOS__V1__DTYPE__F32;
        matrix->rows = s->count;
        matrix->dim = s->dim;
        matrix->data.data = (uint8_t *)s->vectors;
        matrix->data.len = (size_t)s->count * s->dim * sizeof(float);
        m->vectors = matrix;
    }
    if (s->from_ids) {
        m->from_table = or_empty(s->from_table);
        m->from_ids = (uint64_t *)s->from_ids;
        m->n_from_ids = s->count;
    }
    if (s->mixes) {
        if (!MESSAGES(a, Pados__V1__Mix, s->count, PADOS__V1__MIX__INIT, &m->mixes)) return false;
        m->n_mixes = s->count;
        for (uint32_t i = 0; i < s->count; i++) {
            m->mixes[i]->ids = (uint64_t *)s->mixes[i].ids;
            m->mixes[i]->weights = (float *)s->mixes[i].weights;
            m->mixes[i]->n_ids = m->mixes[i]->n_weights = s->mixes[i].count;
            m->mixes[i]->table = or_empty(s->mixes[i].table);
        }
    }
    return true;
}

pados_status pados_search_run(pados_client *client, const pados_search *s, pados_result **out,
                              pados_error *error)
{
    uint64_t deadline = pd_client_now_ms() + (s->timeout_ms ? s->timeout_ms : client->timeout_ms);
    pados_limits limits;
    pados_status status = pd_client_ready(client, deadline, &limits, error);
    if (status) return status;
    if ((status = check_limits(s, &limits, error)) != PD_OK) return status;

    arena a = {NULL};
    Pados__V1__Search message = PADOS__V1__SEARCH__INIT;
    message.table = or_empty(s->table);
    message.count = s->count;
    message.k = s->k;
    message.recall = s->recall;
    message.nprobe = s->nprobe;
    message.exact = s->exact;
    message.profile = or_empty(s->profile);
    message.has_min_score = s->min_score != NULL;
    message.min_score = s->min_score ? *s->min_score : 0;
    message.explain = s->explain;
    message.attributes = (char **)s->attributes;
    message.n_attributes = s->nattributes;
    message.at_least = s->at_least;
    Pados__V1__Reply *reply;
    if (!put_queries(&a, s, &message) || !put_contexts(&a, s, &message) || !put_conditions(&a, s, &message)) {
        status = pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the request");
    } else {
        Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
        request.body_case = PADOS__V1__REQUEST__BODY_SEARCH;
        request.search = &message;
        status = pd_client_call(client, client->data, &request, deadline, PADOS__V1__REPLY__BODY_SEARCH,
                                &reply, error);
    }
    arena_free(&a);
    return status ? status : pd_client_result(reply, s->count, s->k, out, error);
}
