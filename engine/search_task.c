/* A search as a task of the executor: which queries come next, and what becomes of their answers.
 *
 * Under diversity caps a query asks for more than k hits and keeps the first k that pass the caps; when fewer do, and the index
 * had more to give, it goes back in line asking for four times as many, to the depth that a backend can return.
 *
 * The table may change between two slices, so whatever is wanted of a hit's row is gathered with the slice that found it: a hit and
 * its attributes are of one moment, and the terms of an explanation sum to the score. An exact search runs beside the executor:
 * its hits are looked up by id when it comes back, and rows that went meanwhile are left out.
 */
#include "request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "exact.h"
#include "pados.pb-c.h"
#include "writer.h"

#define MAX_SCRATCH (1u << 20) /* hits of a slice under diversity caps */

static pd_search *of(pd_task *task)
{
    return (pd_search *)task;
}

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the hits");
}

static const pd_compiled *compiled_of(const pd_search *s, uint32_t query)
{
    return &s->groups[s->one[query].group].compiled;
}

static void wait_again(pd_search *s, uint32_t query)
{
    s->waiting[(s->first_waiting + s->task.pending++) % s->count] = query;
}

static uint32_t next_waiting(pd_search *s)
{
    uint32_t query = s->waiting[s->first_waiting];
    s->first_waiting = (s->first_waiting + 1) % s->count;
    s->task.pending--;
    return query;
}

static uint32_t first_depth(const pd_search *s, uint32_t query)
{
    if (compiled_of(s, query)->ncaps == 0) return s->k;
    return s->k * 4 < 64 ? 64 : s->k * 4;
}

pd_status pd_search_query(pd_search *s, uint32_t q, pd_hit *hits, pd_query *out, pd_answer *answer,
                          pd_error *err)
{
    const pd_plan *plan;
    pd_status status = pd_search_plan(s, q, &plan, err);
    if (status) return status;
    pd_one *one = &s->one[q];
    const pd_compiled *c = compiled_of(s, q);
    uint32_t nlist = s->info->shape.nlist, every = nlist ? nlist : 1;
    uint32_t nprobe = plan->path == PD_PATH_IVF ? plan->nprobe : plan->path == PD_PATH_ROWS ? 0 : every;
    *out = (pd_query){.vector = one->has_vector ? s->vectors + (size_t)q * s->info->shape.dim : NULL,
                      .similarity = c->similarity,
                      .weights = c->weights,
                      .key_weights = c->key_weights,
                      .nkey_weights = c->nkey_weights,
                      .filter = c->has_filter ? &c->filter : NULL,
                      .exclude = one->exclude,
                      .nexclude = one->nexclude,
                      .slots = plan->slots,
                      .nslots = plan->nslots,
                      .nprobe = nprobe,
                      .k = one->depth,
                      .depth = pd_plan_depth(s->served->resident, plan, one->depth),
                      .min_score = s->want.min_score};
    *answer = (pd_answer){.hits = hits};
    one->path = (uint32_t)plan->path;
    one->refined = out->depth ? out->depth : pd_refine_depth(one->depth);
    if (plan->recall < s->recall) s->recall = plan->recall;
    return PD_OK;
}

/* --------------------------------------------------------------------------------------------------- prepare --- */

/* For every hit that may come; pages that none comes to are never touched. */
static pd_status make_columns(pd_search *s, pd_error *err)
{
    const pd_shape *shape = &s->info->shape;
    size_t most = (size_t)s->count * s->k;
    if (!s->want_columns) return PD_OK;
    s->bytes = malloc(most * shape->nbytes + 1);
    s->floats = malloc((most * shape->nfloats + 1) * sizeof s->floats[0]);
    s->keys = malloc((most * shape->nkeys + 1) * sizeof s->keys[0]);
    return s->bytes && s->floats && s->keys ? PD_OK : no_memory(err);
}

/* A search that must see a change waits until it is visible: *next becomes PD_NEXT_PARK, once. */
static pd_status await_change(pd_search *s, pd_next *next, pd_error *err)
{
    if (pd_writer_visible(pd_catalog_writer(s->catalog)) < s->ask->at_least) {
        if (s->awaited)
            return pd_fail(err, PD_UNAVAILABLE, "stopping: the change waited for is not visible yet");
        s->awaited = 1;
        *next = PD_NEXT_PARK;
        return PD_OK;
    }
    /* Another version may have been switched in meanwhile, and it is that one which has the change. */
    pd_served *now = NULL;
    pd_status status = s->awaited ? pd_catalog_hold(s->catalog, s->ask->table, &now, err) : PD_OK;
    if (!status && now && now != s->served)
        status =
            pd_fail(err, PD_UNAVAILABLE,
                    "table \"%s\" was switched to another version while the search waited", s->served->table);
    if (now) pd_catalog_release(now);
    return status;
}

static pd_status start(pd_search *s, pd_error *err)
{
    uint64_t began = pd_now_ns();
    pd_live_stats live;
    pd_resident_live(s->served->resident, &live);
    s->sequence = live.applied;
    pd_status status = pd_resolve(s, err);
    if (status) return status;
    s->hits = malloc((size_t)s->count * s->k * sizeof s->hits[0]);
    if (!s->hits) return no_memory(err);
    status = make_columns(s, err);
    if (status) return status;
    for (uint32_t q = 0; q < s->count; q++) {
        const pd_plan *plan;
        status = pd_search_plan(s, q, &plan, err);
        if (status) return status;
        s->one[q].depth = first_depth(s, q);
        wait_again(s, q);
    }
    s->resolved = 1;
    s->resolve_ns = pd_now_ns() - began;
    return PD_OK;
}

/* ---------------------------------------------------------------------------------------------------- answers --- */

static pd_status gather_columns(pd_search *s, const pd_hit *hits, uint32_t n, uint8_t *bytes, float *floats,
                                uint64_t *keys, pd_error *err)
{
    uint32_t slots[256];
    const pd_shape *shape = &s->info->shape;
    for (uint32_t at = 0; at < n; at += 256) {
        uint32_t m = n - at < 256 ? n - at : 256;
        for (uint32_t i = 0; i < m; i++)
            slots[i] = hits[at + i].slot;
        pd_rows rows = {.bytes = bytes ? bytes + (size_t)at * shape->nbytes : NULL,
                        .floats = floats ? floats + (size_t)at * shape->nfloats : NULL,
                        .keys = keys ? keys + (size_t)at * shape->nkeys : NULL};
        pd_status status = pd_index_gather(s->task.index, slots, m, &rows, err);
        if (status) return status;
    }
    return PD_OK;
}

static pd_status diversify(pd_search *s, const pd_compiled *c, pd_hit *hits, uint32_t *n, pd_error *err)
{
    const pd_shape *shape = &s->info->shape;
    uint8_t *bytes = malloc((size_t)*n * shape->nbytes + 1);
    uint64_t *keys = malloc(((size_t)*n * shape->nkeys + 1) * sizeof *keys);
    pd_status status = bytes && keys ? gather_columns(s, hits, *n, bytes, NULL, keys, err) : no_memory(err);
    if (!status) *n = pd_diversify(s->info->schema, c->caps, c->ncaps, bytes, keys, hits, *n);
    free(bytes);
    free(keys);
    return status;
}

/* The hits of an exact search, where their rows are now; without those whose rows are no more. */
static uint32_t find_again(const pd_search *s, pd_one *one, pd_hit *hits, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = pd_resident_slot(s->served->resident, hits[i].id);
        if (slot == PD_NO_SLOT) continue;
        hits[kept] = hits[i];
        hits[kept++].slot = slot;
    }
    one->gone = n - kept;
    return kept;
}

static pd_status keep_columns(pd_search *s, uint32_t q, pd_error *err)
{
    const pd_shape *shape = &s->info->shape;
    size_t first = (size_t)q * s->k;
    if (!s->want_columns) return PD_OK;
    return gather_columns(s, s->hits + first, s->one[q].count, s->bytes + first * shape->nbytes,
                          s->floats + first * shape->nfloats, s->keys + first * shape->nkeys, err);
}

/* One query's answer, found at its depth. */
static pd_status settle(pd_search *s, uint32_t q, const pd_answer *answer, pd_error *err)
{
    pd_one *one = &s->one[q];
    const pd_compiled *c = compiled_of(s, q);
    uint32_t n = answer->count;
    if (s->want.exact) n = find_again(s, one, answer->hits, n);
    one->scanned = answer->scanned;
    s->scanned += answer->scanned;
    one->nprobe = answer->nprobe;
    if (c->ncaps) {
        pd_status status = diversify(s, c, answer->hits, &n, err);
        if (status) return status;
        if (n < s->k && answer->count == one->depth) {
            if (one->depth < PD_MAX_DEPTH) {
                one->depth = one->depth > PD_MAX_DEPTH / 4 ? PD_MAX_DEPTH : one->depth * 4;
                wait_again(s, q);
                return PD_OK;
            }
            pd_search_warn(s, "diversity: the first %u hits hold fewer than k that pass the caps",
                           PD_MAX_DEPTH);
        }
        if (n > s->k) n = s->k;
        memcpy(s->hits + (size_t)q * s->k, answer->hits, n * sizeof s->hits[0]);
    }
    one->count = n;
    return keep_columns(s, q, err);
}

/* Is the answer proved to be the exact top-k? Where every row was looked at and none of them was left out by its code alone. */
static int is_complete(const pd_search *s, const pd_one *one)
{
    const pd_shape *shape = &s->info->shape;
    pd_refine source = s->info->schema->source;
    if (one->gone) return 0;
    if (one->path == PD_PATH_EXACT || one->path == PD_PATH_ATTRIBUTES || !one->has_vector) return 1;
    if (one->path != PD_PATH_ALL && one->path != PD_PATH_ROWS && one->nprobe < shape->nlist) return 0;
    if (shape->code == PD_CODE_F32) return 1;
    int precise = shape->refine == PD_REFINE_F32 || shape->refine == PD_REFINE_I8 ||
                  shape->refine == PD_REFINE_U8 ||
                  (shape->refine == PD_REFINE_F16 && source == PD_REFINE_F16);
    return precise && (shape->code == PD_CODE_NONE || one->scanned <= one->refined);
}

static void finish(pd_search *s)
{
    uint64_t gone = 0;
    s->complete = 1;
    s->nhits = 0;
    for (uint32_t q = 0; q < s->count; q++) {
        s->complete = s->complete && is_complete(s, &s->one[q]);
        s->nhits += s->one[q].count;
        gone += s->one[q].gone;
    }
    if (gone)
        pd_search_warn(s, "%llu hits were deleted while the exact search ran, and were left out",
                       (unsigned long long)gone);
}

static void go_on(pd_search *s, pd_next *next)
{
    if (s->task.pending) {
        *next = s->want.exact ? PD_NEXT_PARK : PD_NEXT_SEARCH;
        return;
    }
    *next = PD_NEXT_DONE;
    finish(s);
}

static pd_status settle_all(pd_search *s, const uint32_t *which, const pd_answer *answers, uint32_t n,
                            pd_error *err)
{
    uint64_t began = pd_now_ns();
    pd_status status = PD_OK;
    for (uint32_t i = 0; !status && i < n; i++)
        status = settle(s, which[i], &answers[i], err);
    s->finish_ns += pd_now_ns() - began;
    return status;
}

/* ------------------------------------------------------------------------------------------------- the type --- */

static pd_status prepare(pd_task *task, pd_next *next, pd_error *err)
{
    pd_search *s = of(task);
    pd_status status = PD_OK;
    if (!s->resolved) {
        status = await_change(s, next, err);
        if (status || *next == PD_NEXT_PARK) return status;
        status = start(s, err);
    } else if (s->nexact) {
        uint32_t n = s->nexact;
        s->nexact = 0;
        status = settle_all(s, s->taken, s->exact_answers, n, err);
        free(s->scratch);
        s->scratch = NULL;
    }
    if (!status) go_on(s, next);
    return status;
}

/* Room for the hits of the next queries: the request's own where depth is k, else scratch. Returns how many fit. */
static uint32_t take_some(pd_search *s, uint32_t max, pd_query *queries, pd_answer *answers)
{
    uint32_t n = 0;
    size_t room = 0;
    for (; n < max && n < s->task.pending; n++) {
        uint32_t q = s->waiting[(s->first_waiting + n) % s->count];
        size_t more = compiled_of(s, q)->ncaps ? s->one[q].depth : 0;
        if (n && room + more > MAX_SCRATCH) break;
        room += more;
    }
    if (room) {
        s->scratch = malloc(room * sizeof s->scratch[0]);
        if (!s->scratch) return 0;
    }
    size_t used = 0;
    pd_error err;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t q = next_waiting(s);
        int capped = compiled_of(s, q)->ncaps != 0;
        pd_hit *hits = capped ? s->scratch + used : s->hits + (size_t)q * s->k;
        if (capped) used += s->one[q].depth;
        s->taken[i] = q;
        /* Its plan was made in start(), so that this cannot fail. */
        if (pd_search_query(s, q, hits, &queries[i], &answers[i], &err)) return 0;
    }
    return n;
}

static uint32_t take(pd_task *task, uint32_t max, pd_query *queries, pd_answer *answers)
{
    return take_some(of(task), max, queries, answers);
}

static pd_status absorb(pd_task *task, const pd_query *queries, const pd_answer *answers, uint32_t n,
                        const pd_timing *timing, pd_next *next, pd_error *err)
{
    (void)queries;
    pd_search *s = of(task);
    s->timing.coarse_ns += timing->coarse_ns;
    s->timing.scan_ns += timing->scan_ns;
    s->timing.refine_ns += timing->refine_ns;
    pd_status status = settle_all(s, s->taken, answers, n, err);
    free(s->scratch);
    s->scratch = NULL;
    if (!status) go_on(s, next);
    return status;
}

uint32_t pd_search_take_exact(pd_search *s)
{
    if (!s->exact_queries) {
        s->exact_queries = malloc(s->count * sizeof s->exact_queries[0]);
        s->exact_answers = malloc(s->count * sizeof s->exact_answers[0]);
    }
    if (!s->exact_queries || !s->exact_answers) return 0;
    s->nexact = take_some(s, s->count, s->exact_queries, s->exact_answers);
    return s->nexact;
}

static void park(pd_task *task)
{
    pd_search *s = of(task);
    if (s->resolved)
        pd_exact_add(s->exact_worker, s);
    else
        pd_writer_await(pd_catalog_writer(s->catalog), task, s->ask->at_least);
}

static int wanted(pd_task *task)
{
    return of(task)->wanted(of(task));
}

static void done(pd_task *task, pd_status status, const pd_error *err)
{
    pd_search *s = of(task);
    s->done_ns = pd_now_ns();
    s->done(s, status, err);
}

const pd_task_type pd_search_task = {
    .prepare = prepare, .take = take, .absorb = absorb, .park = park, .wanted = wanted, .done = done};
