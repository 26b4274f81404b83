/* The tokens that a listener takes. */
#ifndef PD_TOKENS_H
#define PD_TOKENS_H

#include "status.h"

typedef struct pd_tokens pd_tokens;

/* One token a line; "" gives *out = NULL: no token is wanted. */
pd_status pd_tokens_load(const char *path, pd_tokens **out, pd_error *err);
void pd_tokens_free(pd_tokens *tokens); /* NULL is allowed */
/* 1: text is one of them, or tokens is NULL. The time taken does not depend on how much of a token was guessed. */
int pd_tokens_match(const pd_tokens *tokens, const char *text);

#endif
