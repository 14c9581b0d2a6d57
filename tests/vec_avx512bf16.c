#include "x86/vec_avx512.h"
#define VEC_OPS vec_ops_avx512bf16
#include "vec_ops.h"
