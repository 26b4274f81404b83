/* Running perform, or anything, under libpados_fault.so, and rebuilding disks. */
#ifndef PD_FAULT_DRILL_H
#define PD_FAULT_DRILL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"

/* folder/data is looked at; folder/state, folder/journal, folder/out */
typedef struct drill {
    char folder[64];
} drill;

static inline int shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline int shell(const char *format, ...)
{
    char command[2000];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(command, sizeof command, format, args);
    va_end(args);
    assert_true(n > 0 && n < (int)sizeof command);
    return system(command);
}

static inline void drill_make(drill *d)
{
    /* In memory where it can be: the diary knows what was synced, the real disk need not. */
    int memory = access("/dev/shm", W_OK) == 0;
    snprintf(d->folder, sizeof d->folder, "%s/pados-fault-XXXXXX", memory ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(d->folder));
    assert_int_equal(shell("mkdir %s/data", d->folder), 0);
}

static inline void drill_remove(drill *d)
{
    assert_int_equal(shell("rm -rf %s", d->folder), 0);
}

/* Empties everything for another run. */
static inline void drill_again(drill *d)
{
    assert_int_equal(shell("rm -rf %s/data %s/state %s/journal %s/out %s/said; mkdir %s/data", d->folder,
                           d->folder, d->folder, d->folder, d->folder, d->folder),
                     0);
}

/* Runs perform with a diary, or without; what it prints goes to folder/said. The exit status. */
static inline int drill_run(const drill *d, int diary, const char *settings, const char *arguments)
{
    char journal[100] = "";
    if (diary) snprintf(journal, sizeof journal, "PADOS_FAULT_JOURNAL=%s/journal", d->folder);
    int rc =
        shell("%s PADOS_FAULT_FOLDER=%s/data PADOS_FAULT_STATE=%s/state %s LD_PRELOAD=%s %s %s >%s/said 2>&1",
              journal, d->folder, d->folder, settings, FAULT_LIBRARY, FAULT_PERFORM, arguments, d->folder);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 1000 + WTERMSIG(rc);
}

/* System calls below folder/data; the marks that they printed. */
static inline uint32_t drill_calls(const drill *d, const char *settings, const char *calls, uint64_t *marks,
                                   uint32_t room)
{
    char arguments[1500], path[100], line[300];
    uint32_t n = 0;
    snprintf(arguments, sizeof arguments, "calls %s/data %s", d->folder, calls);
    assert_int_equal(drill_run(d, 1, settings, arguments), 0);
    snprintf(path, sizeof path, "%s/said", d->folder);
    FILE *said = fopen(path, "r");
    assert_non_null(said);
    while (n < room && fgets(line, sizeof line, said))
        if (line[0] >= '0' && line[0] <= '9') marks[n++] = strtoull(line, NULL, 10);
    fclose(said);
    return n;
}

/* The disk after a power cut, in folder/out. */
static inline void drill_cut(const drill *d, uint64_t at, uint64_t seed, const char *base)
{
    assert_int_equal(shell("rm -rf %s/out; %s --journal %s/journal --at %llu --seed %llu --out %s/out %s %s",
                           d->folder, FAULT_REBUILD, d->folder, (unsigned long long)at,
                           (unsigned long long)seed, d->folder, base ? "--base" : "", base ? base : ""),
                     0);
}

static inline void drill_state(const drill *d, pd_fault_state *state)
{
    char path[100];
    snprintf(path, sizeof path, "%s/state", d->folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fread(state, sizeof *state, 1, file), 1);
    fclose(file);
}

#endif
