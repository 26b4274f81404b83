/* pados update and feedback: lines of a CSV that change attributes, or count events, and leave vectors alone. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "batches.h"
#include "cells.h"
#include "files.h"

/* What both commands do with each batch of lines; status and *written as the client's call has them, *code where the lines
 * themselves are wrong. */
typedef pados_status (*send_lines)(batches *b, const cells *c, pool *p, void *more, int *code,
                                   pados_written *written, pados_error *error);

static int send_batches(batches *b, cells *c, send_lines send, void *more)
{
    for (;;) {
        int code = cells_next(c, b->rows);
        if (code || !c->count) return code;
        pool p = {0};
        pados_written written;
        pados_error error;
        pados_status status = send(b, c, &p, more, &code, &written, &error);
        pool_free(&p);
        if (!code) code = batches_add(b, (uint32_t)c->count, status, &written, &error);
        if (code) return code;
    }
}

static int send_csv(globals *g, batches *b, cells *c, const char *path, send_lines send, void *more)
{
    uint64_t lines;
    int code = count_lines(path, &lines);
    if (code) return code;
    b->total = lines ? lines - 1 : 0;
    if ((code = cells_skip(c, b->from)) != 0) return code;
    if ((code = batches_open(b, g)) != 0) return code;
    code = send_batches(b, c, send, more);
    if (!code && !b->count) code = complain(PD_INVALID_ARGUMENT, "%s: there are no rows in it", path);
    return batches_close(b, code);
}

/* ------------------------------------------------------------------------------------------------- update --- */

static const char update_help[] =
    "usage: pados update TABLE FILE.csv [OPTION]...\n"
    "\n"
    "Changes attributes of rows that are there, while TABLE serves; vectors and attributes that the file "
    "does "
    "not name\n"
    "stay. Ids that are not there are passed over and counted.\n"
    "\n"
    "FILE.csv has a header id,NAME,... and a line for each row; an empty cell makes the attribute unknown, a "
    "set's\n"
    "members are joined by |.\n"
    "\n" BATCH_HELP "\n"
    "examples:\n"
    "  pados update products prices.csv\n"
    "  pados update products stock.csv --batch 65536\n";

static pados_status send_update(batches *b, const cells *c, pool *p, void *more, int *code,
                                pados_written *written, pados_error *error)
{
    (void)more, (void)code;
    const pados_update update = {.table = b->table,
                                 .ids = c->ids,
                                 .count = (uint32_t)c->count,
                                 .attributes = cells_values(c, p),
                                 .nattributes = c->ncolumns,
                                 .key = batches_key(b, (uint32_t)c->count)};
    return pados_update_run(b->client, &update, written, error);
}

static int run_update(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL};
    batches b = {.did = "updated"};
    const arg options[] = {BATCH_OPTIONS(&b), {NULL, ARG_FLAG, NULL, NULL}};
    int code = args_parse(argc, argv, g, options, words, 2, 2, "TABLE FILE.csv");
    if (code) return code;
    if (g->help) {
        print_help(&command_update);
        return 0;
    }
    b.table = words[0];
    cells c;
    code = cells_open(&c, words[1], "id");
    if (!code && !c.ncolumns)
        code = complain(PD_INVALID_ARGUMENT, "%s: its header names no attribute beside id", words[1]);
    if (!code) code = send_csv(g, &b, &c, words[1], send_update, NULL);
    cells_close(&c);
    return code;
}

/* ----------------------------------------------------------------------------------------------- feedback --- */

static const char feedback_help[] =
    "usage: pados feedback TABLE FILE.csv [OPTION]...\n"
    "\n"
    "Counts events: each line raises its item's counter, which decays with the half-life of TABLE's schema "
    "and "
    "which\n"
    "profiles can weigh a second later. Users are not kept.\n"
    "\n"
    "FILE.csv has a header with item and, where they are known, user, event (its weight is the schema's) and "
    "weight\n"
    "(times the event's; an empty cell is 1), and a line for each event.\n"
    "\n"
    "  --attribute NAME       which counter (else the table's only one)\n" BATCH_HELP "\n"
    "examples:\n"
    "  pados feedback products clicks.csv\n"
    "  pados feedback products orders.csv --key orders-2026-11-27\n";

typedef struct feedback {
    const cells_column *user, *event, *weight;
    const char *attribute;
} feedback;

static int find_columns(const cells *c, feedback *f, const char *path)
{
    f->user = cells_find(c, "user");
    f->event = cells_find(c, "event");
    f->weight = cells_find(c, "weight");
    for (size_t i = 0; i < c->ncolumns; i++) {
        const cells_column *column = &c->columns[i];
        if (column != f->user && column != f->event && column != f->weight)
            return complain(PD_INVALID_ARGUMENT,
                            "%s: the column \"%s\" is none of item, user, event and weight", path,
                            column->name);
    }
    return 0;
}

/* The first line whose text it is. */
static int bad_cell(const cells *c, const cells_column *column, size_t text, const char *what)
{
    size_t line = 0;
    while (column->of[line] != text)
        line++;
    return complain(PD_INVALID_ARGUMENT, "%s:%" PRIu64 ": %s: \"%s\" is not %s", pd_csv_name(c->csv),
                    c->lines[line], column->name, column->texts[text], what);
}

static int take_users(const cells *c, const cells_column *column, pool *p, const uint64_t **users)
{
    uint64_t *values = pool_take(p, column->ntexts, sizeof *values), *of = pool_take(p, c->count, sizeof *of);
    for (size_t i = 0; i < column->ntexts; i++)
        if (!parse_u64(column->texts[i], &values[i])) return bad_cell(c, column, i, "an id");
    for (size_t i = 0; i < c->count; i++)
        of[i] = values[column->of[i]];
    *users = of;
    return 0;
}

static int take_weights(const cells *c, const cells_column *column, pool *p, const float **weights)
{
    float *values = pool_take(p, column->ntexts, sizeof *values), *of = pool_take(p, c->count, sizeof *of);
    for (size_t i = 0; i < column->ntexts; i++) {
        values[i] = 1;
        if (*column->texts[i] && !parse_f32(column->texts[i], &values[i]))
            return bad_cell(c, column, i, "a number");
    }
    for (size_t i = 0; i < c->count; i++)
        of[i] = values[column->of[i]];
    *weights = of;
    return 0;
}

static pados_status send_feedback(batches *b, const cells *c, pool *p, void *more, int *code,
                                  pados_written *written, pados_error *error)
{
    const feedback *f = more;
    pados_feedback message = {.table = b->table,
                              .items = c->ids,
                              .count = (uint32_t)c->count,
                              .attribute = f->attribute,
                              .key = batches_key(b, (uint32_t)c->count)};
    if (f->user) *code = take_users(c, f->user, p, &message.users);
    if (!*code && f->weight) *code = take_weights(c, f->weight, p, &message.weights);
    if (f->event) {
        message.events = f->event->texts;
        message.nevents = f->event->ntexts;
        message.event_of = f->event->of;
        for (size_t i = 0; !*code && i < f->event->ntexts; i++)
            if (!*f->event->texts[i]) *code = bad_cell(c, f->event, i, "the name of an event");
    }
    return *code ? PD_INVALID_ARGUMENT : pados_feedback_run(b->client, &message, written, error);
}

static int run_feedback(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL};
    batches b = {.did = "counted"};
    feedback f = {0};
    const arg options[] = {
        {"--attribute", ARG_TEXT, &f.attribute, NULL}, BATCH_OPTIONS(&b), {NULL, ARG_FLAG, NULL, NULL}};
    int code = args_parse(argc, argv, g, options, words, 2, 2, "TABLE FILE.csv");
    if (code) return code;
    if (g->help) {
        print_help(&command_feedback);
        return 0;
    }
    b.table = words[0];
    cells c;
    code = cells_open(&c, words[1], "item");
    if (!code) code = find_columns(&c, &f, words[1]);
    if (!code) code = send_csv(g, &b, &c, words[1], send_feedback, &f);
    cells_close(&c);
    return code;
}

const command command_update = {"update", "change attributes of rows", update_help, run_update};
const command command_feedback = {"feedback", "count events on rows", feedback_help, run_feedback};
