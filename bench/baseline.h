/* What a careful user builds from a BLAS: the rival that tril is measured beside. */
#ifndef TRIL_BENCH_BASELINE_H
#define TRIL_BENCH_BASELINE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Causal attention over a whole prompt on one thread, by OpenBLAS: for each query head and each 128 rows of queries,
 * one sgemm with the keys that the last of them sees, a vectorised softmax of each row up to its own last key, one
 * sgemm with the values. q, out: [token][q_heads][dim]; k, v: [token][kv_heads][dim], contiguous. Scale 1/sqrt(dim).
 * scratch: baseline_scratch_floats() floats of any content. */
void baseline_attend_openblas(int q_heads, int kv_heads, int dim, int tokens, const float *q, const float *k,
                              const float *v, float *out, float *scratch);
size_t baseline_scratch_floats(int q_heads, int kv_heads, int dim, int tokens);

/* OpenBLAS's own name for the kernels it chose, such as "SkylakeX". Static. */
const char *baseline_core(void);

#ifdef __cplusplus
}
#endif
#endif
