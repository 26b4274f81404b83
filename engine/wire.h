/* Messages of the wire, decoded with care: what a few bytes of a hostile message unpack to is bounded before it is
 * allocated. */
#ifndef PD_WIRE_H
#define PD_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

struct Pados__V1__Request;
typedef struct pd_wire pd_wire; /* one decoded request and the memory it lies in */

/* Memory that a message of this length may take: 8 bytes for each of its own, and 1 MiB. */
uint64_t pd_wire_budget(size_t length);

/* INVALID_ARGUMENT: not a Request; RESOURCE_EXHAUSTED: it unpacks to more than its budget. Freed with pd_wire_free. */
pd_status pd_wire_decode(const uint8_t *bytes, size_t length, pd_wire **out, pd_error *err);
struct Pados__V1__Request *pd_wire_request(pd_wire *wire);
uint64_t pd_wire_held(const pd_wire *wire); /* bytes */
void pd_wire_free(pd_wire *wire);           /* NULL is allowed */

/* Makes text valid UTF-8 in place: what is not becomes '?'. protobuf readers of other languages refuse a string that is not
 * UTF-8, and messages quote what clients sent. */
void pd_utf8_clean(char *text);

/* "push_begin" and so on, of a Request's body; "nothing" when there is none. */
const char *pd_wire_body(const struct Pados__V1__Request *request);

#endif
