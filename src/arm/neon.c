/* The NEON tier (AArch64, which always has it).
 *
 *   tile 8 x 2: 8 query rows x 8 columns             32 registers:  16 accumulators
 *                                                                    2 of B (8 columns at one k)
 *        B0  B1                                                      8 of A (four values of k each, used by lane)
 *    a0  c00 c01              16 fmla by lane per k                  6 free
 *    ..                        2 loads of B, 2 of A (8 per four k)
 *    a7  c70 c71
 *
 *   fmla: latency 4, two per cycle on Neoverse N1, N2 and V1 (V1: four of 128 bits): 8 to 16 chains fill them, and 16
 *   are there. 4 loads per 16 fma.
 */
#include "vec_neon.h"

#define TILE_ROWS  8
#define TILE_VECS  2
#define TILE_STEPS 1

#include "engine/attend.h"
#include "engine/convert.h"
#include "engine/weights.h"

const struct tril_kernels tril_kernels_neon = {
    .name = "neon",
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
