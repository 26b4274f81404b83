#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void show_log(const server *s)
{
    char path[192], line[512];
    snprintf(path, sizeof path, "%s/log", s->folder);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        fputs(line, stderr);
    if (file) fclose(file);
}

static pid_t spawn(const char *const *argv, const char *log)
{
    pid_t pid = fork();
    if (pid == 0) {
        /* No server outlives its test, however that ends. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) _exit(126);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

static const char *program(void)
{
    const char *path = getenv("PADOSD");
    if (!path) fail_msg("PADOSD does not name the server (ctest sets it)");
    return path;
}

void server_start(server *s, const char *const *sets)
{
    if (!*s->folder) {
        snprintf(s->folder, sizeof s->folder, "/tmp/pados-e2e-XXXXXX");
        assert_non_null(mkdtemp(s->folder));
    }
    snprintf(s->url, sizeof s->url, "ipc://%s/data.sock", s->folder);
    snprintf(s->admin_url, sizeof s->admin_url, "ipc://%s/admin.sock", s->folder);
    char own[8][256], log[160];
    snprintf(own[0], sizeof own[0], "data_folder=\"%s/data\"", s->folder);
    snprintf(own[1], sizeof own[1], "data.url=\"%s\"", s->url);
    snprintf(own[2], sizeof own[2], "admin.url=\"%s\"", s->admin_url);
    snprintf(own[3], sizeof own[3], "http.url=\"%s\"", s->http);
    snprintf(own[4], sizeof own[4], "memory_mib=256");
    /* A test waits for its builds, and other tests run beside it. */
    snprintf(own[5], sizeof own[5], "builder_priority=\"normal\"");
    snprintf(log, sizeof log, "%s/log", s->folder);
    const char *argv[64] = {program()};
    int n = 1;
    if (*s->config) {
        argv[n++] = "--config";
        argv[n++] = s->config;
    }
    if (*s->restore) {
        argv[n++] = "--restore";
        argv[n++] = s->restore;
    }
    for (int i = 0; i < 6; i++) {
        argv[n++] = "--set";
        argv[n++] = own[i];
    }
    for (int i = 0; sets && sets[i] && n < 62; i++) {
        argv[n++] = "--set";
        argv[n++] = sets[i];
    }
    s->pid = spawn(argv, log);
    /* The hello is retried by the client until the listener is up. */
    pados_options options = {.connect_ms = 30000};
    pados_client *client;
    pados_error error;
    if (pados_open(s->url, &options, &client, &error)) {
        show_log(s);
        fail_msg("padosd does not answer: %s", error.message);
    }
    pados_close(client);
}

int server_stop(server *s)
{
    int status = 0;
    assert_int_equal(kill(s->pid, SIGTERM), 0);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    s->pid = 0;
    if (status) show_log(s);
    return status;
}

void server_kill(server *s)
{
    int status;
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    s->pid = 0;
}

static int unlink_one(const char *path, const struct stat *info, int flag, struct FTW *ftw)
{
    (void)info;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void server_remove(server *s)
{
    nftw(s->folder, unlink_one, 16, FTW_DEPTH | FTW_PHYS);
    *s->folder = 0;
}

pados_client *server_client(const server *s)
{
    pados_client *client;
    pados_error error;
    if (pados_open(s->url, NULL, &client, &error)) fail_msg("%s", error.message);
    return client;
}

int server_refused(const char *const *args, char *log, size_t room)
{
    char path[] = "/tmp/pados-refused-XXXXXX";
    int fd = mkstemp(path), status;
    assert_true(fd >= 0);
    const char *argv[64] = {program()};
    for (int i = 0; args[i] && i < 62; i++)
        argv[i + 1] = args[i];
    pid_t pid = spawn(argv, path);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    ssize_t got = pread(fd, log, room - 1, 0);
    log[got > 0 ? got : 0] = 0;
    close(fd);
    unlink(path);
    return status;
}

int server_says(const server *s, const char *words)
{
    char path[160], line[4096];
    int lines = 0;
    snprintf(path, sizeof path, "%s/log", s->folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        lines += strstr(line, words) != NULL;
    fclose(file);
    return lines;
}

/* A line of /proc/PID/status, in bytes. */
static uint64_t status_of(const server *s, const char *name)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)s->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name))) sscanf(line + strlen(name), "%llu", &kib);
    fclose(file);
    assert_true(kib > 0);
    return (uint64_t)kib << 10;
}

uint64_t server_resident(const server *s)
{
    return status_of(s, "VmRSS:");
}

uint64_t server_own(const server *s)
{
    return status_of(s, "RssAnon:");
}

/* A push source over bytes in memory. */
typedef struct bytes {
    const char *data;
    size_t length, at;
} bytes;

static pados_status bytes_read(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    (void)error;
    bytes *b = context;
    size_t left = b->length - b->at;
    *got = left < max ? left : max;
    memcpy(data, b->data + b->at, *got);
    b->at += *got;
    return 0;
}

static pados_status bytes_seek(void *context, uint64_t offset, pados_error *error)
{
    (void)error;
    ((bytes *)context)->at = offset;
    return 0;
}

static pados_source source(bytes *b)
{
    return (pados_source){.read = bytes_read, .seek = bytes_seek, .context = b, .bytes = b->length};
}

pados_status push_rows(pados_client *client, const char *table, const char *schema, uint64_t rows,
                       uint32_t dim, const float *vectors, const uint64_t *ids, const char *attributes,
                       bool stage_only, uint64_t *version, pados_error *error)
{
    bytes v = {(const char *)vectors, rows * dim * sizeof *vectors, 0};
    bytes i = {(const char *)ids, ids ? rows * sizeof *ids : 0, 0};
    bytes a = {attributes, attributes ? strlen(attributes) : 0, 0};
    pados_push push = {.table = table,
                       .schema = schema,
                       .dtype = PADOS_F32,
                       .dim = dim,
                       .rows = rows,
                       .vectors = source(&v),
                       .ids = source(&i),
                       .attributes = source(&a),
                       .attributes_name = "attributes.csv",
                       .stage_only = stage_only};
    uint64_t number;
    return pados_push_run(client, &push, version ? version : &number, error);
}

static uint64_t next(uint64_t *state)
{
    uint64_t x = (*state += 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static float centred(uint64_t *state)
{
    return (float)((double)(next(state) >> 11) * 0x1p-53 - 0.5);
}

void make_rows(uint64_t seed, uint64_t rows, uint32_t dim, uint32_t clusters, float *out)
{
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t cluster = 1000003u * ((i * 7919) % clusters) + 17, noise = seed * 1000000007u + i;
        for (uint32_t d = 0; d < dim; d++)
            out[i * dim + d] = centred(&cluster) + 0.4f * centred(&noise);
    }
}
