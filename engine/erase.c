/* Erasing rows: the request, and what a start and the upkeep take up again. See erase.h. */
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

#define LOOK_MS 1000u /* how often it is looked for what is pending */
#define RETRY_MS                                                                                             \
    60000u /* what fails is tried again at once, then less and less often, at least every so long */
#define FORGET_MS 3600000u /* how often it is looked for receipts that are old enough to go */
#define PAGE      1000u    /* receipts in one reply */

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the receipts");
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

static char **copy_steps(const pd_steps *steps, size_t *count)
{
    char **out = calloc(steps->n + 1, sizeof *out);
    for (uint32_t i = 0; out && i < steps->n; i++)
        if ((out[*count] = strdup(steps->at[i])) != NULL) ++*count;
    return out;
}

static pd_status tell(const pd_receipt_list *r, Pados__V1__Reply *reply, pd_error *err)
{
    Pados__V1__ErasureListReply *out = malloc(sizeof *out);
    if (!out) return no_memory(err);
    pados__v1__erasure_list_reply__init(out);
    reply->erasures = out;
    out->more = r->more;
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
        one->done = copy_steps(&in->done, &one->n_done);
        one->pending = copy_steps(&in->pending, &one->n_pending);
        if (!table || !asked || !deadline || !finished || one->n_done < in->done.n ||
            one->n_pending < in->pending.n)
            return no_memory(err);
    }
    return PD_OK;
}

pd_status pd_erase_list(pd_catalog *catalog, int pending, uint64_t after, Pados__V1__Reply *reply,
                        pd_error *err)
{
    pd_receipt_list r = {.from = after + 1, .most = PAGE};
    pd_status status = PD_OK;
    if (after < UINT64_MAX)
        status =
            pending ? pd_receipt_list_read(catalog, PD_RECEIPTS, &r, err) : pd_receipt_page(catalog, &r, err);
    if (!status) status = tell(&r, reply, err);
    pd_receipt_list_free(&r);
    return status;
}

/* ------------------------------------------------------------------------------------------------- the request --- */

/* What has to be done for a row of this table as things are now. */
static void expect(pd_catalog *catalog, const char *table_name, pd_receipt *receipt)
{
    pd_receipt_pending(receipt, PD_STEP_MEMORY, "");
    pthread_mutex_lock(&catalog->mutex);
    const pd_table *table = pd_table_find(catalog, table_name);
    for (uint32_t i = 0; table && i < table->nversions; i++) {
        char step[40];
        snprintf(step, sizeof step, "version %" PRIu64, table->versions[i].number);
        pd_receipt_pending(receipt, step, "");
    }
    pthread_mutex_unlock(&catalog->mutex);
    pd_receipt_pending(receipt, PD_STEP_LOG, "");
}

static pd_status make_receipts(pd_catalog *catalog, const char *table, const uint64_t *ids, uint32_t n,
                               pd_receipt_list *out, pd_error *err)
{
    double now = pd_days_now(), hours = (double)catalog->config->erase_ms / 3.6e6;
    out->at = calloc(n, sizeof *out->at);
    if (!out->at) return no_memory(err);
    for (uint32_t i = 0; i < n; i++) {
        pd_receipt *r = &out->at[i];
        out->n++;
        snprintf(r->table, sizeof r->table, "%s", table);
        r->id = ids[i];
        r->asked = now;
        r->deadline = now + hours / 24;
        expect(catalog, table, r);
    }
    return PD_OK;
}

/* The deletion of some rows and its receipts, between two groups of writes, so that nobody sees half of it. */
typedef struct deleting {
    pd_catalog *catalog;
    pd_batch *batch;
    pd_receipt *at; /* [n] */
    uint32_t n;
    int again; /* of a receipt that was read a while ago: it may have been done since */
} deleting;

/* The first one from its number on: itself, while it is pending. */
static pd_status still_wanted(void *context, pd_receipt *receipt, pd_error *err)
{
    deleting *d = context;
    (void)err;
    d->again = receipt->number == d->at->number && pd_receipt_wants_memory(receipt);
    return PD_CANCELLED;
}

static pd_status delete_rows(deleting *d, pd_error *err)
{
    pd_served *served = NULL;
    pd_written written = {0};
    pd_status status = pd_catalog_hold(d->catalog, d->batch->table, &served, err);
    if (status) return status;
    status = pd_batch_bind(d->batch, served->version, NULL, NULL, err);
    if (!status) status = pd_writer_now(d->catalog->writer, d->batch, served, &written, err);
    pd_catalog_release(served);
    for (uint32_t i = 0; !status && i < d->n; i++) {
        d->at[i].sequence = written.sequence;
        pd_receipt_done(&d->at[i], PD_STEP_MEMORY);
    }
    return status;
}

/* Receipts are on the disk before the deletion is: a crash between the two is taken up by the next start. Where nothing serves, there is
 * nothing in memory to delete from, and the receipts wait for it. */
static pd_status delete_with_receipts(void *argument, pd_error *err)
{
    deleting *d = argument;
    int again = d->again;
    d->again = 0;
    pd_status status = again ? pd_receipts(d->catalog, PD_RECEIPTS, d->at->number, still_wanted, d, err)
                             : pd_receipts_put(d->catalog, d->at, d->n, err);
    if (status || (again && !d->again)) return status; /* it was deleted meanwhile */
    pd_error why = {0};
    status = delete_rows(d, &why);
    if (status == PD_FAILED_PRECONDITION || status == PD_NOT_FOUND) {
        for (uint32_t i = 0; i < d->n; i++)
            pd_receipt_pending(&d->at[i], PD_STEP_MEMORY, why.message);
        status = PD_OK;
    }
    if (status) {
        *err = why;
        return status;
    }
    return pd_receipts_put(d->catalog, d->at, d->n, err);
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

static pd_status check_table(pd_catalog *catalog, const char *table, pd_error *err)
{
    pthread_mutex_lock(&catalog->mutex);
    int known = pd_table_find(catalog, table) != NULL;
    pthread_mutex_unlock(&catalog->mutex);
    return known ? PD_OK : pd_fail(err, PD_NOT_FOUND, "there is no table \"%.80s\"", table);
}

pd_status pd_erase_ask(pd_catalog *catalog, Pados__V1__Request *request, Pados__V1__Reply *reply,
                       pd_error *err)
{
    pd_batch *batch = NULL;
    pd_receipt_list r = {0};
    pd_status status = pd_batch_of_request(request, &batch, err);
    if (!status) status = check_table(catalog, batch->table, err);
    if (!status) status = make_receipts(catalog, batch->table, batch->ids, batch->n, &r, err);
    deleting d = {.catalog = catalog, .batch = batch, .at = r.at, .n = r.n};
    if (!status) status = pd_writer_run(catalog->writer, delete_with_receipts, &d, err);
    if (!status) queue(catalog, batch->table);
    if (!status) status = tell(&r, reply, err);
    pd_receipt_list_free(&r);
    pd_batch_free(batch);
    return status;
}

/* ------------------------------------------------------------------------------------------- start and upkeep --- */

/* Deletes what a receipt says is still in memory: one row at a time, since these are few. */
static pd_status delete_again(pd_catalog *catalog, pd_receipt *r, pd_error *err)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Erase erase = PADOS__V1__ERASE__INIT;
    pd_batch *batch = NULL;
    erase.table = r->table;
    erase.ids = &r->id;
    erase.n_ids = 1;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASE;
    request.erase = &erase;
    pd_status status = pd_batch_of_request(&request, &batch, err);
    expect(catalog, r->table, r);
    deleting d = {.catalog = catalog, .batch = batch, .at = r, .n = 1, .again = 1};
    if (!status) status = pd_writer_run(catalog->writer, delete_with_receipts, &d, err);
    pd_batch_free(batch);
    return status;
}

pd_status pd_erase_start(pd_catalog *catalog, pd_error *err)
{
    pd_receipt_list r = {0};
    pd_status status = pd_receipt_list_read(catalog, PD_RECEIPTS, &r, err);
    for (uint32_t i = 0; !status && i < r.n; i++) {
        pd_error one = {0};
        /* A table that does not serve is not held up for: the job tries again. */
        if (pd_receipt_wants_memory(&r.at[i]) && delete_again(catalog, &r.at[i], &one))
            pd_log(PD_LOG_ERROR, "erasure %" PRIu64 " of a row of \"%s\" is still pending: %s",
                   r.at[i].number, r.at[i].table, one.message);
        queue(catalog, r.at[i].table);
    }
    pd_receipt_list_free(&r);
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
    c->stats.pending++;
    c->stats.overdue += c->now > receipt->deadline;
    return PD_OK;
}

void pd_erase_stats_of(pd_catalog *catalog, pd_erase_stats *stats)
{
    counting c = {.now = pd_days_now()};
    pd_error none;
    pd_receipts(catalog, PD_RECEIPTS, 0, count, &c, &none);
    *stats = c.stats;
}

static pd_status forget(void *argument, pd_error *err)
{
    pd_catalog *catalog = argument;
    double before = pd_days_now() - catalog->config->receipt_days;
    uint32_t forgotten = 0;
    pd_status status = pd_receipts_forget(catalog, before, &forgotten, err);
    catalog->forget_again_ms = forgotten ? 0 : pd_now_ms() + FORGET_MS;
    return status;
}

void pd_erase_upkeep(pd_catalog *catalog)
{
    uint64_t now = pd_now_ms();
    if (now >= catalog->forget_again_ms) pd_writer_run(catalog->writer, forget, catalog, NULL);
    if (now < catalog->erase_again_ms) return;
    pd_receipt_list r = {0};
    pd_error err;
    double today = pd_days_now();
    uint32_t overdue = 0;
    if (pd_receipt_list_read(catalog, PD_RECEIPTS, &r, &err) == PD_OK)
        for (uint32_t i = 0; i < r.n; i++) {
            overdue += today > r.at[i].deadline;
            if (pd_receipt_wants_memory(&r.at[i])) delete_again(catalog, &r.at[i], &err);
            queue(catalog, r.at[i].table);
        }
    uint64_t wait = r.n && catalog->erase_wait_ms ? catalog->erase_wait_ms * 2 : LOOK_MS;
    catalog->erase_wait_ms = wait < RETRY_MS ? wait : RETRY_MS;
    catalog->erase_again_ms = now + catalog->erase_wait_ms;
    if (overdue)
        pd_log(PD_LOG_ERROR, "%u erasures are past their deadline (pados erasures --pending says why)",
               overdue);
    pd_receipt_list_free(&r);
}
