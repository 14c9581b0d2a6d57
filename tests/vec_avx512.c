#include "x86/vec_avx512.h"
#define VEC_HAS_DOTS 0 /* vec_avx512bf16.c tries them, where the machine has BF16 */
#define VEC_OPS      vec_ops_avx512
#include "vec_ops.h"
