/* Receipts as JSON documents in the log's environment: see erase_impl.h. Ids are texts, since JSON's numbers do not hold 64 bits. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "erase_impl.h"
#include "writer.h"

pd_status pd_receipt_make(pd_receipt *r, pd_error *err)
{
    *r = (pd_receipt){0};
    r->done = calloc(PD_STEPS, sizeof *r->done);
    r->pending = calloc(PD_STEPS, sizeof *r->pending);
    if (r->done && r->pending) return PD_OK;
    pd_receipt_free(r);
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a receipt");
}

void pd_receipt_free(pd_receipt *r)
{
    free(r->done);
    free(r->pending);
    r->done = r->pending = NULL;
}

/* ------------------------------------------------------------------------------------------------------ steps --- */

/* "version 7: why" is a step of "version 7". */
static int same_step(const char *text, const char *step)
{
    size_t length = strlen(step);
    return !strncmp(text, step, length) && (!text[length] || text[length] == ':');
}

static void take_out(char (*steps)[PD_STEP], uint32_t *n, const char *step)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n; i++) {
        if (same_step(steps[i], step)) continue;
        if (kept != i) memcpy(steps[kept], steps[i], PD_STEP);
        kept++;
    }
    *n = kept;
}

void pd_receipt_done(pd_receipt *r, const char *step)
{
    take_out(r->pending, &r->npending, step);
    take_out(r->done, &r->ndone, step);
    if (r->ndone < PD_STEPS) snprintf(r->done[r->ndone++], PD_STEP, "%s", step);
}

void pd_receipt_pending(pd_receipt *r, const char *step, const char *why)
{
    take_out(r->done, &r->ndone, step);
    take_out(r->pending, &r->npending, step);
    if (r->npending < PD_STEPS)
        snprintf(r->pending[r->npending++], PD_STEP, *why ? "%s: %.160s" : "%s", step, why);
}

/* -------------------------------------------------------------------------------------------------- documents --- */

static json_t *texts_of(char (*steps)[PD_STEP], uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; array && i < n; i++)
        json_array_append_new(array, json_string(steps[i]));
    return array;
}

pd_status pd_receipt_text(const pd_receipt *r, char **text, pd_error *err)
{
    char id[24];
    snprintf(id, sizeof id, "%" PRIu64, r->id);
    json_t *body =
        json_pack("{s:s, s:s, s:f, s:f, s:f, s:I, s:o, s:o}", "table", r->table, "id", id, "asked", r->asked,
                  "deadline", r->deadline, "finished", r->finished, "sequence", (json_int_t)r->sequence,
                  "done", texts_of(r->done, r->ndone), "pending", texts_of(r->pending, r->npending));
    *text = body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(body);
    return *text ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a receipt");
}

static void read_steps(const json_t *array, char (*steps)[PD_STEP], uint32_t *n)
{
    for (size_t i = 0; i < json_array_size(array) && *n < PD_STEPS; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (text) snprintf(steps[(*n)++], PD_STEP, "%s", text);
    }
}

pd_status pd_receipt_read(uint64_t number, const void *bytes, size_t length, pd_receipt *r, pd_error *err)
{
    pd_status status = pd_receipt_make(r, err);
    if (status) return status;
    const char *table = NULL, *id = NULL;
    json_int_t sequence = 0;
    json_t *done = NULL, *pending = NULL, *body = json_loadb(bytes, length, 0, NULL);
    int good = body && !json_unpack(body, "{s:s, s:s, s:F, s:F, s:F, s:I, s:o, s:o}", "table", &table, "id",
                                    &id, "asked", &r->asked, "deadline", &r->deadline, "finished",
                                    &r->finished, "sequence", &sequence, "done", &done, "pending", &pending);
    if (good && strlen(table) < sizeof r->table) {
        char *end;
        r->sequence = (uint64_t)sequence;
        r->number = number;
        memcpy(r->table, table, strlen(table) + 1);
        r->id = strtoull(id, &end, 10);
        read_steps(done, r->done, &r->ndone);
        read_steps(pending, r->pending, &r->npending);
        good = *id && !*end;
    } else {
        good = 0;
    }
    json_decref(body);
    if (good) return PD_OK;
    pd_receipt_free(r);
    return pd_fail(err, PD_DATA_LOSS, "erasure %" PRIu64 " is no receipt", number);
}

/* ---------------------------------------------------------------------------------------------------- the log --- */

typedef struct visiting {
    pd_receipt_visit visit;
    void *context;
} visiting;

static pd_status visit_document(void *context, uint64_t number, const void *bytes, size_t length,
                                pd_error *err)
{
    const visiting *v = context;
    pd_receipt receipt;
    pd_status status = pd_receipt_read(number, bytes, length, &receipt, err);
    if (status) return status;
    status = v->visit(v->context, &receipt, err);
    pd_receipt_free(&receipt);
    return status;
}

pd_status pd_receipts(pd_catalog *catalog, pd_receipt_visit visit, void *context, pd_error *err)
{
    visiting v = {.visit = visit, .context = context};
    return pd_changes_documents(catalog->changes, PD_RECEIPTS, visit_document, &v, err);
}

typedef struct putting {
    pd_catalog *catalog;
    pd_receipt *receipts;
    uint32_t n;
} putting;

static pd_status last_number(void *context, uint64_t number, const void *bytes, size_t length, pd_error *err)
{
    (void)bytes, (void)length, (void)err;
    *(uint64_t *)context = number;
    return PD_OK;
}

static pd_status put(void *argument, pd_error *err)
{
    const putting *p = argument;
    uint64_t last = 0;
    pd_status status = pd_changes_documents(p->catalog->changes, PD_RECEIPTS, last_number, &last, err);
    for (uint32_t i = 0; !status && i < p->n; i++) {
        char *text = NULL;
        pd_receipt *receipt = &p->receipts[i];
        uint64_t number = receipt->number ? receipt->number : last + 1;
        status = pd_receipt_text(receipt, &text, err);
        if (!status)
            status = pd_changes_put(p->catalog->changes, PD_RECEIPTS, number, text, strlen(text), err);
        free(text);
        if (status) break;
        if (!receipt->number) last = receipt->number = number;
    }
    return status;
}

pd_status pd_receipts_put(pd_catalog *catalog, pd_receipt *receipts, uint32_t n, pd_error *err)
{
    putting p = {.catalog = catalog, .receipts = receipts, .n = n};
    return pd_writer_run(catalog->writer, put, &p, err);
}
