/* Receipts as JSON documents in the log's environment: see erase_impl.h. Ids are texts, since JSON's numbers do not hold 64 bits. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "erase_impl.h"

#define PUT_ONCE 1024u /* receipts in one transaction: as many as an erasure may have rows */

static pd_status no_memory(pd_error *err)
{
    return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the receipts");
}

void pd_receipt_free(pd_receipt *r)
{
    free(r->done.at);
    free(r->pending.at);
    r->done = r->pending = (pd_steps){0};
}

/* ------------------------------------------------------------------------------------------------------ steps --- */

/* "version 7: why" is a step of "version 7". */
static int same_step(const char *text, const char *step)
{
    size_t length = strlen(step);
    return !strncmp(text, step, length) && (!text[length] || text[length] == ':');
}

static void take_out(pd_steps *steps, const char *step)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < steps->n; i++) {
        if (same_step(steps->at[i], step)) continue;
        if (kept != i) memcpy(steps->at[kept], steps->at[i], PD_STEP);
        kept++;
    }
    steps->n = kept;
}

/* Room for one more; NULL: no memory, and the receipt knows. */
static char *add_step(pd_receipt *r, pd_steps *steps)
{
    if (steps->n == steps->room) {
        uint32_t room = steps->room ? steps->room * 2 : 8;
        void *grown = realloc(steps->at, (size_t)room * PD_STEP);
        if (!grown) {
            r->lost = 1;
            return NULL;
        }
        steps->at = grown;
        steps->room = room;
    }
    return steps->at[steps->n++];
}

void pd_receipt_done(pd_receipt *r, const char *step)
{
    take_out(&r->pending, step);
    take_out(&r->done, step);
    char *text = add_step(r, &r->done);
    if (text) snprintf(text, PD_STEP, "%s", step);
}

void pd_receipt_pending(pd_receipt *r, const char *step, const char *why)
{
    take_out(&r->done, step);
    take_out(&r->pending, step);
    char *text = add_step(r, &r->pending);
    if (text) snprintf(text, PD_STEP, *why ? "%s: %.160s" : "%s", step, why);
}

int pd_receipt_wants_memory(const pd_receipt *r)
{
    for (uint32_t i = 0; i < r->pending.n; i++)
        if (same_step(r->pending.at[i], PD_STEP_MEMORY)) return 1;
    return 0;
}

/* -------------------------------------------------------------------------------------------------- documents --- */

static json_t *texts_of(const pd_steps *steps)
{
    json_t *array = json_array();
    for (uint32_t i = 0; array && i < steps->n; i++)
        json_array_append_new(array, json_string(steps->at[i]));
    return array;
}

pd_status pd_receipt_text(const pd_receipt *r, char **text, pd_error *err)
{
    char id[24];
    if (r->lost) return no_memory(err);
    snprintf(id, sizeof id, "%" PRIu64, r->id);
    json_t *body =
        json_pack("{s:s, s:s, s:f, s:f, s:f, s:I, s:o, s:o}", "table", r->table, "id", id, "asked", r->asked,
                  "deadline", r->deadline, "finished", r->finished, "sequence", (json_int_t)r->sequence,
                  "done", texts_of(&r->done), "pending", texts_of(&r->pending));
    *text = body ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(body);
    return *text ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for a receipt");
}

static void read_steps(pd_receipt *r, const json_t *array, pd_steps *steps)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *text = json_string_value(json_array_get(array, i));
        char *step = text ? add_step(r, steps) : NULL;
        if (step) snprintf(step, PD_STEP, "%s", text);
    }
}

pd_status pd_receipt_read(uint64_t number, const void *bytes, size_t length, pd_receipt *r, pd_error *err)
{
    *r = (pd_receipt){0};
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
        read_steps(r, done, &r->done);
        read_steps(r, pending, &r->pending);
        good = *id && !*end;
    } else {
        good = 0;
    }
    json_decref(body);
    if (good && !r->lost) return PD_OK;
    pd_receipt_free(r);
    if (good) return no_memory(err);
    return pd_fail(err, PD_DATA_LOSS, "erasure %" PRIu64 " is no receipt", number);
}

/* ---------------------------------------------------------------------------------------------------- reading --- */

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

pd_status pd_receipts(pd_catalog *catalog, const char *collection, uint64_t from, pd_receipt_visit visit,
                      void *context, pd_error *err)
{
    visiting v = {.visit = visit, .context = context};
    return pd_changes_documents(catalog->changes, collection, from, visit_document, &v, err);
}

static pd_status keep(void *context, pd_receipt *receipt, pd_error *err)
{
    pd_receipt_list *list = context;
    if (list->table && strcmp(list->table, receipt->table)) return PD_OK;
    if (list->most && list->n == list->most) {
        list->more = 1;
        return PD_CANCELLED;
    }
    if (list->n == list->room) {
        uint32_t room = list->room ? list->room * 2 : 16;
        pd_receipt *grown = realloc(list->at, room * sizeof *grown);
        if (!grown) return no_memory(err);
        list->at = grown;
        list->room = room;
    }
    list->at[list->n++] = *receipt;
    receipt->done = receipt->pending = (pd_steps){0}; /* the list's now */
    return PD_OK;
}

pd_status pd_receipt_list_read(pd_catalog *catalog, const char *collection, pd_receipt_list *list,
                               pd_error *err)
{
    return pd_receipts(catalog, collection, list->from, keep, list, err);
}

/* Adds one of the two to the page and frees the other where both are the same receipt. */
static void merge(pd_receipt_list *page, pd_receipt_list *a, uint32_t *i, pd_receipt_list *b, uint32_t *j)
{
    int same = *i < a->n && *j < b->n && a->at[*i].number == b->at[*j].number;
    if (same) pd_receipt_free(&a->at[(*i)++]);
    int first = *i < a->n && (*j == b->n || a->at[*i].number < b->at[*j].number);
    page->at[page->n++] = first ? a->at[(*i)++] : b->at[(*j)++];
}

/* What is pending is read first: a receipt that is finished in between is in both then, and never in neither. */
pd_status pd_receipt_page(pd_catalog *catalog, pd_receipt_list *list, pd_error *err)
{
    pd_receipt_list pending = *list, finished = *list;
    pd_status status = pd_receipt_list_read(catalog, PD_RECEIPTS, &pending, err);
    if (!status) status = pd_receipt_list_read(catalog, PD_FINISHED, &finished, err);
    uint32_t i = 0, j = 0;
    list->room = pending.n + finished.n + 1;
    list->at = status ? NULL : malloc(list->room * sizeof *list->at);
    if (!status && !list->at) status = no_memory(err);
    while (!status && (i < pending.n || j < finished.n) && (!list->most || list->n < list->most))
        merge(list, &pending, &i, &finished, &j);
    list->more = pending.more || finished.more || i < pending.n || j < finished.n;
    for (uint32_t rest = 0; rest < i; rest++)
        pending.at[rest] = (pd_receipt){0}; /* the page's, or freed */
    for (uint32_t rest = 0; rest < j; rest++)
        finished.at[rest] = (pd_receipt){0};
    pd_receipt_list_free(&pending);
    pd_receipt_list_free(&finished);
    return status;
}

void pd_receipt_list_free(pd_receipt_list *list)
{
    for (uint32_t i = 0; i < list->n; i++)
        pd_receipt_free(&list->at[i]);
    free(list->at);
    list->at = NULL;
    list->n = list->room = 0;
}

/* ---------------------------------------------------------------------------------------------------- writing --- */

static pd_status last_number(pd_catalog *catalog, uint64_t *last, pd_error *err)
{
    uint64_t pending = 0, finished = 0;
    pd_status status = pd_changes_last_document(catalog->changes, PD_RECEIPTS, &pending, err);
    if (!status) status = pd_changes_last_document(catalog->changes, PD_FINISHED, &finished, err);
    *last = pending > finished ? pending : finished;
    return status;
}

/* A finished one leaves the pending ones in the same transaction. */
static pd_status put_some(pd_catalog *catalog, const pd_receipt *receipts, uint32_t n, uint64_t last,
                          pd_error *err)
{
    pd_document *documents = calloc(2 * (size_t)n, sizeof *documents);
    char **texts = calloc(n, sizeof *texts);
    pd_status status = documents && texts ? PD_OK : no_memory(err);
    uint32_t count = 0;
    for (uint32_t i = 0; !status && i < n; i++) {
        const pd_receipt *r = &receipts[i];
        uint64_t number = r->number ? r->number : ++last;
        int finished = r->finished > 0;
        status = pd_receipt_text(r, &texts[i], err);
        if (status) break;
        documents[count++] =
            (pd_document){finished ? PD_FINISHED : PD_RECEIPTS, number, texts[i], strlen(texts[i])};
        if (finished) documents[count++] = (pd_document){.collection = PD_RECEIPTS, .number = number};
    }
    if (!status) status = pd_changes_put(catalog->changes, documents, count, err);
    for (uint32_t i = 0; texts && i < n; i++)
        free(texts[i]);
    free(texts);
    free(documents);
    return status;
}

pd_status pd_receipts_put(pd_catalog *catalog, pd_receipt *receipts, uint32_t n, pd_error *err)
{
    uint64_t last;
    pd_status status = last_number(catalog, &last, err);
    for (uint32_t from = 0; !status && from < n; from += PUT_ONCE) {
        uint32_t count = n - from < PUT_ONCE ? n - from : PUT_ONCE;
        status = put_some(catalog, receipts + from, count, last, err);
        for (uint32_t i = from; !status && i < from + count; i++)
            if (!receipts[i].number) receipts[i].number = ++last;
    }
    return status;
}

typedef struct forgetting {
    pd_document at[PUT_ONCE];
    uint32_t n;
    double before;
    uint64_t last;
} forgetting;

static pd_status choose(void *context, pd_receipt *receipt, pd_error *err)
{
    forgetting *f = context;
    (void)err;
    if (f->n == PUT_ONCE || receipt->finished >= f->before || receipt->number == f->last) return PD_CANCELLED;
    f->at[f->n++] = (pd_document){.collection = PD_FINISHED, .number = receipt->number};
    return PD_OK;
}

pd_status pd_receipts_forget(pd_catalog *catalog, double before, uint32_t *forgotten, pd_error *err)
{
    forgetting f = {.before = before};
    *forgotten = 0;
    pd_status status = last_number(catalog, &f.last, err);
    if (!status) status = pd_receipts(catalog, PD_FINISHED, 0, choose, &f, err);
    if (!status) status = pd_changes_put(catalog->changes, f.at, f.n, err);
    if (!status) *forgotten = f.n;
    return status;
}
