/* The memory of one input's calls, in pieces of their exact size, so that the sanitizer sees what lies outside; as it
 * was at first, and as the first tier left it. */
#ifndef TRIL_FUZZ_MEMORY_H
#define TRIL_FUZZ_MEMORY_H

#include <stdbool.h>

#include "bytes.h"
#include "tril.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum {
    MOST_BYTES = 1 << 20, /* of one region */
    MOST_REGIONS = 24,
};

struct region {
    char *now, *before, *after;
    size_t bytes, offset; /* the offset moves it away from what malloc() aligns to */
    tril_dtype type;      /* of what may be written there: F32, F16 or BF16 */
};

struct memory {
    struct bytes from;
    struct bytes changes; /* what is wrong with the call; first in the input, where short ones have it too */
    struct region regions[MOST_REGIONS];
    int n_regions;
    bool owns_all; /* what it was asked for; else a call with it must not come to its work */
    uint32_t random;
};

/* Says so and ends the program. */
_Noreturn void broken(const char *what);
void *allocate(size_t bytes);
/* Bytes of an element, or of a stored block's smallest part. */
size_t element_of(tril_dtype type);
/* Bytes of a row of so many elements. */
int64_t row_bytes(tril_dtype type, int64_t dim);

void memory_begin(struct memory *, const uint8_t *data, size_t size);
void memory_end(struct memory *);
/* A number of the data's, which need not be chosen one by one. */
uint32_t next_random(struct memory *);
/* That many bytes; filled with numbers of which few are special, or else with 0x5a. */
void *own(struct memory *, int64_t bytes, tril_dtype type, bool filled);
/* All of it as it was. */
void memory_restore(struct memory *);
/* What there is now becomes what the first tier left. */
void memory_keep(struct memory *);
bool memory_unchanged(const struct memory *);
/* Whether it is as the first tier left it, but for signs and payloads of NaN; `tell` where it is not. */
bool memory_alike(const struct memory *, bool tell);

/* a * b, or more than anything owns. */
static inline int64_t times(int64_t a, int64_t b)
{
    int64_t x;
    return a < 0 || b < 0 ? 0 : __builtin_mul_overflow(a, b, &x) || x > INT64_MAX / 8 ? INT64_MAX / 8 : x;
}

/* Strides of so many tokens and heads, one or the other first, some with room between them; the extent. together: 16
 * for panels, else 1. */
int64_t lay_out(struct memory *, int64_t tokens, int64_t heads, int64_t row, int64_t together, size_t element,
                int64_t *token_stride, int64_t *head_stride);
/* The same of a tensor that has its dtype and layout, in blocks if there are any, and of its scales. */
void lay_out_tensor(struct memory *, tril_tensor *, int64_t tokens, int64_t blocks, int64_t heads, int64_t dim);
void own_tensor(struct memory *, tril_tensor *, bool filled);

/* A field that may become anything: an integer of 4 or 8 bytes, or a float. */
struct field {
    size_t offset, bytes;
    bool real;
};

/* clang-format off */
/* Its versions disagree about braces in a macro. */
#define INTEGER(type, name) {offsetof(type, name), sizeof(((type *)0)->name), false}
#define REAL(type, name)    {offsetof(type, name), sizeof(((type *)0)->name), true}
/* clang-format on */

/* One of the fields changes, as m->changes says. */
void change(struct memory *, void *in, const struct field *fields, size_t n);

#endif
