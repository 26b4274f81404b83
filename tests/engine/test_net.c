/* The sockets, with raw nng on the other side: replies find their way, mute peers are closed, the limit on bytes holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cmocka.h>

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>

#include "net.h"
#include "workers.h"

#define REPLY_BYTES 16384u

typedef struct bench {
    pd_net *net;
    pd_workers *workers;
    pd_metrics metrics;
    pd_listener_config listener;
    char url[128];
    atomic_uint most_in_flight;
    atomic_uint gone;
} bench;

typedef struct echo {
    pd_work work;
    pd_call *call;
    size_t length;
} echo;

/* Answers with REPLY_BYTES, from another thread, as the server does. */
static void run_echo(pd_work *work)
{
    echo *e = (echo *)work;
    pd_call *call = e->call;
    uint8_t *room = pd_call_room(call, REPLY_BYTES);
    if (room) {
        memset(room, 0, REPLY_BYTES);
        memcpy(room, &e->length, sizeof e->length);
        pd_call_send(call);
    } else {
        pd_call_abandon(call);
    }
    free(e);
}

static void on_request(void *context, pd_call *call, const uint8_t *bytes, size_t length, pd_crowd crowd)
{
    bench *b = context;
    pd_error err;
    (void)bytes;
    unsigned most = atomic_load(&b->most_in_flight);
    while (crowd.in_flight > most &&
           !atomic_compare_exchange_weak(&b->most_in_flight, &most, crowd.in_flight)) {
    }
    echo *e = calloc(1, sizeof *e);
    if (!e) {
        pd_call_abandon(call);
        return;
    }
    *e = (echo){.work.run = run_echo, .call = call, .length = length};
    pd_call_drop(call);
    if (pd_workers_add(b->workers, &e->work, &err)) {
        free(e);
        pd_call_abandon(call);
    }
}

static void on_gone(void *context)
{
    atomic_fetch_add(&((bench *)context)->gone, 1);
}

static void start(bench *b, const char *url, uint32_t pipe_requests, uint32_t send_timeout_ms)
{
    pd_error err = {0};
    memset(b, 0, sizeof *b);
    snprintf(b->url, sizeof b->url, "%s", url);
    b->listener = (pd_listener_config){.url = b->url, .cert_file = "", .key_file = "", .token_file = ""};
    assert_int_equal(pd_workers_open("echo", 2, UINT32_MAX, &b->workers, &err), PD_OK);
    pd_config config = {
        .max_message = 100000, .send_timeout_ms = send_timeout_ms, .pipe_requests = pipe_requests};
    pd_net_options options = {.name = "test",
                              .listener = &b->listener,
                              .config = &config,
                              .on_request = on_request,
                              .on_gone = on_gone,
                              .context = b,
                              .metrics = &b->metrics};
    if (pd_net_open(&options, &b->net, &err)) fail_msg("%s", err.message);
    pd_net_start(b->net);
}

static void stop(bench *b)
{
    pd_workers_close(b->workers);
    assert_true(pd_net_drain(b->net, 10000));
    pd_net_close(b->net);
}

static nng_socket dial(const bench *b)
{
    nng_socket s;
    assert_int_equal(nng_req0_open(&s), 0);
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 10000), 0);
    assert_int_equal(nng_dial(s, pd_net_url(b->net), NULL, 0), 0);
    return s;
}

static size_t ask(nng_socket s, size_t length)
{
    nng_msg *m;
    assert_int_equal(nng_msg_alloc(&m, length), 0);
    memset(nng_msg_body(m), 1, length);
    assert_int_equal(nng_sendmsg(s, m, 0), 0);
    int failed = nng_recvmsg(s, &m, 0);
    if (failed) fail_msg("no reply: %s", nng_strerror(failed));
    size_t said;
    assert_int_equal(nng_msg_len(m), REPLY_BYTES);
    memcpy(&said, nng_msg_body(m), sizeof said);
    nng_msg_free(m);
    return said;
}

static void test_a_request_is_answered_from_another_thread(void **state)
{
    (void)state;
    bench b;
    start(&b, "tcp://127.0.0.1:0", 16, 1000);
    assert_null(strstr(pd_net_url(b.net), ":0"));
    nng_socket s = dial(&b);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(ask(s, i * 100), i * 100);
    nng_close(s);
    stop(&b);
}

static void test_a_message_over_the_limit_is_not_read(void **state)
{
    (void)state;
    bench b;
    nng_msg *m;
    start(&b, "tcp://127.0.0.1:0", 16, 1000);
    nng_socket s = dial(&b);
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, 300), 0);
    assert_int_equal(nng_msg_alloc(&m, 200000), 0);
    assert_int_equal(nng_sendmsg(s, m, 0), 0);
    assert_int_equal(nng_recvmsg(s, &m, 0), NNG_ETIMEDOUT);
    nng_close(s);
    s = dial(&b);
    assert_int_equal(ask(s, 99000), 99000);
    nng_close(s);
    stop(&b);
}

static void test_an_address_in_use_is_named(void **state)
{
    (void)state;
    bench b;
    start(&b, "tcp://127.0.0.1:0", 16, 1000);
    pd_listener_config again = b.listener;
    again.url = (char *)pd_net_url(b.net);
    pd_config config = {.max_message = 1000, .send_timeout_ms = 100, .pipe_requests = 4};
    pd_net_options options = {.name = "second",
                              .listener = &again,
                              .config = &config,
                              .on_request = on_request,
                              .context = &b,
                              .metrics = &b.metrics,
                              .port = PD_PORT_ADMIN};
    pd_error err = {0};
    pd_net *net;
    assert_int_equal(pd_net_open(&options, &net, &err), PD_UNAVAILABLE);
    assert_non_null(strstr(err.message, pd_net_url(b.net)));
    stop(&b);
}

/* A peer by hand: nng on both sides of one process would share the threads that the test is about. The SP handshake of
 * a REQ socket, then messages: (ipc: 1,) u64 length, u32 request id, body. */
static int connect_by_hand(const char *url)
{
    int fd;
    if (!strncmp(url, "ipc://", 6)) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        snprintf(to.sun_path, sizeof to.sun_path, "%s", url + 6);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) return -1;
    } else {
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1))};
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) return -1;
    }
    static const unsigned char hello[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    unsigned char answer[8];
    struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (send(fd, hello, sizeof hello, MSG_NOSIGNAL) != 8 || recv(fd, answer, 8, MSG_WAITALL) != 8) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Pours requests in, never reads a reply, until it is closed or not heard any more. */
static void *pour(void *context)
{
    bench *b = context;
    int ipc = !strncmp(pd_net_url(b->net), "ipc", 3);
    int fd = connect_by_hand(pd_net_url(b->net));
    if (fd < 0) return NULL;
    unsigned char message[1 + 8 + 4 + 64] = {1, 0, 0, 0, 0, 0, 0, 0, 68, 0x80, 0, 0, 1};
    const unsigned char *from = ipc ? message : message + 1;
    size_t length = sizeof message - (ipc ? 0 : 1);
    for (int i = 0; i < 3000 && send(fd, from, length, MSG_NOSIGNAL) == (ssize_t)length; i++) {
    }
    /* Stays, and still does not read, until the server has closed some connection for it. */
    for (int i = 0; i < 1000 && atomic_load(&b->metrics.pipes_closed[0]) == 0; i++)
        poll(NULL, 0, 10);
    close(fd);
    return NULL;
}

static void mute_peers(const char *url)
{
    bench b;
    enum { PEERS = 20 };
    pthread_t peers[PEERS];
    start(&b, url, 16, 500);
    for (int i = 0; i < PEERS; i++)
        assert_int_equal(pthread_create(&peers[i], NULL, pour, &b), 0);
    nng_socket s = dial(&b);
    for (int i = 0; i < 200; i++)
        assert_int_equal(ask(s, 10), 10);
    for (int i = 0; i < PEERS; i++)
        pthread_join(peers[i], NULL);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask(s, 10), 10);
    nng_close(s);
    assert_true(atomic_load(&b.metrics.pipes_closed[0]) > 0);
    assert_true(atomic_load(&b.most_in_flight) <= 32);
    stop(&b);
}

static void test_peers_that_never_read_are_closed_and_others_are_served(void **state)
{
    (void)state;
    mute_peers("tcp://127.0.0.1:0");
}

static void test_the_same_over_ipc(void **state)
{
    (void)state;
    char folder[] = "/tmp/pados-net-XXXXXX", url[64];
    assert_non_null(mkdtemp(folder));
    snprintf(url, sizeof url, "ipc://%s/s", folder);
    mute_peers(url);
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_request_is_answered_from_another_thread),
        cmocka_unit_test(test_a_message_over_the_limit_is_not_read),
        cmocka_unit_test(test_an_address_in_use_is_named),
        cmocka_unit_test(test_peers_that_never_read_are_closed_and_others_are_served),
        cmocka_unit_test(test_the_same_over_ipc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
