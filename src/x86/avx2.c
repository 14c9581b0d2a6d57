/* The AVX2 tier (AVX2, FMA, F16C).
 *
 *   tile 6 x 2: 6 query rows x 16 columns            16 registers:  12 accumulators
 *                                                                    2 of B (16 columns at one k)
 *        B0  B1                                                      1 of A (one value, broadcast by its load)
 *    a0  c00 c01              12 vfmadd231ps per k                   1 free
 *    ..                        2 loads of B, 6 broadcast loads of A
 *    a5  c50 c51
 *
 *   vfmadd231ps ymm: latency 4 (5 on Haswell), two per cycle: 8 to 10 chains fill them, and 12 are there. 8 loads per
 *   12 fma, 6 cycles: two loads per cycle suffice.
 */
#include "vec_avx2.h"

#define TILE_ROWS   6
#define TILE_VECS   2
#define TILE_STEPS  4
#define TILE_OPAQUE V_OPAQUE
#define PACK_ASKS   1

#include "engine/attend.h"
#include "engine/convert.h"
#include "engine/weights.h"

const struct tril_kernels tril_kernels_avx2 = {
    .name = "avx2",
    .blocking = {.lanes = V_LANES, .tile_rows = TILE_ROWS, .task_rows = 768, .few_rows = 48},
    .attend = attend_task,
    .weights = weights_task,
    .weights_end = weights_end,
    .fold = fold_states,
    .store = store_row,
    .exp2 = exp2_array,
    .tanh = tanh_array,
    .convert = convert_row,
};
