/* What the files of the fake server share. */
#ifndef FAKE_IMPL_H
#define FAKE_IMPL_H

#include "fake_server.h"

#include <pthread.h>

#include <nng/nng.h>

enum { FAKE_BODIES = 128 };

struct fake_server {
    nng_socket socket;
    pthread_t thread;
    pthread_mutex_t lock;
    char url[256], admin_url[256];
    fake_mood mood;
    uint32_t max_queries, max_k;
    uint64_t max_message;
    int breaks;
    unsigned requests[FAKE_BODIES];
    Pados__V1__Request *last_search;
    fake_seen seen;
    fake_changes changes;
};

typedef struct answer {
    Pados__V1__Reply reply;
    bool send, hang_up;
    uint8_t *raw; /* instead of the reply */
    size_t raw_length;
} answer;

void fake_pack(answer *a);
void fake_answer_job(answer *a, uint64_t job, const char *stage);
/* Writes, erasures, exports, snapshots, rebuilds. False: the request is none of them. */
bool fake_answer_change(fake_server *s, Pados__V1__Request *r, answer *a);
void fake_forget_changes(fake_server *s);

#endif
