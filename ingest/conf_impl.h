/* What conf.c, conf_scan.c and conf_set.c share. */
#ifndef PD_CONF_IMPL_H
#define PD_CONF_IMPL_H

#include <libconfig.h>

#include "conf.h"

#define PD_CONF_MAX_BYTES ((size_t)4 << 20)
#define PD_CONF_MAX_DEPTH 32     /* libconfig recurses when it frees, and so do we */
#define PD_CONF_MAX_KEYS  1024   /* of one group: libconfig compares a new key with all before it */
#define PD_CONF_MAX_ITEMS 524288 /* settings and elements in all: about 100 bytes of heap each */

/* A key that was asked for and was not there: what an unknown key may have been meant to be. */
typedef struct pd_conf_absent {
    const char *parent; /* name of the group (of the list, for its elements); "" at the root */
    char key[40];
} pd_conf_absent;

struct pd_conf {
    config_t config;
    char *name;
    int failed;
    pd_error error;
    pd_conf_absent absent[128]; /* a hint more or less does no harm: what does not fit is not kept */
    unsigned nabsent;
};

/* The look at the text before libconfig's: refuses what libconfig would follow, wrap or choke on. */
pd_status pd_conf_scan(const char *name, const char *text, size_t length, pd_error *err);
/* Parses into an initialised config, in the C locale. The config must be destroyed by the caller either way. */
pd_status pd_conf_read(const char *name, const char *text, size_t length, config_t *config, pd_error *err);

#endif
