/* [layer][page][token][head][element], keys and values apart. A page holds the same tokens in every layer, so that one
 * table serves a sequence. Keys lie in panels, where the type may have them: attention need not transpose them then. */
#include "llm.h"

int64_t row_bytes(tril_dtype type, int64_t n)
{
    static const int64_t bytes_of_32[TRIL_DTYPE_COUNT] = {128, 64, 64, 32, 34, 18};
    return n * bytes_of_32[type] / 32;
}

/* Zeros that begin at a page of the processor's: from elsewhere a new token reads them more slowly. */
static void *need_from_page(size_t count, size_t size)
{
    enum { PAGE = 4096 };
    char *p = need((size + PAGE - 1) / PAGE * count + 1, PAGE);
    return p + (-(uintptr_t)p & (PAGE - 1));
}

static tril_tensor pages_of(const struct cache *c, int64_t layers, int32_t dim, bool panels)
{
    const int64_t row = row_bytes(c->type, dim), token = c->kv_heads * row, tokens = c->page * c->pages;
    tril_tensor x = {.bytes = tokens * token, .token_stride = token, .block_stride = c->page * token, .dtype = c->type};
    x.data = need_from_page((size_t)layers, (size_t)x.bytes);
    x.head_stride = panels ? 16 * row : row;
    x.layout = panels ? TRIL_PANELS : TRIL_ROWS;
    if (c->type != TRIL_I8) return x;
    x.scale_head_stride = (int64_t)sizeof(float);
    x.scale_token_stride = c->kv_heads * x.scale_head_stride;
    x.scale_block_stride = c->page * x.scale_token_stride;
    x.scales_bytes = tokens * x.scale_token_stride;
    x.scales = need((size_t)layers, (size_t)x.scales_bytes);
    return x;
}

struct cache cache_new(const struct model *m, tril_dtype type, int64_t page, int64_t pages)
{
    struct cache c = {type, m->kv_heads, m->qk_dim, m->v_dim, page, pages, .n_free = pages};
    const bool blocks = type == TRIL_Q8_0 || type == TRIL_Q4_0;
    if (blocks && (c.qk_dim % 32 != 0 || c.v_dim % 32 != 0))
        die("--cache: q8_0 and q4_0 need heads of a multiple of 32, not %d and %d; give another", c.qk_dim, c.v_dim);
    c.k = pages_of(&c, m->layers, c.qk_dim, !blocks);
    c.v = pages_of(&c, m->layers, c.v_dim, false);
    c.free = need((size_t)pages, sizeof *c.free);
    for (int64_t i = 0; i < pages; i++)
        c.free[i] = (int32_t)(pages - 1 - i);
    return c;
}

/* Where the tensor is a layer, or a page of it. */
static void move(tril_tensor *x, int64_t bytes, int64_t scales_bytes)
{
    x->data = (const char *)x->data + bytes;
    if (x->scales != NULL) x->scales += scales_bytes / (int64_t)sizeof(float);
}

void cache_layer(const struct cache *c, int64_t layer, tril_tensor *k, tril_tensor *v)
{
    *k = c->k;
    *v = c->v;
    move(k, layer * k->bytes, layer * k->scales_bytes);
    move(v, layer * v->bytes, layer * v->scales_bytes);
}

/* tril_append() takes a page as a cache of its own. */
static void append(const struct cache *c, tril_tensor x, const struct row *row, int32_t dim, const float *from)
{
    const int64_t head = row_bytes(TRIL_F32, dim), all = c->kv_heads * head, page = row->pages[row->position / c->page];
    const tril_tensor new = {.data = from, .bytes = all, .token_stride = all, .head_stride = head};
    move(&x, page * x.block_stride, page * x.scale_block_stride);
    x.bytes = x.block_stride;
    x.scales_bytes = x.scale_block_stride;
    x.block_stride = x.scale_block_stride = 0;
    expect_ok("the cache", tril_append(&x, row->position % c->page, &new, 0, 1, c->kv_heads, dim));
}

void cache_append(const struct cache *c, int64_t layer, const struct row *row, const float *k, const float *v)
{
    tril_tensor keys, values;
    cache_layer(c, layer, &keys, &values);
    append(c, keys, row, c->qk_dim, k);
    append(c, values, row, c->v_dim, v);
}
