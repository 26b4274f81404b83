/* What the drills of the fault tools run under libpados_fault.so.
 *
 *     perform calls FOLDER CALL...      system calls by name; prints the diary's length after "mark"
 *     perform log FOLDER CLASS N ERROR  a life of the log of changes in FOLDER/log with the Nth call of CLASS failing; prints what
 *                                       was acknowledged, for test_fault_log.c to compare with what is there
 *
 *     perform full FOLDER               the log on a disk that fills up and is emptied again
 *     perform dead FOLDER CLASS         the log on a disk that fails all calls of a class for a while
 *
 * The shared state is found in PADOS_FAULT_STATE.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes.h"
#include "fault.h"
#include "perform.h"

static pd_fault_state *state;

static void die(const char *what)
{
    fprintf(stderr, "perform: %s: %s\n", what, strerror(errno));
    exit(3);
}

/* --------------------------------------------------------------------------------------------------- calls --- */

/* create:F  write:F:OFFSET:LENGTH:LETTER  dsync:F:OFFSET:LENGTH:LETTER  append:F:LENGTH:LETTER  size:F:LENGTH  sync:F  folder:F
 * rename:A:B  swap:A:B  unlink:F  mkdir:F  rmdir:F  link:A:B  mark. 0: the call failed. */
static int call(char *text)
{
    char *part[5] = {NULL}, *save = NULL;
    int n = 0;
    for (char *p = strtok_r(text, ":", &save); p && n < 5; p = strtok_r(NULL, ":", &save))
        part[n++] = p;
    const char *verb = part[0], *a = part[1], *b = part[2];
    if (!strcmp(verb, "mark")) return printf("%llu\n", (unsigned long long)atomic_load(&state->journal)) > 0;
    if (!strcmp(verb, "rename")) return rename(a, b) == 0;
    if (!strcmp(verb, "swap")) return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0;
    if (!strcmp(verb, "unlink")) return unlink(a) == 0;
    if (!strcmp(verb, "mkdir")) return mkdir(a, 0755) == 0;
    if (!strcmp(verb, "rmdir")) return rmdir(a) == 0;
    if (!strcmp(verb, "link")) return link(a, b) == 0;
    int flags = O_RDWR | O_CREAT;
    if (!strcmp(verb, "folder")) flags = O_RDONLY | O_DIRECTORY;
    if (!strcmp(verb, "dsync")) flags |= O_DSYNC;
    if (!strcmp(verb, "append")) flags |= O_APPEND;
    int fd = open(a, flags, 0644);
    if (fd < 0) return 0;
    int well = 1;
    if (!strcmp(verb, "sync") || !strcmp(verb, "folder")) {
        well = fsync(fd) == 0;
    } else if (!strcmp(verb, "size")) {
        well = ftruncate(fd, atoll(b)) == 0;
    } else if (strcmp(verb, "create")) {
        int appends = !strcmp(verb, "append");
        size_t length = (size_t)atoll(part[appends ? 2 : 3]);
        char *bytes = malloc(length);
        memset(bytes, part[appends ? 3 : 4][0], length);
        ssize_t done = appends ? write(fd, bytes, length) : pwrite(fd, bytes, length, atoll(b));
        well = done == (ssize_t)length;
        free(bytes);
    }
    int error = errno;
    close(fd);
    errno = error;
    return well;
}

/* ------------------------------------------------------------------------------------------------------ log --- */

/* A failing life: every call of the log is tried again until it succeeds, and after a failure it must show nothing of it. */
static unsigned attempts;

static void failed(const pd_error *err)
{
    printf("failed at %llu: %s %s\n", (unsigned long long)atomic_load(&state->journal),
           pd_status_name(err->status), err->message);
    if (++attempts > 20) {
        printf("gave-up\n");
        exit(4);
    }
}

static void must_not_show(pd_changes *log, uint64_t sequence)
{
    pd_error err;
    pd_record record;
    void *hold;
    pd_status status = pd_changes_get(log, sequence, &record, &hold, &err);
    if (status == PD_OK) printf("shows %llu\n", (unsigned long long)sequence);
    if (status == PD_OK) pd_changes_end(log, hold);
    if (pd_changes_last(log) != sequence - 1) printf("counts %llu\n", (unsigned long long)sequence);
}

static void append(pd_changes *log, const char *table, size_t length)
{
    pd_error err;
    pd_record record;
    static char bytes[PERFORM_MOST];
    for (uint32_t attempt = 0;; attempt++) {
        uint64_t sequence = pd_changes_last(log) + 1;
        perform_record(&record, sequence, table, attempt, length, bytes);
        if (!pd_changes_append(log, &record, 1, &err)) {
            printf("acknowledged %llu %u %zu %s at %llu\n", (unsigned long long)sequence, attempt, length,
                   table, (unsigned long long)atomic_load(&state->journal));
            break;
        }
        failed(&err);
        must_not_show(log, sequence);
    }
}

static pd_status blank(void *context, const pd_record *record, void **bytes, size_t *length, pd_error *err)
{
    (void)context;
    if (record->sequence % 4) return PD_OK;
    *length = record->length;
    *bytes = calloc(1, record->length + 1);
    return *bytes ? PD_OK : pd_fail(err, PD_RESOURCE_EXHAUSTED, "no memory");
}

static void life(const char *folder)
{
    char at[4096];
    pd_error err;
    snprintf(at, sizeof at, "%s/log", folder);
    pd_changes_options o = {.folder = at, .map_bytes = 64u << 20, .durability = PD_DURABLE_SYNC, .keys = 8};
    pd_changes *log;
    while (pd_changes_open(&o, &log, &err))
        failed(&err);
    for (uint32_t i = 0; i < 6; i++)
        append(log, i % 3 ? "shoes" : "hats", i % 2 ? 60 : 9000);
    while (pd_changes_put(log, &(pd_document){"erasures", 1, "one", 3}, 1, &err))
        failed(&err);
    while (pd_changes_trim(log, "shoes", 3, &err))
        failed(&err);
    printf("trimmed 3 at %llu\n", (unsigned long long)atomic_load(&state->journal));
    append(log, "hats", 100);
    while (pd_changes_rewrite(log, "hats", blank, NULL, &err))
        failed(&err);
    printf("rewritten 7 at %llu\n", (unsigned long long)atomic_load(&state->journal));
    while (pd_changes_compact(log, &err))
        failed(&err);
    for (uint32_t i = 0; i < 4; i++)
        append(log, "shoes", i % 2 ? 60 : 30000);
    pd_changes_close(log);
    printf("closed\n");
}

/* The disk is full (class 0) or dead for a while: appends are refused as such, what is there is read, and afterwards the log goes on. */
static void trouble(const char *folder, uint32_t class)
{
    char at[4096];
    pd_error err;
    snprintf(at, sizeof at, "%s/log", folder);
    pd_changes_options o = {.folder = at, .map_bytes = 64u << 20, .durability = PD_DURABLE_SYNC};
    pd_changes *log;
    if (pd_changes_open(&o, &log, &err)) die(err.message);
    for (uint32_t i = 0; i < 20; i++)
        append(log, "shoes", 30000);
    if (class) {
        atomic_store(&state->class, class);
        atomic_store(&state->error, EIO);
        atomic_store(&state->times, UINT32_MAX);
        atomic_store(&state->at, 1);
    } else {
        atomic_store(&state->full, 1);
    }
    static char bytes[PERFORM_MOST];
    uint32_t refused = 0, stored = 0;
    for (uint32_t i = 0; i < 30; i++) {
        pd_record record;
        void *hold;
        perform_record(&record, pd_changes_last(log) + 1, "shoes", 0, 30000, bytes);
        pd_status status = pd_changes_append(log, &record, 1, &err);
        if (status == PD_OK)
            stored++; /* there were free pages in the file */
        else if (status == (class ? PD_UNAVAILABLE : PD_RESOURCE_EXHAUSTED))
            refused++;
        else
            printf("status %s\n", err.message);
        status = pd_changes_get(log, pd_changes_last(log), &record, &hold, &err);
        if (status) printf("unread %s\n", err.message);
        if (!status) pd_changes_end(log, hold);
    }
    pd_changes_stats stats;
    pd_changes_stats_of(log, &stats);
    printf("refused %u failing %d\n", refused, stats.failing);
    atomic_store(&state->full, 0);
    atomic_store(&state->at, 0);
    append(log, "shoes", 30000);
    pd_changes_stats_of(log, &stats);
    printf("then %llu failing %d\n", (unsigned long long)stats.last - stored, stats.failing);
    pd_changes_close(log);
    if (pd_changes_open(&o, &log, &err)) die(err.message);
    printf("reopened %llu\n", (unsigned long long)pd_changes_last(log) - stored);
    pd_changes_close(log);
}

int main(int argc, char **argv)
{
    const char *path = getenv("PADOS_FAULT_STATE");
    int fd = path ? open(path, O_RDWR) : -1;
    if (fd < 0) die("PADOS_FAULT_STATE");
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (state == MAP_FAILED) die("PADOS_FAULT_STATE");
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3 && !strcmp(argv[1], "calls")) {
        if (chdir(argv[2]) != 0) die(argv[2]);
        for (int i = 3; i < argc; i++) {
            char text[200];
            snprintf(text, sizeof text, "%s", argv[i]);
            if (!call(text)) printf("failed %s %s\n", argv[i], strerror(errno));
        }
        return 0;
    }
    if (argc == 3 && !strcmp(argv[1], "full")) {
        trouble(argv[2], PD_FAULT_NONE);
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "dead")) {
        trouble(argv[2], (uint32_t)atoi(argv[3]));
        return 0;
    }
    if (argc < 6 || strcmp(argv[1], "log")) die("usage");
    static char room[4096]; /* stdio's, before allocations fail */
    setvbuf(stdout, room, _IOLBF, sizeof room);
    /* Armed here, so that what the libraries do at their start is not counted. */
    atomic_store(&state->class, (uint32_t)atoi(argv[3]));
    atomic_store(&state->error, atoi(argv[5]));
    atomic_store(&state->made, strchr(argv[5], '!') != NULL);
    const char *times = strchr(argv[5], '*');
    atomic_store(&state->times, times ? (uint32_t)atoi(times + 1) : 1);
    atomic_store(&state->calls, 0);
    atomic_store(&state->at, strtoull(argv[4], NULL, 10));
    life(argv[2]);
    atomic_store(&state->class, PD_FAULT_NONE);
    return 0;
}
