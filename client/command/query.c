#include "query.h"

#include <stdlib.h>
#include <string.h>

#include "csv.h"

void *pool_take(pool *p, size_t count, size_t size)
{
    if (p->count == p->room) {
        p->room = p->room ? 2 * p->room : 32;
        p->at = must(realloc(p->at, p->room * sizeof *p->at));
    }
    return p->at[p->count++] = must(calloc(count ? count : 1, size));
}

char *pool_text(pool *p, const char *text, size_t length)
{
    char *copy = pool_take(p, length + 1, 1);
    memcpy(copy, text, length);
    return copy;
}

void pool_free(pool *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->at[i]);
    free(p->at);
    *p = (pool){NULL, 0, 0};
}

void split(pool *p, const char *text, char separator, char ***parts, size_t *count)
{
    *count = 1;
    for (const char *c = text; *c; c++)
        *count += *c == separator;
    *parts = pool_take(p, *count, sizeof **parts);
    for (size_t i = 0; i < *count; i++) {
        const char *end = strchr(text, separator);
        size_t length = end ? (size_t)(end - text) : strlen(text);
        (*parts)[i] = pool_text(p, text, length);
        text += length + 1;
    }
}

int parse_ids(pool *p, const char *option, const char *text, uint64_t **ids, size_t *count)
{
    char **parts;
    split(p, text, ',', &parts, count);
    *ids = pool_take(p, *count, sizeof **ids);
    for (size_t i = 0; i < *count; i++)
        if (!parse_u64(parts[i], &(*ids)[i])) return usage_error("%s: \"%s\" is not an id", option, parts[i]);
    return 0;
}

int parse_from(pool *p, const char *text, char **table, uint64_t **ids, size_t *count)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text) return usage_error("--from: \"%s\" is not TABLE:ID[,ID...]", text);
    *table = pool_text(p, text, (size_t)(colon - text));
    return parse_ids(p, "--from", colon + 1, ids, count);
}

int parse_mix(pool *p, const char *text, pados_mix *mix)
{
    char **parts;
    size_t count;
    split(p, text, ',', &parts, &count);
    uint64_t *ids = pool_take(p, count, sizeof *ids);
    float *weights = pool_take(p, count, sizeof *weights);
    for (size_t i = 0; i < count; i++) {
        char *colon = strchr(parts[i], ':');
        if (colon) *colon = '\0';
        if (!colon || !parse_u64(parts[i], &ids[i]) || !parse_f32(colon + 1, &weights[i]))
            return usage_error("--mix: \"%s\" is not ID:WEIGHT[,ID:WEIGHT...]", text);
    }
    *mix = (pados_mix){ids, weights, count, NULL};
    return 0;
}

int parse_weight(pool *p, const char *text, pados_override *weight)
{
    const char *colon = strrchr(text, ':'), *equals = strchr(text, '=');
    if (!colon || colon == text || !parse_f32(colon + 1, &weight->weight) || equals == text)
        return usage_error("--weight: \"%s\" is not ATTRIBUTE[=VALUE]:WEIGHT", text);
    if (equals && equals > colon) equals = NULL;
    const char *end = equals ? equals : colon;
    weight->attribute = pool_text(p, text, (size_t)(end - text));
    weight->value = equals ? pool_text(p, equals + 1, (size_t)(colon - equals - 1)) : "";
    return 0;
}

int parse_cap(pool *p, const char *text, pados_cap *cap)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || !parse_u32(colon + 1, &cap->at_most) || !cap->at_most)
        return usage_error("--diversity: \"%s\" is not ATTRIBUTE:N", text);
    cap->attribute = pool_text(p, text, (size_t)(colon - text));
    return 0;
}

int parse_filter(pool *p, const char *text, pados_condition *filter)
{
    static const struct {
        const char *sign;
        pados_condition_kind kind;
        bool many;
    } signs[] = {
        {"!=", PADOS_IS_NOT, false},   {">=", PADOS_AT_LEAST, false}, {"<=", PADOS_AT_MOST, false},
        {" any ", PADOS_ANY_OF, true}, {" all ", PADOS_ALL_OF, true}, {" none ", PADOS_NONE_OF, true},
        {"=", PADOS_IS, false},
    };
    /* The first sign in the text counts: a value may hold others. */
    const char *first = NULL;
    size_t which = 0;
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        const char *at = strstr(text, signs[i].sign);
        if (at && (!first || at < first)) {
            first = at;
            which = i;
        }
    }
    const char *value = first ? first + strlen(signs[which].sign) : NULL;
    while (first && first > text && first[-1] == ' ')
        first--;
    while (value && *value == ' ')
        value++;
    if (!first || first == text || !*value)
        return usage_error(
            "--filter: \"%s\" is none of A=V, A!=V, A>=X, A<=X, 'A any V|W', 'A all V|W', 'A none V|W'",
            text);
    filter->attribute = pool_text(p, text, (size_t)(first - text));
    filter->kind = signs[which].kind;
    char **values;
    if (signs[which].many) {
        split(p, value, '|', &values, &filter->count);
    } else {
        values = pool_take(p, 1, sizeof *values);
        values[0] = pool_text(p, value, strlen(value));
        filter->count = 1;
    }
    filter->values = (const char *const *)values;
    return 0;
}

/* ---------------------------------------------------------------------------------------------- contexts --- */

/* The comma that ends the pair which begins at text; NULL: it is the last. */
static const char *end_of_pair(const char *text)
{
    for (const char *c = strchr(text, ','); c; c = strchr(c + 1, ',')) {
        if (c[-1] == '\\') continue;
        const char *next = strchr(c + 1, ','), *equals = strchr(c + 1, '=');
        if (equals && (!next || equals < next)) return c;
    }
    return NULL;
}

static void unescape(char *value)
{
    char *to = value;
    for (const char *from = value; *from; from++) {
        if (from[0] == '\\' && from[1] == ',') from++;
        *to++ = *from;
    }
    *to = '\0';
}

int parse_context(pool *p, const arg_list *texts, pados_context *context)
{
    size_t room = 0, count = 0;
    for (size_t i = 0; i < texts->count; i++)
        for (const char *c = texts->at[i]; *c; c++)
            room += *c == '=';
    pados_pair *pairs = pool_take(p, room, sizeof *pairs);
    for (size_t i = 0; i < texts->count; i++) {
        const char *text = texts->at[i];
        while (text) {
            const char *end = end_of_pair(text), *equals = strchr(text, '=');
            if (!equals || equals == text || (end && equals > end))
                return usage_error("--context: \"%s\" is not KEY=VALUE[,KEY=VALUE...]", texts->at[i]);
            size_t length = end ? (size_t)(end - equals - 1) : strlen(equals + 1);
            char *value = pool_text(p, equals + 1, length);
            unescape(value);
            pairs[count++] = (pados_pair){pool_text(p, text, (size_t)(equals - text)), value};
            text = end ? end + 1 : NULL;
        }
    }
    *context = (pados_context){pairs, count};
    return 0;
}

typedef struct header {
    char **keys;
    size_t count;
} header;

static pados_context context_of_line(pool *p, const header *h, char **cells, size_t count,
                                     const pados_context *base)
{
    pados_pair *pairs = pool_take(p, h->count + base->count, sizeof *pairs);
    size_t used = 0;
    for (size_t c = 0; c < count && c < h->count; c++)
        if (*cells[c]) pairs[used++] = (pados_pair){h->keys[c], pool_text(p, cells[c], strlen(cells[c]))};
    size_t own = used;
    for (size_t b = 0; b < base->count; b++) {
        bool there = false;
        for (size_t i = 0; i < own; i++)
            there |= strcmp(pairs[i].key, base->pairs[b].key) == 0;
        if (!there) pairs[used++] = base->pairs[b];
    }
    return (pados_context){pairs, used};
}

static pd_status read_lines(pool *p, pd_csv *csv, const pados_context *base, pados_context **contexts,
                            size_t *count, pd_error *error)
{
    char **cells;
    size_t n, room = 0;
    pd_status status = pd_csv_next(csv, &cells, &n, error);
    if (status) return status;
    header h = {.keys = pool_take(p, n, sizeof(char *)), .count = n};
    for (size_t c = 0; c < n; c++)
        h.keys[c] = pool_text(p, cells[c], strlen(cells[c]));
    pados_context *all = NULL;
    *count = 0;
    while ((status = pd_csv_next(csv, &cells, &n, error)) == PD_OK && n) {
        if (n != h.count) {
            status = pd_fail(error, PD_INVALID_ARGUMENT, "%s:%llu: %zu cells under %zu keys",
                             pd_csv_name(csv), (unsigned long long)pd_csv_line(csv), n, h.count);
            break;
        }
        if (*count == room) {
            room = room ? 2 * room : 256;
            all = must(realloc(all, room * sizeof *all));
        }
        all[(*count)++] = context_of_line(p, &h, cells, n, base);
    }
    *contexts = pool_take(p, *count, sizeof **contexts);
    if (*count) memcpy(*contexts, all, *count * sizeof *all);
    free(all);
    return status;
}

int read_contexts(pool *p, const char *path, const pados_context *base, pados_context **contexts,
                  size_t *count)
{
    pd_error error;
    pd_csv *csv;
    if (pd_csv_open(path, &csv, &error)) return complain_here(&error);
    pd_status status = read_lines(p, csv, base, contexts, count, &error);
    pd_csv_close(csv);
    if (!status && !*count)
        status = pd_fail(&error, PD_INVALID_ARGUMENT, "%s: there is no line of contexts in it", path);
    return status ? complain_here(&error) : 0;
}
