/* Health, metrics and a page, by nng's own HTTP server. */
#ifndef PD_HTTP_H
#define PD_HTTP_H

#include "config.h"
#include "metrics.h"
#include "status.h"
#include "tokens.h"

typedef struct pd_http pd_http;

/* What is shown. metrics and page run on a thread of their own and may take a little; ready is quick. */
typedef struct pd_http_source {
    void *context;
    int (*ready)(void *context, char *why, size_t room);
    void (*metrics)(void *context, pd_text *text);
    void (*page)(void *context, pd_text *text); /* HTML */
} pd_http_source;

/* tokens are borrowed. UNAVAILABLE naming the URL. */
pd_status pd_http_open(const pd_listener_config *listener, pd_tokens *tokens, const pd_http_source *source,
                       pd_http **out, pd_error *err);
const char *pd_http_url(const pd_http *http);
void pd_http_close(pd_http *http); /* NULL is allowed */

#endif
