/* What the drills share: numbers from the environment, and words about what went wrong. */
#ifndef DRILLS_DRILLS_H
#define DRILLS_DRILLS_H

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "expect.h"
#include "load.h"

static inline uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given ? strtoull(given, NULL, 10) : otherwise;
}

static inline uint64_t seed_of_run(void)
{
    uint64_t seed = number_of("PADOS_SEED", 2026);
    print_message("PADOS_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static inline double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void wait_ms(uint32_t ms)
{
    usleep(ms * 1000);
}

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

#ifdef FAULT_LIBRARY
/* A server under libpados_fault.so; its state, shared. */
typedef struct faulty {
    server host;
    pd_fault_state *state;
} faulty;

static inline void faulty_start(faulty *f, const char *const *sets, bool diary)
{
    if (!f->host.folder[0]) {
        bool memory = access("/dev/shm", W_OK) == 0;
        snprintf(f->host.folder, sizeof f->host.folder, "%s/pados-drill-XXXXXX",
                 memory ? "/dev/shm" : "/tmp");
        assert_non_null(mkdtemp(f->host.folder));
        assert_int_equal(shell("mkdir %s/data", f->host.folder), 0); /* the diary begins below it */
        char path[200];
        snprintf(path, sizeof path, "%s/state", f->host.folder);
        int fd = open(path, O_RDWR | O_CREAT, 0644);
        assert_true(fd >= 0 && ftruncate(fd, sizeof *f->state) == 0);
        f->state = mmap(NULL, sizeof *f->state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(f->state != MAP_FAILED);
        close(fd);
    }
    char text[4][220];
    snprintf(text[0], sizeof text[0], "%s/data", f->host.folder);
    snprintf(text[1], sizeof text[1], "%s/state", f->host.folder);
    snprintf(text[2], sizeof text[2], "%s/journal", f->host.folder);
    snprintf(text[3], sizeof text[3], "%s/full", f->host.folder);
    setenv("PADOS_FAULT_FOLDER", text[0], 1);
    setenv("PADOS_FAULT_STATE", text[1], 1);
    if (diary) setenv("PADOS_FAULT_JOURNAL", text[2], 1);
    setenv("PADOS_FAULT_FULL", text[3], 1);
    setenv("LD_PRELOAD", FAULT_LIBRARY, 1);
    server_start(&f->host, sets);
    unsetenv("LD_PRELOAD");
    unsetenv("PADOS_FAULT_JOURNAL");
}

static inline void faulty_end(faulty *f)
{
    munmap(f->state, sizeof *f->state);
    server_remove(&f->host);
}
#endif

#endif
