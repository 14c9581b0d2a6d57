#include "reference.h"

#include <math.h>
#include <stdlib.h>

#include "tool.h"

struct reference reference_new(int64_t keys, int64_t v_dim)
{
    return (struct reference){.weights = need((size_t)keys, sizeof(double)),
                              .out = need((size_t)v_dim, sizeof(double)),
                              .magnitude = need((size_t)v_dim, sizeof(double))};
}

void reference_free(struct reference *r)
{
    free(r->weights);
    free(r->out);
    free(r->magnitude);
}

static const float *row_of(const tril_tensor *x, int64_t token, int64_t head)
{
    return (const float *)(const void *)((const char *)x->data + token * x->token_stride + head * x->head_stride);
}

/* Scores into weights; their sum. What is said there about special values is docs/contract.md's: a NaN or +inf score
 * makes the row NaN, nothing but -inf makes it 0. */
static double exponentiate(struct reference *r)
{
    double max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < r->visible; j++)
        max = !isnan(max) && !(r->weights[j] <= max) ? r->weights[j] : max;
    for (int64_t j = 0; j < r->visible; j++) {
        r->weights[j] = max == -INFINITY ? 0.0 : exp(r->weights[j] - max); /* inf - inf: NaN */
        sum += r->weights[j];
    }
    return sum;
}

/* The bounds of math mode BF16 from those of F32. Above a factor of 2^32, S being some 1400, they say nothing. */
static void widen(struct reference *r, double largest)
{
    const double weight = exp((0x1p-6 + 0x1p-15) * largest), product = (1 + 0x1p-8) * (1 + 0x1p-8);
    r->factor = weight < 0x1p32 ? weight * product - 1 + r->wide : INFINITY;
    r->wide = weight < 0x1p32 ? weight - 1 + r->wide : INFINITY;
    r->usual = 1;
}

void reference_row(struct reference *r, const tril_attention *call, const tril_seq *seq, int64_t query, int64_t head,
                   int values)
{
    const int64_t kv_head = head / (call->q_heads / call->kv_heads), position = seq->kv_len - seq->q_len + query;
    const double scale = call->scale != 0.0f ? (double)call->scale : (double)(float)(1.0 / sqrt(call->qk_dim));
    const float *q = row_of(&call->q, seq->q_first + query, head);
    double largest = 0;
    r->visible = position < 0 ? 0 : position + 1;
    for (int64_t j = 0; j < r->visible; j++) {
        const float *k = row_of(&call->k, seq->kv_first + j, kv_head);
        double s = 0, size = 0;
        for (int d = 0; d < call->qk_dim; d++) {
            const double x = (double)q[d] * (double)k[d];
            s += x;
            size += fabs(x);
        }
        r->weights[j] = scale * s;
        if (fabs(scale) * size > largest) largest = fabs(scale) * size;
    }
    r->factor = 0x1p-24 * (48 + 2 * largest + (double)r->visible / 8192);
    r->wide = r->factor + 0x1p-24 * 4 * sqrt(call->qk_dim) * largest;
    r->usual = largest <= 30;
    if (call->math == TRIL_MATH_BF16) widen(r, largest);
    const double sum = exponentiate(r);
    for (int64_t j = 0; j < r->visible; j++)
        r->weights[j] /= sum == 0 ? 1 : sum;
    if (!values) return;

    for (int d = 0; d < call->v_dim; d++)
        r->out[d] = r->magnitude[d] = 0;
    for (int64_t j = 0; j < r->visible; j++) {
        const float *v = row_of(&call->v, seq->kv_first + j, kv_head);
        for (int d = 0; d < call->v_dim; d++) {
            const double x = r->weights[j] * (double)v[d];
            r->out[d] += x;
            r->magnitude[d] += fabs(x);
        }
    }
}

/* The rounding to a result's type; a BF16 may be subnormal, too. */
static double rounding(tril_dtype type, double x)
{
    if (type == TRIL_F16) return 0x1p-11 * fabs(x) + 0x1p-25;
    return type == TRIL_BF16 ? 0x1p-8 * fabs(x) + 0x1p-134 : 0;
}

double reference_error(float got, tril_dtype type, double wanted, double bound)
{
    const double last = type == TRIL_F16    ? 65520
                        : type == TRIL_BF16 ? 0x1.ffp127
                                            : INFINITY; /* what is less is finite */
    if (isinf(got) && isfinite(wanted) && (got > 0) == (wanted > 0) && fabs(wanted) + bound >= last) return 0;
    if (!isfinite(got) || !isfinite(wanted)) return isfinite(got) == isfinite(wanted) ? 0 : INFINITY;
    if (!(bound < INFINITY)) return 0;
    const double error = fabs((double)got - wanted) - 0x1p-126;
    return error <= 0 ? 0 : error / (bound + rounding(type, wanted));
}
