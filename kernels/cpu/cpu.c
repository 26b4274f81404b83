/* The cpu backend's device and table of functions. Its one exported symbol is pd_backend_cpu. */
#include "cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_THREADS 1024u

static pd_status cpu_open(const pd_device_options *options, pd_device **out, pd_error *err)
{
    const pd_cpu_ops *ops = NULL;
    const pd_cpu_i8 *i8 = NULL;
    if (!pd_cpu_ops_find(options->isa, &ops, &i8))
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "isa \"%s\" is not portable, avx2, avx512 or amx, or this machine does not have it",
                       options->isa);
    uint32_t threads = options->threads;
    if (threads == 0) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        threads = online > 0 && online < (long)MOST_THREADS ? (uint32_t)online : 1;
    }
    if (threads > MOST_THREADS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "%u threads, at most %u are possible", threads,
                       MOST_THREADS);
    pd_cpu_device *device = calloc(1, sizeof *device);
    if (!device) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a device");
    device->base.backend = &pd_backend_cpu;
    device->ops = ops;
    device->i8 = i8;
    pd_status status = pd_slab_open(&device->slab, options->memory, err);
    if (status != PD_OK) goto err_after_alloc;
    status = pd_pool_open(threads, options->idle, &device->pool, err);
    if (status != PD_OK) goto err_after_slab;
    pd_pool_before_sleep(device->pool, device->i8->rest);
    *out = &device->base;
    return PD_OK;

err_after_slab:
    pd_slab_close(&device->slab);
err_after_alloc:
    free(device);
    return status;
}

static void cpu_close(pd_device *base)
{
    pd_cpu_device *device = (pd_cpu_device *)base;
    pd_pool_close(device->pool);
    pd_slab_close(&device->slab);
    pd_prepared_free(&device->prepared);
    for (uint32_t i = 0; i < PD_SCRATCH_KINDS; i++)
        pd_buffer_free(&device->scratch[i]);
    free(device);
}

/* "model name" of /proc/cpuinfo, where there is such a line. model: [size] */
static void read_model(char *model, size_t size)
{
    snprintf(model, size, "unknown processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, "model name", 10) != 0) continue;
        const char *value = strchr(line, ':');
        if (!value) continue;
        snprintf(model, size, "%s", value + 1 + (value[1] == ' '));
        model[strcspn(model, "\n")] = '\0';
        break;
    }
    fclose(file);
}

static void cpu_info(const pd_device *base, pd_device_info *info)
{
    const pd_cpu_device *device = (const pd_cpu_device *)base;
    char model[64];
    read_model(model, sizeof model);
    info->backend = "cpu";
    info->isa = device->i8->isa;
    info->threads = pd_pool_threads(device->pool);
    info->idle = pd_pool_idle(device->pool);
    snprintf(info->about, sizeof info->about, "%s, %u thread%s", model, info->threads,
             info->threads == 1 ? "" : "s");
    info->memory = (uint64_t)device->slab.chunks * PD_CHUNK_BYTES;
    info->used = (uint64_t)(device->slab.chunks - device->slab.free) * PD_CHUNK_BYTES;
}

static pd_status cpu_index_open(pd_device *base, const pd_index_spec *spec, pd_index **out, pd_error *err)
{
    pd_cpu_device *device = (pd_cpu_device *)base;
    pd_status status =
        pd_host_index_open(&pd_backend_cpu, &device->slab, sizeof(pd_cpu_index), spec, out, err);
    if (status == PD_OK) ((pd_cpu_index *)*out)->device = device;
    return status;
}

const pd_backend pd_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .info = cpu_info,
    .index_open = cpu_index_open,
    .index_close = pd_host_index_close,
    .page_window = pd_host_page_window,
    .page_commit = pd_host_page_commit,
    .set_lists = pd_host_set_lists,
    .search = pd_cpu_search,
    .gather = pd_host_gather,
    .grow = pd_host_grow,
    .write_rows = pd_host_write_rows,
    .write_columns = pd_host_write_columns,
    .empty_rows = pd_host_empty_rows,
    .read_pages = pd_host_read_pages,
    .exact_begin = pd_cpu_exact_begin,
    .exact_block = pd_cpu_exact_block,
    .exact_end = pd_cpu_exact_end,
    .assign = pd_cpu_assign,
    .train = NULL,
};
