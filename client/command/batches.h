/* A file of writes, sent in batches: what upsert, delete, update and feedback share. One batch is in flight at a time, so that
 * the order of the file is the order of the server's log, and after an error every row before the batch is written and
 * none behind it. Each batch's key is the run's key with the batch's rows, so that a run that goes on, or is started again
 * under its key, does no batch twice. Nothing is read ahead: reading takes a tenth of a batch's time, the server the rest. */
#ifndef BATCHES_H
#define BATCHES_H

#include "command.h"

enum { BATCH_ROWS = 4096, RUN_KEY_MAX = 80 };

typedef struct batches {
    const globals *g;
    const char *table, *did; /* "written", "deleted" ...: for what is printed */
    /* From the options, with defaults where they are not given. */
    uint32_t rows; /* of a batch */
    uint64_t from; /* row to begin with */
    const char *key;
    uint64_t total; /* rows of the file, for the progress; 0: not known */
    /* Since batches_open: */
    pados_client *client;
    pados_limits limits;
    progress progress;
    uint64_t start_ms, next, count; /* next: the row that the next batch begins with; count: batches */
    uint64_t changed, fresh, missing, repeated, sequence;
    bool durable, open; /* open: whether the last batch was done is not known */
    char own_key[RUN_KEY_MAX + 1], batch_key[RUN_KEY_MAX + 48];
} batches;

/* The options of such a command: --batch, --from, --key. */
#define BATCH_OPTIONS(b)                                                                                     \
    {"--batch", ARG_U32, &(b)->rows, NULL}, {"--from", ARG_U64, &(b)->from, NULL},                           \
    {                                                                                                        \
        "--key", ARG_TEXT, &(b)->key, NULL                                                                   \
    }
#define BATCH_HELP                                                                                           \
    "  --batch N              rows of one write, at most 65536 (4096)\n"                                     \
    "  --from ROW             begin with this row of the file, from 0: an error says where to go on\n"       \
    "  --key K                of this run: a batch that was written under it before is not written again\n"

/* Checks the options and connects; 0 or the exit code. */
int batches_open(batches *b, globals *g);
/* The key of the next batch, of `count` rows; valid until the next call. */
const char *batches_key(batches *b, uint32_t count);
/* Takes note of what became of a batch. 0, or the exit code, having said which rows were not written. */
int batches_add(batches *b, uint32_t count, pados_status status, const pados_written *written,
                const pados_error *error);
/* Prints the sum where code is 0, else how to go on, and closes the client. Returns code. */
int batches_close(batches *b, int code);

#endif
