/* The registry of profiles: profiles/NAME/vNNNNNNNN.conf as they were pushed, the newest of each name in memory. */
#ifndef PD_PROFILES_H
#define PD_PROFILES_H

#include <pthread.h>
#include <stdint.h>

#include "profile.h"
#include "status.h"

#define PD_PROFILE_TEXT (1u << 20) /* bytes of a profile's text */
#define PD_PROFILES_MAX 4096u      /* names */
#define PD_PROFILE_KEEP 16u        /* versions of one name on disk */

typedef struct pd_profiles {
    pd_profile **at; /* ascending by name; the newest version of each */
    uint32_t count, room;
    pthread_mutex_t writing; /* one put at a time: numbers and files */
} pd_profiles;

struct pd_catalog;

/* Start: learns the newest version of each name that parses; an older one serves where the newest does not, with a line in the
 * log. */
pd_status pd_profiles_open(struct pd_catalog *catalog, pd_error *err);
void pd_profiles_free(struct pd_catalog *catalog);

/* Parses, checks against the table's serving version where there is one, writes, then serves. A text that is the newest
 * version's already is that version again. file: for messages; "" or NULL: "profile". *out is held. */
pd_status pd_profiles_put(struct pd_catalog *catalog, const char *file, const char *text, pd_profile **out,
                          pd_error *err);
/* All of them, held; the caller releases each and frees the array. */
pd_status pd_profiles_all(struct pd_catalog *catalog, pd_profile ***all, uint32_t *count, pd_error *err);
/* The profiles of a table that do not fit its schema (any more): calls visit for each with why. */
void pd_profiles_misfits(struct pd_catalog *catalog, const char *table, const pd_schema *schema,
                         void (*visit)(void *context, const char *profile, const char *why), void *context);
/* "from" and "until" as the text has them, "" where it does not. [32] each. */
void pd_profile_validity(const pd_profile *profile, char *from, char *until);

#endif
