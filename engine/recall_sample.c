/* Copies of queries: one block each, filled by a function that runs twice, first to count and then to copy. */
#include "recall_impl.h"

#include <stdlib.h>
#include <string.h>

#include "pados.pb-c.h"

typedef struct packer {
    unsigned char *base; /* NULL: only counts */
    size_t used;
} packer;

/* Room in the block; NULL while counting. */
static void *room(packer *p, size_t bytes)
{
    void *at = p->base ? p->base + p->used : NULL;
    p->used += (bytes + 15) & ~(size_t)15;
    return at;
}

/* A copy in the block; NULL while counting, and of nothing. */
static void *pack(packer *p, const void *from, size_t bytes)
{
    if (!from || !bytes) return NULL;
    void *to = room(p, bytes);
    if (to) memcpy(to, from, bytes);
    return to;
}

static const pd_filter *pack_filter(packer *p, const pd_filter *from)
{
    pd_filter *to = pack(p, from, sizeof *from);
    pd_filter copy = *from;
    copy.bytes = pack(p, from->bytes, from->nbytes * sizeof *from->bytes);
    copy.ranges = pack(p, from->ranges, from->nranges * sizeof *from->ranges);
    copy.sets = pack(p, from->sets, from->nsets * sizeof *from->sets);
    pd_key_test *keys = pack(p, from->keys, from->nkeys * sizeof *from->keys);
    for (uint32_t i = 0; i < from->nkeys; i++) {
        const uint64_t *values =
            pack(p, from->keys[i].values, from->keys[i].count * sizeof *from->keys[i].values);
        if (keys) keys[i].values = values;
    }
    copy.keys = keys;
    if (to) *to = copy;
    return to;
}

static pd_query pack_query(packer *p, const pd_search *s, const pd_query *from)
{
    pd_query to = *from;
    to.vector = pack(p, from->vector, s->info->shape.dim * sizeof *from->vector);
    to.weights = pack(p, from->weights, s->info->layout.weights * sizeof *from->weights);
    to.key_weights = pack(p, from->key_weights, from->nkey_weights * sizeof *from->key_weights);
    to.filter = from->filter ? pack_filter(p, from->filter) : NULL;
    to.exclude = pack(p, from->exclude, from->nexclude * sizeof *from->exclude);
    to.slots = to.probes = NULL; /* where the answer looked: the exact slots look everywhere */
    to.nslots = to.nprobe = to.depth = 0;
    return to;
}

static void fill(packer *p, pd_sampled *out, const pd_search *s, uint32_t q, const pd_query *query)
{
    const pd_compiled *compiled = &s->groups[s->one[q].group].compiled;
    const pd_hit *hits = s->hits + (size_t)q * s->k;
    out->query = pack_query(p, s, query);
    out->ids = room(p, s->one[q].count * sizeof *out->ids);
    for (uint32_t i = 0; out->ids && i < s->one[q].count; i++)
        out->ids[i] = hits[i].id;
    out->caps = room(p, compiled->ncaps * sizeof *out->caps);
    for (uint32_t i = 0; out->caps && i < compiled->ncaps; i++)
        out->caps[i] = (pd_sampled_cap){
            .attribute = (uint32_t)(compiled->caps[i].attribute - s->info->schema->attributes),
            .at_most = compiled->caps[i].at_most};
}

int pd_sampled_fits(const pd_search *s, uint32_t q)
{
    const pd_one *one = &s->one[q];
    return one->has_vector && one->path != PD_PATH_EXACT && one->path != PD_PATH_ATTRIBUTES &&
           one->depth <= PD_RECALL_DEPTH && !strchr(s->ask->table, '@');
}

pd_sampled *pd_sampled_make(pd_search *s, uint32_t q, int *large)
{
    const pd_compiled *compiled = &s->groups[s->one[q].group].compiled;
    const pd_plan *plan;
    pd_query query;
    pd_answer answer;
    pd_error err;
    *large = 0;
    /* Made when it was searched: this reads what is there. */
    if (pd_search_plan(s, q, &plan, &err) || pd_search_query(s, q, NULL, &query, &answer, &err)) return NULL;
    pd_sampled counted = {0};
    packer p = {0};
    fill(&p, &counted, s, q, &query);
    *large = p.used > PD_RECALL_BYTES;
    if (*large) return NULL;
    size_t head = (sizeof(pd_sampled) + 15) & ~(size_t)15;
    pd_sampled *out = calloc(1, head + p.used);
    if (!out) return NULL;
    out->bytes = head + p.used;
    p = (packer){.base = (unsigned char *)out + head};
    fill(&p, out, s, q, &query);
    strcpy(out->table, s->served->table);
    if (s->profile) strcpy(out->profile, pd_profile_name(s->profile));
    out->version = s->served->number;
    out->created = s->info->created;
    out->fused = compiled->weights || compiled->nkey_weights;
    out->promise = plan->recall;
    out->k = s->k;
    out->nids = s->one[q].count;
    out->ncaps = compiled->ncaps;
    return out;
}
