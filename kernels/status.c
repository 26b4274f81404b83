#include "status.h"

#include <stdio.h>
#include <string.h>

const char *pd_status_name(pd_status status)
{
    switch (status) {
#define PD_STATUS_CASE(name, number)                                                                         \
    case PD_##name:                                                                                          \
        return #name;
        PD_STATUS_LIST(PD_STATUS_CASE)
#undef PD_STATUS_CASE
    }
    return "UNKNOWN";
}

pd_status pd_vfail(pd_error *err, pd_status status, const char *format, va_list args)
{
    if (err) {
        err->status = status;
        vsnprintf(err->message, sizeof err->message, format, args);
    }
    return status;
}

pd_status pd_fail(pd_error *err, pd_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    pd_vfail(err, status, format, args);
    va_end(args);
    return status;
}

pd_status pd_prefix(pd_error *err, const char *format, ...)
{
    if (!err) return PD_UNKNOWN;
    /* Room for both; what is too long is cut at the end. */
    char whole[2 * sizeof err->message];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(whole, sizeof err->message, format, args);
    va_end(args);
    if (used < 0) return err->status;
    size_t at = strlen(whole);
    snprintf(whole + at, sizeof whole - at, ": %s", err->message);
    whole[sizeof err->message - 1] = '\0';
    memcpy(err->message, whole, sizeof err->message);
    return err->status;
}
