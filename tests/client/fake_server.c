#include "fake_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nng/protocol/reqrep0/rep.h>
#include <xxhash.h>

/* --------------------------------------------------------------------------------------------- answers --- */

void fake_pack(answer *a)
{
    a->raw_length = pados__v1__reply__get_packed_size(&a->reply);
    a->raw = malloc(a->raw_length ? a->raw_length : 1);
    pados__v1__reply__pack(&a->reply, a->raw);
}

static void answer_hello(fake_server *s, answer *a)
{
    Pados__V1__HelloReply hello = PADOS__V1__HELLO_REPLY__INIT;
    hello.server = (char *)"fake 1";
    hello.protocol = 1;
    hello.max_message = s->max_message ? s->max_message : 1 << 20;
    hello.max_queries = s->max_queries ? s->max_queries : 4096;
    hello.max_k = s->max_k ? s->max_k : 1000;
    hello.max_hits = 1000000;
    hello.max_deadline_ms = 60000;
    hello.max_chunk = 4096;
    hello.backend = (char *)"fake";
    hello.data_url = s->url;
    hello.admin_url = s->admin_url;
    a->reply.body_case = PADOS__V1__REPLY__BODY_HELLO;
    a->reply.hello = &hello;
    fake_pack(a);
}

static void answer_hits(answer *a, const Pados__V1__Search *q)
{
    size_t hits = (size_t)q->count * q->k;
    Pados__V1__SearchReply r = PADOS__V1__SEARCH_REPLY__INIT;
    uint32_t *counts = calloc(q->count, sizeof *counts), *nprobe = calloc(q->count, sizeof *nprobe),
             *zero = calloc(q->count, sizeof *zero);
    uint64_t *ids = calloc(hits, sizeof *ids);
    float *scores = calloc(hits, sizeof *scores);
    Pados__V1__Term *terms = calloc(hits * 2, sizeof *terms), **term_of = calloc(hits * 2, sizeof(void *));
    Pados__V1__Explanation *explained = calloc(hits, sizeof *explained),
                           **explained_of = calloc(hits, sizeof(void *));
    char **values = calloc(hits, sizeof *values);
    for (size_t h = 0; h < hits; h++) {
        size_t query = h / q->k, rank = h % q->k;
        ids[h] = query * 1000 + rank + 1;
        scores[h] = 1.0f / (float)(rank + 1);
        terms[2 * h] = (Pados__V1__Term)PADOS__V1__TERM__INIT;
        terms[2 * h].attribute = (char *)"similarity";
        terms[2 * h].weight = scores[h] - 0.25f;
        terms[2 * h + 1] = (Pados__V1__Term)PADOS__V1__TERM__INIT;
        terms[2 * h + 1].attribute = (char *)"department";
        terms[2 * h + 1].value = (char *)"SWEETS";
        terms[2 * h + 1].weight = 0.25f;
        term_of[2 * h] = &terms[2 * h];
        term_of[2 * h + 1] = &terms[2 * h + 1];
        explained[h] = (Pados__V1__Explanation)PADOS__V1__EXPLANATION__INIT;
        explained[h].terms = &term_of[2 * h];
        explained[h].n_terms = 2;
        explained_of[h] = &explained[h];
        values[h] = (char *)"SWEETS";
    }
    for (uint32_t i = 0; i < q->count; i++) {
        counts[i] = q->k;
        nprobe[i] = q->nprobe ? q->nprobe : 7;
    }
    r.counts = counts;
    r.nprobe = nprobe;
    r.path = r.rung = zero;
    r.n_counts = r.n_nprobe = r.n_path = r.n_rung = q->count;
    r.ids = ids;
    r.n_ids = hits;
    r.scores.data = (uint8_t *)scores;
    r.scores.len = hits * sizeof *scores;
    r.version = 3;
    r.profile_version = 2;
    r.sequence = q->at_least > FAKE_SEQUENCE ? q->at_least : FAKE_SEQUENCE;
    r.backend = (char *)"fake";
    r.explanations = explained_of;
    r.n_explanations = q->explain ? hits : 0;
    Pados__V1__Column column = PADOS__V1__COLUMN__INIT, *columns[1] = {&column};
    column.attribute = (char *)"department";
    column.values = values;
    column.n_values = hits;
    r.columns = columns;
    r.n_columns = q->n_attributes ? 1 : 0;
    Pados__V1__Timing timing = PADOS__V1__TIMING__INIT;
    timing.total = 321;
    r.timing = &timing;
    char *warnings[] = {(char *)"context key \"moon\" is not known"};
    a->reply.warnings = warnings;
    a->reply.n_warnings = q->n_contexts ? 1 : 0;
    a->reply.body_case = PADOS__V1__REPLY__BODY_SEARCH;
    a->reply.search = &r;
    fake_pack(a);
    free(counts), free(nprobe), free(zero), free(ids), free(scores), free(terms), free(term_of);
    free(explained), free(explained_of), free(values);
}

/* A search reply of nothing but empty explanations: two bytes each on the wire. */
static void answer_bomb(answer *a)
{
    enum { EMPTIES = 2 << 20 };
    size_t body = 2 * (size_t)EMPTIES, at = 0;
    a->raw = malloc(body + 32);
    uint64_t id = a->reply.id;
    a->raw[at++] = 0x08; /* id */
    for (; id >= 0x80; id >>= 7)
        a->raw[at++] = (uint8_t)(id | 0x80);
    a->raw[at++] = (uint8_t)id;
    a->raw[at++] = 11 << 3 | 2; /* search */
    for (id = body; id >= 0x80; id >>= 7)
        a->raw[at++] = (uint8_t)(id | 0x80);
    a->raw[at++] = (uint8_t)id;
    for (int i = 0; i < EMPTIES; i++) {
        a->raw[at++] = 12 << 3 | 2; /* explanations */
        a->raw[at++] = 0;
    }
    a->raw_length = at;
}

static void answer_search(fake_server *s, answer *a, const Pados__V1__Search *q)
{
    switch (s->mood) {
    case FAKE_SILENT:
        a->send = false;
        return;
    case FAKE_HANGS_UP:
        a->hang_up = true;
        return;
    case FAKE_GARBAGE:
        a->raw = malloc(a->raw_length = 1000);
        memset(a->raw, 0xff, a->raw_length);
        return;
    case FAKE_BOMB:
        answer_bomb(a);
        return;
    case FAKE_FAILS:
        a->reply.status = 5;
        a->reply.message = (char *)"table \"products\" does not exist\x1b[31m";
        fake_pack(a);
        return;
    case FAKE_WRONG_BODY:
        answer_hello(s, a);
        return;
    case FAKE_WRONG_ID:
        a->reply.id += 1000;
        break;
    default:
        break;
    }
    answer_hits(a, q);
    if (s->mood != FAKE_SHORT_SCORES) return;
    Pados__V1__Reply *back = pados__v1__reply__unpack(NULL, a->raw_length, a->raw);
    free(a->raw);
    back->search->scores.len -= 4;
    a->reply = *back;
    fake_pack(a);
    pados__v1__reply__free_unpacked(back, NULL);
}

static void answer_begin(fake_server *s, answer *a, const Pados__V1__PushBegin *b)
{
    if (strcmp(s->seen.key, b->key) != 0) {
        for (int i = 0; i < 4; i++)
            s->seen.part_bytes[i] = 0;
        s->seen.published = s->seen.aborted = false;
    }
    snprintf(s->seen.key, sizeof s->seen.key, "%s", b->key);
    snprintf(s->seen.schema, sizeof s->seen.schema, "%s", b->schema);
    snprintf(s->seen.attributes_name, sizeof s->seen.attributes_name, "%s", b->attributes_name);
    s->seen.rows = b->rows;
    s->seen.dim = b->dim;
    Pados__V1__PushBeginReply r = PADOS__V1__PUSH_BEGIN_REPLY__INIT;
    r.push = 9;
    r.received_rows = s->seen.part_bytes[0];
    r.received_ids = s->seen.part_bytes[1];
    r.received_attributes = s->seen.part_bytes[2];
    r.received_queries = s->seen.part_bytes[3];
    a->reply.body_case = PADOS__V1__REPLY__BODY_PUSH_BEGIN;
    a->reply.push_begin = &r;
    fake_pack(a);
}

static void store(fake_server *s, const Pados__V1__PushChunk *c)
{
    size_t end = c->offset + c->data.len;
    if (end > s->seen.part_bytes[c->part]) {
        s->seen.parts[c->part] = realloc(s->seen.parts[c->part], end);
        s->seen.part_bytes[c->part] = end;
    }
    memcpy(s->seen.parts[c->part] + c->offset, c->data.data, c->data.len);
}

static void answer_chunk(fake_server *s, answer *a, const Pados__V1__PushChunk *c)
{
    if (s->breaks > 0) {
        if (s->breaks-- % 2 == 0) store(s, c);
        a->hang_up = true;
        return;
    }
    if (XXH3_64bits(c->data.data, c->data.len) != c->checksum || c->push != 9) {
        a->reply.status = 15;
        a->reply.message = (char *)"the chunk's checksum does not fit";
        fake_pack(a);
        return;
    }
    store(s, c);
    Pados__V1__PushChunkReply r = PADOS__V1__PUSH_CHUNK_REPLY__INIT;
    r.received = s->seen.part_bytes[c->part];
    a->reply.body_case = PADOS__V1__REPLY__BODY_PUSH_CHUNK;
    a->reply.push_chunk = &r;
    fake_pack(a);
}

void fake_answer_job(answer *a, uint64_t job, const char *stage)
{
    Pados__V1__JobReply r = PADOS__V1__JOB_REPLY__INIT;
    r.job = job;
    r.table = (char *)"products";
    r.stage = (char *)stage;
    r.version = 4;
    /* Job 13 is the one that fails. */
    if (job == 13) {
        r.stage = (char *)"failed";
        r.status = 3;
        r.message = (char *)"row 17, column 3 is not a number";
    }
    a->reply.body_case = PADOS__V1__REPLY__BODY_JOB;
    a->reply.job = &r;
    fake_pack(a);
}

static void answer_tables(answer *a)
{
    Pados__V1__TableInfo info = PADOS__V1__TABLE_INFO__INIT, *infos[1] = {&info};
    info.table = (char *)"products";
    info.serving = 3;
    info.rows = 12345;
    info.dim = 64;
    info.metric = (char *)"cosine";
    info.code = (char *)"i8";
    info.changed = 1234;
    info.sequence = FAKE_SEQUENCE;
    info.problem = (char *)"recall 0.93 is under its promise of 0.95";
    Pados__V1__TableListReply list = PADOS__V1__TABLE_LIST_REPLY__INIT;
    list.tables = infos;
    list.n_tables = 1;
    a->reply.body_case = PADOS__V1__REPLY__BODY_TABLE_LIST;
    a->reply.table_list = &list;
    fake_pack(a);
}

static void answer_table(answer *a, const char *name)
{
    if (strcmp(name, "products") != 0) {
        a->reply.status = 5;
        a->reply.message = (char *)"there is no such table";
        fake_pack(a);
        return;
    }
    Pados__V1__TableInfo info = PADOS__V1__TABLE_INFO__INIT;
    info.table = (char *)"products";
    info.serving = 3;
    Pados__V1__VersionInfo version = PADOS__V1__VERSION_INFO__INIT, *versions[1] = {&version};
    version.version = 3;
    version.state = (char *)"serving";
    Pados__V1__TableReply table = PADOS__V1__TABLE_REPLY__INIT;
    table.info = &info;
    table.versions = versions;
    table.n_versions = 1;
    a->reply.body_case = PADOS__V1__REPLY__BODY_TABLE;
    a->reply.table = &table;
    fake_pack(a);
}

static void answer_profile(answer *a, const char *name, const char *text)
{
    Pados__V1__ProfileReply profile = PADOS__V1__PROFILE_REPLY__INIT;
    profile.name = (char *)name;
    profile.version = 5;
    profile.table = (char *)"products";
    profile.text = (char *)text;
    a->reply.body_case = PADOS__V1__REPLY__BODY_PROFILE;
    a->reply.profile = &profile;
    fake_pack(a);
}

static void answer_stats(answer *a)
{
    char *names[] = {(char *)"pados_searches_total"};
    double values[] = {42};
    Pados__V1__StatsReply stats = PADOS__V1__STATS_REPLY__INIT;
    stats.names = names;
    stats.values = values;
    stats.n_names = stats.n_values = 1;
    a->reply.body_case = PADOS__V1__REPLY__BODY_STATS;
    a->reply.stats = &stats;
    fake_pack(a);
}

static void answer_any(fake_server *s, Pados__V1__Request *r, answer *a)
{
    switch (r->body_case) {
    case PADOS__V1__REQUEST__BODY_HELLO:
        answer_hello(s, a);
        break;
    case PADOS__V1__REQUEST__BODY_SEARCH:
        answer_search(s, a, r->search);
        break;
    case PADOS__V1__REQUEST__BODY_PUSH_BEGIN:
        answer_begin(s, a, r->push_begin);
        break;
    case PADOS__V1__REQUEST__BODY_PUSH_CHUNK:
        answer_chunk(s, a, r->push_chunk);
        break;
    case PADOS__V1__REQUEST__BODY_PUSH_COMMIT:
        s->seen.published = r->push_commit->publish;
        fake_answer_job(a, 12, "validate");
        break;
    case PADOS__V1__REQUEST__BODY_PUSH_ABORT:
        s->seen.aborted = true;
        fake_pack(a);
        break;
    case PADOS__V1__REQUEST__BODY_JOB_GET:
        if (r->job_get->job == 14) { /* as after a restart */
            a->reply.status = 5;
            a->reply.message = (char *)"there is no job 14";
            fake_pack(a);
            break;
        }
        fake_answer_job(a, r->job_get->job, "done");
        break;
    case PADOS__V1__REQUEST__BODY_TABLE_LIST:
        answer_tables(a);
        break;
    case PADOS__V1__REQUEST__BODY_TABLE_GET:
        answer_table(a, r->table_get->table);
        break;
    case PADOS__V1__REQUEST__BODY_PUBLISH: /* version 13 cannot be published, the job of 14 is lost */
        fake_answer_job(a, r->publish->version == 13 || r->publish->version == 14 ? r->publish->version : 12,
                        "load");
        break;
    case PADOS__V1__REQUEST__BODY_ROLLBACK:
        fake_answer_job(a, 12, "load");
        break;
    case PADOS__V1__REQUEST__BODY_PROFILE_PUT:
        answer_profile(a, "festive", r->profile_put->text);
        break;
    case PADOS__V1__REQUEST__BODY_PROFILE_GET:
        answer_profile(a, r->profile_get->name, "profile = {};");
        break;
    case PADOS__V1__REQUEST__BODY_STATS:
        answer_stats(a);
        break;
    default:
        if (fake_answer_change(s, r, a)) break;
        a->reply.status = 12;
        a->reply.message = (char *)"not known here";
        fake_pack(a);
    }
}

/* ------------------------------------------------------------------------------------------------ loop --- */

static void remember(fake_server *s, Pados__V1__Request *r)
{
    if ((unsigned)r->body_case < FAKE_BODIES) s->requests[r->body_case]++;
    s->seen.deadline_ms = r->deadline_ms;
    snprintf(s->seen.token, sizeof s->seen.token, "%s", r->token);
    if (r->body_case == PADOS__V1__REQUEST__BODY_SEARCH) {
        if (s->last_search) pados__v1__request__free_unpacked(s->last_search, NULL);
        s->last_search = r;
        s->seen.search = r->search;
    }
}

static void *serve(void *context)
{
    fake_server *s = context;
    nng_msg *message;
    while (nng_recvmsg(s->socket, &message, 0) == 0) {
        Pados__V1__Request *r = pados__v1__request__unpack(NULL, nng_msg_len(message), nng_msg_body(message));
        nng_pipe pipe = nng_msg_get_pipe(message);
        nng_msg_free(message);
        if (!r) continue;
        answer a = {.reply = PADOS__V1__REPLY__INIT, .send = true};
        a.reply.id = r->id;
        pthread_mutex_lock(&s->lock);
        remember(s, r);
        answer_any(s, r, &a);
        pthread_mutex_unlock(&s->lock);
        if (r != s->last_search && r != s->changes.last) pados__v1__request__free_unpacked(r, NULL);
        if (a.hang_up) {
            nng_pipe_close(pipe);
        } else if (a.send) {
            nng_msg *out;
            if (nng_msg_alloc(&out, 0) == 0 && nng_msg_append(out, a.raw, a.raw_length) == 0 &&
                nng_sendmsg(s->socket, out, 0) != 0)
                nng_msg_free(out);
        }
        free(a.raw);
    }
    return NULL;
}

fake_server *fake_start(const char *url)
{
    fake_server *s = calloc(1, sizeof *s);
    nng_listener listener;
    int port = 0;
    if (!s) return NULL;
    pthread_mutex_init(&s->lock, NULL);
    if (nng_rep0_open(&s->socket) || nng_listen(s->socket, url, &listener, 0)) return NULL;
    if (strcmp(url, "tcp://127.0.0.1:0") == 0 &&
        nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0)
        snprintf(s->url, sizeof s->url, "tcp://127.0.0.1:%d", port);
    else
        snprintf(s->url, sizeof s->url, "%s", url);
    snprintf(s->admin_url, sizeof s->admin_url, "%s", s->url);
    if (pthread_create(&s->thread, NULL, serve, s)) return NULL;
    return s;
}

void fake_stop(fake_server *s)
{
    nng_close(s->socket);
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    if (s->last_search) pados__v1__request__free_unpacked(s->last_search, NULL);
    fake_forget_changes(s);
    for (int i = 0; i < 4; i++)
        free(s->seen.parts[i]);
    free(s);
}

const char *fake_url(const fake_server *s)
{
    return s->url;
}

void fake_mood_set(fake_server *s, fake_mood mood)
{
    pthread_mutex_lock(&s->lock);
    s->mood = mood;
    pthread_mutex_unlock(&s->lock);
}

void fake_limits_set(fake_server *s, uint32_t max_queries, uint32_t max_k, uint64_t max_message)
{
    pthread_mutex_lock(&s->lock);
    s->max_queries = max_queries;
    s->max_k = max_k;
    s->max_message = max_message;
    pthread_mutex_unlock(&s->lock);
}

void fake_admin_url_set(fake_server *s, const char *url)
{
    pthread_mutex_lock(&s->lock);
    snprintf(s->admin_url, sizeof s->admin_url, "%s", url);
    pthread_mutex_unlock(&s->lock);
}

void fake_break_chunks(fake_server *s, int count)
{
    pthread_mutex_lock(&s->lock);
    s->breaks = count;
    pthread_mutex_unlock(&s->lock);
}

unsigned fake_requests(const fake_server *s, int body)
{
    fake_server *server = (fake_server *)s;
    pthread_mutex_lock(&server->lock);
    unsigned count = server->requests[body];
    pthread_mutex_unlock(&server->lock);
    return count;
}

const fake_seen *fake_look(fake_server *s)
{
    pthread_mutex_lock(&s->lock);
    return &s->seen;
}

void fake_look_away(fake_server *s)
{
    pthread_mutex_unlock(&s->lock);
}
