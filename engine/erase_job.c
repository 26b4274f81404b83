/* What is left of erased rows on the disk: versions' files and the log's records, scrubbed by the builder. See erase.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "erase_impl.h"
#include "log.h"
#include "publish.h"
#include "scrub.h"
#include "writer.h"

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the receipts");
}

/* A row that must be gone from what came before its deletion. Under the same id another may have come since, which stays. */
typedef struct leaving {
    uint64_t id, before;
} leaving;

/* Rows that leave, of one table, by id. */
typedef struct leavers {
    leaving *at;
    uint64_t *ids; /* [n]: those that leaving_from() found last */
    uint32_t n;
} leavers;

static void leavers_free(leavers *l)
{
    free(l->at);
    free(l->ids);
}

static int by_id(const void *left, const void *right)
{
    uint64_t l = ((const leaving *)left)->id, r = ((const leaving *)right)->id;
    return (l > r) - (l < r);
}

/* Each distinct id, ascending, with its last deletion. What is not deleted yet, since no version serves, leaves all there is. */
static pd_status leavers_of(const pd_receipt_list *r, leavers *out, pd_error *err)
{
    out->at = malloc((r->n + 1) * sizeof *out->at);
    out->ids = malloc((r->n + 1) * sizeof *out->ids);
    if (!out->at || !out->ids) return no_memory(err);
    for (uint32_t i = 0; i < r->n; i++)
        out->at[i] = (leaving){r->at[i].id, r->at[i].sequence ? r->at[i].sequence : UINT64_MAX};
    qsort(out->at, r->n, sizeof *out->at, by_id);
    for (uint32_t i = 0; i < r->n; i++) {
        leaving *last = out->n ? &out->at[out->n - 1] : NULL;
        if (!last || last->id != out->at[i].id)
            out->at[out->n++] = out->at[i];
        else if (last->before < out->at[i].before)
            last->before = out->at[i].before;
    }
    return PD_OK;
}

/* Those that leave what holds the changes up to `sequence`, in l->ids, ascending. */
static uint32_t leaving_from(const leavers *l, uint64_t sequence)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < l->n; i++)
        if (l->at[i].before > sequence) l->ids[n++] = l->at[i].id;
    return n;
}

/* The opened version of a number, where it is resident: held. */
static pd_served *hold_version(pd_catalog *catalog, const char *table, uint64_t number)
{
    char name[PD_MAX_NAME + 32];
    pd_served *served = NULL;
    pd_error none;
    snprintf(name, sizeof name, "%s@%" PRIu64, table, number);
    return pd_catalog_hold(catalog, name, &served, &none) ? NULL : served;
}

static pd_status scrub(pd_catalog *catalog, const char *table, uint64_t number, const uint64_t *ids,
                       uint32_t n, pd_error *err)
{
    char folder[PD_PATH_ROOM];
    uint32_t found = 0;
    pd_version_folder(catalog, table, number, folder);
    pd_served *served = hold_version(catalog, table, number);
    pthread_mutex_lock(&catalog->files);
    pd_status status = pd_version_scrub(folder, ids, n, served ? served->version : NULL, &found, err);
    pthread_mutex_unlock(&catalog->files);
    if (served) pd_catalog_release(served);
    if (found) pd_incoming_stage_again(catalog, table, number);
    if (status) return pd_prefix(err, "version %" PRIu64 " of \"%s\"", number, table);
    if (found)
        pd_log(PD_LOG_INFO, "version %" PRIu64 " of \"%s\": %u rows are scrubbed from its files", number,
               table, found);
    return PD_OK;
}

/* A table's versions on disk, and up to which change each holds the rows. */
typedef struct folders {
    uint64_t *numbers, *sequences;
    uint32_t n;
} folders;

static void folders_free(folders *f)
{
    free(f->numbers);
    free(f->sequences);
}

static pd_status folders_of(pd_catalog *catalog, const char *table_name, folders *out, pd_error *err)
{
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    uint32_t n = table ? table->nversions : 0;
    out->numbers = malloc((n + 1) * sizeof *out->numbers);
    out->sequences = malloc((n + 1) * sizeof *out->sequences);
    for (uint32_t i = 0; out->numbers && out->sequences && i < n; i++) {
        out->sequences[out->n] = table->versions[i].sequence;
        out->numbers[out->n++] = table->versions[i].number;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return out->n == n ? PD_OK : no_memory(err);
}

typedef struct forgetting {
    pd_catalog *catalog;
    const char *table;
    const leavers *rows;
} forgetting;

static pd_status forget(void *context, const pd_record *record, void **bytes, size_t *length, pd_error *err)
{
    forgetting *f = context;
    uint32_t n = leaving_from(f->rows, record->sequence);
    pd_status status = n ? pd_batch_forget(record, f->rows->ids, n, bytes, length, err) : PD_OK;
    if (status != PD_DATA_LOSS) return status;
    *bytes = NULL; /* a record that cannot be read is reported where it is wanted */
    return PD_OK;
}

static pd_status scrub_log(void *argument, pd_error *err)
{
    forgetting *f = argument;
    pd_status status = pd_changes_rewrite(f->catalog->changes, f->table, forget, f, err);
    /* Also where no record has the row: one that was trimmed or refused may lie in a free page. */
    if (!status && pd_changes_littered(f->catalog->changes))
        status = pd_changes_compact(f->catalog->changes, err);
    return status;
}

/* Steps of versions that have gone since are done: their files are. */
static void settle(pd_receipt_list *r, const folders *there)
{
    for (uint32_t i = 0; i < r->n; i++) {
        pd_receipt *one = &r->at[i];
        for (uint32_t s = one->pending.n; s-- > 0;) {
            char step[40];
            uint64_t number;
            int is_there = 0;
            if (sscanf(one->pending.at[s], "version %" SCNu64, &number) != 1) continue;
            for (uint32_t v = 0; v < there->n; v++)
                is_there |= there->numbers[v] == number;
            snprintf(step, sizeof step, "version %" PRIu64, number);
            if (!is_there) pd_receipt_done(one, step);
        }
        if (!one->pending.n && one->finished <= 0) one->finished = pd_days_now();
    }
}

typedef struct putting {
    pd_catalog *catalog;
    pd_receipt_list *list;
} putting;

static pd_status put(void *argument, pd_error *err)
{
    const putting *p = argument;
    return pd_receipts_put(p->catalog, p->list->at, p->list->n, err);
}

static int serves(pd_catalog *catalog, const char *table_name)
{
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    int yes = table && table->serving;
    pthread_mutex_unlock(&catalog->mutex);
    return yes;
}

/* Rows that are still in memory wait for their deletion, which says what is older and goes; where nothing serves, all of theirs
 * goes. */
static void leave_those_in_memory(pd_catalog *catalog, pd_receipt_list *r)
{
    uint32_t kept = 0;
    if (!serves(catalog, r->table)) return;
    for (uint32_t i = 0; i < r->n; i++) {
        if (pd_receipt_wants_memory(&r->at[i]))
            pd_receipt_free(&r->at[i]);
        else
            r->at[kept++] = r->at[i];
    }
    r->n = kept;
}

/* One step for all receipts of the list: what it came to is marked in them. Returns that. */
static pd_status take_step(pd_receipt_list *r, const char *step, pd_status result, const pd_error *why,
                           pd_error *err)
{
    for (uint32_t i = 0; i < r->n; i++) {
        if (result)
            pd_receipt_pending(&r->at[i], step, why->message);
        else
            pd_receipt_done(&r->at[i], step);
    }
    if (result) *err = *why;
    return result;
}

pd_status pd_job_erase(pd_catalog *catalog, pd_job *job, pd_error *err)
{
    pd_receipt_list r = {.table = job->table};
    leavers rows = {0};
    folders there = {0};
    pd_error last = {0};
    pd_status failed = PD_OK, status = pd_receipt_list_read(catalog, PD_RECEIPTS, &r, err);
    if (!status) leave_those_in_memory(catalog, &r);
    if (!status) status = leavers_of(&r, &rows, err);
    if (!status) status = folders_of(catalog, job->table, &there, err);
    if (status || !rows.n) goto out;
    for (uint32_t v = 0; v < there.n && !atomic_load(&catalog->stopping); v++) {
        char step[40];
        pd_error one = {0};
        uint32_t n = leaving_from(&rows, there.sequences[v]);
        snprintf(step, sizeof step, "version %" PRIu64, there.numbers[v]);
        pd_status result = n ? scrub(catalog, job->table, there.numbers[v], rows.ids, n, &one) : PD_OK;
        if (take_step(&r, step, result, &one, &last)) failed = result;
    }
    forgetting f = {.catalog = catalog, .table = job->table, .rows = &rows};
    pd_error one = {0};
    pd_status result = pd_writer_run(catalog->writer, scrub_log, &f, &one);
    if (take_step(&r, PD_STEP_LOG, result, &one, &last)) failed = result;
    settle(&r, &there);
    putting p = {.catalog = catalog, .list = &r};
    status = pd_writer_run(catalog->writer, put, &p, err);
    if (!status && failed) {
        *err = last;
        status = failed;
    }
out:
    folders_free(&there);
    leavers_free(&rows);
    pd_receipt_list_free(&r);
    return status;
}

void pd_erase_version(pd_catalog *catalog, const char *table, uint64_t number, const uint64_t *ids,
                      uint32_t n)
{
    pd_error err = {0};
    if (!n || scrub(catalog, table, number, ids, n, &err) == PD_OK) return;
    /* The next job tries again: every unfinished receipt looks at every version. */
    pd_log(PD_LOG_ERROR, "rows that were erased are still in files: %s", err.message);
}

/* Ids of the erasures that a read of the log meets. */
typedef struct met {
    uint64_t *ids;
    uint32_t n;
} met;

static pd_status meet(void *context, const pd_record *record, pd_error *err)
{
    met *m = context;
    pd_batch *batch = NULL;
    if (record->kind != PD_BATCH_ERASE) return PD_OK;
    pd_status status = pd_batch_of_record(record, &batch, err);
    if (status) return status;
    uint64_t *more = realloc(m->ids, ((size_t)m->n + batch->n) * sizeof *more);
    if (more) {
        memcpy(more + m->n, batch->ids, batch->n * sizeof *more);
        m->ids = more;
        m->n += batch->n;
    } else {
        status = no_memory(err);
    }
    pd_batch_free(batch);
    return status;
}

static void pass_over(void *context, uint64_t sequence, const char *why)
{
    (void)context, (void)sequence, (void)why; /* it is told when it is to be applied */
}

pd_status pd_erase_since(pd_catalog *catalog, const char *table, uint64_t number, uint64_t sequence,
                         pd_error *err)
{
    met m = {0};
    pd_status status =
        pd_changes_read(catalog->changes, table, sequence + 1, UINT64_MAX, meet, pass_over, &m, err);
    if (!status && m.n) status = scrub(catalog, table, number, m.ids, m.n, err);
    free(m.ids);
    return status;
}
