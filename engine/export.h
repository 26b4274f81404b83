/* All that is held about a row, as JSON for whoever asks what is stored of them. */
#ifndef PD_EXPORT_H
#define PD_EXPORT_H

#include "catalog_impl.h"

/* The row as it serves (attributes, vector of full precision), the kept versions whose files hold it, the changes in the log that
 * name it, and its erasures. *json: freed with free(). NOT_FOUND: nothing at all is held. */
pd_status pd_export_row(pd_catalog *catalog, const char *table, uint64_t id, char **json, pd_error *err);

#endif
