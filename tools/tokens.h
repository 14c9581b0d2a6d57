/* A text cut into tokens, as labels for a picture. */
#ifndef TOKENS_H
#define TOKENS_H

#include <stdbool.h>
#include <stdint.h>

struct tokens {
    int64_t n;
    char **label;  /* UTF-8 without anything invisible: a space is an open box, a line's end an arrow */
    bool *special; /* whether it stands for something invisible */
};

/* One token per UTF-8 character, or per line, behind the mark with which a file of UTF-8 may begin. Dies where the file
 * cannot be read or is not UTF-8. */
struct tokens tokens_read(const char *path, bool by_line);
void tokens_free(struct tokens *x);

#endif
