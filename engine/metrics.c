/* Counters and histograms. Bounds are fixed, so that observing is two relaxed additions: no lock, no allocation. */
#include "metrics.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "status.h"

static const uint32_t us_bounds[PD_HISTOGRAM_BOUNDS] = {50,     100,     250,     500,     1000,   2500,
                                                        5000,   10000,   25000,   50000,   100000, 250000,
                                                        500000, 1000000, 2500000, 10000000};

void pd_text_add(pd_text *text, const char *format, ...)
{
    if (text->failed) return;
    for (;;) {
        size_t left = text->room - text->length;
        va_list args;
        va_start(args, format);
        int need = vsnprintf(text->bytes ? text->bytes + text->length : NULL, left, format, args);
        va_end(args);
        if (need < 0) break;
        if ((size_t)need < left) {
            text->length += (size_t)need;
            return;
        }
        size_t room = text->room * 2 + (size_t)need + 1024;
        char *bytes = realloc(text->bytes, room);
        if (!bytes) break;
        text->bytes = bytes;
        text->room = room;
    }
    text->failed = 1;
}

void pd_count(atomic_uint_fast64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static uint64_t value(atomic_uint_fast64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void pd_observe_us(pd_histogram *histogram, uint64_t us)
{
    int at = 0;
    while (at < PD_HISTOGRAM_BOUNDS && us > us_bounds[at])
        at++;
    pd_count(&histogram->counts[at], 1);
    pd_count(&histogram->sum, us);
}

void pd_observe_size(pd_histogram *histogram, uint64_t size)
{
    int at = 0;
    while (at < PD_HISTOGRAM_BOUNDS && size > (uint64_t)1 << at)
        at++;
    pd_count(&histogram->counts[at], 1);
    pd_count(&histogram->sum, size);
}

static void head(pd_text *text, const char *name, const char *kind, const char *help)
{
    pd_text_add(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
}

/* seconds: bounds and sum are microseconds and are told in seconds; else bounds are powers of two. */
static void histogram_text(pd_text *text, const char *name, const char *label, pd_histogram *histogram,
                           int seconds)
{
    const char *comma = *label ? "," : "";
    uint64_t total = 0;
    for (int i = 0; i < PD_HISTOGRAM_BOUNDS; i++) {
        total += value(&histogram->counts[i]);
        double bound = seconds ? us_bounds[i] / 1e6 : (double)((uint64_t)1 << i);
        pd_text_add(text, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, label, comma, bound,
                    (unsigned long long)total);
    }
    total += value(&histogram->counts[PD_HISTOGRAM_BOUNDS]);
    double sum = seconds ? (double)value(&histogram->sum) / 1e6 : (double)value(&histogram->sum);
    const char *open = *label ? "{" : "", *close = *label ? "}" : "";
    pd_text_add(text, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, label, comma, (unsigned long long)total);
    pd_text_add(text, "%s_sum%s%s%s %.9g\n", name, open, label, close, sum);
    pd_text_add(text, "%s_count%s%s%s %llu\n", name, open, label, close, (unsigned long long)total);
}

static void one(pd_text *text, const char *name, const char *kind, const char *help, uint64_t count)
{
    head(text, name, kind, help);
    pd_text_add(text, "%s %llu\n", name, (unsigned long long)count);
}

static void requests_text(pd_metrics *m, pd_text *text)
{
    static const char *const ports[PD_PORTS] = {"data", "admin"};
    head(text, "pados_requests_total", "counter", "Requests answered, by listener and status.");
    for (int p = 0; p < PD_PORTS; p++)
        for (int s = 0; s < 17; s++)
            if (s == 0 || value(&m->requests[p][s]))
                pd_text_add(text, "pados_requests_total{listener=\"%s\",status=\"%s\"} %llu\n", ports[p],
                            pd_status_name((pd_status)s), (unsigned long long)value(&m->requests[p][s]));
    static const struct {
        const char *name, *kind, *help;
        size_t offset;
    } each[] = {
        {"pados_pipes", "gauge", "Open connections.", offsetof(pd_metrics, pipes)},
        {"pados_pipes_closed_total", "counter",
         "Connections closed for unread replies or too many requests in flight.",
         offsetof(pd_metrics, pipes_closed)},
        {"pados_received_bytes_total", "counter", "Bytes of requests.", offsetof(pd_metrics, bytes_in)},
        {"pados_sent_bytes_total", "counter", "Bytes of replies.", offsetof(pd_metrics, bytes_out)},
    };
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
        atomic_uint_fast64_t *counters = (atomic_uint_fast64_t *)(void *)((char *)m + each[i].offset);
        head(text, each[i].name, each[i].kind, each[i].help);
        for (int p = 0; p < PD_PORTS; p++)
            pd_text_add(text, "%s{listener=\"%s\"} %llu\n", each[i].name, ports[p],
                        (unsigned long long)value(&counters[p]));
    }
}

static void rejected_text(pd_metrics *m, pd_text *text)
{
    static const char *const reasons[PD_REJECTS] = {"queue", "memory",    "pipe",
                                                    "token", "malformed", "stopping"};
    head(text, "pados_rejected_total", "counter", "Requests turned away before any work, by reason.");
    for (int r = 0; r < PD_REJECTS; r++)
        pd_text_add(text, "pados_rejected_total{reason=\"%s\"} %llu\n", reasons[r],
                    (unsigned long long)value(&m->rejected[r]));
}

static void stages_text(pd_metrics *m, pd_text *text)
{
    static const char *const stages[PD_STAGES] = {"decode", "queue",  "resolve", "coarse", "scan",
                                                  "refine", "finish", "encode",  "total"};
    head(text, "pados_stage_seconds", "histogram", "Time of a search by stage.");
    for (int s = 0; s < PD_STAGES; s++) {
        char label[40];
        snprintf(label, sizeof label, "stage=\"%s\"", stages[s]);
        histogram_text(text, "pados_stage_seconds", label, &m->stages[s], 1);
    }
    head(text, "pados_slice_queries", "histogram", "Queries of a slice.");
    histogram_text(text, "pados_slice_queries", "", &m->batches, 0);
    head(text, "pados_write_seconds", "histogram",
         "Time of a batch of changes, from its arrival to its answer.");
    histogram_text(text, "pados_write_seconds", "", &m->write_time, 1);
}

static void process_text(pd_text *text)
{
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%lu %lu", &total, &resident) != 2) total = resident = 0;
        fclose(file);
    }
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    one(text, "process_virtual_memory_bytes", "gauge", "Virtual memory.", total * page);
    one(text, "process_resident_memory_bytes", "gauge", "Resident memory.", resident * page);
}

void pd_metrics_text(pd_metrics *m, pd_text *text)
{
    static const char *const rungs[4] = {"given", "row", "segment", "attributes"};
    requests_text(m, text);
    rejected_text(m, text);
    one(text, "pados_queries_total", "counter", "Queries answered.", value(&m->queries));
    one(text, "pados_hits_total", "counter", "Hits returned.", value(&m->hits));
    one(text, "pados_scanned_rows_total", "counter", "Rows whose code was looked at.", value(&m->scanned));
    one(text, "pados_slices_total", "counter", "Slices run for searches.", value(&m->slices));
    one(text, "pados_background_slices_total", "counter", "Slices run for calibration and comparison.",
        value(&m->background_slices));
    head(text, "pados_rungs_total", "counter", "Queries by how they were found.");
    for (int r = 0; r < 4; r++)
        pd_text_add(text, "pados_rungs_total{rung=\"%s\"} %llu\n", rungs[r],
                    (unsigned long long)value(&m->rungs[r]));
    one(text, "pados_written_rows_total", "counter", "Rows that changes touched.", value(&m->written_rows));
    head(text, "pados_reloads_total", "counter", "Reloads of the configuration, by result.");
    for (int r = 0; r < PD_RELOADS; r++)
        pd_text_add(text, "pados_reloads_total{result=\"%s\"} %llu\n",
                    r == PD_RELOAD_DONE ? "done" : "refused", (unsigned long long)value(&m->reloads[r]));
    stages_text(m, text);
    process_text(text);
}
