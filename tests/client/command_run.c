#include "command_run.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];
fake_server *server;
outcome last; /* too large for the stack of every test */

int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/pados-command-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    unsetenv("PADOS_TOKEN");
    server = fake_start("tcp://127.0.0.1:0");
    if (!server) return -1;
    return setenv("PADOS_URL", fake_url(server), 1);
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
    (void)about, (void)kind, (void)walk;
    return remove(path);
}

int tear_down(void **state)
{
    (void)state;
    fake_stop(server);
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *in_folder(const char *name)
{
    static char paths[32][160];
    static int next;
    char *path = paths[next++ % 32];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

const char *write_file(const char *name, const void *bytes, size_t length)
{
    const char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return path;
}

const char *write_text(const char *name, const char *text)
{
    return write_file(name, text, strlen(text));
}

static void read_back(const char *name, char *room, size_t size)
{
    FILE *file = fopen(in_folder(name), "rb");
    assert_non_null(file);
    size_t got = fread(room, 1, size - 1, file);
    room[got] = '\0';
    fclose(file);
}

void run(const char *first, ...)
{
    const char *argv[48] = {getenv("PADOS")};
    if (!argv[0]) fail_msg("PADOS does not name the command (ctest sets it)");
    va_list args;
    va_start(args, first);
    int n = 1;
    for (const char *a = first; a && n < 47; a = va_arg(args, const char *))
        argv[n++] = a;
    va_end(args);
    pid_t pid = fork();
    if (pid == 0) {
        int out = open(in_folder("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int err = open(in_folder("err"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (out < 0 || err < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(126);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    read_back("out", last.out, sizeof last.out);
    read_back("err", last.err, sizeof last.err);
    if (!WIFEXITED(status)) fail_msg("the command died of signal %d: %s", WTERMSIG(status), last.err);
    last.code = WEXITSTATUS(status);
}

void expect(int code, const char *out, const char *err)
{
    if (last.code != code) fail_msg("exit code %d, not %d\n%s%s", last.code, code, last.out, last.err);
    if (out && !strstr(last.out, out)) fail_msg("stdout does not say \"%s\":\n%s", out, last.out);
    if (err && !strstr(last.err, err)) fail_msg("stderr does not say \"%s\":\n%s", err, last.err);
}

json_t *json_at(int line)
{
    const char *text = last.out;
    for (; line > 0; line--) {
        text = strchr(text, '\n');
        if (!text) fail_msg("there are not so many lines:\n%s", last.out);
        text++;
    }
    json_t *object = json_loads(text, JSON_DISABLE_EOF_CHECK, NULL);
    if (!object) fail_msg("not JSON: %s", text);
    return object;
}

size_t lines(void)
{
    size_t count = 0;
    for (const char *c = last.out; *c; c++)
        count += *c == '\n';
    return count;
}

const char *vectors_fvecs(int rows)
{
    char *bytes = calloc((size_t)rows, 20);
    assert_non_null(bytes);
    for (int i = 0; i < rows; i++) {
        const int32_t dim = 4;
        const float row[4] = {(float)i, 1, 2, 3};
        memcpy(bytes + 20 * i, &dim, 4);
        memcpy(bytes + 20 * i + 4, row, 16);
    }
    const char *path = write_file("rows.fvecs", bytes, 20 * (size_t)rows);
    free(bytes);
    return path;
}
