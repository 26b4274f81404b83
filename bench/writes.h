/* pados-writes: what changes cost a table that serves, and what they cost those who search it meanwhile. writes.c says what is
 * measured.
 */
#ifndef PADOS_WRITES_H
#define PADOS_WRITES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "pados.h"

#define WRITES_TABLE  "items"
#define WRITES_SETS   16
#define WRITES_ROUNDS 21

typedef struct writes_options {
    const char *to;     /* a padosd that runs; NULL: one of our own is started */
    const char *padosd; /* NULL: beside this program */
    const char *json, *folder, *parts;
    uint64_t rows;
    uint32_t dim, batch, rounds, flights;
    double seconds, recall;
    const char *sets[WRITES_SETS]; /* key=value of a padosd of our own */
    uint32_t nsets;
} writes_options;

/* One measured setting in one round; negative: not known. */
typedef struct writes_row {
    const char *what, *setting;
    uint32_t flights, batch;
    double per_s, p50_us, p99_us,
        max_us;    /* rows or queries a second; times are of whole batches or requests */
    double cpu_us; /* of the server, a row or a query, over all its threads */
    double bind_us, writer_us, executor_us,
        sync_us; /* of these, by thread; a sync of such a batch in the same round */
    double recall;
    uint64_t errors;
} writes_row;

/* ------------------------------------------------------------------------------------------------- the server --- */

typedef struct writes_server {
    char folder[400], url[440];
    pid_t pid; /* 0: not ours */
} writes_server;

/* set: one more key=value, NULL. Starts it and waits until it answers, or looks for the one that is there. Not 0: said why. */
int writes_server_start(const writes_options *options, const char *program, const char *set,
                        writes_server *out);
void writes_server_stop(writes_server *server);

/* Nanoseconds of processor time so far, of all threads that are not at idle priority and of those that writes pass through; zeros
 * where it is not ours. */
typedef struct writes_cpu {
    double all, bind, writer, executor;
} writes_cpu;
writes_cpu writes_cpu_of(const writes_server *server);

/* --------------------------------------------------------------------------------------------------- the data --- */

typedef struct writes_data {
    uint64_t rows;
    uint32_t dim, nqueries; /* of each law */
    float *base;            /* [rows][dim] */
    float *fresh;           /* [rows / 2][dim], by another law */
    float *queries;         /* [2 * nqueries][dim]: of the table's law, then of the other */
} writes_data;
int writes_data_make(const writes_options *options, writes_data *out);
void writes_data_free(writes_data *data);
/* Pushes the base rows with four attributes as WRITES_TABLE: price (number), stock (category), zone (category), brand (key). */
int writes_push(pados_client *client, const writes_data *data);

/* --------------------------------------------------------------------------------------------------- the load --- */

typedef struct writes_times { /* of requests, seconds */
    double *at;
    size_t count, room;
} writes_times;
void writes_times_add(writes_times *times, double seconds);
/* In microseconds; sorts. 0 where there are none. */
double writes_times_part(writes_times *times, double part);
void writes_times_free(writes_times *times);

double writes_now(void);
double writes_median(double *values, uint32_t n);
void writes_sleep_until(double time);

typedef enum writes_kind { WRITES_UPSERT, WRITES_UPDATE, WRITES_UPDATE_FOUR } writes_kind;

/* Writers, each a thread that sends batch after batch of rows of its own share, as fast as they are answered or at a pace. */
typedef struct writes_writers {
    pados_client *client;
    const writes_data *data;
    writes_kind kind;
    uint32_t flights, batch;
    double per_s;         /* rows a second of all of them; 0: as fast as it goes */
    uint64_t first, rows; /* ids that are written, in turn; of one pass only where once is set */
    int once;
    const float *
        vectors; /* [rows][dim]: of ids first.. where once is set, else rows of the table that its ids get in turn */
    /* Results, after stop. */
    writes_times times,
        visible; /* answered; found by a search that came after (of flight 0, where asked for) */
    int look;    /* whether visible is measured */
    uint64_t written, errors;
    double seconds;
    char first_error[512];
    /* Own. */
    pthread_t threads[64];
    pthread_mutex_t lock;
    atomic_int stop;
    atomic_ullong next;
    double start;
} writes_writers;
void writes_writers_start(writes_writers *writers);
void writes_writers_wait(writes_writers *writers); /* for the end of one pass */
void writes_writers_stop(writes_writers *writers);
void writes_writers_free(writes_writers *writers);

/* Searchers: of 8 queries each, closed loop, or at a pace whatever the answers take (times count from when a request was due). */
typedef struct writes_searchers {
    const char *url;
    const writes_data *data;
    uint32_t clients;
    double per_s; /* requests a second; 0: as fast as they are answered */
    double recall;
    writes_times times;
    uint64_t requests, errors;
    double seconds;
    char first_error[512];
    pthread_t threads[64];
    pthread_mutex_t lock;
    atomic_int stop;
    atomic_ullong next;
    double start;
} writes_searchers;
#define WRITES_QUERIES 8u
void writes_searchers_start(writes_searchers *searchers);
void writes_searchers_stop(writes_searchers *searchers);
void writes_searchers_free(writes_searchers *searchers);

/* Share of the exact ten nearest that a promise finds, over all queries. Negative: an error, said. */
double writes_recall(pados_client *client, const writes_data *data, double recall);

/* ----------------------------------------------------------------------------------------------- the ceilings --- */

typedef struct writes_ceilings { /* microseconds a batch, medians */
    double copy, sync, assign, log, nlist;
} writes_ceilings;
/* memcpy of a batch's bytes; write and fdatasync of them; nearest centroids by one thread; the same bytes through the log of changes. */
int writes_ceilings_measure(const writes_options *options, const writes_data *data, const char *folder,
                            writes_ceilings *out);

#endif
