/* A CSV of rows by id, read a piece at a time into columns: each keeps its distinct texts once and a number for each line,
 * which is also how they go over the wire. Functions that return int return 0 or an exit code, having said on stderr what
 * is wrong, with file and line. */
#ifndef CELLS_H
#define CELLS_H

#include "csv.h"
#include "query.h"

typedef struct cells_column {
    const char *name;
    const char **texts; /* [ntexts] distinct ones; "" an empty cell */
    size_t ntexts, texts_room;
    uint32_t *of;    /* [count] which text is the line's */
    uint32_t *slots; /* [nslots] hash table: a text's number and 1, or 0 */
    size_t nslots;
} cells_column;

typedef struct cells {
    pd_csv *csv;
    size_t width, id_cell; /* cells of a line, and which of them is the id */
    uint64_t *ids, *lines; /* [count] of what was read last: the id, and the file's line number */
    size_t count, room;
    cells_column *columns; /* [ncolumns], as in the header, without the id's */
    size_t ncolumns;
    pool names, texts;
} cells;

/* Reads the header, which must name id_name ("id") and each column once. */
int cells_open(cells *c, const char *path, const char *id_name);
void cells_close(cells *c); /* one that was never opened, all zero, is allowed */
/* Passes over so many lines; fewer are an error. */
int cells_skip(cells *c, uint64_t count);
/* Forgets what was read, and reads up to `most` lines. c->count 0: there are no more. */
int cells_next(cells *c, size_t most);
/* The column of that name; NULL. */
const cells_column *cells_find(const cells *c, const char *name);

/* Every column's values of what was read, in the order of the lines. They live as long as it; values are the pool's. */
pados_values *cells_values(const cells *c, pool *p);
#define CELLS_NO_LINE UINT32_MAX
/* The same for rows that come in an order of their own: row i is line lines[i] (from 0), or unknown for CELLS_NO_LINE. The
 * texts are only those that these rows have. */
pados_values *cells_pick(const cells *c, const uint32_t *lines, uint32_t count, pool *p);

#endif
