/* pados push: a file of vectors, with what belongs to its rows, becomes a version of a table. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "files.h"

static const char help[] =
    "usage: pados push TABLE FILE [OPTION]...\n"
    "\n"
    "Sends the rows of FILE as a new version of TABLE, waits while the server checks, builds and calibrates "
    "it, and lets\n"
    "it serve. The version that serves meanwhile is untouched until then, and stays when the new one is "
    "refused.\n"
    "\n"
    "FILE is .npy (f32, f16, i8), .fbin .u8bin .i8bin (big-ann), .fvecs .bvecs, an ann-benchmarks HDF5\n"
    "file (FILE#name picks a member) or a FAISS index.\n"
    "\n"
    "  --format F             npy, fbin, u8bin, i8bin, fvecs, bvecs, hdf5, faiss (else told by content and "
    "name)\n"
    "  --metric M             cosine, ip or l2, for a new table without a schema (cosine)\n"
    "  --ids FILE             row ids: .npy (u64, i64) or one number a line\n"
    "                         (else those inside a FAISS file, else 0, 1, 2 ...)\n"
    "  --attributes FILE.csv  a header id,NAME,... and a line for each row, in any order\n"
    "  --schema FILE          the table's schema (else the one it has); docs/SCHEMAS.md and\n"
    "                         configs/schemas/products.conf show what it can say\n"
    "  --queries FILE         vectors like those that will be asked, to calibrate recall on\n"
    "  --nlist N              inverted lists (else the schema's or the server's choice)\n"
    "  --no-publish           stage only: TABLE@VERSION can be searched, and published later\n"
    "\n"
    "examples:\n"
    "  pados push products items.npy --ids ids.npy --attributes items.csv --schema products.schema\n"
    "  pados push sift sift-128-euclidean.hdf5#train --metric l2 --queries sift-128-euclidean.hdf5#test\n"
    "  pados push products new.fbin --no-publish && pados table products --compare 8\n";

typedef struct parts {
    rows_source rows, queries;
    file_source attributes;
    memory_source ids;
    uint64_t *id_values;
    char *schema;
} parts;

/* Ids of a file of their own, else those inside the vectors' file. */
static int take_ids(parts *p, const char *ids_path, const char *path, pados_push *push)
{
    uint64_t count = p->rows.info.rows;
    if (ids_path) {
        pd_error error;
        if (pd_read_ids(ids_path, &p->id_values, &count, &error)) return complain_here(&error);
        if (count != push->rows)
            return complain(PD_INVALID_ARGUMENT,
                            "--ids: %s has %" PRIu64 " ids for the %" PRIu64 " rows of %s", ids_path, count,
                            push->rows, path);
    } else {
        const int64_t *inside = pd_reader_ids(p->rows.reader);
        if (!inside) return 0;
        p->id_values = must(malloc(count * sizeof *p->id_values));
        for (uint64_t i = 0; i < count; i++) {
            if (inside[i] < 0)
                return complain(PD_INVALID_ARGUMENT, "%s: row %" PRIu64 " has the id %" PRId64, path, i,
                                inside[i]);
            p->id_values[i] = (uint64_t)inside[i];
        }
    }
    memory_source_open(&p->ids, p->id_values, count * sizeof *p->id_values, &push->ids);
    return 0;
}

static int take_queries(parts *p, const char *path, pados_push *push)
{
    int code = rows_source_open(&p->queries, path, PD_FORMAT_AUTO, true, &push->queries);
    if (code) return code;
    if (p->queries.info.dim != push->dim)
        return complain(PD_INVALID_ARGUMENT, "--queries: %s has vectors of %u, the rows have %u", path,
                        p->queries.info.dim, push->dim);
    return 0;
}

static void tell_format(const globals *g, const char *path, const rows_source *rows, const pados_push *push)
{
    char count[32];
    fprintf(g->json ? stderr : stdout, "%s: %s (%s), %s rows of %u x %s%s\n", path,
            pd_format_name(rows->info.format), rows->info.how,
            count_text(rows->info.rows, count, sizeof count), rows->info.dim, pd_dtype_name(rows->info.dtype),
            push->ids.bytes ? ", with ids" : "");
    fflush(stdout);
}

static int send(globals *g, pados_push *push)
{
    pados_client *client;
    int code = connect_to(g, &client);
    if (code) return code;
    progress p = {.tty = isatty(STDERR_FILENO), .rows = push->rows};
    push->progress = show_progress;
    push->progress_context = &p;
    uint64_t version = 0;
    pados_error error;
    pados_status status = pados_push_run(client, push, &version, &error);
    end_progress(&p);
    pados_close(client);
    if (status) return complain_of(&error);
    const char *state = push->stage_only ? "staged" : "serving";
    if (g->json)
        json_line(json_pack("{s:o, s:I, s:I, s:I, s:s}", "table", json_text(push->table), "version",
                            (json_int_t)version, "rows", (json_int_t)push->rows, "dim", (json_int_t)push->dim,
                            "state", state));
    else
        printf("%s version %" PRIu64 " is %s\n", push->table, version, state);
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int run(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL}, *format_name = NULL, *ids = NULL, *attributes = NULL, *schema = NULL,
               *queries = NULL;
    pados_push push = {0};
    parts p = {0};
    const arg options[] = {{"--format", ARG_TEXT, &format_name, NULL},
                           {"--metric", ARG_TEXT, &push.metric, NULL},
                           {"--ids", ARG_TEXT, &ids, NULL},
                           {"--attributes", ARG_TEXT, &attributes, NULL},
                           {"--schema", ARG_TEXT, &schema, NULL},
                           {"--queries", ARG_TEXT, &queries, NULL},
                           {"--nlist", ARG_U32, &push.nlist, NULL},
                           {"--no-publish", ARG_FLAG, &push.stage_only, NULL},
                           {NULL, ARG_FLAG, NULL, NULL}};
    int code = args_parse(argc, argv, g, options, words, 2, 2, "TABLE FILE");
    if (code) return code;
    if (g->help) {
        print_help(&command_push);
        return 0;
    }
    pd_format format = PD_FORMAT_AUTO;
    pd_error error;
    if (format_name && pd_format_parse(format_name, &format, &error))
        return usage_error("--format: %s", error.message);
    push.table = words[0];
    code = rows_source_open(&p.rows, words[1], format, false, &push.vectors);
    if (!code) {
        push.rows = p.rows.info.rows;
        push.dim = p.rows.info.dim;
        code = rows_dtype(words[1], p.rows.info.dtype, &push.dtype);
    }
    if (!code) code = take_ids(&p, ids, words[1], &push);
    if (!code && attributes) code = file_source_open(&p.attributes, attributes, &push.attributes);
    if (!code && attributes && !push.attributes.bytes)
        code = complain(PD_INVALID_ARGUMENT, "%s is empty; a header id,NAME,... was expected", attributes);
    if (!code && attributes) push.attributes_name = base_name(attributes);
    if (!code && queries) code = take_queries(&p, queries, &push);
    if (!code && schema) code = read_text(schema, &p.schema);
    if (!code && schema && !*p.schema)
        code = complain(PD_INVALID_ARGUMENT, "%s is empty; table = { ... } was expected", schema);
    push.schema = p.schema;
    if (!code) tell_format(g, words[1], &p.rows, &push);
    if (!code) code = send(g, &push);
    rows_source_close(&p.rows);
    rows_source_close(&p.queries);
    file_source_close(&p.attributes);
    free(p.id_values);
    free(p.schema);
    return code;
}

const command command_push = {"push", "send a file of vectors as a new version of a table", help, run};
