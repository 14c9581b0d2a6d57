/* Few rows: P V. The chains lie in memory and go on over the keys at hand: over all of them, as far as a row sees, or
 * where rows see a block in part, patch by patch. */
#ifndef TRIL_ENGINE_FEW_VALUES_H
#define TRIL_ENGINE_FEW_VALUES_H

#include "few_stored.h"

#define MORE_ARGS                                                                                                      \
    const int rows, const float *p, const struct tile_b *b, size_t k, size_t end, float *o, size_t o_row,              \
        struct few_stream *stream

#if V_LANES == PANEL
/* Goes on with chains that lie in o, over keys k ... end - 1; b begins at k. `rows` rows of which only `real` are
 * there: the last of them once more, or, if there may be fewer yet (any), in the places of all others. A line is read,
 * multiplied, and another one asked for before the next one's turn: so they come from memory fastest. keep: what is
 * read into `kept`, in rows of o's. */
static ALWAYS_INLINE void few_more_of(const bool keep, const int rows, const bool any, const int real, const int vecs,
                                      const float *p, const struct tile_b *b, size_t k, const size_t end, float *o,
                                      const size_t o_row, float *kept, struct few_stream *stream)
{
    const float *last = p + (size_t)(real - 1) * FEW_ROW;
    size_t p_at[FEW_MAX_ROWS], o_at[FEW_MAX_ROWS];
    few_places(rows, rows, real, FEW_ROW, p_at);
    few_places(rows, rows, real, o_row, o_at);
    struct tile_b at = *b;
    tile_acc acc;
#define DO(r)                                                                                                          \
    if (r < rows) row_load(vecs, acc[r], o + (any ? o_at[r] : few_twice(r, rows, real) * o_row));
    EACH_ROW(DO)
#undef DO
    for (; k < end; k++, at.data += at.k_stride) {
        struct few_lines taken = few_idle(stream);
        if ((k & stream->pauses) == 0) taken = few_take(stream, vecs);
        va av[MAX_ROWS];
#define DO(r)                                                                                                          \
    if (r < rows) av[r] = a_load1((any ? p + p_at[r] : few_row(r, rows, p, FEW_ROW, last)) + k);
        EACH_ROW(DO)
#undef DO
#define DO(v)                                                                                                          \
    if (v < vecs) {                                                                                                    \
        const vf x = v_load(tile_b_at(&at, v));                                                                        \
        if (keep) v_store(kept + v * V_LANES, x);                                                                      \
        few_typed_column(rows, v, av, x, acc);                                                                         \
        few_ask_share(true, &taken, &acc[0][v], vecs, v, vecs);                                                        \
    }
        DO(0)
        DO(1)
        DO(2)
        DO(3)
#undef DO
        if (keep) kept += o_row;
    }
#define DO(r)                                                                                                          \
    if (r < rows) row_store(vecs, acc[r], o + (any ? o_at[r] : few_twice(r, rows, real) * o_row));
    EACH_ROW(DO)
#undef DO
}

_Static_assert(TILE_ROWS == 6, "the numbers of rows are spelled out");

/* One or two rows take as long as four, which is still faster than lines come from a shared cache: asked for faster
 * than that, they come slower. */
static ALWAYS_INLINE void few_more(const int vecs, MORE_ARGS)
{
    if (rows <= 2)
        few_more_of(false, 4, true, rows, vecs, p, b, k, end, o, o_row, NULL, stream);
    else if (rows <= 4)
        few_more_of(false, 4, false, rows, vecs, p, b, k, end, o, o_row, NULL, stream);
    else
        few_more_of(false, 6, false, rows, vecs, p, b, k, end, o, o_row, NULL, stream);
}

/* A whole tile of them, and what is read into `kept`. */
static NOINLINE void more_keeping(MORE_ARGS, float *kept)
{
    few_more_of(true, 6, false, rows, TILE_VECS, p, b, k, end, o, o_row, kept, stream);
}

/* How many of the rows that are left the next kernel takes: of 4 and 6 rows in all as few as can be. */
static int more_share(int left)
{
    return left > TILE_ROWS && (left + 1) / 2 % 3 == 1 ? 4 : left < TILE_ROWS ? left : TILE_ROWS;
}
#else
/* The rows of a tile from `first` on, over keys k ... end - 1. */
static ALWAYS_INLINE void few_run(const int first, const int vecs, const float *p, struct tile_b *b, size_t k,
                                  const size_t end, tile_acc acc, struct few_stream *stream)
{
    const int bytes = vecs * V_LANES * (int)sizeof(float); /* of a key */
    const size_t step = A_STEP > 1 || bytes < LINE_BYTES ? 4 : 1;
    vf none = v_low_none();
    for (size_t to; k < end; k = to) {
        to = end - k < step ? end : k + step;
        tile_each(false, first, vecs, p, FEW_ROW, b, k, to, acc, &none);
        if ((k / step & stream->pauses) == 0) few_pull(stream, (int)step * bytes / LINE_BYTES);
    }
}

/* Goes on with chains that lie in o, over keys k ... end - 1; b begins at k. */
static ALWAYS_INLINE void few_more(const int vecs, MORE_ARGS)
{
    const int first = TILE_ROWS - rows;
    struct tile_b at = *b;
    tile_acc acc;
    p = TILE_BEFORE(p, (size_t)first * FEW_ROW);
    o = TILE_BEFORE(o, (size_t)first * o_row);
    tile_zero(vecs, acc);
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_load(vecs, acc[r], o + r * o_row);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (r < TILE_ROWS && r == first) few_run(r, vecs, p, &at, k, end, acc, stream);
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (tile_has(first, r)) row_store(vecs, acc[r], o + r * o_row);
    EACH_ROW(DO)
#undef DO
}

static void more_keeping(MORE_ARGS, float *kept)
{
    (void)kept; /* FEW_KEEPS */
    few_more(TILE_VECS, rows, p, b, k, end, o, o_row, stream);
}

static int more_share(int left)
{
    return tile_share(left, TILE_ROWS);
}
#endif

static NOINLINE void more_v1(MORE_ARGS)
{
    few_more(1, rows, p, b, k, end, o, o_row, stream);
}

static NOINLINE void more_v2(MORE_ARGS)
{
    few_more(2, rows, p, b, k, end, o, o_row, stream);
}

#if TILE_VECS > 2
static NOINLINE void more_v3(MORE_ARGS)
{
    few_more(3, rows, p, b, k, end, o, o_row, stream);
}

static NOINLINE void more_v4(MORE_ARGS)
{
    few_more(4, rows, p, b, k, end, o, o_row, stream);
}
#endif

static void (*const more_by_vecs[])(MORE_ARGS) = {
    more_v1,
    more_v2,
#if TILE_VECS > 2
    more_v3,
    more_v4,
#endif
};

/* Values as the chains read them: f32 rows, and their last columns, fewer than a vector, where a row of the host's
 * would be read past its end. */
struct few_rows {
    const float *v, *tail; /* tail: or null */
    size_t stride;         /* of v, in floats; of the tail PANEL */
    int vecs;              /* of v */
    bool stored;           /* v is the host's */
};

/* n rows of values: in place if they are f32, but for the tail; or in `to`. */
static struct few_rows few_rows(const struct tril_job *job, const struct tril_rows *from, int n, float *to)
{
    const tril_tensor *x = &job->call->v;
    const int dims = job->call->v_dim, whole = dims / V_LANES * V_LANES;
    const size_t v_row = (size_t)job->plan->v_row;
    if (x->dtype != TRIL_F32) {
        for (int i = 0; i < n; i++)
            pack_value(x->dtype, from->data + i * from->stride, dims, tril_scale_of(from, i), PANEL,
                       to + (size_t)i * v_row);
        return (struct few_rows){to, NULL, v_row, (int)v_row / V_LANES, false};
    }
    const float *v = (const float *)(const void *)from->data;
    const size_t stride = (size_t)from->stride / sizeof(float);
    for (int i = 0; i < n && whole < dims; i++)
        v_store(to + i * PANEL, v_load_part(v + (size_t)i * stride + whole, dims - whole));
    return (struct few_rows){v, whole < dims ? to : NULL, stride, whole / V_LANES, true};
}

/* The chains of n rows of one head over keys k ... end - 1 of the block, of which v begins with the first. kept: null,
 * or where v, which is whole tiles wide, is copied to. */
static void few_chain(const struct tril_job *job, const struct few_rows v, size_t k, size_t end, int n, const float *p,
                      float *o, float *kept, struct few_stream *stream)
{
    const size_t o_row = (size_t)job->plan->v_row;
    for (int j = 0, width; j < v.vecs; j += width) {
        width = tile_share(v.vecs - j, TILE_VECS);
        const struct tile_b b = {v.v + j * V_LANES, v.stride, PANEL}; /* a row's panels follow each other */
        if (FEW_KEEPS && kept != NULL)
            more_keeping(n, p, &b, k, end, o + j * V_LANES, o_row, stream, kept + j * V_LANES);
        else
            more_by_vecs[width - 1](n, p, &b, k, end, o + j * V_LANES, o_row, stream);
    }
    if (v.tail != NULL) {
        const struct tile_b b = {v.tail, PANEL, PANEL};
        more_v1(n, p, &b, k, end, o + v.vecs * V_LANES, o_row, stream);
    }
}

/* The same values from the n-th row on. */
static struct few_rows few_rows_from(const struct few_rows v, size_t n)
{
    return (struct few_rows){v.v + n * v.stride, v.tail == NULL ? NULL : v.tail + n * PANEL, v.stride, v.vecs,
                             v.stored};
}

/* More rows than these take their values from a copy that the first tile of rows leaves in the first-level cache, see
 * FEW_KEEPS. With fewer the copy costs more than it saves. */
#define FEW_KEEPS_ROWS 8

/* Whether the first rows do, of keys k ... end - 1. */
static bool few_keeps(const struct few_rows *v, int rows, size_t k, size_t end, size_t row_end)
{
    return FEW_KEEPS && rows > FEW_KEEPS_ROWS && v->stored && v->tail == NULL && v->vecs % TILE_VECS == 0 &&
           end - k <= FEW_STEP && end <= row_end;
}

/* Where row i's chain ends, of those that go on to `end`. */
static size_t few_end(const int *row_end, int i, size_t end)
{
    return (size_t)row_end[i] < end ? (size_t)row_end[i] : end;
}

/* The same where rows see different numbers of keys, row_end ascending: first what all of them see. */
static void few_triangle(const struct tril_job *job, const struct few_rows v, size_t k, size_t end, const int *row_end,
                         int n, const float *p, float *o, struct few_stream *stream)
{
    const size_t least = (size_t)row_end[0] < k ? k : (size_t)row_end[0] < end ? (size_t)row_end[0] : end;
    if (least > k) few_chain(job, v, k, least, n, p, o, NULL, stream);
    const struct few_rows later = few_rows_from(v, least - k);
    for (int i = 1; i < n; i++) {
        const size_t own = few_end(row_end, i, end);
        if (own > least)
            few_chain(job, later, least, own, 1, p + (size_t)i * FEW_ROW, o + i * job->plan->v_row, NULL, stream);
    }
}

/* few_chain() on stored values, whole blocks of columns. */
static void few_typed_chain(const struct tril_job *job, const struct tril_rows *from, size_t k, size_t end, int n,
                            const float *p, float *o, struct few_stream *stream)
{
    const tril_dtype type = job->call->v.dtype;
    const int dims = job->call->v_dim, block = type == TRIL_Q8_0 || type == TRIL_Q4_0 ? TRIL_Q_BLOCK : 1;
    for (int c = 0, vecs; c < dims; c += vecs * V_LANES) {
        vecs = dims - c >= TILE_VECS * V_LANES ? TILE_VECS : (dims - c) / V_LANES;
        few_more_by_type[type](n, vecs, c % block, p, from, tril_row_bytes(type, c - c % block), k, end, o + c,
                               (size_t)job->plan->v_row, stream);
    }
}

static void few_typed_triangle(const struct tril_job *job, const struct tril_rows *from, size_t k, size_t end,
                               const int *row_end, int n, const float *p, float *o, struct few_stream *stream)
{
    const size_t least = (size_t)row_end[0] < k ? k : (size_t)row_end[0] < end ? (size_t)row_end[0] : end;
    if (least > k) few_typed_chain(job, from, k, least, n, p, o, stream);
    for (int i = 1; i < n; i++) {
        const size_t own = few_end(row_end, i, end);
        if (own > least)
            few_typed_chain(job, from, least, own, 1, p + (size_t)i * FEW_ROW, o + i * job->plan->v_row, stream);
    }
}

/* Keys from ... to - 1 that rows row ... row + rows - 1 all see, of which no neighbouring row sees any. */
struct patch {
    int from, to, row, rows;
};

/* The next one, begun with a zeroed patch; false at the end. Patches come in the order of their keys. */
static bool next_patch(const uint8_t *seen, int keys, int n, struct patch *p)
{
    int row = p->row + p->rows;
    for (int k = p->from; k < keys; k = p->to, row = 0) {
        int to = k + 1;
        while (to < keys && seen[to] == seen[k])
            to++;
        p->from = k;
        p->to = to;
        while (row < n && (seen[k] >> row & 1) == 0)
            row++;
        if (row == n) continue;
        p->row = row;
        for (p->rows = 0; row < n && (seen[k] >> row & 1) != 0; row++)
            p->rows++;
        return true;
    }
    return false;
}

/* The chains of rows that see the block in part, over n keys from position `key` on: of stored values, or, where those
 * are null, of v. */
static NOINLINE void few_patches(const struct tril_job *job, const struct tril_task *task,
                                 const struct tril_task_row *row, int rows, int64_t key, int n,
                                 const struct tril_rows *stored, const struct few_rows *v, const float *p, float *o,
                                 struct few_stream *stream)
{
    const size_t at = (size_t)(key % TRIL_KEY_BLOCK);
    uint8_t seen[TRIL_KEY_BLOCK];
    rows_seeing(job, task, row, rows, key, n, seen);
    for (struct patch patch = {0}; next_patch(seen, n, rows, &patch);) {
        const size_t from = (size_t)patch.from, to = (size_t)patch.to;
        const float *patch_p = p + (size_t)patch.row * FEW_ROW;
        float *patch_o = o + patch.row * job->plan->v_row;
        if (stored != NULL)
            few_typed_chain(job, stored, at + from, at + to, patch.rows, patch_p, patch_o, stream);
        else
            few_chain(job, few_rows_from(*v, from), at + from, at + to, patch.rows, patch_p, patch_o, NULL, stream);
    }
}

#endif
