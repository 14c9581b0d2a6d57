/* What readers of files are run in: they either read a file or call die(). What they had then is taken back. */
#ifndef TRIL_FUZZ_READERS_H
#define TRIL_FUZZ_READERS_H

#include <stddef.h>
#include <stdint.h>

/* Calls read() with a file of these bytes; 1 where it came to its end, 0 where die() was called. */
int read_bytes_as_file(const uint8_t *data, size_t size, void (*read)(const char *path));

#endif
