/* pados profile, stats, hello. */
#include "command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

/* ------------------------------------------------------------------------------------------------ profile --- */

static json_t *json_profile(const Pados__V1__ProfileReply *p, bool with_text)
{
    json_t *o = must(json_pack("{s:o, s:I, s:o, s:o, s:o}", "name", json_text(p->name), "version",
                               (json_int_t)p->version, "table", json_text(p->table), "valid_from",
                               json_text(p->valid_from), "valid_until", json_text(p->valid_until)));
    if (with_text) json_object_set_new(o, "text", json_text(p->text));
    return o;
}

static int put(const globals *g, pados_client *client, const char *path)
{
    char *text;
    int code = read_text(path, &text);
    if (code) return code;
    Pados__V1__ProfilePut body = PADOS__V1__PROFILE_PUT__INIT;
    const char *slash = strrchr(path, '/');
    body.text = text;
    body.file = (char *)(slash ? slash + 1 : path);
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_PUT;
    request.profile_put = &body;
    Pados__V1__Reply *reply;
    if ((code = admin_call(client, &request, &reply)) == 0) {
        if (g->json)
            json_line(json_profile(reply->profile, false));
        else
            printf("profile %s is version %" PRIu64 "\n", reply->profile->name, reply->profile->version);
        pados_reply_free(reply);
    }
    free(text);
    return code;
}

static int list(const globals *g, pados_client *client)
{
    Pados__V1__ProfileList body = PADOS__V1__PROFILE_LIST__INIT;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_LIST;
    request.profile_list = &body;
    Pados__V1__Reply *reply;
    int code = admin_call(client, &request, &reply);
    if (code) return code;
    const Pados__V1__ProfileListReply *r = reply->profile_list;
    grid *rows = grid_new(5);
    grid_head(rows, "profile", false);
    grid_head(rows, "version", true);
    grid_head(rows, "table", false);
    grid_head(rows, "valid from", false);
    grid_head(rows, "until", false);
    for (size_t i = 0; i < r->n_profiles; i++) {
        const Pados__V1__ProfileReply *p = r->profiles[i];
        if (g->json) json_line(json_profile(p, false));
        grid_cell(rows, "%s", p->name);
        grid_cell(rows, "%" PRIu64, p->version);
        grid_cell(rows, "%s", p->table);
        grid_cell(rows, "%s", p->valid_from);
        grid_cell(rows, "%s", p->valid_until);
    }
    if (!g->json && r->n_profiles) grid_print(rows, stdout, 0);
    if (!g->json && !r->n_profiles) puts("there are no profiles (pados profile put FILE)");
    grid_free(rows);
    pados_reply_free(reply);
    return 0;
}

static int show(const globals *g, pados_client *client, const char *name)
{
    Pados__V1__ProfileGet body = PADOS__V1__PROFILE_GET__INIT;
    body.name = (char *)name;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PROFILE_GET;
    request.profile_get = &body;
    Pados__V1__Reply *reply;
    int code = admin_call(client, &request, &reply);
    if (code) return code;
    if (g->json)
        json_line(json_profile(reply->profile, true));
    else
        printf("# %s version %" PRIu64 "\n%s\n", reply->profile->name, reply->profile->version,
               reply->profile->text);
    pados_reply_free(reply);
    return 0;
}

static const char profile_help[] =
    "usage: pados profile put FILE | list | show NAME\n"
    "\n"
    "Profiles say what a context weighs: libconfig text, checked by the server when it is put, which makes a "
    "new\n"
    "version of the profile that the text names. Searches that name the profile use it from then on.\n"
    "\n"
    "examples:\n"
    "  pados profile put festive.conf\n"
    "  pados profile list\n"
    "  pados profile show festive > festive.conf\n";

static int run_profile(int argc, char **argv, globals *g)
{
    const char *words[2] = {NULL, NULL};
    int code = args_parse(argc, argv, g, NULL, words, 1, 2, "put FILE | list | show NAME");
    if (code) return code;
    if (g->help) {
        print_help(&command_profile);
        return 0;
    }
    bool putting = strcmp(words[0], "put") == 0, listing = strcmp(words[0], "list") == 0,
         showing = strcmp(words[0], "show") == 0;
    if (!putting && !listing && !showing)
        return usage_error("\"%s\" is not something to do with profiles (put FILE | list | show NAME)",
                           words[0]);
    if (listing == (words[1] != NULL))
        return usage_error("profile %s: %s", words[0],
                           listing   ? "wants nothing more"
                           : putting ? "wants a FILE"
                                     : "wants a NAME");
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    code = putting ? put(g, client, words[1]) : listing ? list(g, client) : show(g, client, words[1]);
    pados_close(client);
    return code;
}

/* -------------------------------------------------------------------------------------------------- stats --- */

static const char stats_help[] = "usage: pados stats\n"
                                 "\n"
                                 "The server's counters, as its /metrics has them.\n"
                                 "\n"
                                 "examples:\n"
                                 "  pados stats | grep queue\n";

static int run_stats(int argc, char **argv, globals *g)
{
    int code = args_parse(argc, argv, g, NULL, NULL, 0, 0, "");
    if (code) return code;
    if (g->help) {
        print_help(&command_stats);
        return 0;
    }
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    Pados__V1__Stats body = PADOS__V1__STATS__INIT;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_STATS;
    request.stats = &body;
    Pados__V1__Reply *reply;
    if ((code = admin_call(client, &request, &reply)) == 0) {
        const Pados__V1__StatsReply *s = reply->stats;
        grid *rows = grid_new(2);
        grid_head(rows, "", false);
        grid_head(rows, "", true);
        for (size_t i = 0; i < s->n_names && i < s->n_values; i++) {
            if (g->json)
                json_line(json_pack("{s:o, s:f}", "name", json_text(s->names[i]), "value", s->values[i]));
            grid_cell(rows, "%s", s->names[i]);
            grid_cell(rows, "%.10g", s->values[i]);
        }
        if (!g->json) grid_print(rows, stdout, 0);
        grid_free(rows);
        pados_reply_free(reply);
    }
    pados_close(client);
    return code;
}

/* -------------------------------------------------------------------------------------------------- hello --- */

static const char hello_help[] = "usage: pados hello\n"
                                 "\n"
                                 "Which server answers, where its listeners are, and what it takes at most.\n"
                                 "\n"
                                 "examples:\n"
                                 "  pados --to tcp://search-1:7461 hello\n";

static void hello_row(grid *rows, const char *name, const char *value)
{
    grid_cell(rows, "%s", name);
    grid_cell(rows, "%s", value);
}

static int run_hello(int argc, char **argv, globals *g)
{
    int code = args_parse(argc, argv, g, NULL, NULL, 0, 0, "");
    if (code) return code;
    if (g->help) {
        print_help(&command_hello);
        return 0;
    }
    pados_client *client;
    if ((code = connect_to(g, &client)) != 0) return code;
    pados_limits l;
    pados_limits_of(client, &l);
    if (g->json) {
        json_line(json_pack("{s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "server",
                            json_text(l.server), "backend", json_text(l.backend), "data_url",
                            json_text(l.data_url), "admin_url", json_text(l.admin_url), "max_message",
                            (json_int_t)l.max_message, "max_queries", (json_int_t)l.max_queries, "max_k",
                            (json_int_t)l.max_k, "max_hits", (json_int_t)l.max_hits, "max_deadline_ms",
                            (json_int_t)l.max_deadline_ms, "max_chunk", (json_int_t)l.max_chunk));
    } else {
        char room[32];
        grid *rows = grid_new(2);
        grid_head(rows, "", false);
        grid_head(rows, "", false);
        hello_row(rows, "server", l.server);
        hello_row(rows, "client", "pados 0.1.0");
        hello_row(rows, "backend", l.backend);
        hello_row(rows, "searches at", l.data_url);
        hello_row(rows, "administration at", *l.admin_url ? l.admin_url : "(no listener)");
        hello_row(rows, "a request", bytes_text(l.max_message, room, sizeof room));
        hello_row(rows, "its queries", count_text(l.max_queries, room, sizeof room));
        hello_row(rows, "its k", count_text(l.max_k, room, sizeof room));
        hello_row(rows, "its queries x k", count_text(l.max_hits, room, sizeof room));
        grid_cell(rows, "its deadline");
        grid_cell(rows, "%s ms", count_text(l.max_deadline_ms, room, sizeof room));
        hello_row(rows, "a push's chunk", bytes_text(l.max_chunk, room, sizeof room));
        grid_print(rows, stdout, 0);
        grid_free(rows);
    }
    pados_close(client);
    return 0;
}

const command command_profile = {"profile", "put, list and show profiles", profile_help, run_profile};
const command command_stats = {"stats", "the server's counters", stats_help, run_stats};
const command command_hello = {"hello", "which server answers, and its limits", hello_help, run_hello};
