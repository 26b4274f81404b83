/* libconfig, read strictly: parsing, getters, and the search for what nobody asked for.
 *
 * Each setting that a getter returns is marked through libconfig's own hook pointer; pd_conf_finish() walks the tree in
 * the order of the file and names the first setting without a mark. Keys that were asked for in vain are kept, so that
 * "pices" can be answered with "price". The text is looked at by conf_scan.c before libconfig sees it; libconfig parses
 * in the C locale whatever the process has, since it reads numbers with the locale's decimal point.
 */
#include "conf.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf_impl.h"
#include "utf8.h"

/* ------------------------------------------------------------------------------------------------- parsing --- */

pd_status pd_conf_read(const char *name, const char *text, size_t length, config_t *config, pd_error *err)
{
    pd_status status = pd_conf_scan(name, text, length, err);
    if (status != PD_OK) return status;
    char *copy = malloc(length + 1);
    if (!copy) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for %zu bytes", name, length);
    if (length) memcpy(copy, text, length);
    copy[length] = 0;
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) {
        free(copy);
        return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory for a locale", name);
    }
    locale_t before = uselocale(plain);
    int parsed = config_read_string(config, copy);
    uselocale(before);
    freelocale(plain);
    free(copy);
    if (parsed) return PD_OK;
    const char *why = config_error_text(config);
    return pd_fail(err, PD_INVALID_ARGUMENT, "%s:%d: %s", name, config_error_line(config),
                   why ? why : "syntax error");
}

pd_status pd_conf_parse(const char *name, const char *text, size_t length, pd_conf **out, pd_error *err)
{
    *out = NULL;
    pd_conf *conf = calloc(1, sizeof *conf);
    if (!conf) return pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", name);
    config_init(&conf->config);
    pd_status status;
    conf->name = strdup(name);
    if (!conf->name) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", name);
        goto err_after_init;
    }
    status = pd_conf_read(name, text, length, &conf->config, err);
    if (status != PD_OK) goto err_after_init;
    *out = conf;
    return PD_OK;

err_after_init:
    pd_conf_close(conf);
    return status;
}

pd_status pd_conf_load(const char *path, pd_conf **out, pd_error *err)
{
    *out = NULL;
    FILE *file = fopen(path, "rb");
    if (!file)
        return pd_fail(err,
                       errno == ENOENT   ? PD_NOT_FOUND
                       : errno == EACCES ? PD_PERMISSION_DENIED
                                         : PD_UNKNOWN,
                       "%s: %s", path, strerror(errno));
    pd_status status;
    char *text = malloc(PD_CONF_MAX_BYTES + 1);
    if (!text) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", path);
        goto err_after_open;
    }
    size_t length = fread(text, 1, PD_CONF_MAX_BYTES + 1, file);
    if (ferror(file)) {
        status = pd_fail(err, PD_UNKNOWN, "%s: cannot be read: %s", path, strerror(errno));
        goto err_after_text;
    }
    status = pd_conf_parse(path, text, length, out, err);

err_after_text:
    free(text);
err_after_open:
    fclose(file);
    return status;
}

void pd_conf_close(pd_conf *conf)
{
    if (!conf) return;
    config_destroy(&conf->config);
    free(conf->name);
    free(conf);
}

/* -------------------------------------------------------------------------------------------------- errors --- */

/* "table.attributes[2].name". Cut, never overrun. */
static void path_of(const pd_setting *setting, char *path, size_t room)
{
    const pd_setting *chain[PD_CONF_MAX_DEPTH + 2];
    int n = 0;
    for (const pd_setting *s = setting; s && s->parent && n < PD_CONF_MAX_DEPTH + 2; s = s->parent)
        chain[n++] = s;
    size_t used = 0;
    path[0] = 0;
    while (n-- > 0 && used < room) {
        const pd_setting *s = chain[n];
        int wrote = s->name ? snprintf(path + used, room - used, "%s%s", used ? "." : "", s->name)
                            : snprintf(path + used, room - used, "[%d]", config_setting_index(s));
        if (wrote > 0) used += (size_t)wrote;
    }
}

static void record(pd_conf *conf, const pd_setting *at, const char *path, const char *what)
{
    if (conf->failed) return;
    conf->failed = 1;
    if (at && at->parent && at->line == 0)
        pd_fail(&conf->error, PD_INVALID_ARGUMENT, "--set: key \"%s\": %s", path, what);
    else if (path[0])
        pd_fail(&conf->error, PD_INVALID_ARGUMENT, "%s:%u: key \"%s\": %s", conf->name,
                at && at->line ? at->line : 1, path, what);
    else
        pd_fail(&conf->error, PD_INVALID_ARGUMENT, "%s:1: %s", conf->name, what);
}

void pd_conf_fail(pd_conf *conf, const pd_setting *at, const char *format, ...)
{
    if (conf->failed) return;
    char what[384], path[256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    path_of(at, path, sizeof path);
    record(conf, at, path, what);
}

int pd_conf_failed(const pd_conf *conf)
{
    return conf->failed;
}

/* An error at a key that is not there: the line is its group's. */
static void fail_missing(pd_conf *conf, const pd_setting *in, const char *key)
{
    char path[256];
    path_of(in, path, sizeof path);
    size_t used = strlen(path);
    snprintf(path + used, sizeof path - used, "%s%s", used ? "." : "", key);
    record(conf, in, path, "is missing");
}

/* ------------------------------------------------------------------------------------------------- walking --- */

/* Names what is alike in every element of a list by the list's name. */
static const char *kind_of(const pd_setting *group)
{
    while (group && group->parent && !group->name)
        group = group->parent;
    return group && group->name ? group->name : "";
}

static void remember_absent(pd_conf *conf, const pd_setting *in, const char *key)
{
    const char *parent = kind_of(in);
    if (strlen(key) >= sizeof conf->absent[0].key) return;
    for (unsigned i = 0; i < conf->nabsent; i++)
        if (!strcmp(conf->absent[i].parent, parent) && !strcmp(conf->absent[i].key, key)) return;
    if (conf->nabsent == sizeof conf->absent / sizeof conf->absent[0]) return;
    pd_conf_absent *absent = &conf->absent[conf->nabsent++];
    absent->parent = parent;
    strcpy(absent->key, key);
}

static void mark(pd_conf *conf, pd_setting *setting)
{
    config_setting_set_hook(setting, conf);
}

pd_setting *pd_conf_root(pd_conf *conf)
{
    return config_root_setting(&conf->config);
}

pd_setting *pd_conf_get(pd_conf *conf, pd_setting *in, const char *key)
{
    if (conf->failed || !in || !config_setting_is_group(in)) return NULL;
    pd_setting *setting = config_setting_get_member(in, key);
    if (setting)
        mark(conf, setting);
    else
        remember_absent(conf, in, key);
    return setting;
}

pd_setting *pd_conf_group(pd_conf *conf, pd_setting *in, const char *key)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting || pd_conf_is_group(setting)) return setting;
    pd_conf_fail(conf, setting, "must be a group { }");
    return NULL;
}

pd_setting *pd_conf_list(pd_conf *conf, pd_setting *in, const char *key)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting || pd_conf_is_list(setting)) return setting;
    pd_conf_fail(conf, setting, "must be a list ( )");
    return NULL;
}

int pd_conf_length(const pd_setting *list)
{
    return list && config_setting_is_aggregate(list) ? config_setting_length(list) : 0;
}

pd_setting *pd_conf_at(pd_conf *conf, pd_setting *list, int i)
{
    if (conf->failed || i < 0 || i >= pd_conf_length(list)) return NULL;
    pd_setting *setting = config_setting_get_elem(list, (unsigned)i);
    if (setting) mark(conf, setting);
    return setting;
}

int pd_conf_has(pd_conf *conf, pd_setting *in, const char *key)
{
    return pd_conf_get(conf, in, key) != NULL;
}

const char *pd_conf_name(const pd_setting *setting)
{
    return setting ? setting->name : NULL;
}

unsigned pd_conf_line(const pd_setting *setting)
{
    return setting ? setting->line : 0;
}

int pd_conf_is_string(const pd_setting *setting)
{
    return setting && setting->type == CONFIG_TYPE_STRING;
}

int pd_conf_is_number(const pd_setting *setting)
{
    return setting && config_setting_is_number(setting);
}

int pd_conf_is_group(const pd_setting *setting)
{
    return setting && config_setting_is_group(setting);
}

int pd_conf_is_list(const pd_setting *setting)
{
    return setting && (config_setting_is_list(setting) || config_setting_is_array(setting));
}

/* ------------------------------------------------------------------------------------------------- scalars --- */

static int whole_number(const pd_setting *setting, int64_t *value)
{
    if (setting->type == CONFIG_TYPE_INT)
        *value = setting->value.ival;
    else if (setting->type == CONFIG_TYPE_INT64)
        *value = setting->value.llval;
    else
        return 0;
    return 1;
}

int64_t pd_conf_int(pd_conf *conf, pd_setting *in, const char *key, int64_t fallback, int64_t low,
                    int64_t high)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting) return fallback;
    int64_t value;
    if (!whole_number(setting, &value)) {
        pd_conf_fail(conf, setting, "must be an integer");
        return fallback;
    }
    if (value < low || value > high) {
        pd_conf_fail(conf, setting, "must be from %lld to %lld, not %lld", (long long)low, (long long)high,
                     (long long)value);
        return fallback;
    }
    return value;
}

double pd_conf_as_float(pd_conf *conf, pd_setting *setting)
{
    if (conf->failed || !setting) return 0;
    mark(conf, setting);
    int64_t whole;
    if (whole_number(setting, &whole)) return (double)whole;
    if (setting->type != CONFIG_TYPE_FLOAT) {
        pd_conf_fail(conf, setting, "must be a number");
        return 0;
    }
    if (!isfinite(setting->value.fval)) {
        pd_conf_fail(conf, setting, "must be a finite number");
        return 0;
    }
    return setting->value.fval;
}

double pd_conf_float(pd_conf *conf, pd_setting *in, const char *key, double fallback, double low, double high)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting) return fallback;
    double value = pd_conf_as_float(conf, setting);
    if (conf->failed) return fallback;
    if (value < low || value > high) {
        pd_conf_fail(conf, setting, "must be from %g to %g, not %g", low, high, value);
        return fallback;
    }
    return value;
}

int pd_conf_bool(pd_conf *conf, pd_setting *in, const char *key, int fallback)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (!setting) return fallback;
    if (setting->type == CONFIG_TYPE_BOOL) return setting->value.ival != 0;
    pd_conf_fail(conf, setting, "must be true or false");
    return fallback;
}

const char *pd_conf_as_string(pd_conf *conf, pd_setting *setting)
{
    if (conf->failed || !setting) return "";
    mark(conf, setting);
    if (!pd_conf_is_string(setting)) {
        pd_conf_fail(conf, setting, "must be a string");
        return "";
    }
    const char *text = setting->value.sval ? setting->value.sval : "";
    if (!pd_utf8_valid(text, strlen(text))) { /* the text was, but an escape such as \xff need not be */
        pd_conf_fail(conf, setting, "is not UTF-8");
        return "";
    }
    return text;
}

const char *pd_conf_string(pd_conf *conf, pd_setting *in, const char *key, const char *fallback)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    return setting ? pd_conf_as_string(conf, setting) : fallback;
}

const char *pd_conf_need_string(pd_conf *conf, pd_setting *in, const char *key)
{
    pd_setting *setting = pd_conf_get(conf, in, key);
    if (setting) return pd_conf_as_string(conf, setting);
    if (!conf->failed) fail_missing(conf, in, key);
    return "";
}

uint64_t pd_conf_as_u64(pd_conf *conf, pd_setting *setting)
{
    if (conf->failed || !setting) return 0;
    mark(conf, setting);
    int64_t value;
    if (!whole_number(setting, &value)) {
        pd_conf_fail(conf, setting, "must be an integer");
        return 0;
    }
    if (value < 0) {
        pd_conf_fail(conf, setting, "must not be negative");
        return 0;
    }
    return (uint64_t)value;
}

/* ------------------------------------------------------------------------------------------------ the rest --- */

/* Levenshtein distance of two short names, capped at 3: beyond that nobody meant it. */
static int distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    int row[40];
    if (n >= 40 || m >= 40 || (n > m ? n - m : m - n) > 2) return 3;
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m] < 3 ? row[m] : 3;
}

static const char *meant(const pd_conf *conf, const pd_setting *unknown)
{
    const char *best = NULL, *parent = kind_of(unknown->parent);
    int least = 3;
    for (unsigned i = 0; i < conf->nabsent; i++) {
        if (strcmp(conf->absent[i].parent, parent) != 0) continue;
        int d = distance(unknown->name, conf->absent[i].key);
        if (d < least && (size_t)d < strlen(conf->absent[i].key)) {
            least = d;
            best = conf->absent[i].key;
        }
    }
    return best;
}

/* The first setting without a mark, in the order of the file. The depth is bounded by the scan. */
static const pd_setting *first_unasked(const pd_setting *in)
{
    int n = pd_conf_length(in);
    for (int i = 0; i < n; i++) {
        const pd_setting *setting = config_setting_get_elem(in, (unsigned)i);
        if (!config_setting_get_hook(setting)) return setting;
        const pd_setting *inside = first_unasked(setting);
        if (inside) return inside;
    }
    return NULL;
}

pd_status pd_conf_finish(pd_conf *conf, pd_error *err)
{
    if (!conf->failed) {
        const pd_setting *unknown = first_unasked(pd_conf_root(conf));
        if (unknown) {
            char path[256], where[320];
            const char *hint = unknown->name ? meant(conf, unknown) : NULL;
            path_of(unknown, path, sizeof path);
            if (unknown->line)
                snprintf(where, sizeof where, "%s:%u", conf->name, unknown->line);
            else
                snprintf(where, sizeof where, "--set");
            conf->failed = 1;
            pd_fail(&conf->error, PD_INVALID_ARGUMENT, "%s: unknown key \"%s\"%s%s%s", where, path,
                    hint ? " (did you mean \"" : "", hint ? hint : "", hint ? "\"?)" : "");
        }
    }
    if (!conf->failed) return PD_OK;
    if (err) *err = conf->error;
    return conf->error.status;
}
