#include "x86/vec_avx2.h"
#define VEC_OPS vec_ops_avx2
#include "vec_ops.h"
