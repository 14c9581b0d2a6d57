/* Few rows: keys and values of another type than f32, widened in registers on their way into the chains. */
#ifndef TRIL_ENGINE_FEW_STORED_H
#define TRIL_ENGINE_FEW_STORED_H

#include "few_dots.h"

/* Calls kernel(..., rows rounded up to even as a constant, ...). */
#define BY_ROWS(kernel, type, rows, ...)                                                                               \
    do {                                                                                                               \
        if (rows <= 2)                                                                                                 \
            kernel(type, 2, rows, __VA_ARGS__);                                                                        \
        else                                                                                                           \
            kernel(type, FEW_TYPED_ROWS, rows, __VA_ARGS__);                                                           \
    } while (0)

typedef vf few_acc[MAX_ROWS][FEW_SIDES];

/* From one side of a kernel to the other, in floats: 0 and V_LANES if both are keys of one head. */
struct few_apart {
    size_t q, s;
};

/* One value of the rows' queries, times a vector of keys on each side. at: of each row, from q. */
static ALWAYS_INLINE void few_typed_lane(const int sides, const int rows, const float *q, const size_t at[MAX_ROWS],
                                         const size_t apart, const vf *keys, few_acc acc)
{
#if FEW_HALF_LINES
    (void)apart; /* both are of one head */
#define DO(r)                                                                                                          \
    if (r < rows) {                                                                                                    \
        const va a = a_load1(q + at[r]);                                                                               \
        acc[r][0] = a_fma_in(a, 0, keys[0], acc[r][0]);                                                                \
        if (sides > 1) acc[r][1] = a_fma_in(a, 0, keys[1], acc[r][1]);                                                 \
    }
#else
#define DO(r)                                                                                                          \
    if (r < rows) acc[r][0] = a_fma_at(q + at[r], keys[0], acc[r][0]);                                                 \
    if (r < rows && sides > 1)                                                                                         \
        acc[r][FEW_SIDES - 1] = a_fma_at(q + apart + at[r], keys[FEW_SIDES - 1], acc[r][FEW_SIDES - 1]);
#endif
    EACH_ROW(DO)
#undef DO
}

/* Pairs of halves of a key that few_halves() takes. */
static ALWAYS_INLINE int few_pairs(const tril_dtype type, const int sides)
{
    if (V_LANES == PANEL) return sides > 1 ? 8 : V_LANES;
    return sides == 1 || (V_TURNS_F16 && type == TRIL_F16) ? V_LANES : V_LANES / 2;
}

/* The pairs, of V_LANES keys at a time. */
static ALWAYS_INLINE void few_turn_halves(const tril_dtype type, const int sides, const struct tril_rows *k,
                                          const int64_t at, vf t[FEW_SIDES][V_LANES])
{
    (void)type;
    UNROLL
    for (int i = 0; i < sides; i++) {
        const char *p = k[i].data + at;
#if V_LANES == PANEL
        if (sides > 1)
            v_half_lines(p, k[i].stride, t[i]);
        else
            few_square(p, k[i].stride, V_LANES, t[i]);
#elif V_TURNS_F16
        if (type == TRIL_F16)
            v_turn_f16(p, k[i].stride, t[i]);
        else
            v_words(p, k[i].stride, t[i]);
#else
        few_square(p, k[i].stride, V_LANES, t[i]);
#endif
    }
}

/* Both halves of pair u. */
static ALWAYS_INLINE void few_pair(const tril_dtype type, const vf t[V_LANES], const int u, vf h[2])
{
#if V_TURNS_F16
    if (type == TRIL_F16) {
        h[0] = v_turned_f16(t, 2 * u);
        h[1] = v_turned_f16(t, 2 * u + 1);
        return;
    }
#endif
    if (type == TRIL_F16)
        v_halves_f16(t[u % V_LANES], h);
    else
        v_halves_bf16(t[u % V_LANES], h);
}

/* Halves: V_LANES keys on each side x 2 * few_pairs() dims, transposed in pairs. */
static ALWAYS_INLINE void few_halves(const tril_dtype type, const int sides, const int rows, const float *q,
                                     const size_t q_at[MAX_ROWS], const size_t apart, const struct tril_rows *k,
                                     const int64_t at, few_acc acc, struct few_stream *stream)
{
    const int pairs = few_pairs(type, sides), lines = sides * V_LANES * pairs * (int)sizeof(float) / LINE_BYTES;
    const int parts = pairs / (lines / FEW_TAKE_LINES);
    struct few_lines taken = {{NULL, NULL}, 0};
    vf t[FEW_SIDES][V_LANES], h[2], keys[2][FEW_SIDES];
    few_turn_halves(type, sides, k, at, t);
#define DO(u)                                                                                                          \
    if (u < pairs) {                                                                                                   \
        if (u % parts == 0) taken = V_LANES == PANEL ? few_take(stream, FEW_TAKE_LINES) : few_take_more(stream);       \
        UNROLL                                                                                                         \
        for (int i = 0; i < sides; i++) {                                                                              \
            few_pair(type, t[i], u, h);                                                                                \
            keys[0][i] = h[0];                                                                                         \
            keys[1][i] = h[1];                                                                                         \
        }                                                                                                              \
        few_typed_lane(sides, rows, q + 2 * u, q_at, apart, keys[0], acc);                                             \
        few_ask_share(true, &taken, &acc[0][0], FEW_TAKE_LINES, 2 * (u % parts), 2 * parts);                           \
        few_typed_lane(sides, rows, q + 2 * u + 1, q_at, apart, keys[1], acc);                                         \
        few_ask_share(true, &taken, &acc[0][0], FEW_TAKE_LINES, 2 * (u % parts) + 1, 2 * parts);                       \
    }
    EACH_LANE(DO)
#undef DO
}

/* Byte u of 16, or, of Q4_0, its lower half, of V_LANES keys on each side. */
static ALWAYS_INLINE void few_byte(const tril_dtype type, const int sides, vf t[FEW_SIDES][4], const int u,
                                   const vf scale[FEW_SIDES], vf keys[FEW_SIDES])
{
    UNROLL
    for (int i = 0; i < sides; i++)
        keys[i] = v_mul(scale[i], type == TRIL_Q4_0   ? v_word_u4(t[i][u / 4], u % 4)
                                  : type == TRIL_Q8_0 ? v_word_top(t[i][u / 4], u % 4)
                                                      : v_word_i8(t[i][u / 4], u % 4));
}

/* The bytes `at` ... at + 15 of the rows: 16 values, or, where they are halves of bytes, 32. */
static ALWAYS_INLINE void few_bytes(const tril_dtype type, const int sides, const int rows, const float *q,
                                    const size_t q_at[MAX_ROWS], const struct tril_rows *k, const int64_t at,
                                    const vf scale[FEW_SIDES], few_acc acc, struct few_stream *stream)
{
    const int all_lines = sides * (V_LANES * 16 + LINE_BYTES) / LINE_BYTES;
    const int lines = type == TRIL_Q4_0 ? (all_lines + 2) / 4 * 2 : all_lines;
    vf t[FEW_SIDES][4], keys[FEW_SIDES];
    UNROLL
    for (int i = 0; i < sides; i++)
        v_words(k[i].data + at, k[i].stride, t[i]);
    for (int left = type == TRIL_Q4_0; left >= 0; left--, q += 16) {
        struct few_lines taken = few_take(stream, lines);
#define DO(u)                                                                                                          \
    few_byte(type, sides, t, u, scale, keys);                                                                          \
    few_typed_lane(sides, rows, q + u, q_at, 0, keys, acc);                                                            \
    few_ask_share(false, &taken, &acc[0][0], lines, u, 16);
        EACH_LANE(DO)
#undef DO
        if (left == 0) return;
        UNROLL
        for (int i = 0; i < sides; i++) {
            UNROLL
            for (int j = 0; j < 4; j++)
                t[i][j] = v_word_upper(t[i][j]);
        }
    }
}

/* Their scales: of I8 floats, of blocks the halves in front. */
static ALWAYS_INLINE vf few_scales(const struct tril_rows *from)
{
    float scale[V_LANES];
    for (int i = 0; i < V_LANES; i++)
        scale[i] = tril_scale_of(from, i);
    return v_load(scale);
}

/* A byte of Q8_0 is left where it is cheapest, 2^24 times too large. The scale makes up for that: an f16's exponent has
 * room, so both are exact and the product is the same. */
static ALWAYS_INLINE vf few_block_scales(const tril_dtype type, const char *k, const int64_t stride)
{
    uint16_t scale[V_LANES];
    UNROLL
    for (int i = 0; i < V_LANES; i++)
        scale[i] = tril_load_u16(k + i * stride);
    return type == TRIL_Q8_0 ? v_mul(v_load_f16(scale), v_set1(0x1p-24f)) : v_load_f16(scale);
}

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
    const int step = few_is_half(type) ? 2 * few_pairs(type, sides) : type == TRIL_I8 ? 16 : TRIL_Q_BLOCK;
    for (int d = 0; d < dims; d += step, q += step, at += tril_row_bytes(type, step)) {
#define DO(r)                                                                                                          \
    if (0 < r && r < rows) V_OPAQUE(q_at[r]);
        EACH_ROW(DO)
#undef DO
        if (few_is_half(type)) {
            few_halves(type, sides, rows, q, q_at, apart.q, from, at, acc, stream);
        } else if (type == TRIL_I8) {
            few_bytes(type, sides, rows, q, q_at, from, at, scale, acc, stream);
        } else {
            UNROLL
            for (int i = 0; i < sides; i++)
                scale[i] = few_block_scales(type, from[i].data + at, from[i].stride);
            for (int i = 0; i < (type == TRIL_Q8_0 ? TRIL_Q_BLOCK : 16); i += 16)
                few_bytes(type, sides, rows, q + i, q_at, from, at + 2 + i, scale, acc, stream);
        }
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
            BY_ROWS(few_typed_dots, type, rows, few_most_sides(type), q, dims, from, s, stream, apart);                \
        else if (rows > FEW_TYPED_ROWS)                                                                                \
            few_typed_dots(type, FEW_HALF_ROWS, rows, 1, q, dims, from, s, stream, apart);                             \
        else                                                                                                           \
            few_typed_dots(type, FEW_TYPED_ROWS, rows, 1, q, dims, from, s, stream, apart);                            \
    }
TYPED_DOTS(f16, TRIL_F16)
TYPED_DOTS(bf16, TRIL_BF16)
TYPED_DOTS(i8, TRIL_I8)
TYPED_DOTS(q8_0, TRIL_Q8_0)
TYPED_DOTS(q4_0, TRIL_Q4_0)
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

/* Vectors of half a line take four keys of halves in a turn: the loop itself is a third of their instructions. */
#define FEW_TURN_KEYS (FEW_HALF_LINES ? 4 : 0)

/* The halves of one key in columns d ..., times the rows' weights at p and, of the last one, at `last`. */
static ALWAYS_INLINE void few_halves_key(const tril_dtype type, const int rows, const int vecs, const int d,
                                         const char *row, const float *p, const float *last, tile_acc acc)
{
    vf b[MAX_VECS];
    UNROLL
    for (int v = 0; v < vecs; v++)
        b[v] = load_vec(type, row, d + v * V_LANES, v_zero());
#define DO(r)                                                                                                          \
    if (r < rows) row_step(false, true, vecs, a_load1(r == rows - 1 ? last : p + r * FEW_ROW), 0, b, acc[r], NULL);
    EACH_ROW(DO)
#undef DO
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
    const int lines = (bytes + LINE_BYTES - 1) / LINE_BYTES;
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
        const size_t whole = (k / PANEL + 1) * PANEL, stop = whole < end ? whole : end;
        for (; FEW_TURN_KEYS > 0 && few_is_half(type) && k + FEW_TURN_KEYS <= stop; k += FEW_TURN_KEYS) {
            const float *at = p + k, *last_at = last + k;
            V_OPAQUE(at);
            V_OPAQUE(row);
            UNROLL
            for (int u = 0; u < FEW_TURN_KEYS; u++, row += x->stride)
                few_halves_key(type, rows, vecs, d, row, at + u, last_at + u, acc);
            few_pull(stream, lines);
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
        else if (TILE_VECS * V_LANES >= TRIL_Q_BLOCK || (type != TRIL_Q8_0 && type != TRIL_Q4_0) || d == 0)            \
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
