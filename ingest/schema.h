/* A table's schema: what its rows are, and how attributes map to the kernels' columns.
 *
 * Text form (libconfig, DESIGN of the project's files: docs/FILES.md):
 *
 *   table = { metric = "cosine"; dim = 64; index = "ivf" | "none"; code = "i8" | "f16" | "f32";
 *     refine = "f16" | "f32" | "i8" | "u8" | "none"; source = "f32" | "f16"; nlist = 0; queries = "households"; space = "cj64";
 *     order_by = "department"; policy = "double" | "drain"; keep = 3; consent = "consent";
 *     fallback = ( "given", "segment:age", "segment:income", "attributes" );
 *     attributes = ( { name = "department"; type = "category"; values = ( "GROCERY" ); },
 *                    { name = "price"; type = "number"; knots = ( 1.0, 2.0 ); },
 *                    { name = "added"; type = "number"; age = true; },
 *                    { name = "popularity"; type = "number"; feedback = { half_life_hours = 24.0; events = ( ("view", 0.1), ("cart", 1.0) ); }; },
 *                    { name = "zones"; type = "set"; }, { name = "brand"; type = "key"; } ); };
 *
 * A schema that was built into a version is complete: category values and set members in the order of their numbers,
 * knots chosen where none were given (chosen = true) or turned into days where ages were (ages_on = DAY), and each bucket's
 * representative. The same text holds both.
 * consent names the category whose value "no" keeps a row from being a query; an attribute "consent" of type category is it without
 * being named.
 * Defaults: metric cosine, index ivf, code i8, refine f16 (index = none: refine f16, no code; rows that come as i8 or u8: those), source f32, nlist 0 (the
 * engine chooses), keep: the server's.
 */
#ifndef PD_SCHEMA_H
#define PD_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "status.h"

#define PD_MAX_ATTRIBUTES 32
#define PD_MAX_KNOTS      63
#define PD_MAX_CATEGORIES 255
#define PD_MAX_MEMBERS    64
#define PD_KEEP_UNSAID    UINT32_MAX
#define PD_MAX_NAME       64  /* bytes of a table's, attribute's or profile's name: [A-Za-z_][A-Za-z0-9_-]* */
#define PD_MAX_VALUE      256 /* bytes of a category value or member name */
#define PD_MAX_EVENTS     32

typedef enum pd_attribute_type { PD_CATEGORY, PD_NUMBER, PD_SET, PD_KEY } pd_attribute_type;

/* What feedback of a name adds to a counter. */
typedef struct pd_event {
    char name[PD_MAX_VALUE + 1];
    double weight; /* finite, at least 0 */
} pd_event;

typedef struct pd_attribute {
    char name[PD_MAX_NAME + 1];
    pd_attribute_type type;
    /* number: bucket b (1..nknots + 1) holds knots[b - 2] <= v < knots[b - 1]; bucket 0 is unknown. age: values are
     * times, held as days since 1970-01-01 (a float column in days); knots are days too, once the schema is complete. */
    int age;
    uint32_t nknots;
    float knots[PD_MAX_KNOTS];
    int chosen; /* from the values of a version; the next version chooses its own */
    float
        ages_on; /* the day on which knots given as ages were turned into days; the next version's move on. 0: were not */
    float representatives[PD_MAX_KNOTS + 2]; /* [bucket], the mean of its values; [0] unused */
    /* A number that feedback counts: a sum of the events' weights, each halved in half_life. Not together with age. */
    int counts;
    double half_life; /* days, over 0 */
    uint32_t nevents; /* 0: an event of any name weighs 1 */
    pd_event *events;
    /* category: values[0] is "" (unknown), values[v] names value v. set: values[m] names member m. */
    uint32_t nvalues;
    char **values;
    int closed;      /* the values were declared: others are refused */
    uint16_t *slots; /* hash of values, kept by pd_attribute_intern; NULL: values are searched in turn */
    /* Where it lies in a page. */
    uint32_t byte_column;  /* category, number: one; set: the first of 8 */
    uint32_t float_column; /* number */
    uint32_t key_column;   /* key */
} pd_attribute;

typedef enum pd_policy { PD_POLICY_DOUBLE, PD_POLICY_DRAIN } pd_policy;
typedef enum pd_rung_kind { PD_RUNG_GIVEN, PD_RUNG_SEGMENT, PD_RUNG_ATTRIBUTES } pd_rung_kind;

typedef struct pd_schema {
    pd_metric metric;
    uint32_t dim; /* 0: taken from the data */
    int index;    /* 1: ivf, 0: none */
    pd_code code;
    uint32_t code_dim; /* dimensions of an i8 code; 0: as many as the build finds enough */
    pd_refine refine;
    int refine_said;  /* 0: the default, which rows that come as small whole numbers change to those */
    pd_refine source; /* of the source rows on disk */
    uint32_t nlist;   /* 0: the engine chooses */
    uint32_t keep;    /* old versions kept; PD_KEEP_UNSAID: as many as the server's configuration says */
    pd_policy policy;
    char queries[PD_MAX_NAME + 1]; /* table whose rows are the calibration's queries; "": none */
    char space[PD_MAX_NAME + 1]; /* "": none. Two tables that name different spaces cannot query each other */
    char order_by[PD_MAX_NAME + 1];
    char consent[PD_MAX_NAME + 1]; /* a category: a row where it is "no" is never a query; "": none */
    uint32_t nfallback;
    struct {
        pd_rung_kind kind;
        char attribute[PD_MAX_NAME + 1]; /* of a segment: a category of this table */
    } fallback[8];
    uint32_t nattributes;
    pd_attribute attributes[PD_MAX_ATTRIBUTES];
    uint32_t nbytes, nfloats, nkeys; /* columns in all */
} pd_schema;

/* name is for messages. out is freed with pd_schema_free. Errors name file, line and key. */
pd_status pd_schema_parse(const char *name, const char *text, size_t length, pd_schema **out, pd_error *err);
/* The plain schema of a table without attributes. */
pd_status pd_schema_default(pd_metric metric, uint32_t dim, pd_schema **out, pd_error *err);
pd_status pd_schema_copy(const pd_schema *schema, pd_schema **out, pd_error *err);
void pd_schema_free(pd_schema *schema); /* NULL is allowed */
/* The text form, complete with dictionaries; parses back to the same schema. Freed with free(). */
pd_status pd_schema_text(const pd_schema *schema, char **text, pd_error *err);

const pd_attribute *pd_schema_find(const pd_schema *schema,
                                   const char *attribute); /* NULL: none of that name */
/* How many values it has now: a version that serves may learn more. */
static inline uint32_t pd_attribute_values(const pd_attribute *attribute)
{
    return __atomic_load_n(&attribute->nvalues, __ATOMIC_ACQUIRE);
}
/* The number of a category value or set member, -1 when it has none. */
int pd_attribute_value(const pd_attribute *attribute, const char *name);
/* The same, given a number when it has none. RESOURCE_EXHAUSTED: 255 values or 64 members are taken;
 * INVALID_ARGUMENT: the values are closed, or the name is too long or not UTF-8. */
pd_status pd_attribute_intern(pd_attribute *attribute, const char *name, uint32_t *value, pd_error *err);
/* The bucket of a number: 0 for NaN, else 1..nknots + 1. */
uint8_t pd_attribute_bucket(const pd_attribute *attribute, float value);
/* A number cell: a decimal number (of a counter, not below 0), or (age) a date 2026-10-20, a time 2026-10-20T08:00:00Z or unix
 * seconds. */
pd_status pd_attribute_number(const pd_attribute *attribute, const char *cell, float *value, pd_error *err);

/* What an event adds to a counter. 0: the attribute declares its events, and this is none of them. */
int pd_attribute_event(const pd_attribute *attribute, const char *event, double *weight);

/* The kernels' shape of a complete schema. nlist as built. */
void pd_schema_shape(const pd_schema *schema, uint32_t nlist, pd_shape *shape);

const char *pd_metric_name(pd_metric metric);
const char *pd_refine_name(pd_refine refine); /* "f16", "none" ... */
pd_status pd_refine_parse(const char *name, pd_refine *refine, pd_error *err);
pd_status pd_metric_parse(const char *name, pd_metric *metric, pd_error *err);
/* Table, attribute and profile names. */
pd_status pd_name_check(const char *what, const char *name, pd_error *err);

/* Today as days since 1970-01-01, with the fraction. */
double pd_days_now(void);
/* A date or time as pd_attribute_number takes it, to days. 0: not one. */
int pd_days_parse(const char *text, double *days);

#endif
