/* Answers become messages. */
#ifndef PD_REPLY_H
#define PD_REPLY_H

#include <stdint.h>

#include "net.h"
#include "request.h"
#include "status.h"

struct Pados__V1__Reply;

/* Packs and sends; the reply stays the caller's. Where no memory is left for it, the connection is closed. */
void pd_reply_send(pd_call *call, const struct Pados__V1__Reply *reply);
/* message is copied and made valid UTF-8. */
void pd_reply_error(pd_call *call, uint64_t id, pd_status status, const char *message);
/* The reply of an answered search, built in the search's arena. RESOURCE_EXHAUSTED: over PD_MAX_REPLY or no memory.
 * backend: as the hello names it. */
pd_status pd_reply_search(pd_search *search, uint64_t id, const char *backend, struct Pados__V1__Reply **out,
                          pd_error *err);

#endif
