/* libconfig, read strictly.
 *
 * libconfig itself passes over unknown keys, wraps integers over 31 bits and follows @include. Here every key must be
 * asked for: what nobody asked for is an error, with file, line and key. Integers that do not fit, a float where an
 * integer belongs, a key given twice and any @include are refused. A number written as an integer is accepted where a
 * float is wanted.
 *
 * The reader keeps the first error; getters after it do nothing and return their default, so that a caller may read
 * everything and look once, at pd_conf_finish().
 */
#ifndef PD_CONF_H
#define PD_CONF_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct pd_conf pd_conf;
typedef struct config_setting_t
    pd_setting; /* libconfig's own, opaque here: a group or list inside the file */

/* name is for messages. Freed with pd_conf_close. */
pd_status pd_conf_parse(const char *name, const char *text, size_t length, pd_conf **out, pd_error *err);
pd_status pd_conf_load(const char *path, pd_conf **out, pd_error *err); /* at most 4 MiB */
void pd_conf_close(pd_conf *conf);                                      /* NULL is allowed */

/* Sets a key from the command line: "key.path=value", value in libconfig's syntax; a bare word is a string. */
pd_status pd_conf_set(pd_conf *conf, const char *assignment, pd_error *err);

pd_setting *pd_conf_root(pd_conf *conf);
/* The group or list under key, NULL when it is not there (or is something else, which is an error). */
pd_setting *pd_conf_group(pd_conf *conf, pd_setting *in, const char *key);
pd_setting *pd_conf_list(pd_conf *conf, pd_setting *in, const char *key); /* list ( ) or array [ ] */
int pd_conf_length(const pd_setting *list);
pd_setting *pd_conf_at(pd_conf *conf, pd_setting *list, int i); /* also the i-th setting of a group */
/* Whatever stands under key, NULL when nothing does. */
pd_setting *pd_conf_get(pd_conf *conf, pd_setting *in, const char *key);
const char *pd_conf_name(const pd_setting *setting); /* NULL: an element of a list, or the root */
unsigned pd_conf_line(const pd_setting *setting);    /* from 1; 0: set on the command line, or the root */

/* Scalars by key; the default is returned where the key is absent. required: absence is an error. low and high are
 * inclusive. Strings live as long as the conf. */
int pd_conf_has(pd_conf *conf, pd_setting *in, const char *key); /* also counts as asking for it */
int64_t pd_conf_int(pd_conf *conf, pd_setting *in, const char *key, int64_t fallback, int64_t low,
                    int64_t high);
double pd_conf_float(pd_conf *conf, pd_setting *in, const char *key, double fallback, double low,
                     double high);
int pd_conf_bool(pd_conf *conf, pd_setting *in, const char *key, int fallback);
const char *pd_conf_string(pd_conf *conf, pd_setting *in, const char *key, const char *fallback);
const char *pd_conf_need_string(pd_conf *conf, pd_setting *in, const char *key);
/* Elements of a list. */
int pd_conf_is_string(const pd_setting *setting);
int pd_conf_is_number(const pd_setting *setting);
int pd_conf_is_group(const pd_setting *setting);
int pd_conf_is_list(const pd_setting *setting);
const char *pd_conf_as_string(pd_conf *conf, pd_setting *setting);
double pd_conf_as_float(pd_conf *conf, pd_setting *setting);
uint64_t pd_conf_as_u64(pd_conf *conf, pd_setting *setting); /* not negative; 64-bit wants the L suffix */

/* Records an error at a setting: "FILE:LINE: key "a.b": MESSAGE". */
void pd_conf_fail(pd_conf *conf, const pd_setting *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int pd_conf_failed(const pd_conf *conf);
/* The first error of all, else INVALID_ARGUMENT for the first key that nobody asked for, else PD_OK. */
pd_status pd_conf_finish(pd_conf *conf, pd_error *err);

#endif
