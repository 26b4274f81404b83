/* The tokens that a listener takes. Any thread may match while another replaces them. */
#ifndef PD_TOKENS_H
#define PD_TOKENS_H

#include "status.h"

typedef struct pd_tokens pd_tokens;

/* One token a line. "": no token is wanted, and every text matches. INVALID_ARGUMENT naming the file. */
pd_status pd_tokens_load(const char *path, pd_tokens **out, pd_error *err);
void pd_tokens_free(pd_tokens *tokens); /* NULL is allowed */
/* 1: text is one of them, or none is wanted. The time taken does not depend on how much of a token was guessed. */
int pd_tokens_match(pd_tokens *tokens, const char *text);
/* What the two hold changes places; nobody else has `with`. A request sees the one or the other whole. */
void pd_tokens_swap(pd_tokens *tokens, pd_tokens *with);

#endif
