/* The fake server's half of changes: it remembers keys as a real one does, and fails as it is told to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_impl.h"

static void refuse(answer *a, uint32_t status, const char *message)
{
    a->reply.status = status;
    a->reply.message = (char *)message;
    fake_pack(a);
}

static const fake_write *done_before(const fake_changes *c, const char *key)
{
    for (size_t i = 0; *key && i < c->count; i++)
        if (c->writes[i].sequence && strcmp(c->writes[i].key, key) == 0) return &c->writes[i];
    return NULL;
}

/* A row of id 404 is missing, those above 1000 are fresh. */
static void answer_write(fake_server *s, Pados__V1__Request *r, answer *a, const char *key,
                         const uint64_t *ids, size_t rows)
{
    fake_changes *c = &s->changes;
    if (c->last) pados__v1__request__free_unpacked(c->last, NULL);
    c->last = r;
    if (c->count == FAKE_WRITES) {
        refuse(a, 13, "the fake server keeps no more writes");
        return;
    }
    const fake_write *before = done_before(c, key);
    fake_write *w = &c->writes[c->count++];
    *w = (fake_write){.body = (int)r->body_case, .first = rows ? ids[0] : 0, .rows = rows};
    snprintf(w->key, sizeof w->key, "%s", key);
    bool hang_up = c->hang_ups > 0;
    if (hang_up) {
        c->hang_ups--;
        a->hang_up = true;
        if (!c->done_before_hanging_up) return;
    } else if (c->unavailable > 0) {
        c->unavailable--;
        refuse(a, 14, "the log cannot be written now");
        return;
    } else if (c->refused > 0 && --c->refused == 0) {
        refuse(a, 3, "ids[1]: the id 2 is there twice");
        return;
    }
    Pados__V1__WriteReply reply = PADOS__V1__WRITE_REPLY__INIT;
    reply.repeated = before != NULL;
    reply.sequence = w->sequence = before ? before->sequence : FAKE_SEQUENCE + 1 + c->done;
    c->done += !before;
    reply.durable = true;
    for (size_t i = 0; i < rows; i++) {
        reply.missing += ids[i] == 404;
        reply.changed += ids[i] != 404;
        reply.fresh += ids[i] > 1000 && r->body_case == PADOS__V1__REQUEST__BODY_UPSERT;
    }
    if (hang_up) return;
    a->reply.body_case = PADOS__V1__REPLY__BODY_WRITE;
    a->reply.write = &reply;
    fake_pack(a);
}

static void answer_receipts(answer *a, Pados__V1__Erasure **from, size_t count)
{
    Pados__V1__ErasureListReply list = PADOS__V1__ERASURE_LIST_REPLY__INIT;
    list.erasures = from;
    list.n_erasures = count;
    a->reply.body_case = PADOS__V1__REPLY__BODY_ERASURES;
    a->reply.erasures = &list;
    fake_pack(a);
}

static char *done[] = {(char *)"memory", (char *)"log"}, *pending[] = {(char *)"version 3"};

/* An even id is done at once; the file of an odd one is still to be written. */
static void answer_erase(fake_server *s, const Pados__V1__Erase *erase, answer *a)
{
    fake_changes *c = &s->changes;
    size_t first = c->nerasures;
    for (size_t i = 0; i < erase->n_ids && c->nerasures < 16; i++) {
        Pados__V1__Erasure *e = calloc(1, sizeof *e);
        pados__v1__erasure__init(e);
        e->number = c->nerasures + 1;
        e->table = (char *)"products";
        e->id = erase->ids[i];
        e->asked = (char *)"2026-11-27T10:00:00Z";
        e->deadline = (char *)"2026-12-27T10:00:00Z";
        e->finished = (char *)(e->id % 2 ? "" : "2026-11-27T10:00:01Z");
        e->done = done;
        e->n_done = 2;
        e->pending = pending;
        e->n_pending = e->id % 2;
        c->erasures[c->nerasures++] = e;
    }
    answer_receipts(a, c->erasures + first, c->nerasures - first);
}

static void answer_list(fake_server *s, bool only_pending, answer *a)
{
    Pados__V1__Erasure *some[16];
    size_t count = 0;
    for (size_t i = 0; i < s->changes.nerasures; i++)
        if (!only_pending || s->changes.erasures[i]->n_pending) some[count++] = s->changes.erasures[i];
    answer_receipts(a, some, count);
}

static void answer_export(const Pados__V1__Export *export, answer *a)
{
    if (export->id == 404) {
        refuse(a, 5, "there is no row with id 404");
        return;
    }
    char json[64];
    snprintf(json, sizeof json, "{\"id\": %llu, \"price\": 5}", (unsigned long long)export->id);
    Pados__V1__ExportReply reply = PADOS__V1__EXPORT_REPLY__INIT;
    reply.json = json;
    a->reply.body_case = PADOS__V1__REPLY__BODY_EXPORT;
    a->reply.export = &reply;
    fake_pack(a);
}

static void answer_snapshot(fake_server *s, const Pados__V1__Snapshot *snapshot, answer *a)
{
    if (strcmp(snapshot->folder, s->changes.folder) == 0) {
        refuse(a, 6, "the folder is there already");
        return;
    }
    snprintf(s->changes.folder, sizeof s->changes.folder, "%s", snapshot->folder);
    Pados__V1__SnapshotReply reply = PADOS__V1__SNAPSHOT_REPLY__INIT;
    reply.folder = snapshot->folder;
    reply.sequence = FAKE_SEQUENCE;
    reply.bytes = 3 << 20;
    reply.tables = 2;
    reply.seconds = 1.5;
    a->reply.body_case = PADOS__V1__REPLY__BODY_SNAPSHOT;
    a->reply.snapshot = &reply;
    fake_pack(a);
}

bool fake_answer_change(fake_server *s, Pados__V1__Request *r, answer *a)
{
    switch (r->body_case) {
    case PADOS__V1__REQUEST__BODY_UPSERT:
        answer_write(s, r, a, r->upsert->key, r->upsert->ids, r->upsert->n_ids);
        return true;
    case PADOS__V1__REQUEST__BODY_DELETE:
        answer_write(s, r, a, r->delete_->key, r->delete_->ids, r->delete_->n_ids);
        return true;
    case PADOS__V1__REQUEST__BODY_UPDATE:
        answer_write(s, r, a, r->update->key, r->update->ids, r->update->n_ids);
        return true;
    case PADOS__V1__REQUEST__BODY_FEEDBACK:
        answer_write(s, r, a, r->feedback->key, r->feedback->items, r->feedback->n_items);
        return true;
    case PADOS__V1__REQUEST__BODY_ERASE:
        answer_erase(s, r->erase, a);
        return true;
    case PADOS__V1__REQUEST__BODY_ERASURE_LIST:
        answer_list(s, r->erasure_list->pending, a);
        return true;
    case PADOS__V1__REQUEST__BODY_EXPORT:
        answer_export(r->export, a);
        return true;
    case PADOS__V1__REQUEST__BODY_SNAPSHOT:
        answer_snapshot(s, r->snapshot, a);
        return true;
    case PADOS__V1__REQUEST__BODY_REBUILD: /* the job of "broken" is the one that fails */
        fake_answer_job(a, strcmp(r->rebuild->table, "broken") == 0 ? 13 : 12, "train");
        return true;
    default:
        return false;
    }
}

void fake_forget_changes(fake_server *s)
{
    if (s->changes.last) pados__v1__request__free_unpacked(s->changes.last, NULL);
    for (size_t i = 0; i < s->changes.nerasures; i++)
        free(s->changes.erasures[i]);
}

void fake_break_writes(fake_server *s, int hang_ups, bool done_before, int unavailable, int refused)
{
    pthread_mutex_lock(&s->lock);
    s->changes.hang_ups = hang_ups;
    s->changes.done_before_hanging_up = done_before;
    s->changes.unavailable = unavailable;
    s->changes.refused = refused;
    pthread_mutex_unlock(&s->lock);
}

const fake_changes *fake_look_at_changes(fake_server *s)
{
    pthread_mutex_lock(&s->lock);
    return &s->changes;
}
