/* Few rows: keys and values of another type than f32, widened in registers on their way into the chains. */
#ifndef TRIL_ENGINE_FEW_STORED_H
#define TRIL_ENGINE_FEW_STORED_H

#include "few_widen.h"

/* Calls kernel(..., rows rounded up to even as a constant, ...). */
#define BY_ROWS(kernel, type, rows, ...)                                                                               \
    do {                                                                                                               \
        if (rows <= 2)                                                                                                 \
            kernel(type, 2, rows, __VA_ARGS__);                                                                        \
        else                                                                                                           \
            kernel(type, FEW_TYPED_ROWS, rows, __VA_ARGS__);                                                           \
    } while (0)

/* few_dots() on stored keys, V_LANES of each of `sides` rows `from`. Of bytes both sides are of one head. */
static ALWAYS_INLINE void few_typed_dots(const tril_dtype type, const int rows, const int real, const int sides,
                                         const float *q, const int dims, const struct tril_rows *from, float *s,
                                         struct few_stream *stream, const struct few_apart apart)
{
    int64_t at = 0;
    vf scale[FEW_SIDES];
    few_acc acc;
    size_t q_at[MAX_ROWS];
#define DO(r)                                                                                                          \
    if (r < rows) q_at[r] = (size_t)(r < real ? r : real - 1) * (size_t)dims;
    EACH_ROW(DO)
#undef DO
#define DO(r)                                                                                                          \
    if (r < rows) acc[r][0] = v_zero();                                                                                \
    if (r < rows) acc[r][FEW_SIDES - 1] = v_zero();
    EACH_ROW(DO)
#undef DO
    UNROLL
    for (int i = 0; i < sides; i++)
        scale[i] = type == TRIL_I8 ? few_scales(&from[i]) : v_zero();
    const int byte_step = type == TRIL_I8 ? FEW_BYTE_STEP : TRIL_Q_BLOCK;
    const int step = few_is_half(type) ? 2 * few_pairs(type, sides) : byte_step;
    for (int d = 0; d < dims; d += step, q += step, at += tril_row_bytes(type, step)) {
#define DO(r)                                                                                                          \
    if (0 < r && r < rows && (few_is_half(type) || !FEW_HALF_LINES)) V_OPAQUE(q_at[r]);
        EACH_ROW(DO)
#undef DO
        if (few_is_half(type))
            few_halves(type, sides, rows, q, q_at, apart.q, from, at, acc, stream);
        else
            few_bytes(type, sides, rows, q, q_at, from, at, scale, acc, stream);
    }
#define DO(r)                                                                                                          \
    if (r < rows) v_store(s + (r < real ? r : real - 1) * FEW_ROW, acc[r][0]);                                         \
    if (r < rows && sides > 1) v_store(s + (r < real ? r : real - 1) * FEW_ROW + apart.s, acc[r][FEW_SIDES - 1]);
    EACH_ROW(DO)
#undef DO
}

#define TYPED_DOTS_ARGS                                                                                                \
    const int rows, const float *q, const int dims, const struct tril_rows *from, float *s, struct few_stream *stream
#define TYPED_DOTS(name, type)                                                                                         \
    static NOINLINE void few_dots_##name(const int sides, TYPED_DOTS_ARGS, const struct few_apart apart)               \
    {                                                                                                                  \
        if (V_LANES < PANEL || !few_is_half(type) || sides > 1)                                                        \
            BY_ROWS(few_typed_dots, type, rows, FEW_SIDES, q, dims, from, s, stream, apart);                           \
        else if (rows > FEW_TYPED_ROWS)                                                                                \
            few_typed_dots(type, FEW_HALF_ROWS, rows, 1, q, dims, from, s, stream, apart);                             \
        else                                                                                                           \
            few_typed_dots(type, FEW_TYPED_ROWS, rows, 1, q, dims, from, s, stream, apart);                            \
    }
TYPED_DOTS(f16, TRIL_F16)
TYPED_DOTS(bf16, TRIL_BF16)
TYPED_DOTS(i8, TRIL_I8)
#if FEW_HALF_LINES
/* Both types go through the same loop: less code is faster code here. */
static NOINLINE void few_dots_q(const bool q8, TYPED_DOTS_ARGS, const struct few_apart apart)
{
    const tril_dtype type = q8 ? TRIL_Q8_0 : TRIL_Q4_0;
    BY_ROWS(few_typed_dots, type, rows, FEW_SIDES, q, dims, from, s, stream, apart);
}

static void few_dots_q8_0(const int sides, TYPED_DOTS_ARGS, const struct few_apart apart)
{
    (void)sides; /* one of two may be the other once more */
    few_dots_q(true, rows, q, dims, from, s, stream, apart);
}

static void few_dots_q4_0(const int sides, TYPED_DOTS_ARGS, const struct few_apart apart)
{
    (void)sides;
    few_dots_q(false, rows, q, dims, from, s, stream, apart);
}
#else
TYPED_DOTS(q8_0, TRIL_Q8_0)
TYPED_DOTS(q4_0, TRIL_Q4_0)
#endif
#undef TYPED_DOTS

static void (*const few_dots_by_type[TRIL_DTYPE_COUNT])(const int sides, TYPED_DOTS_ARGS, const struct few_apart) = {
    [TRIL_F16] = few_dots_f16,   [TRIL_BF16] = few_dots_bf16, [TRIL_I8] = few_dots_i8,
    [TRIL_Q8_0] = few_dots_q8_0, [TRIL_Q4_0] = few_dots_q4_0,
};

/* Row r of a kernel of `rows` rows, the last of which may be one of the others once more. */
static ALWAYS_INLINE const float *few_row(const int r, const int rows, const float *q, const size_t q_row,
                                          const float *last)
{
    return r == rows - 1 ? last : q + r * q_row;
}

/* Row r of a kernel of `rows` rows, `real` of them there. */
static ALWAYS_INLINE size_t few_twice(const int r, const int rows, const int real)
{
    return (size_t)(r == rows - 1 ? real - 1 : r);
}

/* The vectors of a kernel's panels: eight chains for four rows, or more. */
#define FEW_PANEL_VECS (FEW_PANELS * PANEL / V_LANES)
_Static_assert(FEW_PANEL_VECS == 2 || FEW_PANEL_VECS == 4, "the chains are spelled out");

static ALWAYS_INLINE void few_panel_fma(const float *q, const vf b[FEW_PANEL_VECS], vf acc[FEW_PANEL_VECS])
{
    const va a = a_load1(q);
    acc[0] = a_fma(a, 0, b[0], acc[0]);
    acc[1] = a_fma(a, 0, b[1], acc[1]);
    if (FEW_PANEL_VECS > 2) acc[FEW_PANEL_VECS - 2] = a_fma(a, 0, b[FEW_PANEL_VECS - 2], acc[FEW_PANEL_VECS - 2]);
    if (FEW_PANEL_VECS > 2) acc[FEW_PANEL_VECS - 1] = a_fma(a, 0, b[FEW_PANEL_VECS - 1], acc[FEW_PANEL_VECS - 1]);
}

static NOINLINE void few_panel_scales(const struct tril_rows *from, float scales[FEW_PANELS * PANEL])
{
    for (int i = 0; i < FEW_PANELS * PANEL; i++)
        scales[i] = tril_scale_of(&from[i / PANEL], i % PANEL);
}

/* few_dots() on stored panels: the keys of the FEW_PANELS that begin at `from`. */
static ALWAYS_INLINE void few_panel_dots(const tril_dtype type, const int rows, const int real, const float *q,
                                         const int dims, const struct tril_rows *from, float *s,
                                         struct few_stream *stream)
{
    const size_t q_row = (size_t)dims;
    const float *last = q + (size_t)(real - 1) * q_row;
    const int bytes = PANEL * (int)tril_unit_bytes(type),
              lines = 4 * FEW_PANELS * bytes / LINE_BYTES; /* of four dims */
    vf acc[MAX_ROWS][FEW_PANEL_VECS], scale[FEW_PANEL_VECS];
    const bool singly = (type == TRIL_F32 || few_is_half(type)) && lines % 4 == 0;
    struct few_lines taken = {{NULL, NULL}, 0};
    float scales[FEW_PANELS * PANEL];
    if (type == TRIL_I8) few_panel_scales(from, scales);
    UNROLL
    for (int j = 0; j < FEW_PANEL_VECS; j++)
        scale[j] = type == TRIL_I8 ? v_load(scales + j * V_LANES) : v_zero();
#define DO(r)                                                                                                          \
    if (r < rows) {                                                                                                    \
        UNROLL                                                                                                         \
        for (int j = 0; j < FEW_PANEL_VECS; j++)                                                                       \
            acc[r][j] = v_zero();                                                                                      \
    }
    EACH_ROW(DO)
#undef DO
    for (int d = 0; d < dims; d++, q++, last++) {
        vf b[FEW_PANEL_VECS];
        if (singly && d % 4 == 0) taken = few_take(stream, lines);
        UNROLL
        for (int j = 0; j < FEW_PANEL_VECS; j++)
            b[j] = load_vec(type, from[j * V_LANES / PANEL].data + (int64_t)d * bytes, j * V_LANES % PANEL, scale[j]);
#define DO(r)                                                                                                          \
    if (r < rows) few_panel_fma(few_row(r, rows, q, q_row, last), b, acc[r]);                                          \
    if (r < rows && singly) few_ask_share(true, &taken, &acc[r][0], lines / 4, r, rows);
        EACH_ROW(DO)
#undef DO
        if (singly) {
            taken.at.near += lines / 4 * LINE_BYTES;
            if (!FEW_COMBS)
                taken.at.far += lines / 4 * LINE_BYTES;
            else if (lines / 4 == 1) /* the second of two that lie together is the next d's */
                taken.at.far += d % 2 == 0 ? LINE_BYTES : taken.step - LINE_BYTES;
        } else if (d % 4 == 3) {
            few_pull_as(few_is_half(type), stream, lines);
        }
    }
#define DO(r)                                                                                                          \
    if (r < rows) {                                                                                                    \
        UNROLL                                                                                                         \
        for (int j = 0; j < FEW_PANEL_VECS; j++)                                                                       \
            v_store(s + few_twice(r, rows, real) * FEW_ROW + j * V_LANES, acc[r][j]);                                  \
    }
    EACH_ROW(DO)
#undef DO
}

#define PANEL_DOTS(name, type)                                                                                         \
    static NOINLINE void few_panels_##name(TYPED_DOTS_ARGS)                                                            \
    {                                                                                                                  \
        BY_ROWS(few_panel_dots, type, rows, q, dims, from, s, stream);                                                 \
    }
#if V_LANES == PANEL
PANEL_DOTS(f32, TRIL_F32)
#endif
PANEL_DOTS(f16, TRIL_F16)
PANEL_DOTS(bf16, TRIL_BF16)
PANEL_DOTS(i8, TRIL_I8)
#undef PANEL_DOTS

static void (*const few_panels_by_type[TRIL_DTYPE_COUNT])(TYPED_DOTS_ARGS) = {
#if V_LANES == PANEL
    [TRIL_F32] = few_panels_f32,
#endif
    [TRIL_F16] = few_panels_f16,
    [TRIL_BF16] = few_panels_bf16,
    [TRIL_I8] = few_panels_i8};

/* Vector v of a line of stored values, times each row's weight. */
static ALWAYS_INLINE void few_typed_column(const int rows, const int v, const va av[MAX_ROWS], const vf b, tile_acc acc)
{
#define DO(r)                                                                                                          \
    if (r < rows) acc[r][v] = a_fma(av[r], 0, b, acc[r][v]);
    EACH_ROW(DO)
#undef DO
}

/* Vectors of half a line take four keys in a turn: the loop itself is a third of their instructions. */
#define FEW_TURN_KEYS (FEW_HALF_LINES ? 4 : 0)

/* Columns d ... of one key, times the rows' weights at p and, of the last one, at `last`. */
static ALWAYS_INLINE void few_more_key(const tril_dtype type, const int rows, const int vecs, const int d,
                                       const char *row, const vf scale, const float *p, const float *last, tile_acc acc)
{
    vf b[MAX_VECS];
    UNROLL
    for (int v = 0; v < vecs; v++)
        b[v] = load_vec(type, row, d + v * V_LANES, scale);
#define DO(r)                                                                                                          \
    if (r < rows) row_step(false, true, vecs, a_load1(r == rows - 1 ? last : p + r * FEW_ROW), 0, b, acc[r], NULL);
    EACH_ROW(DO)
#undef DO
}

/* Up to where, but not past `end`, keys lie one behind the other from panel i on. */
static ALWAYS_INLINE size_t few_run_end(const bool scaled, const struct tril_rows *from, size_t i, const size_t end)
{
    for (i++; FEW_TURN_KEYS > 0 && i * PANEL < end; i++) {
        const struct tril_rows *x = &from[i - 1];
        if (x->data + PANEL * x->stride != from[i].data) break;
        if (scaled && x->scales + PANEL * x->scale_stride != from[i].scales) break;
    }
    return i * PANEL < end ? i * PANEL : end;
}

/* few_more() on stored values: keys k ... end - 1 of the block, those from 16 * u on in from[u]; columns d ... of a
 * row, counted from the block of 32 that they lie in, as are the rows. */
static ALWAYS_INLINE void few_typed_more(const tril_dtype type, const int rows, const int real, const int vecs,
                                         const int d, const float *p, const struct tril_rows *from, const int64_t skip,
                                         size_t k, const size_t end, float *o, const size_t o_row,
                                         struct few_stream *stream)
{
    const float *last = p + (size_t)(real - 1) * FEW_ROW;
    const int bytes = 4 * (int)tril_row_bytes(type, TRIL_Q_BLOCK) * vecs * V_LANES / TRIL_Q_BLOCK; /* of four keys */
    /* Rounded up all would be asked for in front. */
    const int lines = (bytes + (FEW_HALF_LINES ? LINE_BYTES / 2 : LINE_BYTES - 1)) / LINE_BYTES;
    const bool singly = few_is_half(type) && lines % 4 == 0;
    tile_acc acc;
#define DO(r)                                                                                                          \
    if (r < rows) row_load(vecs, acc[r], o + few_twice(r, rows, real) * o_row);
    EACH_ROW(DO)
#undef DO
    while (k < end) {
        const struct tril_rows *x = &from[k / PANEL];
        const char *row = x->data + (int64_t)(k % PANEL) * x->stride + skip;
        const char *scales = type == TRIL_I8 ? x->scales + (int64_t)(k % PANEL) * x->scale_stride : NULL;
        const size_t stop = few_run_end(type == TRIL_I8, from, k / PANEL, end);
        for (; FEW_TURN_KEYS > 0 && k + FEW_TURN_KEYS <= stop; k += FEW_TURN_KEYS) {
            const float *at = p + k, *last_at = last + k;
            V_OPAQUE(at);
            V_OPAQUE(row);
            UNROLL
            for (int u = 0; u < FEW_TURN_KEYS; u++, row += x->stride) {
                const vf scale = type == TRIL_I8 ? v_set1(tril_load_f32(scales)) : v_zero();
                if (type == TRIL_I8) scales += x->scale_stride;
                few_more_key(type, rows, vecs, d, row, scale, at + u, last_at + u, acc);
            }
            few_pull_as(few_is_half(type), stream, lines);
        }
        for (; k < stop; k++, row += x->stride) {
            const vf scale = type == TRIL_I8 ? v_set1(tril_load_f32(scales)) : v_zero();
            if (type == TRIL_I8) scales += x->scale_stride;
            struct few_lines taken = {{NULL, NULL}, 0};
            if (singly) taken = few_take(stream, lines / 4);
            va av[MAX_ROWS];
#define DO(r)                                                                                                          \
    if (r < rows) av[r] = a_load1(r == rows - 1 ? last + k : p + r * FEW_ROW + k);
            EACH_ROW(DO)
#undef DO
#define DO(v)                                                                                                          \
    if (v < vecs) {                                                                                                    \
        few_typed_column(rows, v, av, load_vec(type, row, d + v * V_LANES, scale), acc);                               \
        if (singly) few_ask_share(true, &taken, &acc[0][v], lines / 4, v, vecs);                                       \
    }
            DO(0)
            DO(1)
            DO(2)
            DO(3)
#undef DO
            if (!singly && k % 4 == 3) few_pull_as(few_is_half(type), stream, lines);
        }
    }
#define DO(r)                                                                                                          \
    if (r < rows) row_store(vecs, acc[r], o + few_twice(r, rows, real) * o_row);
    EACH_ROW(DO)
#undef DO
}

#define TYPED_MORE_ARGS                                                                                                \
    const int rows, const int vecs, const int d, const float *p, const struct tril_rows *from, const int64_t skip,     \
        const size_t k, const size_t end, float *o, const size_t o_row, struct few_stream *stream
#define TYPED_MORE(name, type)                                                                                         \
    static NOINLINE void few_more_##name(TYPED_MORE_ARGS)                                                              \
    {                                                                                                                  \
        if (TILE_VECS * V_LANES == 64 && vecs == 2)                                                                    \
            BY_ROWS(few_typed_more, type, rows, 2, 0, p, from, skip, k, end, o, o_row, stream);                        \
        else if (TILE_VECS * V_LANES >= TRIL_Q_BLOCK || (type != TRIL_Q8_0 && type != TRIL_Q4_0))                      \
            BY_ROWS(few_typed_more, type, rows, TILE_VECS, 0, p, from, skip, k, end, o, o_row, stream);                \
        else if (type == TRIL_Q8_0 && TILE_VECS * V_LANES == 16)                                                       \
            BY_ROWS(few_typed_more, type, rows, TILE_VECS, d & 16, p, from, skip, k, end, o, o_row, stream);           \
        else if (d == 0)                                                                                               \
            BY_ROWS(few_typed_more, type, rows, TILE_VECS, 0, p, from, skip, k, end, o, o_row, stream);                \
        else                                                                                                           \
            BY_ROWS(few_typed_more, type, rows, TILE_VECS, TILE_VECS *V_LANES == 16 ? 16 : d, p, from, skip, k, end,   \
                    o, o_row, stream);                                                                                 \
    }
TYPED_MORE(f16, TRIL_F16)
TYPED_MORE(bf16, TRIL_BF16)
TYPED_MORE(i8, TRIL_I8)
TYPED_MORE(q8_0, TRIL_Q8_0)
TYPED_MORE(q4_0, TRIL_Q4_0)
#undef TYPED_MORE

static void (*const few_more_by_type[TRIL_DTYPE_COUNT])(TYPED_MORE_ARGS) = {
    [TRIL_F16] = few_more_f16,   [TRIL_BF16] = few_more_bf16, [TRIL_I8] = few_more_i8,
    [TRIL_Q8_0] = few_more_q8_0, [TRIL_Q4_0] = few_more_q4_0,
};

#endif
