#include "reference.h"

#include <math.h>
#include <stdlib.h>

#include "tool.h"

struct reference reference_new(int64_t keys, int64_t v_dim)
{
    return (struct reference){.weights = need((size_t)keys, sizeof(double)),
                              .sees = need((size_t)keys, sizeof(int)),
                              .out = need((size_t)v_dim, sizeof(double)),
                              .magnitude = need((size_t)v_dim, sizeof(double)),
                              .flushed = need((size_t)v_dim, sizeof(double))};
}

void reference_free(struct reference *r)
{
    free(r->weights);
    free(r->sees);
    free(r->out);
    free(r->magnitude);
    free(r->flushed);
}

static const float *row_of(const tril_tensor *x, int64_t token, int64_t head)
{
    return (const float *)(const void *)((const char *)x->data + token * x->token_stride + head * x->head_stride);
}

int reference_sees(const tril_attention *call, const tril_seq *seq, int64_t query, int64_t key)
{
    const int64_t before = seq->kv_len - seq->q_len, position = before + query;
    if (position < 0) return 0;
    if (position < seq->prefix && key < seq->prefix) return 1;
    if (call->window > 0 && key <= position - call->window && key >= call->sink_tokens) return 0;
    if (call->tree == NULL || key < before) return key <= position;
    const char *row = (const char *)call->tree + (seq->q_first + query) * call->tree_row_stride;
    const int64_t bit = key - before;
    return (int)(((const uint64_t *)(const void *)row)[bit / 64] >> bit % 64 & 1);
}

int64_t reference_columns(const tril_attention *call, const tril_seq *seq, int64_t query)
{
    const int64_t position = seq->kv_len - seq->q_len + query;
    if (call->tree != NULL) return seq->kv_len;
    if (position < seq->prefix) return seq->prefix;
    return position < 0 ? 0 : position + 1;
}

/* Scores into weights; what they are to be divided by, and its logarithm had nothing been subtracted. What is said
 * there about special values is docs/contract.md's: a NaN or +inf score makes the row NaN, nothing but -inf makes it 0.
 * sink: -inf where there is none. */
static double exponentiate(struct reference *r, int64_t keys, double sink)
{
    double max = sink;
    for (int64_t j = 0; j < keys; j++) {
        if (r->sees[j]) max = !isnan(max) && !(r->weights[j] <= max) ? r->weights[j] : max;
    }
    double sum = sink == -INFINITY ? 0.0 : exp(sink - max);
    for (int64_t j = 0; j < keys; j++) {
        if (!r->sees[j]) continue;
        r->weights[j] = max == -INFINITY ? 0.0 : exp(r->weights[j] - max); /* inf - inf: NaN */
        sum += r->weights[j];
    }
    r->log_sum = max + log(sum);
    return sum;
}

/* The bounds of math mode BF16 from those of F32; products: the largest |scale| sum |q k|. Above a factor of 2^32, that
 * being some 1400, they say nothing. */
static void widen(struct reference *r, double products)
{
    const double weight = exp((0x1p-6 + 0x1p-15) * products), product = (1 + 0x1p-8) * (1 + 0x1p-8);
    r->factor = weight < 0x1p32 ? weight * product - 1 + r->wide : INFINITY;
    r->wide = weight < 0x1p32 ? weight - 1 + r->wide : INFINITY;
    r->usual = 1;
}

void reference_row(struct reference *r, const tril_attention *call, const tril_seq *seq, int64_t query, int64_t head,
                   int values)
{
    const int64_t kv_head = head / (call->q_heads / call->kv_heads), position = seq->kv_len - seq->q_len + query;
    const double scale = call->scale != 0.0f ? (double)call->scale : (double)(float)(1.0 / sqrt(call->qk_dim));
    const double softcap = (double)call->softcap;
    const double slope = call->alibi_slopes == NULL ? 0 : (double)call->alibi_slopes[head];
    const double sink = call->sink_logits == NULL ? -INFINITY : (double)call->sink_logits[head];
    const float *q = row_of(&call->q, seq->q_first + query, head);
    double products = 0, largest = isinf(sink) ? 0 : fabs(sink);
    r->visible = 0;
    for (int64_t j = 0; j < seq->kv_len; j++) {
        const float *k = row_of(&call->k, seq->kv_first + j, kv_head);
        const double bias = slope * (double)(j - position);
        double s = 0, size = 0;
        r->weights[j] = 0;
        r->sees[j] = reference_sees(call, seq, query, j);
        if (!r->sees[j]) continue;
        r->visible++;
        for (int d = 0; d < call->qk_dim; d++) {
            const double x = (double)q[d] * (double)k[d];
            s += x;
            size += fabs(x);
        }
        s *= scale;
        size *= fabs(scale);
        r->weights[j] = (softcap > 0 ? softcap * tanh(s / softcap) : s) + bias;
        if (size > products) products = size;
        if (size + fabs(bias) > largest) largest = size + fabs(bias);
    }
    r->factor = 0x1p-24 * (48 + 2 * largest + (double)r->visible / 8192);
    r->wide = r->factor + 0x1p-24 * 4 * sqrt(call->qk_dim) * largest;
    r->usual = largest <= 30;
    if (call->math == TRIL_MATH_BF16) widen(r, products);
    const double sum = exponentiate(r, seq->kv_len, sink);
    for (int64_t j = 0; j < seq->kv_len; j++) {
        if (r->sees[j]) r->weights[j] /= sum == 0 ? 1 : sum;
    }
    if (!values) return;

    for (int d = 0; d < call->v_dim; d++) {
        r->out[d] = r->magnitude[d] = 0;
        r->flushed[d] = 0x1p-126;
    }
    for (int64_t j = 0; j < seq->kv_len; j++) {
        const float *v = row_of(&call->v, seq->kv_first + j, kv_head);
        if (!r->sees[j]) continue;
        for (int d = 0; d < call->v_dim; d++) {
            const double x = r->weights[j] * (double)v[d];
            r->out[d] += x;
            r->magnitude[d] += fabs(x);
            r->flushed[d] += 0x1p-126 * fabs((double)v[d]);
        }
    }
}

/* The rounding to a result's type; a BF16 may be subnormal, too. */
static double rounding(tril_dtype type, double x)
{
    if (type == TRIL_F16) return 0x1p-11 * fabs(x) + 0x1p-25;
    return type == TRIL_BF16 ? 0x1p-8 * fabs(x) + 0x1p-134 : 0;
}

double reference_error(float got, tril_dtype type, double wanted, double bound, double flushed)
{
    const double last = type == TRIL_F16    ? 65520
                        : type == TRIL_BF16 ? 0x1.ffp127
                                            : INFINITY; /* what is less is finite */
    if (isinf(got) && isfinite(wanted) && (got > 0) == (wanted > 0) && fabs(wanted) + bound >= last) return 0;
    if (!isfinite(got) || !isfinite(wanted)) return isfinite(got) == isfinite(wanted) ? 0 : INFINITY;
    if (!(bound < INFINITY)) return 0;
    const double error = fabs((double)got - wanted) - flushed;
    return error <= 0 ? 0 : error / (bound + rounding(type, wanted));
}
