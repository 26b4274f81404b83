/* padosd's configuration: configs/padosd.conf shows every key with its default. */
#ifndef PD_CONFIG_H
#define PD_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct pd_listener_config {
    char *
        url; /* tcp://127.0.0.1:7461, tls+tcp://..., ipc:///path; HTTP: http:// or https://; "" switches it off */
    char *cert_file; /* PEM, with key_file: TLS */
    char *key_file;
    char *token_file; /* one token a line; requests must carry one of them */
    int insecure;     /* a public address without TLS and token is allowed */
} pd_listener_config;

/* Nothing in it changes once it is read. A reload makes another one and hands it to whoever reads it while serving (server->config,
 * catalog->config); the one before stays valid until the end, so that a pointer taken from there may be used for the length of a
 * request, and is taken anew for the next. */
typedef struct pd_config {
    char *data_folder;
    pd_listener_config data, admin, http;
    char *backend;   /* "auto", "cpu", "cuda", "reference" */
    char *isa;       /* "": the best */
    uint64_t memory; /* bytes of the slab */
    uint64_t
        host_memory; /* bytes of the host's memory for refine rows, of a cuda device; 0: they lie in the slab */
    uint32_t threads;         /* 0: all */
    uint32_t builder_threads; /* 0: all */
    int builder_normal;       /* 0: at idle priority; 1: at the priority of everyone else */
    uint64_t max_message;     /* bytes of one request */
    uint32_t max_chunk;       /* bytes of a push chunk */
    uint32_t max_queries;     /* of one request */
    uint64_t max_hits;        /* queries x k of one request */
    uint32_t queue_requests;  /* the bound of the search queue */
    uint32_t queue_queries;   /* the same in queries */
    uint32_t batch_queries;   /* largest batch handed to the device */
    uint32_t batch_wait_us;   /* longest wait for a batch to fill */
    uint32_t slice_us;        /* the work of one slice */
    uint32_t deadline_ms, max_deadline_ms;
    uint32_t send_timeout_ms;
    uint32_t pipe_requests; /* in flight from one connection */
    uint32_t stop_ms;       /* longest drain at SIGTERM */
    uint32_t keep;          /* versions kept besides the serving one, where the schema does not say */
    uint32_t calibration_queries;
    uint64_t max_push_bytes;
    int changes_durability; /* 0 sync, 1 interval, 2 none: pd_durability */
    uint32_t changes_interval_ms;
    uint64_t changes_bytes;   /* bound of the log of changes on the disk */
    uint32_t spare_percent;   /* pages that a table gets beyond its version's, of those */
    uint32_t rebuild_percent; /* changed rows that start a rebuild, of all; 0: never */
    uint32_t writer_threads;
    uint64_t erase_ms;    /* deadline of an erasure */
    double receipt_days;  /* how long a finished erasure's receipt is kept */
    double recall_sample; /* share of live queries that are repeated exactly, 0 .. 1 */
    int log_level;        /* 0 error, 1 warning, 2 info, 3 debug */
} pd_config;

/* path NULL: defaults only. sets: the --set assignments. Freed with pd_config_free. Errors name file, line and key. */
pd_status pd_config_load(const char *path, const char *const *sets, size_t nsets, pd_config **out,
                         pd_error *err);
void pd_config_free(pd_config *config);

/* A listener that is not loopback or ipc needs TLS and a token file, or insecure = true; certificate, key and token files
 * must be there and readable (nng would start happily and fail every client). Names the setting that would allow it. */
pd_status pd_config_check(const pd_config *config, pd_error *err);

/* FAILED_PRECONDITION naming every key that differs and cannot change while serving. What can is in configs/padosd.conf. */
pd_status pd_config_change(const pd_config *now, const pd_config *next, pd_error *err);

#endif
