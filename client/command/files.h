/* Files as a push's sources, and texts. Each function returns 0 or an exit code, having said on stderr what is wrong. */
#ifndef FILES_H
#define FILES_H

#include "command.h"
#include "reader.h"

enum { TEXT_MAX = 4 << 20 }; /* bytes of a schema or a profile */

/* The whole file, NUL-terminated, freed by the caller. A NUL byte in it is refused. */
int read_text(const char *path, char **text);

/* Newlines in a file: near enough to the rows of a CSV for a progress that is shown. */
int count_lines(const char *path, uint64_t *count);

/* A file's bytes. */
typedef struct file_source {
    FILE *file;
    const char *path;
} file_source;
int file_source_open(file_source *f, const char *path, pados_source *source);
void file_source_close(file_source *f);

/* A reader's rows as bytes: as stored, or converted to f32. */
typedef struct rows_source {
    pd_reader *reader;
    pd_reader_info info;
    bool as_f32;
    uint8_t *rows; /* read and not yet given out: [at, end) */
    size_t row_bytes, at, end, room;
} rows_source;
int rows_source_open(rows_source *r, const char *path, pd_format format, bool as_f32, pados_source *source);
void rows_source_close(rows_source *r);
/* The wire's name of a type that rows can be sent in; path is for the message. */
int rows_dtype(const char *path, pd_dtype dtype, pados_dtype *out);

/* Bytes in memory. */
typedef struct memory_source {
    const uint8_t *bytes;
    size_t length, at;
} memory_source;
void memory_source_open(memory_source *m, const void *bytes, size_t length, pados_source *source);

#endif
