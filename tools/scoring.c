#include "scoring.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "tool.h"

#define LOG2_E 1.4426950408889634

bool scoring_option(struct scoring *s, int c, const char *text)
{
    switch (c) {
    case SCORING_SCALE: s->scale = scale_option(text); return true;
    case SCORING_SOFTCAP: s->softcap = positive_option("--softcap", text); return true;
    case SCORING_WINDOW: s->window = integer_option("--window", text, 1, INT32_MAX); return true;
    case SCORING_SINK_TOKENS: s->sink_tokens = integer_option("--sink-tokens", text, 1, INT32_MAX); return true;
    case SCORING_SINK_LOGITS: s->sink_logits = text; return true;
    case SCORING_ALIBI: s->alibi = text; return true;
    case SCORING_PREFIX: s->prefix = integer_option("--prefix", text, 1, INT32_MAX); return true;
    case SCORING_TREE: s->tree = text; return true;
    default: return false;
    }
}

/* The library works with x * log2(e) in f32. */
static bool fits(double x)
{
    return isfinite((float)(x * LOG2_E));
}

/* One number for each query head. */
static float *read_heads(const char *path, const struct operands *x, bool may_be_minus_infinite)
{
    const struct npy n = npy_read(path, NPY_F4 | NPY_F2, 1, "[query head]");
    if (n.shape[0] != x->q_heads)
        die("%s: %" PRId64 " elements, but %s has %d heads; give one for each", path, n.shape[0], x->q.path,
            x->q_heads);
    for (int64_t h = 0; h < n.shape[0]; h++) {
        if (!fits((double)n.f32[h]) && !(may_be_minus_infinite && n.f32[h] == -INFINITY))
            die("%s: element %" PRId64 " is %g; give a number of at most 2.3e38 in size%s", path, h, (double)n.f32[h],
                may_be_minus_infinite ? ", or -inf" : "");
    }
    return n.f32;
}

/* The slopes of Press, Smith, Lewis, "Train short, test long" (2022), as its authors' code has them and BLOOM: for n
 * heads, a power of two, 2^(-8/n), 2^(-16/n), ...; for another number those of the power of two below it, then every
 * second one of twice that power. */
static float *usual_slopes(int32_t heads)
{
    float *slopes = need((size_t)heads, sizeof(float));
    int32_t power = 1;
    while (2 * power <= heads)
        power *= 2;
    for (int32_t h = 0; h < heads; h++)
        slopes[h] = (float)(h < power ? exp2(-8.0 * (h + 1) / power) : exp2(-4.0 * (2 * (h - power) + 1) / power));
    return slopes;
}

static void read_tree(struct scoring *s, const struct operands *x)
{
    struct npy n = npy_read(s->tree, NPY_1 | NPY_F4, 2, "[query][query]");
    const int64_t queries = x->queries, words = (queries + 63) / 64;
    if (n.shape[0] != queries || n.shape[1] != queries)
        die("%s: shape (%" PRId64 ", %" PRId64 "), but %s has %" PRId64 " tokens; give (%" PRId64 ", %" PRId64 ")",
            s->tree, n.shape[0], n.shape[1], x->q.path, queries, queries, queries);
    s->row_stride = 8 * words;
    s->rows_bytes = queries * s->row_stride;
    s->bits = need((size_t)(queries * words), sizeof(uint64_t));
    for (int64_t i = 0; i < queries; i++) {
        for (int64_t t = 0; t < queries; t++) {
            const float is = n.f32[i * queries + t];
            if (is != 0 && is != 1)
                die("%s: element (%" PRId64 ", %" PRId64 ") is %g; give 0 or 1", s->tree, i, t, (double)is);
            if (is == 1) s->bits[i * words + t / 64] |= (uint64_t)1 << t % 64;
        }
    }
    npy_free(&n);
}

void scoring_read(struct scoring *s, const struct operands *x)
{
    const double scale = s->scale != 0 ? (double)s->scale : 1 / sqrt(x->qk_dim), softcap = (double)s->softcap;
    if (!fits(scale)) die("--scale %g: too large; give a number of at most 2.3e38 in size", scale);
    if (s->softcap > 0 && (!fits(softcap) || !isfinite((float)(scale / softcap))))
        die("--softcap %g: too %s for a scale of %g; give 1 to 1000, say", softcap, softcap > 1 ? "large" : "small",
            scale);
    if (s->sink_tokens > 0 && s->window == 0)
        die("--sink-tokens: there is no window behind which they would stay visible; give --window");
    if (s->prefix > x->keys)
        die("--prefix %" PRId64 ": %s has %" PRId64 " tokens; give at most that many", s->prefix, x->k.path, x->keys);
    if (s->alibi != NULL)
        s->slopes = strcmp(s->alibi, "auto") == 0 ? usual_slopes(x->q_heads) : read_heads(s->alibi, x, false);
    if (s->sink_logits != NULL) s->logits = read_heads(s->sink_logits, x, true);
    if (s->tree != NULL) read_tree(s, x);
}

void scoring_free(struct scoring *s)
{
    free(s->slopes);
    free(s->logits);
    free(s->bits);
}

void scoring_ask(const struct scoring *s, int64_t head, tril_attention *call)
{
    call->scale = s->scale;
    call->softcap = s->softcap;
    call->window = s->window;
    call->sink_tokens = s->sink_tokens;
    call->sink_logits = s->logits == NULL ? NULL : s->logits + head;
    call->alibi_slopes = s->slopes == NULL ? NULL : s->slopes + head;
    call->tree = s->bits;
    call->tree_row_stride = s->row_stride;
    call->tree_bytes = s->rows_bytes;
}

int64_t scoring_piece(const struct scoring *s, const struct operands *x, int64_t first)
{
    const int64_t usual = 192; /* at least one task's rows on every tier */
    const int64_t left = x->queries - first, in_prefix = s->prefix - (x->keys - x->queries + first);
    const int64_t together = s->bits != NULL ? left : (in_prefix > usual ? in_prefix : usual);
    return together < left ? together : left;
}
