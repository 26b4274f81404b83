/* Titles beside hits: a CSV of id and title, kept sorted by id. */
#include "command.h"

#include <stdlib.h>
#include <string.h>

#include "csv.h"

typedef struct entry {
    uint64_t id;
    char *title;
} entry;

struct titles {
    entry *at;
    size_t count, room;
};

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const entry *)a)->id, y = ((const entry *)b)->id;
    return x < y ? -1 : x > y;
}

void titles_free(titles *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->count; i++)
        free(t->at[i].title);
    free(t->at);
    free(t);
}

const char *titles_of(const titles *t, uint64_t id)
{
    if (!t || !t->count) return "";
    entry key = {.id = id};
    const entry *found = bsearch(&key, t->at, t->count, sizeof *t->at, by_id);
    return found ? found->title : "";
}

static pd_status read_rows(pd_csv *csv, titles *t, pd_error *error)
{
    char **cells;
    size_t count, id = SIZE_MAX, title = SIZE_MAX;
    pd_status status = pd_csv_next(csv, &cells, &count, error);
    if (status) return status;
    for (size_t c = 0; c < count; c++) {
        if (strcmp(cells[c], "id") == 0) id = c;
        if (strcmp(cells[c], "title") == 0) title = c;
    }
    if (id == SIZE_MAX || title == SIZE_MAX)
        return pd_fail(error, PD_INVALID_ARGUMENT, "%s: its first line must name the columns id and title",
                       pd_csv_name(csv));
    while ((status = pd_csv_next(csv, &cells, &count, error)) == PD_OK && count) {
        entry e;
        if (id >= count || title >= count || !parse_u64(cells[id], &e.id))
            return pd_fail(error, PD_INVALID_ARGUMENT, "%s:%llu: not an id and a title", pd_csv_name(csv),
                           (unsigned long long)pd_csv_line(csv));
        if (t->count == t->room) {
            t->room = t->room ? 2 * t->room : 1024;
            t->at = must(realloc(t->at, t->room * sizeof *t->at));
        }
        e.title = must(strdup(cells[title]));
        t->at[t->count++] = e;
    }
    return status;
}

int titles_read(const char *path, titles **out)
{
    pd_error error;
    pd_csv *csv;
    if (pd_csv_open(path, &csv, &error)) return complain_here(&error);
    titles *t = must(calloc(1, sizeof *t));
    pd_status status = read_rows(csv, t, &error);
    pd_csv_close(csv);
    if (status) {
        titles_free(t);
        return complain_here(&error);
    }
    if (t->count) qsort(t->at, t->count, sizeof *t->at, by_id);
    *out = t;
    return 0;
}
