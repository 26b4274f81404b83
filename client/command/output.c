/* How the command speaks: aligned columns for people, one JSON object a line for programs, errors on stderr. Text that
 * comes from a server or a file is stripped of control characters before a terminal gets it. */
#include "command.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void *must(void *memory)
{
    if (memory) return memory;
    fprintf(stderr, "pados: RESOURCE_EXHAUSTED: out of memory\n");
    exit(EXIT_TOO_BUSY);
}

/* ----------------------------------------------------------------------------------------------- errors --- */

static int exit_of(pados_status status)
{
    switch (status) {
    case PD_OK:
        return 0;
    case PD_INVALID_ARGUMENT:
    case PD_OUT_OF_RANGE:
        return EXIT_BAD_INPUT;
    case PD_NOT_FOUND:
        return EXIT_NOT_THERE;
    case PD_UNAVAILABLE:
    case PD_DEADLINE_EXCEEDED:
        return EXIT_NO_ANSWER;
    case PD_RESOURCE_EXHAUSTED:
        return EXIT_TOO_BUSY;
    case PD_UNAUTHENTICATED:
    case PD_PERMISSION_DENIED:
        return EXIT_NOT_ALLOWED;
    default:
        return EXIT_OTHER;
    }
}

static void strip(char *text)
{
    for (; *text; text++)
        if (((unsigned char)*text < 0x20 && *text != '\n') || *text == 0x7f) *text = '?';
}

static void say_v(const char *name, const char *format, va_list args)
{
    char message[1024];
    vsnprintf(message, sizeof message, format, args);
    strip(message);
    fflush(stdout);
    fprintf(stderr, "pados: %s: %s\n", name, message);
}

int complain(pados_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_v(pados_status_name(status), format, args);
    va_end(args);
    return exit_of(status);
}

int complain_of(const pados_error *error)
{
    return complain(error->status, "%s", error->message);
}

int complain_here(const pd_error *error)
{
    complain((pados_status)error->status, "%s", error->message);
    /* A file that is shorter than it says is bad input, whatever a server means by DATA_LOSS. */
    return error->status == PD_DATA_LOSS ? EXIT_BAD_INPUT : exit_of((pados_status)error->status);
}

int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_v("INVALID_ARGUMENT", format, args);
    va_end(args);
    return EXIT_USAGE;
}

void warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say_v("warning", format, args);
    va_end(args);
}

/* -------------------------------------------------------------------------------------------------- grid --- */

typedef struct cell {
    char *text;
    char *note; /* of a row's last cell */
} cell;

struct grid {
    size_t columns, heads, count, room;
    const char **head;
    bool *right;
    cell *cells;
};

grid *grid_new(size_t columns)
{
    grid *g = must(calloc(1, sizeof *g));
    g->columns = columns;
    g->head = must(calloc(columns, sizeof *g->head));
    g->right = must(calloc(columns, sizeof *g->right));
    return g;
}

void grid_head(grid *g, const char *name, bool right)
{
    g->head[g->heads] = name;
    g->right[g->heads++] = right;
}

void grid_cell(grid *g, const char *format, ...)
{
    if (g->count == g->room) {
        g->room = g->room ? 2 * g->room : 64;
        g->cells = must(realloc(g->cells, g->room * sizeof *g->cells));
    }
    va_list args;
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    strip(must(text));
    for (char *c = text; *c; c++)
        if (*c == '\n') *c = ' ';
    g->cells[g->count++] = (cell){text, NULL};
}

void grid_note(grid *g, const char *text)
{
    cell *last = &g->cells[g->count - 1];
    free(last->note);
    last->note = must(strdup(text));
    strip(last->note);
}

/* Characters, not bytes; wide ones count as one, which is near enough for a terminal's column. */
static int width_of(const char *text)
{
    int width = 0;
    for (; *text; text++)
        if (((unsigned char)*text & 0xc0) != 0x80) width++;
    return width;
}

static void print_row(const grid *g, const int *widths, FILE *to, int indent, size_t row, bool head)
{
    fprintf(to, "%*s", indent, "");
    for (size_t c = 0; c < g->columns; c++) {
        const char *text = head ? g->head[c] : g->cells[row * g->columns + c].text;
        int pad = widths[c] - width_of(text);
        bool last = c + 1 == g->columns;
        if (g->right[c])
            fprintf(to, "%*s%s", pad, "", text);
        else
            fprintf(to, "%s%*s", text, last ? 0 : pad, "");
        fputs(last ? "\n" : "  ", to);
    }
}

void grid_print(grid *g, FILE *to, int indent)
{
    int *widths = must(calloc(g->columns, sizeof *widths));
    bool heads = false;
    size_t rows = g->count / g->columns;
    for (size_t c = 0; c < g->columns; c++) {
        widths[c] = width_of(g->head[c]);
        heads |= widths[c] > 0;
        for (size_t r = 0; r < rows; r++) {
            int width = width_of(g->cells[r * g->columns + c].text);
            if (width > widths[c]) widths[c] = width;
        }
    }
    if (heads) print_row(g, widths, to, indent, 0, true);
    for (size_t r = 0; r < rows; r++) {
        print_row(g, widths, to, indent, r, false);
        const char *note = g->cells[(r + 1) * g->columns - 1].note;
        if (note) fprintf(to, "%*s%s\n", indent + widths[0] + 2, "", note);
    }
    free(widths);
}

void grid_free(grid *g)
{
    for (size_t i = 0; i < g->count; i++) {
        free(g->cells[i].text);
        free(g->cells[i].note);
    }
    free(g->cells);
    free(g->head);
    free(g->right);
    free(g);
}

/* -------------------------------------------------------------------------------------------------- JSON --- */

void json_line(json_t *object)
{
    char *text = json_dumps(must(object), JSON_COMPACT | JSON_REAL_PRECISION(9));
    puts(must(text));
    free(text);
    json_decref(object);
}

json_t *json_id(uint64_t id)
{
    if (id <= INT64_MAX) return must(json_integer((json_int_t)id));
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)id);
    return must(json_string(text));
}

json_t *json_real32(float value)
{
    return must(isfinite(value) ? json_real((double)value) : json_null());
}

json_t *json_text(const char *text)
{
    json_t *string = json_string(text ? text : "");
    return must(string ? string : json_string("(not UTF-8)"));
}

/* ----------------------------------------------------------------------------------------------- numbers --- */

const char *bytes_text(uint64_t bytes, char *room, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(room, size, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return room;
}

const char *count_text(uint64_t count, char *room, size_t size)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    size_t at = 0;
    for (int i = 0; i < length && at + 2 < size; i++) {
        if (i && (length - i) % 3 == 0) room[at++] = ',';
        room[at++] = digits[i];
    }
    room[at] = '\0';
    return room;
}
