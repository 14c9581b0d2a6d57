/* What every command of the tool shares: how it is called and how it ends. */
#ifndef TOOL_H
#define TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses. */
enum {
    DONE = 0,
    DIFFERS = 1, /* the tool worked and found a result that is wrong */
    WRONG = 2    /* wrong input, or a machine that does not let the tool do its work */
};

/* One line on stderr, "tril: ..." without anything unprintable, and exit status WRONG; unfinished outputs are removed.
 * The line says what, where, and what would be right. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* count * size bytes of zeroed memory. Never null; dies where there is none. */
void *need(size_t count, size_t size);

/* Seconds on a clock that only goes forward. */
double seconds(void);

/* The commands: argv[0] is the command's name. They return an exit status. */
int cmd_info(int argc, char **argv);
int cmd_attend(int argc, char **argv);
int cmd_weights(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_demo(int argc, char **argv);

#endif
