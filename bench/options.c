/* pados-bench's arguments. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

static const char help[] =
    "pados-bench: recall against throughput of Pados (bench/compare.py runs it beside its peers)\n"
    "\n"
    "  pados-bench --base FILE --query FILE [OPTION]...\n"
    "  pados-bench --generate ROWSxDIM[:SEED] [OPTION]...\n"
    "  pados-bench --on-device --generate ROWSxDIM[:SEED] --nlist N [--fused FxV:SPREAD] [--refine R] "
    "[--refine-in device|host] "
    "[--queries N] [--json FILE]\n"
    "                                    the same rows made, built and searched on a GPU, none of them on "
    "the host\n"
    "  pados-bench --ceilings [--json FILE]\n"
    "  pados-bench --plan ROWSxDIM [--code C] [--refine R] [--code-dim N] [--nlist N] [--fused FxV:0]\n"
    "                                    the memory that such a table takes, and the rows that cards hold\n"
    "\n"
    "data     --base FILE --query FILE   .npy .fbin .u8bin .i8bin .fvecs .bvecs, HDF5 (FILE#train), FAISS\n"
    "         --generate ROWSxDIM[:SEED] synthetic rows and queries instead (law.h has their law)\n"
    "         --truth FILE               exact neighbours (.ivecs .ibin .npy HDF5#neighbors); computed where "
    "absent\n"
    "         --ids FILE                 row ids, where attributes name them (default: 0, 1, 2, ...)\n"
    "         --format F                 of the base file, where content and extension do not tell\n"
    "         --calibration FILE         queries for the recall promise (default: the first 2,500 queries, "
    "which are\n"
    "                                    then not measured; rows of the base where there are under 5,000 "
    "queries)\n"
    "         --dataset NAME  --queries N (measure at most N; generated: N, 5000)\n"
    "question --metric ip|cosine|l2 (l2)  --k K (10)  --recall R,R,... (0.9,0.95,0.99)\n"
    "         --batch B,B,... (1024)     one over the number of queries repeats them in rotation\n"
    "machine  --threads T (1)  --build-threads T (all)  --backend cpu|reference|cuda|auto (cpu)  --isa I\n"
    "         --seconds S (1, a case and round)  --rounds N (3)  --turns (each round waits for a line on "
    "stdin)\n"
    "         --ceilings                 measures read bandwidth and multiply-adds a second too\n"
    "index    --nlist N  --code i8|f16|f32 (i8)  --refine none|f16|f32|i8|u8  --seed S  --work FOLDER\n"
    "         --code-dim N               dimensions of i8 codes (default: as many as the build finds "
    "enough)\n"
    "context  --fused FxV:SPREAD,...[:TIE]\n"
    "                                    F random attributes of V values, per-query weights of each spread; "
    "with\n"
    "                                    probability TIE a row's value follows its list. Also over-fetches "
    "and re-ranks\n"
    "         --fused-batch B,B,...      batches of cases with context (default: as --batch)\n"
    "         --attributes FILE.csv --schema FILE --profile FILE --contexts FILE.csv   a real profile "
    "instead\n"
    "output   --json FILE (one object a line, case and round, appended)\n"
    "         --export FOLDER            rows, queries, truth, attributes and weights as .fbin and .npy\n"
    "         --check                    results must not depend on batch size or threads\n";

static pd_status number(const char *name, const char *text, double low, double high, double *value,
                        pd_error *err)
{
    char *end;
    *value = strtod(text, &end);
    if (end == text || *end || !(*value >= low && *value <= high))
        return pd_fail(err, PD_INVALID_ARGUMENT, "--%s %s: wants a number from %g to %g", name, text, low,
                       high);
    return PD_OK;
}

static pd_status recalls(char *text, bench_options *o, pd_error *err)
{
    o->nrecalls = 0;
    for (char *save, *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        double value;
        if (o->nrecalls == BENCH_MAX_TARGETS)
            return pd_fail(err, PD_INVALID_ARGUMENT, "--recall: more than %d targets", BENCH_MAX_TARGETS);
        pd_status status = number("recall", part, 0.01, 1.0, &value, err);
        if (status) return status;
        o->recalls[o->nrecalls++] = (float)value;
    }
    return PD_OK;
}

static pd_status batches(const char *name, char *text, uint32_t *sizes, uint32_t *count, pd_error *err)
{
    *count = 0;
    for (char *save, *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        double value;
        if (*count == BENCH_MAX_BATCHES)
            return pd_fail(err, PD_INVALID_ARGUMENT, "--%s: more than %d sizes", name, BENCH_MAX_BATCHES);
        pd_status status = number(name, part, 1, 1e6, &value, err);
        if (status) return status;
        sizes[(*count)++] = (uint32_t)value;
    }
    return PD_OK;
}

static pd_status generate(const char *text, bench_options *o, pd_error *err)
{
    unsigned long long rows = 0, seed = 1;
    unsigned dim = 0;
    int used = 0;
    int got = sscanf(text, "%llux%u%n:%llu%n", &rows, &dim, &used, &seed, &used);
    if (got < 2 || text[used] || *text == '-' || rows < 1 || rows > 1000000000 || dim < 1 || dim > PD_MAX_DIM)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "--generate %s: wants ROWSxDIM[:SEED], for instance 1000000x128:1", text);
    o->generate_rows = rows;
    o->generate_dim = dim;
    o->generate_seed = seed;
    return PD_OK;
}

static pd_status fused(const char *text, bench_options *o, pd_error *err)
{
    unsigned attributes = 0, values = 0;
    int used = 0;
    if (sscanf(text, "%ux%u:%n", &attributes, &values, &used) < 2 || !used || attributes < 1 ||
        attributes > 16 || values < 2 || values > 254)
        goto refused;
    o->nspreads = 0;
    for (text += used;; text++) {
        char *end;
        float spread = strtof(text, &end);
        if (end == text || !(spread >= 0 && spread <= 100) || o->nspreads == BENCH_MAX_SPREADS) goto refused;
        o->fused_spreads[o->nspreads++] = spread;
        text = end;
        if (*text != ',') break;
    }
    if (*text == ':') {
        char *end;
        o->fused_tie = strtof(text + 1, &end);
        if (end == text + 1 || !(o->fused_tie >= 0 && o->fused_tie <= 1)) goto refused;
        text = end;
    }
    if (*text) goto refused;
    o->fused_attributes = attributes;
    o->fused_values = values;
    return PD_OK;
refused:
    return pd_fail(
        err, PD_INVALID_ARGUMENT,
        "--fused wants FxV:SPREAD,...[:TIE], for instance 4x32:0.3,0.5 (F 1..16, V 2..254, at most "
        "%d spreads, TIE 0..1)",
        BENCH_MAX_SPREADS);
}

enum {
    BASE = 256,
    QUERY,
    GENERATE,
    IDS,
    TRUTH,
    FORMAT,
    CALIBRATION,
    DATASET,
    QUERIES,
    METRIC,
    K,
    BATCH,
    RECALL,
    THREADS,
    BUILD_THREADS,
    BACKEND,
    ISA,
    SECONDS,
    ROUNDS,
    TURNS,
    CEILINGS,
    NLIST,
    CODE_DIM,
    CODE,
    REFINE,
    SEED,
    WORK,
    FUSED,
    FUSED_BATCH,
    PLAN,
    ATTRIBUTES,
    SCHEMA,
    PROFILE,
    CONTEXTS,
    JSON,
    EXPORT,
    CHECK
};

static const struct option longs[] = {{"base", 1, 0, BASE},
                                      {"query", 1, 0, QUERY},
                                      {"generate", 1, 0, GENERATE},
                                      {"plan", 1, 0, PLAN},
                                      {"ids", 1, 0, IDS},
                                      {"truth", 1, 0, TRUTH},
                                      {"format", 1, 0, FORMAT},
                                      {"calibration", 1, 0, CALIBRATION},
                                      {"dataset", 1, 0, DATASET},
                                      {"queries", 1, 0, QUERIES},
                                      {"metric", 1, 0, METRIC},
                                      {"k", 1, 0, K},
                                      {"batch", 1, 0, BATCH},
                                      {"recall", 1, 0, RECALL},
                                      {"threads", 1, 0, THREADS},
                                      {"build-threads", 1, 0, BUILD_THREADS},
                                      {"backend", 1, 0, BACKEND},
                                      {"isa", 1, 0, ISA},
                                      {"seconds", 1, 0, SECONDS},
                                      {"rounds", 1, 0, ROUNDS},
                                      {"turns", 0, 0, TURNS},
                                      {"ceilings", 0, 0, CEILINGS},
                                      {"nlist", 1, 0, NLIST},
                                      {"code", 1, 0, CODE},
                                      {"refine", 1, 0, REFINE},
                                      {"code-dim", 1, 0, CODE_DIM},
                                      {"seed", 1, 0, SEED},
                                      {"work", 1, 0, WORK},
                                      {"fused", 1, 0, FUSED},
                                      {"fused-batch", 1, 0, FUSED_BATCH},
                                      {"attributes", 1, 0, ATTRIBUTES},
                                      {"schema", 1, 0, SCHEMA},
                                      {"profile", 1, 0, PROFILE},
                                      {"contexts", 1, 0, CONTEXTS},
                                      {"json", 1, 0, JSON},
                                      {"export", 1, 0, EXPORT},
                                      {"check", 0, 0, CHECK},
                                      {"help", 0, 0, 'h'},
                                      {0, 0, 0, 0}};

/* Options with a number: where it goes and its bounds. */
static pd_status numeric(int option, const char *name, bench_options *o, pd_error *err)
{
    double value;
    struct {
        int option;
        uint32_t *where;
        double low, high;
    } whole[] = {{QUERIES, &o->queries, 1, 1e9},
                 {K, &o->k, 1, PD_MAX_K},
                 {THREADS, &o->threads, 1, 1024},
                 {BUILD_THREADS, &o->build_threads, 1, 1024},
                 {ROUNDS, &o->rounds, 1, BENCH_MAX_ROUNDS},
                 {NLIST, &o->nlist, 1, 1e7},
                 {CODE_DIM, &o->code_dim, 1, PD_MAX_DIM}};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (whole[i].option == option) {
            pd_status status = number(name, optarg, whole[i].low, whole[i].high, &value, err);
            if (!status) *whole[i].where = (uint32_t)value;
            return status;
        }
    pd_status status = number(name, optarg, 0, option == SECONDS ? 600 : 9e15, &value, err);
    if (status) return status;
    if (option == SECONDS)
        o->seconds = value;
    else
        o->seed = (uint64_t)value;
    return PD_OK;
}

static pd_status one(int option, const char *name, bench_options *o, pd_error *err)
{
    switch (option) {
    case BASE:
        o->base = optarg;
        return PD_OK;
    case QUERY:
        o->query = optarg;
        return PD_OK;
    case PLAN:
        o->plan = 1;
        return generate(optarg, o, err);
    case GENERATE:
        return generate(optarg, o, err);
    case IDS:
        o->ids = optarg;
        return PD_OK;
    case TRUTH:
        o->truth = optarg;
        return PD_OK;
    case FORMAT:
        o->base_format = optarg;
        return PD_OK;
    case CALIBRATION:
        o->calibration = optarg;
        return PD_OK;
    case DATASET:
        o->dataset = optarg;
        return PD_OK;
    case METRIC:
        return pd_metric_parse(optarg, &o->metric, err);
    case RECALL:
        return recalls(optarg, o, err);
    case BATCH:
        return batches(name, optarg, o->batches, &o->nbatches, err);
    case FUSED_BATCH:
        return batches(name, optarg, o->fused_batches, &o->nfused_batches, err);
    case BACKEND:
        o->backend = optarg;
        return PD_OK;
    case ISA:
        o->isa = optarg;
        return PD_OK;
    case CODE:
        o->code = optarg;
        return PD_OK;
    case REFINE:
        o->refine = optarg;
        return PD_OK;
    case WORK:
        o->work = optarg;
        return PD_OK;
    case FUSED:
        return fused(optarg, o, err);
    case ATTRIBUTES:
        o->attributes = optarg;
        return PD_OK;
    case SCHEMA:
        o->schema = optarg;
        return PD_OK;
    case PROFILE:
        o->profile = optarg;
        return PD_OK;
    case CONTEXTS:
        o->contexts = optarg;
        return PD_OK;
    case JSON:
        o->json = optarg;
        return PD_OK;
    case EXPORT:
        o->export = optarg;
        return PD_OK;
    case TURNS:
        o->turns = 1;
        return PD_OK;
    case CEILINGS:
        o->ceilings = 1;
        return PD_OK;
    case CHECK:
        o->check = 1;
        return PD_OK;
    default:
        return numeric(option, name, o, err);
    }
}

pd_status bench_options_parse(int argc, char **argv, bench_options *o, pd_error *err)
{
    *o = (bench_options){.metric = PD_L2,
                         .k = 10,
                         .batches = {1024},
                         .nbatches = 1,
                         .rounds = 3,
                         .threads = 1,
                         .backend = "cpu",
                         .code = "i8",
                         .recalls = {0.9f, 0.95f, 0.99f},
                         .nrecalls = 3,
                         .seed = 1,
                         .seconds = 1};
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    o->build_threads = processors > 0 ? (uint32_t)processors : 1;
    int at = 0;
    for (int option; (option = getopt_long(argc, argv, "h", longs, &at)) != -1;) {
        if (option == 'h') {
            fputs(help, stdout);
            exit(0);
        }
        if (option == '?') return pd_fail(err, PD_INVALID_ARGUMENT, "see pados-bench --help");
        pd_status status = one(option, longs[at].name, o, err);
        if (status) return status;
    }
    if (optind < argc)
        return pd_fail(err, PD_INVALID_ARGUMENT, "argument \"%s\" is not an option", argv[optind]);
    if (o->generate_rows && (o->base || o->query || o->truth || o->calibration || o->ids))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "--generate makes its own rows and queries: it goes without files");
    if (!o->generate_rows && !(o->base && o->query) && !(o->ceilings && !o->base && !o->query))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "--base and --query, or --generate, are needed (see --help)");
    if (o->fused_attributes && (o->attributes || o->profile))
        return pd_fail(err, PD_INVALID_ARGUMENT, "--fused and --attributes or --profile exclude each other");
    if (o->profile && !(o->attributes && o->schema))
        return pd_fail(err, PD_INVALID_ARGUMENT, "--profile needs --attributes and --schema");
    return PD_OK;
}
