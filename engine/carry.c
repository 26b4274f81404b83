/* Carrying counters over to a pushed version: see carry.h. */
#include "carry.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "batch.h"
#include "log.h"
#include "writer.h"

#define PIECE_PAGES 128u /* read at a time, between two searches */

typedef struct carrying {
    pd_incoming *in;
    pd_served *old;
    const pd_attribute *from, *to; /* the attribute in either schema */
    uint64_t *ids;                 /* [PD_CHANGE_ROWS] of rows that want a count */
    double *counters;
    uint32_t n;
    unsigned char *pages; /* [PIECE_PAGES][page_bytes] */
    uint32_t first, count;
    uint64_t carried;
} carrying;

/* On the writer's thread, so that no event comes between reading a counter and logging it. */
static pd_status log_counters(void *argument, pd_error *err)
{
    carrying *c = argument;
    pd_catalog *catalog = c->in->catalog;
    pd_batch *batch = NULL;
    pd_written written;
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t slot = pd_resident_staged_slot(c->old->resident, c->ids[i]);
        if (slot == PD_NO_SLOT) continue;
        double counter = pd_resident_counter(c->old->resident, c->from, slot);
        if (isinf(counter)) continue;
        c->ids[n] = c->ids[i];
        c->counters[n++] = counter;
    }
    if (!n) return PD_OK;
    pd_status status =
        pd_batch_of_counters(c->in->table, c->from->name, c->ids, c->counters, n, pd_days_now(), &batch, err);
    if (!status) status = pd_batch_bind(batch, c->old->version, NULL, NULL, err);
    if (!status) status = pd_writer_now(catalog->writer, batch, c->old, &written, err);
    pd_batch_free(batch);
    c->carried += n;
    return status;
}

static pd_status flush(carrying *c, pd_error *err)
{
    if (!c->n) return PD_OK;
    pd_status status = pd_writer_run(c->in->catalog->writer, log_counters, c, err);
    c->n = 0;
    return status;
}

/* On the executor. */
static pd_status read_piece(void *argument, pd_error *err)
{
    carrying *c = argument;
    return pd_index_read_pages(pd_resident_index(c->old->resident), PD_PAGES_MAIN, c->first, c->count,
                               c->pages, err);
}

/* Rows of the piece that the incoming version has, and has not counted. */
static pd_status take_piece(carrying *c, pd_error *err)
{
    const pd_layout *layout = &c->old->info->layout;
    const pd_resident *incoming = c->in->box->served.resident;
    pd_status status = PD_OK;
    for (uint32_t p = 0; !status && p < c->count; p++) {
        unsigned char *page = c->pages + (size_t)p * layout->page_bytes;
        const float *term = pd_page_term(layout, page);
        const uint64_t *ids = pd_page_ids(layout, page);
        for (uint32_t r = 0; !status && r < PD_PAGE_ROWS; r++) {
            if (isinf(term[r])) continue;
            uint32_t slot = pd_resident_slot(incoming, ids[r]);
            if (slot == PD_NO_SLOT || !isinf(pd_resident_counter(incoming, c->to, slot))) continue;
            c->ids[c->n++] = ids[r];
            if (c->n == PD_CHANGE_ROWS) status = flush(c, err);
        }
    }
    return status;
}

static pd_status carry(carrying *c, pd_error *err)
{
    uint32_t npages = pd_resident_index(c->old->resident)->npages;
    pd_status status = PD_OK;
    for (c->first = 0; !status && c->first < npages; c->first += PIECE_PAGES) {
        c->count = npages - c->first < PIECE_PAGES ? npages - c->first : PIECE_PAGES;
        status = pd_executor_call(c->in->catalog->executor, read_piece, c, err);
        if (!status) status = take_piece(c, err);
    }
    return status ? status : flush(c, err);
}

pd_status pd_carry_counters(pd_incoming *in, pd_error *err)
{
    carrying c = {.in = in};
    pd_error absent;
    const pd_version_info *info = in->box->served.info;
    if (in->back || pd_catalog_hold(in->catalog, in->table, &c.old, &absent)) return PD_OK;
    c.ids = malloc(PD_CHANGE_ROWS * sizeof *c.ids);
    c.counters = malloc(PD_CHANGE_ROWS * sizeof *c.counters);
    c.pages = aligned_alloc(64, PIECE_PAGES * c.old->info->layout.page_bytes);
    pd_status status = c.ids && c.counters && c.pages
                           ? PD_OK
                           : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory to carry counters over");
    for (uint32_t i = 0; !status && i < c.old->info->schema->nattributes; i++) {
        c.from = &c.old->info->schema->attributes[i];
        c.to = pd_schema_find(info->schema, c.from->name);
        if (c.from->counts && c.to && c.to->counts) status = carry(&c, err);
    }
    if (!status && c.carried)
        pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\" takes over %" PRIu64 " counters", in->number,
               in->table, c.carried);
    free(c.ids);
    free(c.counters);
    free(c.pages);
    pd_catalog_release(c.old);
    return status;
}
