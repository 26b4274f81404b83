/* Pados as a system under test: the very build, plan and search that padosd uses, without a server. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "system_pados.h"

static int quiet(void *context, const char *stage, uint64_t done, uint64_t total)
{
    (void)context;
    static char last[32];
    static double since, said;
    if (!isatty(STDERR_FILENO)) return 0;
    double now = bench_now();
    if (strncmp(last, stage, sizeof last - 1) != 0) {
        snprintf(last, sizeof last, "%s", stage);
        since = now;
    }
    if (now - said < 0.2 && done < total) return 0;
    said = now;
    double rate = now > since ? (double)done / (now - since) : 0;
    fprintf(stderr, "\r%-10s %3.0f%%  %.0f/s  ETA %.0f s    ", stage,
            total ? 100.0 * (double)done / (double)total : 100.0, rate,
            rate > 0 ? (double)(total - done) / rate : 0.0);
    if (done >= total) fprintf(stderr, "\r%60s\r", "");
    return 0;
}

static pd_status make_schema(bench_pados *p, pd_error *err)
{
    const bench_options *o = p->options;
    char text[4096];
    int at = 0;
    if (o->schema) {
        FILE *file = fopen(o->schema, "r");
        if (!file) return pd_fail(err, PD_NOT_FOUND, "%s: %s", o->schema, strerror(errno));
        size_t got = fread(text, 1, sizeof text, file);
        fclose(file);
        if (got == sizeof text)
            return pd_fail(err, PD_INVALID_ARGUMENT, "%s: a schema of over 4 KiB", o->schema);
        pd_status status = pd_schema_parse(o->schema, text, got, &p->schema, err);
        if (!status) p->schema->metric = o->metric;
        return status;
    }
    /* As a push of the file would. */
    const char *refine = o->refine;
    int whole = p->data->dtype == PD_DTYPE_I8 || p->data->dtype == PD_DTYPE_U8;
    if (!refine && whole && o->metric != PD_COSINE) refine = pd_dtype_name(p->data->dtype);
    at = snprintf(text, sizeof text,
                  "table = { metric = \"%s\"; dim = %u; code = \"%s\"; code_dim = %u; %s%s%s attributes = (",
                  pd_metric_name(o->metric), p->data->dim, o->code, o->code_dim, refine ? "refine = \"" : "",
                  refine ? refine : "", refine ? "\";" : "");
    for (uint32_t f = 0; f < o->fused_attributes; f++)
        at += snprintf(text + at, sizeof text - (size_t)at, "%s { name = \"a%u\"; type = \"category\"; }",
                       f ? "," : "", f);
    snprintf(text + at, sizeof text - (size_t)at, " ); };");
    return pd_schema_parse("pados-bench's schema", text, strlen(text), &p->schema, err);
}

/* One build into folder/NAME, with or without attributes. */
static pd_status build(bench_pados *p, const char *name, const char *attributes, pd_error *err)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", p->folder, name);
    pd_build_input input = {.table = "bench",
                            .version = 1,
                            .rows = p->data->base,
                            .dtype = PD_DTYPE_F32,
                            .count = p->data->rows,
                            .ids = p->data->ids,
                            .dim = p->data->dim,
                            .attributes = attributes,
                            .schema = p->schema,
                            .nlist = p->options->nlist,
                            .seed = p->options->seed};
    double start = bench_now();
    pd_status status = pd_build(&input, path, p->builder, quiet, NULL, err);
    p->build_s = bench_now() - start;
    return status ? status : pd_version_open(path, &p->version, err);
}

/* Rows to lists of the version just built, for attributes that follow the lists. */
static pd_status row_lists(bench_pados *p, uint32_t **out, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    uint32_t *lists = malloc((info->rows ? info->rows : 1) * sizeof *lists);
    pd_resident *resident = NULL;
    if (!lists) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the rows' lists");
    pd_status status = pd_resident_open(p->version, p->device, 0, &resident, err);
    for (uint64_t i = 0; !status && i < info->rows; i++) {
        uint32_t slot = pd_resident_slot(resident, p->data->ids ? p->data->ids[i] : i);
        if (slot == PD_NO_SLOT)
            status = pd_fail(err, PD_INTERNAL, "row %llu was not built", (unsigned long long)i);
        else
            lists[i] = info->page_list[slot / PD_PAGE_ROWS];
    }
    pd_resident_close(resident);
    if (status)
        free(lists);
    else
        *out = lists;
    return status;
}

static pd_status open_device(bench_pados *p, pd_error *err)
{
    const pd_version_info *info = pd_version_info_of(p->version);
    pd_index_spec spec = {.shape = info->shape, .npages = info->npages, .name = "bench"};
    pd_device_options device = {.memory = pd_index_bytes(&spec) + (64u << 20),
                                .threads = p->options->threads,
                                .isa = p->options->isa};
    /* Whatever was built on all processors: what is measured runs on its own. */
    pd_status status = bench_pin(p->options->threads, err);
    if (!status) status = pd_device_open(p->options->backend, &device, &p->device, err);
    if (status) return status;
    pd_device_info about;
    pd_device_info_of(p->device, &about);
    snprintf(p->isa, sizeof p->isa, "%s", about.isa);
    return PD_OK;
}

static pd_status build_all(bench_pados *p, pd_error *err)
{
    char attributes[300] = "";
    uint32_t *lists = NULL;
    pd_status status = PD_OK;
    if (p->options->fused_tie > 0) {
        /* Values can only follow lists that are known: build once without them; the seed makes the lists come again. */
        status = build(p, "plain", NULL, err);
        if (!status) status = open_device(p, err);
        if (!status) status = row_lists(p, &lists, err);
        pd_device_close(p->device);
        p->device = NULL;
        pd_version_close(p->version);
        p->version = NULL;
    }
    if (!status) status = bench_attributes(p, lists, attributes, sizeof attributes, err);
    free(lists);
    if (!status) status = build(p, "v1", *attributes ? attributes : NULL, err);
    return status ? status : open_device(p, err);
}

static pd_status through(void *context, const pd_query *queries, uint32_t count, pd_answer *answers,
                         pd_error *err)
{
    return pd_index_search(context, queries, count, answers, NULL, err);
}

/* Loads and calibrates. */
static pd_status calibrate(bench_pados *p, pd_error *err)
{
    pd_status status = pd_resident_open(p->version, p->device, 0, &p->resident, err);
    if (status) return status;
    pd_calibrate_input input = {.version = p->version,
                                .resident = p->resident,
                                .queries = p->data->calibration,
                                .count = p->data->ncalibration,
                                .source = p->data->calibration ? "queries" : "held-out rows",
                                .device = p->builder,
                                .search = through,
                                .search_context = pd_resident_index(p->resident),
                                .seed = p->options->seed};
    pd_calibration *curves = calloc(1, sizeof *curves);
    if (!curves) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the calibration");
    double start = bench_now();
    status = pd_calibrate(&input, curves, quiet, NULL, err);
    p->calibrate_s = bench_now() - start;
    if (!status) status = pd_version_adopt_calibration(p->version, curves, err);
    free(curves);
    return status;
}

static const uint64_t *sorted_by;

static int by_id(const void *a, const void *b)
{
    uint64_t x = sorted_by[*(const uint32_t *)a], y = sorted_by[*(const uint32_t *)b];
    return (x > y) - (x < y);
}

static pd_status order_ids(bench_pados *p, pd_error *err)
{
    if (!p->data->ids) return PD_OK;
    p->by_id = malloc((p->data->rows ? p->data->rows : 1) * sizeof *p->by_id);
    if (!p->by_id) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the ids");
    for (uint64_t i = 0; i < p->data->rows; i++)
        p->by_id[i] = (uint32_t)i;
    sorted_by = p->data->ids;
    qsort(p->by_id, p->data->rows, sizeof *p->by_id, by_id);
    return PD_OK;
}

static pd_status make_folder(bench_pados *p, pd_error *err)
{
    if (p->options->work) {
        snprintf(p->folder, sizeof p->folder, "%s", p->options->work);
        return PD_OK;
    }
    const char *base = getenv("TMPDIR");
    snprintf(p->folder, sizeof p->folder, "%s/pados-bench-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(p->folder)) return pd_fail(err, PD_UNAVAILABLE, "%s: %s", p->folder, strerror(errno));
    p->own_folder = 1;
    return PD_OK;
}

pd_status bench_pados_open(const bench_options *options, bench_data *data, bench_pados **out, pd_error *err)
{
    bench_pados *p = calloc(1, sizeof *p);
    if (!p) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the bench");
    p->options = options;
    p->data = data;
    pd_device_options builder = {.threads = options->build_threads};
    pd_status status = make_folder(p, err);
    if (!status) status = pd_device_open("cpu", &builder, &p->builder, err);
    if (!status) status = order_ids(p, err);
    if (!status) status = make_schema(p, err);
    if (!status) status = build_all(p, err);
    if (!status && !options->export) { /* The version has them: a large table is not held twice. */
        free(data->base);
        data->base = NULL;
    }
    if (!status) status = calibrate(p, err);
    if (!status) status = bench_contexts_open(p, err);
    if (!status && !data->truth) {
        double start = bench_now();
        status = bench_exact(p, NULL, &data->truth, err);
        p->truth_s = bench_now() - start;
    }
    if (status)
        bench_pados_close(p);
    else
        *out = p;
    return status;
}

const char *bench_pados_isa(const bench_pados *pados)
{
    return pados->isa;
}

void bench_pados_close(bench_pados *p)
{
    if (!p) return;
    for (uint32_t i = 0; i < p->ncases; i++)
        free(p->cases[i]);
    for (uint32_t i = 0; i < p->nasks; i++)
        bench_ask_close(p->asks[i]);
    bench_contexts_close(p);
    free(p->by_id);
    pd_resident_close(p->resident);
    pd_version_close(p->version);
    pd_schema_free(p->schema);
    pd_device_close(p->device);
    pd_device_close(p->builder);
    if (p->own_folder) {
        char path[300];
        const char *names[] = {"plain", "v1"};
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s/%s", p->folder, names[i]);
            if (access(path, F_OK) == 0) pd_folder_remove(path, NULL);
        }
        snprintf(path, sizeof path, "%s/attributes.csv", p->folder);
        unlink(path);
        rmdir(p->folder);
    }
    free(p);
}

/* The same version on a device with another number of threads. */
static pd_status other_threads(bench_pados *p, pd_error *err)
{
    pd_device_info info;
    pd_device_info_of(p->device, &info);
    pd_resident_close(p->resident);
    p->resident = NULL;
    pd_device_close(p->device);
    p->device = NULL;
    pd_device_options options = {
        .memory = info.memory, .threads = info.threads == 1 ? 2 : 1, .isa = p->options->isa};
    pd_status status = pd_device_open(p->options->backend, &options, &p->device, err);
    return status ? status : pd_resident_open(p->version, p->device, 0, &p->resident, err);
}

static int same(const pd_answer *a, const pd_answer *b)
{
    int equal = a->count == b->count;
    for (uint32_t i = 0; equal && i < a->count; i++)
        equal = a->hits[i].id == b->hits[i].id &&
                memcmp(&a->hits[i].score, &b->hits[i].score, sizeof(float)) == 0;
    return equal;
}

/* The same hits, to the bit, however the queries are batched and on however many threads. */
pd_status bench_pados_check(bench_pados *p, pd_error *err)
{
    const bench_data *d = p->data;
    const uint32_t sizes[] = {1, 7, 256};
    uint32_t count = d->nqueries < 1000 ? d->nqueries : 1000;
    bench_ask *ask;
    bench_batch whole, part;
    pd_status status = bench_ask_open(p, p->ncontexts ? p->contexts : NULL, count, d->k, 0.95f, &ask, err);
    if (status) return status;
    if ((status = bench_batch_open(ask, count, &whole, err))) goto done_after_ask;
    if ((status = bench_batch_open(ask, 256, &part, err))) goto done_after_whole;
    bench_batch_fill(&whole, ask, 0, count);
    status = pd_index_search(pd_resident_index(p->resident), whole.queries, count, whole.answers, NULL, err);
    for (int pass = 0; !status && pass < 6; pass++) {
        if (pass == 3) status = other_threads(p, err);
        uint32_t size = sizes[pass % 3];
        for (uint32_t at = 0; !status && at < count; at += size) {
            uint32_t n = count - at < size ? count - at : size;
            bench_batch_fill(&part, ask, at, n);
            status =
                pd_index_search(pd_resident_index(p->resident), part.queries, n, part.answers, NULL, err);
            for (uint32_t q = 0; !status && q < n; q++)
                if (!same(&whole.answers[at + q], &part.answers[q]))
                    status = pd_fail(err, PD_INTERNAL, "query %u differs at batch %u%s", at + q, size,
                                     pass < 3 ? "" : " on another number of threads");
        }
    }
    if (!status)
        printf("\nchecked: %u queries give the same bits at batch 1, 7, 256 and whole, on 1 and 2 threads\n",
               count);
    bench_batch_close(&part);
done_after_whole:
    bench_batch_close(&whole);
done_after_ask:
    bench_ask_close(ask);
    return status;
}
