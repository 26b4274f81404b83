/* pados-load: concurrent clients against a running padosd; says throughput, latency percentiles and errors.
 *
 *   pados-load --to URL --table T --query FILE [--clients 32] [--seconds 60] [--batch 8] [--k 10] [--recall R]
 *              [--profile P --context key=value,...] [--mute N]
 *
 * Each client is a thread that asks again as soon as it is answered (a closed loop). --mute N adds N raw connections that
 * send requests and never read a reply, as a broken peer would: they must not slow the others. Exit 1 on any error.
 */
#include <getopt.h>
#include <math.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pados.h"
#include "pados.pb-c.h"
#include "reader.h"

typedef struct load {
    const char *url, *table, *query, *profile;
    uint32_t clients, mute, batch, k, dim;
    double seconds, recall;
    pados_pair pairs[32];
    size_t npairs;
    uint64_t rows;
    float *vectors;
    atomic_int stop;
    atomic_ullong mute_sent;
} load;

typedef struct worker {
    load *load;
    pthread_t thread;
    uint32_t number;
    double *latencies; /* seconds */
    size_t count, room;
    uint64_t errors;
    char first_error[512];
} worker;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void keep_error(worker *w, const pados_error *error)
{
    if (!w->errors++)
        snprintf(w->first_error, sizeof w->first_error, "%s: %s", pados_status_name(error->status),
                 error->message);
}

static int keep_latency(worker *w, double seconds)
{
    if (w->count == w->room) {
        size_t room = w->room ? 2 * w->room : 4096;
        double *more = realloc(w->latencies, room * sizeof *more);
        if (!more) return 1;
        w->latencies = more;
        w->room = room;
    }
    w->latencies[w->count++] = seconds;
    return 0;
}

static void *work(void *argument)
{
    worker *w = argument;
    load *l = w->load;
    pados_client *client;
    pados_error error;
    if (pados_open(l->url, NULL, &client, &error)) {
        keep_error(w, &error);
        return NULL;
    }
    pados_context context = {l->pairs, l->npairs};
    uint64_t at = w->number * 7919u;
    while (!l->stop) {
        uint64_t first = at % (l->rows - l->batch + 1);
        at += l->batch;
        pados_search search = {.table = l->table,
                               .count = l->batch,
                               .k = l->k,
                               .vectors = l->vectors + first * l->dim,
                               .dim = l->dim,
                               .recall = (float)l->recall,
                               .profile = l->profile,
                               .contexts = l->npairs ? &context : NULL,
                               .ncontexts = l->npairs ? 1 : 0};
        pados_result *result;
        double start = now();
        if (pados_search_run(client, &search, &result, &error)) {
            keep_error(w, &error);
            if (error.status == 14) break;
            continue;
        }
        if (keep_latency(w, now() - start)) break;
        if (result->count != l->batch) w->errors++;
        pados_result_free(result);
    }
    pados_close(client);
    return NULL;
}

/* A raw REQ socket in raw mode, so that many requests may be outstanding and no reply is ever read. */
static void *mute(void *argument)
{
    load *l = argument;
    nng_socket socket;
    if (nng_req0_open_raw(&socket)) return NULL;
    nng_socket_set_ms(socket, NNG_OPT_SENDTIMEO, 100);
    nng_socket_set_int(socket, NNG_OPT_RECVBUF, 1);
    if (nng_dial(socket, l->url, NULL, 0)) goto done;
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    matrix.rows = l->batch;
    matrix.dim = l->dim;
    matrix.data = (ProtobufCBinaryData){(size_t)l->batch * l->dim * 4, (uint8_t *)l->vectors};
    Pados__V1__Search search = PADOS__V1__SEARCH__INIT;
    search.table = (char *)l->table;
    search.count = l->batch;
    search.k = l->k;
    search.vectors = &matrix;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_SEARCH;
    request.search = &search;
    size_t size = pados__v1__request__get_packed_size(&request);
    for (uint32_t id = 1; !l->stop; id++) {
        nng_msg *message;
        if (nng_msg_alloc(&message, size)) break;
        pados__v1__request__pack(&request, nng_msg_body(message));
        nng_msg_header_append_u32(message, 0x80000000u | id);
        if (nng_sendmsg(socket, message, 0))
            nng_msg_free(message);
        else
            l->mute_sent++;
    }
done:
    nng_close(socket);
    return NULL;
}

static int read_queries(load *l)
{
    pd_reader *reader;
    pd_error err;
    pd_reader_info info;
    if (pd_reader_open(l->query, PD_FORMAT_AUTO, &reader, &err)) goto failed;
    pd_reader_info_of(reader, &info);
    l->dim = info.dim;
    l->rows = info.rows < 20000 ? info.rows : 20000;
    l->vectors = malloc(l->rows * info.dim * sizeof(float));
    uint64_t done = 0, got = 1;
    for (; l->vectors && done < l->rows && got; done += got)
        if (pd_reader_read_f32(reader, l->rows - done, l->vectors + done * info.dim, &got, &err)) goto failed;
    pd_reader_close(reader);
    if (l->vectors && done == l->rows && l->rows >= l->batch) return 0;
    fprintf(stderr, "pados-load: %s holds fewer rows than one batch\n", l->query);
    return 1;
failed:
    fprintf(stderr, "pados-load: %s\n", err.message);
    return 1;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int report(const load *l, worker *workers, double seconds)
{
    size_t n = 0, at = 0;
    uint64_t errors = 0;
    for (uint32_t i = 0; i < l->clients; i++) {
        n += workers[i].count;
        errors += workers[i].errors;
        if (*workers[i].first_error)
            fprintf(stderr, "pados-load: client %u: %s\n", i, workers[i].first_error);
    }
    double *all = malloc((n ? n : 1) * sizeof *all);
    if (!all || !n) {
        fprintf(stderr, "pados-load: no request was answered\n");
        free(all);
        return 1;
    }
    for (uint32_t i = 0; i < l->clients; i++) {
        memcpy(all + at, workers[i].latencies, workers[i].count * sizeof *all);
        at += workers[i].count;
    }
    qsort(all, n, sizeof *all, by_size);
    printf("%u clients, batch %u, %.1f s: %zu requests, %.0f queries/s, p50 %.2f ms, p99 %.2f ms, p99.9 %.2f "
           "ms, max %.2f "
           "ms, %llu errors",
           l->clients, l->batch, seconds, n, (double)n * l->batch / seconds, 1e3 * all[n / 2],
           1e3 * all[(size_t)(0.99 * (double)(n - 1))], 1e3 * all[(size_t)(0.999 * (double)(n - 1))],
           1e3 * all[n - 1], (unsigned long long)errors);
    if (l->mute) printf("; %u mute peers sent %llu", l->mute, (unsigned long long)l->mute_sent);
    printf("\n");
    free(all);
    return errors != 0;
}

static void split_context(load *l, char *text)
{
    for (char *save, *part = strtok_r(text, ",", &save); part && l->npairs < 32;
         part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '=');
        if (!equals) continue;
        *equals = 0;
        l->pairs[l->npairs++] = (pados_pair){part, equals + 1};
    }
}

static int usage(void)
{
    fprintf(stderr,
            "pados-load --to URL --table T --query FILE [--clients 32] [--seconds 60] [--batch 8] [--k 10]\n"
            "           [--recall R] [--profile P --context key=value,...] [--mute N]\n");
    return 2;
}

static int parse(int argc, char **argv, load *l)
{
    static const struct option longs[] = {
        {"to", 1, 0, 't'},      {"table", 1, 0, 'T'},   {"query", 1, 0, 'q'}, {"clients", 1, 0, 'c'},
        {"seconds", 1, 0, 's'}, {"batch", 1, 0, 'b'},   {"k", 1, 0, 'k'},     {"recall", 1, 0, 'r'},
        {"profile", 1, 0, 'p'}, {"context", 1, 0, 'x'}, {"mute", 1, 0, 'm'},  {0, 0, 0, 0}};
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        switch (option) {
        case 't':
            l->url = optarg;
            break;
        case 'T':
            l->table = optarg;
            break;
        case 'q':
            l->query = optarg;
            break;
        case 'c':
            l->clients = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 's':
            l->seconds = strtod(optarg, NULL);
            break;
        case 'b':
            l->batch = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'k':
            l->k = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            l->recall = strtod(optarg, NULL);
            break;
        case 'p':
            l->profile = optarg;
            break;
        case 'x':
            split_context(l, optarg);
            break;
        case 'm':
            l->mute = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        default:
            return usage();
        }
    if (!l->table || !l->query || !l->clients || l->clients > 1024 || l->mute > 256 || !l->batch || !l->k ||
        !(l->seconds > 0 && l->seconds <= 3600))
        return usage();
    return 0;
}

int main(int argc, char **argv)
{
    load *l = calloc(1, sizeof *l);
    if (!l) return 1;
    l->url = PADOS_DEFAULT_URL;
    l->clients = 32;
    l->seconds = 60;
    l->batch = 8;
    l->k = 10;
    int bad = parse(argc, argv, l);
    if (bad || (bad = read_queries(l))) {
        free(l);
        return bad;
    }
    worker *workers = calloc(l->clients, sizeof *workers);
    pthread_t mutes[256];
    uint32_t nmutes = 0, started = 0;
    double start = now();
    for (; workers && started < l->clients; started++) {
        workers[started].load = l;
        workers[started].number = started;
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started])) break;
    }
    for (; nmutes < l->mute; nmutes++)
        if (pthread_create(&mutes[nmutes], NULL, mute, l)) break;
    struct timespec rest = {(time_t)l->seconds, (long)(1e9 * fmod(l->seconds, 1))};
    nanosleep(&rest, NULL);
    l->stop = 1;
    double seconds = now() - start;
    for (uint32_t i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    for (uint32_t i = 0; i < nmutes; i++)
        pthread_join(mutes[i], NULL);
    bad = !workers || started < l->clients || report(l, workers, seconds);
    for (uint32_t i = 0; i < started; i++)
        free(workers[i].latencies);
    free(workers);
    free(l->vectors);
    free(l);
    return bad;
}
