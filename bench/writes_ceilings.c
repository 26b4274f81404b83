/* pados-writes: what the machine needs at least for a batch, so that what Pados needs can be held against it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend.h"
#include "changes.h"
#include "writes.h"

#define RUNS 15u

typedef struct batch { /* a batch's bytes, as the log keeps them */
    size_t bytes;
    void *from, *to;
} batch;

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "pados-writes: %s: %s\n", what, why);
    return 1;
}

static double copy_time(const batch *b)
{
    double times[RUNS];
    for (uint32_t r = 0; r < RUNS; r++) {
        double start = writes_now();
        memcpy(b->to, b->from, b->bytes);
        __asm__ volatile("" : : "r"(b->to) : "memory");
        times[r] = 1e6 * (writes_now() - start);
    }
    return writes_median(times, RUNS);
}

/* Appending to a file of our own: no journal but the file system's. */
static int sync_time(const batch *b, const char *folder, double *out)
{
    char path[480];
    double times[RUNS];
    snprintf(path, sizeof path, "%s/sync", folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return complain(path, strerror(errno));
    int bad = 0;
    for (uint32_t r = 0; !bad && r < RUNS; r++) {
        double start = writes_now();
        bad = write(fd, b->from, b->bytes) != (ssize_t)b->bytes || fdatasync(fd) != 0;
        times[r] = 1e6 * (writes_now() - start);
    }
    if (bad) complain(path, strerror(errno));
    close(fd);
    unlink(path);
    *out = writes_median(times, RUNS);
    return bad;
}

static int log_time(const batch *b, const char *folder, double *out)
{
    char path[480];
    double times[RUNS];
    pd_error err;
    pd_changes *changes;
    snprintf(path, sizeof path, "%s/log", folder);
    pd_status status =
        pd_changes_open(&(pd_changes_options){.folder = path, .map_bytes = 1u << 30}, &changes, &err);
    if (status) return complain("the log", err.message);
    for (uint32_t r = 0; !status && r < RUNS; r++) {
        pd_record record = {.sequence = pd_changes_last(changes) + 1,
                            .kind = 1,
                            .table = WRITES_TABLE,
                            .bytes = b->from,
                            .length = b->bytes};
        snprintf(record.key, sizeof record.key, "key-%llu", (unsigned long long)record.sequence);
        double start = writes_now();
        status = pd_changes_append(changes, &record, 1, &err);
        times[r] = 1e6 * (writes_now() - start);
    }
    pd_changes_close(changes);
    if (status) return complain("the log", err.message);
    *out = writes_median(times, RUNS);
    return 0;
}

static int assign_time(const writes_options *o, const writes_data *d, writes_ceilings *out)
{
    double times[RUNS];
    pd_error err;
    pd_device *device;
    uint32_t nlist = 16, *lists = malloc(o->batch * sizeof *lists);
    while ((uint64_t)nlist * nlist < 4 * d->rows)
        nlist += 16;
    if (nlist > d->rows) nlist = (uint32_t)d->rows;
    out->nlist = nlist;
    const float *rows = d->base + (d->rows - o->batch) * d->dim;
    if (!lists || pd_device_open("cpu", &(pd_device_options){.threads = 1}, &device, &err))
        return complain("the device", lists ? err.message : "no memory");
    pd_status status = PD_OK;
    for (uint32_t r = 0; !status && r < RUNS; r++) {
        double start = writes_now();
        status = pd_device_assign(device, d->base, nlist, d->dim, rows, o->batch, lists, &err);
        times[r] = 1e6 * (writes_now() - start);
    }
    pd_device_close(device);
    free(lists);
    if (status) return complain("assigning", err.message);
    out->assign = writes_median(times, RUNS);
    return 0;
}

int writes_ceilings_measure(const writes_options *o, const writes_data *d, const char *folder,
                            writes_ceilings *out)
{
    batch b = {.bytes = o->batch * ((size_t)d->dim * sizeof(float) + 8)};
    *out = (writes_ceilings){0};
    b.from = malloc(b.bytes);
    b.to = malloc(b.bytes);
    int bad = !b.from || !b.to;
    if (!bad) {
        memset(b.from, 1, b.bytes);
        memset(b.to, 2, b.bytes);
        out->copy = copy_time(&b);
        bad = sync_time(&b, folder, &out->sync) || log_time(&b, folder, &out->log) || assign_time(o, d, out);
    }
    free(b.from);
    free(b.to);
    return bad;
}
