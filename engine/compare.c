/* Comparing a version with the serving one: the same queries to both, as a shopper would be served and exactly.
 *
 * Queries come from where the calibration's come from: the schema's query table, else the serving version's own rows; a row
 * that asks is left out of both answers, or every comparison would start with one hit in common. It asks one more and
 * leaves the asker's id out afterwards: the exact answers say which id the asker's slot has.
 */
#include "compare.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calibrate.h"
#include "log.h"
#include "sample.h"

#define DEFAULT_QUERIES 1000u
#define MOST_QUERIES    5000u
#define DEFAULT_K       10u
#define PROMISE         0.95f
#define NO_SELF         UINT64_MAX

/* One side of the comparison. Hits: [count][k + 1]. */
typedef struct side {
    pd_served *served;
    pd_hit *hits, *exact;
    pd_answer *answers, *exact_answers;
} side;

static void side_free(side *s)
{
    free(s->hits);
    free(s->exact);
    free(s->answers);
    free(s->exact_answers);
    if (s->served) pd_catalog_release(s->served);
}

static pd_status side_make(side *s, uint32_t count, uint32_t room, pd_error *err)
{
    s->hits = malloc((size_t)count * room * sizeof *s->hits);
    s->exact = malloc((size_t)count * room * sizeof *s->exact);
    s->answers = calloc(count, sizeof *s->answers);
    s->exact_answers = calloc(count, sizeof *s->exact_answers);
    if (!s->hits || !s->exact || !s->answers || !s->exact_answers)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to compare %u queries", count);
    for (uint32_t i = 0; i < count; i++) {
        s->answers[i].hits = s->hits + (size_t)i * room;
        s->exact_answers[i].hits = s->exact + (size_t)i * room;
    }
    return PD_OK;
}

static int stop_when_closing(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)stage, (void)done, (void)total;
    return atomic_load(&((pd_catalog *)context)->stopping);
}

static pd_status side_ask(pd_catalog *catalog, side *s, pd_device *device, pd_query *queries, uint32_t count,
                          pd_error *err)
{
    const pd_version_info *info = s->served->info;
    int reached = 0;
    uint32_t nprobe = info->shape.nlist;
    if (info->calibration->measured)
        nprobe = pd_calibrated_nprobe(info->calibration, nprobe, queries[0].k, 0.0f, PROMISE, &reached);
    uint32_t depth = reached ? pd_calibrated_depth(info->calibration, queries[0].k, 0.0f, nprobe) : 0;
    for (uint32_t i = 0; i < count; i++) {
        queries[i].nprobe = nprobe;
        queries[i].depth = depth;
    }
    pd_status status = PD_OK;
    for (uint32_t at = 0; !status && at < count; at += PD_MAX_QUERIES) {
        uint32_t n = count - at < PD_MAX_QUERIES ? count - at : PD_MAX_QUERIES;
        status = pd_executor_background(catalog->executor, s->served->resident, queries + at, n,
                                        s->answers + at, err);
        if (!status)
            status = pd_resident_exact(s->served->resident, pd_served_source(s->served), device, queries + at,
                                       n, s->exact_answers + at, stop_when_closing, catalog, err);
    }
    return status;
}

/* The id of each asking row, by its slot in the exact answers of the version it comes from. ids: [count]. */
static void find_selves(const side *from, const pd_sample *sample, uint64_t *ids)
{
    for (uint32_t i = 0; i < sample->count; i++) {
        ids[i] = NO_SELF;
        const pd_answer *answer = &from->exact_answers[i];
        for (uint32_t h = 0; h < answer->count; h++)
            if (answer->hits[h].slot == sample->slots[i]) ids[i] = answer->hits[h].id;
    }
}

/* Leaves out the asker and what is past k. */
static void trim(pd_answer *answer, uint64_t self, uint32_t k)
{
    uint32_t kept = 0;
    for (uint32_t h = 0; h < answer->count && kept < k; h++)
        if (self == NO_SELF || answer->hits[h].id != self) answer->hits[kept++] = answer->hits[h];
    answer->count = kept;
}

/* The share of a's hits that b has too; 1 when a has none. */
static double share(const pd_answer *a, const pd_answer *b)
{
    uint32_t common = 0;
    for (uint32_t i = 0; i < a->count; i++)
        for (uint32_t j = 0; j < b->count; j++)
            if (a->hits[i].id == b->hits[j].id) {
                common++;
                break;
            }
    return a->count ? (double)common / a->count : 1.0;
}

static void summarise(const side *serving, const side *version, uint32_t count, pd_comparison *out)
{
    double overlap = 0, serving_recall = 0, version_recall = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pd_answer *longer = serving->answers[i].count >= version->answers[i].count
                                      ? &serving->answers[i]
                                      : &version->answers[i];
        overlap +=
            share(longer, longer == &serving->answers[i] ? &version->answers[i] : &serving->answers[i]);
        serving_recall += share(&serving->exact_answers[i], &serving->answers[i]);
        version_recall += share(&version->exact_answers[i], &version->answers[i]);
    }
    out->overlap = (float)(overlap / count);
    out->serving_recall = (float)(serving_recall / count);
    out->version_recall = (float)(version_recall / count);
}

typedef struct counting {
    const pd_served *serving;
    const pd_layout *layout;
    void *pages;
    uint32_t npages;
    uint64_t common;
} counting;

/* On the executor: the serving table may be changing. */
static pd_status count_piece(void *argument, pd_error *err)
{
    counting *c = argument;
    (void)err;
    for (uint32_t p = 0; p < c->npages; p++) {
        void *page = (unsigned char *)c->pages + p * c->layout->page_bytes;
        const float *terms = pd_page_term(c->layout, page);
        const uint64_t *ids = pd_page_ids(c->layout, page);
        for (uint32_t r = 0; r < PD_PAGE_ROWS; r++)
            if (!isinf(terms[r])) c->common += pd_resident_slot(c->serving->resident, ids[r]) != PD_NO_SLOT;
    }
    return PD_OK;
}

/* Row ids that only one of them has: one pass over the version's pages, looking each id up in the serving one. */
static pd_status count_ids(pd_catalog *catalog, const pd_served *serving, const pd_served *version,
                           pd_comparison *out, pd_error *err)
{
    const pd_version_info *info = version->info;
    char path[PD_PATH_ROOM];
    pd_status status = pd_path_join(path, info->folder, "pages.bin", err);
    if (status) return status;
    size_t each = info->layout.page_bytes;
    uint32_t room = (uint32_t)((256u << 10) / each) + 1; /* whose ids are looked up at once: searches wait */
    void *pages = aligned_alloc(64, room * each);
    if (!pages) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u pages", room);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        status = pd_fail_errno(err, "open", path);
        goto err_after_pages;
    }
    counting c = {.serving = serving, .layout = &info->layout, .pages = pages};
    for (uint32_t first = 0; !status && first < info->npages; first += room) {
        uint32_t n = info->npages - first < room ? info->npages - first : room;
        status = pd_file_read_at(fd, path, first * (uint64_t)each, n * each, pages, err);
        if (!status && atomic_load(&catalog->stopping))
            status = pd_fail(err, PD_CANCELLED, "the server is stopping");
        c.npages = n;
        if (!status) status = pd_executor_call(catalog->executor, count_piece, &c, err);
    }
    pd_live_stats live; /* the serving table as it is now, the version as it was built */
    pd_resident_live(serving->resident, &live);
    out->only_version = info->rows - c.common;
    out->only_serving = live.rows > c.common ? live.rows - c.common : 0;
    close(fd);
err_after_pages:
    free(pages);
    return status;
}

/* Queries, and whether they are the serving version's own rows. */
static pd_status take_sample(pd_catalog *catalog, const pd_served *serving, const pd_served *version,
                             uint32_t count, pd_sample *out, int *own, pd_error *err)
{
    const pd_schema *schema = version->info->schema;
    pd_served *other = NULL;
    char why[200];
    pd_status status = pd_sample_source(catalog, version->table, schema, version->info->shape.dim, &other,
                                        why, sizeof why, err);
    if (status) return status;
    *own = other == NULL;
    const pd_served *from = other ? other : serving;
    status = pd_sample_served(catalog->executor, from, count, version->info->shape.metric, out, err);
    if (other) pd_catalog_release(other);
    if (!status && !out->count) {
        pd_sample_free(out);
        status = pd_fail(err, PD_FAILED_PRECONDITION, "there are no rows to ask with");
    }
    return status;
}

static pd_status check_pair(const pd_version_info *serving, const pd_version_info *version, pd_error *err)
{
    if (!serving->shape.nlist || !version->shape.nlist)
        return pd_fail(err, PD_FAILED_PRECONDITION,
                       "\"%s\" is a look-up table (index = none): nothing to compare", serving->table);
    if (serving->shape.dim != version->shape.dim || serving->shape.metric != version->shape.metric)
        return pd_fail(err, PD_FAILED_PRECONDITION,
                       "versions %" PRIu64 " (%u dimensions, %s) and %" PRIu64
                       " (%u, %s) cannot be asked the same",
                       serving->version, serving->shape.dim, pd_metric_name(serving->shape.metric),
                       version->version, version->shape.dim, pd_metric_name(version->shape.metric));
    return PD_OK;
}

static pd_status ask_both(pd_catalog *catalog, side *serving, side *version, const pd_sample *sample,
                          uint32_t k, int own, pd_error *err)
{
    uint32_t dim = version->served->info->shape.dim;
    uint64_t *selves = NULL;
    pd_device *device = NULL;
    pd_query *queries = calloc(sample->count, sizeof *queries);
    if (!queries) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", sample->count);
    for (uint32_t i = 0; i < sample->count; i++)
        queries[i] = (pd_query){.vector = sample->vectors + (size_t)i * dim,
                                .similarity = 1.0f,
                                .k = k + (own ? 1 : 0),
                                .min_score = -INFINITY};
    /* A device of its own: the builder may be using the other one. */
    pd_status status = pd_catalog_idle_device(catalog, &device, err);
    if (!status) status = side_ask(catalog, serving, device, queries, sample->count, err);
    if (!status) status = side_ask(catalog, version, device, queries, sample->count, err);
    if (!status) {
        selves = malloc(sample->count * sizeof *selves);
        if (!selves) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for %u queries", sample->count);
    }
    if (!status) {
        memset(selves, 0xff, sample->count * sizeof *selves); /* NO_SELF */
        if (own) find_selves(serving, sample, selves);
        for (uint32_t i = 0; i < sample->count; i++) {
            trim(&serving->answers[i], selves[i], k);
            trim(&serving->exact_answers[i], selves[i], k);
            trim(&version->answers[i], selves[i], k);
            trim(&version->exact_answers[i], selves[i], k);
        }
    }
    free(selves);
    pd_device_close(device);
    free(queries);
    return status;
}

static pd_status compare(pd_catalog *catalog, const char *table, uint64_t number, uint32_t k, uint32_t count,
                         pd_comparison *out, pd_error *err)
{
    side serving = {0}, version = {0};
    pd_sample sample = {0};
    char name[PD_MAX_NAME + 32];
    int own = 0;
    snprintf(name, sizeof name, "%.64s@%" PRIu64, table, number);
    pd_status status = pd_catalog_hold(catalog, table, &serving.served, err);
    if (!status) status = pd_catalog_hold(catalog, name, &version.served, err);
    if (!status) status = check_pair(serving.served->info, version.served->info, err);
    if (!status) status = take_sample(catalog, serving.served, version.served, count, &sample, &own, err);
    if (!status) status = side_make(&serving, sample.count, k + 1, err);
    if (!status) status = side_make(&version, sample.count, k + 1, err);
    if (!status) status = ask_both(catalog, &serving, &version, &sample, k, own, err);
    if (!status) {
        *out = (pd_comparison){
            .serving = serving.served->number, .version = number, .k = k, .queries = sample.count};
        summarise(&serving, &version, sample.count, out);
        status = count_ids(catalog, serving.served, version.served, out, err);
    }
    pd_sample_free(&sample);
    side_free(&serving);
    side_free(&version);
    return status;
}

pd_status pd_compare(pd_catalog *catalog, const char *table, uint64_t number, uint32_t k, uint32_t queries,
                     pd_comparison *out, pd_error *err)
{
    if (!k) k = DEFAULT_K;
    if (!queries) queries = DEFAULT_QUERIES;
    if (k > PD_MAX_K) return pd_fail(err, PD_INVALID_ARGUMENT, "k is %u, more than %u", k, PD_MAX_K);
    if (queries > MOST_QUERIES) queries = MOST_QUERIES;
    pd_status status = pd_name_check("table", table, err);
    if (status) return status;
    if (!number) return pd_fail(err, PD_INVALID_ARGUMENT, "compare wants a version of \"%s\"", table);
    if (pthread_mutex_trylock(&catalog->comparing) != 0)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "another comparison is running; try again later");
    status = compare(catalog, table, number, k, queries, out, err);
    pthread_mutex_unlock(&catalog->comparing);
    return status;
}
