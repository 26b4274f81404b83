/* pados-writes: those who write and those who search. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "writes.h"

double writes_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void writes_sleep_until(double time)
{
    struct timespec t = {(time_t)time, (long)(1e9 * fmod(time, 1))};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double writes_median(double *values, uint32_t n)
{
    qsort(values, n, sizeof *values, by_size);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void writes_times_add(writes_times *t, double seconds)
{
    if (t->count == t->room) {
        size_t room = t->room ? 2 * t->room : 1024;
        double *more = realloc(t->at, room * sizeof *more);
        if (!more) abort(); /* a bench without its figures is of no use */
        t->at = more;
        t->room = room;
    }
    t->at[t->count++] = seconds;
}

double writes_times_part(writes_times *t, double part)
{
    if (!t->count) return 0;
    qsort(t->at, t->count, sizeof *t->at, by_size);
    return 1e6 * t->at[(size_t)(part * (double)(t->count - 1))];
}

void writes_times_free(writes_times *t)
{
    free(t->at);
    *t = (writes_times){0};
}

/* ---------------------------------------------------------------------------------------------------- writers --- */

typedef struct cells { /* of one batch */
    uint64_t *ids, *brands;
    float *prices;
    uint32_t *stock, *zone;
} cells;

static const char *const stocks[] = {"yes", "no"};
static const char *const zones[] = {"z0", "z1", "z2",  "z3",  "z4",  "z5",  "z6",  "z7",
                                    "z8", "z9", "z10", "z11", "z12", "z13", "z14", "z15"};

/* first: of the ids; row: of the vectors. */
static pados_status write_batch(const writes_writers *w, cells *c, uint64_t first, uint64_t row, uint32_t n,
                                pados_written *written, pados_error *error)
{
    for (uint32_t i = 0; i < n; i++) {
        c->ids[i] = first + i;
        c->prices[i] = (float)((first + i * 7919u) % 20000) / 100;
        c->brands[i] = (first + i * 31u) % 1000;
        c->stock[i] = (uint32_t)((first + i) % 8 == 0);
        c->zone[i] = (uint32_t)((first + i * 5u) % 16);
    }
    const pados_values values[] = {{.attribute = "price", .numbers = c->prices},
                                   {.attribute = "stock", .texts = stocks, .ntexts = 2, .text_of = c->stock},
                                   {.attribute = "zone", .texts = zones, .ntexts = 16, .text_of = c->zone},
                                   {.attribute = "brand", .keys = c->brands}};
    if (w->kind != WRITES_UPSERT) {
        pados_update update = {.table = WRITES_TABLE,
                               .ids = c->ids,
                               .count = n,
                               .attributes = values,
                               .nattributes = w->kind == WRITES_UPDATE ? 1 : 4};
        return pados_update_run(w->client, &update, written, error);
    }
    pados_upsert upsert = {.table = WRITES_TABLE,
                           .ids = c->ids,
                           .count = n,
                           .vectors = w->vectors + row * w->data->dim,
                           .dim = w->data->dim,
                           .attributes = values,
                           .nattributes = 4,
                           .timeout_ms = 60000};
    return pados_upsert_run(w->client, &upsert, written, error);
}

/* Asks for what was written until it is there. */
static pados_status see(const writes_writers *w, uint64_t sequence, pados_error *error)
{
    pados_result *result;
    pados_search search = {.table = WRITES_TABLE,
                           .count = 1,
                           .k = 10,
                           .vectors = w->data->queries,
                           .dim = w->data->dim,
                           .nprobe = 1,
                           .at_least = sequence};
    pados_status status = pados_search_run(w->client, &search, &result, error);
    if (!status) pados_result_free(result);
    return status;
}

static void *write_on(void *argument)
{
    writes_writers *w = argument;
    uint64_t pieces = (w->rows + w->batch - 1) / w->batch;
    cells c = {.ids = malloc(w->batch * sizeof *c.ids),
               .brands = malloc(w->batch * sizeof *c.brands),
               .prices = malloc(w->batch * sizeof *c.prices),
               .stock = malloc(w->batch * sizeof *c.stock),
               .zone = malloc(w->batch * sizeof *c.zone)};
    while (!w->stop && c.ids && c.brands && c.prices && c.stock && c.zone) {
        uint64_t turn = atomic_fetch_add(&w->next, 1);
        if (w->once && turn >= pieces) break;
        double due = w->start + (double)turn * w->batch / (w->per_s > 0 ? w->per_s : 1);
        if (w->per_s > 0) writes_sleep_until(due);
        if (w->stop) break;
        uint64_t at = turn % pieces * w->batch, from = at;
        /* Another row's vector, which lies in another list, and another one in each pass. */
        if (!w->once) from = (turn + pieces / 3 + turn / pieces) % pieces * w->batch;
        uint64_t last = at > from ? at : from;
        uint32_t n = w->rows - last < w->batch ? (uint32_t)(w->rows - last) : w->batch;
        pados_written written;
        pados_error error;
        double start = writes_now();
        pados_status status = write_batch(w, &c, w->first + at, from, n, &written, &error);
        double answered = writes_now(), seen = 0;
        if (!status && w->look && !(status = see(w, written.sequence, &error))) seen = writes_now();
        pthread_mutex_lock(&w->lock);
        if (status) {
            if (!w->errors++) snprintf(w->first_error, sizeof w->first_error, "%s", error.message);
        } else {
            w->written += n;
            writes_times_add(&w->times, answered - start);
            if (seen > 0) writes_times_add(&w->visible, seen - start);
        }
        pthread_mutex_unlock(&w->lock);
    }
    free(c.ids);
    free(c.brands);
    free(c.prices);
    free(c.stock);
    free(c.zone);
    return NULL;
}

void writes_writers_start(writes_writers *w)
{
    pthread_mutex_init(&w->lock, NULL);
    w->start = writes_now();
    for (uint32_t i = 0; i < w->flights; i++)
        if (pthread_create(&w->threads[i], NULL, write_on, w)) abort();
}

void writes_writers_wait(writes_writers *w)
{
    for (uint32_t i = 0; i < w->flights; i++)
        pthread_join(w->threads[i], NULL);
    w->seconds = writes_now() - w->start;
    pthread_mutex_destroy(&w->lock);
}

void writes_writers_stop(writes_writers *w)
{
    w->stop = 1;
    writes_writers_wait(w);
}

void writes_writers_free(writes_writers *w)
{
    writes_times_free(&w->times);
    writes_times_free(&w->visible);
}

/* -------------------------------------------------------------------------------------------------- searchers --- */

static void *search_on(void *argument)
{
    writes_searchers *s = argument;
    pados_client *client;
    pados_error error;
    if (pados_open(s->url, NULL, &client, &error)) {
        pthread_mutex_lock(&s->lock);
        if (!s->errors++) snprintf(s->first_error, sizeof s->first_error, "%s", error.message);
        pthread_mutex_unlock(&s->lock);
        return NULL;
    }
    while (!s->stop) {
        uint64_t turn = atomic_fetch_add(&s->next, 1);
        double due = s->per_s > 0 ? s->start + (double)turn / s->per_s : writes_now();
        if (s->per_s > 0) writes_sleep_until(due);
        if (s->stop) break;
        uint64_t first = turn * WRITES_QUERIES % (2 * s->data->nqueries - WRITES_QUERIES);
        pados_search search = {.table = WRITES_TABLE,
                               .count = WRITES_QUERIES,
                               .k = 10,
                               .vectors = s->data->queries + first * s->data->dim,
                               .dim = s->data->dim,
                               .recall = (float)s->recall};
        pados_result *result;
        pados_status status = pados_search_run(client, &search, &result, &error);
        double took = writes_now() - due;
        if (!status) pados_result_free(result);
        pthread_mutex_lock(&s->lock);
        if (!status) writes_times_add(&s->times, took);
        s->requests += !status;
        if (status && !s->errors++) snprintf(s->first_error, sizeof s->first_error, "%s", error.message);
        pthread_mutex_unlock(&s->lock);
    }
    pados_close(client);
    return NULL;
}

void writes_searchers_start(writes_searchers *s)
{
    pthread_mutex_init(&s->lock, NULL);
    s->start = writes_now();
    for (uint32_t i = 0; i < s->clients; i++)
        if (pthread_create(&s->threads[i], NULL, search_on, s)) abort();
}

void writes_searchers_stop(writes_searchers *s)
{
    s->stop = 1;
    for (uint32_t i = 0; i < s->clients; i++)
        pthread_join(s->threads[i], NULL);
    s->seconds = writes_now() - s->start;
    pthread_mutex_destroy(&s->lock);
}

void writes_searchers_free(writes_searchers *s)
{
    writes_times_free(&s->times);
}

/* ----------------------------------------------------------------------------------------------------- recall --- */

static uint32_t common(const pados_result *a, const pados_result *b, uint32_t q)
{
    uint32_t found = 0;
    for (size_t i = a->first[q]; i < a->first[q + 1]; i++)
        for (size_t j = b->first[q]; j < b->first[q + 1]; j++)
            found += a->ids[i] == b->ids[j];
    return found;
}

double writes_recall(pados_client *client, const writes_data *d, double recall)
{
    uint32_t total = 2 * d->nqueries, found = 0;
    for (uint32_t at = 0; at < total; at += 100) {
        pados_search search = {.table = WRITES_TABLE,
                               .count = total - at < 100 ? total - at : 100,
                               .k = 10,
                               .vectors = d->queries + (size_t)at * d->dim,
                               .dim = d->dim,
                               .exact = true,
                               .timeout_ms = 60000};
        pados_result *truth, *got;
        pados_error error;
        pados_status status = pados_search_run(client, &search, &truth, &error);
        if (!status) {
            search.exact = false;
            search.recall = (float)recall;
            status = pados_search_run(client, &search, &got, &error);
            for (uint32_t q = 0; !status && q < search.count; q++)
                found += common(truth, got, q);
            if (!status) pados_result_free(got);
            pados_result_free(truth);
        }
        if (status) {
            fprintf(stderr, "pados-writes: recall: %s\n", error.message);
            return -1;
        }
    }
    return (double)found / (10.0 * total);
}
