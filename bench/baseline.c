/* See baseline.h. Compiled with -O3 -ffp-contract=fast -fopenmp-simd: the softmax is meant to be as good as a compiler
 * makes it, in the widest vectors of the machine. */
#include "baseline.h"

#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    ROWS = 128,    /* of a block of queries; 64 and 256 were no faster */
    SIDE_STEP = 16 /* floats added to a score row, so that rows do not share cache sets */
};

static size_t score_row(int tokens)
{
    return ((size_t)tokens + 15) / 16 * 16 + SIDE_STEP;
}

/* e^x for x <= 0: 2^n * 2^f with a polynomial of degree 6 in f; 0 below 2^-126. Adding 1.5 * 2^23 rounds to an integer
 * and leaves it in the low bits. */
INLINE float exp_nonpositive(float x)
{
    const float magic = 12582912.0f, log2 = x * 1.44269504f, t = log2 > -127.0f ? log2 : -127.0f;
    const float shifted = t + magic, f = t - (shifted - magic);
    float p = 1.53533e-4f;
    p = p * f + 1.33989e-3f;
    p = p * f + 9.61844e-3f;
    p = p * f + 5.55036e-2f;
    p = p * f + 2.40227e-1f;
    p = p * f + 6.93147e-1f;
    p = p * f + 1.0f;
    uint32_t bits, n;
    memcpy(&bits, &p, sizeof(bits));
    memcpy(&n, &shifted, sizeof(n));
    bits += n << 23;
    memcpy(&p, &bits, sizeof(p));
    return t < -126.0f ? 0.0f : p;
}

/* s[0 ... n-1] becomes e^(s - max); returns the sum. */
INLINE float softmax_row(float *s, int n)
{
    float max = s[0], sum = 0.0f;
#pragma omp simd reduction(max : max)
    for (int j = 0; j < n; j++)
        max = s[j] > max ? s[j] : max;
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; j++) {
        const float e = exp_nonpositive(s[j] - max);
        s[j] = e;
        sum += e;
    }
    return sum;
}

static float softmax_base(float *s, int n)
{
    return softmax_row(s, n);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static float softmax_avx2(float *s, int n)
{
    return softmax_row(s, n);
}

__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) static float softmax_avx512(float *s, int n)
{
    return softmax_row(s, n);
}
#endif

typedef float (*softmax_fn)(float *s, int n);

static softmax_fn softmax_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return softmax_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return softmax_avx2;
#endif
    return softmax_base;
}

size_t baseline_scratch_floats(int q_heads, int kv_heads, int dim, int tokens)
{
    (void)q_heads, (void)kv_heads, (void)dim;
    return ROWS * score_row(tokens);
}

const char *baseline_core(void)
{
    return openblas_get_corename();
}

void baseline_attend_openblas(int q_heads, int kv_heads, int dim, int tokens, const float *q, const float *k,
                              const float *v, float *out, float *scratch)
{
    const softmax_fn softmax = softmax_best();
    const int q_row = q_heads * dim, kv_row = kv_heads * dim, s_row = (int)score_row(tokens);
    const float scale = 1.0f / sqrtf((float)dim);

    openblas_set_num_threads(1);
    for (int h = 0; h < q_heads; h++) {
        const float *kh = k + h / (q_heads / kv_heads) * dim, *vh = v + h / (q_heads / kv_heads) * dim;
        for (int first = 0; first < tokens; first += ROWS) {
            const int rows = tokens - first < ROWS ? tokens - first : ROWS, keys = first + rows;
            float sum[ROWS], *o = out + (size_t)first * (size_t)q_row + h * dim;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, keys, dim, scale,
                        q + (size_t)first * (size_t)q_row + h * dim, q_row, kh, kv_row, 0.0f, scratch, s_row);
            for (int r = 0; r < rows; r++) {
                float *s = scratch + (size_t)r * (size_t)s_row;
                const int visible = first + r + 1;
                sum[r] = softmax(s, visible);
                memset(s + visible, 0, (size_t)(keys - visible) * sizeof(float));
            }
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, dim, keys, 1.0f, scratch, s_row, vh, kv_row,
                        0.0f, o, q_row);
            for (int r = 0; r < rows; r++) {
                const float inverse = 1.0f / sum[r];
                for (int d = 0; d < dim; d++)
                    o[(size_t)r * (size_t)q_row + (size_t)d] *= inverse;
            }
        }
    }
}
