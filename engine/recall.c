/* Sampling live queries and asking them again: see recall.h. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "random.h"
#include "recall_impl.h"

#define SEED       20261127u
#define WAITING    256u          /* samples */
#define WAITING_MB 64u           /* of them all */
#define ENOUGH     64u           /* samples are worth a pass at once */
#define PATIENCE   1000000000ull /* ns: fewer are, after so long */
#define PASS_HITS  262144u       /* of one pass */
#define TRY_AGAIN  1000000000ull /* ns after a pass that gave way */
#define LATE                                                                                                 \
    60000000000ull /* ns: a sample that old says little of now, and keeps somebody's vector too long */

typedef enum drop { DROP_FULL, DROP_LARGE, DROP_GONE, DROP_LATE, DROP_FAILED, DROPS } drop;

struct pd_recall {
    pd_catalog *catalog;
    pd_executor *executor;
    pd_exact_worker *exact;
    pd_recall_book *book;
    pthread_t thread;
    int started;
    atomic_int stopping;
    atomic_uint_fast64_t dropped[DROPS];
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t more;
    pd_recall_dice dice;
    pd_sampled *first, **last;
    uint32_t waiting;
    size_t bytes;
    uint64_t oldest_ns, rest_until; /* when the first one came; no pass before */
};

/* -------------------------------------------------------------------------------------------------- sampling --- */

/* The gaps between hits of independent throws: geometric. */
static void draw(pd_recall_dice *dice, double share)
{
    double u = ((double)(pd_random_next(&dice->state) >> 11) + 0.5) * 0x1p-53;
    double gap = floor(log(u) / log1p(-share));
    dice->share = share;
    dice->skip = gap < 1e18 ? (uint64_t)gap : (uint64_t)1e18;
}

int pd_recall_throw(pd_recall_dice *dice, double share)
{
    if (!(share > 0)) return 0;
    if (share >= 1) return 1;
    if (dice->share != share) draw(dice, share);
    if (dice->skip) {
        dice->skip--;
        return 0;
    }
    draw(dice, share);
    return 1;
}

static void count_drop(pd_recall *r, drop why, uint32_t n)
{
    atomic_fetch_add(&r->dropped[why], n);
}

/* With the lock held. */
static void put(pd_recall *r, pd_sampled *sample)
{
    sample->next = NULL;
    *r->last = sample;
    r->last = &sample->next;
    if (!r->waiting++) r->oldest_ns = pd_now_ns();
    r->bytes += sample->bytes;
}

static void keep(pd_recall *r, pd_search *s, uint32_t q)
{
    int large;
    if (r->waiting >= WAITING || r->bytes >= (size_t)WAITING_MB << 20) {
        count_drop(r, DROP_FULL, 1);
        return;
    }
    pd_sampled *sample = pd_sampled_make(s, q, &large);
    if (!sample) {
        count_drop(r, large ? DROP_LARGE : DROP_FAILED, 1);
        return;
    }
    sample->born_ns = pd_now_ns();
    put(r, sample);
}

void pd_recall_offer(pd_recall *r, pd_search *s, double share)
{
    if (!(share > 0) || atomic_load(&r->stopping)) return;
    pthread_mutex_lock(&r->lock);
    for (uint32_t q = 0; q < s->count; q++)
        if (pd_sampled_fits(s, q) && pd_recall_throw(&r->dice, share)) keep(r, s, q);
    if (r->waiting) pthread_cond_signal(&r->more);
    pthread_mutex_unlock(&r->lock);
}

/* -------------------------------------------------------------------------------------------------- the pass --- */

typedef struct pass {
    pd_recall *r;
    pd_sampled *samples; /* of one version of one table */
    uint32_t n;
    pd_served *served;
    pd_query *queries;
    pd_answer *answers;
    pd_hit *hits;
} pass;

static int is_of(const pd_sampled *sample, const pd_served *served)
{
    return served->number == sample->version && served->info->created == sample->created;
}

/* Held when the version that answered serves still. */
static int hold(pd_recall *r, const pd_sampled *sample, pd_served **out)
{
    pd_error err;
    if (pd_catalog_hold(r->catalog, sample->table, out, &err)) return 0;
    if (is_of(sample, *out)) return 1;
    pd_catalog_release(*out);
    return 0;
}

/* Nobody who switches a table waits long for a pass over the version of before. */
static int stop(void *context)
{
    pass *p = context;
    pd_served *now;
    if (atomic_load(&p->r->stopping)) return 1;
    if (!hold(p->r, p->samples, &now)) return 1;
    pd_catalog_release(now);
    return 0;
}

static pd_status open_pass(pass *p, pd_error *err)
{
    size_t room = 0;
    for (const pd_sampled *s = p->samples; s; s = s->next)
        room += s->query.k;
    p->queries = malloc(p->n * sizeof *p->queries);
    p->answers = calloc(p->n, sizeof *p->answers);
    p->hits = malloc(room * sizeof *p->hits);
    if (!p->queries || !p->answers || !p->hits)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u exact searches", p->n);
    size_t used = 0;
    uint32_t i = 0;
    for (const pd_sampled *s = p->samples; s; s = s->next, i++) {
        p->queries[i] = s->query;
        p->answers[i].hits = p->hits + used;
        used += s->query.k;
    }
    return PD_OK;
}

static void close_pass(pass *p)
{
    free(p->queries);
    free(p->answers);
    free(p->hits);
    pd_catalog_release(p->served);
}

/* ------------------------------------------------------------------------------------------------- diversity --- */

typedef struct capped {
    const pd_served *served;
    pd_answer *answer;
    uint32_t *slots;
    uint8_t *bytes;
    uint64_t *keys;
} capped;

/* On the executor: the columns that caps look at, of the hits that are still there. */
static pd_status gather(void *argument, pd_error *err)
{
    capped *c = argument;
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->answer->count; i++) {
        uint32_t slot = pd_resident_slot(c->served->resident, c->answer->hits[i].id);
        if (slot == PD_NO_SLOT) continue;
        c->answer->hits[n] = c->answer->hits[i];
        c->slots[n++] = slot;
    }
    c->answer->count = n;
    pd_rows rows = {.bytes = c->bytes, .keys = c->keys};
    return n ? pd_index_gather(pd_resident_index(c->served->resident), c->slots, n, &rows, err) : PD_OK;
}

/* The caps that the reply was under, on the exact answer. */
static pd_status apply_caps(pd_recall *r, const pd_served *served, const pd_sampled *sample,
                            pd_answer *answer, pd_error *err)
{
    const pd_schema *schema = served->info->schema;
    const pd_shape *shape = &served->info->shape;
    pd_cap caps[PD_MAX_ATTRIBUTES];
    uint32_t ncaps = sample->ncaps < PD_MAX_ATTRIBUTES ? sample->ncaps : PD_MAX_ATTRIBUTES;
    size_t n = answer->count;
    if (!ncaps || !n) return PD_OK;
    for (uint32_t i = 0; i < ncaps; i++)
        caps[i] = (pd_cap){.attribute = &schema->attributes[sample->caps[i].attribute],
                           .at_most = sample->caps[i].at_most};
    capped c = {.served = served, .answer = answer};
    c.slots = malloc(n * sizeof *c.slots);
    c.bytes = malloc(n * shape->nbytes + 1);
    c.keys = malloc((n * shape->nkeys + 1) * sizeof *c.keys);
    pd_status status = c.slots && c.bytes && c.keys
                           ? pd_executor_call(r->executor, gather, &c, err)
                           : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the columns of %zu hits", n);
    if (!status)
        answer->count = pd_diversify(schema, caps, ncaps, c.bytes, c.keys, answer->hits, answer->count);
    free(c.slots);
    free(c.bytes);
    free(c.keys);
    return status;
}

/* ------------------------------------------------------------------------------------------------- comparing --- */

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Of the first k exact hits, how many the reply had. Sorts the sample's ids. */
static uint32_t count_common(pd_sampled *sample, const pd_answer *answer, uint32_t k)
{
    uint32_t common = 0;
    qsort(sample->ids, sample->nids, sizeof *sample->ids, by_id);
    for (uint32_t i = 0; i < answer->count && i < k; i++)
        common += bsearch(&answer->hits[i].id, sample->ids, sample->nids, sizeof *sample->ids, by_id) != NULL;
    return common;
}

static void compare(pd_recall *r, const pd_served *served, pd_sampled *sample, pd_answer *answer)
{
    pd_error err = {0};
    pd_status status = apply_caps(r, served, sample, answer, &err);
    if (!status) {
        pd_recall_outcome outcome = {.table = sample->table,
                                     .profile = sample->profile,
                                     .fused = sample->fused,
                                     .version = sample->version,
                                     .promise = sample->promise,
                                     .wanted = answer->count < sample->k ? answer->count : sample->k};
        if (sample->nids) outcome.hits = count_common(sample, answer, sample->k);
        status = pd_recall_book_add(r->book, &outcome, pd_now_ns(), &err);
    }
    if (!status) return;
    count_drop(r, DROP_FAILED, 1);
    pd_log(PD_LOG_DEBUG, "recall of \"%s\" is not measured: %s", sample->table, err.message);
}

/* --------------------------------------------------------------------------------------------------- thread --- */

static void free_samples(pd_sampled *samples)
{
    while (samples) {
        pd_sampled *next = samples->next;
        free(samples);
        samples = next;
    }
}

/* With the lock held: ends those that have waited too long, oldest first. */
static void drop_late(pd_recall *r)
{
    uint64_t now = pd_now_ns();
    while (r->first && now - r->first->born_ns >= LATE) {
        pd_sampled *late = r->first;
        r->first = late->next;
        if (!r->first) r->last = &r->first;
        r->waiting--;
        r->bytes -= late->bytes;
        count_drop(r, DROP_LATE, 1);
        free(late);
    }
}

/* With the lock held: those of the version of the first, up to what a pass can hold; the others stay, in order. */
static void take(pd_recall *r, pass *out)
{
    pd_sampled *all = r->first, **end = &out->samples;
    size_t hits = 0;
    const char *table = all->table;
    uint64_t version = all->version;
    double created = all->created;
    r->first = NULL;
    r->last = &r->first;
    r->waiting = 0;
    r->bytes = 0;
    for (pd_sampled *next; all; all = next) {
        next = all->next;
        int fits = !out->n || hits + all->query.k <= PASS_HITS;
        if (!fits || all->version != version || all->created != created || strcmp(all->table, table) != 0) {
            put(r, all);
            continue;
        }
        all->next = NULL;
        *end = all;
        end = &all->next;
        hits += all->query.k;
        out->n++;
    }
}

/* CANCELLED: somebody needed the worker; they are to be asked later. */
static pd_status run_pass(pass *p, pd_error *err)
{
    pd_recall *r = p->r;
    if (!hold(r, p->samples, &p->served)) {
        count_drop(r, DROP_GONE, p->n);
        return PD_OK;
    }
    pd_status status = open_pass(p, err);
    if (!status) status = pd_exact_pass(r->exact, p->served, p->queries, p->n, p->answers, stop, p, err);
    uint32_t i = 0;
    for (pd_sampled *s = p->samples; !status && s; s = s->next, i++)
        compare(r, p->served, s, &p->answers[i]);
    close_pass(p);
    return status;
}

/* What was not asked waits again, before what came since. With the lock held. */
static void put_back(pd_recall *r, pass *p)
{
    pd_sampled *since = r->first;
    r->first = NULL;
    r->last = &r->first;
    r->waiting = 0;
    r->bytes = 0;
    for (pd_sampled *next, *s = p->samples; s; s = next) {
        next = s->next;
        put(r, s);
    }
    p->samples = NULL;
    for (pd_sampled *next; since; since = next) {
        next = since->next;
        put(r, since);
    }
}

/* With the lock held: until a pass is worth while. 0: the thread is to end. */
static int wait_for_samples(pd_recall *r)
{
    while (!atomic_load(&r->stopping)) {
        drop_late(r);
        uint64_t now = pd_now_ns(), at = r->oldest_ns + (r->waiting >= ENOUGH ? 0 : PATIENCE);
        if (at < r->rest_until) at = r->rest_until;
        if (r->waiting && now >= at) return 1;
        if (r->waiting) {
            struct timespec until = pd_clock_at(at);
            pthread_cond_timedwait(&r->more, &r->lock, &until);
        } else {
            pthread_cond_wait(&r->more, &r->lock);
        }
    }
    return 0;
}

static void *serve(void *context)
{
    pd_recall *r = context;
    pthread_mutex_lock(&r->lock);
    while (wait_for_samples(r)) {
        pass p = {.r = r};
        pd_error err = {0};
        take(r, &p);
        pthread_mutex_unlock(&r->lock);
        uint64_t began = pd_now_ns();
        pd_status status = run_pass(&p, &err);
        uint64_t now = pd_now_ns();
        if (status && status != PD_CANCELLED) {
            count_drop(r, DROP_FAILED, p.n);
            pd_log(PD_LOG_DEBUG, "recall of \"%s\" is not measured: %s", p.samples->table, err.message);
        }
        pthread_mutex_lock(&r->lock);
        /* As long a rest as the work took: the disk is others', too. */
        r->rest_until = status == PD_CANCELLED ? now + TRY_AGAIN : now + (now - began);
        if (status == PD_CANCELLED) put_back(r, &p);
        free_samples(p.samples);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ life --- */

pd_status pd_recall_open(pd_catalog *catalog, pd_executor *executor, pd_exact_worker *exact,
                         pd_recall_book *book, pd_recall **out, pd_error *err)
{
    pd_recall *r = calloc(1, sizeof *r);
    if (!r) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to measure recall");
    r->catalog = catalog;
    r->executor = executor;
    r->exact = exact;
    r->book = book;
    r->dice.state = SEED;
    r->last = &r->first;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failed = pthread_create(&r->thread, NULL, serve, r);
    if (failed) {
        pd_recall_close(r);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "the thread that measures recall: %s", strerror(failed));
    }
    r->started = 1;
    pthread_setname_np(r->thread, "pd-recall");
    *out = r;
    return PD_OK;
}

void pd_recall_stop(pd_recall *r)
{
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    atomic_store(&r->stopping, 1);
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
    if (r->started) pthread_join(r->thread, NULL);
    r->started = 0;
}

void pd_recall_close(pd_recall *r)
{
    if (!r) return;
    pd_recall_stop(r);
    free_samples(r->first);
    pthread_cond_destroy(&r->more);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void pd_recall_tell(pd_recall *r,
                    void (*visit)(void *context, const char *name, const char *labels, double value),
                    void *context)
{
    static const char *const reasons[DROPS] = {"reason=\"full\"", "reason=\"large\"", "reason=\"gone\"",
                                               "reason=\"late\"", "reason=\"failed\""};
    pthread_mutex_lock(&r->lock);
    uint32_t waiting = r->waiting;
    pthread_mutex_unlock(&r->lock);
    visit(context, "pados_recall_waiting", "", waiting);
    for (int i = 0; i < DROPS; i++)
        visit(context, "pados_recall_dropped_total", reasons[i], (double)atomic_load(&r->dropped[i]));
}
