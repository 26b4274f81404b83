/* pados-bench's arguments. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

static const char help[] =
    "pados-bench: recall against throughput, for Pados and its peers, on the same data in the same run\n"
    "\n"
    "  pados-bench --base FILE --query FILE [OPTION]...\n"
    "\n"
    "data     --base FILE --query FILE   .npy .fbin .u8bin .i8bin .fvecs .bvecs, HDF5 (FILE#train), FAISS\n"
    "         --truth FILE               exact neighbours (.ivecs .ibin .npy HDF5#neighbors); computed where "
    "absent\n"
    "         --ids FILE                 row ids, where attributes name them (default: 0, 1, 2, ...)\n"
    "         --format F                 of the base file, where content and extension do not tell\n"
    "         --calibration FILE         queries for the recall promise (default: the first 2,500 queries, "
    "which are\n"
    "                                    then not measured; rows of the base where there are under 5,000 "
    "queries)\n"
    "         --dataset NAME  --queries N (measure at most N)\n"
    "question --metric ip|cosine|l2 (l2)  --k K (10)  --batch B (1024)  --recall R,R,... (0.9,0.95,0.99)\n"
    "machine  --threads T (1)  --backend cpu|reference|cuda|auto (cpu)  --isa I  --seconds S (1)\n"
    "index    --nlist N  --code i8|f16|f32 (i8)  --refine none|f16|f32 (f16)  --seed S  --work FOLDER\n"
    "context  --fused FxV:SPREAD[:TIE]   F random attributes of V values, per-query weights of that spread; "
    "with\n"
    "                                    probability TIE a row's value follows its list. Also over-fetches "
    "and re-ranks\n"
    "         --attributes FILE.csv --schema FILE --profile FILE --contexts FILE.csv   a real profile "
    "instead\n"
    "peers    --peers faiss-ivf,faiss-ivfsq8,faiss-hnsw,hnswlib\n"
    "output   --json FILE (one object a line, appended)  --check (results must not depend on batch or "
    "threads)\n";

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

static pd_status peers(char *text, bench_options *o, pd_error *err)
{
    for (char *save, *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        if (o->npeers == BENCH_MAX_PEERS)
            return pd_fail(err, PD_INVALID_ARGUMENT, "--peers: more than %d", BENCH_MAX_PEERS);
        o->peers[o->npeers++] = part;
    }
    return PD_OK;
}

static pd_status fused(const char *text, bench_options *o, pd_error *err)
{
    int used = 0;
    unsigned attributes = 0, values = 0;
    float spread = 0, tie = 0;
    int got = sscanf(text, "%ux%u:%f%n:%f%n", &attributes, &values, &spread, &used, &tie, &used);
    if (got < 3 || text[used] || attributes < 1 || attributes > 16 || values < 2 || values > 254 ||
        !(spread >= 0) || !(tie >= 0 && tie <= 1))
        return pd_fail(
            err, PD_INVALID_ARGUMENT,
            "--fused %s: wants FxV:SPREAD[:TIE], for instance 4x32:0.5 (F 1..16, V 2..254, TIE 0..1)", text);
    o->fused_attributes = attributes;
    o->fused_values = values;
    o->fused_spread = spread;
    o->fused_tie = tie;
    return PD_OK;
}

enum {
    BASE = 256,
    QUERY,
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
    BACKEND,
    ISA,
    SECONDS,
    NLIST,
    CODE,
    REFINE,
    SEED,
    WORK,
    FUSED,
    ATTRIBUTES,
    SCHEMA,
    PROFILE,
    CONTEXTS,
    PEERS,
    JSON,
    CHECK
};

static const struct option longs[] = {{"base", 1, 0, BASE},
                                      {"query", 1, 0, QUERY},
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
                                      {"backend", 1, 0, BACKEND},
                                      {"isa", 1, 0, ISA},
                                      {"seconds", 1, 0, SECONDS},
                                      {"nlist", 1, 0, NLIST},
                                      {"code", 1, 0, CODE},
                                      {"refine", 1, 0, REFINE},
                                      {"seed", 1, 0, SEED},
                                      {"work", 1, 0, WORK},
                                      {"fused", 1, 0, FUSED},
                                      {"attributes", 1, 0, ATTRIBUTES},
                                      {"schema", 1, 0, SCHEMA},
                                      {"profile", 1, 0, PROFILE},
                                      {"contexts", 1, 0, CONTEXTS},
                                      {"peers", 1, 0, PEERS},
                                      {"json", 1, 0, JSON},
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
                 {BATCH, &o->batch, 1, 1e6},
                 {THREADS, &o->threads, 1, 1024},
                 {NLIST, &o->nlist, 1, 1e7}};
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
    case PEERS:
        return peers(optarg, o, err);
    case JSON:
        o->json = optarg;
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
                         .batch = 1024,
                         .threads = 1,
                         .backend = "cpu",
                         .code = "i8",
                         .refine = "f16",
                         .recalls = {0.9f, 0.95f, 0.99f},
                         .nrecalls = 3,
                         .seed = 1,
                         .seconds = 1};
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
    if (!o->base || !o->query)
        return pd_fail(err, PD_INVALID_ARGUMENT, "--base and --query are needed (see --help)");
    if (o->fused_attributes && (o->attributes || o->profile))
        return pd_fail(err, PD_INVALID_ARGUMENT, "--fused and --attributes or --profile exclude each other");
    if (o->profile && !(o->attributes && o->schema))
        return pd_fail(err, PD_INVALID_ARGUMENT, "--profile needs --attributes and --schema");
    return PD_OK;
}
