/* A profile as parsed, for those who check and compile it. Everything points into the profile's arena. */
#ifndef PD_PROFILE_IMPL_H
#define PD_PROFILE_IMPL_H

#include <stdatomic.h>

#include "arena.h"
#include "profile.h"

#define PD_MAX_CONTEXT    64    /* keys of a context, declared or given */
#define PD_MAX_TERMS      1024  /* of a profile */
#define PD_MAX_FILTERS    256   /* of a profile */
#define PD_MAX_CAPS       8     /* of a profile or a request */
#define PD_MAX_ASKED      1024  /* overrides of a request; conditions of a request */
#define PD_MAX_KEY_VALUES 65536 /* weights of a profile; key weights and key values of a compiled request */
#define PD_MAX_PARTS      1024  /* values joined by | in one value of a context */
#define PD_MAX_WEIGHT     1e9   /* so that no sum of weights leaves f32 */

/* One condition on the context: the key's value (one of several, where joined by |) is one of these. */
typedef struct pd_when {
    uint32_t key; /* in the profile's context */
    uint32_t count;
    const char **values;
} pd_when;

typedef struct pd_named_weight {
    const char *name; /* as written; NULL: written as an integer */
    uint64_t key;     /* the integer, or what name reads as; 0: it reads as none */
    float weight;
    uint32_t line, place; /* place: of the pair in its list */
} pd_named_weight;

typedef struct pd_point {
    double value, weight;
} pd_point;

typedef enum pd_term_kind { PD_TERM_WEIGHTS, PD_TERM_MATCHES, PD_TERM_CURVE } pd_term_kind;

typedef struct pd_profile_term {
    const char *attribute;
    pd_term_kind kind;
    uint32_t line;
    uint32_t nwhens, nweights, npoints;
    pd_when *whens;
    pd_named_weight *weights; /* by key ascending where all are integers */
    pd_point *points;         /* values rising */
    uint32_t match;           /* context key */
    float weight;             /* of a match */
} pd_profile_term;

/* A value of a condition. */
typedef struct pd_operand {
    enum { PD_OPERAND_TEXT, PD_OPERAND_NUMBER, PD_OPERAND_KEY, PD_OPERAND_CONTEXT } kind;
    const char *text;
    double number;
    uint64_t key;
    uint32_t context; /* key whose value stands here */
} pd_operand;

typedef struct pd_profile_filter {
    const char *attribute;
    pd_condition_kind kind;
    uint32_t line;
    uint32_t count;
    pd_operand *operands;
} pd_profile_filter;

typedef struct pd_profile_cap {
    const char *attribute;
    uint32_t at_most;
    uint32_t line;
} pd_profile_cap;

struct pd_profile {
    atomic_uint references;
    pd_arena arena;
    const char *file; /* for messages */
    const char *text;
    char name[PD_MAX_NAME + 1], table[PD_MAX_NAME + 1];
    uint64_t version;
    float similarity;
    int strict;
    uint32_t ncontext;
    const char *context[PD_MAX_CONTEXT];
    const char *from_text, *until_text; /* NULL: open */
    double from, until;                 /* days; valid in from <= now < until */
    uint32_t nterms, nfilters, ncaps;
    pd_profile_term *terms;
    pd_profile_filter *filters;
    pd_profile_cap caps[PD_MAX_CAPS];
};

extern const char *const pd_condition_names[]; /* "is", "is_not", ... by pd_condition_kind */

/* A row key: a decimal u64 over 0. 0: it is none. */
uint64_t pd_key_parse(const char *text, size_t length);

/* Can the term, the filter, the cap stand on this attribute? INVALID_ARGUMENT without file or line. attribute may be
 * NULL: there is none of that name. place: of the offending weight, UINT32_MAX where it is the term as a whole. */
pd_status pd_term_fits(const pd_profile_term *term, const pd_attribute *attribute, uint32_t *place,
                       pd_error *err);
pd_status pd_condition_fits(const char *name, const pd_attribute *attribute, pd_condition_kind kind,
                            pd_error *err);
pd_status pd_cap_fits(const char *name, const pd_attribute *attribute, pd_error *err);

/* Parsing, piece by piece; errors are kept by the conf. */
struct pd_conf;
void pd_profile_read(pd_profile *profile, struct pd_conf *conf);

/* ------------------------------------------------------------------------------------------- while compiling --- */

typedef struct pd_key_entry {
    uint32_t column, order;
    uint64_t value;
    float weight;
    int replaces; /* an override */
} pd_key_entry;

typedef struct pd_compile_work {
    const pd_schema *schema;
    const pd_layout *layout;
    const pd_profile *profile; /* NULL: none */
    const pd_ask *ask;
    pd_compiled *out;
    pd_error *err;
    pd_arena arena;
    const char *given[PD_MAX_CONTEXT]; /* values of the profile's context keys; NULL: not given, or empty */
    float *table;                      /* [layout.weights], NULL until something is weighed */
    float *members[PD_MAX_ATTRIBUTES]; /* of sets: [PD_MAX_MEMBERS], NULL until weighed */
    pd_key_entry *keys;
    uint32_t nkeys, room_keys;
    uint32_t nwarnings; /* given, kept or not */
} pd_compile_work;

/* A sentence for the reply; kept up to a bound, then counted. RESOURCE_EXHAUSTED: no memory. */
pd_status pd_warn(pd_compile_work *work, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The next value of several joined by |: 1, and *part with *length bytes; 0 at the end. Empty ones are passed over. */
int pd_next_part(const char **rest, const char **part, size_t *length);
/* The number of a category value or member as this version's columns hold it, -1 when they hold none. */
int pd_value_held(const pd_compile_work *work, const pd_attribute *attribute, const char *name,
                  size_t length);

pd_status pd_compile_no_memory(pd_compile_work *work);
/* Values that the weight table holds for a byte column. */
uint32_t pd_column_size(const pd_compile_work *work, uint32_t column);
/* The weight table's entries of one byte column. NULL: no memory. */
float *pd_column_entries(pd_compile_work *work, uint32_t column);
/* Where the weight of a category value or a set member is kept. NULL: no memory. */
float *pd_weight_slot(pd_compile_work *work, const pd_attribute *attribute, uint32_t value);
/* replaces: an override, else it adds to what is there. */
pd_status pd_add_key(pd_compile_work *work, const pd_attribute *attribute, uint64_t value, float weight,
                     int replaces);

/* The request's overrides, over the weights of the terms. */
pd_status pd_compile_overrides(pd_compile_work *work);
/* The profile's filters and the request's conditions, into out->filter. */
pd_status pd_compile_filter(pd_compile_work *work);

#endif
