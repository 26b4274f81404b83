/* pados-evaluate: what a running padosd finds of what households went on to buy, in the held-out weeks.
 *
 *   pados-evaluate --tables FOLDER [--to URL] [--table products] [--from households] [--profile shop]
 *                  [--recall R | --exact] [--requests N] [--speed]
 *
 * FOLDER is bench/data/complete_journey/tables or one that make.py wrote: line i of eval_contexts.csv, row i of
 * eval_households_ids.npy and line i of eval_truth.csv are one request: one household in one held-out week. Hit rate is
 * the share of requests with at least one of the week's purchases among the 20 products of highest score; recall@20 is
 * the mean over requests of (purchases among the 20) / (all the week's purchases), as evaluate.py computes them without
 * the engine. Requests go in batches, each household by its id from the table of households.
 *
 * --speed asks N of the same requests exactly and approximately instead, and says recall@10 and queries/s of both as
 * one client sees them: with similarity alone and with the profile and the week's context.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "csv.h"
#include "pados.h"
#include "reader.h"

enum { K = 20, SPEED_K = 10, BATCH = 1024, MAX_KEYS = 16, TIMEOUT_MS = 60000 };

typedef struct options {
    const char *url, *tables, *table, *from, *profile;
    float recall;
    bool exact, speed;
    uint64_t requests; /* at most; 0: all */
} options;

/* The requests and what was bought. */
typedef struct requests {
    uint64_t count;
    uint64_t *households; /* [count] */
    char *keys[MAX_KEYS];
    size_t nkeys;
    pados_pair *pairs;       /* [count][nkeys]; the first of each are filled */
    pados_context *contexts; /* [count] */
    uint64_t *bought;        /* of all requests, one behind the other: had before the cut, then new */
    size_t nbought, room;
    size_t *first, *fresh; /* [count + 1] where request i's purchases start; [count] where its new ones do */
} requests;

/* How one line of the table is asked. */
typedef struct way {
    const char *name;
    bool vector, profile, context;
} way;

static const way ways[] = {{"popularity alone", false, true, false},
                           {"similarity alone", true, false, false},
                           {"without context", true, true, false},
                           {"with context", true, true, true}};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --------------------------------------------------------------------------------------------- reading --- */

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the requests");
}

static pd_status open_csv(const options *o, const char *name, pd_csv **out, pd_error *err)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", o->tables, name) >= (int)sizeof path)
        return pd_fail(err, PD_INVALID_ARGUMENT, "--tables: the folder's name is too long");
    return pd_csv_open(path, out, err);
}

static pd_status read_households(const options *o, requests *r, pd_error *err)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/eval_households_ids.npy", o->tables);
    pd_status status = pd_read_ids(path, &r->households, &r->count, err);
    if (status) return status;
    if (!r->count) return pd_fail(err, PD_INVALID_ARGUMENT, "%s holds no request", path);
    if (o->requests && o->requests < r->count) r->count = o->requests;
    r->contexts = calloc(r->count, sizeof *r->contexts);
    r->first = calloc(r->count + 1, sizeof *r->first);
    r->fresh = calloc(r->count, sizeof *r->fresh);
    return r->contexts && r->first && r->fresh ? PD_OK : no_memory(err);
}

/* The record of request i, which must be there with as many cells as the header. */
static pd_status record(pd_csv *csv, uint64_t i, size_t wanted, char ***cells, pd_error *err)
{
    size_t n;
    pd_status status = pd_csv_next(csv, cells, &n, err);
    if (!status && n != wanted)
        status =
            pd_fail(err, PD_INVALID_ARGUMENT, "%s:%llu: %zu cells for request %llu, %zu are wanted",
                    pd_csv_name(csv), (unsigned long long)pd_csv_line(csv), n, (unsigned long long)i, wanted);
    return status;
}

/* An empty cell says nothing of its key. */
static pd_status read_contexts(requests *r, pd_csv *csv, pd_error *err)
{
    char **cells;
    pd_status status = pd_csv_next(csv, &cells, &r->nkeys, err);
    if (status) return status;
    if (!r->nkeys || r->nkeys > MAX_KEYS) {
        r->nkeys = 0;
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s names no context keys, or over %d", pd_csv_name(csv),
                       MAX_KEYS);
    }
    for (size_t c = 0; c < r->nkeys; c++)
        if (!(r->keys[c] = strdup(cells[c]))) return no_memory(err);
    r->pairs = calloc(r->count * r->nkeys, sizeof *r->pairs);
    if (!r->pairs) return no_memory(err);
    for (uint64_t i = 0; i < r->count; i++) {
        if ((status = record(csv, i, r->nkeys, &cells, err))) return status;
        pados_pair *pairs = r->pairs + i * r->nkeys;
        size_t n = 0;
        for (size_t c = 0; c < r->nkeys; c++) {
            if (!*cells[c]) continue;
            char *value = strdup(cells[c]);
            if (!value) return no_memory(err);
            pairs[n++] = (pados_pair){r->keys[c], value};
        }
        r->contexts[i] = (pados_context){pairs, n};
    }
    return PD_OK;
}

/* Appends the ids of a cell like 12|34|56. */
static pd_status read_bought(requests *r, pd_csv *csv, char *cell, pd_error *err)
{
    for (char *save, *part = strtok_r(cell, "|", &save); part; part = strtok_r(NULL, "|", &save)) {
        char *end;
        unsigned long long id = strtoull(part, &end, 10);
        if (*part < '0' || *part > '9' || *end)
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s:%llu: \"%s\" is not a product's id",
                           pd_csv_name(csv), (unsigned long long)pd_csv_line(csv), part);
        if (r->nbought == r->room) {
            size_t room = r->room ? 2 * r->room : 65536;
            uint64_t *more = realloc(r->bought, room * sizeof *more);
            if (!more) return no_memory(err);
            r->bought = more;
            r->room = room;
        }
        r->bought[r->nbought++] = id;
    }
    return PD_OK;
}

static pd_status read_truth(requests *r, pd_csv *csv, pd_error *err)
{
    enum { HOUSEHOLD, WEEK, AGAIN, NEW, CELLS };
    static const char *const names[CELLS] = {"household_id", "week", "again", "new"};
    char **cells;
    pd_status status = record(csv, 0, CELLS, &cells, err);
    for (int c = 0; !status && c < CELLS; c++)
        if (strcmp(cells[c], names[c]) != 0)
            status = pd_fail(err, PD_INVALID_ARGUMENT, "%s: column %d is \"%s\", not \"%s\"",
                             pd_csv_name(csv), c, cells[c], names[c]);
    for (uint64_t i = 0; !status && i < r->count; i++) {
        if ((status = record(csv, i, CELLS, &cells, err))) break;
        if (strtoull(cells[HOUSEHOLD], NULL, 10) != r->households[i]) {
            status = pd_fail(err, PD_INVALID_ARGUMENT,
                             "%s:%llu: household %s, where eval_households_ids.npy has %llu",
                             pd_csv_name(csv), (unsigned long long)pd_csv_line(csv), cells[HOUSEHOLD],
                             (unsigned long long)r->households[i]);
            break;
        }
        status = read_bought(r, csv, cells[AGAIN], err);
        r->fresh[i] = r->nbought;
        if (!status) status = read_bought(r, csv, cells[NEW], err);
        r->first[i + 1] = r->nbought;
    }
    return status;
}

static pd_status read_requests(const options *o, requests *r, pd_error *err)
{
    pd_csv *csv;
    pd_status status = read_households(o, r, err);
    if (status) return status;
    if ((status = open_csv(o, "eval_contexts.csv", &csv, err))) return status;
    status = read_contexts(r, csv, err);
    pd_csv_close(csv);
    if (status) return status;
    if ((status = open_csv(o, "eval_truth.csv", &csv, err))) return status;
    status = read_truth(r, csv, err);
    pd_csv_close(csv);
    return status;
}

static void free_requests(requests *r)
{
    for (size_t p = 0; r->pairs && p < r->count * r->nkeys; p++)
        free((char *)r->pairs[p].value);
    for (size_t c = 0; c < r->nkeys; c++)
        free(r->keys[c]);
    free(r->households);
    free(r->pairs);
    free(r->contexts);
    free(r->bought);
    free(r->first);
    free(r->fresh);
}

/* ---------------------------------------------------------------------------------------------- asking --- */

#define NOTHING UINT64_MAX

/* Answers: ids [count][k], NOTHING past the end of what came back. */
typedef struct answers {
    uint64_t *ids;
    uint32_t k;
    double seconds;
    uint64_t strangers; /* households that the table of them does not hold */
} answers;

static pados_status ask(pados_client *client, const options *o, const requests *r, const way *w, bool exact,
                        answers *a, pados_error *error)
{
    pados_limits limits;
    pados_limits_of(client, &limits);
    uint32_t batch = limits.max_queries && limits.max_queries < BATCH ? limits.max_queries : BATCH;
    a->seconds = 0;
    a->strangers = 0;
    memset(a->ids, 0xff, r->count * a->k * sizeof *a->ids);
    for (uint64_t at = 0; at < r->count; at += batch) {
        uint32_t n = r->count - at < batch ? (uint32_t)(r->count - at) : batch;
        pados_search search = {.table = o->table,
                               .count = n,
                               .k = a->k,
                               .from_table = w->vector ? o->from : NULL,
                               .from_ids = w->vector ? r->households + at : NULL,
                               .recall = w->vector && !exact ? o->recall : 0,
                               .exact = exact && w->vector,
                               .profile = w->profile ? o->profile : NULL,
                               .contexts = w->context ? r->contexts + at : NULL,
                               .ncontexts = w->context ? n : 0,
                               .timeout_ms = TIMEOUT_MS};
        pados_result *result;
        double start = now();
        pados_status status = pados_search_run(client, &search, &result, error);
        if (status) return status;
        a->seconds += now() - start;
        for (uint32_t q = 0; q < n; q++) {
            memcpy(a->ids + (at + q) * a->k, result->ids + result->first[q],
                   result->counts[q] * sizeof *a->ids);
            a->strangers += w->vector && result->rung[q] != 1;
        }
        pados_result_free(result);
    }
    return 0;
}

/* How many of ids[k] are among bought[n]. */
static size_t found(const uint64_t *ids, uint32_t k, const uint64_t *bought, size_t n)
{
    size_t right = 0;
    for (uint32_t i = 0; i < k && ids[i] != NOTHING; i++)
        for (size_t j = 0; j < n; j++)
            if (bought[j] == ids[i]) {
                right++;
                break;
            }
    return right;
}

/* ------------------------------------------------------------------------------------------ the tables --- */

/* Requests without purchases (of the kind that counts) are passed over. */
static void figures(const requests *r, const answers *a, bool fresh, double *hits, double *recall)
{
    uint64_t asked = 0, hit = 0;
    double share = 0;
    for (uint64_t i = 0; i < r->count; i++) {
        size_t from = fresh ? r->fresh[i] : r->first[i], size = r->first[i + 1] - from;
        if (!size) continue;
        size_t right = found(a->ids + i * a->k, a->k, r->bought + from, size);
        asked++;
        hit += right > 0;
        share += (double)right / (double)size;
    }
    *hits = asked ? (double)hit / (double)asked : 0;
    *recall = asked ? share / (double)asked : 0;
}

static pados_status evaluate(pados_client *client, const options *o, const requests *r, answers *a,
                             pados_error *error)
{
    printf("%llu requests, %zu purchases to find; profile \"%s\"\n", (unsigned long long)r->count, r->nbought,
           o->profile);
    printf("%-18s %10s %10s %14s\n", "", "hit rate", "recall@20", "of new alone");
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        pados_status status = ask(client, o, r, &ways[w], o->exact, a, error);
        if (status) return status;
        double hits, recall, of_new, unused;
        figures(r, a, false, &hits, &recall);
        figures(r, a, true, &unused, &of_new);
        printf("%-18s %10.4f %10.4f %14.4f\n", ways[w].name, hits, recall, of_new);
        if (a->strangers)
            printf("  (%llu requests are of households that table \"%s\" does not hold)\n",
                   (unsigned long long)a->strangers, o->from);
        fflush(stdout);
    }
    return 0;
}

static void speed_line(const char *name, double recall, uint64_t count, double seconds)
{
    printf("%-34s %10.4f %12.0f\n", name, recall, (double)count / seconds);
    fflush(stdout);
}

/* Exact search is asked once; the approximate one is fast, so it is asked until it has run for a second. */
static pados_status compare(pados_client *client, const options *o, const requests *r, const way *w,
                            const char *name, answers *exact, answers *a, pados_error *error)
{
    char text[64];
    pados_status status = ask(client, o, r, w, true, exact, error);
    if (status) return status;
    snprintf(text, sizeof text, "%s, exact", name);
    speed_line(text, 1, r->count, exact->seconds);
    double spent = 0;
    uint64_t asked = 0;
    if ((status = ask(client, o, r, w, false, a, error))) return status;
    for (; spent < 1; spent += a->seconds, asked += r->count)
        if ((status = ask(client, o, r, w, false, a, error))) return status;
    size_t right = 0, wanted = 0;
    for (uint64_t i = 0; i < r->count; i++) {
        uint32_t n = 0;
        while (n < a->k && exact->ids[i * a->k + n] != NOTHING)
            n++;
        right += found(a->ids + i * a->k, a->k, exact->ids + i * a->k, n);
        wanted += n;
    }
    snprintf(text, sizeof text, "%s, --recall %g", name, o->recall > 0 ? (double)o->recall : 0.95);
    speed_line(text, wanted ? (double)right / (double)wanted : 1, asked, spent);
    return 0;
}

static pados_status speed(pados_client *client, const options *o, const requests *r, answers *a,
                          pados_error *error)
{
    answers exact = {.k = a->k, .ids = calloc(r->count * a->k, sizeof *exact.ids)};
    if (!exact.ids) {
        error->status = PD_RESOURCE_EXHAUSTED;
        snprintf(error->message, sizeof error->message, "no memory for the answers");
        return error->status;
    }
    printf("%-34s %10s %12s\n", "", "recall@10", "queries/s");
    pados_status status = compare(client, o, r, &ways[1], "similarity", &exact, a, error);
    if (!status) status = compare(client, o, r, &ways[3], "profile and context", &exact, a, error);
    free(exact.ids);
    return status;
}

/* ------------------------------------------------------------------------------------------------ main --- */

static int usage(void)
{
    fprintf(stderr,
            "usage: pados-evaluate --tables FOLDER [--to URL] [--table products] [--from households]\n"
            "                      [--profile shop] [--recall R | --exact] [--requests N] [--speed]\n");
    return 2;
}

static int parse(int argc, char **argv, options *o)
{
    static const struct option longs[] = {{"to", 1, 0, 't'},
                                          {"tables", 1, 0, 'd'},
                                          {"table", 1, 0, 'T'},
                                          {"from", 1, 0, 'f'},
                                          {"profile", 1, 0, 'p'},
                                          {"recall", 1, 0, 'r'},
                                          {"requests", 1, 0, 'n'},
                                          {"exact", 0, 0, 'e'},
                                          {"speed", 0, 0, 's'},
                                          {"help", 0, 0, 'h'},
                                          {0, 0, 0, 0}};
    char *end = "";
    for (int option; (option = getopt_long(argc, argv, "h", longs, NULL)) != -1;) {
        switch (option) {
        case 't':
            o->url = optarg;
            break;
        case 'd':
            o->tables = optarg;
            break;
        case 'T':
            o->table = optarg;
            break;
        case 'f':
            o->from = optarg;
            break;
        case 'p':
            o->profile = optarg;
            break;
        case 'r':
            o->recall = strtof(optarg, &end);
            if (*end || !(o->recall > 0 && o->recall <= 1)) return usage();
            break;
        case 'n':
            o->requests = strtoull(optarg, &end, 10);
            if (*end || !o->requests) return usage();
            break;
        case 'e':
            o->exact = true;
            break;
        case 's':
            o->speed = true;
            break;
        default:
            return usage();
        }
    }
    return !o->tables || optind < argc || (o->exact && (o->speed || o->recall > 0)) ? usage() : 0;
}

int main(int argc, char **argv)
{
    options o = {.url = PADOS_DEFAULT_URL, .table = "products", .from = "households", .profile = "shop"};
    int bad = parse(argc, argv, &o);
    if (bad) return bad;
    requests r = {0};
    answers a = {.k = o.speed ? SPEED_K : K};
    pados_client *client = NULL;
    pd_error err;
    pados_error error;
    if (read_requests(&o, &r, &err)) {
        fprintf(stderr, "pados-evaluate: %s: %s\n", pd_status_name(err.status), err.message);
        bad = 1;
        goto done;
    }
    a.ids = calloc(r.count * a.k, sizeof *a.ids);
    if (!a.ids) {
        fprintf(stderr, "pados-evaluate: no memory for the answers\n");
        bad = 1;
        goto done;
    }
    if (pados_open(o.url, NULL, &client, &error) ||
        (o.speed ? speed(client, &o, &r, &a, &error) : evaluate(client, &o, &r, &a, &error))) {
        fprintf(stderr, "pados-evaluate: %s: %s\n", pados_status_name(error.status), error.message);
        bad = 1;
    }
done:
    if (client) pados_close(client);
    free(a.ids);
    free_requests(&r);
    return bad;
}
