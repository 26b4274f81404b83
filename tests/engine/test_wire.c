/* Decoding with a budget, and the checks that need no table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config.h"
#include "pados.pb-c.h"
#include "request.h"
#include "tokens.h"
#include "wire.h"

static uint8_t *pack(const Pados__V1__Request *request, size_t *length)
{
    *length = pados__v1__request__get_packed_size(request);
    uint8_t *bytes = malloc(*length + 1);
    assert_non_null(bytes);
    pados__v1__request__pack(request, bytes);
    return bytes;
}

static void test_a_request_survives_the_way(void **state)
{
    (void)state;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Search search = PADOS__V1__SEARCH__INIT;
    Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
    Pados__V1__Context context = PADOS__V1__CONTEXT__INIT, *contexts[] = {&context};
    char *keys[] = {"festival"}, *values[] = {"diwali"};
    float vector[300];
    for (int i = 0; i < 300; i++)
        vector[i] = (float)i;
    uint64_t ids[1000];
    for (uint64_t i = 0; i < 1000; i++)
        ids[i] = i * i;
    request.id = 77;
    request.body_case = PADOS__V1__REQUEST__BODY_SEARCH;
    request.search = &search;
    search.table = "products";
    search.count = 1;
    search.k = 10;
    search.vectors = &matrix;
    matrix.rows = 1;
    matrix.dim = 300;
    matrix.data = (ProtobufCBinaryData){sizeof vector, (uint8_t *)vector};
    search.contexts = contexts;
    search.n_contexts = 1;
    context.keys = keys;
    context.values = values;
    context.n_keys = context.n_values = 1;
    search.from_ids = ids;
    search.n_from_ids = 1000;
    size_t length;
    uint8_t *bytes = pack(&request, &length);
    pd_wire *wire;
    pd_error err = {0};
    assert_int_equal(pd_wire_decode(bytes, length, &wire, &err), PD_OK);
    free(bytes);
    const Pados__V1__Request *back = pd_wire_request(wire);
    assert_true(back->id == 77);
    assert_string_equal(pd_wire_body(back), "search");
    assert_string_equal(back->search->table, "products");
    assert_memory_equal(back->search->vectors->data.data, vector, sizeof vector);
    assert_memory_equal(back->search->from_ids, ids, sizeof ids);
    assert_string_equal(back->search->contexts[0]->values[0], "diwali");
    assert_true(pd_wire_held(wire) <= pd_wire_budget(length));
    pd_wire_free(wire);
}

/* One repeated field of a search, empty, over and over: 2 bytes each on the wire. */
static void test_a_megabyte_of_empty_parts_is_refused_within_its_budget(void **state)
{
    (void)state;
    static const unsigned char fields[] = {0x3a /* mixes */, 0x62 /* contexts */, 0x72 /* overrides */,
                                           0x7a /* filters */};
    size_t size = 1u << 20;
    uint8_t *bytes = malloc(size + 4);
    assert_non_null(bytes);
    memcpy(bytes, (unsigned char[]){0x5a, 0x80, 0x80, 0x40}, 4); /* field 11: search, 1 MiB */
    for (size_t f = 0; f < sizeof fields; f++) {
        for (size_t i = 0; i < size; i += 2) {
            bytes[4 + i] = fields[f];
            bytes[5 + i] = 0;
        }
        pd_wire *wire;
        pd_error err = {0};
        assert_int_equal(pd_wire_decode(bytes, size + 4, &wire, &err), PD_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(err.message, "1048580 bytes"));
    }
    free(bytes);
}

static void test_thousands_of_honest_contexts_are_within_the_budget(void **state)
{
    (void)state;
    enum { N = 4096 };
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    Pados__V1__Search search = PADOS__V1__SEARCH__INIT;
    Pados__V1__Context *contexts = calloc(N, sizeof *contexts), **pointers = calloc(N, sizeof *pointers);
    char *keys[] = {"festival", "language", "zone"}, *values[] = {"diwali", "hi", "south"};
    for (int i = 0; i < N; i++) {
        pados__v1__context__init(&contexts[i]);
        contexts[i].keys = keys;
        contexts[i].values = values;
        contexts[i].n_keys = contexts[i].n_values = 3;
        pointers[i] = &contexts[i];
    }
    request.body_case = PADOS__V1__REQUEST__BODY_SEARCH;
    request.search = &search;
    search.contexts = pointers;
    search.n_contexts = N;
    size_t length;
    uint8_t *bytes = pack(&request, &length);
    pd_wire *wire;
    pd_error err = {0};
    if (pd_wire_decode(bytes, length, &wire, &err)) fail_msg("%s", err.message);
    pd_wire_free(wire);
    free(bytes);
    free(contexts);
    free(pointers);
}

/* A batch of the most rows that one write may have, each attribute a dictionary of as many texts as there are rows. */
enum { BATCH = 65536 };

typedef struct batch {
    uint64_t *ids;
    uint32_t *of;
    char **texts, *bytes;
    Pados__V1__AttributeValues values[8], *pointers[8];
} batch;

static void make_batch(batch *b, size_t attributes, size_t text_bytes, bool dictionary)
{
    b->ids = calloc(BATCH, sizeof *b->ids);
    b->of = calloc(BATCH, sizeof *b->of);
    b->texts = calloc(BATCH, sizeof *b->texts);
    b->bytes = calloc(BATCH, text_bytes + 1);
    assert_non_null(b->ids);
    assert_non_null(b->of);
    assert_non_null(b->texts);
    assert_non_null(b->bytes);
    for (uint32_t i = 0; i < BATCH; i++) {
        b->ids[i] = i;
        b->of[i] = i;
        b->texts[i] = b->bytes + i * (text_bytes + 1);
        memset(b->texts[i], 'a', text_bytes);
    }
    for (size_t a = 0; a < attributes; a++) {
        pados__v1__attribute_values__init(&b->values[a]);
        b->values[a].attribute = "department";
        b->values[a].texts = b->texts;
        b->values[a].n_texts = BATCH;
        b->values[a].text_of = b->of;
        b->values[a].n_text_of = dictionary ? BATCH : 0;
        b->pointers[a] = &b->values[a];
    }
}

static void free_batch(batch *b)
{
    free(b->ids);
    free(b->of);
    free(b->texts);
    free(b->bytes);
}

static void passes(const Pados__V1__Request *request, const char *body)
{
    size_t length;
    uint8_t *bytes = pack(request, &length);
    pd_wire *wire;
    pd_error err = {0};
    if (pd_wire_decode(bytes, length, &wire, &err)) fail_msg("%s", err.message);
    assert_string_equal(pd_wire_body(pd_wire_request(wire)), body);
    assert_true(pd_wire_held(wire) <= pd_wire_budget(length));
    pd_wire_free(wire);
    free(bytes);
}

static void test_the_largest_honest_batches_are_within_the_budget(void **state)
{
    (void)state;
    static const struct {
        size_t attributes, text_bytes;
        bool dictionary;
    } cases[] = {{4, 8, true}, {4, 1, true},  {1, 1, true}, {8, 0, true},
                 {1, 0, true}, {1, 0, false}, {4, 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        batch b;
        make_batch(&b, cases[i].attributes, cases[i].text_bytes, cases[i].dictionary);
        Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
        Pados__V1__Update update = PADOS__V1__UPDATE__INIT;
        update.table = "products";
        update.ids = b.ids;
        update.n_ids = BATCH;
        update.attributes = b.pointers;
        update.n_attributes = cases[i].attributes;
        request.body_case = PADOS__V1__REQUEST__BODY_UPDATE;
        request.update = &update;
        passes(&request, "update");

        float *vectors = calloc(BATCH, 4 * sizeof *vectors);
        assert_non_null(vectors);
        Pados__V1__Matrix matrix = PADOS__V1__MATRIX__INIT;
        matrix.rows = BATCH;
        matrix.dim = 4;
        matrix.data = (ProtobufCBinaryData){BATCH * 4 * sizeof *vectors, (uint8_t *)vectors};
        Pados__V1__Upsert upsert = PADOS__V1__UPSERT__INIT;
        upsert.table = "products";
        upsert.ids = b.ids;
        upsert.n_ids = BATCH;
        upsert.vectors = &matrix;
        upsert.attributes = b.pointers;
        upsert.n_attributes = cases[i].attributes;
        request.body_case = PADOS__V1__REQUEST__BODY_UPSERT;
        request.upsert = &upsert;
        passes(&request, "upsert");
        free(vectors);
        free_batch(&b);
    }
}

static void test_a_batch_of_events_is_within_the_budget(void **state)
{
    (void)state;
    batch b;
    make_batch(&b, 0, 1, true);
    float *weights = calloc(BATCH, sizeof *weights);
    assert_non_null(weights);
    Pados__V1__Feedback feedback = PADOS__V1__FEEDBACK__INIT;
    feedback.table = "products";
    feedback.items = feedback.users = b.ids;
    feedback.n_items = feedback.n_users = BATCH;
    feedback.events = b.texts;
    feedback.n_events = BATCH;
    feedback.event_of = b.of;
    feedback.n_event_of = BATCH;
    feedback.weights = weights;
    feedback.n_weights = BATCH;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_FEEDBACK;
    request.feedback = &feedback;
    passes(&request, "feedback");
    free(weights);
    free_batch(&b);
}

/* Fields of two bytes, over and over, one or two messages deep. */
static void test_a_write_of_a_megabyte_of_empty_parts_is_refused_within_its_budget(void **state)
{
    (void)state;
    static const struct {
        unsigned char body[2]; /* the tag of upsert, update or feedback in a Request */
        unsigned char inner;   /* the tag of attributes around the parts; 0: none */
        unsigned char part;
    } cases[] = {
        {{0xe2, 0x03}, 0, 0x2a},    /* Upsert.attributes */
        {{0xf2, 0x03}, 0, 0x22},    /* Update.attributes */
        {{0xe2, 0x03}, 0x2a, 0x22}, /* Upsert.attributes[0].texts */
        {{0xe2, 0x03}, 0x2a, 0x12}, /* Upsert.attributes[0].numbers, again and again */
        {{0xfa, 0x03}, 0, 0x2a},    /* Feedback.events */
        {{0xfa, 0x03}, 0, 0x1a},    /* Feedback.items, packed, of nothing */
    };
    enum { SIZE = 1 << 20 };
    uint8_t *bytes = malloc(SIZE + 16);
    assert_non_null(bytes);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t at = 0, inner = cases[c].inner ? 5 : 0, length = SIZE + inner;
        bytes[at++] = cases[c].body[0];
        bytes[at++] = cases[c].body[1];
        for (int i = 0; i < 4; i++)
            bytes[at++] = (uint8_t)((length >> (7 * i)) & 0x7f) | (i < 3 ? 0x80 : 0);
        if (inner) {
            bytes[at++] = cases[c].inner;
            for (int i = 0; i < 4; i++)
                bytes[at++] = (uint8_t)((SIZE >> (7 * i)) & 0x7f) | (i < 3 ? 0x80 : 0);
        }
        for (size_t i = 0; i < SIZE; i += 2) {
            bytes[at++] = cases[c].part;
            bytes[at++] = 0;
        }
        pd_wire *wire;
        pd_error err = {0};
        pd_status status = pd_wire_decode(bytes, at, &wire, &err);
        if (status != PD_RESOURCE_EXHAUSTED)
            fail_msg("case %zu is answered %d %s", c, (int)status, err.message);
    }
    free(bytes);
}

static void test_every_body_has_a_name(void **state)
{
    (void)state;
    static const struct {
        Pados__V1__Request__BodyCase body;
        const char *name;
    } cases[] = {{PADOS__V1__REQUEST__BODY_UPSERT, "upsert"},
                 {PADOS__V1__REQUEST__BODY_DELETE, "delete"},
                 {PADOS__V1__REQUEST__BODY_UPDATE, "update"},
                 {PADOS__V1__REQUEST__BODY_FEEDBACK, "feedback"},
                 {PADOS__V1__REQUEST__BODY_ERASE, "erase"},
                 {PADOS__V1__REQUEST__BODY_ERASURE_LIST, "erasure_list"},
                 {PADOS__V1__REQUEST__BODY_EXPORT, "export"},
                 {PADOS__V1__REQUEST__BODY_SNAPSHOT, "snapshot"},
                 {PADOS__V1__REQUEST__BODY_REBUILD, "rebuild"},
                 {PADOS__V1__REQUEST__BODY_HELLO, "hello"},
                 {PADOS__V1__REQUEST__BODY__NOT_SET, "nothing"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
        request.body_case = cases[i].body;
        assert_string_equal(pd_wire_body(&request), cases[i].name);
    }
}

static void test_noise_is_not_a_request(void **state)
{
    (void)state;
    pd_wire *wire;
    pd_error err = {0};
    uint8_t noise[64];
    memset(noise, 0xff, sizeof noise);
    assert_int_equal(pd_wire_decode(noise, sizeof noise, &wire, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "64 bytes"));
    assert_int_equal(pd_wire_decode(noise, 0, &wire, &err), PD_OK);
    assert_string_equal(pd_wire_body(pd_wire_request(wire)), "nothing");
    pd_wire_free(wire);
}

static void test_text_that_is_not_utf8_is_made_so(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } cases[] = {{"diwali", "diwali"},         {"दीवाली", "दीवाली"},
                 {"a\xff z", "a? z"},          {"\xc0\xaf", "??"},
                 {"\xed\xa0\x80", "???"},      {"cut \xe0\xa4", "cut ??"},
                 {"\xf4\x90\x80\x80", "????"}, {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32];
        strcpy(text, cases[i].from);
        pd_utf8_clean(text);
        assert_string_equal(text, cases[i].to);
    }
}

/* ------------------------------------------------------------------------------------------------- checking --- */

static pd_config limits = {.max_queries = 4096, .max_hits = 1000000};

static Pados__V1__Search good(void)
{
    Pados__V1__Search s = PADOS__V1__SEARCH__INIT;
    s.table = "products";
    s.count = 2;
    s.k = 10;
    return s;
}

static void refused(const Pados__V1__Search *s, const char *word)
{
    pd_error err = {0};
    assert_int_equal(pd_search_check(s, &limits, &err), PD_INVALID_ARGUMENT);
    if (!strstr(err.message, word)) fail_msg("\"%s\" does not say \"%s\"", err.message, word);
}

static void test_every_field_out_of_place_is_named(void **state)
{
    (void)state;
    pd_error err = {0};
    Pados__V1__Search s = good();
    assert_int_equal(pd_search_check(&s, &limits, &err), PD_OK);
    s.table = "", refused(&s, "table"), s = good();
    s.count = 0, refused(&s, "count"), s.count = 4097, refused(&s, "4097"), s = good();
    s.k = 0, refused(&s, "k is 0"), s.k = 1001, refused(&s, "1001"), s = good();
    s.count = 4096, s.k = 1000, refused(&s, "4096000"), s = good();
    s.recall = 1.01f, refused(&s, "recall"), s.recall = NAN, refused(&s, "recall"), s.recall = -1,
    refused(&s, "recall");
    s = good();
    s.recall = 0.9f, s.exact = 1, refused(&s, "at most one"), s.recall = 0, s.nprobe = 3,
    refused(&s, "at most one");
    s = good();
    s.has_min_score = 1, s.min_score = NAN, refused(&s, "min_score"), s = good();
    uint64_t ids[3] = {1, 2, 3};
    s.from_ids = ids, s.n_from_ids = 3, refused(&s, "from_ids"), s = good();
    s.from_table = "users", refused(&s, "from_table"), s = good();
    uint32_t of[2] = {0, 1};
    s.context_of = of, s.n_context_of = 2, refused(&s, "context_of[0]"), s = good();
    char *names[40] = {0};
    s.attributes = names, s.n_attributes = 40, refused(&s, "attributes"), s = good();
    s.count = 4096, s.k = 200, s.explain = 1, refused(&s, "explain");
}

static void test_a_matrix_must_have_just_its_bytes(void **state)
{
    (void)state;
    Pados__V1__Matrix m = PADOS__V1__MATRIX__INIT;
    uint8_t bytes[64] = {0};
    pd_error err = {0};
    Pados__V1__Search s = good();
    s.vectors = &m;
    m.rows = 2;
    m.dim = 4;
    m.data = (ProtobufCBinaryData){32, bytes};
    assert_int_equal(pd_search_check(&s, &limits, &err), PD_OK);
    m.dtype = PADOS__V1__DTYPE__F16, refused(&s, "16"), m.data.len = 16;
    assert_int_equal(pd_search_check(&s, &limits, &err), PD_OK);
    m.dtype = PADOS__V1__DTYPE__I8, m.data.len = 8;
    assert_int_equal(pd_search_check(&s, &limits, &err), PD_OK);
    m.data.len = 7, refused(&s, "7 bytes");
    m.dtype = 9, refused(&s, "dtype 9"), m.dtype = 0;
    m.rows = 3, refused(&s, "rows"), m.rows = 2;
    m.dim = 0, refused(&s, "dim"), m.dim = 8193, refused(&s, "dim");
}

static void test_mixes_pair_ids_and_weights(void **state)
{
    (void)state;
    uint64_t ids[2] = {1, 2};
    float weights[2] = {1, -0.5f};
    Pados__V1__Mix mix = PADOS__V1__MIX__INIT, *mixes[2] = {&mix, &mix};
    pd_error err = {0};
    Pados__V1__Search s = good();
    s.mixes = mixes;
    s.n_mixes = 2;
    refused(&s, "mixes[0] has no ids");
    mix.ids = ids, mix.n_ids = 2, mix.weights = weights, mix.n_weights = 1,
    refused(&s, "2 ids but 1 weights");
    mix.n_weights = 2;
    assert_int_equal(pd_search_check(&s, &limits, &err), PD_OK);
    weights[1] = INFINITY, refused(&s, "weights[1]"), weights[1] = 0;
    s.from_ids = ids, s.n_from_ids = 2, refused(&s, "from_ids");
}

static void test_a_token_matches_whole_or_not_at_all(void **state)
{
    (void)state;
    char path[] = "/tmp/pados-tokens-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    fputs("first-token\r\n\nsecond-token\n", file);
    fclose(file);
    pd_tokens *tokens;
    pd_error err = {0};
    assert_int_equal(pd_tokens_load(path, &tokens, &err), PD_OK);
    remove(path);
    assert_true(pd_tokens_match(tokens, "first-token"));
    assert_true(pd_tokens_match(tokens, "second-token"));
    assert_false(pd_tokens_match(tokens, "first-toke"));
    assert_false(pd_tokens_match(tokens, "first-tokenx"));
    assert_false(pd_tokens_match(tokens, ""));
    pd_tokens *none;
    assert_int_equal(pd_tokens_load("", &none, &err), PD_OK);
    assert_true(pd_tokens_match(none, ""));
    pd_tokens_swap(tokens, none);
    assert_true(pd_tokens_match(tokens, "any"));
    assert_false(pd_tokens_match(none, "any"));
    assert_true(pd_tokens_match(none, "second-token"));
    pd_tokens_free(none);
    pd_tokens_free(tokens);
    assert_int_equal(pd_tokens_load("/nowhere/tokens", &tokens, &err), PD_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_survives_the_way),
        cmocka_unit_test(test_a_megabyte_of_empty_parts_is_refused_within_its_budget),
        cmocka_unit_test(test_thousands_of_honest_contexts_are_within_the_budget),
        cmocka_unit_test(test_the_largest_honest_batches_are_within_the_budget),
        cmocka_unit_test(test_a_batch_of_events_is_within_the_budget),
        cmocka_unit_test(test_a_write_of_a_megabyte_of_empty_parts_is_refused_within_its_budget),
        cmocka_unit_test(test_every_body_has_a_name),
        cmocka_unit_test(test_noise_is_not_a_request),
        cmocka_unit_test(test_text_that_is_not_utf8_is_made_so),
        cmocka_unit_test(test_every_field_out_of_place_is_named),
        cmocka_unit_test(test_a_matrix_must_have_just_its_bytes),
        cmocka_unit_test(test_mixes_pair_ids_and_weights),
        cmocka_unit_test(test_a_token_matches_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
