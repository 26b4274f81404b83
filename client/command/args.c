/* Options and words of a command line: --name VALUE or --name=VALUE, anywhere; -- ends the options. A value may begin with
 * a dash (--min-score -1). getopt_long is not used: it abbreviates, and it does not name the bad value. */
#include "command.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool parse_u64(const char *text, uint64_t *value)
{
    if (*text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    unsigned long long got = strtoull(text, &end, 10);
    if (errno || *end) return false;
    *value = got;
    return true;
}

bool parse_u32(const char *text, uint32_t *value)
{
    uint64_t wide;
    if (!parse_u64(text, &wide) || wide > UINT32_MAX) return false;
    *value = (uint32_t)wide;
    return true;
}

bool parse_f32(const char *text, float *value)
{
    char *end;
    if (!*text || *text == ' ') return false;
    float got = strtof(text, &end);
    if (*end || !isfinite(got)) return false;
    *value = got;
    return true;
}

void args_list_free(arg_list *list)
{
    free(list->at);
    *list = (arg_list){NULL, 0};
}

static int store(const arg *option, const char *value)
{
    if (option->given) *option->given = true;
    switch (option->kind) {
    case ARG_FLAG:
        *(bool *)option->to = true;
        return 0;
    case ARG_TEXT:
        *(const char **)option->to = value;
        return 0;
    case ARG_LIST: {
        arg_list *list = option->to;
        list->at = must(realloc(list->at, (list->count + 1) * sizeof *list->at));
        list->at[list->count++] = value;
        return 0;
    }
    case ARG_U32:
        if (parse_u32(value, option->to)) return 0;
        return usage_error("%s: \"%s\" is not a whole number of at most 4294967295", option->name, value);
    case ARG_U64:
        if (parse_u64(value, option->to)) return 0;
        return usage_error("%s: \"%s\" is not a whole number", option->name, value);
    case ARG_F32:
        if (parse_f32(value, option->to)) return 0;
        return usage_error("%s: \"%s\" is not a number", option->name, value);
    }
    return EXIT_OTHER;
}

static const arg *find(const arg *options, const char *text, size_t length)
{
    for (const arg *o = options; o && o->name; o++)
        if (strlen(o->name) == length && strncmp(o->name, text, length) == 0) return o;
    return NULL;
}

/* Takes the option at argv[*at], and its value; *at is then at the last argument that belongs to it. */
static int take_option(int argc, char **argv, int *at, const arg *global, const arg *own)
{
    const char *text = argv[*at], *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    const arg *option = find(own, text, length);
    if (!option) option = find(global, text, length);
    if (!option) return usage_error("%.*s: there is no such option", (int)length, text);
    if (option->kind == ARG_FLAG) {
        if (equals) return usage_error("%s takes no value", option->name);
        return store(option, NULL);
    }
    if (equals) return store(option, equals + 1);
    if (*at + 1 >= argc) return usage_error("%s wants a value", option->name);
    return store(option, argv[++*at]);
}

static bool is_option(const char *text)
{
    return text[0] == '-' && text[1] != '\0';
}

#define GLOBAL_OPTIONS(g)                                                                                    \
    {                                                                                                        \
        {"--to", ARG_TEXT, &(g)->to, NULL}, {"--admin", ARG_TEXT, &(g)->admin, NULL},                        \
            {"--token-file", ARG_TEXT, &(g)->token_file, NULL}, {"--ca", ARG_TEXT, &(g)->ca, NULL},          \
            {"--server-name", ARG_TEXT, &(g)->server_name, NULL},                                            \
            {"--timeout", ARG_U32, &(g)->timeout_ms, NULL}, {"--json", ARG_FLAG, &(g)->json, NULL},          \
            {"--help", ARG_FLAG, &(g)->help, NULL}, {"-h", ARG_FLAG, &(g)->help, NULL},                      \
        {                                                                                                    \
            NULL, ARG_FLAG, NULL, NULL                                                                       \
        }                                                                                                    \
    }

int args_globals(int argc, char **argv, globals *g, int *word)
{
    const arg global[] = GLOBAL_OPTIONS(g);
    for (*word = 1; *word < argc && is_option(argv[*word]); ++*word) {
        int code = take_option(argc, argv, word, global, NULL);
        if (code) return code;
    }
    return 0;
}

int args_parse(int argc, char **argv, globals *g, const arg *options, const char **words, size_t min,
               size_t max, const char *words_wanted)
{
    const arg global[] = GLOBAL_OPTIONS(g);
    size_t count = 0;
    bool all_words = false;
    for (int i = 1; i < argc; i++) {
        if (!all_words && strcmp(argv[i], "--") == 0) {
            all_words = true;
        } else if (!all_words && is_option(argv[i])) {
            int code = take_option(argc, argv, &i, global, options);
            if (code) return code;
        } else if (count == max) {
            return usage_error("\"%s\" is one argument too many (wanted: %s)", argv[i],
                               *words_wanted ? words_wanted : "none");
        } else {
            words[count++] = argv[i];
        }
    }
    if (count < min && !g->help) return usage_error("arguments are missing (wanted: %s)", words_wanted);
    return 0;
}
