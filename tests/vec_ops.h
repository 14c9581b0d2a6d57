/* Every operation of engine/vec.h as a function over arrays, so that plain C can try it. A tier's file includes its
 * vector header, sets VEC_OPS to the name of its table and includes this; only that file has the tier's flags. */
#include "vec_ops_table.h"

/* Whether every machine of the tier can run store_weights and a_dot. */
#ifndef VEC_HAS_DOTS
#define VEC_HAS_DOTS 1
#endif

static void op_zero(float *to)
{
    v_store(to, v_zero());
}

static void op_set1(float *to, const float *x)
{
    v_store(to, v_set1(*x));
}

static void op_load_store(float *to, const float *x)
{
    v_store(to, v_load(x));
}

static void op_stream(float *to, const float *x)
{
    v_stream(to, v_load(x));
    v_stream_end();
}

static void op_load_part(float *to, const float *x, int n)
{
    v_store(to, v_load_part(x, n));
}

static void op_store_part(float *to, const float *x, int n)
{
    v_store_part(to, n, v_load(x));
}

static void op_load_f16(float *to, const void *p)
{
    v_store(to, v_load_f16(p));
}

static void op_load_bf16(float *to, const void *p)
{
    v_store(to, v_load_bf16(p));
}

static void op_load_i8(float *to, const void *p)
{
    v_store(to, v_load_i8(p));
}

/* Which halves is a constant wherever the engine asks. */
static void op_load_u4(float *to, const void *p, int high)
{
    v_store(to, high ? v_load_u4(p, true) : v_load_u4(p, false));
}

static void op_set1_f16(float *to, const void *p)
{
    v_store(to, v_set1_f16(p));
}

static void op_store_f16(void *p, const float *x)
{
    v_store_f16(p, v_load(x));
}

static void op_store_bf16(void *p, const float *x)
{
    v_store_bf16(p, v_load(x));
}

static void op_store_bytes(void *p, const float *x)
{
    v_store_bytes(p, v_load(x));
}

static void op_keep(float *to, const float *x, int n, float fill)
{
    v_store(to, v_keep(v_load(x), n, fill));
}

static void op_add(float *to, const float *a, const float *b)
{
    v_store(to, v_add(v_load(a), v_load(b)));
}

static void op_sub(float *to, const float *a, const float *b)
{
    v_store(to, v_sub(v_load(a), v_load(b)));
}

static void op_mul(float *to, const float *a, const float *b)
{
    v_store(to, v_mul(v_load(a), v_load(b)));
}

static void op_div(float *to, const float *a, const float *b)
{
    v_store(to, v_div(v_load(a), v_load(b)));
}

static void op_max(float *to, const float *x, const float *best)
{
    v_store(to, v_max(v_load(x), v_load(best)));
}

static void op_min(float *to, const float *x, const float *best)
{
    v_store(to, v_min(v_load(x), v_load(best)));
}

static void op_copysign(float *to, const float *x, const float *sign)
{
    v_store(to, v_copysign(v_load(x), v_load(sign)));
}

static void op_fma(float *to, const float *a, const float *b, const float *c)
{
    v_store(to, v_fma(v_load(a), v_load(b), v_load(c)));
}

static void op_trunc(float *to, const float *x)
{
    v_store(to, v_trunc(v_load(x)));
}

static void op_rint(float *to, const float *x)
{
    v_store(to, v_rint(v_load(x)));
}

static void op_scale2(float *to, const float *p, const float *n, const float *t)
{
    v_store(to, v_scale2(v_load(p), v_load(n), v_load(t)));
}

static void op_ninf_to_zero(float *to, const float *x)
{
    v_store(to, v_ninf_to_zero(v_load(x)));
}

static void op_max_across(float *to, const float *x)
{
    *to = v_max_across(v_load(x));
}

static void op_sum16(float *to, const float *x)
{
    vf s[16 / V_LANES];
    for (int i = 0; i < 16 / V_LANES; i++)
        s[i] = v_load(x + i * V_LANES);
    *to = v_sum16(s);
}

static void op_transpose(float *to, const float *x)
{
    vf r[V_LANES];
    for (int i = 0; i < V_LANES; i++)
        r[i] = v_load(x + i * V_LANES);
    v_transpose(r);
    for (int i = 0; i < V_LANES; i++)
        v_store(to + i * V_LANES, r[i]);
}

/* The lane is a constant wherever the engine uses it. */
static void op_a_fma(float *to, const float *a, int lane, const float *b, const float *c)
{
    const va held = a_load(a);
    switch (lane) {
    case 0: v_store(to, a_fma(held, 0, v_load(b), v_load(c))); break;
#if A_STEP > 1
    case 1: v_store(to, a_fma(held, 1, v_load(b), v_load(c))); break;
    case 2: v_store(to, a_fma(held, 2, v_load(b), v_load(c))); break;
    case 3: v_store(to, a_fma(held, 3, v_load(b), v_load(c))); break;
#endif
    default: break;
    }
}

static void op_a_fma1(float *to, const float *a, const float *b, const float *c)
{
    v_store(to, a_fma(a_load1(a), 0, v_load(b), v_load(c)));
}

static void op_scaled_u4(float *to, const float *scale, const void *p, int high)
{
    v_store(to, high ? v_scaled_u4(v_load(scale), p, true) : v_scaled_u4(v_load(scale), p, false));
}

static void op_halves(float *to, const float *x, int f16)
{
    vf r[2];
    if (f16)
        v_halves_f16(v_load(x), r);
    else
        v_halves_bf16(v_load(x), r);
    v_store(to, r[0]);
    v_store(to + V_LANES, r[1]);
}

static void op_words(float *to, const char *p, long stride)
{
    vf r[4];
    v_words(p, stride, r);
    for (int i = 0; i < 4; i++)
        v_store(to + i * V_LANES, r[i]);
}

#if V_LANES == PANEL
static void op_half_lines(float *to, const char *p, long stride)
{
    vf r[8];
    v_half_lines(p, stride, r);
    for (int i = 0; i < 8; i++)
        v_store(to + i * V_LANES, r[i]);
}
#endif

#if V_TURNS_F16
static void op_turn_f16(float *to, const char *p, long stride)
{
    vf t[V_LANES];
    v_turn_f16(p, stride, t);
    for (int u = 0; u < 16; u++)
        v_store(to + u * V_LANES, v_turned_f16(t, u));
}
#endif

static void op_word_i8(float *to, const float *x, int u)
{
    const vf v = v_load(x);
    v_store(to, u == 0 ? v_word_i8(v, 0) : u == 1 ? v_word_i8(v, 1) : u == 2 ? v_word_i8(v, 2) : v_word_i8(v, 3));
}

static void op_word_top(float *to, const float *x, int u)
{
    const vf v = v_load(x);
    v_store(to, u == 0 ? v_word_top(v, 0) : u == 1 ? v_word_top(v, 1) : u == 2 ? v_word_top(v, 2) : v_word_top(v, 3));
}

#if V_LANES == PANEL / 2
static void op_word_half(float *to, const float *x, int high)
{
    v_store(to, high ? v_word_half(v_load(x), true) : v_word_half(v_load(x), false));
}
#else
static void op_word_u4(float *to, const float *x, int u, int high)
{
    const vf v = high ? v_word_upper(v_load(x)) : v_load(x);
    v_store(to, u == 0 ? v_word_u4(v, 0) : u == 1 ? v_word_u4(v, 1) : u == 2 ? v_word_u4(v, 2) : v_word_u4(v, 3));
}
#endif

#ifdef V_ROWS_F16
static void op_rows_f16(float *to, const char *p, long stride)
{
    v_store(to, v_rows_f16(p, stride));
}
#endif

static void op_a_fma_in(float *to, const float *a, const float *b, const float *c)
{
    v_store(to, a_fma_in(a_load1(a), 0, v_load(b), v_load(c)));
}

static void op_a_fma_at(float *to, const float *a, const float *b, const float *c)
{
    v_store(to, a_fma_at(a, v_load(b), v_load(c)));
}

#if V_HALF
static void op_half_load(float *to, const float *p, const float *q)
{
    v_store(to, h_load(p, q));
}

static void op_half_twice(float *to, const float *p)
{
    v_store(to, h_twice(p));
}

static void op_half_store(float *lower, float *upper, const float *from)
{
    h_store(lower, v_load(from));
    h_store_upper(upper, v_load(from));
}

static void op_half_join(float *to, const float *a, const float *b)
{
    v_store(to, h_join(v_load(a), v_load(b)));
}

static void op_half_fma(float *to, const float *a, const float *b, const float *c)
{
    v_store(to, h_fma_upper(v_load(a), v_load(b), v_load(c)));
}
#endif

static void op_pair(float *to, const float *x, const float *y)
{
    v_store(to, v_pair(v_load(x), v_load(y)));
}

static void op_store_pairs(void *p, const float *x)
{
    v_store_pairs(p, v_load(x));
}

static void op_store_weights(void *p, const float *x)
{
    v_store_weights(p, v_load(x));
}

static void op_first_of_pair(float *to, const float *b)
{
    v_store(to, v_first_of_pair(v_load(b)));
}

static void op_second_of_pair(float *to, const float *b)
{
    v_store(to, v_second_of_pair(v_load(b)));
}

static void op_a_dot(float *to, const float *a, int lane, const float *b, const float *c, int *low)
{
    const va held = a_load(a);
    vf seen = v_low_none(), x = v_zero();
    switch (lane) {
    case 0: x = a_dot(held, 0, v_load(b), v_load(c), &seen); break;
#if A_STEP > 1
    case 1: x = a_dot(held, 1, v_load(b), v_load(c), &seen); break;
    case 2: x = a_dot(held, 2, v_load(b), v_load(c), &seen); break;
    case 3: x = a_dot(held, 3, v_load(b), v_load(c), &seen); break;
#endif
    default: break;
    }
    v_store(to, x);
    *low = v_low_any(seen);
}

const struct vec_ops VEC_OPS = {
    .lanes = V_LANES,
    .a_step = A_STEP,
    .zero = op_zero,
    .set1 = op_set1,
    .load_store = op_load_store,
    .stream = op_stream,
    .load_part = op_load_part,
    .store_part = op_store_part,
    .load_f16 = op_load_f16,
    .load_bf16 = op_load_bf16,
    .load_i8 = op_load_i8,
    .load_u4 = op_load_u4,
    .set1_f16 = op_set1_f16,
    .store_f16 = op_store_f16,
    .store_bf16 = op_store_bf16,
    .store_bytes = op_store_bytes,
    .keep = op_keep,
    .add = op_add,
    .sub = op_sub,
    .mul = op_mul,
    .div = op_div,
    .max = op_max,
    .min = op_min,
    .copysign = op_copysign,
    .fma = op_fma,
    .trunc = op_trunc,
    .rint = op_rint,
    .scale2 = op_scale2,
    .ninf_to_zero = op_ninf_to_zero,
    .max_across = op_max_across,
    .sum16 = op_sum16,
    .transpose = op_transpose,
    .a_fma = op_a_fma,
    .a_fma1 = op_a_fma1,
    .scaled_u4 = op_scaled_u4,
    .halves = op_halves,
    .words = op_words,
#if V_LANES == PANEL
    .half_lines = op_half_lines,
#endif
#if V_TURNS_F16
    .turn_f16 = op_turn_f16,
#endif
    .word_i8 = op_word_i8,
    .word_top = op_word_top,
#ifdef V_ROWS_F16
    .rows_f16 = op_rows_f16,
#endif
#if V_LANES == PANEL / 2
    .word_half = op_word_half,
#else
    .word_u4 = op_word_u4,
#endif
    .a_fma_in = op_a_fma_in,
    .a_fma_at = op_a_fma_at,
    .pair = op_pair,
    .store_pairs = op_store_pairs,
    .store_weights = op_store_weights,
    .first_of_pair = op_first_of_pair,
    .second_of_pair = op_second_of_pair,
    .a_dot = op_a_dot,
    .has_dots = VEC_HAS_DOTS,
    .dot_exact = V_DOT_EXACT,
#if V_HALF
    .half_load = op_half_load,
    .half_twice = op_half_twice,
    .half_store = op_half_store,
    .half_join = op_half_join,
    .half_fma = op_half_fma,
#endif
};
