/* Answers become messages. Everything but the numbers of the hits lies in the search's arena or is borrowed from the schema, so
 * that a reply with a million values costs no million allocations. */
#include "reply.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "pados.pb-c.h"

typedef struct builder {
    pd_search *s;
    size_t bytes; /* taken so far, about what the message will have */
    int over, failed;
} builder;

static void *take(builder *b, size_t size)
{
    b->bytes += size;
    if (b->bytes > PD_MAX_REPLY) b->over = 1;
    if (b->over || b->failed) return NULL;
    void *out = pd_arena_take(&b->s->arena, size);
    if (!out) b->failed = 1;
    return out;
}

static char *take_text(builder *b, const char *text)
{
    size_t length = strlen(text);
    char *out = take(b, length + 1);
    if (out) memcpy(out, text, length + 1);
    return out;
}

void pd_reply_send(pd_call *call, const Pados__V1__Reply *reply)
{
    size_t length = pados__v1__reply__get_packed_size(reply);
    uint8_t *room = pd_call_room(call, length);
    if (!room) {
        pd_call_abandon(call);
        return;
    }
    pados__v1__reply__pack(reply, room);
    pd_call_send(call);
}

void pd_reply_error(pd_call *call, uint64_t id, pd_status status, const char *message)
{
    char text[sizeof(((pd_error *)0)->message)];
    strncpy(text, message, sizeof text - 1);
    text[sizeof text - 1] = 0;
    pd_utf8_clean(text);
    Pados__V1__Reply reply = PADOS__V1__REPLY__INIT;
    reply.id = id;
    reply.status = (uint32_t)status;
    reply.message = text;
    pd_reply_send(call, &reply);
}

/* ------------------------------------------------------------------------------------------------- the hits --- */

static void put_hits(builder *b, Pados__V1__SearchReply *r)
{
    pd_search *s = b->s;
    r->counts = take(b, s->count * sizeof *r->counts);
    r->nprobe = take(b, s->count * sizeof *r->nprobe);
    r->path = take(b, s->count * sizeof *r->path);
    r->rung = take(b, s->count * sizeof *r->rung);
    r->ids = take(b, s->nhits * sizeof *r->ids);
    float *scores = take(b, s->nhits * sizeof *scores);
    if (b->over || b->failed) return;
    size_t at = 0;
    int segments = 0;
    for (uint32_t q = 0; q < s->count; q++) {
        const pd_one *one = &s->one[q];
        r->counts[q] = one->count;
        r->nprobe[q] = one->nprobe;
        r->path[q] = one->path;
        r->rung[q] = one->rung;
        segments |= one->rung == PD_RUNG_MEAN;
        for (uint32_t i = 0; i < one->count; i++, at++) {
            r->ids[at] = s->hits[(size_t)q * s->k + i].id;
            scores[at] = s->hits[(size_t)q * s->k + i].score;
        }
    }
    r->n_counts = r->n_nprobe = r->n_path = r->n_rung = s->count;
    r->n_ids = s->nhits;
    r->scores.data = (uint8_t *)scores;
    r->scores.len = s->nhits * sizeof *scores;
    if (!segments) return;
    r->rung_segment = take(b, s->count * sizeof *r->rung_segment);
    if (!r->rung_segment) return;
    for (uint32_t q = 0; q < s->count; q++)
        r->rung_segment[q] = (char *)(s->one[q].segment ? s->one[q].segment : "");
    r->n_rung_segment = s->count;
}

/* ------------------------------------------------------------------------------------------------ explaining --- */

static Pados__V1__Explanation *explain(builder *b, uint32_t q, uint32_t place)
{
    pd_search *s = b->s;
    const pd_shape *shape = &s->info->shape;
    size_t hit = (size_t)q * s->k + place;
    pd_term terms[PD_MAX_ATTRIBUTES + 1];
    uint32_t n = 0;
    pd_explain(s->info->schema, &s->info->layout, &s->groups[s->one[q].group].compiled, s->hits[hit].score,
               s->bytes + hit * shape->nbytes, s->floats + hit * shape->nfloats, s->keys + hit * shape->nkeys,
               terms, &n);
    Pados__V1__Explanation *out = take(b, sizeof *out);
    Pados__V1__Term **pointers = take(b, n * sizeof *pointers);
    Pados__V1__Term *copies = take(b, n * sizeof *copies);
    if (!out || !pointers || !copies) return NULL;
    pados__v1__explanation__init(out);
    for (uint32_t i = 0; i < n; i++) {
        pados__v1__term__init(&copies[i]);
        copies[i].attribute = (char *)terms[i].attribute; /* the schema's, or a literal */
        copies[i].value = take_text(b, terms[i].value);
        copies[i].weight = terms[i].weight;
        if (!copies[i].value) return NULL;
        pd_utf8_clean(copies[i].value);
        pointers[i] = &copies[i];
    }
    out->terms = pointers;
    out->n_terms = n;
    return out;
}

static void put_explanations(builder *b, Pados__V1__SearchReply *r)
{
    pd_search *s = b->s;
    if (!s->ask->explain || !s->nhits) return;
    r->explanations = take(b, s->nhits * sizeof *r->explanations);
    if (!r->explanations) return;
    size_t at = 0;
    for (uint32_t q = 0; q < s->count; q++)
        for (uint32_t i = 0; i < s->one[q].count; i++, at++) {
            r->explanations[at] = explain(b, q, i);
            if (!r->explanations[at]) return;
        }
    r->n_explanations = s->nhits;
}

/* --------------------------------------------------------------------------------------------------- columns --- */

/* The value of one hit: the schema's own text where it can be, else a copy. NULL: no memory. */
static char *cell(builder *b, const pd_attribute *attribute, size_t hit)
{
    pd_search *s = b->s;
    const pd_shape *shape = &s->info->shape;
    const uint8_t *bytes = s->bytes + hit * shape->nbytes;
    if (attribute->type == PD_CATEGORY && bytes[attribute->byte_column] < pd_attribute_values(attribute))
        return attribute->values[bytes[attribute->byte_column]];
    char text[PD_MAX_VALUE * 8];
    pd_attribute_text(attribute, bytes, s->floats + hit * shape->nfloats, s->keys + hit * shape->nkeys, text,
                      sizeof text);
    char *copy = take_text(b, text);
    if (copy) pd_utf8_clean(copy);
    return copy;
}

static Pados__V1__Column *column(builder *b, const pd_attribute *attribute)
{
    pd_search *s = b->s;
    Pados__V1__Column *out = take(b, sizeof *out);
    char **values = take(b, s->nhits * sizeof *values);
    if (!out || (s->nhits && !values)) return NULL;
    pados__v1__column__init(out);
    out->attribute = (char *)attribute->name;
    out->values = values;
    out->n_values = s->nhits;
    size_t at = 0;
    for (uint32_t q = 0; q < s->count; q++)
        for (uint32_t i = 0; i < s->one[q].count; i++, at++) {
            values[at] = cell(b, attribute, (size_t)q * s->k + i);
            if (!values[at]) return NULL;
        }
    return out;
}

static void put_columns(builder *b, Pados__V1__SearchReply *r)
{
    pd_search *s = b->s;
    const pd_schema *schema = s->info->schema;
    const pd_attribute *wanted[2 * PD_MAX_ATTRIBUTES];
    size_t n = 0;
    for (size_t i = 0; i < s->ask->n_attributes; i++) {
        int all = !strcmp(s->ask->attributes[i], "*");
        for (uint32_t a = 0; a < schema->nattributes; a++) {
            const pd_attribute *attribute = &schema->attributes[a];
            int there = 0;
            for (size_t j = 0; j < n; j++)
                there |= wanted[j] == attribute;
            if (!there && (all || !strcmp(attribute->name, s->ask->attributes[i]))) wanted[n++] = attribute;
        }
    }
    if (n == 0) return;
    r->columns = take(b, n * sizeof *r->columns);
    if (!r->columns) return;
    for (size_t i = 0; i < n; i++) {
        r->columns[i] = column(b, wanted[i]);
        if (!r->columns[i]) return;
    }
    r->n_columns = n;
}

/* ------------------------------------------------------------------------------------------------- the whole --- */

static void put_timing(builder *b, Pados__V1__SearchReply *r)
{
    pd_search *s = b->s;
    Pados__V1__Timing *t = r->timing = take(b, sizeof *t);
    if (!t) return;
    pados__v1__timing__init(t);
    t->decode = pd_us_between(s->born_ns, s->decoded_ns);
    t->queue = pd_us_between(s->task.enqueued_ns, s->task.taken_ns);
    t->resolve = (uint32_t)(s->resolve_ns / 1000);
    t->coarse = (uint32_t)(s->timing.coarse_ns / 1000);
    t->scan = (uint32_t)(s->timing.scan_ns / 1000);
    t->refine = (uint32_t)(s->timing.refine_ns / 1000);
    t->finish = (uint32_t)(s->finish_ns / 1000);
}

pd_status pd_reply_search(pd_search *s, uint64_t id, const char *backend, Pados__V1__Reply **out,
                          pd_error *err)
{
    uint64_t began = pd_now_ns();
    builder b = {.s = s};
    Pados__V1__Reply *reply = take(&b, sizeof *reply);
    Pados__V1__SearchReply *r = take(&b, sizeof *r);
    if (!reply || !r) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the reply");
    pados__v1__reply__init(reply);
    pados__v1__search_reply__init(r);
    reply->id = id;
    reply->body_case = PADOS__V1__REPLY__BODY_SEARCH;
    reply->search = r;
    reply->warnings = (char **)(void *)s->warnings;
    reply->n_warnings = s->nwarnings;
    r->version = s->served->number;
    r->profile_version = s->profile ? pd_profile_version(s->profile) : 0;
    r->scanned = s->scanned;
    r->complete = s->complete;
    r->recall = s->recall;
    r->backend = (char *)backend;
    r->sequence = s->sequence;
    put_hits(&b, r);
    put_explanations(&b, r);
    put_columns(&b, r);
    put_timing(&b, r);
    if (b.over)
        return pd_fail(err, PD_RESOURCE_EXHAUSTED,
                       "the reply is over %u bytes: ask for fewer queries, hits, explanations or attributes",
                       PD_MAX_REPLY);
    if (b.failed) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the reply");
    uint64_t now = pd_now_ns();
    s->finish_ns += now - began;
    r->timing->finish = (uint32_t)(s->finish_ns / 1000);
    r->timing->total = pd_us_between(s->born_ns, now);
    *out = reply;
    return PD_OK;
}
