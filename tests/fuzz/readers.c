/* The readers are compiled with free, realloc, fopen, fclose, open and mmap under these names, see meson.build. */
#include "readers.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tool.h"

enum {
    MOST_PIECES = 1 << 13,
    MOST_MEMORY = 1 << 26 /* that need() gives for one input */
};

static struct {
    jmp_buf died;
    void *piece[MOST_PIECES];
    int pieces;
    size_t bytes;
    FILE *stream;
    int fd;
} now;

void fuzz_free(void *p);
void *fuzz_realloc(void *p, size_t bytes);
FILE *fuzz_fopen(const char *path, const char *mode);
int fuzz_fclose(FILE *file);
int fuzz_open(const char *path, int flags, ...);
void *fuzz_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset);

void die(const char *format, ...)
{
    char line[4096];
    va_list values;
    va_start(values, format);
    vsnprintf(line, sizeof line, format, values); /* what is printed is read, too */
    va_end(values);
    longjmp(now.died, 1);
}

double seconds(void)
{
    return 0;
}

static void *keep(void *p)
{
    if (p == NULL || now.pieces == MOST_PIECES) {
        free(p);
        die("no memory");
    }
    return now.piece[now.pieces++] = p;
}

void *need(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > MOST_MEMORY - now.bytes) die("no memory");
    now.bytes += bytes;
    return keep(calloc(1, bytes + (bytes == 0)));
}

void fuzz_free(void *p)
{
    int i = 0;
    if (p == NULL) return;
    while (i < now.pieces && now.piece[i] != p)
        i++;
    if (i == now.pieces) abort(); /* not its own */
    now.piece[i] = now.piece[--now.pieces];
    free(p);
}

void *fuzz_realloc(void *p, size_t bytes)
{
    int i = 0;
    while (i < now.pieces && now.piece[i] != p)
        i++;
    if (i == now.pieces) abort();
    return now.piece[i] = realloc(p, bytes);
}

FILE *fuzz_fopen(const char *path, const char *mode)
{
    return now.stream = fopen(path, mode);
}

int fuzz_fclose(FILE *file)
{
    now.stream = NULL;
    return fclose(file);
}

int fuzz_open(const char *path, int flags, ...)
{
    return now.fd = open(path, flags);
}

/* A mapping ends with a page, and what reads past the file's end would not be seen: this is a piece of the heap. */
void *fuzz_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    (void)at, (void)protection, (void)flags;
    if (bytes == 0) return MAP_FAILED;
    void *p = keep(malloc(bytes));
    if (pread(fd, p, bytes, offset) != (ssize_t)bytes) abort();
    return p;
}

int read_bytes_as_file(const uint8_t *data, size_t size, void (*read)(const char *path))
{
    static int file = -1;
    static char path[64];
    volatile int whole = 0;
    if (file < 0) {
        file = memfd_create("input", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    }
    if (file < 0 || ftruncate(file, 0) != 0 || pwrite(file, data, size, 0) != (ssize_t)size) abort();
    now.fd = -1;
    if (setjmp(now.died) == 0) {
        read(path);
        whole = 1;
    }
    if (now.stream != NULL) fclose(now.stream);
    if (now.fd >= 0) close(now.fd);
    for (int i = 0; i < now.pieces; i++)
        free(now.piece[i]);
    now.stream = NULL;
    now.pieces = 0;
    now.bytes = 0;
    return whole;
}
