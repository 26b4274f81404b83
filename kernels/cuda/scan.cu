/* The scan: how its work is cut, and which path takes which query.
 *
 * Where enough queries share a list (i8 codes), tiles read each list once for all of them (scan_tile.cu); where they do not,
 * a query's pages are cut into pieces for as many blocks as fill the device (scan_row.cu). The row scan also runs behind the
 * tiles, over what only it can do: queries without a vector or with a filter, slots from postings, and queries of which more
 * rows passed than their candidates had room for. Blocks with nothing to do leave at once. Before either, the rows of a query's nearest
 * list give it a bar (scan_prime.cu). */
#include "scan.cuh"
#include "tile.cuh"

#define COUNT_THREADS 128u

/* From this many queries a list on, lists are read for all of them together. Counted, not measured: docs/CUDA.md. */
#define TILE_REUSE 2u

/* Pages before each of a query's pairs; a block a query. */
static __global__ void count_pages(PD_GRID const pd_cuda_batch batch, PD_GRID const pd_scan scan)
{
    PD_SHARED pd_block_work work;
    const pd_cuda_view &view = batch.view;
    const pd_cuda_query &query = batch.queries[blockIdx.x];
    uint32_t before = 0;
    for (uint32_t first = 0; first < query.npairs; first += blockDim.x) {
        uint32_t i = first + threadIdx.x, pages = 0, total;
        if (i < query.npairs) {
            uint32_t list = batch.pairs[query.pairs + i].list;
            pages = view.offsets[list + 1] - view.offsets[list];
            /* A list none of whose rows can pass has no pages. */
            if (query.filter != PD_NONE && !pd_list_may(view, batch.filters[query.filter], list)) pages = 0;
        }
        uint32_t own = pd_block_sum(&work, pages, &total);
        if (i < query.npairs) scan.page_at[query.pairs + i] = before + own;
        before += total;
    }
    if (threadIdx.x == 0) scan.page_count[blockIdx.x] = before;
}

/* Blocks for each query in the row scan: enough to fill the device, each with a page for every warp. */
static uint32_t row_parts(const pd_cuda_batch *batch)
{
    uint64_t blocks = 8u * (uint64_t)(batch->device->sms > 0 ? batch->device->sms : 1);
    uint64_t pages = (uint64_t)batch->most_probes * batch->view.npages / batch->view.nlist;
    if (pages < batch->most_slots) pages = batch->most_slots;
    uint64_t parts = blocks / batch->n, most = pages / (PD_ROW_THREADS / 32) + 1;
    if (parts > most) parts = most;
    if (parts > PD_ROW_PARTS_MOST) parts = PD_ROW_PARTS_MOST;
    return parts > 1 ? (uint32_t)parts : 1;
}

static int uses_tiles(const pd_cuda_batch *batch)
{
    const pd_cuda_device *device = batch->device;
    pd_tile tile;
    /* Without a vector in the batch there are no codes of queries. */
    if (!batch->codes || !pd_tile_cut(batch->view.layout.dim4, device->shared_most, &tile)) return 0;
    if (device->path != PD_PATH_BY_REUSE) return device->path == PD_PATH_TILE;
    return batch->npairs / batch->view.nlist >= TILE_REUSE;
}

static pd_status plan(pd_cuda_batch *batch, pd_scan *scan, pd_error *err)
{
    scan->parts = row_parts(batch);
    scan->room = pd_row_room(batch->most_keep);
    scan->tiled = (uint32_t)uses_tiles(batch);
    scan->tile_room = scan->tiled ? pd_tile_room(batch->most_keep) : 0;
    scan->span = scan->tile_room + (size_t)scan->parts * scan->room;
    scan->tile_counts = NULL;
    pd_status status = pd_take(batch, batch->n * scan->span, "candidates", &scan->scores, err);
    if (status == PD_OK) status = pd_take(batch, batch->n * scan->span, "candidates", &scan->slots, err);
    if (status == PD_OK)
        status = pd_take(batch, (size_t)batch->n * scan->parts, "candidates", &scan->counts, err);
    if (status == PD_OK && scan->tiled)
        status = pd_take(batch, batch->n, "candidates", &scan->tile_counts, err);
    if (status == PD_OK) status = pd_take(batch, batch->npairs, "pairs", &scan->page_at, err);
    if (status == PD_OK) status = pd_take(batch, batch->n, "pairs", &scan->page_count, err);
    if (status == PD_OK) status = pd_take(batch, batch->nkept, "candidates", &batch->cand_scores, err);
    if (status == PD_OK) status = pd_take(batch, batch->nkept, "candidates", &batch->cand_slots, err);
    if (status == PD_OK) status = pd_take(batch, batch->n, "candidates", &batch->cand_counts, err);
    return status;
}

pd_status pd_cuda_scan(pd_cuda_batch *batch, pd_error *err)
{
    pd_scan scan = {};
    if (batch->n == 0) return PD_OK;
    pd_status status = plan(batch, &scan, err);
    if (status != PD_OK) return status;
    status = pd_cuda_check(batch->device,
                           PD_LAUNCH(count_pages, batch->n, COUNT_THREADS, 0, batch->stream, *batch, scan),
                           "counting pages", err);
    if (status == PD_OK) status = pd_prime(batch, err);
    if (status == PD_OK && scan.tiled) status = pd_scan_tiles(batch, &scan, err);
    if (status == PD_OK) status = pd_scan_rows(batch, &scan, err);
    if (status == PD_OK) status = pd_select(batch, &scan, err);
    return status;
}
