#include "cells.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------------------------------------- distinct texts --- */

static uint64_t hash_of(const char *text) /* FNV-1a */
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

static void grow_slots(cells_column *column)
{
    column->nslots = column->nslots ? 2 * column->nslots : 64;
    free(column->slots);
    column->slots = must(calloc(column->nslots, sizeof *column->slots));
    for (size_t i = 0; i < column->ntexts; i++) {
        size_t at = hash_of(column->texts[i]) & (column->nslots - 1);
        while (column->slots[at])
            at = (at + 1) & (column->nslots - 1);
        column->slots[at] = (uint32_t)i + 1;
    }
}

static uint32_t number_of(cells_column *column, pool *texts, const char *text)
{
    if (2 * (column->ntexts + 1) > column->nslots) grow_slots(column);
    size_t at = hash_of(text) & (column->nslots - 1);
    for (; column->slots[at]; at = (at + 1) & (column->nslots - 1))
        if (strcmp(column->texts[column->slots[at] - 1], text) == 0) return column->slots[at] - 1;
    if (column->ntexts == column->texts_room) {
        column->texts_room = column->texts_room ? 2 * column->texts_room : 64;
        column->texts = must(realloc(column->texts, column->texts_room * sizeof *column->texts));
    }
    column->texts[column->ntexts] = *text ? pool_text(texts, text, strlen(text)) : "";
    column->slots[at] = (uint32_t)++column->ntexts;
    return (uint32_t)column->ntexts - 1;
}

static void forget(cells *c)
{
    for (size_t i = 0; i < c->ncolumns; i++) {
        cells_column *column = &c->columns[i];
        column->ntexts = 0;
        if (column->nslots) memset(column->slots, 0, column->nslots * sizeof *column->slots);
    }
    pool_free(&c->texts);
    c->count = 0;
}

/* ----------------------------------------------------------------------------------------------------- reading --- */

static int take_header(cells *c, char **names, const char *id_name)
{
    c->columns = must(calloc(c->width, sizeof *c->columns));
    c->id_cell = SIZE_MAX;
    for (size_t i = 0; i < c->width; i++) {
        bool is_id = strcmp(names[i], id_name) == 0;
        if (!*names[i] || cells_find(c, names[i]) || (is_id && c->id_cell != SIZE_MAX))
            return complain(PD_INVALID_ARGUMENT, "%s: column %zu of its header is \"%s\"%s",
                            pd_csv_name(c->csv), i + 1, names[i], *names[i] ? ", which is there twice" : "");
        if (is_id)
            c->id_cell = i;
        else
            c->columns[c->ncolumns++].name = pool_text(&c->names, names[i], strlen(names[i]));
    }
    if (c->id_cell != SIZE_MAX) return 0;
    return complain(PD_INVALID_ARGUMENT, "%s: its first line must be a header that names the column %s",
                    pd_csv_name(c->csv), id_name);
}

int cells_open(cells *c, const char *path, const char *id_name)
{
    pd_error error;
    char **names;
    *c = (cells){0};
    if (pd_csv_open(path, &c->csv, &error)) return complain_here(&error);
    if (pd_csv_next(c->csv, &names, &c->width, &error)) return complain_here(&error);
    return take_header(c, names, id_name);
}

void cells_close(cells *c)
{
    if (c->csv) pd_csv_close(c->csv);
    for (size_t i = 0; i < c->ncolumns; i++) {
        free(c->columns[i].texts);
        free(c->columns[i].of);
        free(c->columns[i].slots);
    }
    free(c->columns);
    free(c->ids);
    free(c->lines);
    pool_free(&c->names);
    pool_free(&c->texts);
}

const cells_column *cells_find(const cells *c, const char *name)
{
    for (size_t i = 0; i < c->ncolumns; i++)
        if (strcmp(c->columns[i].name, name) == 0) return &c->columns[i];
    return NULL;
}

/* *count 0: the end. */
static int next_line(cells *c, char ***texts, size_t *count)
{
    pd_error error;
    if (pd_csv_next(c->csv, texts, count, &error)) return complain_here(&error);
    if (!*count || *count == c->width) return 0;
    return complain(PD_INVALID_ARGUMENT, "%s:%llu: %zu cells under %zu columns", pd_csv_name(c->csv),
                    (unsigned long long)pd_csv_line(c->csv), *count, c->width);
}

int cells_skip(cells *c, uint64_t count)
{
    char **texts;
    size_t got;
    for (uint64_t i = 0; i < count; i++) {
        int code = next_line(c, &texts, &got);
        if (code) return code;
        if (!got)
            return complain(PD_INVALID_ARGUMENT, "--from: %s has only %llu rows", pd_csv_name(c->csv),
                            (unsigned long long)i);
    }
    return 0;
}

static void make_room(cells *c)
{
    c->room = c->room ? 2 * c->room : 1024;
    c->ids = must(realloc(c->ids, c->room * sizeof *c->ids));
    c->lines = must(realloc(c->lines, c->room * sizeof *c->lines));
    for (size_t i = 0; i < c->ncolumns; i++)
        c->columns[i].of = must(realloc(c->columns[i].of, c->room * sizeof(uint32_t)));
}

int cells_next(cells *c, size_t most)
{
    forget(c);
    while (c->count < most) {
        char **texts;
        size_t got;
        int code = next_line(c, &texts, &got);
        if (code) return code;
        if (!got) break;
        if (c->count == c->room) make_room(c);
        c->lines[c->count] = pd_csv_line(c->csv);
        if (!parse_u64(texts[c->id_cell], &c->ids[c->count]))
            return complain(PD_INVALID_ARGUMENT, "%s:%llu: \"%s\" is not an id", pd_csv_name(c->csv),
                            (unsigned long long)c->lines[c->count], texts[c->id_cell]);
        for (size_t i = 0; i < c->ncolumns; i++)
            c->columns[i].of[c->count] = number_of(&c->columns[i], &c->texts, texts[i + (i >= c->id_cell)]);
        if (++c->count == CELLS_NO_LINE)
            return complain(PD_INVALID_ARGUMENT, "%s: it has too many lines", pd_csv_name(c->csv));
    }
    return 0;
}

/* ------------------------------------------------------------------------------------------------------ values --- */

pados_values *cells_values(const cells *c, pool *p)
{
    pados_values *values = pool_take(p, c->ncolumns, sizeof *values);
    for (size_t i = 0; i < c->ncolumns; i++)
        values[i] = (pados_values){.attribute = c->columns[i].name,
                                   .texts = c->columns[i].texts,
                                   .ntexts = c->columns[i].ntexts,
                                   .text_of = c->columns[i].of};
    return values;
}

static void pick_column(const cells_column *column, const uint32_t *lines, uint32_t count, pool *p,
                        pados_values *values)
{
    uint32_t *of = pool_take(p, count, sizeof *of);
    uint32_t *renamed = pool_take(p, column->ntexts, sizeof *renamed); /* a text's new number and 1 */
    const char **texts = pool_take(p, (size_t)count + 1, sizeof *texts);
    uint32_t ntexts = 0, unknown = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t text = lines[i] == CELLS_NO_LINE ? CELLS_NO_LINE : column->of[lines[i]];
        bool known = text != CELLS_NO_LINE && *column->texts[text];
        uint32_t *name = known ? &renamed[text] : &unknown;
        if (!*name) {
            texts[ntexts] = known ? column->texts[text] : "";
            *name = ++ntexts;
        }
        of[i] = *name - 1;
    }
    *values = (pados_values){.attribute = column->name, .texts = texts, .ntexts = ntexts, .text_of = of};
}

pados_values *cells_pick(const cells *c, const uint32_t *lines, uint32_t count, pool *p)
{
    pados_values *values = pool_take(p, c->ncolumns, sizeof *values);
    for (size_t i = 0; i < c->ncolumns; i++)
        pick_column(&c->columns[i], lines, count, p, &values[i]);
    return values;
}
