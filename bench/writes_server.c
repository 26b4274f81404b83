/* pados-writes: a padosd of its own, and the table it serves. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "random.h"
#include "writes.h"

#define ARGUMENTS (2 * WRITES_SETS + 32)

static int complain(const char *what, const char *why)
{
    fprintf(stderr, "pados-writes: %s: %s\n", what, why);
    return 1;
}

/* ------------------------------------------------------------------------------------------------- the server --- */

static void child(const writes_options *o, const writes_server *s, const char *program, const char *set)
{
    char log[440], sets[6][520], *argv[ARGUMENTS];
    uint32_t n = 0, memory = (uint32_t)(256 + o->rows * (o->dim * 4 + 96) * 4 / (1u << 20));
    snprintf(log, sizeof log, "%s/server.log", s->folder);
    int out = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(1);
    snprintf(sets[0], sizeof sets[0], "data_folder=\"%s/data\"", s->folder);
    snprintf(sets[1], sizeof sets[1], "data.url=\"%s\"", s->url);
    snprintf(sets[2], sizeof sets[2], "admin.url=\"ipc://%s/admin.sock\"", s->folder);
    snprintf(sets[3], sizeof sets[3], "http.url=\"\"");
    snprintf(sets[4], sizeof sets[4], "memory_mib=%u.0", memory);
    snprintf(sets[5], sizeof sets[5],
             "recall_sample=0.0"); /* what is sampled is searched exactly: not asked here */
    argv[n++] = (char *)(uintptr_t)program;
    for (uint32_t i = 0; i < 6; i++) {
        argv[n++] = "--set";
        argv[n++] = sets[i];
    }
    for (uint32_t i = 0; i < o->nsets; i++) {
        argv[n++] = "--set";
        argv[n++] = (char *)(uintptr_t)o->sets[i];
    }
    if (set) {
        argv[n++] = "--set";
        argv[n++] = (char *)(uintptr_t)set;
    }
    argv[n] = NULL;
    execv(program, argv);
    _exit(1);
}

int writes_server_start(const writes_options *o, const char *program, const char *set, writes_server *s)
{
    char beside[600];
    *s = (writes_server){0};
    snprintf(s->folder, sizeof s->folder, "%s/pados-writes.XXXXXX", o->folder);
    if (!mkdtemp(s->folder)) return complain(s->folder, strerror(errno));
    if (o->to) {
        snprintf(s->url, sizeof s->url, "%s", o->to);
        return 0;
    }
    const char *slash = strrchr(program, '/');
    snprintf(beside, sizeof beside, "%.*spadosd", slash ? (int)(slash - program + 1) : 0, program);
    snprintf(s->url, sizeof s->url, "ipc://%s/data.sock", s->folder);
    s->pid = fork();
    if (s->pid == 0) child(o, s, o->padosd ? o->padosd : beside, set);
    if (s->pid < 0) return complain("fork", strerror(errno));
    for (int tries = 0; tries < 100; tries++) {
        pados_client *client;
        pados_error error;
        pados_options options = {.connect_ms = 1000};
        if (pados_open(s->url, &options, &client, &error) == 0) {
            pados_close(client);
            return 0;
        }
        if (waitpid(s->pid, NULL, WNOHANG) == s->pid) {
            s->pid = 0;
            break;
        }
    }
    return complain("padosd does not serve, see server.log", s->folder);
}

void writes_server_stop(writes_server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGTERM);
        waitpid(s->pid, NULL, 0);
    }
    s->pid = 0;
    if (!s->folder[0] || getenv("PADOS_KEEP")) return;
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", s->folder, (char *)NULL);
        _exit(1);
    }
    if (pid > 0) waitpid(pid, NULL, 0);
}

/* The first number of a file and its name beside: what Linux says of a thread. */
static double read_number(const char *path)
{
    double number = 0;
    FILE *in = fopen(path, "r");
    if (!in) return 0;
    if (fscanf(in, "%lf", &number) != 1) number = 0;
    fclose(in);
    return number;
}

writes_cpu writes_cpu_of(const writes_server *s)
{
    writes_cpu cpu = {0};
    char path[320], name[32];
    if (!s->pid) return cpu;
    snprintf(path, sizeof path, "/proc/%d/task", (int)s->pid);
    DIR *tasks = opendir(path);
    if (!tasks) return cpu;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        if (task->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/comm", (int)s->pid, task->d_name);
        FILE *in = fopen(path, "r");
        if (!in) continue;
        if (!fgets(name, sizeof name, in)) name[0] = 0;
        fclose(in);
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", (int)s->pid, task->d_name);
        double ns = read_number(path);
        if (sched_getscheduler((pid_t)strtol(task->d_name, NULL, 10)) != SCHED_IDLE) cpu.all += ns;
        if (!strncmp(name, "pd-bind", 7)) cpu.bind += ns;
        if (!strncmp(name, "pd-writer", 9)) cpu.writer += ns;
        if (!strncmp(name, "pd-executor", 11)) cpu.executor += ns;
    }
    closedir(tasks);
    return cpu;
}

/* --------------------------------------------------------------------------------------------------- the data --- */

static int generate(uint64_t rows, uint32_t dim, uint64_t seed, uint32_t queries, bench_data *out)
{
    bench_options o = {.generate_rows = rows, .generate_dim = dim, .generate_seed = seed, .queries = queries};
    pd_error err;
    if (bench_generate(&o, out, &err)) return complain("the rows", err.message);
    free(out->calibration);
    return 0;
}

int writes_data_make(const writes_options *o, writes_data *d)
{
    bench_data base = {0}, fresh = {0};
    *d = (writes_data){.rows = o->rows, .dim = o->dim, .nqueries = 500};
    if (generate(o->rows, o->dim, 1, d->nqueries, &base) ||
        generate(o->rows / 2, o->dim, 2, d->nqueries, &fresh))
        return 1;
    size_t values = (size_t)d->nqueries * d->dim;
    d->base = base.base;
    d->fresh = fresh.base;
    d->queries = malloc(2 * values * sizeof *d->queries);
    if (!d->queries) return complain("the queries", "no memory");
    memcpy(d->queries, base.queries, values * sizeof *d->queries);
    memcpy(d->queries + values, fresh.queries, values * sizeof *d->queries);
    free(base.queries);
    free(fresh.queries);
    return 0;
}

void writes_data_free(writes_data *d)
{
    free(d->base);
    free(d->fresh);
    free(d->queries);
}

typedef struct source {
    const char *bytes;
    size_t length, at;
} source;

static pados_status take(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    source *s = context;
    (void)error;
    *got = s->length - s->at < max ? s->length - s->at : max;
    memcpy(data, s->bytes + s->at, *got);
    s->at += *got;
    return 0;
}

static char *attributes_of(uint64_t rows, size_t *length)
{
    size_t room = 64 + rows * 48;
    char *text = malloc(room);
    uint64_t state = 7;
    if (!text) return NULL;
    size_t at = (size_t)snprintf(text, room, "id,price,stock,zone,brand\n");
    for (uint64_t i = 0; i < rows; i++)
        at +=
            (size_t)snprintf(text + at, room - at, "%llu,%u.%02u,%s,z%u,%u\n", (unsigned long long)i,
                             (unsigned)pd_random_below(&state, 200), (unsigned)pd_random_below(&state, 100),
                             pd_random_below(&state, 8) ? "yes" : "no", (unsigned)pd_random_below(&state, 16),
                             (unsigned)pd_random_below(&state, 1000));
    *length = at;
    return text;
}

int writes_push(pados_client *client, const writes_data *d)
{
    static const char schema[] =
        "table = { metric = \"l2\"; attributes = ( { name = \"price\"; type = \"number\"; },"
        " { name = \"stock\"; type = \"category\"; }, { name = \"zone\"; type = \"category\"; },"
        " { name = \"brand\"; type = \"key\"; } ); };";
    pados_error error;
    source rows = {(const char *)d->base, d->rows * d->dim * sizeof(float), 0}, cells = {0};
    char *text = attributes_of(d->rows, &cells.length);
    if (!text) return complain("the attributes", "no memory");
    cells.bytes = text;
    pados_push push = {.table = WRITES_TABLE,
                       .schema = schema,
                       .dtype = PADOS_F32,
                       .dim = d->dim,
                       .rows = d->rows,
                       .vectors = {take, NULL, &rows, rows.length},
                       .attributes = {take, NULL, &cells, cells.length}};
    uint64_t version;
    pados_status status = pados_push_run(client, &push, &version, &error);
    free(text);
    return status ? complain("the push", error.message) : 0;
}
