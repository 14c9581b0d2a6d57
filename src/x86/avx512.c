/* The AVX-512 tier (F, BW, DQ, VL).
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
 */
#define TIER_BF16 0 /* without its instruction AVX2 is nearly as good at pairs */
#include "vec_avx512.h"

#define TILE_ROWS 6
#define TILE_VECS 4

#include "engine/attend.h"
#include "engine/convert.h"
#include "engine/weights.h"

const struct tril_kernels tril_kernels_avx512 = {
    .name = "avx512",
    .blocking = {.lanes = V_LANES, .tile_rows = TILE_ROWS, .task_rows = 768, .few_rows = 48},
    .instead = {[TRIL_MATH_BF16] = &tril_kernels_avx2},
    .attend = attend_task,
    .weights = weights_task,
    .weights_end = weights_end,
    .fold = fold_states,
    .store = store_row,
    .exp2 = exp2_array,
    .tanh = tanh_array,
    .convert = convert_row,
};
