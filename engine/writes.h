/* Changes on their way from the socket to the writer: upserts, updates, deletes and feedback.
 *
 * A request is checked and bound to the version that serves its table (rows encoded, lists assigned) by threads of its own, so that
 * neither the network nor administration waits for it; the writer logs and applies it and the reply goes out from its thread.
 */
#ifndef PD_WRITES_H
#define PD_WRITES_H

#include "server_impl.h"

pd_status pd_writes_open(pd_server *server, pd_write_desk **out, pd_error *err);
/* Binds and hands over what waits; nothing may be added any more. Before the writer stops. */
void pd_writes_drain(pd_write_desk *desk);
/* After the writer has stopped. NULL is allowed. */
void pd_writes_close(pd_write_desk *desk);

/* Answers the call in the end. wire is taken over. */
void pd_writes_take(pd_door *door, pd_call *call, pd_wire *wire, uint64_t born_ns);

/* Is the request's body one of these? */
int pd_writes_wants(const struct Pados__V1__Request *request);

#endif
