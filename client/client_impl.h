/* What libpados's own files share. The layers, from the wire up:
 *
 *     link.c        one nng REQ socket: connects and reconnects, carries one request and its reply (all of nng is here)
 *     connection.c  the client: hello, limits, the admin link, the envelope of every call
 *     search.c      a pados_search becomes a message;  result.c  a reply becomes a pados_result
 *     admin.c       administration and jobs;           push.c    a push, chunk by chunk, resumed when the link breaks
 *     write.c       changes, resent under their keys;  erase.c   erasures, exports, snapshots
 *
 * A search is sent at most once. nng's REQ would send it again, after a minute or over a new connection: links therefore
 * set NNG_OPT_REQ_RESENDTIME to infinite, which makes nng fail the request instead when its connection goes away. And a
 * request is packed, with the milliseconds that are then left, only when there is a connection to send it over, so that
 * no server begins on it with more time than the caller still waits.
 */
#ifndef PD_CLIENT_IMPL_H
#define PD_CLIENT_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pados.h"
#include "pados.pb-c.h"
#include "status.h" /* for its list of codes only: libpados links nothing of kernels/ */

enum {
    PD_CLIENT_TIMEOUT_MS = 10000,
    PD_CLIENT_CONNECT_MS = 5000,
    PD_CLIENT_MAX_CHUNK = 1 << 20,   /* bytes, where a hello names none */
    PD_CLIENT_MAX_REPLY = 512 << 20, /* bytes: a longer reply is refused before it is read */
    PD_CLIENT_KEY = 33,              /* room of an idempotency key that is made here */
};

/* Fills error (may be NULL) and returns status. Control characters in the result become '?'. */
pados_status pd_client_fail(pados_error *error, pados_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
uint64_t pd_client_now_ms(void); /* monotonic */

/* ------------------------------------------------------------------------------------------------ link.c --- */

typedef struct pd_link pd_link;
typedef struct pd_link_options {
    const char *ca_file, *server_name; /* of a tls+tcp URL */
} pd_link_options;

/* Starts to connect in the background. INVALID_ARGUMENT: a URL or CA file that cannot work. */
pados_status pd_link_open(const char *url, const pd_link_options *options, pd_link **out, pados_error *error);
/* No call may be in flight. NULL is nothing. */
void pd_link_close(pd_link *link);
/* Waits until there is a connection. *epoch (may be NULL) numbers the connections: another one, another number.
 * UNAVAILABLE at deadline_ms (pd_client_now_ms's clock). */
pados_status pd_link_wait(pd_link *link, uint64_t deadline_ms, uint64_t *epoch, pados_error *error);
/* Sends request once and waits for the reply. UNAVAILABLE: not sent, or the connection was lost before the reply;
 * DEADLINE_EXCEEDED. *reply is freed with pados__v1__reply__free_unpacked(reply, NULL). */
pados_status pd_link_exchange(pd_link *link, const Pados__V1__Request *request, uint64_t deadline_ms,
                              Pados__V1__Reply **reply, pados_error *error);

/* ------------------------------------------------------------------------------------------ connection.c --- */

typedef struct pd_client_string {
    struct pd_client_string *next;
    char text[];
} pd_client_string;

struct pados_client {
    char *url, *token, *name, *ca_file, *server_name;
    char *admin_url; /* as the caller says; NULL: as the hello says */
    uint32_t timeout_ms, connect_ms;
    pd_link *data;
    pthread_mutex_t lock; /* over all that follows */
    pd_link *admin;       /* opened by the first administrative call */
    pados_limits limits;
    uint64_t hello_epoch;      /* connection that limits came over; 0: none yet */
    pd_client_string *strings; /* what limits points to, and has pointed to */
    uint64_t next_id;
};

/* Waits for a connection of the data link and says hello over it if this connection is new. limits: the server's. */
pados_status pd_client_ready(pados_client *client, uint64_t deadline_ms, pados_limits *limits,
                             pados_error *error);
/* Gives request its id, token and deadline, sends it over link, checks that the reply is to this request and has body
 * `want` (PADOS__V1__REPLY__BODY_...), and turns a status in the reply into an error. A request longer than the server
 * reads is refused: INVALID_ARGUMENT. *reply as pd_link_exchange has it. */
pados_status pd_client_call(pados_client *client, pd_link *link, Pados__V1__Request *request,
                            uint64_t deadline_ms, int want, Pados__V1__Reply **reply, pados_error *error);
/* The admin link, opened when it is not yet: FAILED_PRECONDITION when the server has no admin listener. */
pados_status pd_client_admin_link(pados_client *client, pd_link **link, pados_error *error);

/* ---------------------------------------------------------------------------------------------- result.c --- */

/* Takes over reply (also on failure). count, k: what was asked. INTERNAL when the reply does not hold together. */
pados_status pd_client_result(Pados__V1__Reply *reply, uint32_t count, uint32_t k, pados_result **out,
                              pados_error *error);

/* ----------------------------------------------------------------------------------------------- admin.c --- */

/* Copies a job's reply. Strings that are too long are cut. */
void pd_client_job_from(const Pados__V1__JobReply *reply, pados_job *job);
/* As pados_admin, with the body that the reply must have; the call's deadline is the client's timeout. */
pados_status pd_client_admin_call(pados_client *client, Pados__V1__Request *request, int want,
                                  Pados__V1__Reply **reply, pados_error *error);
/* 128 random bits in hexadecimal. */
pados_status pd_client_key(char key[PD_CLIENT_KEY], pados_error *error);
void pd_client_pause(uint32_t ms);

#endif
