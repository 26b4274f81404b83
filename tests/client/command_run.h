/* Runs the built command against the tests' own server, and looks at what came out. PADOS names the program. */
#ifndef COMMAND_RUN_H
#define COMMAND_RUN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>

#include "fake_server.h"

typedef struct outcome {
    int code;
    char out[65536], err[8192];
} outcome;

extern fake_server *server;
extern outcome last; /* of the command run last */

/* A server and an empty folder for each test. */
int set_up(void **state);
int tear_down(void **state);
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* A path in the test's folder. Up to 32 live at once. */
const char *in_folder(const char *name);
const char *write_file(const char *name, const void *bytes, size_t length);
const char *write_text(const char *name, const char *text);
/* rows.fvecs: rows of 4 dimensions, row i is i, 1, 2, 3. */
const char *vectors_fvecs(int rows);

void run(const char *first, ...);
#define RUN(...) run(__VA_ARGS__, NULL)
/* The exit code, and what stdout and stderr say; NULL: whatever. */
void expect(int code, const char *out, const char *err);
/* Line number `line` of stdout as JSON; the caller decrefs it. */
json_t *json_at(int line);
size_t lines(void); /* of stdout */

#endif
