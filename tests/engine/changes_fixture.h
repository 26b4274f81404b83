/* A log in a temporary folder, and records whose bytes tell their number. */
#ifndef CHANGES_FIXTURE_H
#define CHANGES_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "changes.h"

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

typedef struct logbook {
    char folder[64], at[80], file[100]; /* folder/log, folder/log/data.mdb */
    pd_changes_options options;
    pd_changes *log;
} logbook;

static inline void logbook_open(logbook *l)
{
    pd_error err;
    must(pd_changes_open(&l->options, &l->log, &err), err);
}

static inline void logbook_reopen(logbook *l)
{
    pd_changes_close(l->log);
    logbook_open(l);
}

static inline void logbook_make(logbook *l, uint64_t mib, pd_durability durability)
{
    memset(l, 0, sizeof *l);
    /* In memory where it can be: thousands of syncs say nothing here. */
    int memory = access("/dev/shm", W_OK) == 0;
    snprintf(l->folder, sizeof l->folder, "%s/pados-changes-XXXXXX", memory ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(l->folder));
    snprintf(l->at, sizeof l->at, "%s/log", l->folder);
    snprintf(l->file, sizeof l->file, "%s/data.mdb", l->at);
    l->options = (pd_changes_options){.folder = l->at, .map_bytes = mib << 20, .durability = durability};
    logbook_open(l);
}

static inline void logbook_remove(logbook *l)
{
    pd_changes_close(l->log);
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", l->folder);
    assert_int_equal(system(command), 0);
}

/* The byte i of record n. */
static inline unsigned char byte_of(uint64_t sequence, size_t i)
{
    return (unsigned char)((sequence * 0x9e3779b97f4a7c15u ^ i * 0xbf58476d1ce4e5b9u) >> 56);
}

/* Bytes are shared: valid until the next 64 calls. */
static inline void record_make(pd_record *record, uint64_t sequence, const char *table, size_t length)
{
    static unsigned char *bytes[64];
    static unsigned turn;
    unsigned char **at = &bytes[turn++ % 64];
    memset(record, 0, sizeof *record);
    *at = realloc(*at, length + 1);
    for (size_t i = 0; i < length; i++)
        (*at)[i] = byte_of(sequence, i);
    record->sequence = sequence;
    record->kind = (uint32_t)(sequence % 5);
    record->time = (double)sequence / 8;
    snprintf(record->table, sizeof record->table, "%s", table);
    snprintf(record->key, sizeof record->key, "key-%llu", (unsigned long long)sequence);
    record->bytes = *at;
    record->length = length;
}

static inline void assert_record(const pd_record *record)
{
    char key[40];
    snprintf(key, sizeof key, "key-%llu", (unsigned long long)record->sequence);
    assert_int_equal(record->kind, record->sequence % 5);
    assert_true(record->time == (double)record->sequence / 8);
    assert_string_equal(record->key, key);
    for (size_t i = 0; i < record->length; i++)
        if (((const unsigned char *)record->bytes)[i] != byte_of(record->sequence, i))
            fail_msg("byte %zu of record %llu", i, (unsigned long long)record->sequence);
}

/* n records in one batch, at most 64. */
static inline pd_status try_append(pd_changes *log, const char *table, uint32_t n, size_t length,
                                   pd_error *err)
{
    pd_record records[64];
    uint64_t last = pd_changes_last(log);
    for (uint32_t i = 0; i < n; i++)
        record_make(&records[i], last + 1 + i, table, length);
    return pd_changes_append(log, records, n, err);
}

static inline void append_some(logbook *l, const char *table, uint32_t n, size_t length)
{
    pd_error err;
    for (uint32_t done = 0; done < n; done += 50)
        must(try_append(l->log, table, n - done < 50 ? n - done : 50, length, &err), err);
}

static inline void append_text(logbook *l, const char *table, const char *text)
{
    pd_error err;
    pd_record record;
    record_make(&record, pd_changes_last(l->log) + 1, table, 0);
    record.bytes = text;
    record.length = strlen(text);
    must(pd_changes_append(l->log, &record, 1, &err), err);
}

typedef struct seen {
    const char *table; /* all are of it; NULL: any */
    uint64_t first, last, count;
} seen;

static inline pd_status see(void *context, const pd_record *record, pd_error *err)
{
    (void)err;
    seen *s = context;
    assert_record(record);
    if (s->table) assert_string_equal(record->table, s->table);
    if (!s->count++) s->first = record->sequence;
    assert_true(record->sequence > s->last);
    s->last = record->sequence;
    return PD_OK;
}

/* -------------------------------------------------------------------------------------------- the file itself --- */

static inline int below_exists(const logbook *l, const char *below)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", l->folder, below);
    return access(path, F_OK) == 0;
}

static inline uint64_t file_bytes(const logbook *l)
{
    struct stat about;
    assert_int_equal(stat(l->file, &about), 0);
    return (uint64_t)about.st_size;
}

static inline unsigned char *file_read(const logbook *l, size_t *length)
{
    *length = file_bytes(l);
    unsigned char *bytes = malloc(*length);
    int fd = open(l->file, O_RDONLY);
    assert_true(fd >= 0 && pread(fd, bytes, *length, 0) == (ssize_t)*length);
    close(fd);
    return bytes;
}

static inline void file_write(const logbook *l, uint64_t at, const void *bytes, size_t length)
{
    int fd = open(l->file, O_WRONLY);
    assert_true(fd >= 0 && pwrite(fd, bytes, length, (off_t)at) == (ssize_t)length);
    close(fd);
}

static inline int file_holds(const logbook *l, const char *text)
{
    size_t length;
    unsigned char *bytes = file_read(l, &length);
    int holds = memmem(bytes, length, text, strlen(text)) != NULL;
    free(bytes);
    return holds;
}

#endif
