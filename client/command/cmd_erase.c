/* pados erase, erasures, export, snapshot: what is held about a row, how it goes from everywhere, and a copy of it all. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"

/* ---------------------------------------------------------------------------------------------- erasures --- */

static json_t *json_texts(const char *const *texts, size_t count)
{
    json_t *array = must(json_array());
    for (size_t i = 0; i < count; i++)
        json_array_append_new(array, json_text(texts[i]));
    return array;
}

static void join(char *room, size_t size, const char *const *texts, size_t count)
{
    size_t at = 0;
    room[0] = '\0';
    for (size_t i = 0; i < count && at < size; i++)
        at += (size_t)snprintf(room + at, size - at, "%s%s", i ? ", " : "", texts[i]);
}

static void print_receipts(const globals *g, const pados_erasures *receipts)
{
    static const char *const heads[] = {"receipt",  "table",    "id",   "asked",
                                        "deadline", "finished", "done", "pending"};
    if (g->json) {
        for (size_t i = 0; i < receipts->count; i++) {
            const pados_erasure *e = &receipts->at[i];
            json_line(json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "receipt", (json_int_t)e->number,
                                "table", json_text(e->table), "id", json_id(e->id), "asked",
                                json_text(e->asked), "deadline", json_text(e->deadline), "finished",
                                json_text(e->finished), "done", json_texts(e->done, e->ndone), "pending",
                                json_texts(e->pending, e->npending)));
        }
        return;
    }
    grid *table = grid_new(sizeof heads / sizeof *heads);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        grid_head(table, heads[i], i == 0 || i == 2);
    for (size_t i = 0; i < receipts->count; i++) {
        const pados_erasure *e = &receipts->at[i];
        char done[512], pending[1024];
        join(done, sizeof done, e->done, e->ndone);
        join(pending, sizeof pending, e->pending, e->npending);
        grid_cell(table, "%" PRIu64, e->number);
        grid_cell(table, "%s", e->table);
        grid_cell(table, "%" PRIu64, e->id);
        grid_cell(table, "%s", e->asked);
        grid_cell(table, "%s", e->deadline);
        grid_cell(table, "%s", *e->finished ? e->finished : "not yet");
        grid_cell(table, "%s", done);
        grid_cell(table, "%s", pending);
    }
    grid_print(table, stdout, 0);
    grid_free(table);
}

static const char erase_help[] =
    "usage: pados erase TABLE ID...\n"
    "\n"
    "Removes rows from memory at once, and from every kept version, the log and the counters of feedback by "
    "a "
    "deadline.\n"
    "Prints a receipt for each: what is done, and what is pending (pados erasures shows it later).\n"
    "\n"
    "examples:\n"
    "  pados erase users 42\n"
    "  pados --json erase users 42 43 | jq .receipt\n";

static int erase_ids(globals *g, const char *table, const char *const *words, uint32_t count)
{
    uint64_t *ids = must(malloc(count * sizeof *ids));
    pados_client *client;
    int code = 0;
    for (uint32_t i = 0; !code && i < count; i++)
        if (!parse_u64(words[i], &ids[i])) code = usage_error("ID: \"%s\" is not an id", words[i]);
    if (!code) code = connect_to(g, &client);
    if (!code) {
        pados_erasures *receipts;
        pados_error error;
        if (pados_erase(client, table, ids, count, &receipts, &error)) {
            code = complain_of(&error);
        } else {
            print_receipts(g, receipts);
            pados_erasures_free(receipts);
        }
        pados_close(client);
    }
    free(ids);
    return code;
}

static int run_erase(int argc, char **argv, globals *g)
{
    const char **words = must(calloc((size_t)argc + 1, sizeof *words));
    int code = args_parse(argc, argv, g, NULL, words, 2, (size_t)argc, "TABLE ID...");
    if (!code && g->help) {
        print_help(&command_erase);
    } else if (!code) {
        uint32_t count = 0;
        while (words[count + 1])
            count++;
        code = erase_ids(g, words[0], words + 1, count);
    }
    free(words);
    return code;
}

static const char erasures_help[] =
    "usage: pados erasures [--pending]\n"
    "\n"
    "Lists the receipts of all erasures: when each was asked for, its deadline, what is done and what is "
    "pending,\n"
    "with the reason where a file could not be rewritten.\n"
    "\n"
    "  --pending              only those that are not done\n"
    "\n"
    "examples:\n"
    "  pados erasures\n"
    "  pados --json erasures --pending | jq -r .deadline\n";

static int run_erasures(int argc, char **argv, globals *g)
{
    bool pending = false;
    const arg options[] = {{"--pending", ARG_FLAG, &pending, NULL}, {NULL, ARG_FLAG, NULL, NULL}};
    int code = args_parse(argc, argv, g, options, NULL, 0, 0, "");
    if (code) return code;
    if (g->help) {
        print_help(&command_erasures);
        return 0;
    }
    pados_client *client;
    pados_erasures *receipts;
    pados_error error;
    if ((code = connect_to(g, &client)) != 0) return code;
    if (pados_erasures_list(client, pending, &receipts, &error)) {
        code = complain_of(&error);
    } else {
        if (receipts->count || g->json)
            print_receipts(g, receipts);
        else
            puts(pending ? "no erasure is pending" : "nothing has been erased");
        pados_erasures_free(receipts);
    }
    pados_close(client);
    return code;
}

/* ------------------------------------------------------------------------------------------------- export --- */

static const char export_help[] =
    "usage: pados export TABLE ID\n"
    "\n"
    "Prints all that is held about a row, as JSON: its vector, attributes, counters, changes and erasures.\n"
    "\n"
    "examples:\n"
    "  pados export users 42\n"
    "  pados --json export users 42 > user-42.json\n";

static int run_export(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL};
    int code = args_parse(argc, argv, g, NULL, words, 2, 2, "TABLE ID");
    if (code) return code;
    if (g->help) {
        print_help(&command_export);
        return 0;
    }
    uint64_t id;
    if (!parse_u64(words[1], &id)) return usage_error("ID: \"%s\" is not an id", words[1]);
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    char *text;
    pados_error error;
    if (pados_export(client, words[0], id, &text, &error)) {
        code = complain_of(&error);
    } else {
        /* A number that jansson has no room for is no reason to keep the row back: it is printed as it came. */
        json_t *row = json_loads(text, JSON_DECODE_ANY, NULL);
        char *shown = row ? json_dumps(row, (g->json ? JSON_COMPACT : JSON_INDENT(2)) | JSON_ENCODE_ANY |
                                                JSON_REAL_PRECISION(9))
                          : NULL;
        puts(shown ? shown : text);
        free(shown);
        json_decref(row);
        free(text);
    }
    pados_close(client);
    return code;
}

/* ----------------------------------------------------------------------------------------------- snapshot --- */

static const char snapshot_help[] =
    "usage: pados snapshot FOLDER\n"
    "\n"
    "Writes a consistent copy of all tables, profiles and changes into FOLDER on the server, which must not "
    "be "
    "there\n"
    "yet, while the server serves. padosd --restore FOLDER starts from it. Waits an hour at most, unless "
    "--timeout\n"
    "says otherwise.\n"
    "\n"
    "examples:\n"
    "  pados snapshot /backup/pados-2026-11-27\n";

static int run_snapshot(int argc, char **argv, globals *g)
{
    enum { AN_HOUR = 3600000 };
    pados_snapshot snapshot = {0};
    int code = args_parse(argc, argv, g, NULL, &snapshot.folder, 1, 1, "FOLDER");
    if (code) return code;
    if (g->help) {
        print_help(&command_snapshot);
        return 0;
    }
    snapshot.timeout_ms = g->timeout_ms ? g->timeout_ms : AN_HOUR;
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    pados_snapshot_made made;
    pados_error error;
    char room[32];
    if (pados_snapshot_run(client, &snapshot, &made, &error))
        code = complain_of(&error);
    else if (g->json)
        json_line(json_pack("{s:o, s:o, s:I, s:I, s:o}", "folder", json_text(snapshot.folder), "sequence",
                            json_id(made.sequence), "bytes", (json_int_t)made.bytes, "tables",
                            (json_int_t)made.tables, "seconds", json_real(made.seconds)));
    else
        printf("%s: %u tables, %s, as of sequence %" PRIu64 ", in %.1f s\n", snapshot.folder, made.tables,
               bytes_text(made.bytes, room, sizeof room), made.sequence, made.seconds);
    pados_close(client);
    return code;
}

const command command_erase = {"erase", "remove rows from memory and every file", erase_help, run_erase};
const command command_erasures = {"erasures", "receipts of what was erased", erasures_help, run_erasures};
const command command_export = {"export", "all that is held about a row", export_help, run_export};
const command command_snapshot = {"snapshot", "a copy of everything on the server", snapshot_help,
                                  run_snapshot};
