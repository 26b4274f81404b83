/* A real padosd for a test: started on ipc sockets in a folder of its own, stopped with SIGTERM, its log kept. */
#ifndef E2E_SERVER_H
#define E2E_SERVER_H

#include <stdint.h>
#include <sys/types.h>

#include "pados.h"

typedef struct server {
    char folder[128]; /* made by server_start when empty; holds data/, log, sockets */
    char url[192], admin_url[192];
    char http[64];     /* "http://127.0.0.1:PORT", "" without */
    char config[160];  /* the file it is started with, "" without */
    char restore[160]; /* the snapshot it is started from, "" without */
    pid_t pid;
} server;

/* PADOSD names the program (set by ctest). sets: further --set assignments, NULL-terminated; may be NULL. Waits until hello
 * is answered; fails the test with the server's log otherwise. */
void server_start(server *s, const char *const *sets);
/* SIGTERM and wait; returns the exit status as waitpid gives it. */
int server_stop(server *s);
void server_kill(server *s);   /* SIGKILL and wait */
void server_remove(server *s); /* the folder, after stop */
pados_client *server_client(const server *s);
/* Runs padosd to its end: for configurations that it must refuse. Returns the exit status; the log's text in log. */
int server_refused(const char *const *args, char *log, size_t room);
/* How many lines of its log hold these words. */
int server_says(const server *s, const char *words);
/* Resident bytes of the process. */
uint64_t server_resident(const server *s);
/* The same without what is mapped from files: of the log of changes as much is resident as the system's cache likes. */
uint64_t server_own(const server *s);

/* Pushes rows: vectors [rows][dim] f32, ids may be NULL, attributes CSV text or NULL, schema text or NULL. */
pados_status push_rows(pados_client *client, const char *table, const char *schema, uint64_t rows,
                       uint32_t dim, const float *vectors, const uint64_t *ids, const char *attributes,
                       bool stage_only, uint64_t *version, pados_error *error);
/* Deterministic clustered rows: [rows][dim]. */
void make_rows(uint64_t seed, uint64_t rows, uint32_t dim, uint32_t clusters, float *out);

#endif
