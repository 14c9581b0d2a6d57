/* What a vector header (x86/vec_avx512.h and its like) must provide, and the few words they and the engine share.
 *
 *   V_LANES, V_REGS      floats in a vector; vector registers
 *   A_STEP, A_REGS       values of k that one register of the tile's A operand holds; how many are alive at once
 *   vf, va               a vector of V_LANES floats; a register of the A operand
 *
 *   v_zero() v_set1(x)
 *   v_load(p) v_store(p, v)                 no alignment asked for
 *   v_load_part(p, n) v_store_part(p, n, v) the first n lanes, 0 <= n <= V_LANES: the rest loads as +0, is not stored;
 *                                           nothing at or past p + n is touched
 *   v_load_f16(p) v_load_bf16(p)            V_LANES stored halves, exact; no alignment asked for
 *   v_load_i8(p)                            V_LANES signed bytes
 *   v_load_u4(p, high)                      the lower or upper halves of V_LANES bytes, minus 8
 *   v_set1_f16(p)                           one stored half in all lanes
 *   v_scaled_u4(scale, p, high)             scale * v_load_u4(p, high), rounded; scale is the same in all lanes
 *   v_halves_f16(x, r) v_halves_bf16(x, r)  the two stored halves that each lane of x holds, exact: r[0] those in front
 *   v_words(p, stride, r)                   16 bytes each of V_LANES rows: lane i of r[c], c < 4, holds bytes 4 c ...
 *                                           4 c + 3 of row i; no alignment asked for
 *   v_half_lines(p, stride, r)              the same of 32 bytes, c < 8; asked of PANEL lanes alone
 *   v_turn_f16(p, stride, t)                32 bytes, 16 f16, of each of V_LANES rows, into V_LANES vectors of memory,
 *                                           as v_turned_f16() finds them; asked for where V_TURNS_F16 is 1
 *   v_turned_f16(t, u)                      f16 number u of every row, exact: lane i that of row i
 *   v_rows_f16(p, stride)                   one stored half of each of V_LANES rows; where V_ROWS_F16 is not defined
 *                                           load.h makes it of v_load_f16()
 *   v_word_i8(x, u)                         byte u of every lane, signed
 *   v_word_top(x, u)                        2^24 times as much, which is cheaper
 *   v_word_u4(x, u)                         the lower half of byte u of every lane, minus 8
 *   v_word_upper(x)                         the bytes' upper halves in place of the lower ones
 *   v_word_half(x, high)                    every byte becomes 16 times (its lower or upper half, minus 8), signed;
 *                                           asked of PANEL / 2 lanes, instead of the two before
 *   v_store_f16(p, v) v_store_bf16(p, v)    to the nearest, ties to even; subnormals are kept, too large becomes inf,
 *                                           a NaN a NaN
 *   v_store_bytes(p, v)                     V_LANES bytes: the lowest of each integer, -128 <= v <= 255
 *   v_stream(p, v) v_stream_end()           like v_store, p a multiple of the vector's size; past the caches where
 *                                           the instruction set can. Others see it after v_stream_end()
 *   v_keep(v, n, fill)                      lane i: v if i < n, else fill; 0 <= n <= V_LANES
 *   v_add v_sub v_mul v_div                 rounded once
 *   v_fma(a, b, c)                          a * b + c, rounded once
 *   v_max(x, best)                          the larger; `best` where x is NaN (best is never NaN)
 *   v_min(x, best)                          the smaller; `best` where either is NaN
 *   v_copysign(v, sign)                     the magnitude of v with the sign bit of sign
 *   v_trunc(v)                              the integer part, |v| < 2^22
 *   v_rint(v)                               to the nearest integer, ties to even; |v| of any size, inf and NaN stay
 *   v_scale2(p, n, t)                       p * 2^n where t >= -126 or t is NaN, else +0. n = rint(t), t <= 127,
 *                                           0.7 <= p < 1.5 or NaN
 *   v_ninf_to_zero(v)                       +0 where v is -inf, else v
 *   v_max_across(v)                         the largest lane; no lane is NaN
 *   v_sum16(s)                              the tree 8-4-2-1 over the 16 lanes of s[16 / V_LANES]:
 *                                           lane i += lane i + 8, then + 4, + 2, + 1
 *   v_transpose(r)                          V_LANES x V_LANES, in place
 *   a_load(p)                               p[0] ... p[A_STEP - 1]
 *   a_load1(p)                              p[0] (lane 0)
 *   a_fma(a, lane, b, c)                    b * (value `lane` of a) + c, rounded once
 *   a_fma_in(a, lane, b, c)                 a_fma() whose result surely takes c's register
 *   a_fma_at(p, b, c)                       b * p[0] + c, rounded once, p[0] read anew each time where that is cheaper
 *
 * Two rows' halves in one vector, where vectors are so wide that half of one is worth the trouble: V_HALF is 1, or 0.
 *
 *   h_load(p, q) h_twice(p)                 V_LANES / 2 floats from p in the lower half, from q or p in the upper
 *   h_store(p, v) h_store_upper(p, v)       the lower half, the upper one
 *   h_join(a, b)                            the lower half of a, the upper one of b
 *   h_fma_upper(a, b, c)                    v_fma(a, b, c) in the upper half, c in the lower one
 *
 *   V_LOWER                                 1 if some of its processors set TRIL_CPU_ASKS_LOWER
 *   V_BEHIND(p, v)                          may be missing: the compiler leaves what p is for behind what v is made by
 *   V_OPAQUE(x)                             may be missing: the compiler knows nothing of x, an integer or a pointer,
 *                                           and so counts addresses from it instead of keeping each of them
 *   V_HERE(v)                               may be missing: the compiler makes v no later than here
 *
 * Math mode BF16. A float then stands for a pair of bf16 values, the first in its lower half; none is subnormal.
 *
 *   v_pair(x, y)                            the pairs of x and y, each rounded to bf16, to the nearest, ties to even;
 *                                           what would be subnormal becomes 0
 *   v_store_pairs(p, v)                     V_LANES bf16, rounded likewise
 *   v_store_weights(p, v)                   the same of weights: +0, normal or NaN
 *   v_first_of_pair(b) v_second_of_pair(b)  with +0 as the other
 *   a_dot(a, lane, b, c, low)               x0 * b0 + (x1 * b1 + c) with the pair x in `lane` of a: each sum rounded
 *                                           once, and then 0 if it is below 2^-126. Where V_DOT_EXACT is 0 the last is
 *                                           left out, and *low knows whether it may have mattered:
 *   v_low_none() v_low_any(low)             a `vf` to begin with; whether it did
 *
 * Each is one or a few instructions. tests/test_vec.c tries every one against plain C on every tier.
 */
#ifndef TRIL_ENGINE_VEC_H
#define TRIL_ENGINE_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A build without optimisation has nothing to gain from it, and would pay with 10 MB of stack for a spelled-out tile.
 */
#ifdef __OPTIMIZE__
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif
#define NOINLINE __attribute__((noinline))

/* The math modes that are compiled; a tier may leave one to another tier (tril_kernels.instead). */
#ifndef TIER_F32
#define TIER_F32 1
#endif
#ifndef TIER_BF16
#define TIER_BF16 1
#endif

#ifdef __clang__
#define UNROLL    _Pragma("unroll")
#define NO_UNROLL _Pragma("nounroll")
#else
#define UNROLL    _Pragma("GCC unroll 32")
#define NO_UNROLL _Pragma("GCC unroll 1")
#endif

/* Columns side by side in a packed operand, and the lanes of a row's sum. The same on every tier, so that a K cache in
 * panel layout serves all of them. */
#define PANEL 16

#endif
