#include "load.h"

#include <math.h>

#include "admin.h"

const char *const load_sets[] = {"memory_mib=48",
                                 "builder_priority=\"idle\"",
                                 "calibration_queries=100",
                                 "changes.max_mib=256",
                                 "log_level=\"info\"",
                                 "rebuild_percent=200",
                                 NULL};

static const char schema[] = "table = { metric = \"cosine\"; dim = 8; nlist = 8; keep = 2; attributes = ("
                             " { name = \"dept\"; type = \"category\"; },"
                             " { name = \"price\"; type = \"number\"; },"
                             " { name = \"zones\"; type = \"set\"; },"
                             " { name = \"brand\"; type = \"key\"; },"
                             " { name = \"heat\"; type = \"number\"; feedback = { half_life_hours = 100000.0;"
                             "   events = ((\"view\", 1.0)); }; } ); };";

static uint64_t diary_now(const pd_fault_state *diary)
{
    return diary ? atomic_load(&diary->journal) : 0;
}

/* ------------------------------------------------------------------------------------------------- stamps --- */

static void vector_of(uint64_t id, uint32_t stamp, float *out)
{
    uint64_t state = id * 1000003 + stamp;
    for (uint32_t d = 0; d < MODEL_DIM; d++)
        out[d] = (float)model_below(&state, 20001) / 10000 - 1;
}

static uint8_t dept_of(uint32_t stamp)
{
    return (uint8_t)(1 + stamp % (MODEL_DEPTS - 1));
}

static uint32_t zones_of(uint32_t stamp)
{
    return stamp % (1u << MODEL_ZONES);
}

static uint64_t id_of(const load_client *c, uint32_t own)
{
    return (uint64_t)own * LOAD_CLIENTS + c->index;
}

/* ------------------------------------------------------------------------------------------------ clients --- */

void load_open(load_client *c, const server *host, uint32_t index, uint64_t seed, uint32_t timeout_ms,
               const pd_fault_state *diary)
{
    pados_options options = {.timeout_ms = timeout_ms, .connect_ms = 20000};
    pados_error error;
    *c = (load_client){.host = host, .index = index, .seed = seed * 31 + index, .diary = diary};
    if (pados_open(host->url, &options, &c->client, &error)) fail_msg("%s", error.message);
    for (uint32_t i = 0; i < LOAD_IDS; i++)
        if (i % 4) c->now[i] = (load_state){.there = true, .stamp = ++c->stamp, .price = c->stamp};
}

void load_close(load_client *c)
{
    pados_close(c->client);
    free(c->writes);
    c->writes = NULL;
}

void load_fill(load_client *clients)
{
    static float vectors[LOAD_ROWS * MODEL_DIM];
    static uint64_t ids[LOAD_ROWS];
    static char csv[LOAD_ROWS * 160];
    char text[MODEL_TEXT], *at = csv + sprintf(csv, "id,dept,price,zones,brand\n");
    uint64_t n = 0;
    pados_error error;
    for (uint32_t c = 0; c < LOAD_CLIENTS; c++)
        for (uint32_t i = 0; i < LOAD_IDS; i++) {
            const load_state *s = &clients[c].now[i];
            if (!s->there) continue;
            ids[n] = id_of(&clients[c], i);
            vector_of(ids[n], s->stamp, vectors + n * MODEL_DIM);
            at += sprintf(at, "%llu,%s,%u,%s,%u\n", (unsigned long long)ids[n], model_dept(dept_of(s->stamp)),
                          s->price, model_zones(zones_of(s->stamp), text), s->stamp);
            n++;
        }
    if (push_rows(clients[0].client, "t", schema, n, MODEL_DIM, vectors, ids, csv, false, NULL, &error))
        fail_msg("push: %s", error.message);
}

/* ------------------------------------------------------------------------------------------------- writes --- */

static load_write *next_write(load_client *c)
{
    if (c->count == c->room) {
        c->room = c->room ? c->room * 2 : 256;
        c->writes = realloc(c->writes, c->room * sizeof *c->writes);
        if (!c->writes) abort();
    }
    return &c->writes[c->count];
}

/* own: the row; LOAD_IDS: some. */
static void plan_write(load_client *c, uint32_t kind, uint32_t own, load_write *w)
{
    *w = (load_write){.kind = kind, .acknowledged = UINT64_MAX};
    /* An erasure is a receipt for each row: of several some may be done. */
    w->n = 1 + model_below(&c->seed, kind == LOAD_ERASE ? 1 : LOAD_BATCH);
    uint32_t first = model_below(&c->seed, LOAD_IDS), stride = 1 + 2 * model_below(&c->seed, 3);
    if (own < LOAD_IDS) {
        w->n = 1;
        first = own;
    }
    if (stride == 5) stride = 7; /* prime to LOAD_IDS: ids are distinct */
    c->stamp++;
    snprintf(w->key, sizeof w->key, "client-%u-%u", c->index, c->stamp);
    for (uint32_t i = 0; i < w->n; i++) {
        uint32_t id = w->ids[i] = (first + i * stride) % LOAD_IDS;
        load_state *after = &w->after[i];
        *after = c->now[id];
        if (kind == LOAD_UPSERT)
            *after = (load_state){true, c->stamp, c->stamp, after->there ? after->heat : 0};
        if (kind == LOAD_UPDATE && after->there) after->price = c->stamp;
        if (kind == LOAD_DELETE || kind == LOAD_ERASE) *after = (load_state){0};
        w->weights[i] = 1 + model_below(&c->seed, 5);
        if (kind == LOAD_COUNT && after->there) after->heat += w->weights[i];
    }
}

static pados_status send_upsert(load_client *c, const load_write *w, const uint64_t *ids, pados_written *out,
                                pados_error *error)
{
    float vectors[LOAD_BATCH * MODEL_DIM], prices[LOAD_BATCH];
    uint64_t brands[LOAD_BATCH];
    char text[MODEL_TEXT];
    static const uint32_t same[LOAD_BATCH];
    const char *dept = model_dept(dept_of(c->stamp)), *zones = model_zones(zones_of(c->stamp), text);
    for (uint32_t i = 0; i < w->n; i++) {
        vector_of(ids[i], w->after[i].stamp, vectors + i * MODEL_DIM);
        prices[i] = (float)w->after[i].price;
        brands[i] = w->after[i].stamp;
    }
    pados_values values[] = {{.attribute = "dept", .texts = &dept, .ntexts = 1, .text_of = same},
                             {.attribute = "zones", .texts = &zones, .ntexts = 1, .text_of = same},
                             {.attribute = "price", .numbers = prices},
                             {.attribute = "brand", .keys = brands}};
    pados_upsert upsert = {.table = "t",
                           .ids = ids,
                           .count = w->n,
                           .vectors = vectors,
                           .dim = MODEL_DIM,
                           .attributes = values,
                           .nattributes = 4,
                           .key = w->key};
    return pados_upsert_run(c->client, &upsert, out, error);
}

static pados_status send(load_client *c, const load_write *w, pados_written *out, pados_error *error)
{
    uint64_t ids[LOAD_BATCH];
    float prices[LOAD_BATCH], weights[LOAD_BATCH];
    for (uint32_t i = 0; i < w->n; i++) {
        ids[i] = id_of(c, w->ids[i]);
        prices[i] = (float)c->stamp;
        weights[i] = (float)w->weights[i];
    }
    pados_values price = {.attribute = "price", .numbers = prices};
    pados_update update = {
        .table = "t", .ids = ids, .count = w->n, .attributes = &price, .nattributes = 1, .key = w->key};
    pados_delete gone = {.table = "t", .ids = ids, .count = w->n, .key = w->key};
    static const char *const view = "view";
    static const uint32_t same[LOAD_BATCH];
    pados_feedback feedback = {.table = "t",
                               .items = ids,
                               .count = w->n,
                               .events = &view,
                               .nevents = 1,
                               .event_of = same,
                               .weights = weights,
                               .key = w->key};
    pados_erasures *receipts;
    pados_status status;
    switch (w->kind) {
    case LOAD_UPSERT:
        return send_upsert(c, w, ids, out, error);
    case LOAD_UPDATE:
        return pados_update_run(c->client, &update, out, error);
    case LOAD_DELETE:
        return pados_delete_run(c->client, &gone, out, error);
    case LOAD_COUNT:
        return pados_feedback_run(c->client, &feedback, out, error);
    default:
        status = pados_erase(c->client, "t", ids, w->n, &receipts, error);
        if (!status) pados_erasures_free(receipts);
        return status;
    }
}

static void adopt(load_client *c, load_write *w)
{
    w->acknowledged = diary_now(c->diary);
    for (uint32_t i = 0; i < w->n; i++)
        c->now[w->ids[i]] = w->after[i];
}

static bool write_some(load_client *c, uint32_t kind, uint32_t own)
{
    load_write *w = next_write(c);
    pados_written written = {0};
    pados_error error;
    plan_write(c, kind, own, w);
    w->sent = diary_now(c->diary);
    pados_status status = send(c, w, &written, &error);
    if (!status) {
        adopt(c, w);
        c->count++;
        c->acknowledged++;
        c->repeated += written.repeated;
        if (written.sequence > c->sequence) c->sequence = written.sequence;
        return true;
    }
    c->last_error = status;
    snprintf(c->last_message, sizeof c->last_message, "%.290s", error.message);
    /* An erasure that failed half way is begun again by the server: it may be done later. */
    if (status == UNAVAILABLE || status == DEADLINE_EXCEEDED || kind == LOAD_ERASE) {
        c->count++;
        c->unknown++;
        return false;
    }
    c->refused++;
    return true;
}

/* ----------------------------------------------------------------------------------------------- searches --- */

static bool row_is(const seen_row *row, const load_state *s)
{
    return row->brand == s->stamp && row->price == (float)s->price && row->dept == dept_of(s->stamp) &&
           row->zones == zones_of(s->stamp) && fabs(row->heat - s->heat) <= 0.05 + 0.01 * s->heat;
}

static void describe(char *why, uint64_t id, const load_state *s, const seen_row *row)
{
    char is[120] = "is not there", should[120] = "should not be there";
    if (row)
        snprintf(is, sizeof is, "is stamp %llu, price %g, dept %u, zones %u, heat %g, score %g",
                 (unsigned long long)row->brand, (double)row->price, row->dept, row->zones, row->heat,
                 (double)row->score);
    if (s->there)
        snprintf(should, sizeof should, "should be stamp %u, price %u, heat %g", s->stamp, s->price, s->heat);
    snprintf(why, 300, "row %llu %s, and %s", (unsigned long long)id, is, should);
}

/* A row of the client's own, as it last was: found when it is there, and never when it was deleted. */
static bool search_own(load_client *c)
{
    static const char *const all[] = {"*"};
    uint32_t own = model_below(&c->seed, LOAD_IDS);
    const load_state *s = &c->now[own];
    bool exact = model_below(&c->seed, 3) == 0;
    float query[MODEL_DIM];
    uint64_t id = id_of(c, own);
    vector_of(id, s->stamp, query);
    pados_search search = {.table = "t",
                           .count = 1,
                           .k = 5,
                           .vectors = query,
                           .dim = MODEL_DIM,
                           .exact = exact,
                           .nprobe = exact ? 0 : 4096,
                           .attributes = all,
                           .nattributes = 1,
                           .at_least = c->sequence};
    pados_result *r;
    pados_error error;
    pados_status status = pados_search_run(c->client, &search, &r, &error);
    if (status) {
        c->last_error = status;
        if (status != UNAVAILABLE && status != DEADLINE_EXCEEDED && status != RESOURCE_EXHAUSTED)
            snprintf(c->wrong, sizeof c->wrong, "a search: %.250s", error.message);
        return !c->wrong[0];
    }
    size_t count;
    seen_row *rows = seen_rows(r, &count), *found = NULL;
    for (size_t i = 0; i < count; i++)
        if (rows[i].id == id) found = &rows[i];
    if (s->there ? !found || !row_is(found, s) : found != NULL) describe(c->wrong, id, s, found);
    if (c->wrong[0]) strncat(c->wrong, exact ? " (exact search)" : " (all lists)", 20);
    free(rows);
    pados_result_free(r);
    c->searches++;
    return !c->wrong[0];
}

bool load_step(load_client *c, int kind)
{
    static const uint32_t share[LOAD_KINDS] = {38, 62, 76, 98, 100};
    if (kind >= 0) return write_some(c, (uint32_t)kind, LOAD_IDS);
    if (model_below(&c->seed, 4) == 0) return search_own(c);
    uint32_t dice = model_below(&c->seed, 100), k = 0;
    while (dice >= share[k])
        k++;
    return write_some(c, k, LOAD_IDS);
}

bool load_step_on(load_client *c, uint32_t kind, uint32_t own)
{
    return write_some(c, kind, own);
}

uint64_t load_row(const load_client *c, uint32_t own, float *vector)
{
    vector_of(id_of(c, own), c->now[own].stamp, vector);
    return id_of(c, own);
}

static void *run(void *argument)
{
    load_client *c = argument;
    while (!atomic_load(c->stop) && load_step(c, -1))
        ;
    return NULL;
}

void load_start(load_client *c, atomic_bool *stop)
{
    c->stop = stop;
    assert_int_equal(pthread_create(&c->thread, NULL, run, c), 0);
}

/* ----------------------------------------------------------------------------------------------- checking --- */

/* What must be there at a length of the diary, and the write that may be. */
static const load_write *state_at(const load_client *c, uint64_t diary, load_state *out)
{
    const load_write *open = NULL;
    if (diary == UINT64_MAX) {
        memcpy(out, c->now, sizeof c->now);
        if (c->count && c->writes[c->count - 1].acknowledged == UINT64_MAX) open = &c->writes[c->count - 1];
        return open;
    }
    uint32_t stamp = 0;
    for (uint32_t i = 0; i < LOAD_IDS; i++) {
        out[i] = (load_state){0};
        if (i % 4) out[i] = (load_state){.there = true, .stamp = ++stamp, .price = stamp};
    }
    for (uint32_t w = 0; w < c->count; w++) {
        const load_write *write = &c->writes[w];
        if (write->acknowledged <= diary) {
            for (uint32_t i = 0; i < write->n; i++)
                out[write->ids[i]] = write->after[i];
        } else {
            if (write->sent <= diary) open = write;
            break;
        }
    }
    return open;
}

static bool agrees(const load_client *c, const load_state *want, const seen_row *const *seen,
                   const float *query, double slack, char *why)
{
    for (uint32_t i = 0; i < LOAD_IDS; i++) {
        uint64_t id = id_of(c, i);
        const seen_row *row = seen[id];
        bool same = want[i].there ? row && row_is(row, &want[i]) : !row;
        if (same && row) {
            float vector[MODEL_DIM];
            double ab = 0, aa = 0, bb = 0;
            vector_of(id, want[i].stamp, vector);
            for (uint32_t d = 0; d < MODEL_DIM; d++) {
                ab += (double)vector[d] * query[d];
                aa += (double)vector[d] * vector[d];
                bb += (double)query[d] * query[d];
            }
            same = fabs(ab / sqrt(aa * bb) - row->score) < slack;
        }
        if (same) continue;
        describe(why, id, &want[i], row);
        return false;
    }
    return true;
}

static bool check_client(load_client *c, const seen_row *const *seen, const float *query, double slack,
                         uint64_t diary, bool settle, char *why)
{
    load_state want[LOAD_IDS];
    char other[300];
    const load_write *open = state_at(c, diary, want);
    bool well = agrees(c, want, seen, query, slack, why);
    if (!open) return well;
    if (!well) {
        for (uint32_t i = 0; i < open->n; i++)
            want[open->ids[i]] = open->after[i];
        if (!agrees(c, want, seen, query, slack, other)) {
            size_t n = strlen(why);
            snprintf(why + n, 300 - n, "; nor as a write under way leaves it: %.140s", other);
            return false;
        }
    }
    if (diary != UINT64_MAX || !settle) return true;
    if (well)
        c->count--;
    else
        adopt(c, &c->writes[c->count - 1]);
    return true;
}

bool load_check(load_client *clients, uint32_t nclients, pados_client *client, uint64_t diary, char *why)
{
    float query[MODEL_DIM];
    pados_error error;
    vector_of(diary, 77, query);
    for (int exact = 0; exact < 2; exact++) {
        const seen_row *seen[LOAD_ROWS] = {NULL};
        seen_row *rows;
        size_t count;
        pados_status status = model_look(client, "t", query, exact, NULL, 0, 0, &rows, &count, &error);
        if (status) {
            snprintf(why, 300, "a search: %.280s", error.message);
            return false;
        }
        bool well = true;
        for (size_t i = 0; well && i < count; i++) {
            well = rows[i].id < LOAD_ROWS && !seen[rows[i].id];
            if (well)
                seen[rows[i].id] = &rows[i];
            else
                snprintf(why, 300, "row %llu is there twice, or nobody's", (unsigned long long)rows[i].id);
        }
        for (uint32_t c = 0; well && c < nclients; c++)
            well = check_client(&clients[c], seen, query, exact ? 0.002 : 0.03, diary, exact, why);
        free(rows);
        if (!well) {
            strncat(why, exact ? " (exact)" : " (all lists)", 299 - strlen(why));
            return false;
        }
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------- pushes --- */

enum { U_ROWS = 150 };

bool load_push(load_pushes *p, uint32_t generation, bool stage_first)
{
    static _Thread_local float vectors[U_ROWS * MODEL_DIM];
    static _Thread_local char csv[U_ROWS * 60];
    char *at = csv + sprintf(csv, "id,price,brand\n");
    uint64_t version;
    pados_error error;
    if (p->count == 4096) return true;
    for (uint32_t i = 0; i < U_ROWS; i++) {
        vector_of(i, generation, vectors + i * MODEL_DIM);
        at += sprintf(at, "%u,%u,%u\n", i, generation, generation);
    }
    uint32_t n = p->count;
    p->at[n].generation = generation;
    p->at[n].sent = diary_now(p->diary);
    p->at[n].acknowledged = UINT64_MAX;
    p->count++;
    pados_status status = push_rows(p->client, "u", schema, U_ROWS, MODEL_DIM, vectors, NULL, csv,
                                    stage_first, &version, &error);
    if (!status && stage_first) status = publish(p->client, "u", version, &error);
    if (!status) p->at[n].acknowledged = diary_now(p->diary);
    if (status) snprintf(p->wrong, sizeof p->wrong, "push: %.250s", error.message);
    return !status;
}

static void *run_pushes(void *argument)
{
    load_pushes *p = argument;
    for (uint32_t i = 1; !atomic_load(p->stop); i++) {
        uint64_t version;
        pados_error error;
        if (i % 3 == 0) {
            p->rebuilds++;
            if (pados_rebuild(p->client, i % 2 ? "t" : "u", NULL, NULL, &version, &error)) break;
        } else if (!load_push(p, p->count + 1, i % 3 == 1)) {
            break;
        }
    }
    return NULL;
}

void load_push_start(load_pushes *p, atomic_bool *stop)
{
    p->stop = stop;
    p->wrong[0] = 0;
    assert_int_equal(pthread_create(&p->thread, NULL, run_pushes, p), 0);
}

bool load_check_pushes(const load_pushes *p, pados_client *client, uint64_t diary, char *why)
{
    float query[MODEL_DIM];
    seen_row *rows;
    size_t count;
    pados_error error;
    uint32_t least = 0, most = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        bool done = p->at[i].acknowledged != UINT64_MAX && p->at[i].acknowledged <= diary;
        if (done) least = p->at[i].generation;
        if (p->at[i].sent <= diary) most = p->at[i].generation;
    }
    vector_of(1, 1, query);
    pados_status status = model_look(client, "u", query, true, NULL, 0, 0, &rows, &count, &error);
    if (status) {
        snprintf(why, 300, "table u: %.280s", error.message);
        return !least;
    }
    bool well = count == U_ROWS;
    uint32_t generation = count ? (uint32_t)rows[0].brand : 0;
    for (size_t i = 0; i < count; i++)
        well = well && rows[i].brand == generation && rows[i].price == (float)generation;
    well = well && generation >= least && generation <= most;
    snprintf(why, 300, "table u: %zu rows of generation %u, it should be %u to %u", count, generation, least,
             most);
    free(rows);
    return well;
}
