/* What pados-bench says: a table for people, JSON lines for bench/report.py and other machines. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct bench_report {
    const bench_options *options;
    const bench_data *data;
    const char *isa;
    FILE *json;
};

pd_status bench_report_open(const bench_options *o, bench_report **out, pd_error *err)
{
    bench_report *report = calloc(1, sizeof *report);
    if (!report) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the report");
    report->options = o;
    if (o->json && !(report->json = fopen(o->json, "a"))) {
        free(report);
        return pd_fail(err, PD_INVALID_ARGUMENT, "%s: %s", o->json, strerror(errno));
    }
    *out = report;
    return PD_OK;
}

void bench_report_subject(bench_report *report, const bench_data *data, const char *isa)
{
    report->data = data;
    report->isa = isa;
}

void bench_report_title(bench_report *report, const char *format, ...)
{
    (void)report;
    va_list args;
    va_start(args, format);
    printf("\n");
    vprintf(format, args);
    va_end(args);
    printf("\n%-22s %-18s %6s %6s %6s %8s %8s %11s %10s %10s %9s %9s %9s %9s %8s\n", "system", "setting",
           "spread", "batch", "target", "recall", "fused", "queries/s", "p50 us", "p99 us", "rows seen",
           "coarse us", "scan us", "refine us", "plan us");
    fflush(stdout);
}

static void cell(double value, int width, int decimals)
{
    if (value < 0)
        printf(" %*s", width, "-");
    else
        printf(" %*.*f", width, decimals, value);
}

void bench_report_row(bench_report *report, const bench_row *row)
{
    (void)report;
    printf("%-22s %-18s", row->system, row->setting);
    cell((double)row->spread, 6, 2);
    cell(row->batch, 6, 0);
    cell(row->target > 0 ? (double)row->target : -1, 6, 3);
    cell(row->recall, 8, 4);
    cell(row->fused_recall, 8, 4);
    cell(row->qps, 11, 0);
    cell(row->p50_us, 10, 0);
    cell(row->p99_us, 10, 0);
    cell(row->scanned, 9, 0);
    cell(row->coarse_us, 9, 2);
    cell(row->scan_us, 9, 2);
    cell(row->refine_us, 9, 2);
    cell(row->plan_us, 8, 2);
    printf("%s\n", row->reached ? "" : "  target not reached");
    fflush(stdout);
}

static void set_real(json_t *object, const char *key, double value)
{
    if (value >= 0) json_object_set_new(object, key, json_real(value));
}

static void write_line(bench_report *report, json_t *object)
{
    json_dumpf(object, report->json, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    fputc('\n', report->json);
    fflush(report->json);
    json_decref(object);
}

void bench_report_json(bench_report *report, const bench_row *row, uint32_t round)
{
    if (!report->json) return;
    const bench_data *d = report->data;
    const bench_options *o = report->options;
    json_t *object = json_object();
    json_object_set_new(object, "system", json_string(row->system));
    json_object_set_new(object, "setting", json_string(row->setting));
    json_object_set_new(object, "dataset", json_string(d->name));
    json_object_set_new(object, "rows", json_integer((json_int_t)d->rows));
    json_object_set_new(object, "dim", json_integer(d->dim));
    json_object_set_new(object, "metric", json_string(pd_metric_name(d->metric)));
    json_object_set_new(object, "k", json_integer(d->k));
    json_object_set_new(object, "batch", json_integer(row->batch));
    json_object_set_new(object, "threads", json_integer(o->threads));
    json_object_set_new(object, "queries", json_integer(d->nqueries));
    json_object_set_new(object, "backend", json_string(o->backend));
    json_object_set_new(object, "isa", json_string(report->isa));
    json_object_set_new(object, "code", json_string(o->code));
    json_object_set_new(object, "refine", json_string(row->refine));
    json_object_set_new(object, "nlist", json_integer(row->nlist));
    json_object_set_new(object, "code_dim", json_integer(row->code_dim));
    set_real(object, "nprobe", row->nprobe);
    json_object_set_new(object, "round", json_integer(round));
    if (row->spread >= 0) {
        json_object_set_new(object, "spread", json_real((double)row->spread));
        json_object_set_new(object, "attributes", json_integer(o->fused_attributes));
        json_object_set_new(object, "tie", json_real((double)o->fused_tie));
    }
    if (row->target > 0) {
        json_object_set_new(object, "recall_target", json_real((double)row->target));
        json_object_set_new(object, "reached", json_boolean(row->reached));
    }
    set_real(object, "recall", row->recall);
    set_real(object, "fused_recall", row->fused_recall);
    set_real(object, "qps", row->qps);
    set_real(object, "p50_us", row->p50_us);
    set_real(object, "p99_us", row->p99_us);
    set_real(object, "plan_us", row->plan_us);
    set_real(object, "coarse_us", row->coarse_us);
    set_real(object, "scan_us", row->scan_us);
    set_real(object, "refine_us", row->refine_us);
    set_real(object, "build_s", row->build_s);
    json_object_set_new(object, "build_threads", json_integer(o->build_threads));
    set_real(object, "bytes_per_row", row->bytes_per_row);
    set_real(object, "rows_scanned", row->scanned);
    write_line(report, object);
}

void bench_report_ceiling(bench_report *report, const char *what, const char *how, uint32_t threads,
                          double value, const char *unit)
{
    printf("machine: %-14s %-24s %3u thread%s %10.1f %s\n", what, how, threads, threads == 1 ? " " : "s",
           value, unit);
    if (!report->json) return;
    json_t *object = json_object();
    json_object_set_new(object, "system", json_string("machine"));
    json_object_set_new(object, "what", json_string(what));
    json_object_set_new(object, "how", json_string(how));
    json_object_set_new(object, "threads", json_integer(threads));
    json_object_set_new(object, "value", json_real(value));
    json_object_set_new(object, "unit", json_string(unit));
    write_line(report, object);
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
