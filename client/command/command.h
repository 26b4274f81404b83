/* What the files of the pados command share: the options that every command takes, arguments, output and errors.
 *
 *     main.c        which command, its help, the exit code     args.c    options and positional arguments
 *     output.c      aligned columns, JSON lines, errors        query.c   search's arguments that have a syntax of their own
 *     cmd_*.c       one command, or a family of them each      titles.c  names to show beside ids
 *     batches.c     a file of writes, batch after batch        cells.c   a CSV of rows by id, in columns
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pados.h"
#include "pados.pb-c.h"
#include "status.h"

enum {
    EXIT_USAGE = 2,
    EXIT_BAD_INPUT = 3,
    EXIT_NOT_THERE = 4,
    EXIT_NO_ANSWER = 5,
    EXIT_TOO_BUSY = 6,
    EXIT_NOT_ALLOWED = 7,
    EXIT_OTHER = 1
};

/* -------------------------------------------------------------------------------------------- arguments --- */

typedef enum arg_kind { ARG_FLAG, ARG_TEXT, ARG_LIST, ARG_U32, ARG_U64, ARG_F32 } arg_kind;
typedef struct arg_list { /* of an option that may be repeated */
    const char **at;
    size_t count;
} arg_list;
typedef struct arg {
    const char *name; /* with its dashes; NULL ends an array of them */
    arg_kind kind;
    void *to;    /* bool, const char *, arg_list, uint32_t, uint64_t or float */
    bool *given; /* NULL: nobody asks */
} arg;

/* The options that every command takes, before or after its name. */
typedef struct globals {
    const char *to, *admin, *token_file, *ca, *server_name;
    uint32_t timeout_ms;
    bool json, help;
    char token[4096];
} globals;

/* Reads argv[1..] for the options in `options` and the global ones; what is none of them goes to words, [at most max].
 * Returns 0 or EXIT_USAGE with the argument named on stderr. `words_wanted` is for that message: "TABLE FILE". */
int args_parse(int argc, char **argv, globals *g, const arg *options, const char **words, size_t min,
               size_t max, const char *words_wanted);
/* As args_parse, but stops at the first word and gives its index: for main. */
int args_globals(int argc, char **argv, globals *g, int *word);
void args_list_free(arg_list *list);
/* Whole numbers and reals, the whole text or nothing; no sign for the former, no NaN or infinity for the latter. */
bool parse_u64(const char *text, uint64_t *value);
bool parse_u32(const char *text, uint32_t *value);
bool parse_f32(const char *text, float *value);

/* ----------------------------------------------------------------------------------------------- output --- */

/* `pados: STATUS_NAME: message` on stderr. Each returns the exit code that goes with the status. */
int complain(pados_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int complain_of(const pados_error *error);
int complain_here(const pd_error *error); /* of a file or an argument on this side */
int usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A table of cells, printed with its columns aligned once it is complete. Out of memory ends the program: there is
 * nothing half-done in a command that prints. */
typedef struct grid grid;
grid *grid_new(size_t columns);
/* right: numbers. A header "" everywhere prints no line of headers. */
void grid_head(grid *g, const char *name, bool right);
void grid_cell(grid *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
void grid_note(grid *g, const char *text); /* a line under the row last completed; text is copied */
void grid_print(grid *g, FILE *to, int indent);
void grid_free(grid *g);

/* One JSON object a line on stdout; takes object over. */
void json_line(json_t *object);
json_t *json_id(uint64_t id);     /* a number, or a string above 2^63 - 1, where JSON's readers stop */
json_t *json_real32(float value); /* null when it is not finite */
json_t *json_text(const char *text);

void *must(void *memory);                                        /* ends the program when it is NULL */
const char *bytes_text(uint64_t bytes, char *room, size_t size); /* "3.2 MiB" */
const char *count_text(uint64_t count, char *room, size_t size); /* "1,234,567" */

/* -------------------------------------------------------------------------------------------- connecting --- */

/* Opens a client from the global options and the environment. Returns 0 or the exit code, said on stderr. */
int connect_to(globals *g, pados_client **client);
/* One administrative call; 0 or the exit code. */
int admin_call(pados_client *client, Pados__V1__Request *request, Pados__V1__Reply **reply);
/* Waits for the job in a reply with progress on stderr, and prints what it came to. `did`: "published". */
int wait_and_tell(const globals *g, pados_client *client, Pados__V1__Reply *reply, const char *did);

typedef struct progress { /* of a push or a job, on stderr */
    bool tty, shown;
    uint64_t rows;
    double last;
    char stage[24];
} progress;
int show_progress(void *context, const pados_job *job);
void end_progress(progress *p);

/* ------------------------------------------------------------------------------------------------ titles --- */

typedef struct titles titles;
int titles_read(const char *path, titles **out);     /* CSV with columns id and title; 0 or the exit code */
const char *titles_of(const titles *t, uint64_t id); /* "" when it has none; t may be NULL */
void titles_free(titles *t);

/* -------------------------------------------------------------------------------------------- the commands --- */

typedef struct command {
    const char *name, *line, *help;
    int (*run)(int argc, char **argv, globals *g);
} command;
extern const command command_push, command_tables, command_table, command_publish, command_rollback,
    command_search, command_upsert, command_delete, command_update, command_feedback, command_rebuild,
    command_erase, command_erasures, command_export, command_snapshot, command_profile, command_stats,
    command_hello;
void print_help(const command *c);

#endif
