/* What is held and what must go: erasures with their receipts, exports, snapshots, rebuilds. None of them has a key, and none
 * is sent twice by itself. */
#include "client_impl.h"

#include <stdlib.h>
#include <string.h>

typedef struct erasures {
    pados_erasures shown; /* first: pados_erasures_free gets a pointer to it */
    pados_erasure *at;
    Pados__V1__Reply **replies; /* [n]: a page each */
    size_t n;
} erasures;

void pados_erasures_free(pados_erasures *shown)
{
    if (!shown) return;
    erasures *e = (erasures *)shown;
    for (size_t i = 0; i < e->n; i++)
        pados_reply_free(e->replies[i]);
    free(e->replies);
    free(e->at);
    free(e);
}

/* Takes the reply over. */
static pados_status add_page(erasures *e, Pados__V1__Reply *reply, pados_error *error)
{
    const Pados__V1__ErasureListReply *list = reply->erasures;
    size_t count = e->shown.count;
    Pados__V1__Reply **replies = realloc(e->replies, (e->n + 1) * sizeof *replies);
    if (replies) e->replies = replies;
    pados_erasure *at = replies ? realloc(e->at, (count + list->n_erasures + 1) * sizeof *at) : NULL;
    if (!at) {
        pados_reply_free(reply);
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the receipts");
    }
    e->at = at;
    e->replies[e->n++] = reply;
    for (size_t i = 0; i < list->n_erasures; i++) {
        const Pados__V1__Erasure *from = list->erasures[i];
        at[count + i] = (pados_erasure){.number = from->number,
                                        .id = from->id,
                                        .table = from->table,
                                        .asked = from->asked,
                                        .deadline = from->deadline,
                                        .finished = from->finished,
                                        .done = (const char *const *)from->done,
                                        .ndone = from->n_done,
                                        .pending = (const char *const *)from->pending,
                                        .npending = from->n_pending};
    }
    e->shown = (pados_erasures){.at = at, .count = count + list->n_erasures};
    return PD_OK;
}

/* Page by page, where the request is for a list. */
static pados_status call_for_receipts(pados_client *client, Pados__V1__Request *request, pados_erasures **out,
                                      pados_error *error)
{
    erasures *e = calloc(1, sizeof *e);
    if (!e) return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the receipts");
    pados_status status = PD_OK;
    for (int more = 1; !status && more;) {
        Pados__V1__Reply *reply;
        status = pd_client_admin_call(client, request, PADOS__V1__REPLY__BODY_ERASURES, &reply, error);
        if (status) break;
        more = request->body_case == PADOS__V1__REQUEST__BODY_ERASURE_LIST && reply->erasures->more &&
               reply->erasures->n_erasures;
        status = add_page(e, reply, error);
        if (!status && more) request->erasure_list->after = e->at[e->shown.count - 1].number;
    }
    if (status)
        pados_erasures_free(&e->shown);
    else
        *out = &e->shown;
    return status;
}

pados_status pados_erase(pados_client *client, const char *table, const uint64_t *ids, uint32_t count,
                         pados_erasures **out, pados_error *error)
{
    if (!table || !*table) return pd_client_fail(error, PD_INVALID_ARGUMENT, "table: no name is given");
    if (!ids || !count) return pd_client_fail(error, PD_INVALID_ARGUMENT, "ids: an erasure of no rows");
    if (count > PADOS_MAX_BATCH)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "ids: %u rows are more than the %u of one erasure: send them in parts", count,
                              PADOS_MAX_BATCH);
    Pados__V1__Erase body = PADOS__V1__ERASE__INIT;
    body.table = (char *)table;
    body.ids = (uint64_t *)ids;
    body.n_ids = count;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASE;
    request.erase = &body;
    return call_for_receipts(client, &request, out, error);
}

pados_status pados_erasures_list(pados_client *client, bool only_pending, pados_erasures **out,
                                 pados_error *error)
{
    Pados__V1__ErasureList body = PADOS__V1__ERASURE_LIST__INIT;
    body.pending = only_pending;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_ERASURE_LIST;
    request.erasure_list = &body;
    return call_for_receipts(client, &request, out, error);
}

pados_status pados_export(pados_client *client, const char *table, uint64_t id, char **json,
                          pados_error *error)
{
    if (!table || !*table) return pd_client_fail(error, PD_INVALID_ARGUMENT, "table: no name is given");
    Pados__V1__Export body = PADOS__V1__EXPORT__INIT;
    body.table = (char *)table;
    body.id = id;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_EXPORT;
    request.export = &body;
    Pados__V1__Reply *reply;
    pados_status status =
        pd_client_admin_call(client, &request, PADOS__V1__REPLY__BODY_EXPORT, &reply, error);
    if (status) return status;
    *json = strdup(reply->export->json);
    pados_reply_free(reply);
    return *json ? PD_OK : pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the row");
}

pados_status pados_snapshot_run(pados_client *client, const pados_snapshot *s, pados_snapshot_made *made,
                                pados_error *error)
{
    if (!s->folder || !*s->folder)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "folder: no name is given");
    Pados__V1__Snapshot body = PADOS__V1__SNAPSHOT__INIT;
    body.folder = (char *)s->folder;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_SNAPSHOT;
    request.snapshot = &body;
    pd_link *link;
    pados_status status = pd_client_admin_link(client, &link, error);
    if (status) return status;
    uint64_t deadline = pd_client_now_ms() + (s->timeout_ms ? s->timeout_ms : client->timeout_ms);
    Pados__V1__Reply *reply;
    status = pd_client_call(client, link, &request, deadline, PADOS__V1__REPLY__BODY_SNAPSHOT, &reply, error);
    if (status) return status;
    const Pados__V1__SnapshotReply *r = reply->snapshot;
    if (made)
        *made = (pados_snapshot_made){
            .sequence = r->sequence, .bytes = r->bytes, .tables = r->tables, .seconds = r->seconds};
    pados_reply_free(reply);
    return PD_OK;
}

pados_status pados_rebuild(pados_client *client, const char *table, pados_progress progress, void *context,
                           uint64_t *version, pados_error *error)
{
    if (!table || !*table) return pd_client_fail(error, PD_INVALID_ARGUMENT, "table: no name is given");
    Pados__V1__Rebuild body = PADOS__V1__REBUILD__INIT;
    body.table = (char *)table;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_REBUILD;
    request.rebuild = &body;
    Pados__V1__Reply *reply;
    pados_status status = pd_client_admin_call(client, &request, PADOS__V1__REPLY__BODY_JOB, &reply, error);
    if (status) return status;
    uint64_t job = reply->job->job;
    pados_reply_free(reply);
    return pados_job_wait(client, job, progress, context, version, error);
}
