/* Linked into the tests that need a device: without one they are skipped, saying why. */
#include <stdio.h>
#include <stdlib.h>

#include "backend.h"

__attribute__((constructor)) static void need_device(void)
{
    const pd_backend *found;
    pd_error err;
    if (pd_backend_find("cuda", &found, &err) == PD_OK) return;
    printf("skipped: %s\n", err.message);
    fflush(stdout);
    _Exit(77);
}
