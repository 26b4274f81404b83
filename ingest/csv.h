/* CSV as RFC 4180 has it (quotes, doubled quotes, CRLF), read in one pass with the line number at hand for errors. */
#ifndef PD_CSV_H
#define PD_CSV_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct pd_csv pd_csv;

/* Opens path and reads nothing yet. NOT_FOUND when it is not there. Freed with pd_csv_close. */
pd_status pd_csv_open(const char *path, pd_csv **out, pd_error *err);
/* The same over bytes in memory, which must outlive the reader; name is for messages. */
pd_status pd_csv_from_memory(const char *name, const char *bytes, size_t length, pd_csv **out, pd_error *err);

/* The next record. cells: [*count] NUL-terminated strings, valid until the next call. *count is 0 at the end. Blank
 * lines are passed over. INVALID_ARGUMENT naming file and line: a quote that never closes, a NUL byte, more than 4,096
 * cells, a record of over 1 MiB, bytes that are not UTF-8. */
pd_status pd_csv_next(pd_csv *csv, char ***cells, size_t *count, pd_error *err);
uint64_t pd_csv_line(const pd_csv *csv); /* of the record last returned, from 1 */
const char *pd_csv_name(const pd_csv *csv);
void pd_csv_close(pd_csv *csv);

#endif
