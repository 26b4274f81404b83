/* The log: one line an event on stderr, "2026-11-22T10:00:00.123Z info  message". */
#ifndef PD_LOG_H
#define PD_LOG_H

enum { PD_LOG_ERROR, PD_LOG_WARNING, PD_LOG_INFO, PD_LOG_DEBUG };
void pd_log_level(int level);
void pd_log_line(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define pd_log pd_log_line /* the kernels link a pd_log of their own: a logarithm (score.h) */

#endif
