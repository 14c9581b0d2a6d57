/* Keys, values and queries in every type that the library stores, in rows, in panels and in pages. What lies between
 * rows, past the last token and in blocks of nobody is filled with ones: NaN in every type that has one. */
#ifndef STORED_H
#define STORED_H

#include "tril.h"

struct shape {
    int64_t tokens, heads, dim;
};

/* In which block of its pages a sequence has its tokens. */
struct book {
    int64_t block_tokens, n_blocks;
    int32_t *table;
};

struct stored {
    tril_tensor x;
    struct shape shape;
    char *memory;
    float *scales; /* TRIL_I8 only */
};

/* "F32", "Q8_0" ... */
const char *dtype_name(tril_dtype type);

/* floats: F32 in rows. Rows lie `pad` elements apart, `beyond` tokens follow. */
struct stored stored_rows(const tril_tensor *floats, struct shape shape, tril_dtype type, int64_t beyond, int64_t pad);
/* The same by tril_append(), of a type that panels may have. */
struct stored stored_panels(const tril_tensor *floats, struct shape shape, tril_dtype type, int64_t pad);
/* The same rows or panels in pages. */
struct stored stored_pages(const tril_tensor *from, struct shape shape, const struct book *book);
/* What rows are worth: F32. */
struct stored stored_floats(const tril_tensor *rows, struct shape shape);
void stored_free(struct stored *x);

#endif
