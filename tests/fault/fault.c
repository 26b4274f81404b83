/* What fails and when; the diary; allocation. */
#include "fault_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pd_fault_state own;
pd_fault_state *pd_fault = &own;

static char folder[PD_FAULT_PATH]; /* "": nothing is looked at */
static const char *full_file;
static int journal = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t text_from, text_upto; /* the program's own code */

/* ------------------------------------------------------------------------------------------------- starting --- */

static pd_fault_class class_of(const char *name, size_t n)
{
    static const char *const names[] = {"none",   "open", "write", "sync",
                                        "rename", "any",  "alloc", "alloc_any"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i]) == n && !memcmp(names[i], name, n)) return (pd_fault_class)i;
    return PD_FAULT_NONE;
}

static int32_t error_of(const char *name)
{
    static const struct {
        const char *name;
        int32_t error;
    } errors[] = {
        {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"ENOMEM", ENOMEM}, {"EDQUOT", EDQUOT}, {"KILL", PD_FAULT_KILL}};
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (!strncmp(name, errors[i].name, strlen(errors[i].name))) return errors[i].error;
    return EIO;
}

/* A mistake in the set-up must not look like a drill that was passed. */
__attribute__((noreturn)) static void refuse(const char *what, const char *value)
{
    fprintf(stderr, "libpados_fault: %s %s: %s\n", what, value, strerror(errno));
    _exit(97);
}

static int program(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        text_from = info->dlpi_addr + part->p_vaddr;
        text_upto = text_from + part->p_memsz;
    }
    return 1; /* the first object is the program */
}

static void share_state(const char *path)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || syscall(SYS_ftruncate, fd, (off_t)sizeof(pd_fault_state)) != 0)
        refuse("PADOS_FAULT_STATE", path);
    void *at = mmap(NULL, sizeof(pd_fault_state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) refuse("PADOS_FAULT_STATE", path);
    close(fd);
    pd_fault = at;
}

__attribute__((constructor)) static void start(void)
{
    const char *where = getenv("PADOS_FAULT_FOLDER"), *state = getenv("PADOS_FAULT_STATE");
    const char *fails = getenv("PADOS_FAULT_FAIL"), *diary = getenv("PADOS_FAULT_JOURNAL");
    dl_iterate_phdr(program, NULL);
    if (state) share_state(state);
    full_file = getenv("PADOS_FAULT_FULL");
    if (diary) {
        journal = (int)syscall(SYS_openat, AT_FDCWD, diary, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (journal < 0) refuse("PADOS_FAULT_JOURNAL", diary);
        struct stat about;
        /* A process that starts again goes on in the same diary. */
        if (fstat(journal, &about) == 0) atomic_store(&pd_fault->journal, (uint64_t)about.st_size);
    }
    if (fails) {
        const char *n = strchr(fails, ':'), *error = n ? strchr(n + 1, ':') : NULL;
        pd_fault_class class = n ? class_of(fails, (size_t)(n - fails)) : PD_FAULT_NONE;
        errno = EINVAL;
        if (!error || class == PD_FAULT_NONE) refuse("PADOS_FAULT_FAIL", fails);
        atomic_store(&pd_fault->class, class);
        atomic_store(&pd_fault->error, error_of(error + 1));
        atomic_store(&pd_fault->made, strchr(error, '!') != NULL);
        const char *times = strchr(error, '*');
        atomic_store(&pd_fault->times, times ? (uint32_t)atoi(times + 1) : 1);
        atomic_store(&pd_fault->calls, 0);
        atomic_store(&pd_fault->at, strtoull(n + 1, NULL, 10));
    }
    if (!where) return;
    /* The folder may not be there yet; what holds it is. */
    char *real = realpath(where, NULL);
    if (!real && (where[0] != '/' || strlen(where) >= sizeof folder)) refuse("PADOS_FAULT_FOLDER", where);
    snprintf(folder, sizeof folder, "%s", real ? real : where);
    free(real);
}

/* -------------------------------------------------------------------------------------------------- failing --- */

static int of_class(pd_fault_class armed, pd_fault_class class)
{
    if (armed == class) return 1;
    return armed == PD_FAULT_ANY && class >= PD_FAULT_OPEN && class <= PD_FAULT_RENAME;
}

int pd_fault_strikes(pd_fault_class class, const char *call, const char *path)
{
    pd_fault_state *s = pd_fault;
    if (!of_class((pd_fault_class)atomic_load(&s->class), class)) return 0;
    uint64_t call_number = atomic_fetch_add(&s->calls, 1) + 1, at = atomic_load(&s->at);
    uint32_t times = atomic_load(&s->times);
    if (!at || call_number < at || call_number >= at + (times ? times : 1)) return 0;
    atomic_fetch_add(&s->failed, 1);
    /* No stdio here: this may be an allocation of stdio's own. */
    size_t n = strlen(call), m = path ? strlen(path) : 0;
    if (n > 40) n = 40;
    if (m > 200) m = 200;
    memcpy(s->what, call, n);
    s->what[n] = ' ';
    if (m) memcpy(s->what + n + 1, path, m);
    s->what[n + 1 + m] = 0;
    int error = atomic_load(&s->error);
    if (error == PD_FAULT_KILL) kill(getpid(), SIGKILL);
    errno = error;
    return atomic_load(&s->made) && call_number == at ? 1 : -1;
}

int pd_fault_disk_full(void)
{
    if (atomic_load(&pd_fault->full)) return 1;
    int before = errno;
    int full = full_file && syscall(SYS_faccessat, AT_FDCWD, full_file, F_OK) == 0;
    errno = before;
    return full;
}

/* ------------------------------------------------------------------------------------------------- the diary --- */

void pd_fault_lock(void)
{
    pthread_mutex_lock(&lock);
}
void pd_fault_unlock(void)
{
    pthread_mutex_unlock(&lock);
}
int pd_fault_writes(void)
{
    return journal >= 0;
}

static void put(const void *bytes, size_t length, uint64_t *at)
{
    const char *from = bytes;
    while (length) {
        long done = syscall(SYS_pwrite64, journal, from, length, *at);
        if (done <= 0) refuse("the diary", "cannot be written");
        from += done;
        length -= (size_t)done;
        *at += (uint64_t)done;
    }
}

void pd_fault_note(pd_fault_kind kind, const char *path, const char *other, uint64_t inode, uint64_t offset,
                   uint64_t number, const void *data, size_t length)
{
    if (journal < 0) return;
    int before = errno;
    pd_fault_entry e = {.magic = PD_FAULT_ENTRY,
                        .kind = (uint32_t)kind,
                        .inode = inode,
                        .offset = offset,
                        .number = number,
                        .data = length,
                        .path = path ? (uint32_t)strlen(path) : 0,
                        .other = other ? (uint32_t)strlen(other) : 0};
    uint64_t at = atomic_load(&pd_fault->journal);
    put(&e, sizeof e, &at);
    if (e.path) put(path, e.path, &at);
    if (e.other) put(other, e.other, &at);
    if (length) put(data, length, &at);
    atomic_store(&pd_fault->journal, at);
    errno = before;
}

/* ---------------------------------------------------------------------------------------------------- paths --- */

static int below_folder(const char *path, char *below)
{
    size_t n = strlen(folder);
    if (strncmp(path, folder, n) || (path[n] && path[n] != '/')) return 0;
    strcpy(below, path[n] ? path + n + 1 : "");
    return 1;
}

int pd_fault_below_fd(int fd, char *below)
{
    if (!folder[0]) return 0;
    char link[64], path[PD_FAULT_PATH];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = before;
    if (n <= 0) return 0;
    path[n] = 0;
    return below_folder(path, below);
}

int pd_fault_below(int dirfd, const char *path, char *below)
{
    if (!folder[0] || !path || !path[0] || strlen(path) >= PD_FAULT_PATH) return 0;
    char parent[PD_FAULT_PATH];
    strcpy(parent, path);
    size_t n = strlen(parent);
    while (n > 1 && parent[n - 1] == '/')
        parent[--n] = 0;
    char *slash = strrchr(parent, '/'), name[PD_FAULT_PATH];
    snprintf(name, sizeof name, "%s", slash ? slash + 1 : parent);
    if (!slash)
        strcpy(parent, ".");
    else if (slash == parent)
        parent[1] = 0;
    else
        *slash = 0;
    int before = errno;
    int fd = (int)syscall(SYS_openat, dirfd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    errno = before;
    if (fd < 0) return 0;
    char link[64], real[2 * PD_FAULT_PATH];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long got = syscall(SYS_readlinkat, AT_FDCWD, link, real, PD_FAULT_PATH - 1);
    syscall(SYS_close, fd);
    errno = before;
    if (got <= 0) return 0;
    real[got] = 0;
    if (strcmp(name, "."))
        snprintf(real + got, sizeof real - (size_t)got, "%s%s", real[got - 1] == '/' ? "" : "/", name);
    return strlen(real) < PD_FAULT_PATH && below_folder(real, below);
}

/* ------------------------------------------------------------------------------------------------ allocation --- */

/* glibc's own, under the names that it exports: no look-up, which would allocate. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static int alloc_fails(const char *call, const void *caller)
{
    pd_fault_class armed = (pd_fault_class)atomic_load(&pd_fault->class);
    if (armed == PD_FAULT_ALLOC && ((uintptr_t)caller < text_from || (uintptr_t)caller >= text_upto))
        return 0;
    if (armed != PD_FAULT_ALLOC && armed != PD_FAULT_ALLOC_ANY) return 0;
    return pd_fault_strikes(armed, call, NULL) != 0;
}

void *malloc(size_t size)
{
    return alloc_fails("malloc", __builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return alloc_fails("calloc", __builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return alloc_fails("realloc", __builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    return alloc_fails("memalign", __builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return alloc_fails("aligned_alloc", __builtin_return_address(0)) ? NULL
                                                                     : __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    int before = errno;
    if (alloc_fails("posix_memalign", __builtin_return_address(0))) return ENOMEM;
    *out = __libc_memalign(alignment, size);
    errno = before;
    return *out ? 0 : ENOMEM;
}
