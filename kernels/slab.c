/* The slab of a host backend: one anonymous mapping, huge pages where the system gives them, and a stack of free chunks.
 */
#include "slab.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "layout.h"

_Static_assert((size_t)PD_PAGE_ROWS *(PD_MAX_DIM * 4u + 4u + 4u + 8u + PD_MAX_BYTES + PD_MAX_FLOATS * 4u +
                                      PD_MAX_KEYS * 8u) +
                       64u <=
                   PD_CHUNK_BYTES,
               "the largest page must fit into a chunk");

const char *pd_size_text(uint64_t bytes, char *text)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes / 1024.0;
    unsigned unit = 0;
    for (; size >= 1024.0 && unit < 3; unit++)
        size /= 1024.0;
    snprintf(text, PD_SIZE_TEXT, "%.1f %s", size, units[unit]);
    return text;
}

uint64_t pd_memory_available(void)
{
    uint64_t found = UINT64_MAX;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return found;
    char line[128];
    uint64_t kib;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) == 1) found = kib * 1024;
    fclose(file);
    return found;
}

pd_status pd_slab_open(pd_slab *slab, uint64_t bytes, pd_error *err)
{
    memset(slab, 0, sizeof *slab);
    uint64_t available = pd_memory_available();
    char want[PD_SIZE_TEXT], have[PD_SIZE_TEXT];
    if (bytes / PD_CHUNK_BYTES >= UINT32_MAX || bytes > available)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "a slab of %s is asked for, this machine has %s available",
                       pd_size_text(bytes, want), pd_size_text(available, have));
    uint32_t chunks = (uint32_t)(bytes / PD_CHUNK_BYTES);
    if (chunks == 0) return PD_OK;
    slab->stack = malloc(chunks * sizeof *slab->stack);
    if (!slab->stack) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the slab's list of chunks");
    /* One chunk more, so that the base can be aligned. */
    slab->mapped = ((size_t)chunks + 1) * PD_CHUNK_BYTES;
    slab->mapping =
        mmap(NULL, slab->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (slab->mapping == MAP_FAILED) {
        int code = errno;
        free(slab->stack);
        memset(slab, 0, sizeof *slab);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "mapping a slab of %s failed: %s",
                       pd_size_text(bytes, want), strerror(code));
    }
    uintptr_t start = ((uintptr_t)slab->mapping + PD_CHUNK_BYTES - 1) & ~(uintptr_t)(PD_CHUNK_BYTES - 1);
    slab->base = (unsigned char *)start;
    /* A wish: without huge pages the slab works all the same. */
    (void)madvise(slab->base, (size_t)chunks * PD_CHUNK_BYTES, MADV_HUGEPAGE);
    slab->chunks = slab->free = chunks;
    for (uint32_t i = 0; i < chunks; i++)
        slab->stack[i] = chunks - 1 - i;
    return PD_OK;
}

void pd_slab_close(pd_slab *slab)
{
    if (slab->mapping) munmap(slab->mapping, slab->mapped);
    free(slab->stack);
    memset(slab, 0, sizeof *slab);
}

uint32_t pd_run_chunks(size_t page_bytes, uint32_t npages)
{
    if (page_bytes == 0 || npages == 0) return 0;
    uint32_t pages_per_chunk = (uint32_t)(PD_CHUNK_BYTES / page_bytes);
    return (uint32_t)(((uint64_t)npages + pages_per_chunk - 1) / pages_per_chunk);
}

pd_status pd_run_take(pd_slab *slab, pd_run *run, size_t page_bytes, uint32_t npages, pd_error *err)
{
    memset(run, 0, sizeof *run);
    run->slab = slab;
    run->page_bytes = page_bytes;
    run->npages = npages;
    run->pages_per_chunk = page_bytes ? (uint32_t)(PD_CHUNK_BYTES / page_bytes) : 1;
    uint32_t nchunks = pd_run_chunks(page_bytes, npages);
    if (nchunks == 0) return PD_OK;
    run->chunks = malloc(nchunks * sizeof *run->chunks);
    if (!run->chunks)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a list of %u chunks", nchunks);
    for (uint32_t i = 0; i < nchunks; i++)
        run->chunks[i] = slab->stack[--slab->free];
    run->nchunks = nchunks;
    return PD_OK;
}

void pd_run_give(pd_run *run)
{
    for (uint32_t i = run->nchunks; i > 0; i--)
        run->slab->stack[run->slab->free++] = run->chunks[i - 1];
    free(run->chunks);
    memset(run, 0, sizeof *run);
}

/* -------------------------------------------------------------------------------------------------- touching --- */

#ifdef MADV_POPULATE_WRITE

#define TOUCH_CHUNKS 16u /* a run of fewer is filled before a thread has started */

/* What a page holds is left as it is, so that others may write meanwhile. 0: the system does not do it. */
static int touch_chunk(const pd_touch *t, const pd_run *run, uint32_t i)
{
    return !__atomic_load_n(&t->stop, __ATOMIC_RELAXED) &&
           madvise(run->slab->base + (size_t)run->chunks[i] * PD_CHUNK_BYTES, PD_CHUNK_BYTES,
                   MADV_POPULATE_WRITE) == 0;
}

static void *touch(void *context)
{
    const pd_touch *t = context;
    int going = 1;
    for (uint32_t i = t->first->nchunks; going && i-- > 0;)
        going = touch_chunk(t, t->first, i);
    for (uint32_t i = 0; going && i < t->second->nchunks; i++)
        going = touch_chunk(t, t->second, i);
    return NULL;
}

void pd_touch_start(pd_touch *t, const pd_run *first, const pd_run *second)
{
    t->first = first;
    t->second = second;
    t->running =
        first->nchunks + second->nchunks >= TOUCH_CHUNKS && pthread_create(&t->thread, NULL, touch, t) == 0;
}

#else

void pd_touch_start(pd_touch *t, const pd_run *first, const pd_run *second)
{
    (void)t, (void)first, (void)second;
}

#endif

void pd_touch_end(pd_touch *t)
{
    __atomic_store_n(&t->stop, 1, __ATOMIC_RELAXED);
    if (t->running) pthread_join(t->thread, NULL);
    t->running = 0;
}
