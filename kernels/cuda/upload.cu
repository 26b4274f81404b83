/* Queries on their way in: everything that a batch's queries point at is packed into one piece of pinned memory, laid out as the
 * device will hold it, and goes over in one copy.
 *
 * What queries share is packed once. The caller says so by sharing pointers (queries of one request share their weights, filter and
 * excludes), so that equal pointers and counts become equal places; nothing is compared by value. */
#include "cuda.h"

/* ------------------------------------------------------------------------------------------ what is shared --- */

/* Arrays of the caller's, each once, in the order met. */
typedef struct span {
    const void *data;
    uint32_t count, first; /* items; where they begin among all */
} span;

typedef struct span_set {
    span *spans;    /* [n] */
    uint32_t *hash; /* [size] span + 1; 0: free */
    uint32_t n, size, total;
} span_set;

/* Queries of a batch and a power of two over twice that: a set never fills. */
static uint32_t hash_size(uint32_t n)
{
    uint32_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

/* The place of count items; they are added where they are new. PD_NONE: there are none. Too many: total stays at PD_NONE. */
static uint32_t span_of(span_set *set, const void *data, uint32_t count)
{
    if (!data || count == 0) return PD_NONE;
    uint64_t mixed = ((uint64_t)(uintptr_t)data ^ count) * 0x9e3779b97f4a7c15ull;
    for (uint32_t at = (uint32_t)(mixed >> 32) & (set->size - 1);; at = (at + 1) & (set->size - 1)) {
        if (set->hash[at] == 0) {
            set->hash[at] = ++set->n;
            span *fresh = &set->spans[set->n - 1];
            fresh->data = data;
            fresh->count = count;
            fresh->first = set->total;
            set->total = set->total > PD_NONE - count ? PD_NONE : set->total + count;
            return fresh->first;
        }
        const span *known = &set->spans[set->hash[at] - 1];
        if (known->data == data && known->count == count) return known->first;
    }
}

enum { OF_TABLES, OF_FILTERS, OF_KEY_WEIGHTS, OF_EXCLUDE, OF_SLOTS, OF_GIVEN, SETS };

/* ------------------------------------------------------------------------------------------------- packing --- */

typedef enum part {
    PART_QUERIES,
    PART_VECTORS,
    PART_TABLES,
    PART_KEY_WEIGHTS,
    PART_FILTERS,
    PART_BYTE_TESTS,
    PART_RANGE_TESTS,
    PART_SET_TESTS,
    PART_KEY_TESTS,
    PART_KEY_VALUES,
    PART_EXCLUDE,
    PART_SLOTS,
    PART_GIVEN,
    PARTS
} part;

typedef struct packer {
    pd_cuda_batch *batch;
    const pd_query *queries;
    const pd_shape *shape;
    uint32_t n;
    pd_cuda_query *out; /* [n] while spans are found; packed later */
    span_set sets[SETS];
    uint32_t nbytes, nranges, nsets, nkeys, nvalues; /* tests of all filters */
    size_t at[PARTS], bytes;
} packer;

static pd_status open_sets(packer *p, pd_error *err)
{
    uint32_t size = hash_size(p->n);
    p->out = (pd_cuda_query *)calloc(p->n, sizeof *p->out);
    int there = p->out != NULL;
    for (uint32_t s = 0; s < SETS; s++) {
        p->sets[s].size = size;
        p->sets[s].spans = (span *)calloc(p->n, sizeof(span));
        p->sets[s].hash = (uint32_t *)calloc(size, sizeof(uint32_t));
        there &= p->sets[s].spans && p->sets[s].hash;
    }
    return there ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", p->n);
}

static void close_sets(packer *p)
{
    free(p->out);
    for (uint32_t s = 0; s < SETS; s++) {
        free(p->sets[s].spans);
        free(p->sets[s].hash);
    }
}

uint32_t pd_cuda_keep(const pd_query *query, int refines)
{
    if (!refines || !query->vector) return query->k;
    uint32_t depth = query->depth ? query->depth : pd_refine_depth(query->k);
    return depth > query->k ? depth : query->k;
}

uint32_t pd_cuda_probes(const pd_cuda_view *view, const pd_query *query)
{
    if (!query->vector) return view->nlist;
    return query->nprobe < view->nlist ? query->nprobe : view->nlist;
}

/* The query as the device sees it, and the batch's sums over queries. */
static void look_at(packer *p, uint32_t q)
{
    pd_cuda_batch *b = p->batch;
    const pd_query *query = &p->queries[q];
    pd_cuda_query *out = &p->out[q];
    int searched = b->index != NULL; /* an exact search has no lists, slots or candidates */
    out->a = query->similarity;
    out->min_score = query->min_score;
    out->vector = query->vector != NULL;
    out->k = query->k;
    out->keep = searched ? pd_cuda_keep(query, b->refines) : query->k;
    /* min_score applies to the final score; a code's score is final only where nothing refines it. */
    out->least = searched && b->refines && query->vector ? -INFINITY : query->min_score;
    out->table = span_of(&p->sets[OF_TABLES], query->weights, b->view.weights);
    if (out->table != PD_NONE) out->table /= b->view.weights;
    out->filter = span_of(&p->sets[OF_FILTERS], query->filter, 1);
    out->nkeys = query->nkey_weights;
    out->keys = span_of(&p->sets[OF_KEY_WEIGHTS], query->key_weights, query->nkey_weights);
    out->nexclude = query->nexclude;
    out->exclude = span_of(&p->sets[OF_EXCLUDE], query->exclude, query->nexclude);
    out->nslots = searched ? query->nslots : 0;
    out->slots = span_of(&p->sets[OF_SLOTS], query->slots, out->nslots);
    out->npairs = searched ? pd_cuda_probes(&b->view, query) : 0;
    int forced = searched && query->vector && b->view.listed && query->probes;
    out->given = forced ? span_of(&p->sets[OF_GIVEN], query->probes, out->npairs) : PD_NONE;
    out->chooses = searched && query->vector && b->view.listed && !query->probes && out->npairs > 0;
    out->pairs = b->npairs;
    out->kept = b->nkept;
    out->hits = b->nhits;
    b->npairs += out->npairs;
    b->nkept += out->keep;
    b->nhits += out->k;
    b->nslots += out->nslots;
    b->nchoosing += out->chooses;
    b->nvectors += out->vector;
    b->most_probes = out->npairs > b->most_probes ? out->npairs : b->most_probes;
    b->most_keep = out->keep > b->most_keep ? out->keep : b->most_keep;
    b->most_k = out->k > b->most_k ? out->k : b->most_k;
    b->most_slots = out->nslots > b->most_slots ? out->nslots : b->most_slots;
}

static void count_tests(packer *p)
{
    for (uint32_t i = 0; i < p->sets[OF_FILTERS].n; i++) {
        const pd_filter *filter = (const pd_filter *)p->sets[OF_FILTERS].spans[i].data;
        p->nbytes += filter->nbytes;
        p->nranges += filter->nranges;
        p->nsets += filter->nsets;
        p->nkeys += filter->nkeys;
        for (uint32_t t = 0; t < filter->nkeys; t++)
            p->nvalues += filter->keys[t].count;
    }
}

static void lay_out(packer *p)
{
    size_t counts[PARTS] = {0}, sizes[PARTS] = {0};
    counts[PART_QUERIES] = p->n, sizes[PART_QUERIES] = sizeof(pd_cuda_query);
    counts[PART_VECTORS] = (size_t)p->n * p->batch->view.dim16, sizes[PART_VECTORS] = sizeof(float);
    counts[PART_TABLES] = p->sets[OF_TABLES].total, sizes[PART_TABLES] = sizeof(float);
    counts[PART_KEY_WEIGHTS] = p->sets[OF_KEY_WEIGHTS].total, sizes[PART_KEY_WEIGHTS] = sizeof(pd_key_weight);
    counts[PART_FILTERS] = p->sets[OF_FILTERS].total, sizes[PART_FILTERS] = sizeof(pd_cuda_filter);
    counts[PART_BYTE_TESTS] = p->nbytes, sizes[PART_BYTE_TESTS] = sizeof(pd_byte_test);
    counts[PART_RANGE_TESTS] = p->nranges, sizes[PART_RANGE_TESTS] = sizeof(pd_range_test);
    counts[PART_SET_TESTS] = p->nsets, sizes[PART_SET_TESTS] = sizeof(pd_set_test);
    counts[PART_KEY_TESTS] = p->nkeys, sizes[PART_KEY_TESTS] = sizeof(pd_cuda_key_test);
    counts[PART_KEY_VALUES] = p->nvalues, sizes[PART_KEY_VALUES] = sizeof(uint64_t);
    counts[PART_EXCLUDE] = p->sets[OF_EXCLUDE].total, sizes[PART_EXCLUDE] = sizeof(uint64_t);
    counts[PART_SLOTS] = p->sets[OF_SLOTS].total, sizes[PART_SLOTS] = sizeof(uint32_t);
    counts[PART_GIVEN] = p->sets[OF_GIVEN].total, sizes[PART_GIVEN] = sizeof(uint32_t);
    for (uint32_t i = 0; i < PARTS; i++) {
        p->at[i] = p->bytes;
        p->bytes += (counts[i] * sizes[i] + 255) & ~(size_t)255;
    }
}

static void pack_vectors(const packer *p, float *to)
{
    uint32_t dim = p->shape->dim, dim16 = p->batch->view.dim16;
    for (uint32_t q = 0; q < p->n; q++, to += dim16) {
        uint32_t have = p->queries[q].vector ? dim : 0;
        if (have) memcpy(to, p->queries[q].vector, have * sizeof *to);
        memset(to + have, 0, (dim16 - have) * sizeof *to);
    }
}

static void pack_spans(const span_set *set, size_t size, unsigned char *to)
{
    for (uint32_t i = 0; i < set->n; i++)
        memcpy(to + set->spans[i].first * size, set->spans[i].data, set->spans[i].count * size);
}

/* The tests of all filters, filter by filter. */
static void pack_filters(const packer *p, unsigned char *memory)
{
    pd_cuda_filter *filters = (pd_cuda_filter *)(memory + p->at[PART_FILTERS]);
    pd_byte_test *bytes = (pd_byte_test *)(memory + p->at[PART_BYTE_TESTS]);
    pd_range_test *ranges = (pd_range_test *)(memory + p->at[PART_RANGE_TESTS]);
    pd_set_test *sets = (pd_set_test *)(memory + p->at[PART_SET_TESTS]);
    pd_cuda_key_test *keys = (pd_cuda_key_test *)(memory + p->at[PART_KEY_TESTS]);
    uint64_t *values = (uint64_t *)(memory + p->at[PART_KEY_VALUES]);
    uint32_t nbytes = 0, nranges = 0, nsets = 0, nkeys = 0, nvalues = 0;
    for (uint32_t i = 0; i < p->sets[OF_FILTERS].n; i++) {
        const pd_filter *from = (const pd_filter *)p->sets[OF_FILTERS].spans[i].data;
        pd_cuda_filter *to = &filters[i];
        memset(to, 0, sizeof *to);
        to->bytes = nbytes, to->nbytes = from->nbytes;
        to->ranges = nranges, to->nranges = from->nranges;
        to->sets = nsets, to->nsets = from->nsets;
        to->keys = nkeys, to->nkeys = from->nkeys;
        if (p->batch->index)
            to->folds = (uint32_t)pd_block_filter_of(&p->batch->index->host.blocks, from, &to->fold);
        for (uint32_t t = 0; t < from->nbytes; t++)
            bytes[nbytes++] = from->bytes[t];
        for (uint32_t t = 0; t < from->nranges; t++)
            ranges[nranges++] = from->ranges[t];
        for (uint32_t t = 0; t < from->nsets; t++)
            sets[nsets++] = from->sets[t];
        for (uint32_t t = 0; t < from->nkeys; t++) {
            const pd_key_test *test = &from->keys[t];
            pd_cuda_key_test out = {test->column, (uint32_t)(test->negate != 0), nvalues, test->count};
            keys[nkeys++] = out;
            if (test->count) memcpy(values + nvalues, test->values, test->count * sizeof *values);
            nvalues += test->count;
        }
    }
}

static void point_at(const packer *p, unsigned char *device)
{
    pd_cuda_batch *b = p->batch;
    b->queries = (const pd_cuda_query *)(device + p->at[PART_QUERIES]);
    b->vectors = (const float *)(device + p->at[PART_VECTORS]);
    b->tables = (const float *)(device + p->at[PART_TABLES]);
    b->key_weights = (const pd_key_weight *)(device + p->at[PART_KEY_WEIGHTS]);
    b->filters = (const pd_cuda_filter *)(device + p->at[PART_FILTERS]);
    b->byte_tests = (const pd_byte_test *)(device + p->at[PART_BYTE_TESTS]);
    b->range_tests = (const pd_range_test *)(device + p->at[PART_RANGE_TESTS]);
    b->set_tests = (const pd_set_test *)(device + p->at[PART_SET_TESTS]);
    b->key_tests = (const pd_cuda_key_test *)(device + p->at[PART_KEY_TESTS]);
    b->key_values = (const uint64_t *)(device + p->at[PART_KEY_VALUES]);
    b->exclude = (const uint64_t *)(device + p->at[PART_EXCLUDE]);
    b->slots = (const uint32_t *)(device + p->at[PART_SLOTS]);
    b->given = (const uint32_t *)(device + p->at[PART_GIVEN]);
}

/* A block a query. */
__global__ static void name_pairs(const pd_cuda_query *queries, uint32_t *pair_query)
{
    const pd_cuda_query &query = queries[blockIdx.x];
    for (uint32_t i = threadIdx.x; i < query.npairs; i += blockDim.x)
        pair_query[query.pairs + i] = blockIdx.x;
}

static pd_status send(packer *p, pd_error *err)
{
    pd_cuda_batch *b = p->batch;
    pd_cuda_device *device = b->device;
    unsigned char *to = NULL;
    pd_status status = pd_cuda_pinned_need(device, &b->lane->in, p->bytes, "queries", err);
    if (status == PD_OK) status = pd_take(b, p->bytes, "queries", &to, err);
    if (status == PD_OK) status = pd_take(b, b->npairs, "pairs", &b->pair_query, err);
    if (status != PD_OK) return status;
    unsigned char *memory = b->lane->in.data;
    memcpy(memory + p->at[PART_QUERIES], p->out, p->n * sizeof *p->out);
    pack_vectors(p, (float *)(memory + p->at[PART_VECTORS]));
    pack_spans(&p->sets[OF_TABLES], sizeof(float), memory + p->at[PART_TABLES]);
    pack_spans(&p->sets[OF_KEY_WEIGHTS], sizeof(pd_key_weight), memory + p->at[PART_KEY_WEIGHTS]);
    pack_spans(&p->sets[OF_EXCLUDE], sizeof(uint64_t), memory + p->at[PART_EXCLUDE]);
    pack_spans(&p->sets[OF_SLOTS], sizeof(uint32_t), memory + p->at[PART_SLOTS]);
    pack_spans(&p->sets[OF_GIVEN], sizeof(uint32_t), memory + p->at[PART_GIVEN]);
    pack_filters(p, memory);
    point_at(p, to);
    status = pd_cuda_check(device, cudaMemcpyAsync(to, memory, p->bytes, cudaMemcpyHostToDevice, b->stream),
                           "copying queries in", err);
    if (status == PD_OK && b->npairs > 0)
        status =
            pd_cuda_check(device, PD_LAUNCH(name_pairs, p->n, 128, 0, b->stream, b->queries, b->pair_query),
                          "numbering pairs", err);
    return status;
}

pd_status pd_cuda_upload(pd_cuda_batch *batch, const pd_query *queries, uint32_t n, const pd_shape *shape,
                         pd_error *err)
{
    packer p = {};
    p.batch = batch;
    p.queries = queries;
    p.shape = shape;
    p.n = n;
    batch->n = n;
    pd_status status = open_sets(&p, err);
    for (uint32_t q = 0; status == PD_OK && q < n; q++)
        look_at(&p, q);
    if (status == PD_OK) {
        batch->ntables = batch->view.weights ? p.sets[OF_TABLES].total / batch->view.weights : 0;
        batch->nfilters = p.sets[OF_FILTERS].total;
        count_tests(&p);
        lay_out(&p);
        for (uint32_t s = 0; s < SETS; s++)
            if (p.sets[s].total == PD_NONE)
                status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%u queries bring too much at once", n);
    }
    if (status == PD_OK) status = send(&p, err);
    close_sets(&p);
    return status;
}
