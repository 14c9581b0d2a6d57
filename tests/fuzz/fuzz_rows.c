/* What works on rows: any tril_append(), tril_convert() and tril_merge(), under the same conditions as fuzz_call.c. The
 * latter two have no extents: they own what their numbers say, or are not made. */
#include "memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Everything that any of the three is given. */
struct rows {
    tril_tensor cache, from;
    int64_t at, from_token, tokens;
    int32_t heads, dim;
    tril_dtype to_type, from_type;
    int64_t n;
    int64_t parts, rows, columns, out_stride, part_stride;
    uint32_t flags;
};

#define ROWS(name) INTEGER(struct rows, name)
#define TENSOR(x)                                                                                                      \
    ROWS(x.bytes), ROWS(x.token_stride), ROWS(x.head_stride), ROWS(x.dtype), ROWS(x.layout), ROWS(x.block_stride),     \
        ROWS(x.scales_bytes), ROWS(x.scale_token_stride), ROWS(x.scale_head_stride), ROWS(x.scale_block_stride)

static const struct field append_fields[] = {TENSOR(cache), TENSOR(from), ROWS(at), ROWS(from_token),
                                             ROWS(tokens),  ROWS(heads),  ROWS(dim)};
static const struct field convert_fields[] = {ROWS(to_type), ROWS(from_type), ROWS(n)};
static const struct field merge_fields[] = {ROWS(parts),      ROWS(rows),        ROWS(columns),
                                            ROWS(out_stride), ROWS(part_stride), ROWS(flags)};

static void change_some(struct memory *m, struct rows *x, const struct field *fields, size_t n)
{
    for (int64_t times = take_below(&m->changes, 5) - 2; times > 0; times--)
        change(m, x, fields, n);
}

/* A pointer that becomes null or is moved by a byte. */
static void *spoil(struct memory *m, const void *p)
{
    const int64_t how = take_below(&m->changes, 16);
    return how == 14 ? NULL : (char *)(uintptr_t)p + (how == 15 ? 1 : 0);
}

static tril_status append(const struct rows *x)
{
    return tril_append(&x->cache, x->at, &x->from, x->from_token, x->tokens, x->heads, x->dim);
}

static bool make_append(struct memory *m, struct rows *x)
{
    static const int dims[] = {16, 1, 3, 17, 40, 100};
    x->cache.dtype = (tril_dtype)take_below(&m->from, TRIL_DTYPE_COUNT);
    x->cache.layout = x->cache.dtype < TRIL_Q8_0 && take_below(&m->from, 2) == 1 ? TRIL_PANELS : TRIL_ROWS;
    x->heads = 1 + (int32_t)take_below(&m->from, 4);
    x->dim = x->cache.dtype >= TRIL_Q8_0 ? 64 : dims[take_below(&m->from, COUNT(dims))];
    x->tokens = take_below(&m->from, 20);
    x->at = take_below(&m->from, 40);
    x->from_token = take_below(&m->from, 3);
    lay_out_tensor(m, &x->cache, x->at + x->tokens, 0, x->heads, x->dim);
    lay_out_tensor(m, &x->from, x->from_token + x->tokens, 0, x->heads, x->dim);
    change_some(m, x, append_fields, COUNT(append_fields));
    own_tensor(m, &x->cache, false);
    own_tensor(m, &x->from, true);
    if (take_below(&m->from, 16) == 15) { /* one within the other */
        x->cache.data = x->from.data;
        x->cache.bytes = x->from.bytes;
    }
    x->cache.data = spoil(m, x->cache.data);
    x->from.data = spoil(m, x->from.data);
    if ((uintptr_t)x->cache.data % 4 != 0 || (uintptr_t)x->from.data % 4 != 0) {
        x->cache.bytes -= x->cache.bytes > 0; /* what a moved pointer has lost */
        x->from.bytes -= x->from.bytes > 0;
    }
    return m->owns_all && times(times(x->tokens, x->heads), x->dim) < MOST_BYTES;
}

/* The arguments that are pointers, of the other two. */
static struct {
    void *to;
    const void *from;
    float *to_scale, *from_scale;
    tril_partial parts[4];
    float *out, *max, *sum;
} given;

static tril_status convert(const struct rows *x)
{
    return tril_convert(given.to, x->to_type, given.to_scale, given.from, x->from_type, given.from_scale, x->n);
}

static bool make_convert(struct memory *m, struct rows *x)
{
    const bool store = take_below(&m->from, 2) == 0;
    x->to_type = store ? (tril_dtype)take_below(&m->from, TRIL_DTYPE_COUNT) : TRIL_F32;
    x->from_type = store ? TRIL_F32 : (tril_dtype)take_below(&m->from, TRIL_DTYPE_COUNT);
    x->n = take_below(&m->from, 300);
    if (x->to_type >= TRIL_Q8_0 || x->from_type >= TRIL_Q8_0) x->n = x->n / 32 * 32;
    change_some(m, x, convert_fields, COUNT(convert_fields));
    const int64_t n = times(x->n, 1);
    given.to =
        spoil(m, own(m, times(n, 4), x->to_type, false)); /* a byte may be moved past: the checks must refuse it */
    given.from = spoil(m, own(m, times(n, 4), x->from_type, true));
    given.to_scale = spoil(m, own(m, 4, TRIL_F32, false));
    given.from_scale = spoil(m, own(m, 4, TRIL_F32, true));
    return m->owns_all;
}

static tril_status merge(const struct rows *x)
{
    return tril_merge(given.parts, x->parts, x->rows, x->columns, x->flags, given.out, x->out_stride, given.max,
                      given.sum);
}

static bool make_merge(struct memory *m, struct rows *x)
{
    x->parts = 1 + take_below(&m->from, COUNT(given.parts));
    x->rows = take_below(&m->from, 6);
    x->columns = 1 + take_below(&m->from, 70);
    x->out_stride = 4 * (x->columns + take_below(&m->from, 3));
    x->part_stride = 4 * (x->columns + take_below(&m->from, 3));
    x->flags = (uint32_t)take_below(&m->from, 4) / 3 * TRIL_UNNORMALISED;
    change_some(m, x, merge_fields, COUNT(merge_fields));
    if (x->parts > (int64_t)COUNT(given.parts)) x->parts = COUNT(given.parts);
    const int64_t row = times(x->columns, 4), last = x->rows > 0 ? x->rows - 1 : 0;
    const bool fits = times(last, x->out_stride) < MOST_BYTES && times(last, x->part_stride) < MOST_BYTES &&
                      times(x->rows, row) < MOST_BYTES;
    if (!fits) return false;
    given.out = spoil(m, own(m, times(last, x->out_stride) + row, TRIL_F32, false));
    given.max = take_below(&m->from, 2) == 1 ? spoil(m, own(m, times(x->rows, 4), TRIL_F32, false)) : NULL;
    given.sum = take_below(&m->from, 2) == 1 ? spoil(m, own(m, times(x->rows, 4), TRIL_F32, false)) : NULL;
    for (size_t i = 0; i < COUNT(given.parts); i++) {
        tril_partial *part = &given.parts[i];
        part->row_stride = x->part_stride;
        part->out = spoil(m, own(m, times(last, x->part_stride) + row, TRIL_F32, true));
        part->row_max = spoil(m, own(m, times(x->rows, 4), TRIL_F32, true));
        part->row_sum = spoil(m, own(m, times(x->rows, 4), TRIL_F32, true));
    }
    return m->owns_all;
}

static const struct {
    bool (*make)(struct memory *, struct rows *); /* false: not to be called */
    tril_status (*call)(const struct rows *);
} calls[] = {{make_append, append}, {make_convert, convert}, {make_merge, merge}};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory m;
    struct rows x = {.heads = 0};
    memory_begin(&m, data, size);
    const int64_t which = take_below(&m.from, COUNT(calls));
    if (calls[which].make(&m, &x)) {
        tril_status want = TRIL_OK;
        const char *name;
        for (int tier = 0, usable; (name = tril_isa_list(tier, &usable)) != NULL; tier++) {
            if (!usable) continue;
            if (tril_force_isa(name) != TRIL_OK) broken("a usable tier cannot be had");
            memory_restore(&m);
            const tril_status got = calls[which].call(&x);
            if (got != TRIL_OK && !memory_unchanged(&m)) broken("an error changed something");
            if (tier == 0) {
                want = got;
                memory_keep(&m);
            }
            if (got != want) broken("another tier gives another status");
            if (!memory_alike(&m, true)) broken("another tier gives other bytes");
        }
    }
    memory_end(&m);
    return 0;
}
