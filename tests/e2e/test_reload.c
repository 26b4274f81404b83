/* SIGHUP: the configuration is read again and taken over whole, or refused whole, while searches go on. */
#include "admin.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 400, DIM = 8, K = 5 };

static server host;
static float rows[ROWS * DIM];
static char tokens_path[160];

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    fclose(file);
}

/* The file's text besides the token file, which it always names. */
static void configure(const char *text)
{
    char whole[1024];
    snprintf(whole, sizeof whole, "admin = { token_file = \"%s\"; };\n%s", tokens_path, text);
    write_file(host.config, whole);
}

/* The data listener wants no token; what goes to the admin listener carries this one. */
static pados_client *open_with(const char *token)
{
    pados_options options = {.token = token, .connect_ms = 10000};
    pados_client *client;
    pados_error error;
    if (pados_open(host.url, &options, &client, &error)) fail_msg("%s", error.message);
    return client;
}

/* Below 0: it cannot be had. */
static double metric(pados_client *admin, const char *name)
{
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Stats stats = PADOS__V1__STATS__INIT;
    Pados__V1__Reply *reply;
    pados_error error;
    request.body_case = PADOS__V1__REQUEST__BODY_STATS;
    request.stats = &stats;
    if (pados_admin(admin, &request, &reply, &error)) return -1;
    double value = -1;
    for (size_t i = 0; i < reply->stats->n_names; i++)
        if (!strcmp(reply->stats->names[i], name)) value = reply->stats->values[i];
    pados_reply_free(reply);
    return value;
}

/* Reloads and waits until the log has one more line that says how it went. token: of the admin listener, afterwards. */
static void reload(const char *result, const char *before, const char *token)
{
    char name[64];
    snprintf(name, sizeof name, "pados_reloads_total{result=\"%s\"}", result);
    pados_client *client = open_with(before);
    double was = metric(client, name);
    pados_close(client);
    assert_true(was >= 0);
    assert_int_equal(kill(host.pid, SIGHUP), 0);
    double is = was;
    for (int i = 0; i < 1000 && is == was; i++) {
        client = open_with(token);
        is = metric(client, name);
        pados_close(client);
        if (is < 0) is = was; /* the token is not good yet */
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    assert_true(is == was + 1);
}

static int start(void **state)
{
    (void)state;
    pados_error error;
    snprintf(host.folder, sizeof host.folder, "/tmp/pados-reload-XXXXXX");
    assert_non_null(mkdtemp(host.folder));
    snprintf(host.config, sizeof host.config, "%s/padosd.conf", host.folder);
    snprintf(tokens_path, sizeof tokens_path, "%s/tokens", host.folder);
    write_file(tokens_path, "first-token\n");
    configure("deadline_ms = 9000;\n");
    server_start(&host, NULL);
    pados_client *client = open_with("first-token");
    make_rows(1, ROWS, DIM, 4, rows);
    must(push_rows(client, "goods", NULL, ROWS, DIM, rows, NULL, NULL, false, NULL, &error), error);
    pados_close(client);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    int status = server_stop(&host);
    server_remove(&host);
    return status;
}

/* ----------------------------------------------------------------------------------------------------- limits --- */

static pados_status search_many(pados_client *client, uint32_t count, pados_error *error)
{
    pados_search search = {.table = "goods", .count = count, .k = K, .vectors = rows, .dim = DIM};
    pados_result *result;
    pados_status status = pados_search_run(client, &search, &result, error);
    if (!status) pados_result_free(result);
    return status;
}

static void test_limits_change_while_it_serves(void **state)
{
    (void)state;
    pados_error error;
    pados_client *client = open_with(NULL);
    must(search_many(client, 20, &error), error);
    configure("max_queries = 10;\nqueue_queries = 10;\nmax_deadline_ms = 8000;\ndeadline_ms = 8000;\n"
              "slice_us = 1000;\nbatch_queries = 8;\npipe_requests = 3;\n");
    reload("done", "first-token", "first-token");
    assert_true(server_says(&host, "the configuration is reloaded"));
    /* This client's hello was of before: the server itself refuses. */
    assert_int_not_equal(search_many(client, 20, &error), 0);
    assert_non_null(strstr(error.message, "10"));
    must(search_many(client, 10, &error), error);
    pados_close(client);
    client = open_with(NULL);
    pados_limits limits;
    pados_limits_of(client, &limits);
    assert_int_equal(limits.max_queries, 10);
    pados_close(client);
    configure("");
    reload("done", "first-token", "first-token");
    client = open_with(NULL);
    must(search_many(client, 20, &error), error);
    pados_close(client);
}

/* ---------------------------------------------------------------------------------------------------- refusals --- */

static void test_a_reload_is_refused_whole(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"max_queries = 7;\nslice_ms = 7;\n", "padosd.conf:3"},
        {"max_queries = 7;\nslice_us = ;\n", "padosd.conf:3"},
        {"max_queries = 7;\nthreads = 1;\nwriter_threads = 2;\n", "threads, writer_threads cannot change"},
        {"max_queries = 7;\nqueue_requests = 65536;\n", "queue_requests is 65536, over the 2048"},
        {"max_queries = 7;\nbatch_queries = 8192;\n", "batch_queries is 8192, over the 4096"},
        {"max_queries = 7;\nhttp = { token_file = \"/nowhere/tokens\"; url = \"\"; };\n", "cannot be read"},
    };
    pados_error error;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        configure(cases[i].text);
        reload("refused", "first-token", "first-token");
        if (!server_says(&host, cases[i].says)) fail_msg("the log does not say \"%s\"", cases[i].says);
        pados_client *client = open_with(NULL);
        must(search_many(client, 20, &error), error);
        pados_close(client);
    }
}

/* ------------------------------------------------------------------------------------------------------ tokens --- */

static atomic_int over;

/* Asks with a token that holds before and after. */
static void *ask_on(void *context)
{
    uint32_t *asked = context;
    pados_client *client = open_with("lasting-token");
    while (!atomic_load(&over)) {
        if (metric(client, "pados_ready") != 1) return context;
        ++*asked;
    }
    pados_close(client);
    return NULL;
}

static void test_tokens_change_without_a_gap(void **state)
{
    (void)state;
    configure("");
    write_file(tokens_path, "first-token\nlasting-token\n");
    reload("done", "first-token", "first-token");
    pthread_t thread;
    uint32_t asked = 0;
    assert_int_equal(pthread_create(&thread, NULL, ask_on, &asked), 0);
    for (int i = 0; i < 20; i++) {
        write_file(tokens_path, i % 2 ? "first-token\nlasting-token\n" : "lasting-token\nsecond-token\n");
        reload("done", "lasting-token", "lasting-token");
        /* An open connection's next request, too, needs a token of now. */
        Pados__V1__Reply *reply;
        pados_error error;
        pados_client *client = open_with(i % 2 ? "second-token" : "first-token");
        assert_int_not_equal(table_get(client, "goods", &reply, &error), 0);
        assert_non_null(strstr(error.message, "token"));
        pados_close(client);
    }
    atomic_store(&over, 1);
    void *failed;
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    assert_true(asked > 0);
    write_file(tokens_path, "");
    reload("refused", "lasting-token", "lasting-token");
    write_file(tokens_path, "first-token\n");
    reload("done", "lasting-token", "first-token");
}

/* ------------------------------------------------------------------------------------------------- under load --- */

static void *search_on(void *context)
{
    (void)context;
    pados_client *client = open_with(NULL);
    pados_error error;
    void *failed = NULL;
    while (!failed && !atomic_load(&over))
        if (search_many(client, 16, &error)) failed = strdup(error.message);
    pados_close(client);
    return failed;
}

static void test_searches_go_on_through_reloads(void **state)
{
    (void)state;
    pthread_t threads[3];
    atomic_store(&over, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, search_on, NULL), 0);
    for (int i = 0; i < 20; i++) {
        char text[256];
        snprintf(
            text, sizeof text,
            "slice_us = %d;\nbatch_queries = %d;\nbatch_wait_us = %d;\nqueue_requests = %d;\nkeep = %d;\n"
            "send_timeout_ms = %d;\nlog_level = \"%s\";\n",
            500 + 100 * i, 1 + 50 * i, 10 * i, 64 + i, i, 3000 + i, i % 2 ? "info" : "debug");
        configure(text);
        reload("done", "first-token", "first-token");
    }
    atomic_store(&over, 1);
    for (int i = 0; i < 3; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        if (failed) fail_msg("%s", (const char *)failed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_change_while_it_serves),
        cmocka_unit_test(test_a_reload_is_refused_whole),
        cmocka_unit_test(test_tokens_change_without_a_gap),
        cmocka_unit_test(test_searches_go_on_through_reloads),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
