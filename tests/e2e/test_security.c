/* Listeners that others can reach need TLS and tokens; configurations are refused by file, line and key. */
#include "admin.h"

#include <unistd.h>

enum { DIM = 8 };

static void refused(const char *word, const char *a, const char *b)
{
    char log[4096];
    const char *args[] = {
        "--set", "data_folder=\"/tmp/pados-never\"", "--set", a, "--set", b ? b : a, "--check", NULL};
    assert_int_not_equal(server_refused(args, log, sizeof log), 0);
    if (!strstr(log, word)) fail_msg("\"%s\" does not say \"%s\"", log, word);
}

static void test_a_public_listener_needs_tls_and_a_token(void **state)
{
    (void)state;
    refused("insecure", "data.url=\"tcp://0.0.0.0:7461\"", NULL);
    refused("insecure", "admin.url=\"tcp://192.0.2.1:7462\"", NULL);
    refused("insecure", "http.url=\"http://0.0.0.0:7463\"", NULL);
}

static void test_insecure_is_a_choice_that_is_spelled_out(void **state)
{
    (void)state;
    char log[4096];
    const char *args[] = {
        "--set", "data.url=\"tcp://0.0.0.0:7461\"", "--set", "data.insecure=true", "--check", NULL};
    assert_int_equal(server_refused(args, log, sizeof log), 0);
}

static void test_tls_without_a_certificate_is_refused_at_start(void **state)
{
    (void)state;
    refused("cert_file", "data.url=\"tls+tcp://127.0.0.1:7461\"", NULL);
}

static void test_unknown_keys_name_file_line_and_key(void **state)
{
    (void)state;
    char path[] = "/tmp/pados-conf-XXXXXX", log[4096];
    int fd = mkstemp(path);
    const char text[] = "threads = 2;\nmemmory_mib = 5;\n";
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    const char *args[] = {"--config", path, "--check", NULL};
    assert_int_not_equal(server_refused(args, log, sizeof log), 0);
    assert_non_null(strstr(log, path));
    assert_non_null(strstr(log, ":2"));
    assert_non_null(strstr(log, "memmory_mib"));
    unlink(path);
}

/* A key and a certificate of its own, valid for 127.0.0.1, made by openssl. */
static void make_certificate(const char *folder)
{
    char command[768];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout %s/key.pem -out "
             "%s/cert.pem "
             "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null",
             folder, folder);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/tokens", folder);
    FILE *file = fopen(command, "w");
    assert_non_null(file);
    fputs("correct-horse-battery\n", file);
    fclose(file);
}

static void test_tls_and_a_token_let_in_whoever_has_both(void **state)
{
    (void)state;
    server host = {0};
    snprintf(host.folder, sizeof host.folder, "/tmp/pados-e2e-XXXXXX");
    assert_non_null(mkdtemp(host.folder));
    make_certificate(host.folder);
    char sets[8][256], url[64], ca[192];
    int port = 20000 + (int)(getpid() % 20000);
    snprintf(url, sizeof url, "tls+tcp://localhost:%d", port);
    snprintf(ca, sizeof ca, "%s/cert.pem", host.folder);
    /* The admin listener speaks TLS and wants the token; the data listener stays local, so that the start is seen. */
    snprintf(sets[0], sizeof sets[0], "admin.url=\"tls+tcp://127.0.0.1:%d\"", port);
    snprintf(sets[1], sizeof sets[1], "admin.cert_file=\"%s\"", ca);
    snprintf(sets[2], sizeof sets[2], "admin.key_file=\"%s/key.pem\"", host.folder);
    snprintf(sets[3], sizeof sets[3], "admin.token_file=\"%s/tokens\"", host.folder);
    const char *all[] = {sets[0], sets[1], sets[2], sets[3], NULL};
    server_start(&host, all);
    pados_client *client;
    pados_error error;
    pados_options good = {
        .token = "correct-horse-battery", .ca_file = ca, .server_name = "localhost", .connect_ms = 10000};
    must(pados_open(url, &good, &client, &error), error);
    pados_close(client);
    pados_options wrong = good;
    wrong.token = "guess";
    must_fail(pados_open(url, &wrong, &client, &error), error, UNAUTHENTICATED, "token");
    pados_options none = good;
    none.token = NULL;
    must_fail(pados_open(url, &none, &client, &error), error, UNAUTHENTICATED, "token");
    assert_int_equal(server_stop(&host), 0);
    server_remove(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_public_listener_needs_tls_and_a_token),
        cmocka_unit_test(test_insecure_is_a_choice_that_is_spelled_out),
        cmocka_unit_test(test_tls_without_a_certificate_is_refused_at_start),
        cmocka_unit_test(test_unknown_keys_name_file_line_and_key),
        cmocka_unit_test(test_tls_and_a_token_let_in_whoever_has_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
