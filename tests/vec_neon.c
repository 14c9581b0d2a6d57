#include "arm/vec_neon.h"
#define VEC_OPS vec_ops_neon
#include "vec_ops.h"
