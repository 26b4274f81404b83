/* Status codes and the error that travels with them.
 *
 * Every function that can fail returns a pd_status and, where the caller passes one, fills a pd_error with one
 * sentence that names the thing: the row, the key, the file. Callers on the way out may put their own name in
 * front with pd_prefix(). The codes and their numbers are gRPC's canonical ones, so that a client in any
 * language knows what to do with them.
 */
#ifndef PD_STATUS_H
#define PD_STATUS_H

#include <stdarg.h>

#define PD_STATUS_LIST(X)                                                                                    \
    X(OK, 0)                                                                                                 \
    X(CANCELLED, 1)                                                                                          \
    X(UNKNOWN, 2)                                                                                            \
    X(INVALID_ARGUMENT, 3)                                                                                   \
    X(DEADLINE_EXCEEDED, 4)                                                                                  \
    X(NOT_FOUND, 5)                                                                                          \
    X(ALREADY_EXISTS, 6)                                                                                     \
    X(PERMISSION_DENIED, 7)                                                                                  \
    X(RESOURCE_EXHAUSTED, 8)                                                                                 \
    X(FAILED_PRECONDITION, 9)                                                                                \
    X(ABORTED, 10)                                                                                           \
    X(OUT_OF_RANGE, 11)                                                                                      \
    X(UNIMPLEMENTED, 12)                                                                                     \
    X(INTERNAL, 13)                                                                                          \
    X(UNAVAILABLE, 14)                                                                                       \
    X(DATA_LOSS, 15)                                                                                         \
    X(UNAUTHENTICATED, 16)

typedef enum pd_status {
#define PD_STATUS_ENUM(name, number) PD_##name = (number),
    PD_STATUS_LIST(PD_STATUS_ENUM)
#undef PD_STATUS_ENUM
} pd_status;

typedef struct pd_error {
    pd_status status;
    char message[480]; /* one sentence without a full stop; cut, never overrun, when it is too long */
} pd_error;

/* "INVALID_ARGUMENT" and so on; "UNKNOWN" for a number that is not a code. */
const char *pd_status_name(pd_status status);

/* Fills err (which may be NULL) and returns status, so that a failure is one statement:
 *     return pd_fail(err, PD_NOT_FOUND, "table \"%s\" does not exist", name); */
pd_status pd_fail(pd_error *err, pd_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
pd_status pd_vfail(pd_error *err, pd_status status, const char *format, va_list args);

/* Puts "PREFIX: " before the message in err and returns its status unchanged. */
pd_status pd_prefix(pd_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
