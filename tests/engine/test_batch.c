/* Batches of changes as bytes: what requests become, what the log gives back, and what is left when rows are taken out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"
#include "pados.pb-c.h"

enum { N = 3, DIM = 4 };

static uint64_t ids[N] = {11, 22, 33};
static float vectors[N * DIM] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
static float prices[N] = {1.5f, 2.5f, 3.5f};
static uint64_t brands[N] = {100, 200, 300};
static char *names[] = {"shared", "secret"};
static uint32_t name_of[N] = {0, 1, 0};
static char *alone[N] = {"first", "second", "third"};

typedef struct sent {
    Pados__V1__Request request;
    Pados__V1__Upsert upsert;
    Pados__V1__Matrix matrix;
    Pados__V1__AttributeValues cells[4], *pointers[4];
} sent;

static void fill(sent *s)
{
    pados__v1__request__init(&s->request);
    pados__v1__upsert__init(&s->upsert);
    pados__v1__matrix__init(&s->matrix);
    for (int i = 0; i < 4; i++) {
        pados__v1__attribute_values__init(&s->cells[i]);
        s->pointers[i] = &s->cells[i];
    }
    s->request.body_case = PADOS__V1__REQUEST__BODY_UPSERT;
    s->request.upsert = &s->upsert;
    s->upsert.table = "goods";
    s->upsert.key = "k";
    s->upsert.ids = ids;
    s->upsert.n_ids = N;
    s->upsert.vectors = &s->matrix;
    s->matrix.rows = N;
    s->matrix.dim = DIM;
    s->matrix.data = (ProtobufCBinaryData){sizeof vectors, (uint8_t *)vectors};
    s->cells[0].attribute = "price";
    s->cells[0].numbers = (ProtobufCBinaryData){sizeof prices, (uint8_t *)prices};
    s->cells[1].attribute = "brand";
    s->cells[1].keys = brands;
    s->cells[1].n_keys = N;
    s->cells[2].attribute = "dept";
    s->cells[2].texts = names;
    s->cells[2].n_texts = 2;
    s->cells[2].text_of = name_of;
    s->cells[2].n_text_of = N;
    s->cells[3].attribute = "title";
    s->cells[3].texts = alone;
    s->cells[3].n_texts = N;
    s->upsert.attributes = s->pointers;
    s->upsert.n_attributes = 4;
}

static pd_record record_of(const pd_batch *b, const void *bytes, size_t length)
{
    pd_record record = {
        .sequence = 7, .kind = (uint32_t)b->kind, .time = b->time, .bytes = bytes, .length = length};
    memcpy(record.table, b->table, sizeof record.table);
    memcpy(record.key, b->key, sizeof record.key);
    return record;
}

static void test_a_record_gives_back_the_request(void **state)
{
    (void)state;
    sent s;
    pd_batch *sent_batch, *read;
    pd_error err;
    fill(&s);
    assert_int_equal(pd_batch_of_request(&s.request, &sent_batch, &err), PD_OK);
    pd_record record = record_of(sent_batch, sent_batch->bytes, sent_batch->length);
    assert_int_equal(pd_batch_of_record(&record, &read, &err), PD_OK);
    assert_int_equal(read->kind, PD_BATCH_UPSERT);
    assert_string_equal(read->table, "goods");
    assert_string_equal(read->key, "goods/k");
    assert_int_equal(read->n, N);
    assert_memory_equal(read->ids, ids, sizeof ids);
    assert_memory_equal(read->vectors, vectors, sizeof vectors);
    assert_int_equal(read->attributes->n_attributes, 4);
    assert_string_equal(read->attributes->attributes[2]->texts[1], "secret");
    float row[DIM];
    assert_int_equal(pd_record_row(&record, 2, PD_L2, DIM, row, &err), PD_OK);
    assert_memory_equal(row, vectors + 2 * DIM, sizeof row);
    assert_int_equal(pd_record_row(&record, 3, PD_L2, DIM, row, &err), PD_DATA_LOSS);
    assert_int_equal(pd_record_row(&record, 0, PD_L2, DIM + 1, row, &err), PD_DATA_LOSS);
    pd_batch_free(read);
    pd_batch_free(sent_batch);
}

static void test_bytes_that_are_no_batch_are_named(void **state)
{
    (void)state;
    sent s;
    pd_batch *good, *bad = NULL;
    pd_error err;
    fill(&s);
    assert_int_equal(pd_batch_of_request(&s.request, &good, &err), PD_OK);
    for (size_t length = 0; length < good->length; length++) { /* cut anywhere */
        unsigned char *cut = malloc(length + 1);
        memcpy(cut, good->bytes, length);
        pd_record record = record_of(good, cut, length);
        assert_int_equal(pd_batch_of_record(&record, &bad, &err), PD_DATA_LOSS);
        assert_null(bad);
        assert_non_null(strstr(err.message, "change 7 of \"goods\""));
        free(cut);
    }
    for (uint32_t at = 0; at < 16; at++) { /* a head that says other things */
        unsigned char *other = malloc(good->length);
        memcpy(other, good->bytes, good->length);
        other[at] ^= 0x40;
        pd_record record = record_of(good, other, good->length);
        assert_int_equal(pd_batch_of_record(&record, &bad, &err), PD_DATA_LOSS);
        free(other);
    }
    pd_record odd = record_of(good, good->bytes, good->length);
    odd.kind = 99;
    assert_int_equal(pd_batch_of_record(&odd, &bad, &err), PD_DATA_LOSS);
    pd_batch_free(good);
}

static int holds(const void *bytes, size_t length, const void *what, size_t size)
{
    return memmem(bytes, length, what, size) != NULL;
}

static void test_a_row_that_is_taken_out_leaves_its_id_and_the_others_their_places(void **state)
{
    (void)state;
    sent s;
    pd_batch *batch, *left;
    pd_error err;
    void *bytes;
    size_t length;
    fill(&s);
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_OK);
    pd_record record = record_of(batch, batch->bytes, batch->length);
    assert_int_equal(pd_batch_forget(&record, (const uint64_t[]){5, 44}, 2, &bytes, &length, &err), PD_OK);
    assert_null(bytes);
    assert_int_equal(pd_batch_forget(&record, (const uint64_t[]){5, 22, 44}, 3, &bytes, &length, &err),
                     PD_OK);
    assert_non_null(bytes);
    assert_false(holds(bytes, length, "secret", 6));
    assert_false(holds(bytes, length, "second", 6));
    assert_false(holds(bytes, length, vectors + DIM, sizeof *vectors));
    assert_false(holds(bytes, length, &prices[1], sizeof prices[1]));
    assert_false(holds(bytes, length, &brands[1], sizeof brands[1]));
    pd_record rest = record_of(batch, bytes, length);
    assert_int_equal(pd_batch_of_record(&rest, &left, &err), PD_OK);
    assert_int_equal(left->n, N);
    assert_memory_equal(left->ids, ids, sizeof ids);
    float row[DIM];
    for (uint32_t i = 0; i < N; i += 2) {
        assert_int_equal(pd_record_row(&rest, i, PD_L2, DIM, row, &err), PD_OK);
        assert_memory_equal(row, vectors + i * DIM, sizeof row);
    }
    /* The place of the row is still one that any table can hold. */
    assert_int_equal(pd_record_row(&rest, 1, PD_COSINE, DIM, row, &err), PD_OK);
    assert_true(row[0] == 1 && row[1] == 0 && row[2] == 0 && row[3] == 0);
    Pados__V1__AttributeValues **cells = left->attributes->attributes;
    assert_string_equal(cells[2]->texts[cells[2]->text_of[0]], "shared");
    assert_string_equal(cells[2]->texts[cells[2]->text_of[1]], "");
    assert_string_equal(cells[3]->texts[2], "third");
    assert_int_equal(cells[1]->keys[1], 0);
    assert_int_equal(cells[1]->keys[2], 300);
    pd_batch_free(left);
    free(bytes);
    pd_batch_free(batch);
}

static void test_a_request_is_refused_by_the_field_that_is_wrong(void **state)
{
    (void)state;
    sent s;
    pd_batch *batch;
    pd_error err;
    uint64_t twice[N] = {1, 2, 1}, none[N] = {1, 2, UINT64_MAX};
    fill(&s);
    s.upsert.ids = twice;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "rows 0 and 2"));
    s.upsert.ids = none;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "row 2"));
    fill(&s);
    s.matrix.rows = 2;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "vectors has 2 rows, ids has 3"));
    fill(&s);
    s.matrix.data.len--;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "vectors.data"));
    fill(&s);
    s.upsert.vectors = NULL;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    fill(&s);
    s.upsert.table = "a/b";
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    fill(&s);
    s.upsert.n_ids = 0;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    fill(&s);
    char key[PD_BATCH_KEY + 2];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = 0;
    s.upsert.key = key;
    assert_int_equal(pd_batch_of_request(&s.request, &batch, &err), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "key"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_record_gives_back_the_request),
        cmocka_unit_test(test_bytes_that_are_no_batch_are_named),
        cmocka_unit_test(test_a_row_that_is_taken_out_leaves_its_id_and_the_others_their_places),
        cmocka_unit_test(test_a_request_is_refused_by_the_field_that_is_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
