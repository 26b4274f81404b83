/* A profile's text, read. What needs no schema is checked here, where file, line and key are at hand: declared context
 * keys, one way to weigh a term, one condition a filter, finite weights, rising curves, dates.
 */
#include <math.h>
#include <string.h>

#include "conf.h"
#include "profile_impl.h"

uint64_t pd_key_parse(const char *text, size_t length)
{
    uint64_t value = 0;
    if (length == 0 || length > 20) return 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9') return 0;
        unsigned digit = (unsigned)(text[i] - '0');
        if (value > (UINT64_MAX - digit) / 10) return 0;
        value = value * 10 + digit;
    }
    return value;
}

static void *take(pd_profile *profile, pd_conf *conf, size_t count, size_t size)
{
    void *memory = pd_arena_take(&profile->arena, count * size);
    if (!memory) pd_conf_fail(conf, NULL, "no memory for a profile");
    return memory;
}

/* A string, copied. "" after an error. */
static const char *text_of(pd_profile *profile, pd_conf *conf, pd_setting *at)
{
    const char *text = pd_conf_as_string(conf, at);
    char *copy = pd_arena_text(&profile->arena, text, strlen(text));
    if (!copy) pd_conf_fail(conf, at, "no memory");
    return copy ? copy : "";
}

/* A name under a key that must be there. room: PD_MAX_NAME + 1. */
static void name_at(pd_conf *conf, pd_setting *in, const char *key, const char *what, char *name)
{
    pd_error error;
    const char *text = pd_conf_need_string(conf, in, key);
    if (pd_conf_failed(conf)) return;
    if (pd_name_check(what, text, &error) != PD_OK)
        pd_conf_fail(conf, pd_conf_get(conf, in, key), "%s", error.message);
    else
        strcpy(name, text);
}

static const char *attribute_at(pd_profile *profile, pd_conf *conf, pd_setting *in)
{
    char *name = take(profile, conf, PD_MAX_NAME + 1, 1);
    if (!name) return "";
    if (!pd_conf_is_group(in))
        pd_conf_fail(conf, in, "must be a group { }");
    else
        name_at(conf, in, "attribute", "attribute", name);
    return name;
}

static float weight_of(pd_conf *conf, pd_setting *at)
{
    double weight = pd_conf_as_float(conf, at);
    if (fabs(weight) > PD_MAX_WEIGHT)
        pd_conf_fail(conf, at, "a weight must be from %g to %g, not %g", -PD_MAX_WEIGHT, PD_MAX_WEIGHT,
                     weight);
    return (float)weight;
}

/* The number of a declared context key. */
static uint32_t context_key(const pd_profile *profile, pd_conf *conf, pd_setting *at, const char *name)
{
    for (uint32_t i = 0; i < profile->ncontext; i++)
        if (!strcmp(profile->context[i], name)) return i;
    pd_conf_fail(conf, at, "\"%.*s\" is not declared in context", PD_MAX_NAME, name);
    return 0;
}

/* --------------------------------------------------------------------------------------------------- terms --- */

static void read_when(pd_profile *profile, pd_conf *conf, pd_setting *at, pd_when *when)
{
    when->key = context_key(profile, conf, at, pd_conf_name(at));
    int list = pd_conf_is_list(at), n = list ? pd_conf_length(at) : 1;
    if (n == 0) pd_conf_fail(conf, at, "needs a value");
    when->values = take(profile, conf, (size_t)n, sizeof *when->values);
    when->count = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++) {
        pd_setting *value = list ? pd_conf_at(conf, at, i) : at;
        when->values[i] = text_of(profile, conf, value);
        if (!pd_conf_failed(conf) && (!when->values[i][0] || strchr(when->values[i], '|')))
            pd_conf_fail(conf, value,
                         "\"%.64s\" cannot be a context's value: | separates several, and an empty one "
                         "is not given",
                         when->values[i]);
    }
}

static void read_whens(pd_profile *profile, pd_conf *conf, pd_setting *in, pd_profile_term *term)
{
    pd_setting *group = pd_conf_group(conf, in, "when");
    int n = pd_conf_length(group);
    term->whens = take(profile, conf, (size_t)n, sizeof *term->whens);
    term->nwhens = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        read_when(profile, conf, pd_conf_at(conf, group, i), &term->whens[i]);
}

static pd_setting *pair_at(pd_conf *conf, pd_setting *list, int i)
{
    pd_setting *pair = pd_conf_at(conf, list, i);
    if (pair && (!pd_conf_is_list(pair) || pd_conf_length(pair) != 2))
        pd_conf_fail(conf, pair, "must be a pair ( VALUE, WEIGHT )");
    return pair;
}

static int by_key(const void *a, const void *b)
{
    const pd_named_weight *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

static void read_weights(pd_profile *profile, pd_conf *conf, pd_setting *list, pd_profile_term *term,
                         uint32_t *total)
{
    int n = pd_conf_length(list), integers = 0;
    *total += (uint32_t)n;
    if (*total > PD_MAX_KEY_VALUES) {
        pd_conf_fail(conf, list, "more than %d weights in one profile", PD_MAX_KEY_VALUES);
        return;
    }
    term->weights = take(profile, conf, (size_t)n, sizeof *term->weights);
    term->nweights = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++) {
        pd_setting *pair = pair_at(conf, list, i);
        pd_setting *value = pd_conf_at(conf, pair, 0);
        pd_named_weight *weight = &term->weights[i];
        if (pd_conf_is_string(value)) {
            weight->name = text_of(profile, conf, value);
            weight->key = pd_key_parse(weight->name, strlen(weight->name));
            if (!weight->name[0] && !pd_conf_failed(conf))
                pd_conf_fail(conf, value, "unknown values have no weight");
        } else {
            weight->key = pd_conf_as_u64(conf, value);
            integers++;
        }
        weight->weight = weight_of(conf, pd_conf_at(conf, pair, 1));
        weight->line = pd_conf_line(pair);
        weight->place = (uint32_t)i;
    }
    /* Ahead of time what each compilation would have to sort. */
    if (!pd_conf_failed(conf) && integers == n)
        qsort(term->weights, (size_t)n, sizeof *term->weights, by_key);
}

static void read_curve(pd_profile *profile, pd_conf *conf, pd_setting *list, pd_profile_term *term)
{
    int n = pd_conf_length(list);
    if (n < 1 || n > 1024) {
        pd_conf_fail(conf, list, "a curve has from 1 to 1024 points, not %d", n);
        return;
    }
    term->points = take(profile, conf, (size_t)n, sizeof *term->points);
    term->npoints = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++) {
        pd_setting *pair = pair_at(conf, list, i);
        pd_point *point = &term->points[i];
        point->value = pd_conf_as_float(conf, pd_conf_at(conf, pair, 0));
        point->weight = (double)weight_of(conf, pd_conf_at(conf, pair, 1));
        if (fabs(point->value) > 1e30)
            pd_conf_fail(conf, pair, "%g is too large", point->value);
        else if (i > 0 && point->value <= point[-1].value)
            pd_conf_fail(conf, pair, "a curve's values must rise: %g after %g", point->value,
                         point[-1].value);
    }
}

static void read_term(pd_profile *profile, pd_conf *conf, pd_setting *in, pd_profile_term *term,
                      uint32_t *total)
{
    term->line = pd_conf_line(in);
    term->attribute = attribute_at(profile, conf, in);
    if (pd_conf_failed(conf)) return;
    read_whens(profile, conf, in, term);
    pd_setting *weights = pd_conf_list(conf, in, "weights");
    pd_setting *matches = pd_conf_get(conf, in, "matches");
    pd_setting *curve = pd_conf_list(conf, in, "curve");
    if (pd_conf_failed(conf)) return;
    if ((weights != NULL) + (matches != NULL) + (curve != NULL) != 1) {
        pd_conf_fail(conf, in, "needs exactly one of weights, matches, curve");
    } else if (weights) {
        term->kind = PD_TERM_WEIGHTS;
        read_weights(profile, conf, weights, term, total);
    } else if (curve) {
        term->kind = PD_TERM_CURVE;
        read_curve(profile, conf, curve, term);
    } else {
        term->kind = PD_TERM_MATCHES;
        const char *key = pd_conf_as_string(conf, matches);
        if (!pd_conf_failed(conf)) term->match = context_key(profile, conf, matches, key);
        pd_setting *weight = pd_conf_get(conf, in, "weight");
        if (!weight) pd_conf_fail(conf, matches, "needs a weight beside it");
        term->weight = weight_of(conf, weight);
    }
}

static void read_terms(pd_profile *profile, pd_conf *conf, pd_setting *in)
{
    pd_setting *list = pd_conf_list(conf, in, "terms");
    int n = pd_conf_length(list);
    uint32_t total = 0;
    if (n > PD_MAX_TERMS) {
        pd_conf_fail(conf, list, "%d terms, more than %d", n, PD_MAX_TERMS);
        return;
    }
    profile->terms = take(profile, conf, (size_t)n, sizeof *profile->terms);
    profile->nterms = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        read_term(profile, conf, pd_conf_at(conf, list, i), &profile->terms[i], &total);
}

/* ------------------------------------------------------------------------------------------------- filters --- */

/* Text; "$key" for what the context says; "$$..." for text that begins with a dollar; a number for a range, else a key.
 */
static void read_operand(pd_profile *profile, pd_conf *conf, pd_setting *at, int range, pd_operand *operand)
{
    if (pd_conf_is_string(at)) {
        const char *text = text_of(profile, conf, at);
        int dollar = text[0] == '$';
        operand->kind = dollar && text[1] != '$' ? PD_OPERAND_CONTEXT : PD_OPERAND_TEXT;
        operand->text = text + dollar;
        if (operand->kind == PD_OPERAND_CONTEXT)
            operand->context = context_key(profile, conf, at, operand->text);
        else if (!text[0])
            pd_conf_fail(conf, at, "needs a value");
    } else if (range) {
        operand->kind = PD_OPERAND_NUMBER;
        operand->number = pd_conf_as_float(conf, at);
    } else {
        operand->kind = PD_OPERAND_KEY;
        operand->key = pd_conf_as_u64(conf, at);
        if (operand->key == 0) pd_conf_fail(conf, at, "the key 0 stands for unknown");
    }
}

static void read_operands(pd_profile *profile, pd_conf *conf, pd_setting *value, pd_profile_filter *filter)
{
    int range = filter->kind == PD_AT_LEAST || filter->kind == PD_AT_MOST;
    int list = !range && pd_conf_is_list(value), n = list ? pd_conf_length(value) : 1;
    if (n == 0 || n > PD_MAX_KEY_VALUES) {
        pd_conf_fail(conf, value, "needs from 1 to %d values", PD_MAX_KEY_VALUES);
        return;
    }
    filter->operands = take(profile, conf, (size_t)n, sizeof *filter->operands);
    filter->count = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        read_operand(profile, conf, list ? pd_conf_at(conf, value, i) : value, range, &filter->operands[i]);
}

static void read_filter(pd_profile *profile, pd_conf *conf, pd_setting *in, pd_profile_filter *filter)
{
    filter->line = pd_conf_line(in);
    filter->attribute = attribute_at(profile, conf, in);
    pd_setting *value = NULL;
    int found = 0;
    for (int kind = PD_IS; kind <= PD_NONE_OF; kind++) {
        pd_setting *here = pd_conf_get(conf, in, pd_condition_names[kind]);
        if (!here) continue;
        found++;
        value = here;
        filter->kind = (pd_condition_kind)kind;
    }
    if (found == 1)
        read_operands(profile, conf, value, filter);
    else
        pd_conf_fail(conf, in, "needs exactly one of is, is_not, at_least, at_most, any_of, all_of, none_of");
}

static void read_filters(pd_profile *profile, pd_conf *conf, pd_setting *in)
{
    pd_setting *list = pd_conf_list(conf, in, "filters");
    int n = pd_conf_length(list);
    if (n > PD_MAX_FILTERS) {
        pd_conf_fail(conf, list, "%d filters, more than %d", n, PD_MAX_FILTERS);
        return;
    }
    profile->filters = take(profile, conf, (size_t)n, sizeof *profile->filters);
    profile->nfilters = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++)
        read_filter(profile, conf, pd_conf_at(conf, list, i), &profile->filters[i]);
}

static void read_diversity(pd_profile *profile, pd_conf *conf, pd_setting *in)
{
    pd_setting *list = pd_conf_list(conf, in, "diversity");
    int n = pd_conf_length(list);
    if (n > PD_MAX_CAPS) {
        pd_conf_fail(conf, list, "%d caps, more than %d", n, PD_MAX_CAPS);
        return;
    }
    profile->ncaps = (uint32_t)n;
    for (int i = 0; i < n && !pd_conf_failed(conf); i++) {
        pd_setting *at = pd_conf_at(conf, list, i);
        pd_profile_cap *cap = &profile->caps[i];
        cap->line = pd_conf_line(at);
        cap->attribute = attribute_at(profile, conf, at);
        if (!pd_conf_failed(conf) && !pd_conf_has(conf, at, "at_most"))
            pd_conf_fail(conf, at, "needs an at_most");
        cap->at_most = (uint32_t)pd_conf_int(conf, at, "at_most", 1, 1, PD_MAX_K);
        for (int j = 0; j < i && !pd_conf_failed(conf); j++)
            if (!strcmp(profile->caps[j].attribute, cap->attribute))
                pd_conf_fail(conf, at, "a second cap on \"%s\"", cap->attribute);
    }
}

/* ---------------------------------------------------------------------------------------------- the header --- */

static void read_context(pd_profile *profile, pd_conf *conf, pd_setting *in)
{
    pd_setting *list = pd_conf_list(conf, in, "context");
    int n = pd_conf_length(list);
    if (n > PD_MAX_CONTEXT) {
        pd_conf_fail(conf, list, "%d keys, more than %d", n, PD_MAX_CONTEXT);
        return;
    }
    for (int i = 0; i < n && !pd_conf_failed(conf); i++) {
        pd_error error;
        pd_setting *at = pd_conf_at(conf, list, i);
        const char *key = text_of(profile, conf, at);
        if (!pd_conf_failed(conf) && pd_name_check("context key", key, &error) != PD_OK)
            pd_conf_fail(conf, at, "%s", error.message);
        for (int j = 0; j < i && !pd_conf_failed(conf); j++)
            if (!strcmp(profile->context[j], key)) pd_conf_fail(conf, at, "\"%s\" stands twice", key);
        profile->context[i] = key;
        profile->ncontext = (uint32_t)i + 1;
    }
}

/* A date or a time, to days; unix seconds would be taken for a year by those who read it. */
static const char *read_date(pd_profile *profile, pd_conf *conf, pd_setting *in, const char *key,
                             double *days)
{
    pd_setting *at = pd_conf_get(conf, in, key);
    if (!at) return NULL;
    const char *text = text_of(profile, conf, at);
    if (!pd_conf_failed(conf) && (strlen(text) < 10 || text[4] != '-' || !pd_days_parse(text, days)))
        pd_conf_fail(conf, at, "\"%.64s\" is not a date such as 2026-10-20", text);
    return text;
}

static void read_validity(pd_profile *profile, pd_conf *conf, pd_setting *in)
{
    profile->from = -INFINITY;
    profile->until = INFINITY;
    pd_setting *valid = pd_conf_group(conf, in, "valid");
    if (!valid) return;
    profile->from_text = read_date(profile, conf, valid, "from", &profile->from);
    profile->until_text = read_date(profile, conf, valid, "until", &profile->until);
    if (pd_conf_failed(conf)) return;
    /* until is part of it: the whole day, or that very moment. */
    if (profile->until_text)
        profile->until =
            strlen(profile->until_text) == 10 ? profile->until + 1 : nextafter(profile->until, INFINITY);
    if (profile->from >= profile->until) pd_conf_fail(conf, valid, "ends before it starts");
}

void pd_profile_read(pd_profile *profile, pd_conf *conf)
{
    pd_setting *root = pd_conf_root(conf), *in = pd_conf_group(conf, root, "profile");
    if (!in) {
        pd_conf_fail(conf, root, "there is no profile = { ... }");
        return;
    }
    name_at(conf, in, "name", "profile", profile->name);
    name_at(conf, in, "table", "table", profile->table);
    profile->similarity = (float)pd_conf_float(conf, in, "similarity", 1, 0, PD_MAX_WEIGHT);
    profile->strict = pd_conf_bool(conf, in, "strict", 0);
    read_context(profile, conf, in);
    read_validity(profile, conf, in);
    read_terms(profile, conf, in);
    read_filters(profile, conf, in);
    read_diversity(profile, conf, in);
}
