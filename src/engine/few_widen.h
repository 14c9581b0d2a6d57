/* Few rows: stored keys, turned over and widened in registers on their way into the rows' chains. */
#ifndef TRIL_ENGINE_FEW_WIDEN_H
#define TRIL_ENGINE_FEW_WIDEN_H

#include "few_dots.h"

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

/* Their scales: of I8 floats, of blocks the halves in front. */
static ALWAYS_INLINE vf few_scales(const struct tril_rows *from)
{
    float scale[V_LANES];
    for (int i = 0; i < V_LANES; i++)
        scale[i] = tril_scale_of(from, i);
    return v_load(scale);
}

#if FEW_HALF_LINES
/* Bytes in vectors of half a line: 16 registers do not hold a block of them, so it is turned over into memory for a
 * loop over its words, each as v_word_i8() or v_word_top() takes it. That is a tenth faster than 32 values spelled out.
 */
#define FEW_WORDS     (TRIL_Q_BLOCK / 4)
#define FEW_BYTE_STEP TRIL_Q_BLOCK

/* One side's keys. Values of both types in blocks are left where they are cheapest, 2^24 or 2^28 times too large. The
 * scale makes up for that: an f16's exponent has room, so both are exact and the product is the same. */
static ALWAYS_INLINE vf few_turn_block(const tril_dtype type, const struct tril_rows *from, int64_t at, const int side,
                                       vf scale, vf to[FEW_WORDS][FEW_SIDES])
{
    const char *k = from->data + at;
    vf t[FEW_WORDS];
    if (type != TRIL_I8) {
        scale = v_mul(v_rows_f16(k, from->stride), v_set1(type == TRIL_Q8_0 ? 0x1p-24f : 0x1p-28f));
        k += sizeof(uint16_t);
    }
    v_words(k, from->stride, t);
    if (type != TRIL_Q4_0) {
        v_words(k + 16, from->stride, t + 4);
    } else {
        UNROLL
        for (int j = 0; j < 4; j++) {
            t[4 + j] = v_word_half(t[j], true);
            t[j] = v_word_half(t[j], false);
        }
    }
    UNROLL
    for (int j = 0; j < FEW_WORDS; j++)
        to[j][side] = t[j];
    return scale;
}

/* The block whose bytes begin `at`, or so many of I8. */
static ALWAYS_INLINE void few_bytes(const tril_dtype type, const int sides, const int rows, const float *q,
                                    const size_t q_at[MAX_ROWS], const struct tril_rows *k, const int64_t at,
                                    vf scale[FEW_SIDES], few_acc acc, struct few_stream *stream)
{
    const int lines = sides * V_LANES * (int)tril_row_bytes(type, TRIL_Q_BLOCK) / LINE_BYTES;
    vf word[FEW_WORDS][FEW_SIDES], keys[FEW_SIDES];
    UNROLL
    for (int i = 0; i < sides; i++)
        scale[i] = few_turn_block(type, &k[i], at, i, scale[i], word);
    struct few_lines taken = few_take(stream, lines + 1);
    NO_UNROLL
    for (int j = 0; j < FEW_WORDS; j++, q += 4) {
        few_ask(false, taken.at.near);
        taken.at.near += lines * LINE_BYTES / FEW_WORDS;
#define DO(u)                                                                                                          \
    UNROLL                                                                                                             \
    for (int i = 0; i < sides; i++)                                                                                    \
        keys[i] = v_mul(scale[i], type == TRIL_I8 ? v_word_i8(word[j][i], u) : v_word_top(word[j][i], u));             \
    few_typed_lane(sides, rows, q + u, q_at, 0, keys, acc);
        DO(0)
        DO(1)
        DO(2)
        DO(3)
#undef DO
    }
    few_ask(false, taken.at.near);
}
#else
#define FEW_BYTE_STEP 16 /* of I8 */

/* Byte u of 16, or, of Q4_0, its lower half, of V_LANES keys on each side. */
static ALWAYS_INLINE void few_byte(const tril_dtype type, const int sides, vf t[FEW_SIDES][4], const int u,
                                   const vf scale[FEW_SIDES], vf keys[FEW_SIDES])
{
    UNROLL
    for (int i = 0; i < sides; i++) {
        const vf four = t[i][u / 4];
        vf x = v_word_i8(four, u % 4);
        if (type == TRIL_Q4_0) x = v_word_u4(four, u % 4);
        if (type == TRIL_Q8_0) x = v_word_top(four, u % 4);
        keys[i] = v_mul(scale[i], x);
    }
}

/* The bytes `at` ... at + 15 of the rows: 16 values, or, where they are halves of bytes, 32. */
static ALWAYS_INLINE void few_16_bytes(const tril_dtype type, const int sides, const int rows, const float *q,
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

/* A byte of Q8_0 is left where it is cheapest, 2^24 times too large. The scale makes up for that: an f16's exponent has
 * room, so both are exact and the product is the same. */
static ALWAYS_INLINE vf few_block_scales(const tril_dtype type, const char *k, const int64_t stride)
{
    const vf scale = v_rows_f16(k, stride);
    return type == TRIL_Q8_0 ? v_mul(scale, v_set1(0x1p-24f)) : scale;
}

/* The block whose bytes begin `at`, or 16 bytes of I8. */
static ALWAYS_INLINE void few_bytes(const tril_dtype type, const int sides, const int rows, const float *q,
                                    const size_t q_at[MAX_ROWS], const struct tril_rows *k, const int64_t at,
                                    vf scale[FEW_SIDES], few_acc acc, struct few_stream *stream)
{
    if (type == TRIL_I8) {
        few_16_bytes(type, sides, rows, q, q_at, k, at, scale, acc, stream);
        return;
    }
    UNROLL
    for (int i = 0; i < sides; i++)
        scale[i] = few_block_scales(type, k[i].data + at, k[i].stride);
    for (int i = 0; i < (type == TRIL_Q8_0 ? TRIL_Q_BLOCK : 16); i += 16)
        few_16_bytes(type, sides, rows, q + i, q_at, k, at + 2 + i, scale, acc, stream);
}
#endif

#endif
