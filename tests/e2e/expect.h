/* Small words that the end-to-end tests share. */
#ifndef E2E_EXPECT_H
#define E2E_EXPECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server.h"

/* The call must succeed. */
#define must(call, error)                                                                                    \
    do {                                                                                                     \
        if (call) fail_msg("%s: %s", pados_status_name((error).status), (error).message);                    \
    } while (0)

/* The call must fail with this status and a message that names the thing. */
#define must_fail(call, error, wanted, word)                                                                 \
    do {                                                                                                     \
        pados_status said_ = (call);                                                                         \
        if (said_ != (wanted))                                                                               \
            fail_msg("status %s (%s), wanted %s", pados_status_name(said_), said_ ? (error).message : "",    \
                     pados_status_name(wanted));                                                             \
        if (!strstr((error).message, word)) fail_msg("\"%s\" does not say \"%s\"", (error).message, word);   \
    } while (0)

enum {
    INVALID_ARGUMENT = 3,
    DEADLINE_EXCEEDED = 4,
    NOT_FOUND = 5,
    RESOURCE_EXHAUSTED = 8,
    FAILED_PRECONDITION = 9,
    UNIMPLEMENTED = 12,
    UNAVAILABLE = 14,
    DATA_LOSS = 15,
    UNAUTHENTICATED = 16
};

#endif
