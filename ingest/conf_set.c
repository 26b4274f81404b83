/* Settings from the command line: --set key.path=value.
 *
 * The value is parsed by itself, as a setting of its own text, so that nothing in it can reach beyond its key; then it
 * is copied into the tree in place of what stood there. A value that is no number, no boolean and opens no string, list
 * or group is a bare word: a string as it stands. Settings made here have line 0, by which errors know to say "--set".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "conf_impl.h"

/* Copies source and what it holds under parent. 0: no memory, or the name is none. */
static int copy_setting(pd_setting *parent, const char *name, const pd_setting *source)
{
    pd_setting *made = config_setting_add(parent, name, source->type);
    if (!made) return 0;
    config_setting_set_format(made, config_setting_get_format(source));
    switch (source->type) {
    case CONFIG_TYPE_INT:
        return config_setting_set_int(made, source->value.ival);
    case CONFIG_TYPE_INT64:
        return config_setting_set_int64(made, source->value.llval);
    case CONFIG_TYPE_FLOAT:
        return config_setting_set_float(made, source->value.fval);
    case CONFIG_TYPE_BOOL:
        return config_setting_set_bool(made, source->value.ival);
    case CONFIG_TYPE_STRING:
        return config_setting_set_string(made, source->value.sval);
    default:
        break;
    }
    for (int i = 0; i < pd_conf_length(source); i++) {
        const pd_setting *element = config_setting_get_elem(source, (unsigned)i);
        if (!copy_setting(made, element->name, element)) return 0;
    }
    return 1;
}

/* Neither a boolean, a number as libconfig writes it, nor the start of a string, list or group. */
static int is_bare_word(const char *value)
{
    if (strchr("\"([{", value[0]) && value[0]) return 0;
    if (!strcasecmp(value, "true") || !strcasecmp(value, "false")) return 0;
    size_t n = strlen(value);
    while (n > 0 && value[n - 1] == 'L')
        n--;
    if (n == 0) return 1;
    if (!strncmp(value, "0x", 2) || !strncmp(value, "0X", 2))
        return strspn(value + 2, "0123456789abcdefABCDEF") + 2 != n;
    const char *digits = "0123456789", *at = value + (value[0] == '-' || value[0] == '+');
    size_t whole = strspn(at, digits), part = 0;
    at += whole;
    if (whole && at == value + n) return 0;
    if (*at == '.') {
        at++;
        part = strspn(at, digits);
        at += part;
    }
    if (whole + part == 0) return 1;
    if (*at == 'e' || *at == 'E') {
        at++;
        if (*at == '-' || *at == '+') at++;
        size_t exponent = strspn(at, digits);
        if (exponent == 0) return 1;
        at += exponent;
    }
    return *at != 0;
}

/* value as libconfig text: "v = VALUE". Freed by the caller. */
static char *value_text(const char *value)
{
    size_t length = strlen(value);
    char *text = malloc(2 * length + 16);
    if (!text) return NULL;
    if (!is_bare_word(value)) {
        sprintf(text, "v = %s\n;", value);
        return text;
    }
    char *to = text + sprintf(text, "v = \"");
    for (const char *from = value; *from; from++) {
        if (*from == '"' || *from == '\\') *to++ = '\\';
        *to++ = *from;
    }
    strcpy(to, "\";");
    return text;
}

/* The group that key's last name belongs to, made where it is not there. last: that name. */
static pd_status walk(pd_conf *conf, char *key, pd_setting **group, char **last, pd_error *err)
{
    pd_setting *in = config_root_setting(&conf->config);
    char *rest = key;
    for (char *dot = strchr(rest, '.'); dot; dot = strchr(rest, '.')) {
        *dot = 0;
        char *bracket = strchr(rest, '[');
        if (bracket) *bracket = 0;
        pd_setting *next = config_setting_get_member(in, rest);
        if (next && bracket) {
            char *end;
            unsigned long index = strtoul(bracket + 1, &end, 10);
            if (end == bracket + 1 || strcmp(end, "]") != 0 || !pd_conf_is_list(next) ||
                index >= (unsigned long)pd_conf_length(next))
                return pd_fail(err, PD_INVALID_ARGUMENT, "--set: \"%s[%s\" names no element of a list", rest,
                               bracket + 1);
            next = config_setting_get_elem(next, (unsigned)index);
        } else if (!next && !bracket) {
            next = config_setting_add(in, rest, CONFIG_TYPE_GROUP);
        }
        if (!next || !config_setting_is_group(next))
            return pd_fail(err, PD_INVALID_ARGUMENT, "--set: \"%s\" is not a group", rest);
        in = next;
        rest = dot + 1;
    }
    *group = in;
    *last = rest;
    return PD_OK;
}

pd_status pd_conf_set(pd_conf *conf, const char *assignment, pd_error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return pd_fail(err, PD_INVALID_ARGUMENT, "--set: \"%s\" is not key=value", assignment);
    pd_status status = PD_OK;
    char name[128];
    size_t shown = (size_t)(equals - assignment) < 100 ? (size_t)(equals - assignment) : 100;
    memcpy(name, "--set ", 6);
    memcpy(name + 6, assignment, shown);
    name[6 + shown] = '\0';
    config_t parsed;
    config_init(&parsed);
    char *key = strndup(assignment, (size_t)(equals - assignment));
    char *text = value_text(equals + 1);
    if (!key || !text) {
        status = pd_fail(err, PD_RESOURCE_EXHAUSTED, "%s: no memory", name);
        goto done;
    }
    status = pd_conf_read(name, text, strlen(text), &parsed, err);
    if (status != PD_OK) goto done;
    pd_setting *root = config_root_setting(&parsed);
    if (config_setting_length(root) != 1) {
        status = pd_fail(err, PD_INVALID_ARGUMENT, "%s: the value must be one value", name);
        goto done;
    }
    pd_setting *group = root;
    char *last = key;
    status = walk(conf, key, &group, &last, err);
    if (status != PD_OK) goto done;
    conf->nabsent = 0; /* they name settings that may be about to go */
    if (config_setting_get_member(group, last)) config_setting_remove(group, last);
    if (!copy_setting(group, last, config_setting_get_elem(root, 0)))
        status = pd_fail(err, PD_INVALID_ARGUMENT, "--set: \"%s\" cannot be a key", last);
done:
    free(text);
    free(key);
    config_destroy(&parsed);
    return status;
}
