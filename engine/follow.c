/* Reading the log into a resident: see follow.h. */
#include "follow.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "writer.h"

#define APPLY_NS 1000000u /* of one call of the executor: what searches wait */

/* ---------------------------------------------------------------------------------------------- source rows --- */

static pd_status on_executor(void *context, pd_status (*fn)(void *, pd_error *), void *argument,
                             pd_error *err)
{
    const pd_box *box = context;
    return pd_executor_call(box->catalog->executor, fn, argument, err);
}

static pd_status source_row(void *context, uint64_t sequence, uint32_t row, float *vector, pd_error *err)
{
    const pd_box *box = context;
    const pd_shape *shape = &box->served.info->shape;
    pd_record record;
    void *transaction = NULL;
    pd_status status = pd_changes_get(box->catalog->changes, sequence, &record, &transaction, err);
    if (status) return status;
    status = pd_record_row(&record, row, shape->metric, shape->dim, vector, err);
    pd_changes_end(box->catalog->changes, transaction);
    return status;
}

pd_live_source pd_box_source(pd_box *box)
{
    return (pd_live_source){.context = box, .on_executor = on_executor, .source_row = source_row};
}

/* ------------------------------------------------------------------------------------------------- following --- */

typedef struct following {
    pd_catalog *catalog;
    pd_box *box;
    pd_device *device;
    int any_width;
    pd_followed *out;
} following;

typedef struct applying {
    pd_resident *resident;
    pd_staged *staged;
} applying;

/* On the executor: a few pieces. */
static pd_status apply(void *argument, pd_error *err)
{
    applying *a = argument;
    pd_status status = PD_OK;
    uint64_t until = pd_now_ns() + APPLY_NS;
    do {
        int over;
        status = pd_resident_apply_some(a->resident, a->staged, &over, err);
        if (over) a->staged = NULL;
    } while (!status && a->staged && pd_now_ns() < until);
    return status;
}

static void remark(pd_followed *out, const char *text)
{
    if (!out->first[0]) snprintf(out->first, sizeof out->first, "%.290s", text);
}

static pd_status apply_batch(const following *f, pd_batch *batch, pd_error *err)
{
    pd_resident *resident = f->box->served.resident;
    pd_stage_counts counts;
    applying a = {.resident = resident};
    pd_status status = pd_batch_bind(batch, f->box->served.version, f->device, &f->out->losses, err);
    if (status == PD_FAILED_PRECONDITION && f->any_width) {
        f->out->misfits++;
        remark(f->out, err->message);
        return PD_OK;
    }
    if (!status)
        status = pd_resident_stage(resident, &batch->change, batch->encoded, &a.staged, &counts, err);
    while (!status && a.staged)
        status = pd_executor_call(f->catalog->executor, apply, &a, err);
    if (a.staged) pd_staged_drop(resident, &a.staged, 1);
    if (!status) f->out->rows += batch->n;
    return status;
}

static pd_status note_erased(pd_followed *out, const pd_batch *batch, pd_error *err)
{
    if (batch->kind != PD_BATCH_ERASE) return PD_OK;
    uint64_t *more = realloc(out->erased, ((size_t)out->nerased + batch->n) * sizeof *more);
    if (!more) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the ids that were erased");
    memcpy(more + out->nerased, batch->ids, batch->n * sizeof *more);
    out->erased = more;
    out->nerased += batch->n;
    return PD_OK;
}

void pd_followed_free(pd_followed *followed)
{
    free(followed->erased);
    followed->erased = NULL;
    followed->nerased = 0;
}

static pd_status take_record(void *context, const pd_record *record, pd_error *err)
{
    const following *f = context;
    pd_batch *batch = NULL;
    pd_status status = pd_batch_of_record(record, &batch, err);
    if (status == PD_DATA_LOSS) {
        f->out->damaged++;
        remark(f->out, err->message);
        return PD_OK;
    }
    if (!status) status = apply_batch(f, batch, err);
    if (!status) status = note_erased(f->out, batch, err);
    pd_batch_free(batch);
    if (status) return pd_prefix(err, "change %" PRIu64, record->sequence);
    f->out->batches++;
    f->box->followed = record->sequence;
    return PD_OK;
}

static void note_damage(void *context, uint64_t sequence, const char *why)
{
    const following *f = context;
    f->out->damaged++;
    remark(f->out, why);
    pd_log(PD_LOG_ERROR, "table \"%s\": change %" PRIu64 " is lost: %s", f->box->table, sequence, why);
}

pd_status pd_follow(pd_catalog *catalog, pd_box *box, uint64_t upto, pd_device *device, int any_width,
                    pd_followed *out, pd_error *err)
{
    following f = {.catalog = catalog, .box = box, .device = device, .any_width = any_width, .out = out};
    uint64_t floor = 0;
    pd_status status = pd_changes_floor(catalog->changes, box->table, &floor, err);
    if (status) return status;
    if (floor > box->followed) out->gap = floor;
    if (upto > box->followed)
        status = pd_changes_read(catalog->changes, box->table, box->followed + 1, upto, take_record,
                                 note_damage, &f, err);
    if (!status && upto > box->followed) box->followed = upto;
    if (!status) pd_resident_reached(box->served.resident, box->followed);
    return status;
}

/* ----------------------------------------------------------------------------------------------------- pages --- */

static pd_status count_rows(void *context, const pd_record *record, pd_error *err)
{
    uint64_t *rows = context;
    uint32_t n = 0;
    (void)err;
    if (record->kind != PD_BATCH_UPSERT) return PD_OK;
    if (record->length >= sizeof n) memcpy(&n, record->bytes, sizeof n); /* what a body begins with */
    *rows += n;
    return PD_OK;
}

static void pass_over(void *context, uint64_t sequence, const char *why)
{
    (void)context, (void)sequence, (void)why; /* it is told when it is to be applied */
}

pd_status pd_follow_pages(pd_catalog *catalog, const char *table, uint64_t from, uint32_t nlist,
                          uint32_t *pages, pd_error *err)
{
    uint64_t rows = 0;
    pd_status status =
        pd_changes_read(catalog->changes, table, from + 1, UINT64_MAX, count_rows, pass_over, &rows, err);
    /* A page for every 32 rows, and one more for each list that rows come to. */
    uint64_t most = rows / PD_PAGE_ROWS + (rows < nlist ? rows : nlist) + (rows && !nlist);
    *pages = most < UINT32_MAX / PD_PAGE_ROWS ? (uint32_t)most : UINT32_MAX / PD_PAGE_ROWS;
    return status;
}

/* ------------------------------------------------------------------------------------------------------ words --- */

void pd_followed_text(const pd_followed *f, char *text)
{
    size_t room = 400, at = 0;
    text[0] = 0;
    if (f->gap)
        at += (size_t)snprintf(text, room, "changes up to %" PRIu64 " are no longer kept and are not in it; ",
                               f->gap);
    if (f->damaged)
        at += (size_t)snprintf(text + at, room - at, "%" PRIu64 " changes could not be read; ", f->damaged);
    if (f->misfits)
        at += (size_t)snprintf(text + at, room - at,
                               "%" PRIu64 " batches of rows of another width are not in it; ", f->misfits);
    if (f->losses.attributes || f->losses.values)
        at += (size_t)snprintf(text + at, room - at,
                               "%" PRIu64 " batches name attributes, and %" PRIu64
                               " cells values, that it does not have; ",
                               f->losses.attributes, f->losses.values);
    if (!at) return;
    const char *first = f->first[0] ? f->first : f->losses.first;
    if (first[0])
        snprintf(text + at, room - at, "first: %s", first);
    else
        text[at - 2] = 0;
}
