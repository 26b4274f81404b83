/* Tokens are compared whole, every one of them: no early exit tells how far a guess was right. */
#include "tokens.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKEN  512u
#define MAX_TOKENS 1024u

typedef struct token {
    char text[MAX_TOKEN]; /* padded with zeros */
} token;

struct pd_tokens {
    pthread_rwlock_t lock;
    int wanted;
    size_t count;
    token *list;
};

static pd_status add(pd_tokens *tokens, const char *path, const char *text, size_t length, pd_error *err)
{
    if (length >= MAX_TOKEN || tokens->count == MAX_TOKENS)
        return pd_fail(err, PD_INVALID_ARGUMENT, "token_file \"%s\": at most %u tokens of %u bytes", path,
                       MAX_TOKENS, MAX_TOKEN - 1);
    token *more = realloc(tokens->list, (tokens->count + 1) * sizeof *more);
    if (!more) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the tokens");
    tokens->list = more;
    token *last = &more[tokens->count++];
    memset(last, 0, sizeof *last);
    memcpy(last->text, text, length);
    return PD_OK;
}

static pd_status read_file(pd_tokens *tokens, const char *path, pd_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return pd_fail(err, PD_INVALID_ARGUMENT, "token_file \"%s\" cannot be read: %s", path,
                       strerror(errno));
    pd_status status = PD_OK;
    char line[MAX_TOKEN + 2];
    while (!status && fgets(line, sizeof line, file)) {
        size_t length = strcspn(line, "\r\n");
        if (length) status = add(tokens, path, line, length, err);
    }
    fclose(file);
    if (!status && tokens->count == 0)
        status = pd_fail(err, PD_INVALID_ARGUMENT, "token_file \"%s\" holds no token", path);
    return status;
}

pd_status pd_tokens_load(const char *path, pd_tokens **out, pd_error *err)
{
    *out = NULL;
    pd_tokens *tokens = calloc(1, sizeof *tokens);
    if (!tokens) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory for the tokens");
    pthread_rwlock_init(&tokens->lock, NULL);
    tokens->wanted = *path != 0;
    pd_status status = tokens->wanted ? read_file(tokens, path, err) : PD_OK;
    if (status) {
        pd_tokens_free(tokens);
        return status;
    }
    *out = tokens;
    return PD_OK;
}

void pd_tokens_free(pd_tokens *tokens)
{
    if (!tokens) return;
    pthread_rwlock_destroy(&tokens->lock);
    free(tokens->list);
    free(tokens);
}

static int is_one_of(const pd_tokens *tokens, const char *text)
{
    char given[MAX_TOKEN] = {0};
    size_t length = strlen(text);
    if (length == 0 || length >= MAX_TOKEN) return 0;
    memcpy(given, text, length);
    int found = 0;
    for (size_t t = 0; t < tokens->count; t++) {
        volatile unsigned char different = 0;
        for (size_t i = 0; i < MAX_TOKEN; i++)
            different |= (unsigned char)(given[i] ^ tokens->list[t].text[i]);
        found |= different == 0;
    }
    return found;
}

int pd_tokens_match(pd_tokens *tokens, const char *text)
{
    pthread_rwlock_rdlock(&tokens->lock);
    int matches = !tokens->wanted || is_one_of(tokens, text);
    pthread_rwlock_unlock(&tokens->lock);
    return matches;
}

void pd_tokens_swap(pd_tokens *tokens, pd_tokens *with)
{
    /* Nobody else has `with`: only one of the two locks is needed. */
    pthread_rwlock_wrlock(&tokens->lock);
    int wanted = tokens->wanted;
    size_t count = tokens->count;
    token *list = tokens->list;
    tokens->wanted = with->wanted;
    tokens->count = with->count;
    tokens->list = with->list;
    with->wanted = wanted;
    with->count = count;
    with->list = list;
    pthread_rwlock_unlock(&tokens->lock);
}
