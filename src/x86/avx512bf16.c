/* The AVX-512 tier of machines with BF16: math mode BF16 by vdpbf16ps. In math mode F32 it is the AVX-512 tier.
 *
 *   tile 6 x 4, as in avx512.c, of 32-bit pairs: 24 vdpbf16ps per two values of k. Latency 6, one in two cycles on Zen
 * 4 and on Intel cores (Cooper Lake, Sapphire Rapids): 3 chains would do.
 *
 *   The instruction adds the second product first, rounds each sum once, to the nearest, takes a subnormal operand for
 * 0 and makes 0 of a subnormal sum, whatever MXCSR says: just what docs/contract.md asks for.
 */
#define TIER_F32 0
#include "vec_avx512.h"

#define TILE_ROWS 6
#define TILE_VECS 4

#include "engine/attend.h"
#include "engine/convert.h"
#include "engine/weights.h"

const struct tril_kernels tril_kernels_avx512bf16 = {
    .name = "avx512bf16",
    .blocking = {.lanes = V_LANES, .tile_rows = TILE_ROWS, .task_rows = 768, .few_rows = 0},
    .instead = {[TRIL_MATH_F32] = &tril_kernels_avx512},
    .attend = attend_task,
    .weights = weights_task,
    .weights_end = weights_end,
    .fold = fold_states,
    .store = store_row,
    .convert = convert_row,
    .exp2 = exp2_array,
    .tanh = tanh_array,
};
