/* pados: the command line. Which command, its help, and the exit code. */
#include "command.h"

#include <stdlib.h>
#include <string.h>

static const command *const commands[] = {
    &command_push,     &command_tables, &command_table,    &command_publish, &command_rollback,
    &command_rebuild,  &command_search, &command_upsert,   &command_delete,  &command_update,
    &command_feedback, &command_erase,  &command_erasures, &command_export,  &command_snapshot,
    &command_profile,  &command_stats,  &command_hello};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const char usage[] =
    "usage: pados [OPTION]... COMMAND [ARGUMENT]...\n"
    "\n"
    "Pushes tables of embeddings to a Pados server, changes them, and asks it for neighbours.\n";

static const char global_help[] =
    "options of every command:\n"
    "  --to URL           the server's data listener (else $PADOS_URL, else " PADOS_DEFAULT_URL ")\n"
    "  --admin URL        its admin listener (else as the server says)\n"
    "  --token-file FILE  the token that the listeners want (else $PADOS_TOKEN)\n"
    "  --ca FILE          PEM of the authority behind a tls+tcp:// server's certificate\n"
    "  --server-name N    the name in that certificate (else the URL's host)\n"
    "  --timeout MS       of each request (10000)\n"
    "  --json             one JSON object a line instead of text for people\n"
    "  --help             what a command takes, with examples\n";

static const char exit_help[] =
    "exit codes:\n"
    "  0 done    2 wrong usage    3 bad input (INVALID_ARGUMENT, a file that is not what it should be)\n"
    "  4 NOT_FOUND    5 no answer (UNAVAILABLE, DEADLINE_EXCEEDED)    6 RESOURCE_EXHAUSTED\n"
    "  7 not allowed (UNAUTHENTICATED, PERMISSION_DENIED)    1 anything else\n"
    "Errors are on stderr: pados: STATUS_NAME: message\n";

static void print_general_help(FILE *to)
{
    fputs(usage, to);
    fputs("\ncommands:\n", to);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-9s %s\n", commands[i]->name, commands[i]->line);
    fprintf(to, "\n%s\n%s\nMore: pados COMMAND --help\n", global_help, exit_help);
}

void print_help(const command *c)
{
    printf("%s\n%s\n%s", c->help, global_help, exit_help);
}

static const command *find(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    return NULL;
}

int main(int argc, char **argv)
{
    globals g = {0};
    int word;
    if (argc > 1 && strcmp(argv[1], "--version") == 0) {
        puts("pados 0.1.0");
        return 0;
    }
    int code = args_globals(argc, argv, &g, &word);
    if (code) return code;
    const char *name = word < argc ? argv[word] : NULL;
    if (name && strcmp(name, "help") == 0) {
        g.help = true;
        name = word + 1 < argc ? argv[++word] : NULL;
    }
    if (!name) {
        print_general_help(g.help ? stdout : stderr);
        return g.help ? 0 : EXIT_USAGE;
    }
    const command *c = find(name);
    if (!c) return usage_error("\"%s\" is not a command (pados --help lists them)", name);
    if (g.help) {
        print_help(c);
        return 0;
    }
    code = c->run(argc - word, argv + word, &g);
    /* A pipe or a disk that did not take the answer is a failure, too. */
    if (fflush(stdout) || ferror(stdout)) {
        if (!code) code = complain(PD_INTERNAL, "standard output could not be written");
    }
    return code;
}
