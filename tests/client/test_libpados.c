#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_server.h"
#include "pados.h"
#include "status.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/pados-client-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/socket", folder);
    unlink(path);
    return rmdir(folder);
}

static fake_server *start(void)
{
    fake_server *server = fake_start("tcp://127.0.0.1:0");
    assert_non_null(server);
    return server;
}

static pados_client *open_client(const char *url, uint32_t timeout_ms)
{
    pados_client *client;
    pados_error error;
    pados_options options = {.timeout_ms = timeout_ms, .connect_ms = 5000, .token = "secret", .name = "test"};
    if (pados_open(url, &options, &client, &error)) fail_msg("%s", error.message);
    return client;
}

static const float vectors[2 * 4] = {1, 2, 3, 4, 5, 6, 7, 8};

static pados_search plain_search(void)
{
    return (pados_search){.table = "products", .count = 2, .k = 3, .vectors = vectors, .dim = 4};
}

static void expect_failure(pados_client *client, const pados_search *search, pados_status status,
                           const char *part)
{
    pados_error error = {0};
    pados_result *result = NULL;
    assert_int_equal(pados_search_run(client, search, &result, &error), status);
    assert_null(result);
    assert_int_equal(error.status, status);
    if (!strstr(error.message, part)) fail_msg("\"%s\" does not say \"%s\"", error.message, part);
}

/* --------------------------------------------------------------------------------------------- searching --- */

static void test_a_search_comes_back_in_the_shape_that_was_asked_for(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pados_search search = plain_search();
    const char *attributes[] = {"department"};
    search.attributes = attributes;
    search.nattributes = 1;
    search.explain = true;
    pados_result *r;
    pados_error error;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 0);
    assert_int_equal(r->count, 2);
    assert_int_equal(r->hits, 6);
    assert_int_equal(r->first[1], 3);
    assert_int_equal(r->first[2], 6);
    assert_int_equal(r->ids[4], 1002);
    assert_true(r->scores[4] == 0.5f);
    assert_int_equal(r->version, 3);
    assert_int_equal(r->profile_version, 2);
    assert_int_equal(r->nprobe[1], 7);
    assert_string_equal(pados_path_name(r->path[1]), "ivf");
    assert_string_equal(pados_rung_name(r->rung[0]), "given");
    assert_int_equal(r->ncolumns, 1);
    assert_string_equal(r->columns[0].values[5], "SWEETS");
    assert_int_equal(r->timing.total, 321);
    for (size_t h = 0; h < r->hits; h++) {
        float sum = 0;
        for (size_t t = 0; t < r->explanations[h].count; t++)
            sum += r->explanations[h].terms[t].weight;
        assert_true(fabsf(sum - r->scores[h]) < 1e-6f);
    }
    pados_result_free(r);
    pados_close(client);
    fake_stop(server);
}

static void test_everything_a_search_can_say_arrives(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    const uint64_t from[] = {7, UINT64_MAX}, shunned[] = {5, 6};
    const pados_pair pairs[] = {{"festival", "diwali"}, {"zone", "north"}};
    const pados_context contexts[] = {{pairs, 1}, {pairs, 2}};
    const char *values[] = {"A", "B"};
    const pados_condition filters[] = {{"zones", PADOS_NONE_OF, values, 2}};
    const pados_override overrides[] = {{"department", "SWEETS", -0.5f}};
    const pados_cap caps[] = {{"brand", 3}};
    const pados_ids exclude[] = {{shunned, 2}};
    const float min_score = 0;
    const pados_search search = {.table = "products@7",
                                 .count = 2,
                                 .k = 5,
                                 .from_table = "users",
                                 .from_ids = from,
                                 .recall = 0.9f,
                                 .profile = "festive",
                                 .contexts = contexts,
                                 .ncontexts = 2,
                                 .overrides = overrides,
                                 .noverrides = 1,
                                 .filters = filters,
                                 .nfilters = 1,
                                 .diversity = caps,
                                 .ndiversity = 1,
                                 .exclude = exclude,
                                 .nexclude = 1,
                                 .min_score = &min_score,
                                 .timeout_ms = 4000};
    pados_result *r;
    pados_error error;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 0);
    assert_int_equal(r->nwarnings, 1);
    pados_result_free(r);
    const fake_seen *seen = fake_look(server);
    const Pados__V1__Search *m = seen->search;
    assert_string_equal(seen->token, "secret");
    assert_true(seen->deadline_ms > 0 && seen->deadline_ms <= 4000);
    assert_string_equal(m->table, "products@7");
    assert_string_equal(m->from_table, "users");
    assert_int_equal(m->n_from_ids, 2);
    assert_true(m->from_ids[1] == UINT64_MAX);
    assert_true(m->recall == 0.9f);
    assert_int_equal(m->n_contexts, 2);
    assert_string_equal(m->contexts[1]->values[1], "north");
    assert_int_equal(m->filters[0]->kind, PADOS__V1__CONDITION__KIND__NONE_OF);
    assert_string_equal(m->filters[0]->values[1], "B");
    assert_true(m->overrides[0]->weight == -0.5f);
    assert_int_equal(m->diversity[0]->at_most, 3);
    assert_int_equal(m->exclude[0]->ids[1], 6);
    assert_true(m->has_min_score);
    assert_null(m->vectors);
    fake_look_away(server);
    pados_close(client);
    fake_stop(server);
}

static void test_a_mix_of_rows_arrives(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    const uint64_t ids[] = {1, 2};
    const float weights[] = {1, -0.5f};
    const pados_mix mixes[] = {{ids, weights, 2, "users"}};
    const pados_search search = {.table = "products", .count = 1, .k = 1, .mixes = mixes};
    pados_result *r;
    pados_error error;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 0);
    pados_result_free(r);
    const fake_seen *seen = fake_look(server);
    assert_int_equal(seen->search->n_mixes, 1);
    assert_true(seen->search->mixes[0]->weights[1] == -0.5f);
    assert_string_equal(seen->search->mixes[0]->table, "users");
    fake_look_away(server);
    pados_close(client);
    fake_stop(server);
}

/* ------------------------------------------------------------------------------------------- refused here --- */

static void test_what_is_over_the_hellos_limits_is_never_sent(void **state)
{
    (void)state;
    fake_server *server = start();
    fake_limits_set(server, 10, 100, 4096);
    pados_client *client = open_client(fake_url(server), 5000);
    pados_limits limits;
    pados_limits_of(client, &limits);
    assert_int_equal(limits.max_k, 100);
    assert_string_equal(limits.server, "fake 1");

    pados_search search = plain_search();
    search.k = 101;
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "k: 101 is more than the server's 100");
    search.k = 0;
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "k: ");
    float *many = calloc(11 * 400, sizeof *many);
    assert_non_null(many);
    search = (pados_search){.table = "products", .count = 11, .k = 1, .vectors = many, .dim = 4};
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "11 queries are more than the server's 10");
    search.count = 10;
    search.dim = 400;
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "4096 that the server reads");
    search.dim = 0;
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "dim");
    search = plain_search();
    search.exact = true;
    search.nprobe = 3;
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "only one of them");
    free(many);
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_SEARCH), 0);
    pados_close(client);
    fake_stop(server);
}

static void test_nobody_there_is_unavailable(void **state)
{
    (void)state;
    char url[128];
    snprintf(url, sizeof url, "ipc://%s/socket", folder);
    pados_options options = {.connect_ms = 50};
    pados_client *client = NULL;
    pados_error error;
    assert_int_equal(pados_open(url, &options, &client, &error), PD_UNAVAILABLE);
    assert_non_null(strstr(error.message, url));
    assert_null(client);
}

static void test_an_address_that_is_none_is_refused(void **state)
{
    (void)state;
    pados_client *client = NULL;
    pados_error error;
    assert_int_equal(pados_open("localhost:7461", NULL, &client, &error), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "localhost:7461"));
    assert_int_equal(pados_open("tls+tcp://127.0.0.1:7461", NULL, &client, &error), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "CA"));
    pados_options options = {.ca_file = "/nonexistent.pem"};
    assert_int_equal(pados_open("tls+tcp://127.0.0.1:7461", &options, &client, &error), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "/nonexistent.pem"));
}

/* ---------------------------------------------------------------------------------------- things go wrong --- */

static void test_a_silent_server_ends_at_the_deadline(void **state)
{
    (void)state;
    fake_server *server = start();
    fake_mood_set(server, FAKE_SILENT);
    pados_client *client = open_client(fake_url(server), 5000);
    pados_search search = plain_search();
    search.timeout_ms = 100;
    expect_failure(client, &search, PD_DEADLINE_EXCEEDED, "deadline");
    /* The same client goes on. */
    fake_mood_set(server, FAKE_HONEST);
    pados_result *r;
    pados_error error;
    search.timeout_ms = 5000;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 0);
    pados_result_free(r);
    pados_close(client);
    fake_stop(server);
}

static void test_a_search_is_sent_once_even_when_the_connection_breaks(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    fake_mood_set(server, FAKE_HANGS_UP);
    pados_search search = plain_search();
    expect_failure(client, &search, PD_UNAVAILABLE, "lost before the reply");
    fake_mood_set(server, FAKE_HONEST);
    pados_result *r;
    pados_error error;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 0);
    pados_result_free(r);
    /* The one that failed, and the one that was asked for afterwards, over a connection of its own with its own hello. */
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_SEARCH), 2);
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_HELLO), 2);
    pados_close(client);
    fake_stop(server);
}

static void test_a_server_that_comes_back_is_found_and_asked_for_its_limits(void **state)
{
    (void)state;
    char url[128];
    snprintf(url, sizeof url, "ipc://%s/socket", folder);
    fake_server *server = fake_start(url);
    assert_non_null(server);
    pados_client *client = open_client(url, 10000);
    pados_limits before;
    pados_limits_of(client, &before);
    fake_stop(server);

    pados_search search = plain_search();
    search.timeout_ms = 100;
    expect_failure(client, &search, PD_UNAVAILABLE, url);

    server = fake_start(url);
    assert_non_null(server);
    fake_limits_set(server, 0, 2, 0);
    search.timeout_ms = 10000;
    expect_failure(client, &search, PD_INVALID_ARGUMENT, "k: 3 is more than the server's 2");
    search.k = 2;
    pados_result *r;
    pados_error error;
    assert_int_equal(pados_search_run(client, &search, &r, &error), 0);
    pados_result_free(r);
    assert_string_equal(before.server, "fake 1"); /* still there to read */
    pados_close(client);
    fake_stop(server);
}

static void test_the_servers_own_words_reach_the_caller(void **state)
{
    (void)state;
    fake_server *server = start();
    fake_mood_set(server, FAKE_FAILS);
    pados_client *client = open_client(fake_url(server), 5000);
    pados_search search = plain_search();
    /* Its terminal escape does not. */
    expect_failure(client, &search, PD_NOT_FOUND, "table \"products\" does not exist?[31m");
    assert_string_equal(pados_status_name(PD_NOT_FOUND), "NOT_FOUND");
    assert_string_equal(pados_status_name(99), "UNKNOWN");
    pados_close(client);
    fake_stop(server);
}

static void test_replies_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const struct {
        fake_mood mood;
        const char *says;
    } cases[] = {
        {FAKE_WRONG_ID, "the reply is to request"}, {FAKE_WRONG_BODY, "another kind"},
        {FAKE_GARBAGE, "not one that can be read"}, {FAKE_BOMB, "not one that can be read"},
        {FAKE_SHORT_SCORES, "scores do not fit"},
    };
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pados_search search = plain_search();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_mood_set(server, cases[i].mood);
        expect_failure(client, &search, PD_INTERNAL, cases[i].says);
    }
    pados_close(client);
    fake_stop(server);
}

typedef struct one_thread {
    pthread_t thread;
    pados_client *client;
    int wrong;
} one_thread;

static void *search_often(void *context)
{
    one_thread *t = context;
    for (uint32_t i = 0; i < 50; i++) {
        pados_search search = plain_search();
        search.k = 1 + i % 7;
        pados_result *r;
        pados_error error;
        if (pados_search_run(t->client, &search, &r, &error)) {
            t->wrong++;
            continue;
        }
        if (r->hits != 2 * (size_t)search.k) t->wrong++;
        pados_result_free(r);
    }
    return NULL;
}

static void test_threads_share_a_client(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 10000);
    one_thread threads[4];
    for (int i = 0; i < 4; i++) {
        threads[i] = (one_thread){.client = client};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, search_often, &threads[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i].thread, NULL);
        assert_int_equal(threads[i].wrong, 0);
    }
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_SEARCH), 200);
    pados_close(client);
    fake_stop(server);
}

/* ----------------------------------------------------------------------------------------------- pushing --- */

typedef struct memory {
    const uint8_t *bytes;
    size_t length, at;
    int seeks;
    bool fails;
} memory;

static pados_status memory_read(void *context, void *data, size_t max, size_t *got, pados_error *error)
{
    memory *m = context;
    if (m->fails && m->at > m->length / 2) {
        error->status = PD_INVALID_ARGUMENT;
        snprintf(error->message, sizeof error->message, "row 17 is bad");
        return PD_INVALID_ARGUMENT;
    }
    size_t left = m->length - m->at;
    *got = left < max ? left : max;
    if (*got > 1000) *got = 1000; /* short reads are a source's right */
    memcpy(data, m->bytes + m->at, *got);
    m->at += *got;
    return 0;
}

static pados_status memory_seek(void *context, uint64_t offset, pados_error *error)
{
    memory *m = context;
    (void)error;
    m->at = offset;
    m->seeks++;
    return 0;
}

enum { ROWS = 3000, DIM = 3 };

typedef struct pushed {
    float rows[ROWS * DIM];
    uint64_t ids[ROWS];
    char csv[32];
    memory row_source, id_source, csv_source;
} pushed;

static pados_push push_of(pushed *p)
{
    for (int i = 0; i < ROWS * DIM; i++)
        p->rows[i] = (float)i;
    for (int i = 0; i < ROWS; i++)
        p->ids[i] = (uint64_t)i * 10;
    strcpy(p->csv, "id,price\n0,1.5\n");
    p->row_source = (memory){(const uint8_t *)p->rows, sizeof p->rows, 0, 0, false};
    p->id_source = (memory){(const uint8_t *)p->ids, sizeof p->ids, 0, 0, false};
    p->csv_source = (memory){(const uint8_t *)p->csv, strlen(p->csv), 0, 0, false};
    return (pados_push){
        .table = "products",
        .schema = "table = {};",
        .dtype = PADOS_F32,
        .dim = DIM,
        .rows = ROWS,
        .vectors = {memory_read, memory_seek, &p->row_source, p->row_source.length},
        .ids = {memory_read, memory_seek, &p->id_source, p->id_source.length},
        .attributes = {memory_read, memory_seek, &p->csv_source, p->csv_source.length},
        .attributes_name = "prices.csv",
    };
}

static void check_all_arrived(fake_server *server, const pushed *p)
{
    const fake_seen *seen = fake_look(server);
    assert_int_equal(seen->part_bytes[0], sizeof p->rows);
    assert_memory_equal(seen->parts[0], p->rows, sizeof p->rows);
    assert_int_equal(seen->part_bytes[1], sizeof p->ids);
    assert_memory_equal(seen->parts[1], p->ids, sizeof p->ids);
    assert_int_equal(seen->part_bytes[2], strlen(p->csv));
    assert_memory_equal(seen->parts[2], p->csv, strlen(p->csv));
    assert_string_equal(seen->attributes_name, "prices.csv");
    assert_true(seen->published);
    fake_look_away(server);
}

static int count_stages(void *context, const pados_job *job)
{
    int *stages = context;
    if (strcmp(job->stage, "send") == 0) {
        stages[0]++;
        assert_true(job->done <= job->total);
    }
    if (strcmp(job->stage, "done") == 0) stages[1]++;
    return 0;
}

static void test_a_push_arrives_whole_and_names_its_version(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pushed *p = calloc(1, sizeof *p);
    assert_non_null(p);
    pados_push push = push_of(p);
    int stages[2] = {0, 0};
    push.progress = count_stages;
    push.progress_context = stages;
    uint64_t version = 0;
    pados_error error;
    if (pados_push_run(client, &push, &version, &error)) fail_msg("%s", error.message);
    assert_int_equal(version, 4);
    assert_true(stages[0] > 2);
    assert_int_equal(stages[1], 1);
    check_all_arrived(server, p);
    free(p);
    pados_close(client);
    fake_stop(server);
}

static void test_a_push_goes_on_where_a_lost_connection_left_it(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pushed *p = calloc(1, sizeof *p);
    assert_non_null(p);
    pados_push push = push_of(p);
    fake_break_chunks(server, 3);
    uint64_t version = 0;
    pados_error error;
    if (pados_push_run(client, &push, &version, &error)) fail_msg("%s", error.message);
    check_all_arrived(server, p);
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_PUSH_BEGIN), 4);
    assert_true(p->row_source.seeks > 0);
    free(p);
    pados_close(client);
    fake_stop(server);
}

static void test_a_push_that_gets_nowhere_is_given_up(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pushed *p = calloc(1, sizeof *p);
    assert_non_null(p);
    pados_push push = push_of(p);
    fake_mood_set(server, FAKE_HONEST);
    fake_break_chunks(server, 1000);
    push.vectors.seek = NULL; /* and this one cannot even go back */
    uint64_t version = 0;
    pados_error error;
    assert_int_equal(pados_push_run(client, &push, &version, &error), PD_UNAVAILABLE);
    free(p);
    pados_close(client);
    fake_stop(server);
}

static int stop_at_once(void *context, const pados_job *job)
{
    (void)context;
    (void)job;
    return 1;
}

static void test_a_push_that_its_caller_stops_is_aborted(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pushed *p = calloc(1, sizeof *p);
    assert_non_null(p);
    pados_push push = push_of(p);
    push.progress = stop_at_once;
    uint64_t version = 0;
    pados_error error;
    assert_int_equal(pados_push_run(client, &push, &version, &error), PD_CANCELLED);
    const fake_seen *seen = fake_look(server);
    assert_true(seen->aborted);
    fake_look_away(server);

    push = push_of(p);
    p->row_source.fails = true;
    assert_int_equal(pados_push_run(client, &push, &version, &error), PD_INVALID_ARGUMENT);
    assert_string_equal(error.message, "row 17 is bad");
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_PUSH_COMMIT), 0);
    free(p);
    pados_close(client);
    fake_stop(server);
}

static void test_a_push_whose_parts_do_not_fit_is_not_begun(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    pushed *p = calloc(1, sizeof *p);
    assert_non_null(p);
    uint64_t version = 0;
    pados_error error;
    pados_push push = push_of(p);
    push.rows = ROWS + 1;
    assert_int_equal(pados_push_run(client, &push, &version, &error), PD_INVALID_ARGUMENT);
    push = push_of(p);
    push.ids.bytes -= 8;
    assert_int_equal(pados_push_run(client, &push, &version, &error), PD_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "ids: 2999 for 3000 rows"));
    push = push_of(p);
    push.rows = UINT64_MAX / 2;
    assert_int_equal(pados_push_run(client, &push, &version, &error), PD_INVALID_ARGUMENT);
    assert_int_equal(fake_requests(server, PADOS__V1__REQUEST__BODY_PUSH_BEGIN), 0);
    free(p);
    pados_close(client);
    fake_stop(server);
}

/* ---------------------------------------------------------------------------------------- administration --- */

static pados_status publish(pados_client *client, uint64_t version, uint64_t *published, pados_error *error)
{
    Pados__V1__Publish body = PADOS__V1__PUBLISH__INIT;
    body.table = (char *)"products";
    body.version = version;
    Pados__V1__Request request = PADOS__V1__REQUEST__INIT;
    request.body_case = PADOS__V1__REQUEST__BODY_PUBLISH;
    request.publish = &body;
    Pados__V1__Reply *reply;
    pados_status status = pados_admin(client, &request, &reply, error);
    if (status) return status;
    uint64_t job = reply->job->job;
    pados_reply_free(reply);
    return pados_job_wait(client, job, NULL, NULL, published, error);
}

static void test_a_job_is_waited_for_and_its_failure_is_the_callers(void **state)
{
    (void)state;
    fake_server *server = start();
    pados_client *client = open_client(fake_url(server), 5000);
    uint64_t version = 0;
    pados_error error;
    assert_int_equal(publish(client, 4, &version, &error), 0);
    assert_int_equal(version, 4);
    assert_int_equal(publish(client, 13, &version, &error), PD_INVALID_ARGUMENT);
    assert_string_equal(error.message, "row 17, column 3 is not a number");
    /* A server that was started again has forgotten it: not a name that was wrong, but something to do again. */
    assert_int_equal(publish(client, 14, &version, &error), PD_UNAVAILABLE);
    assert_non_null(strstr(error.message, "job 14"));
    pados_close(client);
    fake_stop(server);
}

static void test_a_wildcard_in_the_admin_address_is_the_host_that_was_reached(void **state)
{
    (void)state;
    static const char *const hosts[] = {"0.0.0.0", "*", "", "[::]"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        fake_server *server = start(), *admin = start();
        char url[64];
        snprintf(url, sizeof url, "tcp://%s:%s", hosts[i], strrchr(fake_url(admin), ':') + 1);
        fake_admin_url_set(server, url);
        pados_client *client = open_client(fake_url(server), 5000);
        uint64_t version = 0;
        pados_error error;
        if (publish(client, 4, &version, &error)) fail_msg("%s", error.message);
        assert_int_equal(fake_requests(admin, PADOS__V1__REQUEST__BODY_PUBLISH), 1);
        pados_close(client);
        fake_stop(server);
        fake_stop(admin);
    }
}

static void test_a_server_without_an_admin_listener_says_so(void **state)
{
    (void)state;
    fake_server *server = start();
    fake_admin_url_set(server, "");
    pados_client *client = open_client(fake_url(server), 5000);
    uint64_t version = 0;
    pados_error error;
    assert_int_equal(publish(client, 4, &version, &error), PD_FAILED_PRECONDITION);
    pados_close(client);
    fake_stop(server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_search_comes_back_in_the_shape_that_was_asked_for),
        cmocka_unit_test(test_everything_a_search_can_say_arrives),
        cmocka_unit_test(test_a_mix_of_rows_arrives),
        cmocka_unit_test(test_what_is_over_the_hellos_limits_is_never_sent),
        cmocka_unit_test_setup_teardown(test_nobody_there_is_unavailable, make_folder, remove_folder),
        cmocka_unit_test(test_an_address_that_is_none_is_refused),
        cmocka_unit_test(test_a_silent_server_ends_at_the_deadline),
        cmocka_unit_test(test_a_search_is_sent_once_even_when_the_connection_breaks),
        cmocka_unit_test_setup_teardown(test_a_server_that_comes_back_is_found_and_asked_for_its_limits,
                                        make_folder, remove_folder),
        cmocka_unit_test(test_the_servers_own_words_reach_the_caller),
        cmocka_unit_test(test_replies_that_cannot_be_are_refused),
        cmocka_unit_test(test_threads_share_a_client),
        cmocka_unit_test(test_a_push_arrives_whole_and_names_its_version),
        cmocka_unit_test(test_a_push_goes_on_where_a_lost_connection_left_it),
        cmocka_unit_test(test_a_push_that_gets_nowhere_is_given_up),
        cmocka_unit_test(test_a_push_that_its_caller_stops_is_aborted),
        cmocka_unit_test(test_a_push_whose_parts_do_not_fit_is_not_begun),
        cmocka_unit_test(test_a_job_is_waited_for_and_its_failure_is_the_callers),
        cmocka_unit_test(test_a_wildcard_in_the_admin_address_is_the_host_that_was_reached),
        cmocka_unit_test(test_a_server_without_an_admin_listener_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
