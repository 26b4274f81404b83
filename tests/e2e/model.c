#include "model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

const char model_schema[] =
    "table = { metric = \"cosine\"; dim = 8; nlist = 8; keep = 3; attributes = ("
    " { name = \"dept\"; type = \"category\"; },"
    " { name = \"price\"; type = \"number\"; knots = (1.0, 5.0, 20.0, 50.0, 80.0); },"
    " { name = \"zones\"; type = \"set\"; },"
    " { name = \"brand\"; type = \"key\"; },"
    " { name = \"heat\"; type = \"number\"; feedback = { half_life_hours = 1.0;"
    "   events = ((\"view\", 1.0), (\"buy\", 10.0)); }; knots = (0.5, 2.0, 8.0, 32.0); } ); };";

double model_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------------------------------------- random --- */

uint64_t model_random(uint64_t *state)
{
    uint64_t x = (*state += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void model_vector(uint64_t *state, float *out)
{
    uint64_t cluster = 77 + model_below(state, 12);
    for (uint32_t d = 0; d < MODEL_DIM; d++)
        out[d] = (float)model_below(&cluster, 1000) / 500 - 1 + (float)model_below(state, 1000) / 1500;
}

void model_row_random(uint64_t *state, model_row *out)
{
    *out = (model_row){.there = true};
    model_vector(state, out->vector);
    out->price = model_below(state, 8) ? (float)model_below(state, 400) / 4 : NAN;
    out->dept = (uint8_t)model_below(state, MODEL_DEPTS);
    out->zones = model_below(state, 3) ? model_below(state, 1u << MODEL_ZONES) : 0;
    out->brand = model_below(state, 6) ? 1 + model_below(state, 40) : 0;
}

/* ----------------------------------------------------------------------------------------------- versions --- */

model_version *model_find(const model *m, uint64_t number)
{
    for (uint32_t i = 0; i < m->count; i++)
        if (m->versions[i]->number == number) return m->versions[i];
    return NULL;
}

model_version *model_serving(const model *m)
{
    return model_find(m, m->serving);
}

model_version *model_begin(model *m)
{
    if (m->count == MODEL_VERSIONS) fail_msg("the model has room for %d versions", MODEL_VERSIONS);
    model_version *v = calloc(1, sizeof *v);
    assert_non_null(v);
    return m->versions[m->count++] = v;
}

void model_forget(model *m, uint64_t number)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->versions[i]->number == number)
            free(m->versions[i]);
        else
            m->versions[n++] = m->versions[i];
    }
    m->count = n;
    n = 0;
    for (uint32_t i = 0; i < m->nbefore; i++)
        if (m->before[i] != number) m->before[n++] = m->before[i];
    m->nbefore = n;
}

void model_free(model *m)
{
    for (uint32_t i = 0; i < m->count; i++)
        free(m->versions[i]);
    *m = (model){0};
}

uint64_t model_before(const model *m)
{
    return m->nbefore ? m->before[0] : 0;
}

/* Rows that have counted nothing go on from the counters of the rows that they replace. */
static void carry_heat(model *m, const model_version *next)
{
    const model_version *now = model_serving(m);
    for (uint32_t id = 0; now && next && id < MODEL_IDS; id++) {
        const model_row *from = &now->rows[id], *to = &next->rows[id];
        if (!from->there || from->heat == 0 || !to->there || to->heat != 0) continue;
        for (uint32_t i = 0; i < m->count; i++) {
            m->versions[i]->rows[id].heat = from->heat;
            m->versions[i]->rows[id].heat_at = from->heat_at;
        }
    }
}

void model_doubt_heat(model *m)
{
    const model_version *now = model_serving(m);
    for (uint32_t i = 0; i < m->count; i++)
        for (uint32_t id = 0; id < MODEL_IDS; id++)
            if (m->versions[i] != now && m->versions[i]->rows[id].heat != now->rows[id].heat)
                m->versions[i]->rows[id].heat = NAN;
}

void model_serve(model *m, uint64_t number, bool back)
{
    uint64_t way[MODEL_VERSIONS + 1];
    uint32_t n = 0;
    if (m->serving == number) return;
    if (back) {
        while (m->nbefore && m->before[0] != number)
            memmove(m->before, m->before + 1, --m->nbefore * sizeof *m->before);
        if (m->nbefore) memmove(m->before, m->before + 1, --m->nbefore * sizeof *m->before);
        m->serving = number;
        return;
    }
    carry_heat(m, model_find(m, number));
    if (m->serving) way[n++] = m->serving;
    for (uint32_t i = 0; i < m->nbefore; i++)
        if (m->before[i] != number && n < MODEL_VERSIONS) way[n++] = m->before[i];
    memcpy(m->before, way, n * sizeof *way);
    m->nbefore = n;
    m->serving = number;
}

void model_rebuilt(model *m, uint64_t number)
{
    model_version *v = model_serving(m);
    v->parent = v->number;
    v->number = number;
    m->serving = number;
}

/* ------------------------------------------------------------------------------------------------ changes --- */

static double heat_now(const model_row *row, double now)
{
    return row->heat * exp2(-(now - row->heat_at) / (3600 * MODEL_HALF_LIFE_HOURS));
}

void model_upsert(model *m, uint64_t id, const model_row *row)
{
    for (uint32_t i = 0; i < m->count; i++) {
        model_row *own = &m->versions[i]->rows[id], before = *own;
        *own = *row;
        own->there = true;
        own->heat = before.there ? before.heat : 0;
        own->heat_at = before.heat_at;
    }
}

void model_delete(model *m, uint64_t id)
{
    for (uint32_t i = 0; i < m->count; i++)
        m->versions[i]->rows[id] = (model_row){0};
}

void model_count(model *m, uint64_t id, double weight)
{
    double now = model_now(), heat;
    const model_row *row = &model_serving(m)->rows[id];
    if (!row->there) return;
    heat = heat_now(row, now) + weight;
    for (uint32_t i = 0; i < m->count; i++) {
        model_row *own = &m->versions[i]->rows[id];
        if (!own->there) continue;
        own->heat = heat;
        own->heat_at = now;
    }
}

/* -------------------------------------------------------------------------------------------------- words --- */

const char *model_dept(uint8_t dept)
{
    static const char *const names[MODEL_DEPTS] = {"",       "fruit", "bread", "tea",    "rice",
                                                   "sweets", "soap",  "ghee",  "lentils"};
    return names[dept];
}

static const char *const zone_name[MODEL_ZONES] = {"north", "south", "east", "west", "hills"};

char *model_zones(uint32_t zones, char *text)
{
    size_t at = 0;
    text[0] = 0;
    for (uint32_t z = 0; z < MODEL_ZONES; z++)
        if (zones >> z & 1) {
            int n = snprintf(text + at, MODEL_TEXT - at, "%s%s", at ? "|" : "", zone_name[z]);
            at += (size_t)n;
        }
    return text;
}

static uint32_t zones_of(const char *text)
{
    uint32_t zones = 0;
    char copy[MODEL_TEXT], *save = NULL;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, "|", &save); word; word = strtok_r(NULL, "|", &save)) {
        uint32_t z = 0;
        while (z < MODEL_ZONES && strcmp(word, zone_name[z]))
            z++;
        if (z == MODEL_ZONES) fail_msg("a set holds \"%s\", which nobody wrote", word);
        zones |= 1u << z;
    }
    return zones;
}

static uint8_t dept_of(const char *text)
{
    for (uint8_t i = 0; i < MODEL_DEPTS; i++)
        if (!strcmp(text, model_dept(i))) return i;
    fail_msg("a category is \"%s\", which nobody wrote", text);
    return 0;
}

/* ------------------------------------------------------------------------------------------------- filters --- */

static bool holds(const model_row *row, const pados_condition *c, const char *value)
{
    if (!strcmp(c->attribute, "dept")) return row->dept && !strcmp(model_dept(row->dept), value);
    if (!strcmp(c->attribute, "brand")) return row->brand && row->brand == strtoull(value, NULL, 10);
    if (!strcmp(c->attribute, "zones")) return (row->zones & zones_of(value)) != 0;
    return false;
}

bool model_passes(const model_row *row, const pados_condition *conditions, size_t count)
{
    if (!row->there) return false;
    for (size_t i = 0; i < count; i++) {
        const pados_condition *c = &conditions[i];
        size_t n = 0;
        for (size_t v = 0; v < c->count; v++)
            n += holds(row, c, c->values[v]);
        bool passes = false;
        switch (c->kind) {
        case PADOS_IS:
        case PADOS_ANY_OF:
            passes = n > 0;
            break;
        case PADOS_ALL_OF:
            passes = n == c->count;
            break;
        case PADOS_IS_NOT:
        case PADOS_NONE_OF:
            passes = n == 0;
            break;
        case PADOS_AT_LEAST:
            passes = row->price >= strtof(c->values[0], NULL);
            break;
        case PADOS_AT_MOST:
            passes = row->price <= strtof(c->values[0], NULL);
            break;
        }
        if (!passes) return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------- looking --- */

static const char *cell(const pados_result *r, const char *attribute, size_t hit)
{
    for (size_t c = 0; c < r->ncolumns; c++)
        if (!strcmp(r->columns[c].attribute, attribute)) return r->columns[c].values[hit];
    fail_msg("the answer has no attribute %s", attribute);
    return NULL;
}

seen_row *seen_rows(const pados_result *r, size_t *count)
{
    seen_row *rows = malloc((r->hits + 1) * sizeof *rows);
    assert_non_null(rows);
    for (size_t i = 0; i < r->hits; i++) {
        const char *price = cell(r, "price", i), *brand = cell(r, "brand", i), *heat = cell(r, "heat", i);
        rows[i] = (seen_row){.id = r->ids[i],
                             .score = r->scores[i],
                             .price = *price ? strtof(price, NULL) : NAN,
                             .dept = dept_of(cell(r, "dept", i)),
                             .zones = zones_of(cell(r, "zones", i)),
                             .brand = *brand ? strtoull(brand, NULL, 10) : 0,
                             .heat = *heat ? strtod(heat, NULL) : 0};
    }
    *count = r->hits;
    return rows;
}

pados_status model_look(pados_client *client, const char *table, const float *query, bool exact,
                        const pados_condition *conditions, size_t nconditions, uint64_t at_least,
                        seen_row **rows, size_t *count, pados_error *error)
{
    static const char *const all[] = {"*"};
    pados_search search = {.table = table,
                           .count = 1,
                           .k = 1000,
                           .vectors = query,
                           .dim = MODEL_DIM,
                           .exact = exact,
                           .nprobe = exact ? 0 : 4096,
                           .filters = conditions,
                           .nfilters = nconditions,
                           .attributes = all,
                           .nattributes = 1,
                           .at_least = at_least};
    pados_result *r;
    pados_status status = pados_search_run(client, &search, &r, error);
    if (status) return status;
    *rows = seen_rows(r, count);
    pados_result_free(r);
    return 0;
}

static double cosine(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (uint32_t d = 0; d < MODEL_DIM; d++) {
        ab += (double)a[d] * b[d];
        aa += (double)a[d] * a[d];
        bb += (double)b[d] * b[d];
    }
    return ab / sqrt(aa * bb);
}

static bool same_number(float a, float b)
{
    return isnan(a) ? isnan(b) : a == b;
}

/* A counter's column is refreshed 32 times in a half life; the moment of a count is the server's. */
static bool same_heat(double seen, const model_row *row)
{
    double want = heat_now(row, model_now());
    return isnan(want) || fabs(seen - want) <= 0.01 + 0.05 * want;
}

static const char *differs(const seen_row *seen, const model_row *row, const float *query, bool exact,
                           char *why)
{
    char a[MODEL_TEXT], b[MODEL_TEXT];
    double score = cosine(query, row->vector);
    if (seen->dept != row->dept)
        snprintf(why, 300, "dept \"%s\", not \"%s\"", model_dept(seen->dept), model_dept(row->dept));
    else if (!same_number(seen->price, row->price))
        snprintf(why, 300, "price %g, not %g", (double)seen->price, (double)row->price);
    else if (seen->zones != row->zones)
        snprintf(why, 300, "zones \"%s\", not \"%s\"", model_zones(seen->zones, a),
                 model_zones(row->zones, b));
    else if (seen->brand != row->brand)
        snprintf(why, 300, "brand %llu, not %llu", (unsigned long long)seen->brand,
                 (unsigned long long)row->brand);
    else if (!same_heat(seen->heat, row))
        snprintf(why, 300, "heat %g, not %g", seen->heat, heat_now(row, model_now()));
    else if (fabs((double)seen->score - score) > (exact ? 0.002 : 0.03))
        snprintf(why, 300, "score %g, not %g", (double)seen->score, score);
    else
        return NULL;
    return why;
}

bool model_agrees(const model *m, const float *query, bool exact, const pados_condition *conditions,
                  size_t nconditions, const seen_row *rows, size_t count, char *why)
{
    static _Thread_local bool found[MODEL_IDS];
    const model_version *v = model_serving(m);
    char detail[300];
    memset(found, 0, sizeof found);
    for (size_t i = 0; i < count; i++) {
        uint64_t id = rows[i].id;
        if (id >= MODEL_IDS || found[id]) {
            snprintf(why, 300, "id %llu is answered %s", (unsigned long long)id,
                     id >= MODEL_IDS ? "and nobody wrote it" : "twice");
            return false;
        }
        found[id] = true;
        if (!model_passes(&v->rows[id], conditions, nconditions)) {
            snprintf(why, 300, "id %llu is answered and %s", (unsigned long long)id,
                     v->rows[id].there ? "does not pass" : "is not there");
            return false;
        }
        if (differs(&rows[i], &v->rows[id], query, exact, detail)) {
            snprintf(why, 300, "id %llu: %.250s", (unsigned long long)id, detail);
            return false;
        }
    }
    for (uint64_t id = 0; id < MODEL_IDS; id++)
        if (!found[id] && model_passes(&v->rows[id], conditions, nconditions)) {
            snprintf(why, 300, "id %llu is missing, %zu rows were answered", (unsigned long long)id, count);
            return false;
        }
    return true;
}
