/* Random lives of a table, each step compared with a model in memory (model.h).
 *
 *     PADOS_SEED=n    another life, or the same again
 *     PADOS_STEPS=n   a longer one
 *
 * Rows are pushed (with changes made while the push is under way), staged, published, rolled back and rebuilt, upserted, updated,
 * deleted, erased and counted; the server is stopped and killed between steps, and killed in the middle of pushes and
 * rebuilds. Exact searches and searches of all lists, with and without filters, must answer just what the model holds.
 */
#include "admin.h"
#include "model.h"

#include <math.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#define TABLE "goods"

typedef struct world {
    server host;
    pados_client *client;
    model m;
    uint64_t seed, sequence;
    uint32_t step, crashes, versions, notes;
    uint32_t kill_us; /* 0: the thread that kills ends */
    sem_t kill, killed;
    pthread_t killer;
    char last[16][160]; /* what was done, for who has to read a failure */
} world;

static const char *const sets[] = {"memory_mib=64", "calibration_queries=100", "rebuild_percent=0",
                                   "log_level=\"info\"", NULL};

static void note(world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(world *w, const char *format, ...)
{
    char *line = w->last[w->notes++ % 16];
    int n = snprintf(line, sizeof w->last[0], "step %u: ", w->step);
    va_list args;
    va_start(args, format);
    vsnprintf(line + n, sizeof w->last[0] - (size_t)n, format, args);
    va_end(args);
    if (getenv("PADOS_TALK")) print_message("%s\n", line);
}

static void wrong(world *w, const char *what) __attribute__((noreturn));
static void wrong(world *w, const char *what)
{
    for (uint32_t i = w->notes > 16 ? w->notes - 16 : 0; i < w->notes; i++)
        print_message("    %s\n", w->last[i % 16]);
    print_message("    the server's folder is %s\n", w->host.folder);
    fail_msg("step %u: %s", w->step, what);
    abort();
}

static void expect(world *w, pados_status status, const pados_error *error, const char *what)
{
    char why[600];
    if (!status) return;
    snprintf(why, sizeof why, "%s: %s: %s", what, pados_status_name(status), error->message);
    wrong(w, why);
}

/* PADOS_WATCH=id: tells of every change of a row. */
static void watch(const world *w, const char *what, const uint64_t *ids, uint32_t n)
{
    const char *watched = getenv("PADOS_WATCH");
    for (uint32_t i = 0; watched && i < n; i++)
        if (ids[i] == strtoull(watched, NULL, 10))
            print_message("    step %u: %s, sequence %llu, place %u\n", w->step, what,
                          (unsigned long long)w->sequence, i);
}

static bool chance(world *w, uint32_t percent)
{
    return model_below(&w->seed, 100) < percent;
}

/* Distinct ids. */
static uint32_t some_ids(world *w, uint32_t most, uint64_t *ids)
{
    static bool taken[MODEL_IDS];
    uint32_t n = 1 + model_below(&w->seed, most);
    memset(taken, 0, sizeof taken);
    for (uint32_t i = 0; i < n; i++) {
        do
            ids[i] = model_below(&w->seed, MODEL_IDS);
        while (taken[ids[i]]);
        taken[ids[i]] = true;
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------- writes --- */

enum { MOST = 60 };

static void told(world *w, const pados_written *written, const char *what, uint32_t changed, uint32_t fresh,
                 uint32_t missing)
{
    char why[300];
    if (written->changed == changed && written->fresh == fresh && written->missing == missing &&
        (written->durable || !changed) && !written->repeated && written->sequence >= w->sequence) {
        w->sequence = written->sequence;
        return;
    }
    snprintf(why, sizeof why,
             "%s: changed %u, fresh %u, missing %u, durable %d, repeated %d, sequence %llu after %llu; not "
             "%u, %u, %u",
             what, written->changed, written->fresh, written->missing, written->durable, written->repeated,
             (unsigned long long)written->sequence, (unsigned long long)w->sequence, changed, fresh, missing);
    wrong(w, why);
}

static uint32_t there(const world *w, const uint64_t *ids, uint32_t n)
{
    const model_version *v = model_serving(&w->m);
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i++)
        count += v->rows[ids[i]].there;
    return count;
}

static void upsert(world *w)
{
    uint64_t ids[MOST], brands[MOST];
    float vectors[MOST * MODEL_DIM], prices[MOST];
    char zone_text[MOST][MODEL_TEXT];
    const char *depts[MOST], *zones[MOST];
    model_row rows[MOST];
    uint32_t n = some_ids(w, chance(w, 10) ? MOST : 12, ids);
    for (uint32_t i = 0; i < n; i++) {
        model_row_random(&w->seed, &rows[i]);
        memcpy(vectors + i * MODEL_DIM, rows[i].vector, sizeof rows[i].vector);
        prices[i] = rows[i].price;
        brands[i] = rows[i].brand;
        depts[i] = model_dept(rows[i].dept);
        zones[i] = model_zones(rows[i].zones, zone_text[i]);
    }
    pados_values values[] = {{.attribute = "dept", .texts = depts, .ntexts = n},
                             {.attribute = "price", .numbers = prices},
                             {.attribute = "zones", .texts = zones, .ntexts = n},
                             {.attribute = "brand", .keys = brands}};
    uint32_t named = chance(w, 20) ? model_below(&w->seed, 4) : 4; /* what is not named is unknown */
    pados_upsert write = {.table = TABLE,
                          .ids = ids,
                          .count = n,
                          .vectors = vectors,
                          .dim = MODEL_DIM,
                          .attributes = values,
                          .nattributes = named};
    pados_written written;
    pados_error error;
    note(w, "upsert %u rows, the first %llu, %u attributes", n, (unsigned long long)ids[0], named);
    expect(w, pados_upsert_run(w->client, &write, &written, &error), &error, "upsert");
    told(w, &written, "upsert", n, n - there(w, ids, n), 0);
    watch(w, "upsert", ids, n);
    for (uint32_t i = 0; i < n; i++) {
        if (named < 4) rows[i].brand = 0;
        if (named < 3) rows[i].zones = 0;
        if (named < 2) rows[i].price = NAN;
        if (named < 1) rows[i].dept = 0;
        model_upsert(&w->m, ids[i], &rows[i]);
    }
}

static void update(world *w)
{
    uint64_t ids[MOST];
    float prices[MOST];
    const char *texts[MOST];
    char zone_text[MOST][MODEL_TEXT];
    model_row rows[MOST];
    uint32_t n = some_ids(w, MOST, ids), which = model_below(&w->seed, 3);
    static const char *const names[] = {"price", "zones", "dept"};
    for (uint32_t i = 0; i < n; i++) {
        model_row_random(&w->seed, &rows[i]);
        prices[i] = rows[i].price;
        texts[i] = which == 1 ? model_zones(rows[i].zones, zone_text[i]) : model_dept(rows[i].dept);
    }
    pados_values value = {.attribute = names[which]};
    if (which == 0)
        value.numbers = prices;
    else
        value.texts = texts, value.ntexts = n;
    pados_update write = {.table = TABLE, .ids = ids, .count = n, .attributes = &value, .nattributes = 1};
    pados_written written;
    pados_error error;
    uint32_t count = there(w, ids, n);
    note(w, "update %s of %u rows, the first %llu", names[which], n, (unsigned long long)ids[0]);
    expect(w, pados_update_run(w->client, &write, &written, &error), &error, "update");
    told(w, &written, "update", count, 0, n - count);
    watch(w, "update", ids, n);
    for (uint32_t v = 0; v < w->m.count; v++)
        for (uint32_t i = 0; i < n; i++) {
            model_row *row = &w->m.versions[v]->rows[ids[i]];
            if (!row->there) continue;
            if (which == 0) row->price = rows[i].price;
            if (which == 1) row->zones = rows[i].zones;
            if (which == 2) row->dept = rows[i].dept;
        }
}

static void delete_rows(world *w)
{
    uint64_t ids[MOST];
    pados_written written;
    pados_error error;
    uint32_t n = some_ids(w, 10, ids), count = there(w, ids, n);
    pados_delete write = {.table = TABLE, .ids = ids, .count = n};
    note(w, "delete %u rows, the first %llu", n, (unsigned long long)ids[0]);
    expect(w, pados_delete_run(w->client, &write, &written, &error), &error, "delete");
    told(w, &written, "delete", count, 0, n - count);
    watch(w, "delete", ids, n);
    for (uint32_t i = 0; i < n; i++)
        model_delete(&w->m, ids[i]);
}

static void feedback(world *w)
{
    static const char *const events[] = {"view", "buy"};
    uint64_t ids[MOST];
    uint32_t event_of[MOST];
    float weights[MOST];
    pados_written written;
    pados_error error;
    uint32_t n = some_ids(w, 20, ids), count = there(w, ids, n);
    for (uint32_t i = 0; i < n; i++) {
        event_of[i] = model_below(&w->seed, 2);
        weights[i] = (float)(1 + model_below(&w->seed, 4)) / 2;
    }
    pados_feedback write = {.table = TABLE,
                            .items = ids,
                            .count = n,
                            .events = events,
                            .nevents = 2,
                            .event_of = event_of,
                            .weights = weights};
    note(w, "feedback on %u rows, the first %llu", n, (unsigned long long)ids[0]);
    expect(w, pados_feedback_run(w->client, &write, &written, &error), &error, "feedback");
    told(w, &written, "feedback", count, 0, n - count);
    watch(w, "feedback", ids, n);
    for (uint32_t i = 0; i < n; i++)
        model_count(&w->m, ids[i], (event_of[i] ? 10 : 1) * (double)weights[i]);
}

static void erase(world *w)
{
    uint64_t ids[MOST];
    pados_erasures *receipts;
    pados_error error;
    uint32_t n = some_ids(w, 4, ids);
    note(w, "erase %u rows, the first %llu", n, (unsigned long long)ids[0]);
    expect(w, pados_erase(w->client, TABLE, ids, n, &receipts, &error), &error, "erase");
    if (receipts->count != n) wrong(w, "an erasure has not as many receipts as ids");
    pados_erasures_free(receipts);
    watch(w, "erase", ids, n);
    for (uint32_t i = 0; i < n; i++)
        model_delete(&w->m, ids[i]);
}

static void change(world *w)
{
    uint32_t what = model_below(&w->seed, 100);
    if (what < 42)
        upsert(w);
    else if (what < 65)
        update(w);
    else if (what < 82)
        delete_rows(w);
    else if (what < 96)
        feedback(w);
    else
        erase(w);
}

/* ------------------------------------------------------------------------------------------------ looking --- */

static uint32_t random_filters(world *w, model_filter *filters, pados_condition *conditions)
{
    static const char *const names[] = {"dept", "price", "zones", "brand"};
    uint32_t n = model_below(&w->seed, 3);
    for (uint32_t i = 0; i < n; i++) {
        model_filter *f = &filters[i];
        uint32_t which = model_below(&w->seed, 4), values = 1;
        f->condition = (pados_condition){.attribute = names[which], .values = f->pointers};
        static const pados_condition_kind of_set[] = {PADOS_ANY_OF, PADOS_ALL_OF, PADOS_NONE_OF};
        if (which == 1)
            f->condition.kind = chance(w, 50) ? PADOS_AT_LEAST : PADOS_AT_MOST;
        else if (which == 2)
            f->condition.kind = of_set[model_below(&w->seed, 3)];
        else
            f->condition.kind = chance(w, 70) ? PADOS_IS : PADOS_IS_NOT;
        if (which == 2) values = 1 + model_below(&w->seed, 2);
        for (uint32_t v = 0; v < values; v++) {
            f->pointers[v] = f->values[v];
            if (which == 0)
                snprintf(f->values[v], MODEL_TEXT, "%s",
                         model_dept((uint8_t)(1 + model_below(&w->seed, MODEL_DEPTS - 1))));
            if (which == 1) snprintf(f->values[v], MODEL_TEXT, "%g", model_below(&w->seed, 400) / 4.0);
            if (which == 2) model_zones(1u << ((model_below(&w->seed, 3) + v) % MODEL_ZONES), f->values[v]);
            if (which == 3) snprintf(f->values[v], MODEL_TEXT, "%u", 1 + model_below(&w->seed, 40));
        }
        f->condition.count = values;
        conditions[i] = f->condition;
    }
    return n;
}

static void look(world *w, const pados_condition *conditions, uint32_t n, bool exact)
{
    float query[MODEL_DIM];
    seen_row *rows = NULL;
    size_t count;
    pados_error error;
    char why[300], whole[500];
    model_vector(&w->seed, query);
    pados_status status =
        model_look(w->client, TABLE, query, exact, conditions, n, w->sequence, &rows, &count, &error);
    /* A value that no row ever had is refused by name: nothing passes it. */
    if (status == INVALID_ARGUMENT && n) return;
    expect(w, status, &error, "search");
    if (!model_agrees(&w->m, query, exact, conditions, n, rows, count, why)) {
        size_t at =
            (size_t)snprintf(whole, sizeof whole, "%s search: %s", exact ? "exact" : "all lists", why);
        for (uint32_t i = 0; i < n && at < sizeof whole; i++)
            at += (size_t)snprintf(whole + at, sizeof whole - at, "; %s kind %d %s", conditions[i].attribute,
                                   (int)conditions[i].kind, conditions[i].values[0]);
        wrong(w, whole);
    }
    free(rows);
}

static void search(world *w)
{
    model_filter filters[3];
    pados_condition conditions[3];
    uint32_t n = random_filters(w, filters, conditions);
    look(w, conditions, n, chance(w, 50));
}

/* The best few are the best few. */
static void search_few(world *w)
{
    float query[MODEL_DIM];
    uint32_t k = 1 + model_below(&w->seed, 10);
    model_vector(&w->seed, query);
    pados_search few = {.table = TABLE,
                        .count = 1,
                        .k = k,
                        .vectors = query,
                        .dim = MODEL_DIM,
                        .exact = true,
                        .at_least = w->sequence};
    pados_result *best;
    seen_row *all;
    size_t count;
    pados_error error;
    expect(w, pados_search_run(w->client, &few, &best, &error), &error, "search");
    expect(w, model_look(w->client, TABLE, query, true, NULL, 0, 0, &all, &count, &error), &error, "search");
    if (best->hits != (count < k ? count : k)) wrong(w, "a search answers fewer than there are");
    for (size_t i = 0; i < best->hits; i++)
        if (fabsf(best->scores[i] - all[i].score) > 1e-6f) wrong(w, "a better row is not answered");
    pados_result_free(best);
    free(all);
}

static void check_whole(world *w)
{
    look(w, NULL, 0, true);
    look(w, NULL, 0, false);
}

/* ----------------------------------------------------------------------------------------------- versions --- */

static bool listed(const Pados__V1__TableReply *table, uint64_t number)
{
    for (size_t i = 0; i < table->n_versions; i++)
        if (table->versions[i]->version == number) return true;
    return false;
}

/* What is known of the table; a connection that was cut is made anew meanwhile. */
static Pados__V1__Reply *ask_table(world *w)
{
    Pados__V1__Reply *reply;
    pados_error error;
    pados_status status = table_get(w->client, TABLE, &reply, &error);
    for (int i = 0; i < 100 && status == UNAVAILABLE; i++) {
        usleep(20000);
        status = table_get(w->client, TABLE, &reply, &error);
    }
    expect(w, status, &error, "table");
    return reply;
}

/* Forgets what the server no longer keeps; a version that only the server knows is the one that was begun. */
static void compare_versions(world *w, model_version *begun)
{
    Pados__V1__Reply *reply = ask_table(w);
    const Pados__V1__TableReply *table = reply->table;
    for (size_t i = 0; i < table->n_versions; i++) {
        const Pados__V1__VersionInfo *info = table->versions[i];
        if (!strcmp(info->state, "broken") || info->problem[0]) wrong(w, info->problem);
        if (model_find(&w->m, info->version)) continue;
        if (!begun || begun->number) wrong(w, "there is a version that nobody made");
        begun->number = info->version;
    }
    for (uint32_t i = w->m.count; i-- > 0;)
        if (!listed(table, w->m.versions[i]->number)) model_forget(&w->m, w->m.versions[i]->number);
    uint64_t serves = table->info->serving;
    pados_reply_free(reply);
    if (serves != w->m.serving && model_find(&w->m, serves) == begun && begun)
        model_serve(&w->m, serves, false); /* a push that was killed after its switch */
    if (serves != w->m.serving) wrong(w, "another version serves than should");
    if (w->m.count > 6) wrong(w, "versions are not pruned");
}

typedef struct pushing {
    world *w;
    model_version *v;
    uint32_t changes;
    const char *bytes;
    size_t length, at;
    bool first;
    const model_version *rows;
} pushing;

static pados_status part_read(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    pushing *p = context;
    (void)error;
    if (p->first && !p->v) { /* the push has begun */
        p->v = model_begin(&p->w->m);
        memcpy(p->v->rows, p->rows->rows, sizeof p->v->rows);
        for (uint32_t i = 0; i < p->changes; i++) {
            p->w->step++;
            change(p->w);
        }
    }
    size_t left = p->length - p->at;
    *got = left < max ? left : max;
    memcpy(data, p->bytes + p->at, *got);
    p->at += *got;
    return 0;
}

static pados_status part_seek(void *context, uint64_t offset, pados_error *error)
{
    (void)error;
    ((pushing *)context)->at = offset;
    return 0;
}

static pados_source part(pushing *p, const void *bytes, size_t length)
{
    p->bytes = bytes;
    p->length = length;
    return (pados_source){.read = part_read, .seek = part_seek, .context = p, .bytes = length};
}

/* A thread that kills the server in a while and starts it again; servers end with the thread that started them. */
static void *keep_killing(void *argument)
{
    world *w = argument;
    for (;;) {
        sem_wait(&w->kill);
        if (!w->kill_us) return NULL;
        usleep(w->kill_us);
        server_kill(&w->host);
        server_start(&w->host, sets);
        sem_post(&w->killed);
    }
}

static void kill_soon(world *w)
{
    w->kill_us = 1000 + model_below(&w->seed, 60000);
    w->crashes++;
    sem_post(&w->kill);
}

static void push(world *w, bool stage_only, bool crash)
{
    model_version *fresh = calloc(1, sizeof *fresh);
    float *vectors = malloc(MODEL_IDS * MODEL_DIM * sizeof *vectors);
    uint64_t ids[MODEL_IDS], number = 0;
    char *csv = malloc(MODEL_IDS * 200), *at = csv + sprintf(csv, "id,dept,price,zones,brand\n"),
         text[MODEL_TEXT], price[32], brand[32];
    uint32_t n = 0, some = 30 + model_below(&w->seed, 50);
    for (uint64_t id = 0; id < MODEL_IDS; id++) {
        model_row *row = &fresh->rows[id];
        if (!chance(w, some)) continue;
        model_row_random(&w->seed, row);
        memcpy(vectors + n * MODEL_DIM, row->vector, sizeof row->vector);
        ids[n++] = id;
        snprintf(price, sizeof price, "%g", (double)row->price);
        snprintf(brand, sizeof brand, "%llu", (unsigned long long)row->brand);
        at += sprintf(at, "%llu,%s,%s,%s,%s\n", (unsigned long long)id, model_dept(row->dept),
                      isnan(row->price) ? "" : price, model_zones(row->zones, text), row->brand ? brand : "");
    }
    pushing v = {.w = w,
                 .first = true,
                 .rows = fresh,
                 .changes = crash || !w->m.count ? 0 : model_below(&w->seed, 6)},
            i = {.w = w}, a = {.w = w};
    pados_push ask = {.table = TABLE,
                      .schema = w->m.count ? NULL : model_schema,
                      .dtype = PADOS_F32,
                      .dim = MODEL_DIM,
                      .rows = n,
                      .vectors = part(&v, vectors, n * MODEL_DIM * sizeof *vectors),
                      .ids = part(&i, ids, n * sizeof *ids),
                      .attributes = part(&a, csv, strlen(csv)),
                      .attributes_name = "attributes.csv",
                      .stage_only = stage_only};
    pados_error error;
    note(w, "push %u rows%s%s, %u changes meanwhile", n, stage_only ? ", staged" : "",
         crash ? ", killed in it" : "", v.changes);
    if (crash) kill_soon(w);
    pados_status status = pados_push_run(w->client, &ask, &number, &error);
    if (crash) {
        sem_wait(&w->killed);
        note(w, "killed after %u us of a push: %s", w->kill_us, status ? error.message : "done");
    } else {
        expect(w, status, &error, "push");
    }
    w->versions++;
    if (!status) {
        v.v->number = number;
        if (!stage_only) model_serve(&w->m, number, false);
    }
    if (crash) model_doubt_heat(&w->m);
    if (w->m.count && (!v.v || w->m.count > 1 || v.v->number)) compare_versions(w, status ? v.v : NULL);
    free(fresh);
    free(vectors);
    free(csv);
}

static void rebuild(world *w, bool crash)
{
    uint64_t number = 0, before = w->m.serving;
    pados_error error;
    note(w, "rebuild%s", crash ? ", killed in it" : "");
    if (crash) kill_soon(w);
    pados_status status = pados_rebuild(w->client, TABLE, NULL, NULL, &number, &error);
    if (crash) {
        sem_wait(&w->killed);
        note(w, "killed after %u us of a rebuild: %s", w->kill_us, status ? error.message : "done");
        Pados__V1__Reply *reply = ask_table(w);
        number = reply->table->info->serving;
        pados_reply_free(reply);
    } else {
        expect(w, status, &error, "rebuild");
    }
    if (number != before) model_rebuilt(&w->m, number);
    /* Killed between the switch and the end: the version that it was made of is still kept, and holds the same rows. */
    model_version *same = NULL;
    if (crash && number != before) {
        same = model_begin(&w->m);
        memcpy(same->rows, model_serving(&w->m)->rows, sizeof same->rows);
        same->number = before;
        memmove(w->m.before + 1, w->m.before, w->m.nbefore * sizeof *w->m.before);
        w->m.before[0] = before;
        w->m.nbefore++;
    }
    /* Or before it: a version that is whole is kept. */
    model_version *left = NULL;
    if (crash && number == before) {
        left = model_begin(&w->m);
        memcpy(left->rows, model_serving(&w->m)->rows, sizeof left->rows);
    }
    compare_versions(w, left);
    if (same) {
        /* Not on the way back, whether it is there or not. */
        uint32_t n = 0;
        for (uint32_t i = 0; i < w->m.nbefore; i++)
            if (w->m.before[i] != before) w->m.before[n++] = w->m.before[i];
        w->m.nbefore = n;
    }
}

static void publish_any(world *w)
{
    pados_error error;
    uint64_t number = w->m.versions[model_below(&w->seed, w->m.count)]->number;
    note(w, "publish %llu while %llu serves", (unsigned long long)number, (unsigned long long)w->m.serving);
    expect(w, publish(w->client, TABLE, number, &error), &error, "publish");
    model_serve(&w->m, number, false);
    compare_versions(w, NULL);
}

static void roll_back(world *w)
{
    pados_error error;
    uint64_t number = model_before(&w->m);
    note(w, "roll back from %llu to %llu", (unsigned long long)w->m.serving, (unsigned long long)number);
    pados_status status = rollback(w->client, TABLE, &error);
    if (!number && status == FAILED_PRECONDITION) return;
    expect(w, status, &error, "rollback");
    if (!number) wrong(w, "there was nothing to roll back to");
    model_serve(&w->m, number, true);
    compare_versions(w, NULL);
}

/* -------------------------------------------------------------------------------------------------- lives --- */

static void restart(world *w, bool kill)
{
    note(w, "%s", kill ? "kill -9" : "restart");
    w->crashes += kill;
    if (kill)
        server_kill(&w->host);
    else if (server_stop(&w->host))
        wrong(w, "the server stops with an error");
    server_start(&w->host, sets);
    compare_versions(w, NULL);
    check_whole(w);
}

static void step(world *w)
{
    uint32_t what = model_below(&w->seed, 1000);
    if (what < 560)
        change(w);
    else if (what < 860)
        search(w);
    else if (what < 890)
        search_few(w);
    else if (what < 920)
        check_whole(w);
    else if (what < 932)
        push(w, false, false);
    else if (what < 940)
        push(w, true, false);
    else if (what < 947)
        publish_any(w);
    else if (what < 957)
        roll_back(w);
    else if (what < 967)
        rebuild(w, false);
    else if (what < 976)
        restart(w, false);
    else if (what < 988)
        restart(w, true);
    else if (what < 994)
        push(w, chance(w, 30), true), check_whole(w);
    else
        rebuild(w, true), check_whole(w);
}

/* Every erasure comes to its end. */
static void finish_erasures(world *w)
{
    pados_error error;
    for (int i = 0; i < 400; i++) {
        pados_erasures *pending;
        expect(w, pados_erasures_list(w->client, true, &pending, &error), &error, "erasures");
        size_t count = pending->count;
        pados_erasures_free(pending);
        if (!count) return;
        usleep(50000);
    }
    wrong(w, "erasures are still pending");
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given ? strtoull(given, NULL, 10) : otherwise;
}

/* A world with a table. */
static void begin(world *w, uint64_t seed)
{
    *w = (world){.seed = seed};
    server_start(&w->host, sets);
    w->client = server_client(&w->host);
    sem_init(&w->kill, 0, 0);
    sem_init(&w->killed, 0, 0);
    assert_int_equal(pthread_create(&w->killer, NULL, keep_killing, w), 0);
    push(w, false, false);
}

static void end(world *w)
{
    pados_close(w->client);
    assert_int_equal(server_stop(&w->host), 0);
    server_remove(&w->host);
    w->kill_us = 0;
    sem_post(&w->kill);
    pthread_join(w->killer, NULL);
    model_free(&w->m);
}

static void test_a_row_that_is_written_again_outlives_its_erasure(void **state)
{
    (void)state;
    static world w;
    begin(&w, 3);
    for (uint64_t id = 10; id < 20; id++) {
        pados_erasures *receipts;
        pados_written written;
        pados_error error;
        model_row row;
        model_row_random(&w.seed, &row);
        row.price = NAN, row.dept = 0, row.zones = 0, row.brand = 0;
        pados_upsert write = {
            .table = TABLE, .ids = &id, .count = 1, .vectors = row.vector, .dim = MODEL_DIM};
        must(pados_erase(w.client, TABLE, &id, 1, &receipts, &error), error);
        pados_erasures_free(receipts);
        model_delete(&w.m, id);
        must(pados_upsert_run(w.client, &write, &written, &error), error);
        model_upsert(&w.m, id, &row);
        /* Scrubbed with the table as it was built, and again once the row is in a version's files. */
        if (id == 15) rebuild(&w, false);
    }
    finish_erasures(&w);
    check_whole(&w);
    restart(&w, true); /* from the files alone */
    rebuild(&w, false);
    check_whole(&w);
    end(&w);
}

static void test_a_random_life_is_what_the_model_says(void **state)
{
    (void)state;
    static world w;
    uint64_t seed = number_of("PADOS_SEED", 2026), steps = number_of("PADOS_STEPS", 300);
    print_message("PADOS_SEED=%llu PADOS_STEPS=%llu\n", (unsigned long long)seed, (unsigned long long)steps);
    begin(&w, seed);
    for (w.step = 1; w.step <= steps; w.step++)
        step(&w);
    note(&w, "the end");
    check_whole(&w);
    finish_erasures(&w);
    check_whole(&w);
    restart(&w, true);
    print_message("%llu steps, %u crashes, %u pushes, version %llu serves\n", (unsigned long long)steps,
                  w.crashes, w.versions, (unsigned long long)w.m.serving);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_that_is_written_again_outlives_its_erasure),
        cmocka_unit_test(test_a_random_life_is_what_the_model_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
