/* A server of the tests' own: nng REP and the wire's messages, with a few switches for how it misbehaves. It keeps what
 * the last requests said, and answers searches with hits that can be foretold: query i gets ids i*1000+1, i*1000+2, ...
 * with scores 1, 1/2, 1/3 ... and two terms each when an explanation is wanted. */
#ifndef FAKE_SERVER_H
#define FAKE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <pados.pb-c.h>

typedef enum fake_mood {
    FAKE_HONEST,
    FAKE_SILENT,      /* takes searches and never answers them */
    FAKE_HANGS_UP,    /* closes the connection when a search comes */
    FAKE_WRONG_ID,    /* answers with another request's id */
    FAKE_WRONG_BODY,  /* answers a search with a hello */
    FAKE_FAILS,       /* NOT_FOUND with a sentence */
    FAKE_GARBAGE,     /* bytes that are no message */
    FAKE_BOMB,        /* 4 MiB of empty explanations */
    FAKE_SHORT_SCORES /* fewer scores than ids */
} fake_mood;

typedef struct fake_server fake_server;

/* Listens on url (ipc:// or tcp://127.0.0.1:0) and answers in a thread of its own. NULL when it cannot. */
fake_server *fake_start(const char *url);
void fake_stop(fake_server *server);
const char *fake_url(const fake_server *server); /* with the port that it got */
void fake_mood_set(fake_server *server, fake_mood mood);
/* Limits of the next hellos. 0: the usual. */
void fake_limits_set(fake_server *server, uint32_t max_queries, uint32_t max_k, uint64_t max_message);
void fake_admin_url_set(fake_server *server, const char *url);
/* Fails that many push chunks by hanging up, each second one after it was stored. */
void fake_break_chunks(fake_server *server, int count);

/* Of the next writes: hangs up on so many (after doing them, where done says so), then answers so many UNAVAILABLE; the
 * refused'th after those (from 1; 0: none) is INVALID_ARGUMENT. Hang-ups are for tests of one thread: nng 1.5.2 may wait for ever
 * for a pipe that is closed while another message is on its way (client/link.c), and here it would be the server's. */
void fake_break_writes(fake_server *server, int hang_ups, bool done, int unavailable, int refused);

unsigned fake_requests(const fake_server *server, int body); /* of one PADOS__V1__REQUEST__BODY_..., so far */

enum { FAKE_SEQUENCE = 77, FAKE_WRITES = 256 };

/* Writes as they came, resends included. A key that was done before is answered repeated, with its first sequence. */
typedef struct fake_write {
    int body;
    char key[160];
    uint64_t first; /* id */
    size_t rows;
    uint64_t sequence; /* 0: not done */
} fake_write;
typedef struct fake_changes {
    fake_write writes[FAKE_WRITES];
    size_t count;
    uint64_t done; /* writes */
    Pados__V1__Request *last;
    int hang_ups, unavailable, refused;
    bool done_before_hanging_up;
    Pados__V1__Erasure *erasures[16];
    size_t nerasures;
    char folder[128];
} fake_changes;
const fake_changes *fake_look_at_changes(fake_server *server); /* until fake_look_away */

/* The last search, and everything pushed so far by part; under the server's lock between these two. */
typedef struct fake_seen {
    Pados__V1__Search *search;
    uint32_t deadline_ms;
    char token[64];
    char key[64], schema[256], attributes_name[64];
    uint8_t *parts[4];
    size_t part_bytes[4];
    bool published, aborted;
    uint64_t rows;
    uint32_t dim;
} fake_seen;
const fake_seen *fake_look(fake_server *server);
void fake_look_away(fake_server *server);

#endif
