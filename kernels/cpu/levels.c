/* Choosing the lists to probe on two levels (score.h): groups of lists first, then lists of the best groups.
 *
 * A task is a block of queries. All groups are ranked for all of them, as lists are on one level; then the block goes group by group, in
 * ascending order: the pages of a group's centroids are read once for all of the block's queries that take it, up to 32 at a
 * time. What comes out is appended to a row of scores of each query, which so lies in the order of the lists without their
 * numbers, and the rest is as on one level. Few queries are one task each for a thread: there is too little work to share.
 */
#include <string.h>

#include "coarse.h"
#include "score.h"

#define MOST_BLOCK  256u
#define BLOCK_BYTES ((size_t)4 << 20) /* of scores, about what a core's second and third cache hold */
#define BEHIND      64u               /* floats that may be read or written behind a row */

/* What a worker chooses with. Rows of bits: a bit a group or a query. */
typedef struct pd_leveller {
    float *ranks;         /* [block][groups_apart] of groups */
    float *scores;        /* [block][room + BEHIND] of the lists of the groups that are taken */
    float *part;          /* [PD_GROUP + 1][PD_PAGE_ROWS] of a page */
    float *upper;         /* [ngroups] what the weights promise of groups */
    unsigned char *codes; /* [PD_GROUP][packed] */
    uint64_t *takes;      /* [block][group_words] groups that a query takes */
    uint64_t *taken;      /* [ngroups][MOST_BLOCK / 64] queries that take a group */
    uint64_t *promised;   /* [group_words] groups whose lists are in worker->summary */
    uint32_t *at;         /* [block] scores of each query so far */
} pd_leveller;

enum { PIECES = 9 };

typedef struct levels {
    pd_batch *batch;
    const pd_level *level;
    uint32_t block;        /* queries of a task */
    uint32_t room;         /* the most lists that a query takes */
    uint32_t groups_apart; /* floats */
    uint32_t group_words;
    size_t packed, each; /* bytes: of a packed code, of a worker */
} levels;

static size_t up64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}

/* Lists that the groups of a query must hold. */
static uint64_t lists_wanted(const levels *l, const pd_query *query)
{
    return (uint64_t)PD_GROUP_REACH * pd_cpu_probes(l->batch->index, query);
}

/* The most lists that any query takes. The last group that is taken brings at most all of its own; lists without rows come
 * on top, and with a filter there is no telling. */
static uint32_t most_lists(const levels *l)
{
    const pd_batch *batch = l->batch;
    uint32_t nlist = batch->index->base.shape.nlist, some = 0;
    uint64_t most = 0;
    for (uint32_t q = 0; q < batch->n; q++) {
        if (!pd_coarse_chooses(batch, q)) continue;
        uint64_t wanted = lists_wanted(l, &batch->queries[q]);
        most = wanted > most ? wanted : most;
        if (batch->queries[q].filter) most = nlist;
        some = 1;
    }
    most += (uint64_t)PD_LEAST_GROUPS * l->level->most + (nlist - l->level->live);
    return some ? most < nlist ? (uint32_t)most : nlist : 0;
}

static levels levels_of(pd_batch *batch)
{
    const pd_host_index *index = batch->index;
    uint32_t threads = pd_pool_threads(batch->device->pool);
    levels l = {.batch = batch, .level = &index->upper};
    l.room = most_lists(&l);
    l.groups_apart = pd_pages_for(l.level->ngroups) * PD_PAGE_ROWS;
    l.group_words = (l.level->ngroups + 63) / 64;
    l.packed = pd_packed_bytes(batch->device->i8, pd_dim64(index->coarse.code_dim));
    size_t fits = BLOCK_BYTES / ((l.room + BEHIND) * sizeof(float));
    uint32_t share = (batch->n + threads - 1) / threads, part = (batch->n + 4 * threads - 1) / (4 * threads);
    /* Several tasks a thread where each is a group of queries or more, so that none idles at the end. */
    uint32_t block = part > PD_GROUP ? part : share < PD_GROUP ? share : PD_GROUP;
    block = threads == 1 ? batch->n : block;
    block = block > MOST_BLOCK ? MOST_BLOCK : block;
    block = block > PD_GROUP && block > fits ? (fits > PD_GROUP ? (uint32_t)fits : PD_GROUP) : block;
    l.block = block > 0 ? block : 1;
    return l;
}

static void sizes_of(const levels *l, size_t *sizes)
{
    size_t groups = l->level->ngroups, block = l->block;
    sizes[0] = block * l->groups_apart * sizeof(float);
    sizes[1] = block * (l->room + BEHIND) * sizeof(float);
    sizes[2] = (size_t)(PD_GROUP + 1) * PD_PAGE_ROWS * sizeof(float);
    sizes[3] = groups * sizeof(float);
    sizes[4] = PD_GROUP * l->packed;
    sizes[5] = block * l->group_words * sizeof(uint64_t);
    sizes[6] = groups * (MOST_BLOCK / 64) * sizeof(uint64_t);
    sizes[7] = l->group_words * sizeof(uint64_t);
    sizes[8] = block * sizeof(uint32_t);
}

static size_t bytes_each(const levels *l)
{
    size_t sizes[PIECES], bytes = 0;
    sizes_of(l, sizes);
    for (int i = 0; i < PIECES; i++)
        bytes += up64(sizes[i]);
    return bytes;
}

pd_status pd_levels_memory(pd_batch *batch, pd_error *err)
{
    if (batch->index->upper.ngroups == 0) return PD_OK;
    levels l = levels_of(batch);
    size_t threads = pd_pool_threads(batch->device->pool);
    return pd_buffer_need(&batch->device->scratch[PD_SCRATCH_LEVELS], threads * bytes_each(&l),
                          "choosing lists", err);
}

static pd_leveller leveller_of(const levels *l, uint32_t worker)
{
    size_t sizes[PIECES];
    void *pieces[PIECES];
    unsigned char *at = (unsigned char *)l->batch->device->scratch[PD_SCRATCH_LEVELS].data + worker * l->each;
    sizes_of(l, sizes);
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = at;
        at += up64(sizes[i]);
    }
    return (pd_leveller){.ranks = pieces[0],
                         .scores = pieces[1],
                         .part = pieces[2],
                         .upper = pieces[3],
                         .codes = pieces[4],
                         .takes = pieces[5],
                         .taken = pieces[6],
                         .promised = pieces[7],
                         .at = pieces[8]};
}

static int has_bit(const uint64_t *bits, uint32_t i)
{
    return (int)(bits[i / 64] >> i % 64 & 1u);
}

static void set_bit(uint64_t *bits, uint32_t i)
{
    bits[i / 64] |= (uint64_t)1 << i % 64;
}

/* The first bit from i on; n where there is none. */
static uint32_t next_bit(const uint64_t *bits, uint32_t i, uint32_t n)
{
    while (i < n) {
        uint64_t some = bits[i / 64] >> i % 64;
        if (some) {
            i += (uint32_t)__builtin_ctzll(some);
            return i < n ? i : n;
        }
        i += 64 - i % 64;
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------ groups --- */

/* Lists of a group that have rows and can pass. */
static uint32_t live_lists(const levels *l, const pd_block_filter *fold, uint32_t group)
{
    if (!fold) return l->level->lists[group];
    const pd_host_index *index = l->batch->index;
    uint32_t count = 0;
    for (uint32_t list = l->level->first[group]; list < l->level->first[group + 1]; list++)
        count += index->rows[list] > 0 && pd_blocks_list_may(&index->blocks, fold, list);
    return count;
}

/* Of the n best groups, in worker->lists ascending, those that the rule takes: the last that is not needed goes, again and again.
 * Returns how many are left; 0 where the n do not hold enough lists. */
static uint32_t enough_groups(const levels *l, const float *ranks, uint32_t n, const pd_block_filter *fold,
                              uint64_t wanted, pd_worker *worker)
{
    uint64_t held = 0;
    for (uint32_t i = 0; i < n; i++)
        held += live_lists(l, fold, worker->lists[i]);
    if (held < wanted) return n == l->level->ngroups ? n : 0;
    while (n > PD_LEAST_GROUPS) {
        uint32_t last = 0;
        for (uint32_t i = 1; i < n; i++)
            if (ranks[worker->lists[i]] <= ranks[worker->lists[last]]) last = i;
        uint32_t own = live_lists(l, fold, worker->lists[last]);
        if (held - own < wanted) break;
        held -= own;
        memmove(&worker->lists[last], &worker->lists[last + 1], (n - last - 1) * sizeof *worker->lists);
        n--;
    }
    return n;
}

/* The groups that query q, the i-th of the block, takes. */
static void take_groups(const levels *l, pd_leveller *with, uint32_t q, uint32_t i, int promised,
                        pd_worker *worker)
{
    const pd_batch *batch = l->batch;
    const pd_query *query = &batch->queries[q];
    const pd_blocks *blocks = &batch->index->blocks;
    uint32_t ngroups = l->level->ngroups, n = 0;
    float *ranks = with->ranks + (size_t)i * l->groups_apart;
    pd_block_filter folded, *fold = NULL;
    if (query->filter && pd_block_filter_of(blocks, query->filter, &folded)) fold = &folded;
    batch->device->ops->settle(ranks, promised ? with->upper : NULL, ngroups);
    for (uint32_t g = 0; fold && g < ngroups; g++)
        if (!pd_level_may(l->level, blocks, fold, g)) ranks[g] = -FLT_MAX;
    uint64_t wanted = lists_wanted(l, query);
    uint64_t likely = wanted * ngroups / (l->level->live + 1) + 2;
    if (likely < PD_LEAST_GROUPS) likely = PD_LEAST_GROUPS;
    while (n == 0) {
        uint32_t some = likely < ngroups ? (uint32_t)likely : ngroups;
        some = pd_coarse_pick(batch, ranks, ngroups, some, worker);
        n = enough_groups(l, ranks, some, fold, wanted, worker);
        likely += likely / 2;
    }
    uint64_t *takes = with->takes + (size_t)i * l->group_words;
    memset(takes, 0, l->group_words * sizeof *takes);
    for (uint32_t g = 0; g < n; g++) {
        set_bit(takes, worker->lists[g]);
        set_bit(with->taken + (size_t)worker->lists[g] * (MOST_BLOCK / 64), i);
    }
}

/* Queries of one request share their weights: what the weights of the one before promise serves again. */
typedef struct shared {
    const pd_cpu_column *columns;
    uint32_t ncolumns;
    pd_promises promises;
} shared;

/* Returns 1 where the weights are others than those of the query before. */
static int others(const levels *l, uint32_t q, shared *before, pd_worker *worker)
{
    const pd_prep *prep = &l->batch->preps[q];
    if (prep->weigh.columns == before->columns && prep->weigh.ncolumns == before->ncolumns) return 0;
    before->columns = prep->weigh.columns;
    before->ncolumns = prep->weigh.ncolumns;
    pd_promises_of(l->batch, prep, worker, &before->promises);
    return 1;
}

static void rank_groups(const levels *l, pd_leveller *with, uint32_t first, uint32_t n, pd_worker *worker)
{
    const pd_batch *batch = l->batch;
    shared before = {.ncolumns = UINT32_MAX};
    memset(with->taken, 0, (size_t)l->level->ngroups * (MOST_BLOCK / 64) * sizeof *with->taken);
    for (uint32_t i = 0; i < n; i += PD_GROUP)
        pd_coarse_near(batch, first + i, n - i < PD_GROUP ? n - i : PD_GROUP, l->level->pages, 0,
                       pd_pages_for(l->level->ngroups), with->ranks + (size_t)i * l->groups_apart,
                       l->groups_apart);
    for (uint32_t i = 0; i < n; i++) {
        if (!pd_coarse_chooses(batch, first + i)) continue;
        if (others(l, first + i, &before, worker) && before.promises.n)
            pd_promises_sum(batch, &before.promises, l->level->histograms, l->level->ngroups, 0,
                            l->level->ngroups, worker, with->upper);
        take_groups(l, with, first + i, i, before.promises.n > 0, worker);
    }
}

/* ------------------------------------------------------------------------------------------------ lists --- */

/* The lists of a group for n queries of the block that take it. */
static void near_group(const levels *l, pd_leveller *with, uint32_t first, uint32_t group,
                       const uint32_t *which, uint32_t n)
{
    const pd_batch *batch = l->batch;
    const pd_host_index *index = batch->index;
    const pd_layout *layout = &index->coarse;
    const pd_cpu_device *device = batch->device;
    uint32_t from = l->level->first[group], to = l->level->first[group + 1];
    pd_cpu_group near;
    int32_t dots[PD_GROUP * PD_PAGE_ROWS];
    for (uint32_t i = 0; i < n; i++) {
        const pd_prep *prep = &batch->preps[first + which[i]];
        memcpy(with->codes + i * l->packed, prep->near, l->packed);
        near.lt[i] = near.bar[i] = 0.0f;
        near.a[i] = prep->query->similarity;
        near.qf[i] = prep->nf;
    }
    /* The pages at either end may begin or end with lists of the group's neighbours. */
    for (uint32_t list = from, end; list < to; list = end) {
        uint32_t place = list % PD_PAGE_ROWS;
        end = list - place + PD_PAGE_ROWS < to ? list - place + PD_PAGE_ROWS : to;
        unsigned char *page = index->coarse_pages + list / PD_PAGE_ROWS * layout->page_bytes;
        device->i8->dots((const int8_t *)(page + layout->codes), layout->dim4 / 4, pd_dim64(layout->code_dim),
                         with->codes, n, dots);
        device->ops->scores_i8(dots, n, pd_page_term(layout, page), pd_page_scale(layout, page), &near,
                               with->part, PD_PAGE_ROWS);
        for (uint32_t i = 0; i < n; i++) {
            float *to_scores = with->scores + (size_t)which[i] * (l->room + BEHIND) + with->at[which[i]];
            /* A page whole: what is too much is written over by the next one. */
            memcpy(to_scores, with->part + (size_t)i * PD_PAGE_ROWS + place,
                   PD_PAGE_ROWS * sizeof *to_scores);
            with->at[which[i]] += end - list;
        }
    }
}

static void near_lists(const levels *l, pd_leveller *with, uint32_t first, uint32_t n)
{
    memset(with->at, 0, n * sizeof *with->at);
    for (uint32_t g = 0; g < l->level->ngroups; g++) {
        const uint64_t *taken = with->taken + (size_t)g * (MOST_BLOCK / 64);
        uint32_t which[PD_GROUP], m = 0;
        for (uint32_t i = next_bit(taken, 0, n); i < n; i = next_bit(taken, i + 1, n)) {
            which[m++] = i;
            if (m < PD_GROUP) continue;
            near_group(l, with, first, g, which, m);
            m = 0;
        }
        if (m) near_group(l, with, first, g, which, m);
    }
}

/* What the weights promise of the lists of a group, unless it is known. */
static const float *summary_of(const levels *l, pd_leveller *with, const shared *weights, uint32_t group,
                               pd_worker *worker)
{
    const pd_host_index *index = l->batch->index;
    uint32_t from = l->level->first[group];
    if (weights->promises.n == 0) return NULL;
    if (!has_bit(with->promised, group))
        pd_promises_sum(l->batch, &weights->promises, index->histograms, index->base.shape.nlist, from,
                        l->level->first[group + 1] - from, worker, worker->summary + from);
    set_bit(with->promised, group);
    return worker->summary + from;
}

/* Scores become ranks. Returns how many. */
static uint32_t settle_lists(const levels *l, pd_leveller *with, uint32_t q, uint32_t i,
                             const shared *weights, pd_worker *worker)
{
    const pd_batch *batch = l->batch;
    const pd_blocks *blocks = &batch->index->blocks;
    const uint64_t *takes = with->takes + (size_t)i * l->group_words;
    const pd_filter *filter = batch->queries[q].filter;
    float *scores = with->scores + (size_t)i * (l->room + BEHIND);
    uint32_t ngroups = l->level->ngroups, at = 0;
    pd_block_filter fold;
    int filters = filter && pd_block_filter_of(blocks, filter, &fold);
    for (uint32_t g = next_bit(takes, 0, ngroups); g < ngroups; g = next_bit(takes, g + 1, ngroups)) {
        uint32_t from = l->level->first[g], n = l->level->first[g + 1] - from;
        batch->device->ops->settle(scores + at, summary_of(l, with, weights, g, worker), n);
        for (uint32_t k = 0; filters && k < n; k++)
            if (!pd_blocks_list_may(blocks, &fold, from + k)) scores[at + k] = -FLT_MAX;
        at += n;
    }
    return at;
}

/* Places among the scores of the i-th query, ascending, become the numbers of their lists. */
static void number_lists(const levels *l, const pd_leveller *with, uint32_t i, uint32_t *places, uint32_t n)
{
    const uint64_t *takes = with->takes + (size_t)i * l->group_words;
    uint32_t ngroups = l->level->ngroups, at = 0, done = 0;
    for (uint32_t g = next_bit(takes, 0, ngroups); done < n; g = next_bit(takes, g + 1, ngroups)) {
        uint32_t from = l->level->first[g], end = at + l->level->first[g + 1] - from;
        for (; done < n && places[done] < end; done++)
            places[done] = from + (places[done] - at);
        at = end;
    }
}

static void level_task(void *context, uint32_t task, uint32_t number)
{
    const levels *l = context;
    pd_batch *batch = l->batch;
    pd_worker *worker = &batch->workers[number];
    pd_leveller with = leveller_of(l, number);
    uint32_t first = task * l->block, n = batch->n - first < l->block ? batch->n - first : l->block;
    shared weights = {.ncolumns = UINT32_MAX};
    rank_groups(l, &with, first, n, worker);
    near_lists(l, &with, first, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t q = first + i;
        if (!pd_coarse_chooses(batch, q)) {
            pd_coarse_given(batch, q);
            continue;
        }
        if (others(l, q, &weights, worker)) memset(with.promised, 0, l->group_words * sizeof *with.promised);
        uint32_t count = settle_lists(l, &with, q, i, &weights, worker);
        const float *scores = with.scores + (size_t)i * (l->room + BEHIND);
        count = pd_coarse_pick(batch, scores, count, pd_cpu_probes(batch->index, &batch->queries[q]), worker);
        for (uint32_t k = 0; k < count; k++)
            worker->best[k] = scores[worker->lists[k]];
        number_lists(l, &with, i, worker->lists, count);
        pd_coarse_take(batch, q, worker->lists, worker->best, count, worker);
    }
}

void pd_levels_choose(pd_batch *batch)
{
    levels l = levels_of(batch);
    l.each = bytes_each(&l);
    pd_pool_run(batch->device->pool, (batch->n + l.block - 1) / l.block, level_task, &l);
}
