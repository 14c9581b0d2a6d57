#include "memory.h"

#include <stdio.h>
#include <stdlib.h>

void broken(const char *what)
{
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

void *allocate(size_t bytes)
{
    void *p = malloc(bytes);
    if (p == NULL) broken("no memory");
    return p;
}

size_t element_of(tril_dtype type)
{
    switch (type) {
    case TRIL_F16:
    case TRIL_BF16:
    case TRIL_Q8_0:
    case TRIL_Q4_0: return 2;
    case TRIL_I8: return 1;
    default: return 4;
    }
}

int64_t row_bytes(tril_dtype type, int64_t dim)
{
    switch (type) {
    case TRIL_F16:
    case TRIL_BF16: return 2 * dim;
    case TRIL_I8: return dim;
    case TRIL_Q8_0: return (dim + 31) / 32 * 34;
    case TRIL_Q4_0: return (dim + 31) / 32 * 18;
    default: return 4 * dim;
    }
}

void memory_begin(struct memory *m, const uint8_t *data, size_t size)
{
    *m = (struct memory){.from = {data, size}, .owns_all = true};
    m->random = (uint32_t)take_word(&m->from);
    m->changes = take_some(&m->from, 24);
}

void memory_end(struct memory *m)
{
    for (int i = 0; i < m->n_regions; i++) {
        free(m->regions[i].now - m->regions[i].offset);
        free(m->regions[i].before);
        free(m->regions[i].after);
    }
    m->n_regions = 0;
}

uint32_t next_random(struct memory *m)
{
    m->random = m->random * 1664525 + 1013904223;
    return m->random >> 8;
}

void *own(struct memory *m, int64_t bytes, tril_dtype type, bool filled)
{
    if (bytes > MOST_BYTES) m->owns_all = false;
    if (m->n_regions == MOST_REGIONS) broken("more regions than there is room for");
    struct region *r = &m->regions[m->n_regions++];
    r->bytes = bytes < 0 || bytes > MOST_BYTES ? 0 : (size_t)bytes;
    r->type = type;
    r->offset = element_of(type) * (size_t)take_below(&m->from, 3);
    r->now = (char *)allocate(r->offset + r->bytes) + r->offset;
    r->before = allocate(r->bytes + 1);
    r->after = allocate(r->bytes + 1);
    const bool wild = take_below(&m->from, 8) == 7;
    memset(r->before, 0x5a, r->bytes);
    for (size_t i = 0; i + sizeof(float) <= r->bytes && filled; i += sizeof(float)) {
        const float x = (float)(int32_t)(next_random(m) % 4001 - 2000) * 0.001f;
        const uint32_t any = next_random(m) << 12 ^ next_random(m);
        memcpy(r->before + i, wild ? (const void *)&any : (const void *)&x, sizeof x);
    }
    memcpy(r->now, r->before, r->bytes);
    return r->now;
}

void memory_restore(struct memory *m)
{
    for (int i = 0; i < m->n_regions; i++)
        memcpy(m->regions[i].now, m->regions[i].before, m->regions[i].bytes);
}

void memory_keep(struct memory *m)
{
    for (int i = 0; i < m->n_regions; i++)
        memcpy(m->regions[i].after, m->regions[i].now, m->regions[i].bytes);
}

bool memory_unchanged(const struct memory *m)
{
    for (int i = 0; i < m->n_regions; i++) {
        if (memcmp(m->regions[i].now, m->regions[i].before, m->regions[i].bytes) != 0) return false;
    }
    return true;
}

static bool is_nan(const char *p, tril_dtype type)
{
    uint32_t bits;
    uint16_t half;
    if (type == TRIL_F32) {
        memcpy(&bits, p, sizeof bits);
        return (bits & 0x7fffffff) > 0x7f800000;
    }
    memcpy(&half, p, sizeof half);
    return (type == TRIL_F16 || type == TRIL_BF16) && (half & 0x7fff) > (type == TRIL_F16 ? 0x7c00 : 0x7f80);
}

/* The first element that is not as the first tier left it, in bytes; or the region's end. */
static size_t differs(const struct region *r)
{
    const size_t element = element_of(r->type);
    if (memcmp(r->now, r->after, r->bytes) == 0) return r->bytes;
    for (size_t at = 0; at < r->bytes; at += element) {
        const size_t n = r->bytes - at < element ? r->bytes - at : element;
        if (memcmp(r->now + at, r->after + at, n) == 0) continue;
        if (n == 1 || n < element || !is_nan(r->now + at, r->type) || !is_nan(r->after + at, r->type)) return at;
    }
    return r->bytes;
}

bool memory_alike(const struct memory *m, bool tell)
{
    for (int i = 0; i < m->n_regions; i++) {
        const struct region *r = &m->regions[i];
        const size_t at = differs(r);
        if (at == r->bytes) continue;
        if (tell)
            fprintf(stderr, "region %d at %p, from byte %zu of %zu: %02x instead of %02x, before %02x\n", i,
                    (void *)r->now, at, r->bytes, (unsigned char)r->now[at], (unsigned char)r->after[at],
                    (unsigned char)r->before[at]);
        return false;
    }
    return true;
}

int64_t lay_out(struct memory *m, int64_t tokens, int64_t heads, int64_t row, int64_t together, size_t element,
                int64_t *token_stride, int64_t *head_stride)
{
    const int64_t pad = (int64_t)element * take_below(&m->from, 3), groups = (tokens + together - 1) / together;
    row = (row + pad) * together;
    if (together == 1 && take_below(&m->from, 3) != 2) {
        *head_stride = row;
        *token_stride = row * heads + pad;
        return tokens == 0 ? 0 : (tokens - 1) * *token_stride + heads * row;
    }
    *token_stride = row / together;
    *head_stride = row * groups + pad;
    return tokens == 0 ? 0 : (heads - 1) * *head_stride + groups * row;
}

void lay_out_tensor(struct memory *m, tril_tensor *x, int64_t tokens, int64_t blocks, int64_t heads, int64_t dim)
{
    const int64_t together = x->layout == TRIL_PANELS ? 16 : 1;
    x->bytes = lay_out(m, tokens, heads, row_bytes(x->dtype, dim), together, element_of(x->dtype), &x->token_stride,
                       &x->head_stride);
    if (blocks > 0) {
        x->block_stride = x->bytes + (int64_t)element_of(x->dtype) * take_below(&m->from, 3);
        x->bytes += (blocks - 1) * x->block_stride;
    }
    if (x->dtype != TRIL_I8) return;
    x->scales_bytes = lay_out(m, tokens, heads, 4, 1, 4, &x->scale_token_stride, &x->scale_head_stride);
    if (blocks > 0) {
        x->scale_block_stride = x->scales_bytes;
        x->scales_bytes *= blocks;
    }
}

void own_tensor(struct memory *m, tril_tensor *x, bool filled)
{
    x->data = own(m, x->bytes, x->dtype, filled);
    if (x->dtype == TRIL_I8 || take_below(&m->from, 40) == 39) x->scales = own(m, x->scales_bytes, TRIL_F32, filled);
}

void change(struct memory *m, void *in, const struct field *fields, size_t n)
{
    const struct field *field = &fields[take_below(&m->changes, (int64_t)n)];
    char *at = (char *)in + field->offset;
    int64_t x = 0;
    int32_t narrow;
    if (field->real) {
        const float real = take_float(&m->changes);
        memcpy(at, &real, sizeof real);
        return;
    }
    memcpy(&narrow, at, sizeof narrow);
    if (field->bytes == sizeof x)
        memcpy(&x, at, sizeof x);
    else
        x = narrow;
    x = take_number(&m->changes, x);
    narrow = (int32_t)(uint32_t)(uint64_t)x;
    memcpy(at, field->bytes == sizeof x ? (const void *)&x : (const void *)&narrow, field->bytes);
}
