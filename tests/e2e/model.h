/* What a table that changes must hold: versions as plain arrays of rows, and a look at a real one to compare with.
 *
 * A push begins a version with rows of its own; whatever is changed after it began changes every version that is kept, since that
 * is what publishing and rolling back bring to light. A rebuild is the serving version under another number.
 */
#ifndef E2E_MODEL_H
#define E2E_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "pados.h"

enum {
    MODEL_DIM = 8,
    MODEL_IDS = 400,     /* ids are 0 .. MODEL_IDS - 1 */
    MODEL_VERSIONS = 12, /* of a table, at once */
    MODEL_DEPTS = 9,     /* 0: unknown */
    MODEL_ZONES = 5,
    MODEL_TEXT = 96,
};

#define MODEL_HALF_LIFE_HOURS 1.0

typedef struct model_row {
    bool there;
    float vector[MODEL_DIM];
    float price; /* NaN: unknown */
    uint8_t dept;
    uint32_t zones;       /* a mask */
    uint64_t brand;       /* 0: unknown */
    double heat, heat_at; /* its worth at a moment, seconds; NaN: not known */
} model_row;

typedef struct model_version {
    uint64_t number, parent; /* parent: what it was rebuilt from; 0 */
    model_row rows[MODEL_IDS];
} model_version;

typedef struct model {
    model_version *versions[MODEL_VERSIONS]; /* by number; a push that has begun is the last */
    uint32_t count;
    uint64_t serving;
    uint64_t before[MODEL_VERSIONS]; /* the way back, nearest first */
    uint32_t nbefore;
} model;

/* What a hit of a search shows. */
typedef struct seen_row {
    uint64_t id;
    float score;
    float price;
    uint8_t dept;
    uint32_t zones;
    uint64_t brand;
    double heat;
} seen_row;

extern const char model_schema[];

double model_now(void); /* seconds */
model_version *model_serving(const model *m);
model_version *model_find(const model *m, uint64_t number);
/* A version without rows, the newest. Fails the test where there are too many. */
model_version *model_begin(model *m);
void model_forget(model *m, uint64_t number);
void model_free(model *m);

/* A switch under way was killed: counters may have been taken over, or not. */
void model_doubt_heat(model *m);
/* number serves from now on, and what served before is the nearest on the way back. back: a rollback to it. */
void model_serve(model *m, uint64_t number, bool back);
/* What a rollback goes to; 0: nowhere. */
uint64_t model_before(const model *m);
/* The serving version becomes number, rebuilt. */
void model_rebuilt(model *m, uint64_t number);

/* Changes, of every version. */
void model_upsert(model *m, uint64_t id, const model_row *row); /* its heat stays */
void model_delete(model *m, uint64_t id);
void model_count(model *m, uint64_t id, double weight); /* as the serving version counts */

const char *model_dept(uint8_t dept); /* "" unknown */
/* A set as a cell. text: [MODEL_TEXT] */
char *model_zones(uint32_t zones, char *text);

/* One condition, and whether a row passes it. */
typedef struct model_filter {
    pados_condition condition;
    char values[3][MODEL_TEXT];
    const char *pointers[3];
} model_filter;
bool model_passes(const model_row *row, const pados_condition *conditions, size_t count);

/* The hits of one query as rows. Freed by the caller. *count. */
seen_row *seen_rows(const pados_result *result, size_t *count);
/* All that passes, by an exact search or one of all lists; the error otherwise. at_least: 0 none. */
pados_status model_look(pados_client *client, const char *table, const float *query, bool exact,
                        const pados_condition *conditions, size_t nconditions, uint64_t at_least,
                        seen_row **rows, size_t *count, pados_error *error);
/* Compares what was seen with what should be; the first difference in why, [300]. true: none. */
bool model_agrees(const model *m, const float *query, bool exact, const pados_condition *conditions,
                  size_t nconditions, const seen_row *rows, size_t count, char *why);

/* Small random things: the state is the seed. */
uint64_t model_random(uint64_t *state);
static inline uint32_t model_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(model_random(state) % n);
}
void model_vector(uint64_t *state, float *out);
void model_row_random(uint64_t *state, model_row *out);

#endif
