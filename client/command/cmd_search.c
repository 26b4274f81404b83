/* pados search: reads the queries, asks in as many requests as the server's limits make it, prints and writes the hits. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hits.h"
#include "query.h"
#include "reader.h"

enum { BATCH = 4096, SHOWN = 20 };

static const char help[] =
    "usage: pados search TABLE [WHAT] [OPTION]...\n"
    "\n"
    "Asks a table for the rows that score highest. TABLE@N asks its version N.\n"
    "\n"
    "what to ask with (none of them: the order is by attributes alone):\n"
    "  --query FILE            vectors, in any format that push reads (--format as there)\n"
    "  --id N[,N...]           stored rows of TABLE, which leave themselves out\n"
    "  --from OTHER:N[,N...]   stored rows of another table, for instance users:42\n"
    "  --mix ID:W,ID:W,...     a weighted sum of rows; may be repeated, one query each\n"
    "  With --query and --from or --id, the vector is asked with where the row is not there.\n"
    "\n"
    "how well:\n"
    "  --k K                   hits of each query (10)\n"
    "  --recall R              what share of the exact top K to find, on average (0.95)\n"
    "  --nprobe N | --exact    lists to look into | every row\n"
    "\n"
    "for whom:\n"
    "  --profile P             weights, filters and caps that were put under that name\n"
    "  --context KEY=V,...     of the shopper; may be repeated. A comma starts a new pair only where KEY= "
    "follows\n"
    "  --contexts FILE.csv     a context for each query: the header names the keys\n"
    "  --weight A[=V]:W        overrides one weight (A is similarity or an attribute); may be repeated\n"
    "\n"
    "which rows:\n"
    "  --filter COND           A=V, A!=V, A>=X, A<=X, 'A any V|W', 'A all V|W', 'A none V|W'; may be "
    "repeated\n"
    "  --diversity A:N         at most N hits of one value of A; may be repeated\n"
    "  --exclude N[,N...]      never these ids\n"
    "  --min-score S           nothing that scores less\n"
    "  --at-least SEQ          the rows as a write left them whose sequence this is: waits for it, if it "
    "must\n"
    "\n"
    "what to show:\n"
    "  --explain               the terms that each score is the sum of\n"
    "  --attributes A,B | '*'  values of the hits\n"
    "  --titles FILE.csv       names beside ids (columns id and title)\n"
    "  --limit-print N         hits of the first N queries only (20; all with --json; 0 with --output)\n"
    "  --output FILE.npy       ids as u64 [queries][K], 2^64-1 where there are fewer; scores in "
    "FILE.scores.npy\n"
    "\n"
    "examples:\n"
    "  pados search products --id 1042 --k 5 --attributes brand,price\n"
    "  pados search products --from users:42 --profile festive --context festival=diwali,zone=north "
    "--explain\n"
    "  pados search products --mix 17:1,23:-0.5 --filter 'price<=20' --diversity brand:2\n"
    "  pados search products --profile festive --context 'department=HOME, DECOR'\n"
    "  pados search products --id 1042 --at-least $(pados --json update products prices.csv | jq .sequence)\n"
    "  pados search products --query test.fvecs --k 100 --recall 0.99 --output found.npy\n"
    "\n"
    "With --json: an object for each hit (query, rank, id, score, title, attributes, terms), then one with\n"
    "\"summary\": true (version, profile_version, path, nprobe, rung, timing, warnings, complete, ...), in "
    "which path,\n"
    "nprobe and rung have an entry for each query. Ids above 2^63-1 are strings.\n";

typedef struct ask {
    const char *table, *query, *format, *id, *from, *profile, *contexts_file, *exclude, *attributes, *titles,
        *output;
    arg_list mix, context, weight, filter, diversity;
    uint32_t k, nprobe;
    uint64_t limit, at_least;
    float recall, min_score;
    bool exact, explain, recall_given, nprobe_given, min_score_given, limit_given;

    pool pool;
    pados_search search; /* all that is the same for every batch */
    float *vectors;      /* [count][dim] */
    uint64_t count;
    uint32_t dim;
    uint64_t *from_ids;
    char *from_table;
    pados_mix *mixes;
    pados_context *contexts;
    size_t ncontexts;
    pados_ids excluded;
} ask;

static int read_vectors(ask *a)
{
    pd_error error;
    pd_reader *reader;
    pd_format format = PD_FORMAT_AUTO;
    if (a->format && pd_format_parse(a->format, &format, &error))
        return usage_error("--format: %s", error.message);
    if (pd_reader_open(a->query, format, &reader, &error)) return complain_here(&error);
    pd_reader_info info;
    pd_reader_info_of(reader, &info);
    size_t values;
    int code = 0;
    uint64_t got = 0;
    if (__builtin_mul_overflow(info.rows, info.dim, &values) || values > SIZE_MAX / 8)
        code = complain(PD_INVALID_ARGUMENT, "--query: %s: too large", a->query);
    else if (!info.rows)
        code = complain(PD_INVALID_ARGUMENT, "--query: %s: there are no rows in it", a->query);
    else
        a->vectors = pool_take(&a->pool, values, sizeof *a->vectors);
    while (!code && got < info.rows) {
        uint64_t more;
        if (pd_reader_read_f32(reader, info.rows - got, a->vectors + got * info.dim, &more, &error))
            code = complain_here(&error);
        else if (!more)
            code = complain(PD_INVALID_ARGUMENT, "--query: %s: it ends after row %" PRIu64, a->query, got);
        got += more;
    }
    pd_reader_close(reader);
    a->count = info.rows;
    a->dim = info.dim;
    return code;
}

/* Sets a->count to the number of queries that one of the sources holds; they must agree. */
static int agree(ask *a, const char *option, uint64_t count)
{
    if (a->count && a->count != count)
        return complain(PD_INVALID_ARGUMENT, "%s: %" PRIu64 " queries, where another source has %" PRIu64,
                        option, count, a->count);
    a->count = count;
    return 0;
}

static int take_sources(ask *a)
{
    int code;
    size_t n;
    if (a->id && a->from) return usage_error("--id and --from: only one of them can be asked with");
    if (a->mix.count && (a->id || a->from || a->query))
        return usage_error("--mix: cannot be asked together with --query, --id or --from");
    if (a->query && (code = read_vectors(a)) != 0) return code;
    if (a->id) {
        if ((code = parse_ids(&a->pool, "--id", a->id, &a->from_ids, &n)) != 0) return code;
        a->from_table = pool_text(&a->pool, "", 0);
        if ((code = agree(a, "--id", n)) != 0) return code;
    }
    if (a->from) {
        if ((code = parse_from(&a->pool, a->from, &a->from_table, &a->from_ids, &n)) != 0) return code;
        if ((code = agree(a, "--from", n)) != 0) return code;
    }
    if (a->mix.count) {
        a->mixes = pool_take(&a->pool, a->mix.count, sizeof *a->mixes);
        for (size_t i = 0; i < a->mix.count; i++)
            if ((code = parse_mix(&a->pool, a->mix.at[i], &a->mixes[i])) != 0) return code;
        a->count = a->mix.count;
    }
    return 0;
}

static int take_contexts(ask *a)
{
    pados_context *common = pool_take(&a->pool, 1, sizeof *common);
    int code = parse_context(&a->pool, &a->context, common);
    if (code) return code;
    if (a->contexts_file) {
        code = read_contexts(&a->pool, a->contexts_file, common, &a->contexts, &a->ncontexts);
        if (code) return code;
        if (a->ncontexts > 1) return agree(a, "--contexts", a->ncontexts);
    } else if (common->count) {
        a->contexts = common;
        a->ncontexts = 1;
    }
    return 0;
}

static int take_lists(ask *a)
{
    int code;
    pados_override *overrides = pool_take(&a->pool, a->weight.count, sizeof *overrides);
    pados_condition *filters = pool_take(&a->pool, a->filter.count, sizeof *filters);
    pados_cap *caps = pool_take(&a->pool, a->diversity.count, sizeof *caps);
    for (size_t i = 0; i < a->weight.count; i++)
        if ((code = parse_weight(&a->pool, a->weight.at[i], &overrides[i])) != 0) return code;
    for (size_t i = 0; i < a->filter.count; i++)
        if ((code = parse_filter(&a->pool, a->filter.at[i], &filters[i])) != 0) return code;
    for (size_t i = 0; i < a->diversity.count; i++)
        if ((code = parse_cap(&a->pool, a->diversity.at[i], &caps[i])) != 0) return code;
    if (a->exclude) {
        uint64_t *ids;
        if ((code = parse_ids(&a->pool, "--exclude", a->exclude, &ids, &a->excluded.count)) != 0) return code;
        a->excluded.ids = ids;
    }
    pados_search *s = &a->search;
    s->overrides = overrides;
    s->noverrides = a->weight.count;
    s->filters = filters;
    s->nfilters = a->filter.count;
    s->diversity = caps;
    s->ndiversity = a->diversity.count;
    s->exclude = &a->excluded;
    s->nexclude = a->exclude ? 1 : 0;
    if (a->attributes) {
        char **names;
        split(&a->pool, a->attributes, ',', &names, &s->nattributes);
        s->attributes = (const char *const *)names;
    }
    return 0;
}

static int take_quality(ask *a)
{
    if (a->recall_given + a->nprobe_given + a->exact > 1)
        return usage_error("--recall, --nprobe, --exact: only one of them can be asked for");
    if (a->recall_given && !(a->recall > 0 && a->recall <= 1))
        return usage_error("--recall: %g is not above 0 and at most 1", (double)a->recall);
    if (a->nprobe_given && !a->nprobe) return usage_error("--nprobe: must be at least 1");
    if (!a->k) return usage_error("--k: must be at least 1");
    pados_search *s = &a->search;
    s->table = a->table;
    s->k = a->k;
    s->recall = a->recall_given ? a->recall : 0;
    s->nprobe = a->nprobe;
    s->exact = a->exact;
    s->at_least = a->at_least;
    s->profile = a->profile;
    s->min_score = a->min_score_given ? &a->min_score : NULL;
    s->explain = a->explain;
    return 0;
}

/* Queries of one request: as many as the server's limits allow. */
static uint64_t batch_of(const ask *a, const pados_limits *limits)
{
    uint64_t batch = BATCH, context = 0;
    if (limits->max_queries && limits->max_queries < batch) batch = limits->max_queries;
    if (limits->max_hits && limits->max_hits / a->k < batch) batch = limits->max_hits / a->k;
    for (size_t c = 0; c < a->ncontexts; c++) {
        uint64_t bytes = 16;
        for (size_t p = 0; p < a->contexts[c].count; p++)
            bytes += 12 + strlen(a->contexts[c].pairs[p].key) + strlen(a->contexts[c].pairs[p].value);
        if (bytes > context) context = bytes;
    }
    uint64_t query = (uint64_t)a->dim * sizeof(float) + 8 + (a->ncontexts > 1 ? context : 0);
    uint64_t rest = 65536 + 9 * a->excluded.count; /* what a request holds once */
    uint64_t room = limits->max_message > rest ? limits->max_message - rest : 0;
    if (limits->max_message && room / query < batch) batch = room / query;
    return batch ? batch : 1; /* one that is too large is then refused with the limit's name */
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ------------------------------------------------------------------------------------------------- output --- */

typedef struct output {
    uint64_t *ids;
    float *scores;
} output;

static void output_add(output *o, const ask *a, const pados_result *r, uint64_t first)
{
    for (uint32_t i = 0; i < r->count; i++) {
        uint64_t *ids = o->ids + (first + i) * a->k;
        float *scores = o->scores + (first + i) * a->k;
        memcpy(ids, r->ids + r->first[i], r->counts[i] * sizeof *ids);
        memcpy(scores, r->scores + r->first[i], r->counts[i] * sizeof *scores);
        for (uint32_t h = r->counts[i]; h < a->k; h++) {
            ids[h] = UINT64_MAX;
            scores[h] = -INFINITY;
        }
    }
}

static int output_write(const output *o, ask *a)
{
    pd_error error;
    size_t length = strlen(a->output);
    size_t stem = length > 4 && strcmp(a->output + length - 4, ".npy") == 0 ? length - 4 : length;
    char *scores = pool_take(&a->pool, stem + sizeof ".scores.npy", 1);
    memcpy(scores, a->output, stem);
    strcpy(scores + stem, ".scores.npy");
    if (pd_write_npy(a->output, PD_DTYPE_U64, a->count, a->k, o->ids, &error) ||
        pd_write_npy(scores, PD_DTYPE_F32, a->count, a->k, o->scores, &error))
        return complain_here(&error);
    return 0;
}

static int run_batches(ask *a, pados_client *client, const hits_view *view, hits_sum *sum, output *o)
{
    pados_limits limits;
    pados_limits_of(client, &limits);
    uint64_t batch = batch_of(a, &limits);
    for (uint64_t first = 0; first < a->count; first += batch) {
        pados_search s = a->search;
        pados_result *r;
        pados_error error;
        s.count = (uint32_t)(a->count - first < batch ? a->count - first : batch);
        if (a->vectors) {
            s.vectors = a->vectors + first * a->dim;
            s.dim = a->dim;
        }
        if (a->from_ids) {
            s.from_ids = a->from_ids + first;
            s.from_table = a->from_table;
        }
        if (a->mixes) s.mixes = a->mixes + first;
        s.contexts = a->ncontexts > 1 ? a->contexts + first : a->contexts;
        s.ncontexts = a->ncontexts > 1 ? s.count : a->ncontexts;
        double before = seconds_now();
        if (pados_search_run(client, &s, &r, &error)) return complain_of(&error);
        sum->seconds += seconds_now() - before;
        hits_add(sum, r);
        if (o->ids) output_add(o, a, r, first);
        hits_print(view, r, first);
        pados_result_free(r);
    }
    return 0;
}

static int search_and_show(ask *a, globals *g, const titles *names)
{
    if (!a->count) a->count = 1; /* ordered by attributes alone */
    pados_client *client;
    int code = connect_to(g, &client);
    if (code) return code;
    output o = {NULL, NULL};
    if (a->output) {
        o.ids = pool_take(&a->pool, a->count * a->k, sizeof *o.ids);
        o.scores = pool_take(&a->pool, a->count * a->k, sizeof *o.scores);
    }
    uint64_t usual = a->output ? 0 : g->json ? UINT64_MAX : SHOWN;
    hits_view view = {.g = g,
                      .table = a->table,
                      .from_table = a->from_table,
                      .from_ids = a->from_ids,
                      .explain = a->explain,
                      .titles = names,
                      .k = a->k,
                      .limit = a->limit_given ? a->limit : usual};
    hits_sum sum = {0};
    code = run_batches(a, client, &view, &sum, &o);
    if (!code && a->output) code = output_write(&o, a);
    if (!code) hits_summary(&view, &sum, a->profile);
    hits_free(&sum);
    pados_close(client);
    return code;
}

static int run(int argc, char **argv, globals *g)
{
    ask a = {.k = 10};
    const arg options[] = {{"--query", ARG_TEXT, &a.query, NULL},
                           {"--format", ARG_TEXT, &a.format, NULL},
                           {"--id", ARG_TEXT, &a.id, NULL},
                           {"--from", ARG_TEXT, &a.from, NULL},
                           {"--mix", ARG_LIST, &a.mix, NULL},
                           {"--k", ARG_U32, &a.k, NULL},
                           {"--recall", ARG_F32, &a.recall, &a.recall_given},
                           {"--nprobe", ARG_U32, &a.nprobe, &a.nprobe_given},
                           {"--exact", ARG_FLAG, &a.exact, NULL},
                           {"--profile", ARG_TEXT, &a.profile, NULL},
                           {"--context", ARG_LIST, &a.context, NULL},
                           {"--contexts", ARG_TEXT, &a.contexts_file, NULL},
                           {"--weight", ARG_LIST, &a.weight, NULL},
                           {"--filter", ARG_LIST, &a.filter, NULL},
                           {"--diversity", ARG_LIST, &a.diversity, NULL},
                           {"--exclude", ARG_TEXT, &a.exclude, NULL},
                           {"--min-score", ARG_F32, &a.min_score, &a.min_score_given},
                           {"--at-least", ARG_U64, &a.at_least, NULL},
                           {"--explain", ARG_FLAG, &a.explain, NULL},
                           {"--attributes", ARG_TEXT, &a.attributes, NULL},
                           {"--titles", ARG_TEXT, &a.titles, NULL},
                           {"--output", ARG_TEXT, &a.output, NULL},
                           {"--limit-print", ARG_U64, &a.limit, &a.limit_given},
                           {NULL, ARG_FLAG, NULL, NULL}};
    titles *names = NULL;
    int code = args_parse(argc, argv, g, options, &a.table, 1, 1, "TABLE");
    if (!code && g->help) {
        print_help(&command_search);
    } else {
        if (!code) code = take_quality(&a);
        if (!code) code = take_sources(&a);
        if (!code) code = take_contexts(&a);
        if (!code) code = take_lists(&a);
        if (!code && a.titles) code = titles_read(a.titles, &names);
        if (!code) code = search_and_show(&a, g, names);
    }
    titles_free(names);
    pool_free(&a.pool);
    args_list_free(&a.mix);
    args_list_free(&a.context);
    args_list_free(&a.weight);
    args_list_free(&a.filter);
    args_list_free(&a.diversity);
    return code;
}

const command command_search = {"search", "the rows of a table that score highest", help, run};
