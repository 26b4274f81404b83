/* pados upsert and delete: whole rows come and go while the table serves. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "batches.h"
#include "cells.h"
#include "files.h"

/* ------------------------------------------------------------------------------------------------- upsert --- */

static const char upsert_help[] =
    "usage: pados upsert TABLE FILE --ids FILE [OPTION]...\n"
    "\n"
    "Writes the rows of FILE into TABLE while it serves: new ids are added, those that are there are "
    "replaced,\n"
    "vector and attributes. An attribute that is not given becomes unknown; counters of feedback stay.\n"
    "\n"
    "FILE is what pados push takes. A write that is answered is in the server's log and seen by the next "
    "search;\n"
    "one whose connection breaks is sent again by itself, which does it once.\n"
    "\n"
    "  --ids FILE             row ids: .npy (u64, i64) or one number a line (else those inside a FAISS "
    "file)\n"
    "  --attributes FILE.csv  a header id,NAME,... and a line for each row, in any order; an empty cell is\n"
    "                         unknown, a set's members are joined by |\n"
    "  --format F             of FILE, as pados push has it (else told by content and name)\n" BATCH_HELP "\n"
    "examples:\n"
    "  pados upsert products new.npy --ids new-ids.npy --attributes new.csv\n"
    "  pados --json upsert products one.npy --ids one.txt | jq .sequence\n"
    "  pados upsert products new.npy --ids new-ids.npy --from 8192 --key 3f2a9c01d4e5b687\n";

typedef struct upsert {
    rows_source rows;
    pados_source source;
    uint64_t *ids;
    const char *attributes_path;
    cells cells;
    uint32_t *lines; /* [rows] of the attributes */
    uint64_t without;
    pados_upsert message;
} upsert;

static int take_upsert_ids(upsert *u, const char *ids_path, const char *path)
{
    uint64_t rows = u->rows.info.rows, count = rows;
    if (ids_path) {
        pd_error error;
        if (pd_read_ids(ids_path, &u->ids, &count, &error)) return complain_here(&error);
        if (count == rows) return 0;
        return complain(PD_INVALID_ARGUMENT, "--ids: %s has %" PRIu64 " ids for the %" PRIu64 " rows of %s",
                        ids_path, count, rows, path);
    }
    const int64_t *inside = pd_reader_ids(u->rows.reader);
    if (!inside) return usage_error("--ids: a file of the rows' ids is wanted, %s holds none", path);
    u->ids = must(malloc(rows * sizeof *u->ids));
    for (uint64_t i = 0; i < rows; i++) {
        if (inside[i] < 0)
            return complain(PD_INVALID_ARGUMENT, "%s: row %" PRIu64 " has the id %" PRId64, path, i,
                            inside[i]);
        u->ids[i] = (uint64_t)inside[i];
    }
    return 0;
}

typedef struct place {
    uint64_t id, row;
} place;

static int by_id(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* Which line of the attributes is each row's. */
static int match_lines(upsert *u, const place *places)
{
    uint64_t rows = u->rows.info.rows;
    const cells *c = &u->cells;
    for (size_t i = 0; i < c->count; i++) {
        place key = {.id = c->ids[i]};
        uint64_t low = 0, high = rows;
        while (low < high) {
            uint64_t middle = low + (high - low) / 2;
            if (places[middle].id < key.id)
                low = middle + 1;
            else
                high = middle;
        }
        bool there = low < rows && places[low].id == key.id;
        if (!there || u->lines[places[low].row] != CELLS_NO_LINE)
            return complain(PD_INVALID_ARGUMENT, "%s:%" PRIu64 ": %s %" PRIu64 "%s", u->attributes_path,
                            c->lines[i], there ? "the id" : "there is no row with id", key.id,
                            there ? " had a line before" : "");
        u->lines[places[low].row] = (uint32_t)i;
    }
    u->without = rows - c->count;
    return 0;
}

static int take_attributes(upsert *u)
{
    uint64_t rows = u->rows.info.rows;
    int code = cells_open(&u->cells, u->attributes_path, "id");
    if (!code) code = cells_next(&u->cells, SIZE_MAX);
    if (code) return code;
    place *places = must(malloc(rows * sizeof *places));
    u->lines = must(malloc(rows * sizeof *u->lines));
    for (uint64_t i = 0; i < rows; i++) {
        places[i] = (place){u->ids[i], i};
        u->lines[i] = CELLS_NO_LINE;
    }
    qsort(places, rows, sizeof *places, by_id);
    for (uint64_t i = 1; !code && i < rows; i++)
        if (places[i].id == places[i - 1].id)
            code = complain(PD_INVALID_ARGUMENT,
                            "the id %" PRIu64 " is there twice (rows %" PRIu64 " and %" PRIu64 ")",
                            places[i].id, places[i - 1].row, places[i].row);
    if (!code) code = match_lines(u, places);
    free(places);
    return code;
}

/* So many rows that a message has room for them, and as much again for their attributes. */
static void fit_batch(batches *b, const upsert *u)
{
    uint64_t room = b->limits.max_message / 2 / (u->rows.row_bytes + sizeof(uint64_t));
    if (b->limits.max_message && b->rows > room) b->rows = room ? (uint32_t)room : 1;
}

static int read_rows(upsert *u, uint8_t *to, size_t bytes)
{
    pados_error error;
    for (size_t at = 0; at < bytes;) {
        size_t got = 0;
        if (u->source.read(u->source.context, to + at, bytes - at, &got, &error)) return complain_of(&error);
        if (!got) return complain(PD_INVALID_ARGUMENT, "the file of vectors became shorter");
        at += got;
    }
    return 0;
}

static int send_batch(batches *b, upsert *u, uint8_t *rows, uint32_t count)
{
    int code = read_rows(u, rows, count * u->rows.row_bytes);
    if (code) return code;
    pool p = {0};
    pados_upsert *m = &u->message;
    m->ids = u->ids + b->next;
    m->count = count;
    m->vectors = rows;
    m->key = batches_key(b, count);
    if (u->lines) {
        m->attributes = cells_pick(&u->cells, u->lines + b->next, count, &p);
        m->nattributes = u->cells.ncolumns;
    }
    pados_written written;
    pados_error error;
    pados_status status = pados_upsert_run(b->client, m, &written, &error);
    pool_free(&p);
    return batches_add(b, count, status, &written, &error);
}

static int send_upsert(globals *g, batches *b, upsert *u)
{
    uint64_t rows = u->rows.info.rows;
    pados_error error;
    if (b->from >= rows)
        return complain(PD_INVALID_ARGUMENT, "--from: there are only %" PRIu64 " rows", rows);
    if (b->from && u->source.seek(u->source.context, b->from * u->rows.row_bytes, &error))
        return complain_of(&error);
    b->total = rows;
    int code = batches_open(b, g);
    if (code) return code;
    fit_batch(b, u);
    uint8_t *room = must(malloc(b->rows * u->rows.row_bytes));
    while (!code && b->next < rows)
        code = send_batch(b, u, room, rows - b->next < b->rows ? (uint32_t)(rows - b->next) : b->rows);
    free(room);
    if (!code && u->lines && u->without)
        warn("%" PRIu64 " rows have no line in %s: their attributes are unknown", u->without,
             u->attributes_path);
    return batches_close(b, code);
}

static int run_upsert(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL}, *format_name = NULL, *ids = NULL;
    upsert u = {0};
    batches b = {.did = "written"};
    const arg options[] = {{"--ids", ARG_TEXT, &ids, NULL},
                           {"--attributes", ARG_TEXT, &u.attributes_path, NULL},
                           {"--format", ARG_TEXT, &format_name, NULL},
                           BATCH_OPTIONS(&b),
                           {NULL, ARG_FLAG, NULL, NULL}};
    int code = args_parse(argc, argv, g, options, words, 2, 2, "TABLE FILE");
    if (code) return code;
    if (g->help) {
        print_help(&command_upsert);
        return 0;
    }
    pd_format format = PD_FORMAT_AUTO;
    pd_error error;
    if (format_name && pd_format_parse(format_name, &format, &error))
        return usage_error("--format: %s", error.message);
    b.table = u.message.table = words[0];
    code = rows_source_open(&u.rows, words[1], format, false, &u.source);
    if (!code) code = rows_dtype(words[1], u.rows.info.dtype, &u.message.dtype);
    u.message.dim = u.rows.info.dim;
    if (!code) code = take_upsert_ids(&u, ids, words[1]);
    if (!code && u.attributes_path) code = take_attributes(&u);
    if (!code) code = send_upsert(g, &b, &u);
    rows_source_close(&u.rows);
    cells_close(&u.cells);
    free(u.lines);
    free(u.ids);
    return code;
}

/* ------------------------------------------------------------------------------------------------- delete --- */

static const char delete_help[] =
    "usage: pados delete TABLE ID... [OPTION]...\n"
    "       pados delete TABLE --ids FILE [OPTION]...\n"
    "\n"
    "Takes rows out of TABLE while it serves. Ids that are not there are passed over and counted. A "
    "shopper's "
    "row\n"
    "that must be gone from every file is for pados erase.\n"
    "\n"
    "  --ids FILE             the ids: .npy (u64, i64) or one number a line\n" BATCH_HELP "\n"
    "examples:\n"
    "  pados delete products 1042 7\n"
    "  pados delete products --ids sold-out.txt\n";

static int read_delete_ids(const char *path, char *const *words, size_t nwords, uint64_t **ids,
                           uint64_t *count)
{
    if (path && nwords) return usage_error("\"%s\": with --ids, no other ids are taken", words[0]);
    if (path) {
        pd_error error;
        if (pd_read_ids(path, ids, count, &error)) return complain_here(&error);
        return *count ? 0 : complain(PD_INVALID_ARGUMENT, "--ids: %s has no ids", path);
    }
    if (!nwords) return usage_error("arguments are missing (wanted: TABLE ID...)");
    *ids = must(malloc(nwords * sizeof **ids));
    *count = nwords;
    for (size_t i = 0; i < nwords; i++)
        if (!parse_u64(words[i], &(*ids)[i])) return usage_error("ID: \"%s\" is not an id", words[i]);
    return 0;
}

static int send_delete(globals *g, batches *b, const uint64_t *ids, uint64_t count)
{
    if (b->from >= count)
        return complain(PD_INVALID_ARGUMENT, "--from: there are only %" PRIu64 " ids", count);
    b->total = count;
    int code = batches_open(b, g);
    if (code) return code;
    while (!code && b->next < count) {
        uint32_t n = count - b->next < b->rows ? (uint32_t)(count - b->next) : b->rows;
        const pados_delete gone = {
            .table = b->table, .ids = ids + b->next, .count = n, .key = batches_key(b, n)};
        pados_written written;
        pados_error error;
        pados_status status = pados_delete_run(b->client, &gone, &written, &error);
        code = batches_add(b, n, status, &written, &error);
    }
    return batches_close(b, code);
}

static int run_delete(int argc, char **argv, globals *g)
{
    const char *path = NULL;
    batches b = {.did = "deleted"};
    const arg options[] = {{"--ids", ARG_TEXT, &path, NULL}, BATCH_OPTIONS(&b), {NULL, ARG_FLAG, NULL, NULL}};
    const char **words = must(calloc((size_t)argc + 1, sizeof *words));
    uint64_t *ids = NULL, count = 0;
    int code = args_parse(argc, argv, g, options, words, 1, (size_t)argc, "TABLE ID...");
    if (!code && g->help) {
        print_help(&command_delete);
    } else if (!code) {
        size_t nwords = 0;
        while (words[nwords + 1])
            nwords++;
        b.table = words[0];
        code = read_delete_ids(path, (char *const *)words + 1, nwords, &ids, &count);
        if (!code) code = send_delete(g, &b, ids, count);
    }
    free(ids);
    free(words);
    return code;
}

const command command_upsert = {"upsert", "write rows into a table that serves", upsert_help, run_upsert};
const command command_delete = {"delete", "take rows out of a table that serves", delete_help, run_delete};
