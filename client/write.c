/* Writes: upsert, delete, update and feedback, each a batch under a key, sent until it is answered.
 *
 * The key is what makes a resend safe: the server remembers it with the batch's place in its log and answers a second
 * arrival from there. So a write whose connection broke, or that was answered UNAVAILABLE, is sent again until its
 * deadline, and what the caller gets told is what the server says, not what the network did. Only the deadline leaves
 * the question open; the error then names the key.
 *
 * As with searches, only limits and shapes that libpados itself reads through are checked here; that ids are distinct and
 * values fit the schema is the server's to say.
 */
#include "client_impl.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DIM = 8192, RESEND_FIRST_MS = 20, RESEND_LAST_MS = 1000 };

static char *or_empty(const char *text)
{
    return (char *)(text ? text : "");
}

/* --------------------------------------------------------------------------------------------- checking --- */

static pados_status check_batch(const char *table, const char *key, const char *what, const uint64_t *ids,
                                uint32_t count, pados_error *error)
{
    if (!table || !*table) return pd_client_fail(error, PD_INVALID_ARGUMENT, "table: no name is given");
    if (!count || !ids) return pd_client_fail(error, PD_INVALID_ARGUMENT, "%s: a write of no rows", what);
    if (count > PADOS_MAX_BATCH)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "%s: %u rows are more than the %u of one write: send them in parts", what,
                              count, PADOS_MAX_BATCH);
    if (key && strlen(key) > PADOS_MAX_KEY)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "key: %zu bytes are more than %u", strlen(key),
                              PADOS_MAX_KEY);
    return PD_OK;
}

static pados_status check_indices(const char *what, const uint32_t *of, uint32_t count, size_t texts,
                                  pados_error *error)
{
    for (uint32_t i = 0; i < count; i++)
        if (of[i] >= texts)
            return pd_client_fail(error, PD_INVALID_ARGUMENT, "%s[%u]: %u where %zu are given", what, i,
                                  of[i], texts);
    return PD_OK;
}

static pados_status check_values(const pados_values *v, uint32_t count, pados_error *error)
{
    if (!v->attribute || !*v->attribute)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "attributes: one of them has no name");
    if (!!v->numbers + !!v->keys + !!v->texts != 1)
        return pd_client_fail(error, PD_INVALID_ARGUMENT,
                              "%s: just one of numbers, keys and texts must be given", v->attribute);
    if (!v->texts) return PD_OK;
    if (v->text_of) return check_indices(v->attribute, v->text_of, count, v->ntexts, error);
    if (v->ntexts && v->ntexts != count)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "%s: %zu texts for %u rows", v->attribute,
                              v->ntexts, count);
    return PD_OK;
}

static pados_status check_attributes(const pados_values *values, size_t n, uint32_t count, pados_error *error)
{
    for (size_t i = 0; i < n; i++) {
        pados_status status = check_values(&values[i], count, error);
        if (status) return status;
    }
    return PD_OK;
}

/* --------------------------------------------------------------------------------------------- messages --- */

typedef struct messages { /* of a batch's attributes */
    Pados__V1__AttributeValues *bodies, **pointers;
} messages;

static pados_status make_messages(const pados_values *values, size_t n, uint32_t count, messages *m,
                                  pados_error *error)
{
    m->bodies = calloc(n ? n : 1, sizeof *m->bodies);
    m->pointers = calloc(n ? n : 1, sizeof(Pados__V1__AttributeValues *));
    if (!m->bodies || !m->pointers) {
        free(m->bodies);
        free(m->pointers);
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the request");
    }
    for (size_t i = 0; i < n; i++) {
        const pados_values *v = &values[i];
        Pados__V1__AttributeValues *to = m->pointers[i] = &m->bodies[i];
        pados__v1__attribute_values__init(to);
        to->attribute = or_empty(v->attribute);
        if (v->numbers) to->numbers = (ProtobufCBinaryData){count * sizeof(float), (uint8_t *)v->numbers};
        if (v->keys) {
            to->keys = (uint64_t *)v->keys;
            to->n_keys = count;
        }
        if (v->texts) {
            to->texts = (char **)v->texts;
            to->n_texts = v->text_of ? v->ntexts : count;
            to->text_of = (uint32_t *)v->text_of;
            to->n_text_of = v->text_of ? count : 0;
        }
    }
    return PD_OK;
}

static void free_messages(messages *m)
{
    free(m->bodies);
    free(m->pointers);
}

/* ---------------------------------------------------------------------------------------------- sending --- */

/* The error of a write that may or may not have been done says how to find out. */
static pados_status tell_open(pados_error *error, pados_status status, const char *key)
{
    if (!error) return status;
    char why[sizeof error->message];
    memcpy(why, error->message, sizeof why);
    return pd_client_fail(error, status,
                          "%.220s; whether the write was done is not known: the same write under the key "
                          "\"%s\" is done at most once",
                          why, key);
}

/* One attempt. *sent: it may have reached the server. */
static pados_status attempt(pados_client *client, Pados__V1__Request *request, uint64_t deadline, bool again,
                            bool *sent, Pados__V1__Reply **reply, pados_error *error)
{
    pd_link *link;
    pados_limits limits;
    /* A server that was started anew may have other limits; a message over them would only break the connection again. */
    pados_status status = again ? pd_client_ready(client, deadline, &limits, error) : PD_OK;
    if (!status) status = pd_client_admin_link(client, &link, error);
    if (!status) status = pd_link_wait(link, deadline, NULL, error);
    if (status) return status;
    *sent = true;
    return pd_client_call(client, link, request, deadline, PADOS__V1__REPLY__BODY_WRITE, reply, error);
}

static pados_status deliver(pados_client *client, Pados__V1__Request *request, const char *key,
                            uint32_t timeout_ms, pados_written *written, pados_error *error)
{
    uint64_t deadline = pd_client_now_ms() + (timeout_ms ? timeout_ms : client->timeout_ms);
    uint32_t pause = RESEND_FIRST_MS;
    bool sent = false, again = false;
    Pados__V1__Reply *reply;
    pados_status status;
    while ((status = attempt(client, request, deadline, again, &sent, &reply, error)) == PD_UNAVAILABLE) {
        if (pd_client_now_ms() + pause >= deadline) break;
        pd_client_pause(pause);
        pause = pause * 2 < RESEND_LAST_MS ? pause * 2 : RESEND_LAST_MS;
        again = true;
    }
    if (sent && (status == PD_UNAVAILABLE || status == PD_DEADLINE_EXCEEDED))
        return tell_open(error, status, key);
    if (status) return status;
    const Pados__V1__WriteReply *w = reply->write;
    if (written)
        *written = (pados_written){.sequence = w->sequence,
                                   .durable = w->durable,
                                   .changed = w->changed,
                                   .fresh = w->fresh,
                                   .missing = w->missing,
                                   .repeated = w->repeated};
    pados_reply_free(reply);
    return PD_OK;
}

/* The caller's key, or one made in room. */
static pados_status choose_key(const char *given, char room[PD_CLIENT_KEY], char **key, pados_error *error)
{
    *key = given && *given ? (char *)given : room;
    return *key == room ? pd_client_key(room, error) : PD_OK;
}

pados_status pados_upsert_run(pados_client *client, const pados_upsert *u, pados_written *written,
                              pados_error *error)
{
    static const uint32_t sizes[] = {[PADOS_F32] = 4, [PADOS_F16] = 2, [PADOS_I8] = 1, [PADOS_U8] = 1};
    pados_status status = check_batch(u->table, u->key, "ids", u->ids, u->count, error);
    if (status) return status;
    if ((unsigned)u->dtype >= sizeof sizes / sizeof *sizes)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "dtype: %d is not one", (int)u->dtype);
    if (!u->vectors || !u->dim || u->dim > MAX_DIM)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "vectors: %s of dimension %u (1 to %d)",
                              u->vectors ? "rows" : "none are given,", u->dim, MAX_DIM);
    if ((status = check_attributes(u->attributes, u->nattributes, u->count, error)) != PD_OK) return status;
    char room[PD_CLIENT_KEY];
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    matrix.dtype = (Pados__V1__Dtype)u->dtype; /* the same numbers */
    matrix.rows = u->count;
    matrix.dim = u->dim;
    matrix.data = (ProtobufCBinaryData){(size_t)u->count * u->dim * sizes[u->dtype], (uint8_t *)u->vectors};
    Pados__V1__Upsert body = PADOS__V1__UPSERT__INIT;
    body.table = or_empty(u->table);
    body.ids = (uint64_t *)u->ids;
    body.n_ids = u->count;
    body.vectors = &matrix;
    messages m;
    if ((status = choose_key(u->key, room, &body.key, error)) != PD_OK ||
        (status = make_messages(u->attributes, u->nattributes, u->count, &m, error)) != PD_OK)
        return status;
    body.attributes = m.pointers;
    body.n_attributes = u->nattributes;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_UPSERT;
    request.upsert = &body;
    status = deliver(client, &request, body.key, u->timeout_ms, written, error);
    free_messages(&m);
    return status;
}

pados_status pados_delete_run(pados_client *client, const pados_delete *d, pados_written *written,
                              pados_error *error)
{
    pados_status status = check_batch(d->table, d->key, "ids", d->ids, d->count, error);
    char room[PD_CLIENT_KEY];
    Pados__V1__Delete body = PADOS__V1__DELETE__INIT;
    if (!status) status = choose_key(d->key, room, &body.key, error);
    if (status) return status;
    body.table = or_empty(d->table);
    body.ids = (uint64_t *)d->ids;
    body.n_ids = d->count;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_DELETE;
    request.delete_ = &body;
    return deliver(client, &request, body.key, d->timeout_ms, written, error);
}

pados_status pados_update_run(pados_client *client, const pados_update *u, pados_written *written,
                              pados_error *error)
{
    pados_status status = check_batch(u->table, u->key, "ids", u->ids, u->count, error);
    if (status) return status;
    if (!u->nattributes)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "attributes: an update of none of them");
    if ((status = check_attributes(u->attributes, u->nattributes, u->count, error)) != PD_OK) return status;
    char room[PD_CLIENT_KEY];
    Pados__V1__Update body = PADOS__V1__UPDATE__INIT;
    messages m;
    if ((status = choose_key(u->key, room, &body.key, error)) != PD_OK ||
        (status = make_messages(u->attributes, u->nattributes, u->count, &m, error)) != PD_OK)
        return status;
    body.table = or_empty(u->table);
    body.ids = (uint64_t *)u->ids;
    body.n_ids = u->count;
    body.attributes = m.pointers;
    body.n_attributes = u->nattributes;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_UPDATE;
    request.update = &body;
    status = deliver(client, &request, body.key, u->timeout_ms, written, error);
    free_messages(&m);
    return status;
}

/* Events of one name a row, given without event_of, are put in order: event_of[i] = i. Freed by the caller. */
static pados_status take_events(const pados_feedback *f, Pados__V1__Feedback *body, uint32_t **made,
                                pados_error *error)
{
    *made = NULL;
    if (!f->events) return PD_OK;
    body->events = (char **)f->events;
    body->n_events = f->event_of ? f->nevents : f->count;
    body->n_event_of = f->count;
    body->event_of = (uint32_t *)f->event_of;
    if (f->event_of) return check_indices("event_of", f->event_of, f->count, f->nevents, error);
    if (f->nevents && f->nevents != f->count)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "events: %zu for %u items", f->nevents, f->count);
    if (!(*made = calloc(f->count, sizeof **made)))
        return pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for the request");
    for (uint32_t i = 0; i < f->count; i++)
        (*made)[i] = i;
    body->event_of = *made;
    return PD_OK;
}

pados_status pados_feedback_run(pados_client *client, const pados_feedback *f, pados_written *written,
                                pados_error *error)
{
    pados_status status = check_batch(f->table, f->key, "items", f->items, f->count, error);
    char room[PD_CLIENT_KEY];
    Pados__V1__Feedback body = PADOS__V1__FEEDBACK__INIT;
    uint32_t *made = NULL;
    if (!status) status = choose_key(f->key, room, &body.key, error);
    if (!status) status = take_events(f, &body, &made, error);
    if (status) return status;
    body.table = or_empty(f->table);
    body.items = (uint64_t *)f->items;
    body.n_items = f->count;
    body.users = (uint64_t *)f->users;
    body.n_users = f->users ? f->count : 0;
    body.weights = (float *)f->weights;
    body.n_weights = f->weights ? f->count : 0;
    body.attribute = or_empty(f->attribute);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_FEEDBACK;
    request.feedback = &body;
    status = deliver(client, &request, body.key, f->timeout_ms, written, error);
    free(made);
    return status;
}
