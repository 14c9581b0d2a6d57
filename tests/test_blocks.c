/* Blocks of keys that no query of a call sees are not touched: a tier that counts the blocks it reads (table
 * "counting") against a mask that is written out cell by cell. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

#include "tril.h"

extern int64_t tril_blocks_read;

#define HEADS   4
#define GROUP   2
#define DIM     8
#define LONGEST 4000

struct shape {
    int64_t queries, keys, window, sinks, prefix;
};

static const struct shape shapes[] = {
    {60, 60, 0, 0, 0},       {1, 3000, 0, 0, 0},       {1, 3000, 1, 0, 0},        {1, 3000, 256, 0, 0},
    {1, 3001, 257, 4, 0},    {1, 3000, 600, 300, 0},   {90, 3000, 100, 0, 0},     {90, 3000, 100, 1, 0},
    {90, 3000, 256, 257, 0}, {90, 3000, 2999, 5, 0},   {90, 3000, 700, 900, 0},   {90, 3000, 1, 0, 2950},
    {90, 3000, 3, 0, 2999},  {90, 3000, 50, 600, 700}, {24, 4000, 1024, 4, 1000}, {24, 600, 100, 520, 0},
};

/* Blocks in which any query sees any key, by the words of tril.h. */
static int64_t blocks_seen(const struct shape *s)
{
    int64_t blocks = 0;
    for (int64_t first = 0; first < s->keys; first += TRIL_KEY_BLOCK) {
        bool any = false;
        for (int64_t i = 0; i < s->queries; i++) {
            const int64_t p = s->keys - s->queries + i;
            for (int64_t j = first; j < first + TRIL_KEY_BLOCK && j < s->keys; j++) {
                const bool causal = j <= p && (s->window == 0 || j > p - s->window || j < s->sinks);
                any |= causal || (p < s->prefix && j < s->prefix);
            }
        }
        blocks += any;
    }
    return blocks;
}

static bool counts(const struct shape *s, bool weights, float *memory)
{
    float *q = memory, *k = q + LONGEST * HEADS * DIM, *v = k + LONGEST * HEADS * DIM, *out = v + LONGEST * HEADS * DIM;
    const int64_t row = DIM * (int64_t)sizeof(float), slim = HEADS / GROUP * row;
    const int64_t columns = s->keys * (int64_t)sizeof(float);
    const tril_seq seq = {.q_len = s->queries, .kv_len = s->keys, .prefix = s->prefix};
    const tril_attention call = {
        .struct_size = sizeof call,
        .q_heads = HEADS,
        .kv_heads = HEADS / GROUP,
        .qk_dim = DIM,
        .v_dim = DIM,
        .q = {.data = q, .bytes = s->queries * HEADS * row, .token_stride = HEADS * row, .head_stride = row},
        .k = {.data = k, .bytes = s->keys * slim, .token_stride = slim, .head_stride = row},
        .v = {.data = v, .bytes = s->keys * slim, .token_stride = slim, .head_stride = row},
        .out = {.data = out, .bytes = s->queries * HEADS * row, .token_stride = HEADS * row, .head_stride = row},
        .seqs = &seq,
        .n_seqs = 1,
        .window = s->window,
        .sink_tokens = s->sinks,
    };
    const tril_weights_out to = {
        .struct_size = sizeof to,
        .data = out,
        .bytes = HEADS * s->queries * columns,
        .head_stride = s->queries * columns,
        .row_stride = columns,
    };
    size_t bytes;
    if (tril_workspace(&call, 1, &bytes) != TRIL_OK) return broken("no workspace");
    void *workspace = malloc(bytes);
    tril_blocks_read = 0;
    const tril_status status =
        weights ? tril_weights(&call, &to, workspace, bytes) : tril_attend(&call, workspace, bytes);
    free(workspace);
    /* Each K/V head's keys are read once: its queries are one task. */
    const int64_t want = blocks_seen(s) * (HEADS / GROUP);
    return (status == TRIL_OK && tril_blocks_read == want) ||
           broken("%s, %lld queries, %lld keys, window %lld, sinks %lld, prefix %lld: status %d, %lld blocks read, not "
                  "%lld",
                  weights ? "weights" : "attend", (long long)s->queries, (long long)s->keys, (long long)s->window,
                  (long long)s->sinks, (long long)s->prefix, (int)status, (long long)tril_blocks_read, (long long)want);
}

static bool blocks_are_those_seen(const struct tiers *tiers)
{
    const size_t floats = (size_t)LONGEST * HEADS * (3 * DIM + 100);
    float *memory = calloc(floats, sizeof *memory);
    bool ok = true;
    for (int t = 0; t < tiers->n && ok; t++) {
        if (strcmp(tiers->name[t], "scalar") == 0) continue; /* it looks at keys, not at blocks */
        ok = use_tier(tiers->name[t]);
        for (int i = 0; i < COUNT(shapes) && ok; i++)
            ok = counts(&shapes[i], false, memory) && counts(&shapes[i], true, memory);
    }
    free(memory);
    return ok;
}

static const struct check checks[] = {{"blocks_are_those_seen", blocks_are_those_seen}};
const struct suite suite_blocks = {"blocks", checks, COUNT(checks)};
