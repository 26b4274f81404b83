/* Administration: the link to the admin listener, one-call commands, and waiting for jobs.
 *
 * Administrative requests are not sent again by themselves either; only those that change nothing on a second arrival
 * are repeated after a lost connection, each where it is made: JobGet here, PushBegin and PushChunk in push.c, writes
 * under their keys in write.c.
 */
#include "client_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* --------------------------------------------------------------------------------------- the admin's address --- */

/* HOST of SCHEME://HOST:PORT, brackets of an IPv6 address included. False for addresses of another shape (ipc://). */
static bool host_of(const char *url, const char **host, size_t *length)
{
    const char *start = strstr(url, "://");
    if (!start || strncmp(url, "ipc", 3) == 0 || strncmp(url, "inproc", 6) == 0) return false;
    start += 3;
    const char *end = *start == '[' ? strchr(start, ']') : strpbrk(start, ":/");
    if (*start == '[') end = end ? end + 1 : NULL;
    *host = start;
    *length = end ? (size_t)(end - start) : strlen(start);
    return true;
}

static bool is_wildcard(const char *host, size_t length)
{
    static const char *const names[] = {"", "*", "0.0.0.0", "[::]", "[::0]"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length && strncmp(names[i], host, length) == 0) return true;
    return false;
}

/* A server that listens on every address names none that a client could go to: the host it was reached by stands in.
 * Freed by the caller. */
static char *reachable(const char *named, const char *reached)
{
    const char *host, *ours;
    size_t length, our_length;
    if (!host_of(named, &host, &length) || !is_wildcard(host, length) ||
        !host_of(reached, &ours, &our_length))
        return strdup(named);
    char *url;
    if (asprintf(&url, "%.*s%.*s%s", (int)(host - named), named, (int)our_length, ours, host + length) < 0)
        return NULL;
    return url;
}

/* Whether a token would leave the machine in the clear although the server was reached by TLS. */
static bool is_downgrade(const char *named, const char *reached)
{
    const char *host;
    size_t length;
    if (strncmp(reached, "tls+", 4) != 0 || strncmp(named, "tls+", 4) == 0 || !host_of(named, &host, &length))
        return false;
    return !(length > 4 && strncmp(host, "127.", 4) == 0) &&
           !(length == 9 && strncmp(host, "localhost", 9) == 0) &&
           !(length == 5 && strncmp(host, "[::1]", 5) == 0);
}

pados_status pd_client_admin_link(pados_client *client, pd_link **link, pados_error *error)
{
    pados_status status = PD_OK;
    pthread_mutex_lock(&client->lock);
    if (!client->admin) {
        const char *named = client->admin_url ? client->admin_url : client->limits.admin_url;
        char *url = client->admin_url ? strdup(named) : reachable(named, client->url);
        pd_link_options tls = {.ca_file = client->ca_file, .server_name = client->server_name};
        if (!*named)
            status = pd_client_fail(error, PD_FAILED_PRECONDITION, "%s has no listener for administration",
                                    client->url);
        else if (!url)
            status = pd_client_fail(error, PD_RESOURCE_EXHAUSTED, "no memory for an address");
        else if (!client->admin_url && is_downgrade(url, client->url))
            status = pd_client_fail(
                error, PD_FAILED_PRECONDITION,
                "%s names %s for administration, which has no TLS: say so if you mean to go there",
                client->url, url);
        else
            status = pd_link_open(url, &tls, &client->admin, error);
        free(url);
    }
    *link = client->admin;
    pthread_mutex_unlock(&client->lock);
    return status;
}

/* -------------------------------------------------------------------------------------------------- calls --- */

pados_status pd_client_admin_call(pados_client *client, Pados__V1__Request *request, int want,
                                  Pados__V1__Reply **reply, pados_error *error)
{
    pd_link *link;
    pados_status status = pd_client_admin_link(client, &link, error);
    if (status) return status;
    return pd_client_call(client, link, request, pd_client_now_ms() + client->timeout_ms, want, reply, error);
}

pados_status pd_client_key(char key[PD_CLIENT_KEY], pados_error *error)
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return pd_client_fail(error, PD_INTERNAL, "no random number for an idempotency key");
    snprintf(key, PD_CLIENT_KEY, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    return PD_OK;
}

void pd_client_pause(uint32_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left)) {
    }
}

/* The body of the reply to each kind of request. */
static int reply_to(Pados__V1__Request__BodyCase body)
{
    switch (body) {
    case PADOS__V1__REQUEST__BODY_HELLO:
        return PADOS__V1__REPLY__BODY_HELLO;
    case PADOS__V1__REQUEST__BODY_SEARCH:
        return PADOS__V1__REPLY__BODY_SEARCH;
    case PADOS__V1__REQUEST__BODY_PUSH_BEGIN:
        return PADOS__V1__REPLY__BODY_PUSH_BEGIN;
    case PADOS__V1__REQUEST__BODY_PUSH_CHUNK:
        return PADOS__V1__REPLY__BODY_PUSH_CHUNK;
    case PADOS__V1__REQUEST__BODY_PUSH_COMMIT:
    case PADOS__V1__REQUEST__BODY_JOB_GET:
    case PADOS__V1__REQUEST__BODY_PUBLISH:
    case PADOS__V1__REQUEST__BODY_ROLLBACK:
    case PADOS__V1__REQUEST__BODY_REBUILD:
        return PADOS__V1__REPLY__BODY_JOB;
    case PADOS__V1__REQUEST__BODY_TABLE_LIST:
        return PADOS__V1__REPLY__BODY_TABLE_LIST;
    case PADOS__V1__REQUEST__BODY_TABLE_GET:
        return PADOS__V1__REPLY__BODY_TABLE;
    case PADOS__V1__REQUEST__BODY_COMPARE:
        return PADOS__V1__REPLY__BODY_COMPARE;
    case PADOS__V1__REQUEST__BODY_PROFILE_PUT:
    case PADOS__V1__REQUEST__BODY_PROFILE_GET:
        return PADOS__V1__REPLY__BODY_PROFILE;
    case PADOS__V1__REQUEST__BODY_PROFILE_LIST:
        return PADOS__V1__REPLY__BODY_PROFILE_LIST;
    case PADOS__V1__REQUEST__BODY_STATS:
        return PADOS__V1__REPLY__BODY_STATS;
    case PADOS__V1__REQUEST__BODY_UPSERT:
    case PADOS__V1__REQUEST__BODY_DELETE:
    case PADOS__V1__REQUEST__BODY_UPDATE:
    case PADOS__V1__REQUEST__BODY_FEEDBACK:
        return PADOS__V1__REPLY__BODY_WRITE;
    case PADOS__V1__REQUEST__BODY_ERASE:
    case PADOS__V1__REQUEST__BODY_ERASURE_LIST:
        return PADOS__V1__REPLY__BODY_ERASURES;
    case PADOS__V1__REQUEST__BODY_EXPORT:
        return PADOS__V1__REPLY__BODY_EXPORT;
    case PADOS__V1__REQUEST__BODY_SNAPSHOT:
        return PADOS__V1__REPLY__BODY_SNAPSHOT;
    default: /* an abort is answered with nothing */
        return PADOS__V1__REPLY__BODY__NOT_SET;
    }
}

pados_status pados_admin(pados_client *client, Pados__V1__Request *request, Pados__V1__Reply **reply,
                         pados_error *error)
{
    if (request->body_case == PADOS__V1__REQUEST__BODY__NOT_SET)
        return pd_client_fail(error, PD_INVALID_ARGUMENT, "an administrative request without a body");
    return pd_client_admin_call(client, request, reply_to(request->body_case), reply, error);
}

void pados_reply_free(Pados__V1__Reply *reply)
{
    if (reply) pados__v1__reply__free_unpacked(reply, NULL);
}

/* --------------------------------------------------------------------------------------------------- jobs --- */

void pd_client_job_from(const Pados__V1__JobReply *reply, pados_job *job)
{
    *job = (pados_job){.job = reply->job,
                       .version = reply->version,
                       .done = reply->done,
                       .total = reply->total,
                       .seconds = reply->seconds,
                       .status = (pados_status)reply->status};
    snprintf(job->table, sizeof job->table, "%s", reply->table);
    snprintf(job->stage, sizeof job->stage, "%s", reply->stage);
    snprintf(job->message, sizeof job->message, "%s", reply->message);
}

static pados_status get_job(pados_client *client, uint64_t number, pados_job *job, pados_error *error)
{
    Pados__V1__JobGet get = PADOS__V1__JOB_GET__INIT;
    get.job = number;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_JOB_GET;
    request.job_get = &get;
    Pados__V1__Reply *reply;
    pados_status status = pd_client_admin_call(client, &request, PADOS__V1__REPLY__BODY_JOB, &reply, error);
    if (status) return status;
    pd_client_job_from(reply->job, job);
    pados_reply_free(reply);
    return PD_OK;
}

pados_status pados_job_wait(pados_client *client, uint64_t number, pados_progress progress, void *context,
                            uint64_t *version, pados_error *error)
{
    /* Soon at first, so that a small table does not wait for its client; a long build is asked twice a second. */
    enum { FIRST_MS = 5, LAST_MS = 500 };
    uint32_t pause = FIRST_MS;
    int lost = 0;
    for (;;) {
        pados_job job;
        pados_status status = get_job(client, number, &job, error);
        if ((status == PD_UNAVAILABLE || status == PD_DEADLINE_EXCEEDED) && ++lost <= 3) continue;
        if (status == PD_NOT_FOUND) /* jobs are not kept over a restart */
            return pd_client_fail(
                error, PD_UNAVAILABLE,
                "the server knows no job %llu any more: it was started again, and what the job had not "
                "finished is undone; do it again",
                (unsigned long long)number);
        if (status) return status;
        lost = 0;
        if (progress && progress(context, &job))
            return pd_client_fail(error, PD_CANCELLED, "stopped waiting for job %llu, which goes on",
                                  (unsigned long long)number);
        if (job.status || strcmp(job.stage, "failed") == 0)
            return pd_client_fail(error, job.status ? job.status : PD_UNKNOWN, "%s",
                                  *job.message ? job.message : "the job failed and gave no reason");
        if (strcmp(job.stage, "done") == 0) {
            if (version) *version = job.version;
            return PD_OK;
        }
        pd_client_pause(pause);
        pause = pause * 2 < LAST_MS ? pause * 2 : LAST_MS;
    }
}
