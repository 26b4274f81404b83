/* The strict reader of libconfig text: what libconfig lets pass is refused, by file, line and key. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "conf.h"

static pd_conf *parse(const char *text)
{
    pd_conf *conf;
    pd_error err;
    if (pd_conf_parse("a.conf", text, strlen(text), &conf, &err) != PD_OK) fail_msg("%s", err.message);
    return conf;
}

static void assert_refused(const char *text, const char *message)
{
    pd_conf *conf;
    pd_error err;
    assert_int_equal(pd_conf_parse("a.conf", text, strlen(text), &conf, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    assert_null(conf);
}

/* Finishes and compares what was wrong. */
static void assert_finish(pd_conf *conf, const char *message)
{
    pd_error err;
    assert_int_equal(pd_conf_finish(conf, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, message);
    pd_conf_close(conf);
}

static void test_every_kind_of_setting_is_read(void **state)
{
    (void)state;
    pd_conf *conf =
        parse("port = 7000; big = 5000000000L; ratio = 0.25; whole = 3; on = true; name = \"x\";\n"
              "list = ( 1, \"two\", { deep = 4; } ); array = [ 1, 2 ];");
    pd_setting *root = pd_conf_root(conf);
    assert_int_equal(pd_conf_int(conf, root, "port", 1, 0, 65535), 7000);
    assert_int_equal(pd_conf_int(conf, root, "big", 0, 0, INT64_MAX), 5000000000);
    assert_true(pd_conf_float(conf, root, "ratio", 0, 0, 1) == 0.25);
    assert_true(pd_conf_float(conf, root, "whole", 0, 0, 10) == 3.0);
    assert_true(pd_conf_bool(conf, root, "on", 0));
    assert_string_equal(pd_conf_string(conf, root, "name", ""), "x");
    pd_setting *list = pd_conf_list(conf, root, "list");
    assert_int_equal(pd_conf_length(list), 3);
    assert_true(pd_conf_as_u64(conf, pd_conf_at(conf, list, 0)) == 1);
    assert_string_equal(pd_conf_as_string(conf, pd_conf_at(conf, list, 1)), "two");
    assert_int_equal(pd_conf_int(conf, pd_conf_at(conf, list, 2), "deep", 0, 0, 9), 4);
    pd_setting *array = pd_conf_list(conf, root, "array");
    assert_true(pd_conf_as_float(conf, pd_conf_at(conf, array, 0)) == 1.0);
    assert_true(pd_conf_as_float(conf, pd_conf_at(conf, array, 1)) == 2.0);
    assert_int_equal(pd_conf_finish(conf, NULL), PD_OK);
    pd_conf_close(conf);
}

static void test_an_absent_key_has_its_default(void **state)
{
    (void)state;
    pd_conf *conf = parse("");
    pd_setting *root = pd_conf_root(conf);
    assert_int_equal(pd_conf_int(conf, root, "a", 42, 0, 99), 42);
    assert_true(pd_conf_float(conf, root, "b", 1.5, 0, 2) == 1.5);
    assert_int_equal(pd_conf_bool(conf, root, "c", 1), 1);
    assert_string_equal(pd_conf_string(conf, root, "d", "fall"), "fall");
    assert_null(pd_conf_group(conf, root, "e"));
    assert_null(pd_conf_list(conf, root, "f"));
    assert_false(pd_conf_has(conf, root, "g"));
    assert_int_equal(pd_conf_finish(conf, NULL), PD_OK);
    pd_conf_close(conf);
}

static void test_a_key_that_nobody_asked_for_is_an_error(void **state)
{
    (void)state;
    pd_conf *conf = parse("table = {\n  dim = 4;\n  wat = 5;\n};");
    pd_setting *table = pd_conf_group(conf, pd_conf_root(conf), "table");
    assert_int_equal(pd_conf_int(conf, table, "dim", 0, 0, 9), 4);
    assert_finish(conf, "a.conf:3: unknown key \"table.wat\"");
}

static void test_an_unknown_key_inside_a_list_has_its_place(void **state)
{
    (void)state;
    pd_conf *conf = parse("list = ( { a = 1; },\n { b = 2; } );");
    pd_setting *list = pd_conf_list(conf, pd_conf_root(conf), "list");
    for (int i = 0; i < 2; i++)
        pd_conf_int(conf, pd_conf_at(conf, list, i), "a", 0, 0, 9);
    assert_finish(conf, "a.conf:2: unknown key \"list[1].b\"");
}

static void test_a_misspelt_key_is_answered_with_the_right_one(void **state)
{
    (void)state;
    pd_conf *conf = parse("table = {\n metrc = \"ip\"; };");
    pd_setting *table = pd_conf_group(conf, pd_conf_root(conf), "table");
    pd_conf_string(conf, table, "metric", "");
    pd_conf_string(conf, table, "dim", "");
    assert_finish(conf, "a.conf:2: unknown key \"table.metrc\" (did you mean \"metric\"?)");
}

static void test_wrong_types_name_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"\nx = 1.5;", "a.conf:2: key \"x\": must be an integer"},
        {"x = \"1\";", "a.conf:1: key \"x\": must be an integer"},
        {"x = true;", "a.conf:1: key \"x\": must be an integer"},
        {"x = 100;", "a.conf:1: key \"x\": must be from 0 to 10, not 100"},
        {"x = -1;", "a.conf:1: key \"x\": must be from 0 to 10, not -1"},
        {"x = 5000000000L;", "a.conf:1: key \"x\": must be from 0 to 10, not 5000000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_conf *conf = parse(cases[i].text);
        assert_int_equal(pd_conf_int(conf, pd_conf_root(conf), "x", 7, 0, 10), 7);
        assert_finish(conf, cases[i].message);
    }
    pd_conf *conf = parse("g = { y = 1; };");
    pd_conf_bool(conf, pd_conf_group(conf, pd_conf_root(conf), "g"), "y", 0);
    assert_finish(conf, "a.conf:1: key \"g.y\": must be true or false");
    conf = parse("g = 1;");
    assert_null(pd_conf_group(conf, pd_conf_root(conf), "g"));
    assert_finish(conf, "a.conf:1: key \"g\": must be a group { }");
    conf = parse("g = { };");
    assert_null(pd_conf_list(conf, pd_conf_root(conf), "g"));
    assert_finish(conf, "a.conf:1: key \"g\": must be a list ( )");
    conf = parse("s = 5;");
    assert_string_equal(pd_conf_string(conf, pd_conf_root(conf), "s", "f"), "");
    assert_finish(conf, "a.conf:1: key \"s\": must be a string");
    conf = parse("f = 1e999;");
    pd_conf_float(conf, pd_conf_root(conf), "f", 0, 0, 1);
    assert_finish(conf, "a.conf:1: key \"f\": must be a finite number");
    conf = parse("f = 2.5;");
    pd_conf_float(conf, pd_conf_root(conf), "f", 0, 0, 1);
    assert_finish(conf, "a.conf:1: key \"f\": must be from 0 to 1, not 2.5");
    conf = parse("k = ( -3 );");
    pd_conf_as_u64(conf, pd_conf_at(conf, pd_conf_list(conf, pd_conf_root(conf), "k"), 0));
    assert_finish(conf, "a.conf:1: key \"k[0]\": must not be negative");
    conf = parse("s = \"\\xff\";");
    pd_conf_string(conf, pd_conf_root(conf), "s", "");
    assert_finish(conf, "a.conf:1: key \"s\": is not UTF-8");
}

static void test_a_missing_required_key_names_its_group(void **state)
{
    (void)state;
    pd_conf *conf = parse("\ntable = {\n};");
    assert_string_equal(pd_conf_need_string(conf, pd_conf_group(conf, pd_conf_root(conf), "table"), "name"),
                        "");
    assert_finish(conf, "a.conf:2: key \"table.name\": is missing");
}

static void test_the_first_error_is_kept_and_getters_after_it_do_nothing(void **state)
{
    (void)state;
    pd_conf *conf = parse("a = \"x\";\nb = 5;");
    pd_setting *root = pd_conf_root(conf);
    pd_conf_int(conf, root, "a", 0, 0, 9);
    assert_true(pd_conf_failed(conf));
    assert_int_equal(pd_conf_int(conf, root, "b", 3, 0, 9), 3);
    pd_conf_fail(conf, root, "something else");
    assert_finish(conf, "a.conf:1: key \"a\": must be an integer");
}

static void test_an_include_is_refused_before_it_is_followed(void **state)
{
    (void)state;
    char path[] = "/tmp/pados-conf-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "secret = 1;", 11), 11);
    close(file);
    char text[128];
    snprintf(text, sizeof text, "a = 1;\n  @include \"%s\"\n", path);
    assert_refused(text, "a.conf:2: @include is refused");
    snprintf(text, sizeof text, "/* x */ a = \"s\\\"\" @include \"%s\"\n", path);
    assert_refused(text, "a.conf:1: @include is refused");
    unlink(path);
}

static void test_the_word_include_in_a_string_or_comment_is_fine(void **state)
{
    (void)state;
    pd_conf *conf =
        parse("# @include \"x\"\n// @include \"x\"\n/*\n@include \"x\"\n*/ a = \"@include \\\" y\";");
    assert_string_equal(pd_conf_string(conf, pd_conf_root(conf), "a", ""), "@include \" y");
    assert_int_equal(pd_conf_finish(conf, NULL), PD_OK);
    pd_conf_close(conf);
}

static void test_integers_that_would_wrap_are_refused(void **state)
{
    (void)state;
    assert_refused("a = 1;\nb = 2147483648;",
                   "a.conf:2: the integer 2147483648 is over 31 bits: write 2147483648L");
    assert_refused("b = ( 1, -2147483649 );",
                   "a.conf:1: the integer -2147483649 is over 31 bits: write -2147483649L");
    assert_refused("b = 0xffffffff;", "a.conf:1: the integer 0xffffffff is over 31 bits: write 0xffffffffL");
    assert_refused("b = 9223372036854775808L;",
                   "a.conf:1: the integer 9223372036854775808L does not fit in 64 bits");
    assert_refused("b = 99999999999999999999999;",
                   "a.conf:1: the integer 99999999999999999999999 does not fit in 64 bits");
    assert_refused("b = 12abc;", "a.conf:1: \"12a\" starts no number");
    pd_conf *conf =
        parse("a = 2147483647; b = -2147483648; c = 9223372036854775807L; d = 0x7fffffff; e = -1e5;");
    pd_setting *root = pd_conf_root(conf);
    assert_int_equal(pd_conf_int(conf, root, "a", 0, INT64_MIN, INT64_MAX), INT32_MAX);
    assert_int_equal(pd_conf_int(conf, root, "b", 0, INT64_MIN, INT64_MAX), INT32_MIN);
    assert_true(pd_conf_int(conf, root, "c", 0, INT64_MIN, INT64_MAX) == INT64_MAX);
    assert_int_equal(pd_conf_int(conf, root, "d", 0, INT64_MIN, INT64_MAX), INT32_MAX);
    assert_true(pd_conf_float(conf, root, "e", 0, -1e9, 1e9) == -1e5);
    pd_conf_close(conf);
}

static void test_what_libconfig_would_let_pass_is_refused_by_line(void **state)
{
    (void)state;
    assert_refused("a = 1;\nb = 2;\na = 3;", "a.conf:3: duplicate setting name");
    assert_refused("a = [ 1, \"x\" ];", "a.conf:1: mismatched element type in array");
    assert_refused("a = 1;\n/* on and on\n", "a.conf:2: a comment is never closed");
    assert_refused("\na = \"on\nand on", "a.conf:2: a string is never closed");
    assert_refused("a = \"\n\\x00\";", "a.conf:2: a string holds a NUL byte");
    assert_refused("\n\xff", "a.conf:2: is not UTF-8");
    pd_conf *conf;
    pd_error err;
    assert_int_equal(pd_conf_parse("a.conf", "a\n\0 = 1;", 8, &conf, &err), PD_INVALID_ARGUMENT);
    assert_string_equal(err.message, "a.conf:2: holds a NUL byte");
}

static void test_a_syntax_error_says_what_stands_where(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a = 1;\nb = ;", "a.conf:2: ; where a value belongs"},
        {"a\n1;", "a.conf:2: 1 where a = belongs"},
        {"a = 1;;", "a.conf:1: ; where a key belongs"},
        {"a = \"x\" 5;", "a.conf:1: 5 where a key belongs"},
        {"\"a\" = 5;", "a.conf:1: \"a\" where a key belongs"},
        {"a = ( 1 2 );", "a.conf:1: 2 where a comma or the end of the list belongs"},
        {"a = ( 1, );", "a.conf:1: ) where a value belongs"},
        {"a = ( \"x\", b = 1 );", "a.conf:1: b where a value belongs"},
        {"a = ( 1 };", "a.conf:1: } where a comma or the end of the list belongs"},
        {"a = [ ( 1 ) ];", "a.conf:1: an array holds scalars only: write a list ( )"},
        {"a = { b };", "a.conf:1: } where a = belongs"},
        {"a = 1; }", "a.conf:1: } where a key belongs"},
        {"a = word;", "a.conf:1: word where a value belongs"},
        {"_a = 1;", "a.conf:1: _a where a key belongs"},
        {"true = 1;", "a.conf:1: true where a key belongs"},
        {"a.b = 1;", "a.conf:1: . where a = belongs"},
        {"a = { b = 1;\n", "a.conf:2: ends where a key belongs"},
        {"a = ( 1", "a.conf:1: ends where a comma or the end of the list belongs"},
        {"a =", "a.conf:1: ends where a value belongs"},
        {"\xe0\xa4\xaa = 1;", "a.conf:1: \xe0\xa4\xaa where a key belongs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_refused(cases[i].text, cases[i].message);
}

static void test_all_that_libconfigs_grammar_allows_is_read(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "a : 1",
        "a = 1 b = 2, c = 3; d : { }",
        "a = ( ); b = [ ]; c = { };",
        "a = \"x\" /* y */ \"z\" # end\n \"w\"\nb = 1",
        "a = ( ( ( 1 ), { b = ( \"x\" \"y\", 1 ) } ) )",
        "a = [ true, FALSE ]; b = [ 1.5, .5, 5., -1e3 ]; c-d_e* = +7; f = 0X1fL; g = 7LL;",
        "\f\r\n\ta\r=\f1",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        pd_conf_close(parse(texts[i]));
}

/* count times what, between the two ends. */
static char *repeat(const char *before, const char *what, size_t count, const char *after)
{
    size_t length = strlen(what);
    char *text = malloc(strlen(before) + length * count + strlen(after) + 1);
    assert_non_null(text);
    char *at = stpcpy(text, before);
    for (size_t i = 0; i < count; i++)
        at = stpcpy(at, what);
    strcpy(at, after);
    return text;
}

static void test_bombs_of_depth_width_and_length_are_refused(void **state)
{
    (void)state;
    char *text = repeat("a = ", "(", 100000, "");
    assert_refused(text, "a.conf:1: nested deeper than 32 levels");
    free(text);
    text = repeat("a = ", "(", 32, "1");
    char *closed = repeat(text, ")", 32, ";");
    pd_conf_close(parse(closed));
    free(closed);
    free(text);
    text = repeat("", "k = 1; ", 1025, "");
    assert_refused(text, "a.conf:1: a group of more than 1024 keys");
    free(text);
    text = repeat("a = ( 1", ",1", 600000, " );");
    assert_refused(text, "a.conf:1: more than 524288 settings and elements");
    free(text);
    text = repeat("", " ", ((size_t)4 << 20) + 1, "");
    assert_refused(text, "a.conf: 4194305 bytes, more than the 4194304 that a configuration may have");
    free(text);
}

static void test_a_long_list_is_read(void **state)
{
    (void)state;
    char *text = repeat("a = ( (1, 0.5)", ",(7, 0.25)", 65535, " );");
    pd_conf *conf = parse(text);
    pd_setting *list = pd_conf_list(conf, pd_conf_root(conf), "a");
    assert_int_equal(pd_conf_length(list), 65536);
    assert_true(pd_conf_as_u64(conf, pd_conf_at(conf, pd_conf_at(conf, list, 65535), 0)) == 7);
    pd_conf_close(conf);
    free(text);
}

static void test_set_replaces_adds_and_names_itself_in_errors(void **state)
{
    (void)state;
    pd_error err;
    pd_conf *conf = parse("data = { port = 1; };\nlist = ( { a = 1; } );");
    assert_int_equal(pd_conf_set(conf, "data.port=7000", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "data.listen=tcp://127.0.0.1:5000", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "data.quoted=\"a b\"", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "http.ratio=-2.5e-1", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "http.on=TRUE", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "http.list=( 1, ( \"x\" ) )", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "http.version=1.2.3", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "http.empty=", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "list[0].a=2", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "big=5000000000L", &err), PD_OK);
    assert_int_equal(pd_conf_set(conf, "odd=a\"\\b", &err), PD_OK);
    pd_setting *root = pd_conf_root(conf), *data = pd_conf_group(conf, root, "data");
    assert_int_equal(pd_conf_int(conf, data, "port", 0, 0, 65535), 7000);
    assert_string_equal(pd_conf_string(conf, data, "listen", ""), "tcp://127.0.0.1:5000");
    assert_string_equal(pd_conf_string(conf, data, "quoted", ""), "a b");
    pd_setting *http = pd_conf_group(conf, root, "http");
    assert_true(pd_conf_float(conf, http, "ratio", 0, -1, 1) == -0.25);
    assert_true(pd_conf_bool(conf, http, "on", 0));
    pd_setting *list = pd_conf_list(conf, http, "list");
    assert_true(pd_conf_as_u64(conf, pd_conf_at(conf, list, 0)) == 1);
    assert_string_equal(pd_conf_as_string(conf, pd_conf_at(conf, pd_conf_at(conf, list, 1), 0)), "x");
    assert_string_equal(pd_conf_string(conf, http, "version", ""), "1.2.3");
    assert_string_equal(pd_conf_string(conf, http, "empty", "?"), "");
    assert_int_equal(pd_conf_int(conf, pd_conf_at(conf, pd_conf_list(conf, root, "list"), 0), "a", 0, 0, 9),
                     2);
    assert_true(pd_conf_int(conf, root, "big", 0, 0, INT64_MAX) == 5000000000);
    assert_string_equal(pd_conf_string(conf, root, "odd", ""), "a\"\\b");
    assert_int_equal(pd_conf_finish(conf, &err), PD_OK);
    pd_conf_close(conf);

    conf = parse("data = { port = 1; };");
    assert_int_equal(pd_conf_set(conf, "data.port=x", &err), PD_OK);
    pd_conf_int(conf, pd_conf_group(conf, pd_conf_root(conf), "data"), "port", 0, 0, 9);
    assert_finish(conf, "--set: key \"data.port\": must be an integer");
    conf = parse("");
    assert_int_equal(pd_conf_set(conf, "nobody.asked=1", &err), PD_OK);
    assert_finish(conf, "--set: unknown key \"nobody\"");
}

static void test_a_malformed_set_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *assignment, *message;
    } cases[] = {
        {"port", "--set: \"port\" is not key=value"},
        {"=5", "--set: \"=5\" is not key=value"},
        {"port=5000000000", "--set port:1: the integer 5000000000 is over 31 bits: write 5000000000L"},
        {"port=\"x\"; other = 1", "--set port: the value must be one value"},
        {"port={ @include \"/etc/passwd\" }", "--set port:1: @include is refused"},
        {"port.deeper=1", "--set: \"port\" is not a group"},
        {"list[7].a=1", "--set: \"list[7]\" names no element of a list"},
        {"list[x].a=1", "--set: \"list[x]\" names no element of a list"},
        {"1st=1", "--set: \"1st\" cannot be a key"},
    };
    pd_conf *conf = parse("port = 1; list = ( 1 );");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pd_error err;
        assert_int_equal(pd_conf_set(conf, cases[i].assignment, &err), PD_INVALID_ARGUMENT);
        assert_string_equal(err.message, cases[i].message);
    }
    pd_setting *root = pd_conf_root(conf);
    assert_int_equal(pd_conf_int(conf, root, "port", 0, 0, 9), 1);
    pd_conf_at(conf, pd_conf_list(conf, root, "list"), 0);
    assert_int_equal(pd_conf_finish(conf, NULL), PD_OK);
    pd_conf_close(conf);
}

static void test_a_file_is_loaded_and_a_missing_one_is_not_found(void **state)
{
    (void)state;
    char path[] = "/tmp/pados-conf-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(write(file, "a = 5;", 6), 6);
    close(file);
    pd_conf *conf;
    pd_error err;
    assert_int_equal(pd_conf_load(path, &conf, &err), PD_OK);
    assert_int_equal(pd_conf_int(conf, pd_conf_root(conf), "a", 0, 0, 9), 5);
    pd_conf_close(conf);
    unlink(path);
    assert_int_equal(pd_conf_load(path, &conf, &err), PD_NOT_FOUND);
    assert_non_null(strstr(err.message, path));
    assert_null(conf);
}

static void test_numbers_do_not_depend_on_the_locale(void **state)
{
    (void)state;
    static const char *const commas[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const char *got = NULL;
    for (size_t i = 0; i < sizeof commas / sizeof commas[0] && !got; i++)
        got = setlocale(LC_ALL, commas[i]);
    if (!got) skip(); /* no such locale is installed */
    pd_conf *conf = parse("a = 0.25;");
    pd_error err;
    assert_int_equal(pd_conf_set(conf, "b=0.75", &err), PD_OK);
    double a = pd_conf_float(conf, pd_conf_root(conf), "a", 0, 0, 1);
    double b = pd_conf_float(conf, pd_conf_root(conf), "b", 0, 0, 1);
    pd_conf_close(conf);
    setlocale(LC_ALL, "C");
    assert_true(a == 0.25 && b == 0.75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_setting_is_read),
        cmocka_unit_test(test_an_absent_key_has_its_default),
        cmocka_unit_test(test_a_key_that_nobody_asked_for_is_an_error),
        cmocka_unit_test(test_an_unknown_key_inside_a_list_has_its_place),
        cmocka_unit_test(test_a_misspelt_key_is_answered_with_the_right_one),
        cmocka_unit_test(test_wrong_types_name_file_line_and_key),
        cmocka_unit_test(test_a_missing_required_key_names_its_group),
        cmocka_unit_test(test_the_first_error_is_kept_and_getters_after_it_do_nothing),
        cmocka_unit_test(test_an_include_is_refused_before_it_is_followed),
        cmocka_unit_test(test_the_word_include_in_a_string_or_comment_is_fine),
        cmocka_unit_test(test_integers_that_would_wrap_are_refused),
        cmocka_unit_test(test_what_libconfig_would_let_pass_is_refused_by_line),
        cmocka_unit_test(test_a_syntax_error_says_what_stands_where),
        cmocka_unit_test(test_all_that_libconfigs_grammar_allows_is_read),
        cmocka_unit_test(test_bombs_of_depth_width_and_length_are_refused),
        cmocka_unit_test(test_a_long_list_is_read),
        cmocka_unit_test(test_set_replaces_adds_and_names_itself_in_errors),
        cmocka_unit_test(test_a_malformed_set_is_refused_and_changes_nothing),
        cmocka_unit_test(test_a_file_is_loaded_and_a_missing_one_is_not_found),
        cmocka_unit_test(test_numbers_do_not_depend_on_the_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
