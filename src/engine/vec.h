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
 *   v_stream(p, v) v_stream_end()           like v_store, p a multiple of the vector's size; past the caches where the
 *                                           instruction set can. Others see it after v_stream_end()
 *   v_keep(v, n, fill)                      lane i: v if i < n, else fill; 0 <= n <= V_LANES
 *   v_add v_sub v_mul v_div                 rounded once
 *   v_fma(a, b, c)                          a * b + c, rounded once
 *   v_max(x, best)                          the larger; `best` where x is NaN (best is never NaN)
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
 *
 * Each is one or a few instructions. tests/test_vec.c tries every one against plain C on every tier.
 */
#ifndef TRIL_ENGINE_VEC_H
#define TRIL_ENGINE_VEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NOINLINE      __attribute__((noinline))

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

/* Columns side by side in a packed operand, and the lanes of a row's sum. The same on every tier, so that a K cache in
 * panel layout serves all of them. */
#define PANEL 16

#endif
