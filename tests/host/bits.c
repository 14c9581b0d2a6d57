/* One answer, in plain C without Check, so that it runs wherever the library does: a hash over results of the tier in
 * use, for shapes around every boundary and for huge, tiny and special values. It must be the number below on every
 * tier, machine, compiler and level. Exit status 0 if every usable tier gives it. `bits --print` prints the hashes and
 * compares nothing: the way to a new number when the contract changes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tril.h"

#define CONTRACT UINT64_C(0x988c440fd5508335)

enum { MAX_TOKENS = 530, MAX_ROW = 3 * 96 };

static const struct shape {
    int q_heads, kv_heads, qk_dim, v_dim, q_len, kv_len;
} shapes[] = {
    {1, 1, 1, 1, 1, 1},     {2, 1, 3, 5, 17, 17},    {3, 3, 16, 16, 31, 33},   {4, 2, 33, 17, 7, 40},
    {6, 2, 64, 96, 3, 257}, {1, 1, 96, 64, 65, 300}, {8, 1, 24, 40, 2, 256},   {2, 2, 8, 80, 20, 530},
    {5, 1, 80, 8, 9, 513},  {2, 1, 4, 4, 12, 5},     {1, 1, 65, 31, 100, 100}, {3, 1, 32, 32, 1, 511},
};

static float q[MAX_TOKENS * MAX_ROW], k[MAX_TOKENS * MAX_ROW], v[MAX_TOKENS * MAX_ROW], out[MAX_TOKENS * MAX_ROW];
static float row_max[MAX_TOKENS * 8], row_sum[MAX_TOKENS * 8], weights[6 * 100 * MAX_TOKENS];
static char workspace[1 << 22];

static uint64_t next(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* Values of `kind`: 0 usual, 1 large, 2 tiny, 3 with specials. Made of integers and powers of two: exact anywhere. */
static void fill(float *x, size_t n, int kind, uint64_t *state)
{
    static const float unit[] = {0x1p-22f, 0x1p-17f, 0x1p-60f, 0x1p-22f};
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = next(state);
        const int64_t integer = (int64_t)(r >> 40) - (1 << 23);
        x[i] = (float)integer * unit[kind];
        if (kind != 3 || r % 997 > 3) continue;
        const uint32_t special[] = {0x7f800000, 0xff800000, 0x7fc00000, 0x80000000};
        memcpy(&x[i], &special[r % 997], sizeof(x[i]));
    }
}

static uint64_t hash(uint64_t h, const float *x, size_t n) /* FNV-1a over words; every NaN counts as one */
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        if ((bits & 0x7fffffff) > 0x7f800000) bits = 0x7fc00000;
        h = (h ^ bits) * UINT64_C(1099511628211);
    }
    return h;
}

static tril_tensor tensor(const float *data, int tokens, int heads, int dim)
{
    const int64_t row = dim * 4;
    return (tril_tensor){.data = data, .bytes = tokens * heads * row, .token_stride = heads * row, .head_stride = row};
}

static int fail(const char *what, tril_status status)
{
    fprintf(stderr, "bits: %s: %s\n", what, tril_status_text(status));
    exit(EXIT_FAILURE);
}

static uint64_t one_call(const struct shape *x, float scale, uint64_t h)
{
    const tril_seq seq = {.q_len = x->q_len, .kv_len = x->kv_len};
    const size_t rows = (size_t)x->q_len * (size_t)x->q_heads, matrix = (size_t)x->q_len * (size_t)x->kv_len;
    tril_attention call = {.struct_size = sizeof(call),
                           .q_heads = x->q_heads,
                           .kv_heads = x->kv_heads,
                           .qk_dim = x->qk_dim,
                           .v_dim = x->v_dim,
                           .q = tensor(q, x->q_len, x->q_heads, x->qk_dim),
                           .k = tensor(k, x->kv_len, x->kv_heads, x->qk_dim),
                           .v = tensor(v, x->kv_len, x->kv_heads, x->v_dim),
                           .row_max = row_max,
                           .row_sum = row_sum,
                           .seqs = &seq,
                           .n_seqs = 1,
                           .scale = scale};
    call.out = (tril_out){.data = out,
                          .bytes = (int64_t)sizeof(out),
                          .token_stride = (int64_t)x->q_heads * x->v_dim * 4,
                          .head_stride = (int64_t)x->v_dim * 4};
    const tril_weights_out to = {.struct_size = sizeof(to),
                                 .data = weights,
                                 .bytes = (int64_t)sizeof(weights),
                                 .head_stride = (int64_t)matrix * 4,
                                 .row_stride = (int64_t)x->kv_len * 4};
    tril_status status = tril_attend(&call, workspace, sizeof(workspace));
    if (status != TRIL_OK) fail("tril_attend", status);
    h = hash(hash(hash(h, out, rows * (size_t)x->v_dim), row_max, rows), row_sum, rows);
    status = tril_weights(&call, &to, workspace, sizeof(workspace));
    if (status != TRIL_OK) fail("tril_weights", status);
    return hash(h, weights, matrix * (size_t)x->q_heads);
}

static uint64_t all_calls(void)
{
    uint64_t h = UINT64_C(14695981039346656037), state = 1;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        for (int kind = 0; kind < 4; kind++) {
            const struct shape *x = &shapes[i];
            fill(q, (size_t)(x->q_len * x->q_heads * x->qk_dim), kind, &state);
            fill(k, (size_t)(x->kv_len * x->kv_heads * x->qk_dim), kind, &state);
            fill(v, (size_t)(x->kv_len * x->kv_heads * x->v_dim), kind, &state);
            h = one_call(x, 0.0f, h);
            h = one_call(x, kind == 2 ? 0x1p80f : -0.75f, h);
        }
    }
    return h;
}

int main(int argc, char **argv)
{
    const int print = argc > 1 && strcmp(argv[1], "--print") == 0;
    int usable, wrong = 0, tiers = 0;
    const char *name;
    for (int i = 0; (name = tril_isa_list(i, &usable)) != NULL; i++) {
        if (!usable) continue;
        const tril_status status = tril_force_isa(name);
        if (status != TRIL_OK) fail(name, status);
        const uint64_t h = all_calls();
        printf("%s %016llx\n", name, (unsigned long long)h);
        wrong += h != CONTRACT;
        tiers++;
    }
    if (print || (wrong == 0 && tiers > 0)) return EXIT_SUCCESS;
    fprintf(stderr, "bits: %d of %d tiers do not give %016llx\n", wrong, tiers, (unsigned long long)CONTRACT);
    return EXIT_FAILURE;
}
