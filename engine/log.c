/* The log. A line is formatted whole and written by one write(2), so that lines of different threads never mix. Control
 * characters are shown as '?': what a client sent must not be able to forge a line. */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static atomic_int threshold = PD_LOG_INFO;

void pd_log_level(int level)
{
    atomic_store(&threshold, level);
}

static size_t stamp(char *line, size_t room, int level)
{
    static const char *const names[] = {"error", "warn ", "info ", "debug"};
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t at = strftime(line, room, "%Y-%m-%dT%H:%M:%S", &parts);
    int more = snprintf(line + at, room - at, ".%03ldZ %s ", now.tv_nsec / 1000000, names[level]);
    return more > 0 ? at + (size_t)more : at;
}

void pd_log(int level, const char *format, ...)
{
    if (level < PD_LOG_ERROR) level = PD_LOG_ERROR;
    if (level > PD_LOG_DEBUG) level = PD_LOG_DEBUG;
    if (level > atomic_load(&threshold)) return;
    char line[2048];
    size_t at = stamp(line, sizeof line, level);
    va_list args;
    va_start(args, format);
    int more = vsnprintf(line + at, sizeof line - at - 1, format, args);
    va_end(args);
    if (more < 0) return;
    size_t end = at + (size_t)more;
    if (end > sizeof line - 2) end = sizeof line - 2;
    for (size_t i = at; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
    line[end++] = '\n';
    /* A log that cannot be written has nowhere to say so. */
    ssize_t written = write(STDERR_FILENO, line, end);
    (void)written;
}
