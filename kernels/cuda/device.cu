/* The device: errors, memory of batches, opening and closing.
 *
 * Every call of the runtime goes through pd_cuda_check. An allocation that fails is RESOURCE_EXHAUSTED and leaves the device as
 * it was; any other error means that its context cannot be trusted: the device is lost, and every slot then answers UNAVAILABLE
 * with the name of the error that was first, until the process starts again. Nothing aborts, and closing works on a lost device
 * too: what can still be given back is.
 */
#include "cuda.h"

/* ------------------------------------------------------------------------------------------------- errors --- */

static int is_lost(const pd_cuda_device *device)
{
    return __atomic_load_n(&device->lost, __ATOMIC_ACQUIRE);
}

pd_status pd_cuda_check(pd_cuda_device *device, cudaError_t error, const char *doing, pd_error *err)
{
    if (error == cudaSuccess) return PD_OK;
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* it does not stay */
        size_t free_bytes = 0, total = 0;
        char have[PD_SIZE_TEXT], all[PD_SIZE_TEXT];
        if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) (void)cudaGetLastError();
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: %s, %s of %s of device memory is free", doing,
                       cudaGetErrorName(error), pd_size_text(free_bytes, have), pd_size_text(total, all));
    }
    int was = 0;
    if (__atomic_compare_exchange_n(&device->lost, &was, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        snprintf(device->why, sizeof device->why, "%s while %s (%.80s)", cudaGetErrorName(error), doing,
                 cudaGetErrorString(error));
    return pd_fail(err, PD_UNAVAILABLE, "the CUDA device is lost: %s while %s (%s)", cudaGetErrorName(error),
                   doing, cudaGetErrorString(error));
}

pd_status pd_cuda_enter(pd_cuda_device *device, pd_error *err)
{
    if (is_lost(device))
        return pd_fail(err, PD_UNAVAILABLE, "the CUDA device was lost earlier: %s", device->why);
    return pd_cuda_check(device, cudaSetDevice(device->ordinal), "choosing the device", err);
}

/* ------------------------------------------------------------------------------------- memory of batches --- */

#define ARENA_LEAST ((size_t)1 << 20)

static size_t up256(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

static pd_status add_block(pd_cuda_device *device, pd_cuda_arena *arena, size_t bytes, const char *what,
                           pd_error *err)
{
    void *data = NULL;
    pd_status status = pd_cuda_check(device, cudaMalloc(&data, bytes), what, err);
    if (status != PD_OK) return pd_prefix(err, "%zu bytes of scratch memory", bytes);
    pd_cuda_block *block = &arena->blocks[arena->nblocks++];
    block->data = (unsigned char *)data;
    block->bytes = bytes;
    block->used = 0;
    return PD_OK;
}

pd_status pd_cuda_take(pd_cuda_device *device, pd_cuda_arena *arena, size_t count, size_t size,
                       const char *what, void **out, pd_error *err)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 4)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: %zu times %zu bytes", what, count, size);
    bytes = up256(bytes ? bytes : 1);
    pd_cuda_block *block = arena->nblocks ? &arena->blocks[arena->nblocks - 1] : NULL;
    if (!block || block->bytes - block->used < bytes) {
        if (arena->nblocks == PD_CUDA_BLOCKS)
            return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: scratch memory is in %u pieces", what,
                           PD_CUDA_BLOCKS);
        /* Half as much again as there is: a batch that grows step by step meets few of these. */
        size_t have = 0;
        for (uint32_t i = 0; i < arena->nblocks; i++)
            have += arena->blocks[i].bytes;
        size_t want = have / 2 > bytes ? have / 2 : bytes;
        want = up256(want > ARENA_LEAST ? want : ARENA_LEAST);
        pd_status status = add_block(device, arena, want, what, err);
        if (status == PD_RESOURCE_EXHAUSTED && want > bytes)
            status = add_block(device, arena, bytes, what, err);
        if (status != PD_OK) return status;
        block = &arena->blocks[arena->nblocks - 1];
    }
    *out = block->data + block->used;
    block->used += bytes;
    return PD_OK;
}

void pd_cuda_arena_free(pd_cuda_arena *arena)
{
    for (uint32_t i = 0; i < arena->nblocks; i++)
        cudaFree(arena->blocks[i].data);
    arena->nblocks = 0;
}

pd_status pd_cuda_arena_reset(pd_cuda_device *device, pd_cuda_arena *arena, pd_error *err)
{
    if (arena->nblocks > 1) {
        size_t all = 0;
        for (uint32_t i = 0; i < arena->nblocks; i++)
            all += arena->blocks[i].bytes;
        pd_cuda_arena_free(arena);
        return add_block(device, arena, all, "scratch memory", err);
    }
    if (arena->nblocks) arena->blocks[0].used = 0;
    return PD_OK;
}

pd_status pd_cuda_pinned_need(pd_cuda_device *device, pd_cuda_pinned *pinned, size_t bytes, const char *what,
                              pd_error *err)
{
    if (bytes <= pinned->bytes) return PD_OK;
    size_t want = up256(bytes + bytes / 4);
    void *data = NULL;
    pd_status status = pd_cuda_check(device, cudaMallocHost(&data, want), what, err);
    if (status != PD_OK) return pd_prefix(err, "%zu bytes of pinned memory", want);
    pd_cuda_pinned_free(pinned);
    pinned->data = (unsigned char *)data;
    pinned->bytes = want;
    return PD_OK;
}

void pd_cuda_pinned_free(pd_cuda_pinned *pinned)
{
    if (pinned->data) cudaFreeHost(pinned->data);
    pinned->data = NULL;
    pinned->bytes = 0;
}

pd_status pd_cuda_lane_open(pd_cuda_device *device, pd_cuda_lane *lane, pd_error *err)
{
    memset(lane, 0, sizeof *lane);
    pd_status status = pd_cuda_check(device, cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking),
                                     "making a stream", err);
    for (uint32_t i = 0; status == PD_OK && i < PD_CUDA_EVENTS; i++)
        status = pd_cuda_check(device, cudaEventCreateWithFlags(&lane->events[i], cudaEventDefault),
                               "making an event", err);
    return status;
}

void pd_cuda_lane_close(pd_cuda_lane *lane)
{
    if (lane->stream) (void)cudaStreamSynchronize(lane->stream);
    for (uint32_t i = 0; i < PD_CUDA_EVENTS; i++)
        if (lane->events[i]) cudaEventDestroy(lane->events[i]);
    if (lane->stream) cudaStreamDestroy(lane->stream);
    pd_cuda_arena_free(&lane->arena);
    pd_cuda_pinned_free(&lane->in);
    pd_cuda_pinned_free(&lane->out);
    memset(lane, 0, sizeof *lane);
}

/* ------------------------------------------------------------------------------------------------ opening --- */

__global__ static void answer(int *out)
{
    *out = 1;
}

/* Does the device run what was compiled for it? One that is too new or too old fails here, by name, and not in a search. */
static pd_status try_kernel(pd_cuda_device *device, pd_error *err)
{
    void *out = NULL;
    int said = 0;
    pd_status status = pd_cuda_take(device, &device->side.arena, 1, sizeof(int), "a first kernel", &out, err);
    if (status == PD_OK)
        status = pd_cuda_check(device, PD_LAUNCH(answer, 1, 1, 0, device->side.stream, (int *)out),
                               "running a first kernel", err);
    if (status == PD_OK)
        status = pd_cuda_check(
            device, cudaMemcpyAsync(&said, out, sizeof said, cudaMemcpyDeviceToHost, device->side.stream),
            "running a first kernel", err);
    if (status == PD_OK)
        status =
            pd_cuda_check(device, cudaStreamSynchronize(device->side.stream), "running a first kernel", err);
    if (status == PD_OK && said != 1)
        return pd_fail(err, PD_UNAVAILABLE, "%s does not run this plug-in's kernels", device->about);
    return status;
}

static pd_status look_at_device(pd_cuda_device *device, pd_error *err)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0)
        return pd_fail(err, PD_UNAVAILABLE, "no CUDA device answers: %s (%s)",
                       cudaGetErrorName(error == cudaSuccess ? cudaErrorNoDevice : error),
                       cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error));
    cudaDeviceProp prop;
    pd_status status =
        pd_cuda_check(device, cudaGetDeviceProperties(&prop, device->ordinal), "asking the device", err);
    if (status != PD_OK) return status;
    if (prop.major < 8)
        return pd_fail(err, PD_UNAVAILABLE,
                       "%.60s has compute capability %d.%d; 8.0 (Ampere) or newer is needed", prop.name,
                       prop.major, prop.minor);
    char memory[PD_SIZE_TEXT];
    device->sms = prop.multiProcessorCount;
    /* What a kernel declares counts as well (PD_ALLOW_SHARED would refuse the rest): under 4 KiB wherever more is asked for. */
    device->shared_most = prop.sharedMemPerBlockOptin - 4096;
    device->l2 = (size_t)prop.l2CacheSize;
    snprintf(device->isa, sizeof device->isa, "sm_%d%d", prop.major, prop.minor);
    snprintf(device->about, sizeof device->about, "%.48s, %s, %d multiprocessors", prop.name,
             pd_size_text(prop.totalGlobalMem, memory), prop.multiProcessorCount);
    return pd_cuda_check(device, cudaSetDevice(device->ordinal), "choosing the device", err);
}

/* What pages are addressed by reaches (cuda.h: page_at). */
#define SLAB_MOST ((uint64_t)64 << 32)

/* All chunks of a slab, free, before their memory is there. */
static pd_status list_chunks(pd_slab *slab, uint64_t bytes, pd_error *err)
{
    char want[PD_SIZE_TEXT], most[PD_SIZE_TEXT];
    if (bytes > SLAB_MOST)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "a slab of %s is asked for, %s can be addressed",
                       pd_size_text(bytes, want), pd_size_text(SLAB_MOST, most));
    uint32_t chunks = (uint32_t)(bytes / PD_CHUNK_BYTES);
    slab->stack = (uint32_t *)malloc(chunks * sizeof *slab->stack);
    if (!slab->stack) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the slab's list of chunks");
    slab->chunks = slab->free = chunks;
    for (uint32_t i = 0; i < chunks; i++)
        slab->stack[i] = chunks - 1 - i;
    return PD_OK;
}

static pd_status take_slab(pd_cuda_device *device, uint64_t bytes, pd_error *err)
{
    size_t free_bytes = 0, total = 0;
    char want[PD_SIZE_TEXT], have[PD_SIZE_TEXT], all[PD_SIZE_TEXT];
    pd_status status =
        pd_cuda_check(device, cudaMemGetInfo(&free_bytes, &total), "asking for free memory", err);
    if (status != PD_OK) return status;
    if (bytes > free_bytes)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                       "a slab of %s is asked for, the device has %s of %s available",
                       pd_size_text(bytes, want), pd_size_text(free_bytes, have), pd_size_text(total, all));
    if (bytes < PD_CHUNK_BYTES) return PD_OK;
    void *memory = NULL;
    status = list_chunks(&device->slab, bytes, err);
    if (status == PD_OK)
        status = pd_cuda_check(device, cudaMalloc(&memory, device->slab.chunks * PD_CHUNK_BYTES),
                               "taking the slab", err);
    device->slab.base = (unsigned char *)memory;
    return status;
}

/* Pinned memory for refine pages. The system is asked first: it would rather kill a process than refuse to pin what it has not got. */
static pd_status take_host_slab(pd_cuda_device *device, uint64_t bytes, pd_error *err)
{
    char want[PD_SIZE_TEXT], have[PD_SIZE_TEXT];
    uint64_t available = pd_memory_available();
    if (bytes > available)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                       "a slab of %s of host memory is asked for, this machine has %s available",
                       pd_size_text(bytes, want), pd_size_text(available, have));
    if (bytes < PD_CHUNK_BYTES) return PD_OK;
    void *memory = NULL;
    pd_status status = list_chunks(&device->host, bytes, err);
    if (status != PD_OK) return status;
    cudaError_t error = cudaHostAlloc(&memory, device->host.chunks * PD_CHUNK_BYTES,
                                      cudaHostAllocPortable | cudaHostAllocMapped);
    device->host.base = (unsigned char *)memory;
    if (error != cudaErrorMemoryAllocation)
        return pd_cuda_check(device, error, "pinning host memory for refine rows", err);
    (void)cudaGetLastError(); /* it does not stay */
    return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                   "pinning %s of host memory for refine rows: %s, this machine has %s available",
                   pd_size_text(bytes, want), cudaGetErrorName(error), pd_size_text(available, have));
}

static pd_status choose_path(const char *isa, pd_cuda_path *path, pd_error *err)
{
    *path = PD_PATH_BY_REUSE;
    if (!isa) return PD_OK;
    if (strcmp(isa, "row") == 0)
        *path = PD_PATH_ROW;
    else if (strcmp(isa, "tile") == 0)
        *path = PD_PATH_TILE;
    else
        return pd_fail(err, PD_INVALID_ARGUMENT, "isa \"%s\" is not row or tile", isa);
    return PD_OK;
}

void pd_cuda_close(pd_device *base)
{
    pd_cuda_device *device = (pd_cuda_device *)base;
    (void)cudaSetDevice(device->ordinal);
    for (uint32_t i = 0; i < PD_CUDA_LANES; i++)
        pd_cuda_lane_close(&device->lanes[i]);
    pd_cuda_lane_close(&device->gather);
    pd_cuda_lane_close(&device->side);
    pd_cuda_assigner_close(device);
    pd_cuda_pinned_free(&device->change_in);
    pd_cuda_pinned_free(&device->change_out);
    if (device->change_memory) cudaFree(device->change_memory);
    if (device->slab.base) cudaFree(device->slab.base);
    if (device->host.base) cudaFreeHost(device->host.base);
    free(device->slab.stack);
    free(device->host.stack);
    free(device);
}

pd_status pd_cuda_open(const pd_device_options *options, pd_device **out, pd_error *err)
{
    pd_cuda_path path;
    pd_status status = choose_path(options->isa, &path, err);
    if (status != PD_OK) return status;
    pd_cuda_device *device = (pd_cuda_device *)calloc(1, sizeof *device);
    if (!device) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a device");
    device->base.backend = &pd_backend_cuda;
    device->path = path;
    status = look_at_device(device, err);
    for (uint32_t i = 0; status == PD_OK && i < PD_CUDA_LANES; i++)
        status = pd_cuda_lane_open(device, &device->lanes[i], err);
    if (status == PD_OK) status = pd_cuda_lane_open(device, &device->gather, err);
    if (status == PD_OK) status = pd_cuda_lane_open(device, &device->side, err);
    if (status == PD_OK) status = try_kernel(device, err);
    if (status == PD_OK) status = take_slab(device, options->memory, err);
    if (status == PD_OK) status = take_host_slab(device, options->host_memory, err);
    if (status == PD_OK && device->slab.chunks > 0) status = pd_cuda_changes_open(device, err);
    if (status != PD_OK) {
        pd_cuda_close(&device->base);
        return status;
    }
    *out = &device->base;
    return PD_OK;
}

void pd_cuda_info(const pd_device *base, pd_device_info *info)
{
    const pd_cuda_device *device = (const pd_cuda_device *)base;
    info->backend = "cuda";
    info->isa = device->isa;
    info->threads = (uint32_t)device->sms;
    snprintf(info->about, sizeof info->about, "%s", device->about);
    info->memory = (uint64_t)device->slab.chunks * PD_CHUNK_BYTES;
    info->used = (uint64_t)(device->slab.chunks - device->slab.free) * PD_CHUNK_BYTES;
    info->host_memory = (uint64_t)device->host.chunks * PD_CHUNK_BYTES;
    info->host_used = (uint64_t)(device->host.chunks - device->host.free) * PD_CHUNK_BYTES;
}
