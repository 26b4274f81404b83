/* The report: a table for people, JSON lines for machines. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct bench_report {
    const bench_options *options;
    const bench_data *data;
    char isa[64];
    FILE *json;
};

pd_status bench_report_open(const bench_options *o, const bench_data *data, const char *isa,
                            bench_report **out, pd_error *err)
{
    bench_report *report = calloc(1, sizeof *report);
    if (!report) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the report");
    report->options = o;
    report->data = data;
    snprintf(report->isa, sizeof report->isa, "%s", isa);
    if (o->json && !(report->json = fopen(o->json, "a"))) {
        free(report);
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %s", o->json, strerror(errno));
    }
    *out = report;
    return PD_OK;
}

void bench_report_title(bench_report *report, const char *format, ...)
{
    (void)report;
    va_list args;
    va_start(args, format);
    printf("\n");
    vprintf(format, args);
    va_end(args);
    printf("\n%-22s %-18s %7s %8s %8s %12s %10s %10s %9s %9s %11s\n", "system", "setting", "target", "recall",
           "fused", "queries/s", "p50 us", "p99 us", "build s", "bytes/row", "rows seen");
    fflush(stdout);
}

static void cell(double value, int width, int decimals)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

static void set_real(json_t *object, const char *key, double value)
{
    if (value >= 0) json_object_set_new(object, key, json_real(value));
}

static void json_row(const bench_report *report, const bench_row *row)
{
    const bench_data *d = report->data;
    const bench_options *o = report->options;
    int ours = strncmp(row->system, "pados", 5) == 0;
    json_t *object = json_object();
    json_object_set_new(object, "system", json_string(row->system));
    json_object_set_new(object, "setting", json_string(row->setting));
    json_object_set_new(object, "dataset", json_string(d->name));
    json_object_set_new(object, "rows", json_integer((json_int_t)d->rows));
    json_object_set_new(object, "dim", json_integer(d->dim));
    json_object_set_new(object, "metric", json_string(pd_metric_name(d->metric)));
    json_object_set_new(object, "k", json_integer(d->k));
    json_object_set_new(object, "batch", json_integer(o->batch));
    json_object_set_new(object, "threads", json_integer(o->threads));
    json_object_set_new(object, "queries", json_integer(d->nqueries));
    json_object_set_new(object, "backend", json_string(ours ? o->backend : "cpu"));
    json_object_set_new(object, "isa", json_string(ours ? report->isa : ""));
    if (o->fused_attributes) {
        json_object_set_new(object, "spread", json_real(o->fused_spread));
        json_object_set_new(object, "tie", json_real(o->fused_tie));
    }
    if (row->target > 0) json_object_set_new(object, "recall_target", json_real(row->target));
    json_object_set_new(object, "reached", json_boolean(row->reached));
    set_real(object, "recall", row->recall);
    set_real(object, "fused_recall", row->fused_recall);
    set_real(object, "qps", row->qps);
    set_real(object, "p50_us", row->p50_us);
    set_real(object, "p99_us", row->p99_us);
    set_real(object, "build_s", row->build_s);
    set_real(object, "bytes_per_row", row->bytes_per_row);
    set_real(object, "rows_scanned", row->scanned);
    json_dumpf(object, report->json, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    fputc('\n', report->json);
    json_decref(object);
}

void bench_report_row(bench_report *report, const bench_row *row)
{
    printf("%-22s %-18s", row->system, row->setting);
    cell(row->target > 0 ? row->target : -1, 7, 3);
    cell(row->recall, 8, 4);
    cell(row->fused_recall, 8, 4);
    cell(row->qps, 12, 0);
    cell(row->p50_us, 10, 0);
    cell(row->p99_us, 10, 0);
    cell(row->build_s, 9, 1);
    cell(row->bytes_per_row, 9, 0);
    cell(row->scanned, 11, 0);
    printf("%s\n", row->reached ? "" : "  target not reached");
    fflush(stdout);
    if (report->json) json_row(report, row);
}

pd_status bench_report_close(bench_report *report, pd_error *err)
{
    pd_status status = PD_OK;
    if (report->json) {
        int bad = ferror(report->json);
        if (fclose(report->json) || bad)
            status = pd_fail(err, PD_DATA_LOSS, "%s could not be written", report->options->json);
    }
    free(report);
    return status;
}
