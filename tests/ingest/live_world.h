/* A table that changes, and a plain model of it: an array of rows by id, with everything that they hold.
 *
 * Changes are made up at random, staged a few at a time and then applied or dropped; the model follows what is applied. The log of
 * changes is an array of vectors here, and the executor is the caller.
 */
#ifndef PD_TEST_LIVE_WORLD_H
#define PD_TEST_LIVE_WORLD_H

#include <math.h>

#include "f16.h"
#include "live.h"
#include "store_files.h"

enum { DIM = 12, BUILT = 600, IDS = 1200, LISTS = 8, MOST = 48, CHANGES = 4000, SPARE = 40 };

typedef struct model_row {
    int there;
    int built; /* the version has it, and it never went */
    float vector[DIM];
    uint8_t kind;
    uint64_t zones, brand;
    float price, heat; /* heat: as its column says, by the last write */
    double counter;
    uint64_t sequence; /* 0: the version's */
} model_row;

typedef struct live_case {
    const char *backend, *metric, *more; /* more: of the schema */
    int lookup, low_memory;
} live_case;

typedef struct live_world {
    live_case of;
    char folder[64];
    pd_device *device, *other; /* other: assigns, and searches exactly */
    pd_version *version;
    const pd_version_info *info;
    pd_resident *resident;
    const pd_attribute *kind, *zones, *brand, *price, *heat;
    model_row rows[IDS];
    uint64_t sequence, gone;
    double time;
    float *log[CHANGES]; /* [n][DIM] of the change of that sequence */
    uint32_t logged[CHANGES];
    uint64_t random;
} live_world;

/* A change with all that it points at, and its codes. */
typedef struct made {
    pd_change change;
    pd_encoded *encoded;
    uint32_t which[MOST];
    uint64_t ids[MOST];
    float vectors[MOST * DIM];
    pd_change_column columns[5];
    uint8_t kinds[MOST];
    uint64_t zones[MOST], brands[MOST];
    float prices[MOST], heats[MOST];
    double counters[MOST];
} made;

static inline uint64_t id_of(uint32_t i)
{
    return (uint64_t)(i + 1) * 0x9e3779b97f4a7c15ull;
}

static inline uint32_t below(live_world *w, uint32_t n)
{
    return (uint32_t)pd_random_below(&w->random, n);
}

/* ------------------------------------------------------------------------------------------------ opening --- */

static inline void random_vector(live_world *w, float *out)
{
    uint32_t centre = below(w, 20);
    for (uint32_t d = 0; d < DIM; d++)
        out[d] = rintf(10.0f * (float)((centre * 7 + d * 3) % 11) + 4.0f * pd_random_normal(&w->random));
    for (uint32_t d = 0; d < DIM; d++)
        out[d] = out[d] < 0 ? 0 : out[d] > 255 ? 255 : out[d];
    out[0] = out[0] < 1 ? 1 : out[0];
    if (w->info ? w->info->shape.metric == PD_COSINE : strcmp(w->of.metric, "cosine") == 0)
        pd_normalise(out, DIM);
}

static inline void random_values(live_world *w, model_row *row)
{
    row->kind = (uint8_t)below(w, 5);
    row->zones = below(w, 4) ? 1ull << below(w, 10) | 1ull << below(w, 10) : 0;
    row->brand = below(w, 3) ? 100 + below(w, 60) : 0;
    row->price = below(w, 8) ? (float)below(w, 1000) / 10 : NAN;
}

static inline void write_rows(live_world *w, float *rows, uint64_t *ids)
{
    FILE *csv = fopen(path_in(w->folder, "a.csv"), "w");
    assert_non_null(csv);
    fputs("id,kind,zones,brand,price,heat\n", csv);
    for (uint32_t i = 0; i < BUILT; i++) {
        model_row *row = &w->rows[i];
        *row = (model_row){.there = 1, .built = 1};
        random_vector(w, row->vector);
        random_values(w, row);
        row->heat = i % 3 ? (float)(i % 7) + 0.25f : NAN;
        memcpy(rows + (size_t)i * DIM, row->vector, sizeof row->vector);
        ids[i] = id_of(i);
        /* The first rows name every value in turn, so that numbers are known. */
        if (i < 5) row->kind = (uint8_t)i;
        if (i < 10) row->zones = 1ull << i;
        fprintf(csv, "%llu,", (unsigned long long)ids[i]);
        if (row->kind) fprintf(csv, "k%u", row->kind);
        fputc(',', csv);
        for (uint32_t m = 0, n = 0; m < 10; m++)
            if (row->zones >> m & 1) fprintf(csv, "%sz%u", n++ ? "|" : "", m);
        fputc(',', csv);
        if (row->brand) fprintf(csv, "%llu", (unsigned long long)row->brand);
        isnan(row->price) ? fputs(",,", csv) : fprintf(csv, ",%.9g,", (double)row->price);
        isnan(row->heat) ? fputs("\n", csv) : fprintf(csv, "%.9g\n", (double)row->heat);
    }
    assert_int_equal(fclose(csv), 0);
}

static inline live_world *live_open(live_case of, uint64_t seed, uint32_t spare)
{
    live_world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->of = of;
    w->random = seed;
    w->time = TODAY;
    folder_make(w->folder);
    w->device = device_make(of.backend, 32u << 20);
    w->other = device_make(of.backend, 0);
    char text[1024];
    snprintf(text, sizeof text,
             "table = { metric = \"%s\"; %s attributes = ( { name = \"kind\"; type = \"category\"; },"
             " { name = \"zones\"; type = \"set\"; }, { name = \"brand\"; type = \"key\"; },"
             " { name = \"price\"; type = \"number\"; knots = ( 20.0, 40.0, 60.0 ); },"
             " { name = \"heat\"; type = \"number\"; knots = ( 1.0, 3.0 ); feedback = { half_life_hours = "
             "48.0; }; } ); };",
             of.metric, of.more);
    pd_schema *schema = schema_make(text);
    float *rows = malloc(BUILT * DIM * sizeof *rows);
    uint64_t ids[BUILT];
    assert_non_null(rows);
    write_rows(w, rows, ids);
    pd_build_input in = input_make(schema, rows, BUILT, DIM);
    in.ids = ids;
    in.nlist = of.lookup || schema->nlist ? 0 : LISTS;
    in.attributes = path_in(w->folder, "a.csv");
    pd_error err;
    ok(pd_build(&in, path_in(w->folder, "v"), w->other, NULL, NULL, &err), &err);
    ok(pd_version_open(path_in(w->folder, "v"), &w->version, &err), &err);
    ok(pd_resident_open(w->version, w->device, spare, &w->resident, &err), &err);
    w->info = pd_version_info_of(w->version);
    w->kind = pd_schema_find(w->info->schema, "kind");
    w->zones = pd_schema_find(w->info->schema, "zones");
    w->brand = pd_schema_find(w->info->schema, "brand");
    w->price = pd_schema_find(w->info->schema, "price");
    w->heat = pd_schema_find(w->info->schema, "heat");
    for (uint32_t i = 0; i < BUILT; i++) {
        model_row *row = &w->rows[i];
        row->counter = row->heat > 0 ? log2((double)row->heat) + TODAY / w->heat->half_life : -INFINITY;
    }
    free(rows);
    pd_schema_free(schema);
    return w;
}

static inline void live_close(live_world *w)
{
    pd_resident_close(w->resident);
    pd_version_close(w->version);
    pd_device_close(w->device);
    pd_device_close(w->other);
    for (uint32_t i = 0; i < CHANGES; i++)
        free(w->log[i]);
    folder_drop(w->folder);
    free(w);
}

/* ------------------------------------------------------------------------------------------------ the log --- */

static inline pd_status run_here(void *context, pd_status (*fn)(void *argument, pd_error *err),
                                 void *argument, pd_error *err)
{
    (void)context;
    return fn(argument, err);
}

static inline pd_status row_of_log(void *context, uint64_t sequence, uint32_t row, float *vector,
                                   pd_error *err)
{
    live_world *w = context;
    if (sequence >= CHANGES || !w->log[sequence] || row >= w->logged[sequence])
        return pd_fail(err, PD_NOT_FOUND, "change %llu has no row %u", (unsigned long long)sequence, row);
    memcpy(vector, w->log[sequence] + (size_t)row * DIM, DIM * sizeof *vector);
    return PD_OK;
}

static inline pd_live_source source_of(live_world *w)
{
    return (pd_live_source){.context = w, .on_executor = run_here, .source_row = row_of_log};
}

/* ------------------------------------------------------------------------------------------------ changes --- */

static inline void pick_rows(live_world *w, made *m, uint32_t n)
{
    static uint8_t taken[IDS];
    memset(taken, 0, sizeof taken);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = below(w, IDS);
        while (taken[i])
            i = (i + 1) % IDS;
        taken[i] = 1;
        m->which[k] = i;
        m->ids[k] = id_of(i);
    }
}

static inline void add_column(made *m, pd_change_column column)
{
    m->columns[m->change.ncolumns++] = column;
}

#define NUMBER_OF(w, a) ((uint32_t)((w)->a - (w)->info->schema->attributes))

/* Some of the attributes, at random; counters named now and then. */
static inline void add_columns(live_world *w, made *m)
{
    uint32_t n = m->change.n;
    for (uint32_t k = 0; k < n; k++) {
        model_row row;
        random_values(w, &row);
        m->kinds[k] = row.kind;
        m->zones[k] = row.zones;
        m->brands[k] = below(w, 20) ? row.brand : 5000 + w->sequence;
        m->prices[k] = row.price;
        m->heats[k] = below(w, 4) ? (float)below(w, 50) / 8 : NAN;
    }
    if (below(w, 4))
        add_column(m, (pd_change_column){.attribute = NUMBER_OF(w, price), .numbers = m->prices});
    if (below(w, 3)) add_column(m, (pd_change_column){.attribute = NUMBER_OF(w, kind), .values = m->kinds});
    if (below(w, 3)) add_column(m, (pd_change_column){.attribute = NUMBER_OF(w, zones), .words = m->zones});
    if (below(w, 3)) add_column(m, (pd_change_column){.attribute = NUMBER_OF(w, brand), .words = m->brands});
    if (!below(w, 4)) add_column(m, (pd_change_column){.attribute = NUMBER_OF(w, heat), .numbers = m->heats});
}

/* Counters as the writer sees them, counted on. */
static inline void add_counts(live_world *w, made *m)
{
    for (uint32_t k = 0; k < m->change.n; k++) {
        uint32_t slot = pd_resident_staged_slot(w->resident, m->ids[k]);
        double counter = slot == PD_NO_SLOT ? -INFINITY : pd_resident_counter(w->resident, w->heat, slot);
        m->counters[k] =
            pd_counter_add(counter, 0.5 + (double)below(w, 4), m->change.time, w->heat->half_life);
    }
    add_column(m, (pd_change_column){.attribute = NUMBER_OF(w, heat), .counters = m->counters});
}

static inline void make_change(live_world *w, made *m, pd_change_kind kind)
{
    pd_error err;
    memset(m, 0, sizeof *m);
    w->time += 0.01 * (double)below(w, 10);
    m->change = (pd_change){.kind = kind,
                            .sequence = ++w->sequence,
                            .time = w->time,
                            .n = 1 + below(w, MOST - 1),
                            .ids = m->ids,
                            .columns = m->columns};
    assert_true(w->sequence < CHANGES);
    pick_rows(w, m, m->change.n);
    if (kind == PD_CHANGE_UPSERT || kind == PD_CHANGE_UPDATE) add_columns(w, m);
    if (kind == PD_CHANGE_COUNT) add_counts(w, m);
    if (kind != PD_CHANGE_UPSERT) return;
    m->change.vectors = m->vectors;
    for (uint32_t k = 0; k < m->change.n; k++) {
        /* Often a little beside where it is, so that it stays in its list. */
        float *vector = m->vectors + (size_t)k * DIM;
        random_vector(w, vector);
        if (w->rows[m->which[k]].there && below(w, 2))
            memcpy(vector, w->rows[m->which[k]].vector, DIM * sizeof *vector);
    }
    ok(pd_change_encode(w->version, w->other, &m->change, &m->encoded, &err), &err);
}

/* What the change does to one row of the model. */
static inline void change_row(live_world *w, const made *m, uint32_t k, model_row *row)
{
    const pd_change *change = &m->change;
    if (change->kind != PD_CHANGE_UPSERT && !row->there) return;
    if (change->kind == PD_CHANGE_DELETE) {
        row->there = row->built = 0;
        return;
    }
    int recounted = change->kind == PD_CHANGE_UPSERT;
    if (change->kind == PD_CHANGE_UPSERT) {
        model_row fresh = {.there = 1,
                           .built = row->there && row->built,
                           .price = NAN,
                           .counter = row->there ? row->counter : -INFINITY,
                           .sequence = change->sequence};
        memcpy(fresh.vector, m->vectors + (size_t)k * DIM, sizeof fresh.vector);
        *row = fresh;
    }
    for (uint32_t c = 0; c < change->ncolumns; c++) {
        const pd_change_column *column = &change->columns[c];
        if (column->values) row->kind = column->values[k];
        if (column->attribute == NUMBER_OF(w, zones)) row->zones = column->words[k];
        if (column->attribute == NUMBER_OF(w, brand)) row->brand = column->words[k];
        if (column->attribute == NUMBER_OF(w, price)) row->price = column->numbers[k];
        if (column->attribute != NUMBER_OF(w, heat)) continue;
        recounted = 1;
        row->counter = column->counters ? column->counters[k]
                       : column->numbers[k] > 0
                           ? log2((double)column->numbers[k]) + change->time / w->heat->half_life
                           : -INFINITY;
    }
    if (recounted) row->heat = pd_counter_value(row->counter, change->time, w->heat->half_life);
}

static inline void follow(live_world *w, const made *m, model_row *rows)
{
    for (uint32_t k = 0; k < m->change.n; k++) {
        model_row *row = &rows[m->which[k]];
        if (rows == w->rows && m->change.kind == PD_CHANGE_DELETE && row->there && row->built) w->gone++;
        change_row(w, m, k, row);
    }
}

static inline void log_change(live_world *w, const made *m)
{
    if (m->change.kind != PD_CHANGE_UPSERT) return;
    uint64_t at = m->change.sequence;
    w->log[at] = malloc((size_t)m->change.n * DIM * sizeof(float));
    assert_non_null(w->log[at]);
    memcpy(w->log[at], m->vectors, (size_t)m->change.n * DIM * sizeof(float));
    w->logged[at] = m->change.n;
}

static inline pd_change_kind random_kind(live_world *w)
{
    static const pd_change_kind kinds[] = {PD_CHANGE_UPSERT, PD_CHANGE_UPSERT, PD_CHANGE_UPSERT,
                                           PD_CHANGE_UPDATE, PD_CHANGE_DELETE, PD_CHANGE_DELETE,
                                           PD_CHANGE_COUNT};
    return kinds[below(w, sizeof kinds / sizeof *kinds)];
}

/* A few changes staged in a row, each seeing those before it; then all are applied, or none. */
static inline void live_step(live_world *w)
{
    static made changes[3];
    static model_row seen[IDS];
    pd_staged *staged[3];
    uint32_t n = 1 + below(w, 3);
    pd_error err;
    memcpy(seen, w->rows, sizeof seen);
    for (uint32_t i = 0; i < n; i++) {
        made *m = &changes[i];
        pd_stage_counts counts, expected = {0};
        make_change(w, m, random_kind(w));
        for (uint32_t k = 0; k < m->change.n; k++) {
            int there = seen[m->which[k]].there, upsert = m->change.kind == PD_CHANGE_UPSERT;
            assert_int_equal(pd_resident_staged_slot(w->resident, m->ids[k]) != PD_NO_SLOT, there);
            expected.changed += there || upsert;
            expected.fresh += !there && upsert;
            expected.missing += !there && !upsert;
        }
        ok(pd_resident_stage(w->resident, &m->change, m->encoded, &staged[i], &counts, &err), &err);
        assert_memory_equal(&counts, &expected, sizeof counts);
        follow(w, m, seen);
    }
    if (below(w, 5) == 0) {
        pd_staged_drop(w->resident, staged, n);
    } else {
        for (uint32_t i = 0; i < n; i++) {
            ok(pd_resident_apply(w->resident, staged[i], &err), &err);
            log_change(w, &changes[i]);
            follow(w, &changes[i], w->rows);
        }
    }
    for (uint32_t i = 0; i < n; i++)
        pd_encoded_free(changes[i].encoded);
}

#endif
