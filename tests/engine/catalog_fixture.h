/* A catalog on a temporary folder, with a real device and executor, asked as the wire asks it. */
#ifndef CATALOG_FIXTURE_H
#define CATALOG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "catalog.h"
#include "catalog_impl.h"
#include "pados.pb-c.h"

typedef struct fixture {
    char folder[64];
    pd_config *config;
    pd_device *device;
    pd_executor *executor;
    pd_catalog *catalog;
} fixture;

/* memory_mib of the slab. Opens everything. */
void fixture_make(fixture *f, double memory_mib);
void fixture_device(fixture *f,
                    double memory_mib); /* another device and executor, while the catalog is closed */
void fixture_open(fixture *f);          /* the catalog alone: a start */
void fixture_close(fixture *f);
void fixture_remove(fixture *f); /* everything, the folder too */
/* f->folder/... ; [512] */
void fixture_path(const fixture *f, char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int fixture_exists(const fixture *f, const char *below);
/* Turns a bit of the byte at a place of f->folder/below over. */
void fixture_flip(const fixture *f, const char *below, off_t at);

/* rows: [n][dim], uniform in [-1, 1], the same for the same seed; freed by the caller. */
float *make_rows(uint64_t seed, uint32_t n, uint32_t dim);

/* A catalog that serves a table "t" of such rows, l2. */
void fixture_shop(fixture *f, uint32_t n, uint32_t dim);

typedef struct push_plan {
    const char *table, *schema, *metric, *attributes, *key;
    const float *rows;
    uint32_t n, dim;
    const uint64_t *ids;
    const float *queries;
    uint32_t nqueries;
} push_plan;
Pados__V1__PushBegin plan_begin(const push_plan *plan);

/* An answered request: *reply is freed with pados__v1__reply__free_unpacked. */
pd_status ask(fixture *f, Pados__V1__Request *request, Pados__V1__Reply **reply, pd_error *err);
void reply_free(Pados__V1__Reply *reply);
pd_status begin(fixture *f, const Pados__V1__PushBegin *body, Pados__V1__PushBeginReply *out, pd_error *err);
pd_status chunk(fixture *f, uint64_t push, int part, uint64_t offset, const void *data, size_t length,
                uint64_t *received, pd_error *err);
pd_status commit(fixture *f, uint64_t push, int publish, uint64_t *job, pd_error *err);
/* Waits for the end of a job and returns its status; err has its message in any case. */
pd_status wait_job(fixture *f, uint64_t job, uint64_t *version, pd_error *err);
/* Begin, chunks and commit, to be published; the job. */
uint64_t upload(fixture *f, const push_plan *plan);
/* All of it. */
pd_status push(fixture *f, const push_plan *plan, int publish, uint64_t *version, pd_error *err);
pd_status publish(fixture *f, const char *table, uint64_t version, pd_error *err);
pd_status rollback(fixture *f, const char *table, uint64_t *version, pd_error *err);
uint64_t serving(fixture *f, const char *table); /* 0: none */
/* "serving", "kept" ..., "" where the version is not known; problem: [480] or NULL. */
const char *state_of(fixture *f, const char *table, uint64_t version, char *problem);
/* The nearest row to a vector in TABLE or TABLE@VERSION. */
pd_status nearest(fixture *f, const char *name, const float *vector, uint64_t *id, pd_error *err);

#define must(call, err)                                                                                      \
    do {                                                                                                     \
        if ((call) != PD_OK) fail_msg("%s: %s", #call, (err).message);                                       \
    } while (0)
/* The call fails with this status, and the message holds text. */
#define must_fail(call, err, want, text)                                                                     \
    do {                                                                                                     \
        assert_int_equal(call, want);                                                                        \
        if (!strstr((err).message, text)) fail_msg("\"%s\" does not name %s", (err).message, text);          \
    } while (0)

#endif
