/* pados-bench: see bench.h. */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

pd_status bench_pin(uint32_t threads, pd_error *err)
{
    cpu_set_t have, want;
    CPU_ZERO(&want);
    if (sched_getaffinity(0, sizeof have, &have))
        return pd_fail(err, PD_INTERNAL, "the processors cannot be told");
    uint32_t found = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < threads; cpu++)
        if (CPU_ISSET(cpu, &have)) {
            CPU_SET(cpu, &want);
            found++;
        }
    if (found < threads)
        return pd_fail(err, PD_INVALID_ARGUMENT, "--threads %u: this process has %u processors", threads,
                       found);
    if (sched_setaffinity(0, sizeof want, &want))
        return pd_fail(err, PD_INTERNAL, "threads cannot be pinned");
    return PD_OK;
}

static pd_status measure(const bench_options *options, bench_report *report, pd_error *err)
{
    bench_data data;
    bench_pados *pados = NULL;
    pd_status status = bench_data_open(options, &data, err);
    if (status) return status;
    printf("%s: %llu rows x %u, %u queries, metric %s, k %u, %u thread%s\n", data.name,
           (unsigned long long)data.rows, data.dim, data.nqueries, pd_metric_name(data.metric), data.k,
           options->threads, options->threads == 1 ? "" : "s");
    fflush(stdout);
    status = bench_truth_read(options, &data, err);
    if (!status) status = bench_pados_open(options, &data, &pados, err);
    if (!status) {
        bench_report_subject(report, &data, bench_pados_isa(pados));
        status = bench_pados_prepare(pados, err);
    }
    if (!status && options->export) status = bench_pados_export(pados, options->export, err);
    if (!status) status = bench_pados_measure(pados, report, err);
    if (!status && options->check) status = bench_pados_check(pados, err);
    bench_pados_close(pados);
    bench_data_close(&data);
    return status;
}

static pd_status run(const bench_options *options, pd_error *err)
{
    if (options->plan) return bench_plan(options, err);
    bench_report *report;
    pd_status status = bench_report_open(options, &report, err);
    if (status) return status;
    if (options->ceilings) status = bench_ceilings(report, err);
    if (!status && (options->base || options->generate_rows)) status = measure(options, report, err);
    pd_error late;
    pd_status closed = bench_report_close(report, &late);
    if (closed && !status) {
        status = closed;
        *err = late;
    }
    return status;
}

/* --on-device: rows are made, built and searched on the device, by the program beside this one that can make them there; it takes the
 * other arguments as they stand. Returns where that is not asked for (OK) or there is none. */
static pd_status hand_over(int argc, char **argv, pd_error *err)
{
    static const char name[] = "pados-gpu-scale";
    char path[PATH_MAX];
    int at = 1;
    while (at < argc && strcmp(argv[at], "--on-device") != 0)
        at++;
    if (at >= argc) return PD_OK;
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - sizeof name);
    char *slash = length > 0 ? memrchr(path, '/', (size_t)length) : NULL;
    if (!slash) return pd_fail(err, PD_INTERNAL, "the folder of this program cannot be told");
    memcpy(slash + 1, name, sizeof name);
    memmove(argv + at, argv + at + 1, (size_t)(argc - at) * sizeof *argv);
    execv(path, argv);
    return pd_fail(err, PD_UNAVAILABLE, "--on-device: %s: %s (a build without the CUDA toolkit has none)",
                   path, strerror(errno));
}

int main(int argc, char **argv)
{
    bench_options options;
    pd_error err = {0};
    int usage = 0;
    pd_status status = hand_over(argc, argv, &err);
    if (!status) {
        status = bench_options_parse(argc, argv, &options, &err);
        usage = status != PD_OK;
    }
    if (!status) status = run(&options, &err);
    if (!status) return 0;
    fprintf(stderr, "pados-bench: %s: %s\n", pd_status_name(status), err.message);
    return usage ? 2 : 1;
}
