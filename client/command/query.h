/* search's arguments that have a syntax of their own, parsed. Every function returns 0 or an exit code, having said on
 * stderr which argument is wrong. What they make lives in a pool, which is freed at once. */
#ifndef QUERY_H
#define QUERY_H

#include "command.h"

typedef struct pool {
    void **at;
    size_t count, room;
} pool;
void *pool_take(pool *p, size_t count, size_t size); /* zeroed; never NULL */
char *pool_text(pool *p, const char *text, size_t length);
void pool_free(pool *p);

/* Cuts text at each separator; empty parts are kept. parts: [*count]. */
void split(pool *p, const char *text, char separator, char ***parts, size_t *count);

/* "7,8,9"; option is for the message. ids: [*count] */
int parse_ids(pool *p, const char *option, const char *text, uint64_t **ids, size_t *count);
/* "users:42,43" */
int parse_from(pool *p, const char *text, char **table, uint64_t **ids, size_t *count);
/* "17:1,23:-0.5" */
int parse_mix(pool *p, const char *text, pados_mix *mix);
/* "department=SWEETS:0.3", "similarity:0.5" */
int parse_weight(pool *p, const char *text, pados_override *weight);
/* "brand:3" */
int parse_cap(pool *p, const char *text, pados_cap *cap);
/* "price<=20", "zones any north|south" ... */
int parse_filter(pool *p, const char *text, pados_condition *filter);
/* "festival=diwali,zone=north": a comma starts a new pair only where KEY= follows, so that values may hold commas; \, is
 * always a comma of the value. The option may be repeated: one context of all pairs. */
int parse_context(pool *p, const arg_list *texts, pados_context *context);
/* A CSV whose header names the keys, a line for each query; an empty cell leaves its key out. base's pairs are added to
 * every line's, which win. */
int read_contexts(pool *p, const char *path, const pados_context *base, pados_context **contexts,
                  size_t *count);

#endif
