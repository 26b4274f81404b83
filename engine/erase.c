/* Erasing rows: the request, the job, and what a start takes up again. See erase.h. */
#include "erase.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "batch.h"
#include "erase_impl.h"
#include "log.h"
#include "pados.pb-c.h"
#include "publish.h"
#include "scrub.h"
#include "writer.h"

#define RETRY_MS    60000u /* until what failed is tried again */
#define STEP_MEMORY "memory"
#define STEP_LOG    "log"
#define MOST_LISTED 10000u

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the receipts");
}

/* Several receipts at once. */
typedef struct receipts {
    pd_receipt *at;
    uint32_t n, room;
    const char *table; /* of this table alone; NULL: of all */
    int pending;       /* unfinished ones alone */
    int deleted;       /* those whose rows have left the memory alone */
    uint32_t most;     /* the last so many; 0: all */
} receipts;

static void receipts_free(receipts *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        pd_receipt_free(&r->at[i]);
    free(r->at);
}

static int wants_memory(const pd_receipt *r)
{
    for (uint32_t i = 0; i < r->npending; i++)
        if (!strncmp(r->pending[i], STEP_MEMORY, strlen(STEP_MEMORY))) return 1;
    return 0;
}

static pd_status keep(void *context, pd_receipt *receipt, pd_error *err)
{
    receipts *r = context;
    if ((r->pending && receipt->finished > 0) || (r->table && strcmp(r->table, receipt->table))) return PD_OK;
    if (r->deleted && wants_memory(receipt)) return PD_OK;
    if (r->most && r->n == r->most) { /* the oldest makes room */
        pd_receipt_free(&r->at[0]);
        memmove(&r->at[0], &r->at[1], --r->n * sizeof *r->at);
    }
    if (r->n == r->room) {
        uint32_t room = r->room ? r->room * 2 : 16;
        pd_receipt *grown = realloc(r->at, room * sizeof *grown);
        if (!grown) return no_memory(err);
        r->at = grown;
        r->room = room;
    }
    r->at[r->n++] = *receipt;
    receipt->done = receipt->pending = NULL; /* ours now */
    return PD_OK;
}

/* ------------------------------------------------------------------------------------------------------ reply --- */

static char *text_of_day(double days)
{
    char text[32] = "";
    time_t seconds = (time_t)(days * 86400);
    struct tm parts;
    if (days > 0 && gmtime_r(&seconds, &parts)) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return strdup(text);
}

static char **copy_steps(char (*steps)[PD_STEP], uint32_t n, size_t *count)
{
    char **out = calloc(n + 1, sizeof *out);
    for (uint32_t i = 0; out && i < n; i++)
        if ((out[*count] = strdup(steps[i])) != NULL) ++*count;
    return out;
}

static pd_status tell(const receipts *r, Pados__V1__Reply *reply, pd_error *err)
{
    Pados__V1__ErasureListReply *out = malloc(sizeof *out);
    if (!out) return no_memory(err);
    pados__v1__erasure_list_reply__init(out);
    reply->erasures = out;
    reply->body_case = PADOS__V1__REPLY__BODY_ERASURES;
    out->erasures = calloc(r->n + 1, sizeof *out->erasures);
    if (!out->erasures) return no_memory(err);
    for (uint32_t i = 0; i < r->n; i++) {
        const pd_receipt *in = &r->at[i];
        Pados__V1__Erasure *one = malloc(sizeof *one);
        if (!one) return no_memory(err);
        pados__v1__erasure__init(one);
        out->erasures[out->n_erasures++] = one;
        one->number = in->number;
        one->id = in->id;
        char *table = strdup(in->table), *asked = text_of_day(in->asked),
             *deadline = text_of_day(in->deadline), *finished = text_of_day(in->finished);
        if (table) one->table = table;
        if (asked) one->asked = asked;
        if (deadline) one->deadline = deadline;
        if (finished) one->finished = finished;
        one->done = copy_steps(in->done, in->ndone, &one->n_done);
        one->pending = copy_steps(in->pending, in->npending, &one->n_pending);
        if (!table || !asked || !deadline || !finished || one->n_done < in->ndone ||
            one->n_pending < in->npending)
            return no_memory(err);
    }
    return PD_OK;
}

pd_status pd_erase_list(pd_catalog *catalog, int pending, Pados__V1__Reply *reply, pd_error *err)
{
    receipts r = {.pending = pending, .most = MOST_LISTED};
    pd_status status = pd_receipts(catalog, keep, &r, err);
    if (!status) status = tell(&r, reply, err);
    receipts_free(&r);
    return status;
}

/* ------------------------------------------------------------------------------------------------- the request --- */

/* What has to be done for a row of this table as things are now. */
static void expect(pd_catalog *catalog, const char *table_name, pd_receipt *receipt)
{
    pd_receipt_pending(receipt, STEP_MEMORY, "");
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    for (uint32_t i = 0; table && i < table->nversions; i++) {
        char step[40];
        snprintf(step, sizeof step, "version %" PRIu64, table->versions[i].number);
        pd_receipt_pending(receipt, step, "");
    }
    pthread_mutex_unlock(&catalog->mutex);
    pd_receipt_pending(receipt, STEP_LOG, "");
}

static pd_status make_receipts(pd_catalog *catalog, const char *table, const uint64_t *ids, uint32_t n,
                               receipts *out, pd_error *err)
{
    double now = pd_days_now(), hours = (double)catalog->config->erase_ms / 3.6e6;
    out->at = calloc(n, sizeof *out->at);
    if (!out->at) return no_memory(err);
    for (uint32_t i = 0; i < n; i++) {
        pd_receipt *r = &out->at[i];
        pd_status status = pd_receipt_make(r, err);
        if (status) return status;
        out->n++;
        snprintf(r->table, sizeof r->table, "%s", table);
        r->id = ids[i];
        r->asked = now;
        r->deadline = now + hours / 24;
        expect(catalog, table, r);
    }
    return PD_OK;
}

/* The deletion, logged and applied between two groups of writes. */
typedef struct deleting {
    pd_catalog *catalog;
    pd_batch *batch;
    uint64_t again;    /* the receipt that still wants it; 0: it is asked for now */
    int wanted;        /* it does */
    uint64_t sequence; /* under which it was logged */
} deleting;

static pd_status see_wanted(void *context, pd_receipt *receipt, pd_error *err)
{
    deleting *d = context;
    (void)err;
    if (receipt->number == d->again) d->wanted = wants_memory(receipt);
    return PD_OK;
}

static pd_status delete_rows(void *argument, pd_error *err)
{
    deleting *d = argument;
    pd_served *served = NULL;
    pd_written written;
    pd_status status = d->again ? pd_receipts(d->catalog, see_wanted, d, err) : PD_OK;
    if (status || (d->again && !d->wanted)) return status;
    status = pd_catalog_hold(d->catalog, d->batch->table, &served, err);
    if (status) return status;
    status = pd_batch_bind(d->batch, served->version, NULL, NULL, err);
    if (!status) status = pd_writer_now(d->catalog->writer, d->batch, served, &written, err);
    if (!status) d->sequence = written.sequence;
    pd_catalog_release(served);
    return status;
}

/* A job that runs may have read the receipts before this one came. With the mutex held. */
static int is_queued(const pd_catalog *catalog, const char *table)
{
    int queued = 0;
    for (uint32_t i = 0; i < catalog->jobs.count; i++) {
        const pd_job *job = catalog->jobs.at[i];
        queued |= job->state == PD_JOB_QUEUED && job->kind == PD_JOB_ERASE && !strcmp(job->table, table);
    }
    return queued;
}

static void queue(pd_catalog *catalog, const char *table)
{
    pd_error err = {0};
    pd_job *job;
    pthread_mutex_lock(&catalog->mutex);
    if (!is_queued(catalog, table) && pd_job_add(catalog, PD_JOB_ERASE, table, &job, &err))
        pd_log(PD_LOG_WARNING, "the erasures of \"%s\" wait: %s", table, err.message);
    pthread_mutex_unlock(&catalog->mutex);
}

/* Receipts are on the disk before the deletion is: a crash between the two is taken up by the next start. again: they are
 * already, as of a moment ago: whose request has deleted the row meanwhile is passed over, since there may be a new one. */
static pd_status begin(pd_catalog *catalog, pd_batch *batch, receipts *r, uint64_t again, pd_error *err)
{
    deleting d = {.catalog = catalog, .batch = batch, .again = again};
    pd_status status = again ? PD_OK : pd_receipts_put(catalog, r->at, r->n, err);
    if (!status) status = pd_writer_run(catalog->writer, delete_rows, &d, err);
    if (status || (again && !d.wanted)) return status;
    for (uint32_t i = 0; i < r->n; i++) {
        r->at[i].sequence = d.sequence;
        pd_receipt_done(&r->at[i], STEP_MEMORY);
    }
    return pd_receipts_put(catalog, r->at, r->n, err);
}

pd_status pd_erase_ask(pd_catalog *catalog, Pados__V1__Request *request, Pados__V1__Reply *reply,
                       pd_error *err)
{
    pd_batch *batch = NULL;
    pd_served *served = NULL;
    receipts r = {0};
    pd_status status = pd_batch_of_request(request, &batch, err);
    if (!status) status = pd_catalog_hold(catalog, batch->table, &served, err); /* there is such a table */
    if (!status) status = make_receipts(catalog, batch->table, batch->ids, batch->n, &r, err);
    if (!status) status = begin(catalog, batch, &r, 0, err);
    if (!status) queue(catalog, batch->table);
    if (!status) status = tell(&r, reply, err);
    if (served) pd_catalog_release(served);
    receipts_free(&r);
    pd_batch_free(batch);
    return status;
}

/* ---------------------------------------------------------------------------------------------------- the job --- */

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
static pd_status leavers_of(const receipts *r, leavers *out, pd_error *err)
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

static void mark(receipts *r, const char *step, pd_status status, const pd_error *err)
{
    for (uint32_t i = 0; i < r->n; i++) {
        if (status)
            pd_receipt_pending(&r->at[i], step, err->message);
        else
            pd_receipt_done(&r->at[i], step);
    }
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

/* sequences: up to which change each version holds the rows. */
static uint32_t versions_of(pd_catalog *catalog, const char *table_name, uint64_t *numbers,
                            uint64_t *sequences, uint32_t most)
{
    uint32_t n = 0;
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    for (uint32_t i = 0; table && i < table->nversions && n < most; i++) {
        sequences[n] = table->versions[i].sequence;
        numbers[n++] = table->versions[i].number;
    }
    pthread_mutex_unlock(&catalog->mutex);
    return n;
}

typedef struct forgetting {
    pd_catalog *catalog;
    const char *table;
    const leavers *rows;
    uint32_t rewritten;
} forgetting;

static pd_status forget(void *context, const pd_record *record, void **bytes, size_t *length, pd_error *err)
{
    forgetting *f = context;
    uint32_t n = leaving_from(f->rows, record->sequence);
    pd_status status = n ? pd_batch_forget(record, f->rows->ids, n, bytes, length, err) : PD_OK;
    f->rewritten += *bytes != NULL;
    if (status != PD_DATA_LOSS) return status;
    *bytes = NULL; /* a record that cannot be read is reported where it is wanted */
    return PD_OK;
}

static pd_status scrub_log(void *argument, pd_error *err)
{
    forgetting *f = argument;
    pd_status status = pd_changes_rewrite(f->catalog->changes, f->table, forget, f, err);
    if (!status && f->rewritten) status = pd_changes_compact(f->catalog->changes, err);
    return status;
}

/* Steps of versions that have gone since are done: their files are. */
static void settle(receipts *r, const uint64_t *numbers, uint32_t n)
{
    for (uint32_t i = 0; i < r->n; i++) {
        pd_receipt *one = &r->at[i];
        for (uint32_t s = one->npending; s-- > 0;) {
            char step[40];
            uint64_t number;
            int there = 0;
            if (sscanf(one->pending[s], "version %" SCNu64, &number) != 1) continue;
            for (uint32_t v = 0; v < n; v++)
                there |= numbers[v] == number;
            snprintf(step, sizeof step, "version %" PRIu64, number);
            if (!there) pd_receipt_done(one, step);
        }
        if (!one->npending && one->finished <= 0) one->finished = pd_days_now();
    }
}

static int serves(pd_catalog *catalog, const char *table_name)
{
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    int yes = table && table->serving;
    pthread_mutex_unlock(&catalog->mutex);
    return yes;
}

/* Receipts whose rows are still to be deleted are somebody's who is about to write them, and wait; where nothing serves no one is. */
pd_status pd_job_erase(pd_catalog *catalog, pd_job *job, pd_error *err)
{
    receipts r = {.table = job->table, .pending = 1, .deleted = serves(catalog, job->table)};
    leavers rows = {0};
    uint64_t numbers[PD_STEPS], sequences[PD_STEPS];
    pd_error last = {0};
    pd_status failed = PD_OK, status = pd_receipts(catalog, keep, &r, err);
    if (!status) status = leavers_of(&r, &rows, err);
    if (status || !rows.n) goto out;
    uint32_t nversions = versions_of(catalog, job->table, numbers, sequences, PD_STEPS / 2);
    for (uint32_t v = 0; v < nversions && !atomic_load(&catalog->stopping); v++) {
        char step[40];
        pd_error one = {0};
        snprintf(step, sizeof step, "version %" PRIu64, numbers[v]);
        uint32_t n = leaving_from(&rows, sequences[v]);
        pd_status result = n ? scrub(catalog, job->table, numbers[v], rows.ids, n, &one) : PD_OK;
        mark(&r, step, result, &one);
        if (result) last = one, failed = result;
    }
    forgetting f = {.catalog = catalog, .table = job->table, .rows = &rows};
    pd_error one = {0};
    pd_status result = pd_writer_run(catalog->writer, scrub_log, &f, &one);
    mark(&r, STEP_LOG, result, &one);
    if (result) last = one, failed = result;
    settle(&r, numbers, nversions);
    status = pd_receipts_put(catalog, r.at, r.n, err);
    if (!status && failed) {
        *err = last;
        status = failed;
    }
out:
    leavers_free(&rows);
    receipts_free(&r);
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

/* ------------------------------------------------------------------------------------------- start and upkeep --- */

/* Deletes what a receipt says is still in memory: one row at a time, since these are few. */
static pd_status delete_again(pd_catalog *catalog, pd_receipt *r, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Erase erase = PADOS__V1__ERASE__INIT;
    pd_batch *batch = NULL;
    receipts one = {.at = r, .n = 1};
    erase.table = r->table;
    erase.ids = &r->id;
    erase.n_ids = 1;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASE;
    request.erase = &erase;
    pd_status status = pd_batch_of_request(&request, &batch, err);
    expect(catalog, r->table, r);
    if (!status) status = begin(catalog, batch, &one, r->number, err);
    pd_batch_free(batch);
    return status;
}

pd_status pd_erase_start(pd_catalog *catalog, pd_error *err)
{
    receipts r = {.pending = 1};
    pd_status status = pd_receipts(catalog, keep, &r, err);
    for (uint32_t i = 0; !status && i < r.n; i++) {
        pd_error one = {0};
        /* A table that does not serve is not held up for: the job tries again. */
        if (wants_memory(&r.at[i]) && delete_again(catalog, &r.at[i], &one))
            pd_log(PD_LOG_ERROR, "erasure %" PRIu64 " of a row of \"%s\" is still pending: %s",
                   r.at[i].number, r.at[i].table, one.message);
        queue(catalog, r.at[i].table);
    }
    receipts_free(&r);
    return status;
}

typedef struct counting {
    pd_erase_stats stats;
    double now;
} counting;

static pd_status count(void *context, pd_receipt *receipt, pd_error *err)
{
    counting *c = context;
    (void)err;
    c->stats.pending += receipt->finished <= 0;
    c->stats.overdue += receipt->finished <= 0 && c->now > receipt->deadline;
    return PD_OK;
}

void pd_erase_stats_of(pd_catalog *catalog, pd_erase_stats *stats)
{
    counting c = {.now = pd_days_now()};
    pd_error none;
    pd_receipts(catalog, count, &c, &none);
    *stats = c.stats;
}

void pd_erase_upkeep(pd_catalog *catalog)
{
    uint64_t now = pd_now_ms();
    if (now < catalog->erase_again_ms) return;
    catalog->erase_again_ms = now + RETRY_MS;
    receipts r = {.pending = 1};
    pd_error err;
    double today = pd_days_now();
    uint32_t overdue = 0;
    if (pd_receipts(catalog, keep, &r, &err) == PD_OK)
        for (uint32_t i = 0; i < r.n; i++) {
            overdue += today > r.at[i].deadline;
            if (wants_memory(&r.at[i])) delete_again(catalog, &r.at[i], &err);
            queue(catalog, r.at[i].table);
        }
    if (overdue)
        pd_log(PD_LOG_ERROR, "%u erasures are past their deadline (pados erasures --pending says why)",
               overdue);
    receipts_free(&r);
}
