/* pados-bench: see bench.h. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

static const bench_peer *const known[] = {&bench_faiss_ivf, &bench_faiss_ivfsq8, &bench_faiss_hnsw,
                                          &bench_hnswlib};

static pd_status find_peer(const char *name, const bench_peer **out, pd_error *err)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i]->name, name) == 0) {
            *out = known[i];
            return PD_OK;
        }
    return pd_fail(err, PD_INVALID_ARGUMENT,
                   "--peers %s: not one of faiss-ivf, faiss-ivfsq8, faiss-hnsw, hnswlib", name);
}

/* Every system's threads share the same first processors. */
static pd_status pin(uint32_t threads, pd_error *err)
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
        return pd_fail(err, PD_INVALID_ARGUMENT, "--threads %u: this machine has %u processors", threads,
                       found);
    if (sched_setaffinity(0, sizeof want, &want))
        return pd_fail(err, PD_INTERNAL, "threads cannot be pinned");
    return PD_OK;
}

static pd_status run_peers(const bench_options *options, const bench_data *data, bench_report *report,
                           pd_error *err)
{
    for (uint32_t i = 0; i < options->npeers; i++) {
        const bench_peer *peer = NULL;
        pd_status status = find_peer(options->peers[i], &peer, err);
        if (!status) status = bench_peer_run(peer, options, data, report, err);
        if (status) return status;
    }
    return PD_OK;
}

static pd_status run(const bench_options *options, pd_error *err)
{
    bench_data data;
    bench_pados *pados = NULL;
    bench_report *report = NULL;
    for (uint32_t i = 0; i < options->npeers; i++) {
        const bench_peer *peer = NULL;
        pd_status status = find_peer(options->peers[i], &peer, err);
        if (status) return status;
    }
    pd_status status = pin(options->threads, err);
    if (status) return status;
    if ((status = bench_data_open(options, &data, err))) return status;
    printf("%s: %llu rows x %u, %u queries, metric %s, k %u, batch %u, %u thread%s\n", data.name,
           (unsigned long long)data.rows, data.dim, data.nqueries, pd_metric_name(data.metric), data.k,
           options->batch, options->threads, options->threads == 1 ? "" : "s");
    status = bench_truth_read(options, &data, err);
    if (!status) status = bench_pados_open(options, &data, &pados, err);
    if (!status) status = bench_report_open(options, &data, bench_pados_isa(pados), &report, err);
    if (!status) status = bench_pados_run(pados, report, err);
    if (!status) status = bench_fused_run(pados, report, err);
    if (!status && options->check) status = bench_pados_check(pados, report, err);
    bench_pados_close(pados);
    if (!status) status = run_peers(options, &data, report, err);
    if (report) {
        pd_error late;
        pd_status closed = bench_report_close(report, &late);
        if (closed && !status) {
            status = closed;
            *err = late;
        }
    }
    bench_data_close(&data);
    return status;
}

int main(int argc, char **argv)
{
    bench_options options;
    pd_error err = {0};
    pd_status status = bench_options_parse(argc, argv, &options, &err);
    int usage = status != PD_OK;
    if (!status) status = run(&options, &err);
    if (!status) return 0;
    fprintf(stderr, "pados-bench: %s: %s\n", pd_status_name(status), err.message);
    return usage ? 2 : 1;
}
