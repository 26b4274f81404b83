/* The configuration: defaults, the commented file, --set, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"

static pd_config *load(const char *path, const char *const *sets, size_t nsets)
{
    pd_config *config;
    pd_error err = {0};
    if (pd_config_load(path, sets, nsets, &config, &err)) fail_msg("%s", err.message);
    return config;
}

static void same_listener(const pd_listener_config *a, const pd_listener_config *b)
{
    assert_string_equal(a->url, b->url);
    assert_string_equal(a->cert_file, b->cert_file);
    assert_string_equal(a->key_file, b->key_file);
    assert_string_equal(a->token_file, b->token_file);
    assert_int_equal(a->insecure, b->insecure);
}

static void test_the_commented_file_holds_the_defaults(void **state)
{
    (void)state;
    pd_config *file = load(PADOS_CONFIGS "/padosd.conf", NULL, 0), *plain = load(NULL, NULL, 0);
    assert_string_equal(file->data_folder, plain->data_folder);
    same_listener(&file->data, &plain->data);
    same_listener(&file->admin, &plain->admin);
    same_listener(&file->http, &plain->http);
    assert_string_equal(file->backend, plain->backend);
    assert_string_equal(file->isa, plain->isa);
    /* The rest are numbers, one after the other. */
    size_t from = offsetof(pd_config, memory), size = offsetof(pd_config, log_level) + sizeof(int) - from;
    assert_memory_equal((const char *)file + from, (const char *)plain + from, size);
    pd_error err = {0};
    assert_int_equal(pd_config_check(file, &err), PD_OK);
    pd_config_free(file);
    pd_config_free(plain);
}

static void test_a_set_goes_over_the_file(void **state)
{
    (void)state;
    const char *sets[] = {"slice_us=700", "data.url=\"tcp://127.0.0.1:9000\"", "memory_mib=2.5",
                          "log_level=debug", "refine_host_mib=3"};
    pd_config *config = load(PADOS_CONFIGS "/padosd.conf", sets, 5);
    assert_int_equal(config->slice_us, 700);
    assert_string_equal(config->data.url, "tcp://127.0.0.1:9000");
    assert_true(config->memory == 2621440u);
    assert_true(config->host_memory == 3u << 20);
    assert_int_equal(config->log_level, 3);
    pd_config_free(config);
}

static void test_keys_of_changes_have_units_and_names(void **state)
{
    (void)state;
    pd_config *plain = load(NULL, NULL, 0);
    assert_int_equal(plain->changes_durability, 0);
    assert_int_equal(plain->changes_interval_ms, 50);
    assert_true(plain->changes_bytes == 16ull << 30);
    assert_true(plain->erase_ms == 72ull * 3600 * 1000);
    assert_true(plain->receipt_days == 1095);
    assert_true(plain->recall_sample == 0.001);
    pd_config_free(plain);
    const char *sets[] = {"changes.durability=none", "changes.max_mib=1.5", "erase_hours=0.5",
                          "recall_sample=1", "rebuild_percent=0"};
    pd_config *config = load(PADOS_CONFIGS "/padosd.conf", sets, 5);
    assert_int_equal(config->changes_durability, 2);
    assert_true(config->changes_bytes == 3u << 19);
    assert_true(config->erase_ms == 1800000);
    assert_true(config->recall_sample == 1.0);
    assert_int_equal(config->rebuild_percent, 0);
    pd_config_free(config);
}

static void refused(const char *set, const char *word)
{
    pd_config *config;
    pd_error err = {0};
    const char *sets[] = {set};
    assert_int_equal(pd_config_load(NULL, sets, 1, &config, &err), PD_INVALID_ARGUMENT);
    if (!strstr(err.message, word)) fail_msg("\"%s\" does not say \"%s\"", err.message, word);
}

static void test_what_is_not_known_or_out_of_bounds_is_refused_by_name(void **state)
{
    (void)state;
    refused("slice_ms=5", "slice_ms");
    refused("data.uri=\"x\"", "uri");
    refused("max_queries=4097", "max_queries");
    refused("threads=-1", "threads");
    refused("refine_host_mib=-1", "refine_host_mib");
    refused("slice_us=\"fast\"", "slice_us");
    refused("log_level=loud", "log_level");
    refused("changes.durability=often", "sync, interval or none");
    refused("changes.sync=true", "sync");
    refused("recall_sample=1.5", "recall_sample");
    refused("spare_percent=1001", "spare_percent");
    refused("writer_threads=0", "writer_threads");
    refused("deadline_ms=100000", "max_deadline_ms");
    refused("max_chunk=67108864", "max_message");
    refused("queue_queries=100", "max_queries");
}

static void test_a_file_error_names_file_line_and_key(void **state)
{
    (void)state;
    char path[] = "/tmp/pados-config-XXXXXX";
    int fd = mkstemp(path);
    const char text[] = "threads = 2;\n\nslice_mus = 1;\n";
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    pd_config *config;
    pd_error err = {0};
    assert_int_equal(pd_config_load(path, NULL, 0, &config, &err), PD_INVALID_ARGUMENT);
    unlink(path);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, ":3"));
    assert_non_null(strstr(err.message, "slice_mus"));
}

static pd_status check(const char *const *sets, size_t nsets, pd_error *err)
{
    pd_config *config = load(NULL, sets, nsets);
    pd_status status = pd_config_check(config, err);
    pd_config_free(config);
    return status;
}

static void test_a_public_address_needs_tls_and_a_token_or_the_word_insecure(void **state)
{
    (void)state;
    static const char *const public[] = {
        "data.url=\"tcp://0.0.0.0:7461\"", "admin.url=\"tcp://192.0.2.7:1\"", "http.url=\"http://[::]:80\"",
        "data.url=\"tcp://127.0.0.1.example.com:1\"", "data.url=\"tcp://*:7461\""};
    for (size_t i = 0; i < sizeof public / sizeof public[0]; i++) {
        pd_error err = {0};
        assert_int_equal(check(&public[i], 1, &err), PD_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, "insecure = true"));
    }
    static const char *const local[] = {"data.url=\"tcp://127.9.9.9:1\"", "data.url=\"tcp://[::1]:1\"",
                                        "data.url=\"tcp://localhost:1\"", "data.url=\"ipc:///tmp/x\"",
                                        "http.url=\"\""};
    pd_error err = {0};
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        assert_int_equal(check(&local[i], 1, &err), PD_OK);
    const char *both[] = {public[0], "data.insecure=true"};
    assert_int_equal(check(both, 2, &err), PD_OK);
}

static void test_tls_files_are_looked_at_before_anything_starts(void **state)
{
    (void)state;
    pd_error err = {0};
    const char *bare[] = {"data.url=\"tls+tcp://127.0.0.1:1\""};
    assert_int_equal(check(bare, 1, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "cert_file"));
    const char *absent[] = {bare[0], "data.cert_file=\"/nowhere/c.pem\"", "data.key_file=\"/nowhere/k.pem\""};
    assert_int_equal(check(absent, 3, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "/nowhere/c.pem"));
    const char *wrong[] = {bare[0], "data.cert_file=\"" PADOS_CONFIGS "/padosd.conf\"",
                           "data.key_file=\"/nowhere/k\""};
    assert_int_equal(check(wrong, 3, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "CERTIFICATE"));
    const char *unused[] = {"data.cert_file=\"/nowhere/c.pem\""};
    assert_int_equal(check(unused, 1, &err), PD_INVALID_ARGUMENT);
    const char *token[] = {"admin.token_file=\"/nowhere/tokens\""};
    assert_int_equal(check(token, 1, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "admin.token_file"));
}

static void test_what_was_bound_opened_or_reserved_cannot_change(void **state)
{
    (void)state;
    pd_config *now = load(NULL, NULL, 0);
    static const char *const fixed[] = {"data_folder=x",
                                        "data.url=\"ipc:///tmp/x\"",
                                        "admin.cert_file=x",
                                        "http.key_file=x",
                                        "backend=cpu",
                                        "isa=avx2",
                                        "memory_mib=2",
                                        "refine_host_mib=2",
                                        "threads=3",
                                        "builder_threads=3",
                                        "builder_priority=normal",
                                        "writer_threads=2",
                                        "changes.durability=none",
                                        "changes.max_mib=7"};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        pd_error err = {0};
        char key[32];
        snprintf(key, sizeof key, "%.*s", (int)strcspn(fixed[i], "="), fixed[i]);
        pd_config *next = load(NULL, &fixed[i], 1);
        assert_int_equal(pd_config_change(now, next, &err), PD_FAILED_PRECONDITION);
        if (!strstr(err.message, key)) fail_msg("\"%s\" does not name %s", err.message, key);
        pd_config_free(next);
    }
    const char *moving[] = {"slice_us=700", "deadline_ms=5", "data.token_file=x", "recall_sample=0.5",
                            "log_level=error"};
    pd_config *next = load(NULL, moving, 5);
    pd_error err = {0};
    assert_int_equal(pd_config_change(now, next, &err), PD_OK);
    pd_config_free(next);
    pd_config_free(now);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_commented_file_holds_the_defaults),
        cmocka_unit_test(test_a_set_goes_over_the_file),
        cmocka_unit_test(test_keys_of_changes_have_units_and_names),
        cmocka_unit_test(test_what_is_not_known_or_out_of_bounds_is_refused_by_name),
        cmocka_unit_test(test_a_file_error_names_file_line_and_key),
        cmocka_unit_test(test_what_was_bound_opened_or_reserved_cannot_change),
        cmocka_unit_test(test_a_public_address_needs_tls_and_a_token_or_the_word_insecure),
        cmocka_unit_test(test_tls_files_are_looked_at_before_anything_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
