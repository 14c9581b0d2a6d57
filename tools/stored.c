#include "stored.h"

#include <stdlib.h>
#include <string.h>

#include "operands.h"
#include "tool.h"

enum { PANEL = 16, Q_BLOCK = 32 };

/* Of each type: its name, what aligns a row, and the bytes of so many elements. */
static const struct {
    const char *name;
    int64_t unit, bytes, elements;
} types[] = {
    [TRIL_F32] = {"F32", 4, 4, 1}, [TRIL_F16] = {"F16", 2, 2, 1},          [TRIL_BF16] = {"BF16", 2, 2, 1},
    [TRIL_I8] = {"I8", 1, 1, 1},   [TRIL_Q8_0] = {"Q8_0", 2, 34, Q_BLOCK}, [TRIL_Q4_0] = {"Q4_0", 2, 18, Q_BLOCK},
};
_Static_assert(sizeof(types) / sizeof(types[0]) == TRIL_DTYPE_COUNT, "a line for every type");

const char *dtype_name(tril_dtype type)
{
    return types[type].name;
}

/* Tokens that lie together: the 16 of a panel, or one. */
static int64_t together(const tril_tensor *x)
{
    return x->layout == TRIL_PANELS ? PANEL : 1;
}

/* Bytes of one head of these tokens. */
static int64_t piece(const tril_tensor *x, int64_t dim)
{
    return dim / types[x->dtype].elements * types[x->dtype].bytes * together(x);
}

/* Room for `tokens` tokens, in each of the book's blocks where there is one. */
static struct stored blank(struct shape shape, int64_t tokens, tril_dtype type, tril_layout layout, int64_t pad,
                           const struct book *book)
{
    struct stored s = {.shape = shape, .x = {.dtype = type, .layout = layout}};
    const int64_t n = together(&s.x), groups = (tokens + n - 1) / n, blocks = book == NULL ? 1 : book->n_blocks;
    const int64_t unit = types[type].unit, head = piece(&s.x, shape.dim) + pad * unit * n;
    const int64_t block = groups * shape.heads * head + (book == NULL ? 0 : pad * unit);
    const int64_t scales = groups * n * shape.heads;
    s.x.bytes = blocks * block;
    s.x.head_stride = head;
    s.x.token_stride = shape.heads * head / n;
    s.x.block_stride = book == NULL ? 0 : block;
    s.x.data = s.memory = need((size_t)s.x.bytes, 1);
    memset(s.memory, 0xff, (size_t)s.x.bytes);
    if (type != TRIL_I8) return s;
    s.x.scales_bytes = blocks * scales * (int64_t)sizeof(float);
    s.x.scale_head_stride = sizeof(float);
    s.x.scale_token_stride = shape.heads * (int64_t)sizeof(float);
    s.x.scale_block_stride = book == NULL ? 0 : scales * (int64_t)sizeof(float);
    s.x.scales = s.scales = need((size_t)(blocks * scales), sizeof(float));
    memset(s.scales, 0xff, (size_t)s.x.scales_bytes);
    return s;
}

/* Where token `token` lies, or the panel that begins with it: bytes from the data, and from the scales. */
static size_t offset(const tril_tensor *x, const struct book *book, int64_t token, int64_t head)
{
    const int64_t block = book == NULL ? 0 : book->table[token / book->block_tokens];
    const int64_t t = book == NULL ? token : token % book->block_tokens;
    return (size_t)(block * x->block_stride + t * x->token_stride + head * x->head_stride);
}

static size_t scale_offset(const tril_tensor *x, const struct book *book, int64_t token, int64_t head)
{
    const int64_t block = book == NULL ? 0 : book->table[token / book->block_tokens];
    const int64_t t = book == NULL ? token : token % book->block_tokens;
    return (size_t)(block * x->scale_block_stride + t * x->scale_token_stride + head * x->scale_head_stride) /
           sizeof(float);
}

/* Every row from one type to another. */
static void convert(struct stored *to, const tril_tensor *from)
{
    for (int64_t t = 0; t < to->shape.tokens; t++) {
        for (int64_t h = 0; h < to->shape.heads; h++) {
            const char *data = (const char *)from->data + offset(from, NULL, t, h);
            const float *scale = from->scales == NULL ? NULL : from->scales + scale_offset(from, NULL, t, h);
            float *to_scale = to->scales == NULL ? NULL : to->scales + scale_offset(&to->x, NULL, t, h);
            expect_ok("a row's type", tril_convert(to->memory + offset(&to->x, NULL, t, h), to->x.dtype, to_scale, data,
                                                   from->dtype, scale, to->shape.dim));
        }
    }
}

struct stored stored_rows(const tril_tensor *floats, struct shape shape, tril_dtype type, int64_t beyond, int64_t pad)
{
    struct stored s = blank(shape, shape.tokens + beyond, type, TRIL_ROWS, pad, NULL);
    convert(&s, floats);
    return s;
}

struct stored stored_floats(const tril_tensor *rows, struct shape shape)
{
    struct stored s = blank(shape, shape.tokens, TRIL_F32, TRIL_ROWS, 0, NULL);
    convert(&s, rows);
    return s;
}

struct stored stored_panels(const tril_tensor *floats, struct shape shape, tril_dtype type, int64_t pad)
{
    struct stored s = blank(shape, shape.tokens, type, TRIL_PANELS, pad, NULL);
    expect_ok("panels", tril_append(&s.x, 0, floats, 0, shape.tokens, (int32_t)shape.heads, (int32_t)shape.dim));
    return s;
}

struct stored stored_pages(const tril_tensor *from, struct shape shape, const struct book *book)
{
    enum { PAD = 3 };
    struct stored s = blank(shape, book->block_tokens, from->dtype, from->layout, PAD, book);
    for (int64_t t = 0; t < shape.tokens; t++) {
        for (int64_t h = 0; h < shape.heads; h++) {
            if (t % together(from) == 0)
                memcpy(s.memory + offset(&s.x, book, t, h), (const char *)from->data + offset(from, NULL, t, h),
                       (size_t)piece(from, shape.dim));
            if (s.scales != NULL)
                s.scales[scale_offset(&s.x, book, t, h)] = from->scales[scale_offset(from, NULL, t, h)];
        }
    }
    return s;
}

void stored_free(struct stored *x)
{
    free(x->memory);
    free(x->scales);
}
