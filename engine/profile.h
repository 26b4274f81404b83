/* Profiles: named, versioned sets of context weights, and what they compile to.
 *
 * A profile is libconfig text (DESIGN section 7 shows one). Compiling it with a request's context gives a pd_compiled:
 * one weight table, the boosted keys, one filter, the diversity caps. That is all the kernels ever see.
 */
#ifndef PD_PROFILE_H
#define PD_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "schema.h"
#include "status.h"

typedef struct pd_profile pd_profile;

/* Parses and checks all that needs no schema. An @include is refused before parsing. Errors name file, line, key.
 * Reference counted: starts at 1. */
pd_status pd_profile_parse(const char *name, const char *text, size_t length, pd_profile **out,
                           pd_error *err);
pd_profile *pd_profile_hold(pd_profile *profile);
void pd_profile_release(pd_profile *profile); /* NULL is allowed */
const char *pd_profile_name(const pd_profile *profile);
const char *pd_profile_table(const pd_profile *profile);
const char *pd_profile_text(const pd_profile *profile); /* as it was pushed */
uint64_t pd_profile_version(const pd_profile *profile);
void pd_profile_set_version(pd_profile *profile, uint64_t version); /* before it is shared */

/* Does it fit the table? INVALID_ARGUMENT naming the attribute or value: unknown attribute, a curve on a category, a
 * value that the table's dictionary does not have (an unknown value of a dictionary that can still grow is a warning,
 * see pd_compiled), similarity under 0. */
pd_status pd_profile_check(const pd_profile *profile, const pd_schema *schema, pd_error *err);

/* What the profile says in vain so far: values in weights that an open dictionary does not have. A sentence each. */
void pd_profile_doubts(const pd_profile *profile, const pd_schema *schema,
                       void (*visit)(void *context, const char *sentence), void *context);

/* What a request says besides its vector. Strings are borrowed for the call. */
typedef struct pd_context {
    uint32_t count;
    const char *const *keys;
    const char *const *values;
} pd_context;
typedef struct pd_override {
    const char *attribute; /* "similarity" overrides a */
    const char
        *value; /* category value, set member or key; a number attribute: NULL, scales its whole curve */
    float weight;
} pd_override;
typedef enum pd_condition_kind {
    PD_IS,
    PD_IS_NOT,
    PD_AT_LEAST,
    PD_AT_MOST,
    PD_ANY_OF,
    PD_ALL_OF,
    PD_NONE_OF,
} pd_condition_kind;
typedef struct pd_condition {
    const char *attribute;
    pd_condition_kind kind;
    uint32_t count; /* values; AT_LEAST and AT_MOST take one number */
    const char *const *values;
} pd_condition;
typedef struct pd_cap {
    const pd_attribute *attribute; /* category or key; unknown values are not capped */
    uint32_t at_most;
} pd_cap;

typedef struct pd_ask {
    const pd_context *context; /* NULL: none */
    const pd_override *overrides;
    uint32_t noverrides;
    const pd_condition *conditions; /* filters of the request, besides the profile's */
    uint32_t nconditions;
    const pd_cap *caps; /* replace the profile's where given */
    uint32_t ncaps;
    double now; /* days since 1970-01-01: ages and validity */
} pd_ask;

typedef struct pd_compiled {
    float similarity;
    float *weights; /* [layout.weights], NULL where all are zero */
    pd_key_weight *key_weights;
    uint32_t nkey_weights;
    pd_filter filter;
    int has_filter;
    pd_cap *caps;
    uint32_t ncaps;
    char **warnings; /* sentences for the reply */
    uint32_t nwarnings;
    void *memory; /* what the pointers above point into */
} pd_compiled;

/* profile NULL: no profile (similarity 1). out is filled; freed with pd_compiled_free. The schema must outlive it.
 * INVALID_ARGUMENT naming the thing: unknown attribute or value in an override or filter, a condition that does not fit
 * the type; under strict = true also a context key that the profile does not declare. */
pd_status pd_compile(const pd_schema *schema, const pd_layout *layout, const pd_profile *profile,
                     const pd_ask *ask, pd_compiled *out, pd_error *err);
void pd_compiled_free(pd_compiled *compiled);

/* One line of an explanation. */
typedef struct pd_term {
    const char *attribute;        /* "similarity" first */
    char value[PD_MAX_VALUE + 1]; /* the row's: a category's or members' names, a number, a key */
    float weight;
} pd_term;
/* Terms of one hit: similarity first (score less the rest), then one per attribute with a weight in the compiled
 * tables. bytes/floats/keys: the row's columns. terms: room for nattributes + 1; *count filled. Their sum (in double)
 * is the score to within 1e-5 * (1 + |score|). */
void pd_explain(const pd_schema *schema, const pd_layout *layout, const pd_compiled *compiled, float score,
                const uint8_t *bytes, const float *floats, const uint64_t *keys, pd_term *terms,
                uint32_t *count);
/* A row's value of one attribute, for people and replies ("" when unknown). text: [PD_MAX_VALUE * 8]. */
void pd_attribute_text(const pd_attribute *attribute, const uint8_t *bytes, const float *floats,
                       const uint64_t *keys, char *text, size_t room);

#endif
