/* The AVX-512 tier (F, BW, DQ, VL), and that of machines with BF16 as well.
 *
 *   tile 6 x 4: 6 query rows x 64 columns            32 registers:  24 accumulators
 *                                                                    4 of B (64 columns at one k)
 *        B0  B1  B2  B3                                              1 of A (one value, broadcast by its load)
 *    a0  c00 c01 c02 c03      24 vfmadd231ps per k                   3 free
 *    ..                        4 loads of B, 6 broadcast loads of A
 *    a5  c50 c51 c52 c53
 *
 *   vfmadd231ps zmm: latency 4, one per cycle on Zen 4, two on Zen 5 and server Intel cores: at most 8 chains are
 *   needed to fill them, and 24 are there. 10 loads per 24 fma: the loads never bind, B may come from L2.
 *
 *   Math mode BF16: the same tile of 32-bit pairs, 24 vdpbf16ps per two values of k. Latency 6, one in two cycles on
 *   Zen 4 and on Intel cores (Cooper Lake, Sapphire Rapids): 3 chains would do. The instruction adds the second product
 *   first, rounds each sum once, to the nearest, takes a subnormal operand for 0 and makes 0 of a subnormal sum,
 *   whatever MXCSR says: just what docs/contract.md asks for.
 */
#include "vec_avx512.h"

#define TILE_ROWS  6
#define TILE_VECS  4
#define TILE_STEPS 4
/* Instructions for four k with and without it: clang 14 149, 174, clang 19 and 22 149, 196 and 206, which put values of
 * A on the stack; gcc 12 159, 150. */
#ifdef __clang__
#define TILE_OPAQUE(x) __asm__("" : "+r"(x))
#endif

#include "engine/attend.h"
#include "engine/convert.h"
#include "engine/weights.h"

/* Two tables of the same functions, since it is a matter of the machine who serves math mode BF16: without its
 * instructions AVX2 is nearly as good at pairs. In f32 both are one tier. */
#define AVX512(tier, mode, other)                                                                                      \
    const struct tril_kernels tril_kernels_##tier = {                                                                  \
        .name = #tier,                                                                                                 \
        .blocking = {.lanes = V_LANES, .tile_rows = TILE_ROWS, .task_rows = 768, .few_rows = 64},                      \
        .instead = {[mode] = &tril_kernels_##other},                                                                   \
        .attend = attend_task,                                                                                         \
        .weights = weights_task,                                                                                       \
        .weights_end = weights_end,                                                                                    \
        .fold = fold_states,                                                                                           \
        .store = store_row,                                                                                            \
        .exp2 = exp2_array,                                                                                            \
        .tanh = tanh_array,                                                                                            \
        .convert = convert_row,                                                                                        \
    };

AVX512(avx512, TRIL_MATH_BF16, avx2)
AVX512(avx512bf16, TRIL_MATH_F32, avx512)
