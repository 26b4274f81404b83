/* What HTTP shows of a real server: health, readiness, a page, and metrics that a Prometheus can read: every line has a form,
 * every family one TYPE before it and no second place, no sample stands twice. */
#include "admin.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROWS = 200, DIM = 8, ROOM = 1 << 20 };

static server host;
static pados_client *client;
static int port;
static char page[ROOM];

/* The port that the log names, since any free one was asked for. */
static int http_port(void)
{
    char path[160], line[1024];
    int found = 0;
    snprintf(path, sizeof path, "%s/log", host.folder);
    FILE *log = fopen(path, "r");
    assert_non_null(log);
    while (fgets(line, sizeof line, log)) {
        const char *at = strstr(line, "http http://127.0.0.1:");
        if (at) found = atoi(at + strlen("http http://127.0.0.1:"));
    }
    fclose(log);
    assert_true(found > 0);
    return found;
}

static int start(void **state)
{
    (void)state;
    static float rows[ROWS * DIM];
    pados_error error;
    snprintf(host.http, sizeof host.http, "http://127.0.0.1:0");
    server_start(&host, NULL);
    client = server_client(&host);
    port = http_port();
    make_rows(1, ROWS, DIM, 4, rows);
    must(push_rows(client, "goods", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    must(push_rows(client, "users", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    pados_close(client);
    int status = server_stop(&host);
    server_remove(&host);
    return status;
}

/* The status of a GET; the body is in page. */
static int get(const char *path)
{
    char ask[256];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    int length =
        snprintf(ask, sizeof ask, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path);
    assert_int_equal(write(fd, ask, (size_t)length), length);
    size_t have = 0;
    for (ssize_t got; have < ROOM - 1 && (got = read(fd, page + have, ROOM - 1 - have)) > 0;)
        have += (size_t)got;
    close(fd);
    page[have] = 0;
    int status = 0;
    assert_int_equal(sscanf(page, "HTTP/1.1 %d", &status), 1);
    char *body = strstr(page, "\r\n\r\n");
    assert_non_null(body);
    memmove(page, body + 4, strlen(body + 4) + 1);
    return status;
}

static void test_health_readiness_and_the_page_answer(void **state)
{
    (void)state;
    assert_int_equal(get("/healthz"), 200);
    assert_int_equal(get("/readyz"), 200);
    assert_int_equal(get("/"), 200);
    assert_non_null(strstr(page, "goods"));
    assert_int_equal(get("/nothing"), 404);
}

/* name{label="value",...} number: the length of the name, 0 where the line has another form. */
static size_t name_of(const char *line)
{
    size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyz_0123456789");
    const char *at = line + name;
    if (*at == '{') {
        int quoted = 0;
        for (at++; *at && (quoted || *at != '}'); at++)
            if (*at == '"') quoted = !quoted;
        if (*at++ != '}') return 0;
    }
    if (*at != ' ') return 0;
    char *end;
    strtod(at + 1, &end);
    return end != at + 1 && !*end ? name : 0;
}

static void family_of(const char *line, size_t name, char *family, size_t room)
{
    static const char *const parts[] = {"_bucket", "_sum", "_count"};
    snprintf(family, room, "%.*s", (int)name, line);
    for (int i = 0; i < 3; i++) {
        char *at = strstr(family, parts[i]);
        if (at && !at[strlen(parts[i])]) *at = 0;
    }
}

static void test_a_prometheus_can_read_the_metrics(void **state)
{
    (void)state;
    static char seen[1024][128], types[256][128];
    uint32_t nseen = 0, ntypes = 0, samples = 0;
    assert_int_equal(get("/metrics"), 200);
    for (char *next, *line = page; *line; line = next) {
        next = strchr(line, '\n');
        assert_non_null(next); /* the last line ends as well */
        *next++ = 0;
        if (!strncmp(line, "# HELP ", 7)) continue;
        if (!strncmp(line, "# TYPE ", 7)) {
            char type[32];
            assert_true(ntypes < 256);
            assert_int_equal(sscanf(line, "# TYPE %127s %31s", types[ntypes], type), 2);
            assert_true(!strcmp(type, "counter") || !strcmp(type, "gauge") || !strcmp(type, "histogram"));
            for (uint32_t i = 0; i < ntypes; i++)
                if (!strcmp(types[i], types[ntypes])) fail_msg("%s has two TYPEs", types[i]);
            ntypes++;
            continue;
        }
        size_t name = name_of(line);
        if (!name) fail_msg("\"%s\" is no sample", line);
        char family[128];
        family_of(line, name, family, sizeof family);
        /* A family stands under its own TYPE, the one read last: so it stands in one place. */
        if (!ntypes || strcmp(types[ntypes - 1], family) != 0)
            fail_msg("\"%s\" stands under the TYPE of %s", line, ntypes ? types[ntypes - 1] : "nothing");
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)(strrchr(line, ' ') - line), line);
        for (uint32_t i = 0; i < nseen; i++)
            if (!strcmp(seen[i], key)) fail_msg("%s stands twice", key);
        assert_true(nseen < 1024);
        memcpy(seen[nseen++], key, sizeof key);
        samples++;
    }
    assert_true(samples > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_health_readiness_and_the_page_answer),
        cmocka_unit_test(test_a_prometheus_can_read_the_metrics),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
