/* Files that appear whole or not at all: written beside their place under a temporary name, renamed when everything is
 * written, removed when the tool ends without that, by die() or a signal. What exists and is no regular file, such as
 * /dev/null, is written to directly. */
#ifndef OUTPUT_H
#define OUTPUT_H

#include <stddef.h>

struct output;

struct output *output_open(const char *path);
void output_write(struct output *to, const void *data, size_t bytes);
const char *output_path(const struct output *to);

/* Closes every open output, then puts each in its place. */
void outputs_commit(void);

#endif
