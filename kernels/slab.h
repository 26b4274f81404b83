/* The slab: a device's memory for tables, taken once, in chunks of 2 MiB. An index takes whole chunks for its main
 * pages and whole chunks for its refine pages, anywhere in the slab, and gives them back when it closes: any chunk
 * serves any index, so nothing fragments. (A device may have a second slab for refine pages: pd_device_options.) Page p of a run lies in chunk p / pages_per_chunk of it; no page crosses a
 * chunk, since the largest one possible is little over half of it (layout.h: 8,192 dimensions of f32 and all columns).
 */
#ifndef PD_SLAB_H
#define PD_SLAB_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

#define PD_CHUNK_BYTES ((size_t)2 << 20)

typedef struct pd_slab {
    unsigned char *base; /* aligned to a chunk */
    void *mapping;
    size_t mapped;
    uint32_t chunks, free;
    uint32_t *stack; /* [chunks]: the free ones are stack[0 .. free) */
} pd_slab;

/* Pages of one kind of one index. */
typedef struct pd_run {
    pd_slab *slab; /* that its chunks are of */
    size_t page_bytes;
    uint32_t npages, pages_per_chunk;
    uint32_t nchunks;
    uint32_t *chunks; /* [nchunks] */
} pd_run;

/* Maps bytes rounded down to whole chunks; the memory is touched as it is used. RESOURCE_EXHAUSTED: the machine does
 * not have that much, saying how much it has. bytes may be 0. */
pd_status pd_slab_open(pd_slab *slab, uint64_t bytes, pd_error *err);
void pd_slab_close(pd_slab *slab);

/* Bytes that the machine could still give, UINT64_MAX where it does not say. */
uint64_t pd_memory_available(void);

/* Chunks that npages of page_bytes take; 0 where either is. */
uint32_t pd_run_chunks(size_t page_bytes, uint32_t npages);
/* Takes the chunks of a run; free chunks are the caller's to check. RESOURCE_EXHAUSTED: no memory for the list. */
pd_status pd_run_take(pd_slab *slab, pd_run *run, size_t page_bytes, uint32_t npages, pd_error *err);
void pd_run_give(pd_run *run);

/* A thread that has the system hand out the memory of runs that are about to be filled, the last chunk of the first run first: the first
 * touch of a page costs more than filling it does, and whoever fills runs upwards is met half way. A wish: where there is no thread for
 * it, or the system does not know how, memory comes as it is touched. Zeroed: none. */
typedef struct pd_touch {
    pthread_t thread;
    int running;
    int stop; /* __atomic */
    const pd_run *first, *second;
} pd_touch;
void pd_touch_start(pd_touch *touch, const pd_run *first, const pd_run *second);
void pd_touch_end(pd_touch *touch); /* before the runs are given back */

static inline unsigned char *pd_run_page(const pd_run *run, uint32_t page)
{
    uint32_t chunk = page / run->pages_per_chunk;
    return run->slab->base + (size_t)run->chunks[chunk] * PD_CHUNK_BYTES +
           (size_t)(page - chunk * run->pages_per_chunk) * run->page_bytes;
}

/* "1.2 GiB". text: [PD_SIZE_TEXT] */
#define PD_SIZE_TEXT 24
const char *pd_size_text(uint64_t bytes, char *text);

#endif
