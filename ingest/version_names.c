/* Names that come while a version serves: a category's dictionary may grow. The arrays of names were made as large as they can
 * get (attribute.c), so that readers on other threads need no lock. */
#include <pthread.h>

#include "version_impl.h"

static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;

pd_status pd_version_name(pd_version *version, uint32_t number, const char *name, uint32_t *value,
                          pd_error *err)
{
    pd_attribute *attribute = &version->schema->attributes[number];
    int known = pd_attribute_value(attribute, name);
    if (known >= 0) {
        *value = (uint32_t)known;
        return PD_OK;
    }
    if (attribute->type == PD_SET)
        return pd_fail(err, PD_INVALID_ARGUMENT,
                       "attribute \"%s\" has no member \"%.80s\": members are declared with a push",
                       attribute->name, name);
    pthread_mutex_lock(&naming);
    pd_status status = pd_attribute_intern(attribute, name, value, err);
    pthread_mutex_unlock(&naming);
    return status;
}
