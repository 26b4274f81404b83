/* pados-writes: what changes cost a table that serves.
 *
 *   pados-writes [--rows 200000] [--dim 128] [--batch 1000] [--flights 4] [--rounds 3] [--seconds 3] [--recall 0.95]
 *                [--parts ceilings,upserts,updates,visible,searches,drift] [--json FILE] [--folder /tmp]
 *                [--padosd PATH] [--set key=value]... [--to URL]
 *
 * It starts a padosd of its own (--to asks one that runs), pushes synthetic rows with four attributes as table "items", and
 * measures through libpados, all settings once a round; what is printed are medians of the rounds. Searches and drift have a
 * server with every default; the others one that rebuilds nothing, so that a rebuild's work is in none of their figures. A "flight" is a client thread that sends its next batch when the last is answered: one flight is what a
 * simple program does, several are what keeps every part of the server busy. The machine's own speed (a copy of a batch's bytes,
 * a write and fdatasync of them, LMDB's commit, finding lists on one thread) is measured in every round, beside what it bounds.
 *
 *   upserts    rows that are there get new vectors, which lie in other lists, and attributes, batch after batch
 *   updates    one attribute of rows that are there; four of them
 *   visible    5,000 upserts a second at a steady pace: answered, and found by a search that asks for it
 *   searches   at 30% of what the server can answer: alone; beside 5,000 upserts a second, in batches of 100 and of --batch;
 *              while the table is rebuilt; and upserts while it is. Searches are sent when they are due, whatever the others take
 *   drift      half of all rows are replaced by rows of another law, as fast as one flight goes, and nobody asks for a rebuild;
 *              recall@10 and queries a second then, and once more after a rebuild that somebody asked for
 *
 * cpu us is the server's processor time a row (or a query) but for what is built at idle priority; other programs on the machine
 * change it little.
 */
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "pados.pb-c.h"
#include "writes.h"

#define MAX_ROWS 512u

typedef struct bench {
    writes_options o;
    writes_server server;
    writes_data data;
    pados_client *client;
    writes_row rows[MAX_ROWS];
    uint32_t nrows, round;
    uint64_t cursor; /* the next ids to write */
    double sync_us;
    FILE *json;
    int bad;
} bench;

/* ----------------------------------------------------------------------------------------------------- report --- */

static void set_real(json_t *line, const char *key, double value)
{
    if (value >= 0) json_object_set_new(line, key, json_real(value));
}

static void write_line(const bench *b, const writes_row *r)
{
    if (!b->json) return;
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:i, s:I}", "system", "pados-writes", "what",
                  r->what, "setting", r->setting, "dataset", "synthetic", "rows", (json_int_t)b->data.rows,
                  "dim", (int)b->data.dim, "batch", (int)r->batch, "flights", (int)r->flights, "round",
                  (int)b->round, "errors", (json_int_t)r->errors);
    int searches = !strncmp(r->what, "searches", 8);
    set_real(line, searches ? "qps" : "rows_per_s", r->per_s);
    set_real(line, "p50_us", r->p50_us);
    set_real(line, "p99_us", r->p99_us);
    set_real(line, "max_us", r->max_us);
    set_real(line, "cpu_us", r->cpu_us);
    set_real(line, "bind_us", r->bind_us);
    set_real(line, "writer_us", r->writer_us);
    set_real(line, "executor_us", r->executor_us);
    set_real(line, "sync_us", r->sync_us);
    set_real(line, "recall", r->recall);
    json_dumpf(line, b->json, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    fputc('\n', b->json);
    fflush(b->json);
    json_decref(line);
}

static void add(bench *b, const writes_row *r)
{
    write_line(b, r);
    if (b->nrows < MAX_ROWS) b->rows[b->nrows++] = *r;
    fprintf(stderr, "  round %u: %-9s %-34s %10.0f/s  p99 %.2f ms  cpu %.2f us\n", b->round, r->what,
            r->setting, r->per_s, r->p99_us / 1e3, r->cpu_us);
}

static void cell(double value, int width, int decimals)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

static double middle(const bench *b, const writes_row *like, size_t at)
{
    double values[WRITES_ROUNDS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->nrows && n < WRITES_ROUNDS; i++) {
        const writes_row *r = &b->rows[i];
        if (strcmp(r->what, like->what) || strcmp(r->setting, like->setting) || r->flights != like->flights)
            continue;
        memcpy(&values[n++], (const char *)r + at, sizeof *values);
    }
    return writes_median(values, n);
}

#define MIDDLE(field) middle(b, r, offsetof(writes_row, field))

static void table(const bench *b)
{
    printf("\n%llu rows x %u, batches of %u, medians of %u rounds; times in ms of whole batches or requests, "
           "processor us a row or "
           "query\n",
           (unsigned long long)b->data.rows, b->data.dim, b->o.batch, b->o.rounds);
    printf("%-9s %-34s %7s %10s %8s %8s %8s %8s %7s %7s %8s %7s %7s %6s\n", "what", "setting", "flights",
           "per s", "p50", "p99", "max", "cpu us", "bind", "writer", "executor", "sync", "recall", "errors");
    for (uint32_t i = 0; i < b->nrows; i++) {
        const writes_row *r = &b->rows[i];
        uint32_t first = 0;
        while (strcmp(b->rows[first].what, r->what) || strcmp(b->rows[first].setting, r->setting) ||
               b->rows[first].flights != r->flights)
            first++;
        if (first < i) continue;
        uint64_t errors = 0;
        for (uint32_t j = 0; j < b->nrows; j++)
            if (!strcmp(b->rows[j].what, r->what) && !strcmp(b->rows[j].setting, r->setting))
                errors += b->rows[j].errors;
        printf("%-9s %-34s %7u", r->what, r->setting, r->flights);
        cell(MIDDLE(per_s), 10, 0);
        cell(MIDDLE(p50_us) / 1e3, 8, 2);
        cell(MIDDLE(p99_us) / 1e3, 8, 2);
        cell(MIDDLE(max_us) / 1e3, 8, 2);
        cell(MIDDLE(cpu_us), 8, 2);
        cell(MIDDLE(bind_us), 7, 2);
        cell(MIDDLE(writer_us), 7, 2);
        cell(MIDDLE(executor_us), 8, 2);
        cell(MIDDLE(sync_us) / 1e3, 7, 2);
        cell(MIDDLE(recall), 7, 4);
        printf(" %6llu\n", (unsigned long long)errors);
    }
}

/* ---------------------------------------------------------------------------------------------------- writing --- */

static void tell(bench *b, const char *what, const char *error)
{
    if (!error[0]) return;
    fprintf(stderr, "pados-writes: %s: %s\n", what, error);
    b->bad = 1;
}

static writes_row row_of(const char *what, const char *setting, uint32_t flights, uint32_t batch)
{
    return (writes_row){what, setting, flights, batch, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0};
}

static void fill(const bench *b, writes_row *r, writes_times *times, double count, double seconds,
                 const writes_cpu *before)
{
    writes_cpu now = writes_cpu_of(&b->server);
    r->per_s = count / seconds;
    r->p50_us = writes_times_part(times, 0.5);
    r->p99_us = writes_times_part(times, 0.99);
    r->max_us = writes_times_part(times, 1);
    if (!b->server.pid || count <= 0) return;
    r->cpu_us = (now.all - before->all) / 1e3 / count;
    r->bind_us = (now.bind - before->bind) / 1e3 / count;
    r->writer_us = (now.writer - before->writer) / 1e3 / count;
    r->executor_us = (now.executor - before->executor) / 1e3 / count;
}

static void write_for(bench *b, const char *what, const char *setting, writes_kind kind, uint32_t flights)
{
    writes_writers w = {.client = b->client,
                        .data = &b->data,
                        .kind = kind,
                        .flights = flights,
                        .batch = b->o.batch,
                        .rows = b->data.rows,
                        .vectors = b->data.base};
    atomic_init(&w.next, b->cursor);
    writes_cpu before = writes_cpu_of(&b->server);
    writes_row r = row_of(what, setting, flights, b->o.batch);
    writes_writers_start(&w);
    writes_sleep_until(writes_now() + b->o.seconds);
    writes_writers_stop(&w);
    b->cursor = atomic_load(&w.next);
    fill(b, &r, &w.times, (double)w.written, w.seconds, &before);
    r.sync_us = b->sync_us;
    r.errors = w.errors;
    tell(b, what, w.first_error);
    add(b, &r);
    writes_writers_free(&w);
}

/* Writers at 5,000 rows a second. */
static void pace(bench *b, writes_writers *w, uint32_t batch)
{
    *w = (writes_writers){.client = b->client,
                          .data = &b->data,
                          .kind = WRITES_UPSERT,
                          .flights = 2,
                          .batch = batch,
                          .per_s = 5000,
                          .rows = b->data.rows,
                          .vectors = b->data.base};
}

static void visible(bench *b)
{
    writes_writers w;
    pace(b, &w, b->o.batch);
    w.look = 1;
    writes_writers_start(&w);
    writes_sleep_until(writes_now() + b->o.seconds);
    writes_writers_stop(&w);
    writes_cpu none = writes_cpu_of(&b->server);
    writes_row answered = row_of("visible", "answered", 2, b->o.batch), found = answered;
    found.setting = "found by a search";
    fill(b, &answered, &w.times, (double)w.written, w.seconds, &none);
    fill(b, &found, &w.visible, (double)w.written, w.seconds, &none);
    answered.cpu_us = answered.bind_us = answered.writer_us = answered.executor_us = -1;
    found.cpu_us = found.bind_us = found.writer_us = found.executor_us = -1;
    answered.errors = w.errors;
    tell(b, "visible", w.first_error);
    add(b, &answered);
    add(b, &found);
    writes_writers_free(&w);
}

/* -------------------------------------------------------------------------------------------------- searching --- */

/* until: NULL: as long as it takes, which is --seconds. */
static double search_for(bench *b, const char *setting, uint32_t clients, double per_s,
                         writes_writers *beside, int (*until)(bench *b), double recall)
{
    writes_searchers s = {
        .url = b->server.url, .data = &b->data, .clients = clients, .per_s = per_s, .recall = b->o.recall};
    writes_row r = row_of("searches", setting, clients, WRITES_QUERIES);
    if (beside) writes_writers_start(beside);
    writes_cpu before = writes_cpu_of(&b->server);
    writes_searchers_start(&s);
    if (until)
        b->bad |= until(b);
    else
        writes_sleep_until(writes_now() + b->o.seconds);
    writes_searchers_stop(&s);
    if (beside) writes_writers_stop(beside);
    double queries = (double)s.requests * WRITES_QUERIES;
    fill(b, &r, &s.times, queries, s.seconds, &before);
    r.recall = recall;
    r.errors = s.errors;
    tell(b, "searches", s.first_error);
    if (beside) tell(b, "writes beside searches", beside->first_error);
    add(b, &r);
    writes_searchers_free(&s);
    return r.per_s;
}

static int rebuild(bench *b)
{
    pados_error error;
    uint64_t version;
    if (!pados_rebuild(b->client, WRITES_TABLE, NULL, NULL, &version, &error)) return 0;
    fprintf(stderr, "pados-writes: the rebuild: %s\n", error.message);
    return 1;
}

/* How long the longest write waits while a version is caught up and switched in. */
static void switching(bench *b)
{
    writes_writers w;
    pace(b, &w, 100);
    writes_cpu before = writes_cpu_of(&b->server);
    writes_row r = row_of("upserts", "5,000/s while rebuilt", w.flights, w.batch);
    writes_writers_start(&w);
    b->bad |= rebuild(b);
    writes_writers_stop(&w);
    fill(b, &r, &w.times, (double)w.written, w.seconds, &before);
    r.errors = w.errors;
    tell(b, "upserts while rebuilt", w.first_error);
    add(b, &r);
    writes_writers_free(&w);
}

static void searches(bench *b)
{
    writes_writers w;
    double capacity = search_for(b, "as fast as they are answered", 4, 0, NULL, NULL, -1);
    double per_s = 0.3 * capacity / WRITES_QUERIES;
    search_for(b, "at 30%, alone", 8, per_s, NULL, NULL, -1);
    pace(b, &w, 100);
    search_for(b, "at 30%, upserts 50 x 100/s", 8, per_s, &w, NULL, -1);
    writes_writers_free(&w);
    pace(b, &w, b->o.batch);
    search_for(b, "at 30%, upserts in --batch", 8, per_s, &w, NULL, -1);
    writes_writers_free(&w);
    search_for(b, "at 30%, while rebuilt", 8, per_s, NULL, rebuild, -1);
    switching(b);
}

/* ------------------------------------------------------------------------------------------------------ drift --- */

/* The version that serves, and how many rows have changed since it was built. */
static int look(bench *b, uint64_t *version, uint64_t *changed, uint64_t *rows)
{
    pados_error error;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__TableList list = PADOS__V1__TABLE_LIST__INIT;
    Pados__V1__Reply *reply;
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_LIST;
    request.table_list = &list;
    if (pados_admin(b->client, &request, &reply, &error)) {
        fprintf(stderr, "pados-writes: tables: %s\n", error.message);
        return 1;
    }
    for (size_t i = 0; i < reply->table_list->n_tables; i++) {
        const Pados__V1__TableInfo *info = reply->table_list->tables[i];
        if (strcmp(info->table, WRITES_TABLE)) continue;
        *version = info->serving;
        *changed = info->changed;
        *rows = info->rows;
    }
    pados_reply_free(reply);
    return 0;
}

/* Waits until the server has done by itself what it wants to: nothing has been rebuilt for a while, and little is left to. */
static int settle(bench *b, uint64_t *rebuilt)
{
    uint64_t first = 0, last = 0, version = 0, changed = 0, rows = 0;
    double since = writes_now(), start = since;
    if (look(b, &first, &changed, &rows)) return 1;
    for (last = first; writes_now() - start < 600;) {
        writes_sleep_until(writes_now() + 0.25);
        if (look(b, &version, &changed, &rows)) return 1;
        if (version != last || changed * 100 >= rows * 20) since = writes_now();
        last = version;
        if (writes_now() - since > 3) break;
    }
    *rebuilt = last - first;
    return 0;
}

static void quality(bench *b, const char *setting)
{
    double recall = writes_recall(b->client, &b->data, b->o.recall);
    b->bad |= recall < 0;
    search_for(b, setting, 4, 0, NULL, NULL, recall);
}

static void drift(bench *b)
{
    uint64_t half = b->data.rows / 2, rebuilt = 0, version = 0, then = 0, changed, rows;
    writes_writers w = {.client = b->client,
                        .data = &b->data,
                        .kind = WRITES_UPSERT,
                        .flights = 1,
                        .batch = b->o.batch,
                        .first = b->round % 2 ? half : 0,
                        .rows = half,
                        .once = 1,
                        .vectors = b->data.fresh};
    b->bad |= look(b, &version, &changed, &rows);
    writes_cpu before = writes_cpu_of(&b->server);
    writes_row r = row_of("drift", "half of the rows replaced", 1, b->o.batch);
    writes_writers_start(&w);
    writes_writers_wait(&w);
    fill(b, &r, &w.times, (double)w.written, w.seconds, &before);
    r.errors = w.errors;
    tell(b, "drift", w.first_error);
    add(b, &r);
    writes_writers_free(&w);
    b->bad |= settle(b, &rebuilt) || look(b, &then, &changed, &rows);
    fprintf(stderr, "  round %u: the server has rebuilt the table %llu times by itself\n", b->round,
            (unsigned long long)(then - version));
    quality(b, "after drift, as it is");
    b->bad |= rebuild(b);
    quality(b, "after drift, rebuilt when asked");
}

/* ------------------------------------------------------------------------------------------------------- main --- */

static int wants(const bench *b, const char *part)
{
    size_t length = strlen(part);
    for (const char *at = b->o.parts; (at = strstr(at, part)) != NULL; at += length)
        if ((at == b->o.parts || at[-1] == ',') && (at[length] == ',' || !at[length])) return 1;
    return 0;
}

static void ceilings(bench *b)
{
    writes_ceilings c;
    if (writes_ceilings_measure(&b->o, &b->data, b->server.folder, &c)) {
        b->bad = 1;
        return;
    }
    b->sync_us = c.sync;
    const char *const names[] = {"copy of a batch", "write and fdatasync of it",
                                 "log of changes (LMDB), synced", "nearest of about 2 sqrt(rows) lists"};
    const double us[] = {c.copy, c.sync, c.log, c.assign};
    for (int i = 0; i < 4; i++) {
        writes_row r = row_of("machine", names[i], 1, b->o.batch);
        r.p50_us = us[i];
        r.per_s = b->o.batch * 1e6 / us[i];
        add(b, &r);
    }
}

static void cost(bench *b)
{
    uint32_t flights = b->o.flights;
    if (wants(b, "ceilings")) ceilings(b);
    if (wants(b, "upserts")) {
        write_for(b, "upserts", "4 attributes", WRITES_UPSERT, 1);
        write_for(b, "upserts", "4 attributes", WRITES_UPSERT, flights);
    }
    if (wants(b, "updates")) {
        write_for(b, "updates", "price", WRITES_UPDATE, 1);
        write_for(b, "updates", "price", WRITES_UPDATE, flights);
        write_for(b, "updates", "price, stock, zone, brand", WRITES_UPDATE_FOUR, flights);
    }
    if (wants(b, "visible")) visible(b);
}

static void company(bench *b)
{
    if (wants(b, "searches")) searches(b);
    if (wants(b, "drift")) drift(b);
}

/* All rounds of some parts on a server of their own. */
static void serve(bench *b, const char *program, const char *set, void (*parts)(bench *b))
{
    pados_error error;
    if (b->bad || (b->bad = writes_server_start(&b->o, program, set, &b->server)) != 0) return;
    pados_options options = {.timeout_ms = 30000};
    if (pados_open(b->server.url, &options, &b->client, &error)) {
        fprintf(stderr, "pados-writes: %s\n", error.message);
        b->bad = 1;
    } else {
        b->bad = writes_push(b->client, &b->data);
    }
    for (b->round = 0; !b->bad && b->round < b->o.rounds; b->round++)
        parts(b);
    pados_close(b->client);
    b->client = NULL;
    writes_server_stop(&b->server);
}

static int usage(void)
{
    fprintf(
        stderr,
        "pados-writes [--rows 200000] [--dim 128] [--batch 1000] [--flights 4] [--rounds 3] [--seconds 3]\n"
        "             [--recall 0.95] [--parts ceilings,upserts,updates,visible,searches,drift] [--json "
        "FILE]\n"
        "             [--folder /tmp] [--padosd PATH] [--set key=value]... [--to URL]\n");
    return 2;
}

static int parse(int argc, char **argv, writes_options *o)
{
    static const struct option longs[] = {
        {"rows", 1, 0, 'n'},    {"dim", 1, 0, 'd'},    {"batch", 1, 0, 'b'},
        {"flights", 1, 0, 'f'}, {"rounds", 1, 0, 'r'}, {"seconds", 1, 0, 's'},
        {"recall", 1, 0, 'R'},  {"parts", 1, 0, 'p'},  {"json", 1, 0, 'j'},
        {"folder", 1, 0, 'F'},  {"padosd", 1, 0, 'P'}, {"set", 1, 0, 'S'},
        {"to", 1, 0, 't'},      {0, 0, 0, 0}};
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (option) {
        case 'n':
            o->rows = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            o->dim = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            o->batch = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'f':
            o->flights = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'r':
            o->rounds = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 's':
            o->seconds = strtod(optarg, NULL);
            break;
        case 'R':
            o->recall = strtod(optarg, NULL);
            break;
        case 'p':
            o->parts = optarg;
            break;
        case 'j':
            o->json = optarg;
            break;
        case 'F':
            o->folder = optarg;
            break;
        case 'P':
            o->padosd = optarg;
            break;
        case 'S':
            if (o->nsets == WRITES_SETS) return usage();
            o->sets[o->nsets++] = optarg;
            break;
        case 't':
            o->to = optarg;
            break;
        default:
            return usage();
        }
    }
    if (optind < argc || o->rows < 1000 || o->rows > 100000000 || !o->dim || o->dim > 8192 || !o->batch ||
        o->batch > PADOS_MAX_BATCH || o->batch > o->rows / 2 || !o->flights || o->flights > 64 ||
        !o->rounds || o->rounds > WRITES_ROUNDS || !(o->seconds > 0 && o->seconds <= 600) ||
        !(o->recall > 0 && o->recall < 1) || strlen(o->folder) > 300)
        return usage();
    return 0;
}

int main(int argc, char **argv)
{
    static bench b;
    b.o = (writes_options){.rows = 200000,
                           .dim = 128,
                           .batch = 1000,
                           .flights = 4,
                           .rounds = 3,
                           .seconds = 3,
                           .recall = 0.95,
                           .folder = "/tmp",
                           .parts = "ceilings,upserts,updates,visible,searches,drift"};
    int bad = parse(argc, argv, &b.o);
    if (bad) return bad;
    if (b.o.json && !(b.json = fopen(b.o.json, "a"))) {
        perror(b.o.json);
        return 1;
    }
    b.bad = writes_data_make(&b.o, &b.data);
    if (wants(&b, "ceilings") || wants(&b, "upserts") || wants(&b, "updates") || wants(&b, "visible"))
        serve(&b, argv[0], "rebuild_percent=0", cost);
    if (wants(&b, "searches") || wants(&b, "drift")) serve(&b, argv[0], NULL, company);
    if (b.nrows) table(&b);
    pados_close(b.client);
    writes_server_stop(&b.server);
    writes_data_free(&b.data);
    if (b.json && fclose(b.json)) b.bad = 1;
    return b.bad;
}
