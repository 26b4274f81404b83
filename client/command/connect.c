/* A client from the options and the environment, administrative calls, and progress on stderr. */
#include "command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file's first line, without blanks around it. */
static int read_token(globals *g)
{
    FILE *file = fopen(g->token_file, "r");
    if (!file)
        return complain(errno == ENOENT ? PD_NOT_FOUND : PD_PERMISSION_DENIED, "--token-file: %s: %s",
                        g->token_file, strerror(errno));
    char *got = fgets(g->token, sizeof g->token, file);
    fclose(file);
    size_t length = got ? strcspn(g->token, " \t\r\n") : 0;
    if (!length)
        return complain(PD_INVALID_ARGUMENT, "--token-file: %s: there is no token in it", g->token_file);
    if (length + 1 == sizeof g->token)
        return complain(PD_INVALID_ARGUMENT, "--token-file: %s: its first line is too long for a token",
                        g->token_file);
    g->token[length] = '\0';
    return 0;
}

int connect_to(globals *g, pados_client **client)
{
    const char *token = getenv("PADOS_TOKEN");
    if (g->token_file) {
        int code = read_token(g);
        if (code) return code;
        token = g->token;
    }
    const char *url = g->to ? g->to : getenv("PADOS_URL");
    if (!url || !*url) url = PADOS_DEFAULT_URL;
    pados_options options = {
        .timeout_ms = g->timeout_ms,
        .connect_ms = g->timeout_ms && g->timeout_ms < 5000 ? g->timeout_ms : 5000,
        .token = token && *token ? token : NULL,
        .ca_file = g->ca,
        .server_name = g->server_name,
        .name = "pados 0.1.0",
        .admin_url = g->admin,
    };
    pados_error error;
    if (pados_open(url, &options, client, &error)) return complain_of(&error);
    return 0;
}

int admin_call(pados_client *client, Pados__V1__Request *request, Pados__V1__Reply **reply)
{
    pados_error error;
    if (pados_admin(client, request, reply, &error)) return complain_of(&error);
    for (size_t i = 0; i < (*reply)->n_warnings; i++)
        warn("%s", (*reply)->warnings[i]);
    return 0;
}

/* ---------------------------------------------------------------------------------------------- progress --- */

int show_progress(void *context, const pados_job *job)
{
    progress *p = context;
    bool new_stage = strcmp(p->stage, job->stage) != 0;
    bool over = strcmp(job->stage, "done") == 0 || strcmp(job->stage, "failed") == 0;
    if (over) {
        end_progress(p);
        if (*job->message && !job->status) warn("%s", job->message);
        return 0;
    }
    /* A terminal is told ten times a second, a log every five seconds and at each new stage. */
    double gap = p->tty ? 0.1 : 5;
    if (!new_stage && job->seconds - p->last < gap) return 0;
    if (new_stage && p->tty && p->shown) fputc('\n', stderr);
    snprintf(p->stage, sizeof p->stage, "%s", job->stage);
    p->last = job->seconds;
    char line[160], done[32], rate[32];
    size_t at = 0;
    double share = job->total ? (double)job->done / (double)job->total : 0;
    at += (size_t)snprintf(line, sizeof line, "%-9s", job->stage);
    if (job->total) at += (size_t)snprintf(line + at, sizeof line - at, " %3.0f%%", 100 * share);
    if (job->total && p->rows && strcmp(job->stage, "send") == 0) {
        double rows = share * (double)p->rows, speed = job->seconds > 0 ? rows / job->seconds : 0;
        at += (size_t)snprintf(line + at, sizeof line - at, "  %s rows  %s rows/s",
                               count_text((uint64_t)rows, done, sizeof done),
                               count_text((uint64_t)speed, rate, sizeof rate));
        if (share > 0 && share < 1)
            at += (size_t)snprintf(line + at, sizeof line - at, "  %.0f s to go",
                                   job->seconds * (1 - share) / share);
    } else {
        at += (size_t)snprintf(line + at, sizeof line - at, "  %.1f s", job->seconds);
    }
    fprintf(stderr, p->tty ? "\r\033[K%s" : "%s\n", line);
    p->shown = true;
    return 0;
}

void end_progress(progress *p)
{
    if (p->tty && p->shown) fputc('\n', stderr);
    p->shown = false;
}

int wait_and_tell(const globals *g, pados_client *client, Pados__V1__Reply *reply, const char *did)
{
    progress p = {.tty = isatty(STDERR_FILENO)};
    uint64_t version = 0;
    pados_error error;
    pados_status status = pados_job_wait(client, reply->job->job, show_progress, &p, &version, &error);
    end_progress(&p);
    if (status) return complain_of(&error);
    if (g->json)
        json_line(json_pack("{s:o, s:I, s:s}", "table", json_text(reply->job->table), "version",
                            (json_int_t)version, "state", did));
    else
        printf("%s version %llu is %s\n", reply->job->table, (unsigned long long)version, did);
    return 0;
}
