/* The options of a command, on getopt_long: every mistake ends in die(). */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <getopt.h>
#include <stdint.h>

/* The next option's letter or `val`, its argument in optarg; -1 after the last. shorts as for getopt, without 'h';
 * -h and --help print `help` and exit. Operands are refused: no command takes any. */
int next_option(int argc, char **argv, const char *shorts, const struct option *longs, const char *help);

/* `text` as a number in the range; `option` names it in the message. */
int64_t integer_option(const char *option, const char *text, int64_t min, int64_t max);
float scale_option(const char *text);
float positive_option(const char *option, const char *text);

/* "A:B" with 0 <= A < B. */
void range_option(const char *option, const char *text, int64_t *first, int64_t *end);

/* Uses exactly this tier. */
void isa_option(const char *text);

#endif
