/* Clients that write to a table at once and know what it must hold.
 *
 * Each client has ids of its own and does one write at a time, so that a row is what its last write made of it, or what the
 * one under way makes of it. A row is stamped: the vector, the category, the set and the key all follow from the upsert's stamp, the
 * price is that of the last update, so that half a write shows. Another table is pushed and published as a whole,
 * generation after generation.
 */
#ifndef DRILLS_LOAD_H
#define DRILLS_LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../fault/fault.h"
#include "model.h"
#include "server.h"

enum {
    LOAD_CLIENTS = 3,
    LOAD_IDS = 100,
    LOAD_ROWS = LOAD_CLIENTS * LOAD_IDS,
    LOAD_BATCH = 12,
    LOAD_KINDS = 5
};
enum { LOAD_UPSERT, LOAD_UPDATE, LOAD_DELETE, LOAD_COUNT, LOAD_ERASE };

typedef struct load_state {
    bool there;
    uint32_t stamp, price;
    double heat;
} load_state;

typedef struct load_write {
    uint64_t sent,
        acknowledged; /* the diary's length then; UINT64_MAX: it is not known whether it was done */
    uint32_t kind, n;
    uint32_t ids[LOAD_BATCH]; /* the client's own: 0 .. LOAD_IDS - 1 */
    load_state after[LOAD_BATCH];
    double weights[LOAD_BATCH];
    char key[40];
} load_write;

typedef struct load_client {
    const server *host;
    pados_client *client;
    uint32_t index, stamp;
    uint64_t seed, sequence;
    const pd_fault_state *diary; /* NULL: none */
    load_state now[LOAD_IDS];    /* what was acknowledged */
    load_write *writes;
    uint32_t count, room;
    uint32_t acknowledged, refused, unknown, repeated, searches;
    pados_status last_error;
    char last_message[300];
    atomic_bool *stop;
    pthread_t thread;
    char wrong[300]; /* "": nothing */
} load_client;

/* Generations of the table "u". */
typedef struct load_pushes {
    const server *host;
    pados_client *client;
    const pd_fault_state *diary;
    struct {
        uint64_t sent, acknowledged;
        uint32_t generation;
    } at[4096];
    uint32_t count, rebuilds;
    atomic_bool *stop;
    pthread_t thread;
    char wrong[300];
} load_pushes;

extern const char *const load_sets[]; /* for server_start */

/* A client, and the rows that it begins with in load_fill. timeout_ms: of its writes. */
void load_open(load_client *c, const server *host, uint32_t index, uint64_t seed, uint32_t timeout_ms,
               const pd_fault_state *diary);
void load_close(load_client *c);
/* Pushes table "t" with the first rows of all clients. */
void load_fill(load_client *clients);

/* One write, or a search of what was written. false: it is not known whether it was done, or something is wrong; the client then
 * waits for load_check. kind < 0: any. */
bool load_step(load_client *c, int kind);
/* The same of one row of the client's own. */
bool load_step_on(load_client *c, uint32_t kind, uint32_t own);
/* That row's vector as the client's last upsert has it: [MODEL_DIM]; its id is returned. */
uint64_t load_row(const load_client *c, uint32_t own, float *vector);
/* Threads that do so until stop. */
void load_start(load_client *c, atomic_bool *stop);
/* Pushes of "u", published at once or later, and rebuilds of both tables. */
bool load_push(load_pushes *p, uint32_t generation, bool stage_first);
void load_push_start(load_pushes *p, atomic_bool *stop);

/* Compares table "t" with what was acknowledged when the diary was that long (UINT64_MAX: all); a write that was under way is there
 * or not, as a whole. Settles what was not known where all is asked for. The difference in why: [300]. */
bool load_check(load_client *clients, uint32_t nclients, pados_client *client, uint64_t diary, char *why);
/* The same of "u". */
bool load_check_pushes(const load_pushes *p, pados_client *client, uint64_t diary, char *why);

#endif
