/* Tokens are compared whole, every one of them: no early exit tells how far a guess was right. */
#include "tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKEN  512u
#define MAX_TOKENS 1024u

struct pd_tokens {
    size_t count;
    char text[][MAX_TOKEN]; /* padded with zeros */
};

pd_status pd_tokens_load(const char *path, pd_tokens **out, pd_error *err)
{
    *out = NULL;
    if (!*path) return PD_OK;
    FILE *file = fopen(path, "rb");
    if (!file)
        return pd_fail(err, PD_INVALID_ARGUMENT, "token_file \"%s\" cannot be read: %s", path,
                       strerror(errno));
    pd_status status = PD_OK;
    pd_tokens *tokens = calloc(1, sizeof *tokens);
    char line[MAX_TOKEN + 2];
    while (tokens && !status && fgets(line, sizeof line, file)) {
        size_t length = strcspn(line, "\r\n");
        if (length == 0) continue;
        if (length >= MAX_TOKEN || tokens->count == MAX_TOKENS) {
            status = pd_fail(err, PD_INVALID_ARGUMENT, "token_file \"%s\": at most %u tokens of %u bytes",
                             path, MAX_TOKENS, MAX_TOKEN - 1);
            break;
        }
        pd_tokens *more = realloc(tokens, sizeof *tokens + (tokens->count + 1) * MAX_TOKEN);
        if (!more) {
            status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the tokens");
            break;
        }
        tokens = more;
        memset(tokens->text[tokens->count], 0, MAX_TOKEN);
        memcpy(tokens->text[tokens->count++], line, length);
    }
    fclose(file);
    if (!tokens) status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the tokens");
    if (!status && tokens->count == 0)
        status = pd_fail(err, PD_INVALID_ARGUMENT, "token_file \"%s\" holds no token", path);
    if (status) {
        free(tokens);
        return status;
    }
    *out = tokens;
    return PD_OK;
}

void pd_tokens_free(pd_tokens *tokens)
{
    free(tokens);
}

int pd_tokens_match(const pd_tokens *tokens, const char *text)
{
    if (!tokens) return 1;
    char given[MAX_TOKEN] = {0};
    size_t length = strlen(text);
    if (length == 0 || length >= MAX_TOKEN) return 0;
    memcpy(given, text, length);
    int found = 0;
    for (size_t t = 0; t < tokens->count; t++) {
        volatile unsigned char different = 0;
        for (size_t i = 0; i < MAX_TOKEN; i++)
            different |= (unsigned char)(given[i] ^ tokens->text[t][i]);
        found |= different == 0;
    }
    return found;
}
