/* pados tables, table, publish, rollback, rebuild: what is there, and which version serves. */
#include "command.h"

#include <inttypes.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------- tables --- */

static json_t *json_info(const Pados__V1__TableInfo *t)
{
    return must(json_pack("{s:o, s:I, s:I, s:I, s:o, s:I, s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:o, s:o}",
                          "table", json_text(t->table), "serving", (json_int_t)t->serving, "rows",
                          (json_int_t)t->rows, "dim", (json_int_t)t->dim, "metric", json_text(t->metric),
                          "nlist", (json_int_t)t->nlist, "code", json_text(t->code), "code_dim",
                          (json_int_t)t->code_dim, "refine", json_text(t->refine), "device_bytes",
                          (json_int_t)t->device_bytes, "host_bytes", (json_int_t)t->host_bytes, "disk_bytes",
                          (json_int_t)t->disk_bytes, "changed", (json_int_t)t->changed, "sequence",
                          json_id(t->sequence), "problem", json_text(t->problem)));
}

static void print_infos(Pados__V1__TableInfo **tables, size_t count)
{
    static const struct {
        const char *name;
        bool right;
    } heads[] = {{"table", false}, {"version", true}, {"rows", true},    {"dim", true},    {"metric", false},
                 {"nlist", true},  {"code", false},   {"refine", false}, {"device", true}, {"host", true},
                 {"disk", true},   {"changed", true}, {"sequence", true}};
    grid *g = grid_new(sizeof heads / sizeof *heads);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        grid_head(g, heads[i].name, heads[i].right);
    for (size_t i = 0; i < count; i++) {
        const Pados__V1__TableInfo *t = tables[i];
        char room[32];
        grid_cell(g, "%s", t->table);
        if (t->serving)
            grid_cell(g, "%" PRIu64, t->serving);
        else
            grid_cell(g, "none");
        grid_cell(g, "%s", count_text(t->rows, room, sizeof room));
        grid_cell(g, "%u", t->dim);
        grid_cell(g, "%s", t->metric);
        grid_cell(g, "%u", t->nlist);
        if (t->code_dim && t->code_dim < t->dim)
            grid_cell(g, "%s of %u", t->code, t->code_dim);
        else
            grid_cell(g, "%s", t->code);
        grid_cell(g, "%s", t->refine);
        grid_cell(g, "%s", bytes_text(t->device_bytes, room, sizeof room));
        grid_cell(g, "%s", bytes_text(t->host_bytes, room, sizeof room));
        grid_cell(g, "%s", bytes_text(t->disk_bytes, room, sizeof room));
        grid_cell(g, "%s", count_text(t->changed, room, sizeof room));
        grid_cell(g, "%" PRIu64, t->sequence);
        if (*t->problem) grid_note(g, t->problem);
    }
    grid_print(g, stdout, 0);
    grid_free(g);
}

static const char tables_help[] =
    "usage: pados tables\n"
    "\n"
    "Lists the tables: which version serves, its rows, what it takes, the rows changed since it was\n"
    "built, the last change that searches see, and under it what is wrong with a table, if anything is.\n"
    "\n"
    "examples:\n"
    "  pados tables\n"
    "  pados --json tables | jq -r .table\n";

static int run_tables(int argc, char **argv, globals *g)
{
    int code = args_parse(argc, argv, g, NULL, NULL, 0, 0, "");
    if (code) return code;
    if (g->help) {
        print_help(&command_tables);
        return 0;
    }
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    Pados__V1__TableList list = PADOS__V1__TABLE_LIST__INIT;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_LIST;
    request.table_list = &list;
    Pados__V1__Reply *reply;
    if ((code = admin_call(client, &request, &reply)) == 0) {
        const Pados__V1__TableListReply *r = reply->table_list;
        if (g->json) {
            for (size_t i = 0; i < r->n_tables; i++)
                json_line(json_info(r->tables[i]));
        } else if (r->n_tables) {
            print_infos(r->tables, r->n_tables);
        } else {
            puts("there are no tables (pados push makes one)");
        }
        pados_reply_free(reply);
    }
    pados_close(client);
    return code;
}

/* -------------------------------------------------------------------------------------------------- table --- */

static void print_versions(const Pados__V1__TableReply *t)
{
    grid *g = grid_new(6);
    grid_head(g, "version", true);
    grid_head(g, "state", false);
    grid_head(g, "rows", true);
    grid_head(g, "created", false);
    grid_head(g, "disk", true);
    grid_head(g, "problem", false);
    for (size_t i = 0; i < t->n_versions; i++) {
        const Pados__V1__VersionInfo *v = t->versions[i];
        char room[32];
        grid_cell(g, "%" PRIu64, v->version);
        grid_cell(g, "%s", v->state);
        grid_cell(g, "%s", count_text(v->rows, room, sizeof room));
        grid_cell(g, "%s", v->created);
        grid_cell(g, "%s", bytes_text(v->disk_bytes, room, sizeof room));
        grid_cell(g, "%s", v->problem);
    }
    puts("\nversions");
    grid_print(g, stdout, 2);
    grid_free(g);
}

static void print_curve(const Pados__V1__TableReply *t)
{
    static const char *const heads[] = {"k", "spread", "nprobe", "depth", "recall", "at least"};
    grid *g = grid_new(6);
    for (size_t i = 0; i < 6; i++)
        grid_head(g, heads[i], true);
    for (size_t i = 0; i < t->n_curve; i++) {
        const Pados__V1__CurvePoint *p = t->curve[i];
        grid_cell(g, "%u", p->k);
        grid_cell(g, "%g", (double)p->spread);
        grid_cell(g, "%u", p->nprobe);
        grid_cell(g, "%u", p->depth);
        grid_cell(g, "%.4f", (double)p->recall);
        grid_cell(g, "%.4f", (double)p->lower);
    }
    printf("\ncalibration: recall on %u queries (%s)\n", t->calibration_queries, t->calibration_source);
    grid_print(g, stdout, 2);
    grid_free(g);
}

static void print_table(const globals *g, const Pados__V1__TableReply *t)
{
    if (!g->json) {
        Pados__V1__TableInfo *one = t->info;
        if (one) print_infos(&one, 1);
        if (t->n_versions) print_versions(t);
        if (t->n_curve) print_curve(t);
        if (*t->schema) printf("\nschema\n%s\n", t->schema);
        return;
    }
    json_t *o = t->info ? json_info(t->info) : must(json_object());
    json_t *versions = must(json_array()), *curve = must(json_array());
    for (size_t i = 0; i < t->n_versions; i++) {
        const Pados__V1__VersionInfo *v = t->versions[i];
        json_array_append_new(
            versions,
            must(json_pack("{s:I, s:o, s:I, s:o, s:I, s:o}", "version", (json_int_t)v->version, "state",
                           json_text(v->state), "rows", (json_int_t)v->rows, "created", json_text(v->created),
                           "disk_bytes", (json_int_t)v->disk_bytes, "problem", json_text(v->problem))));
    }
    for (size_t i = 0; i < t->n_curve; i++) {
        const Pados__V1__CurvePoint *p = t->curve[i];
        json_array_append_new(curve,
                              must(json_pack("{s:I, s:o, s:I, s:I, s:o, s:o}", "k", (json_int_t)p->k,
                                             "spread", json_real32(p->spread), "nprobe",
                                             (json_int_t)p->nprobe, "depth", (json_int_t)p->depth, "recall",
                                             json_real32(p->recall), "lower", json_real32(p->lower))));
    }
    json_object_set_new(o, "versions", versions);
    json_object_set_new(o, "curve", curve);
    json_object_set_new(o, "calibration_source", json_text(t->calibration_source));
    json_object_set_new(o, "calibration_queries", json_integer(t->calibration_queries));
    json_object_set_new(o, "schema", json_text(t->schema));
    json_line(o);
}

static int show_table(const globals *g, pados_client *client, const char *name)
{
    Pados__V1__TableGet get = PADOS__V1__TABLE_GET__INIT;
    get.table = (char *)name;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_TABLE_GET;
    request.table_get = &get;
    Pados__V1__Reply *reply;
    int code = admin_call(client, &request, &reply);
    if (code) return code;
    print_table(g, reply->table);
    pados_reply_free(reply);
    return 0;
}

static int compare(const globals *g, pados_client *client, const char *name, uint64_t version, uint32_t k,
                   uint32_t queries)
{
    Pados__V1__Compare body = PADOS__V1__COMPARE__INIT;
    body.table = (char *)name;
    body.version = version;
    body.k = k;
    body.queries = queries;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_COMPARE;
    request.compare = &body;
    Pados__V1__Reply *reply;
    int code = admin_call(client, &request, &reply);
    if (code) return code;
    const Pados__V1__CompareReply *c = reply->compare;
    if (g->json)
        json_line(json_pack("{s:o, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:I}", "table", json_text(name),
                            "serving", (json_int_t)c->serving, "version", (json_int_t)c->version, "k",
                            (json_int_t)c->k, "queries", (json_int_t)c->queries, "overlap",
                            json_real32(c->overlap), "serving_recall", json_real32(c->serving_recall),
                            "version_recall", json_real32(c->version_recall), "only_serving",
                            (json_int_t)c->only_serving, "only_version", (json_int_t)c->only_version));
    else
        printf("%s version %" PRIu64 " beside the serving %" PRIu64 ", over the top %u of %u queries\n"
               "  ids in common        %.1f%%\n"
               "  recall of the serving %.4f, of version %" PRIu64
               " %.4f (each against its own exact search)\n"
               "  ids only the serving has %" PRIu64 ", only version %" PRIu64 " has %" PRIu64 "\n",
               name, c->version, c->serving, c->k, c->queries, 100 * (double)c->overlap,
               (double)c->serving_recall, c->version, (double)c->version_recall, c->only_serving, c->version,
               c->only_version);
    pados_reply_free(reply);
    return 0;
}

static const char table_help[] =
    "usage: pados table TABLE [--compare V [--k K] [--queries N]]\n"
    "\n"
    "Shows a table: its versions, the recall that calibration measured, its schema.\n"
    "\n"
    "  --compare V    instead: version V beside the one that serves, on the table's own sample of queries\n"
    "  --k K          hits to compare (10)\n"
    "  --queries N    queries to compare on (1000)\n"
    "\n"
    "examples:\n"
    "  pados table products\n"
    "  pados push products new.npy --no-publish && pados table products --compare 8\n";

static int run_table(int argc, char **argv, globals *g)
{
    const char *name = NULL;
    uint64_t version = 0;
    uint32_t k = 0, queries = 0;
    bool comparing = false;
    const arg options[] = {{"--compare", ARG_U64, &version, &comparing},
                           {"--k", ARG_U32, &k, NULL},
                           {"--queries", ARG_U32, &queries, NULL},
                           {NULL, ARG_FLAG, NULL, NULL}};
    int code = args_parse(argc, argv, g, options, &name, 1, 1, "TABLE");
    if (code) return code;
    if (g->help) {
        print_help(&command_table);
        return 0;
    }
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    code = comparing ? compare(g, client, name, version, k, queries) : show_table(g, client, name);
    pados_close(client);
    return code;
}

/* ------------------------------------------------------------------------------------ publish and rollback --- */

static int run_job(globals *g, Pados__V1__Request *request, const char *did)
{
    pados_client *client;
    int code = connect_to(g, &client);
    if (code) return code;
    Pados__V1__Reply *reply;
    if ((code = admin_call(client, request, &reply)) == 0) {
        code = wait_and_tell(g, client, reply, did);
        pados_reply_free(reply);
    }
    pados_close(client);
    return code;
}

static const char publish_help[] = "usage: pados publish TABLE VERSION\n"
                                   "\n"
                                   "Lets a staged or kept version serve. The one that served is kept.\n"
                                   "\n"
                                   "examples:\n"
                                   "  pados publish products 8\n";

static int run_publish(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL};
    int code = args_parse(argc, argv, g, NULL, words, 2, 2, "TABLE VERSION");
    if (code) return code;
    if (g->help) {
        print_help(&command_publish);
        return 0;
    }
    Pados__V1__Publish body = PADOS__V1__PUBLISH__INIT;
    body.table = (char *)words[0];
    if (!parse_u64(words[1], &body.version) || !body.version)
        return usage_error("VERSION: \"%s\" is not the number of a version", words[1]);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUBLISH;
    request.publish = &body;
    return run_job(g, &request, "serving");
}

static const char rollback_help[] = "usage: pados rollback TABLE\n"
                                    "\n"
                                    "Lets the version before the serving one serve again.\n"
                                    "\n"
                                    "examples:\n"
                                    "  pados rollback products\n";

static int run_rollback(int argc, char **argv, globals *g)
{
    const char *name = NULL;
    int code = args_parse(argc, argv, g, NULL, &name, 1, 1, "TABLE");
    if (code) return code;
    if (g->help) {
        print_help(&command_rollback);
        return 0;
    }
    Pados__V1__Rollback body = PADOS__V1__ROLLBACK__INIT;
    body.table = (char *)name;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_ROLLBACK;
    request.rollback = &body;
    return run_job(g, &request, "serving");
}

static const char rebuild_help[] =
    "usage: pados rebuild TABLE\n"
    "\n"
    "Builds a new version from the rows as they are now, changes included, while the old one serves; waits "
    "until "
    "the new\n"
    "one does. The server does so by itself when enough has changed; this is for those who would not wait.\n"
    "\n"
    "examples:\n"
    "  pados rebuild products\n";

static int run_rebuild(int argc, char **argv, globals *g)
{
    const char *name = NULL;
    int code = args_parse(argc, argv, g, NULL, &name, 1, 1, "TABLE");
    if (code) return code;
    if (g->help) {
        print_help(&command_rebuild);
        return 0;
    }
    Pados__V1__Rebuild body = PADOS__V1__REBUILD__INIT;
    body.table = (char *)name;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_REBUILD;
    request.rebuild = &body;
    return run_job(g, &request, "serving");
}

const command command_tables = {"tables", "what tables there are", tables_help, run_tables};
const command command_table = {"table", "one table: versions, calibration, schema; --compare", table_help,
                               run_table};
const command command_publish = {"publish", "let a staged version serve", publish_help, run_publish};
const command command_rollback = {"rollback", "go back to the version before", rollback_help, run_rollback};
const command command_rebuild = {"rebuild", "a new version from the rows as they are now", rebuild_help,
                                 run_rebuild};
