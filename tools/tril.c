/* tril, the command line: finds the command and runs it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "progress.h"
#include "tool.h"
#include "tril.h"

static const struct {
    const char *name, *what;
    int (*run)(int, char **);
} commands[] = {
    {"info", "what this machine is and which tier (instruction set) is used on it", cmd_info},
    {"attend", "O = softmax(scale Q K^T + causal mask) V, from .npy files into one", cmd_attend},
    {"weights", "the weight matrix A itself: a .npy file, or one head as a picture", cmd_weights},
    {"verify", "every tier of this machine against the scalar oracle", cmd_verify},
    {"demo", "real activations, a picture, and a layer of an 8-billion-parameter model", cmd_demo},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

void die(const char *format, ...)
{
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?'; /* a file's name may hold anything */
    }
    progress_end();
    fprintf(stderr, "tril: %s\n", line);
    exit(WRONG);
}

void *need(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size > 0 ? size : 1);
    if (p == NULL) die("no memory for %zu elements of %zu bytes; give smaller arrays", count, size);
    return p;
}

double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void help(void)
{
    printf("tril - causal attention on a CPU: the lower triangle, and nothing else\n\n"
           "usage: tril COMMAND [OPTION]...\n\n");
    for (int i = 0; i < COMMANDS; i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].what);
    printf("\n  tril COMMAND --help   the options of a command\n"
           "  tril --version        the version of the tool and of the library\n\n"
           "environment: TRIL_ISA=<tier> is a ceiling for the tier that is chosen\n"
           "exit status: 0 done, 1 a result is wrong (verify, demo), 2 wrong input\n");
}

static int run(int argc, char **argv)
{
    if (argc < 2) die("no command; give info, attend, weights, verify or demo, see tril --help");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        help();
        return DONE;
    }
    if (strcmp(name, "--version") == 0) {
        const uint32_t v = tril_version();
        printf("tril %u.%u.%u\n", v >> 16, v >> 8 & 0xff, v & 0xff);
        return DONE;
    }
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    die("unknown %s '%s'; give info, attend, weights, verify or demo, see tril --help",
        name[0] == '-' ? "option" : "command", name);
}

int main(int argc, char **argv)
{
    const int status = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) die("standard output: cannot write: %s", strerror(errno));
    return status;
}
