/* A program of version 0.1: it knows the frozen header alone and is run with today's shared library. Then one of a
 * version to come, whose structs are longer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tril-0.1.h"

enum { TOKENS = 40, HEADS = 2, DIM = 8, ROW = DIM * sizeof(float) };
static float q[TOKENS][HEADS][DIM], k[TOKENS][1][DIM], v[TOKENS][1][DIM], out[TOKENS][HEADS][DIM];
static float weights[HEADS][TOKENS][TOKENS];
static uint16_t halves[TOKENS][1][DIM], cache[TOKENS][1][DIM];
static char workspace[1 << 20];
static int wrong;

static void expect(int holds, const char *what)
{
    printf("%s: %s\n", holds ? "ok" : "WRONG", what);
    wrong += !holds;
}

/* What a later version appends is unknown to this one. */
struct later_attention {
    tril_attention known;
    uint64_t appended[6];
};
struct later_weights_out {
    tril_weights_out known;
    uint64_t appended[3];
};

static const tril_seq seq = {.q_len = TOKENS, .kv_len = TOKENS};

static tril_attention call_of(size_t size)
{
    return (tril_attention){.struct_size = size,
                            .q_heads = HEADS,
                            .kv_heads = 1,
                            .qk_dim = DIM,
                            .v_dim = DIM,
                            .q = {q, sizeof(q), .token_stride = HEADS * ROW, .head_stride = ROW},
                            .k = {k, sizeof(k), .token_stride = ROW, .head_stride = ROW},
                            .v = {v, sizeof(v), .token_stride = ROW, .head_stride = ROW},
                            .out = {out, sizeof(out), .token_stride = HEADS * ROW, .head_stride = ROW},
                            .seqs = &seq,
                            .n_seqs = 1};
}

static tril_weights_out weights_of(size_t size)
{
    return (tril_weights_out){.struct_size = size,
                              .data = weights,
                              .bytes = sizeof(weights),
                              .head_stride = sizeof(weights[0]),
                              .row_stride = sizeof(weights[0][0])};
}

/* Every query is 0, so that token t's result is the mean of the values 0 ... t, and its weights are 1 / (t + 1). */
static int results_hold(void)
{
    for (int t = 0; t < TOKENS; t++) {
        const float mean = (float)t / 2, weight = 1 / (float)(t + 1);
        const float off = out[t][1][DIM - 1] - mean, weight_off = weights[1][t][t] - weight;
        if (off > 1e-5f || off < -1e-5f || weight_off > 1e-6f || weight_off < -1e-6f) return 0;
    }
    return 1;
}

static int untouched(void)
{
    static const float zeros[TOKENS * TOKENS];
    return memcmp(out, zeros, sizeof(out)) == 0 && memcmp(weights, zeros, sizeof(weights[0])) == 0;
}

static void clear(void)
{
    memset(out, 0, sizeof(out));
    memset(weights, 0, sizeof(weights));
}

static void old_caller(void)
{
    tril_attention call = call_of(sizeof(call));
    tril_weights_out to = weights_of(sizeof(to));
    size_t bytes = 0;
    expect(tril_version() >= TRIL_VERSION, "the library is not older than the caller");
    expect(tril_workspace(&call, 1, &bytes) == TRIL_OK && bytes <= sizeof(workspace), "workspace");
    expect(tril_attend(&call, workspace, bytes) == TRIL_OK, "attend");
    expect(tril_weights(&call, &to, workspace, bytes) == TRIL_OK && results_hold(), "weights, and the numbers");

    clear();
    memset(workspace, 0, sizeof(workspace));
    expect(tril_workspace(&call, 2, &bytes) == TRIL_OK && bytes <= sizeof(workspace), "workspace of a team");
    for (int thread = 0; thread < 2; thread++)
        expect(tril_attend_team(&call, workspace, bytes, thread, 2) == TRIL_OK, "attend, a member of a team");
    for (int thread = 0; thread < 2; thread++)
        expect(tril_weights_team(&call, &to, workspace, bytes, thread, 2) == TRIL_OK, "weights, a member of a team");
    expect(results_hold(), "the numbers again");

    /* The enumerators' numbers, a struct without a size of its own, and the other calls. */
    const tril_tensor to_cache = {cache, sizeof(cache), DIM * 2, DIM * 2, .dtype = TRIL_F16};
    expect(tril_append(&to_cache, 0, &call.v, 0, TOKENS, 1, DIM) == TRIL_OK, "append");
    expect(tril_convert(halves, TRIL_F16, NULL, v, TRIL_F32, NULL, TOKENS * DIM) == TRIL_OK, "convert");
    expect(memcmp(cache, halves, sizeof(cache)) == 0 && cache[1][0][0] == 0x3c00, "both give the halves of IEEE 754");
    const float max = 0, sum = 2;
    const tril_partial part = {v[6][0], &max, &sum, ROW};
    expect(tril_merge(&part, 1, 1, DIM, 0, out[0][0], ROW, NULL, NULL) == TRIL_OK && out[0][0][3] == 3, "merge");
    expect(tril_force_isa("scalar") == TRIL_OK && strcmp(tril_isa(), "scalar") == 0, "the scalar tier");
    expect(strcmp(tril_isa_list(0, NULL), "scalar") == 0 && tril_force_isa(NULL) == TRIL_OK, "is the first");
    call.softcap = -1;
    expect(tril_attend(&call, workspace, bytes) == TRIL_ERR_PARAM, "a refusal has the number that it had");
    expect(tril_status_text(TRIL_ERR_PARAM)[0] != 0, "and a text");
}

static void shorter(void)
{
    tril_attention call = call_of(offsetof(tril_attention, tree_bytes));
    clear();
    expect(tril_attend(&call, workspace, sizeof(workspace)) == TRIL_ERR_STRUCT && untouched(),
           "a struct shorter than that of 0.1 is refused");
}

static void later_caller(void)
{
    struct later_attention call = {.known = call_of(sizeof(call))};
    struct later_weights_out to = {.known = weights_of(sizeof(to))};
    clear();
    expect(tril_attend(&call.known, workspace, sizeof(workspace)) == TRIL_OK &&
               tril_weights(&call.known, &to.known, workspace, sizeof(workspace)) == TRIL_OK && results_hold(),
           "longer structs work as long as what is appended is 0");

    clear();
    for (size_t i = 0; i < sizeof(call.appended); i++) {
        size_t bytes = 77;
        ((unsigned char *)call.appended)[i] = 1;
        const tril_status sizing = tril_workspace(&call.known, 1, &bytes);
        const tril_status attending = tril_attend(&call.known, workspace, sizeof(workspace));
        const tril_status weighing = tril_weights(&call.known, &to.known, workspace, sizeof(workspace));
        ((unsigned char *)call.appended)[i] = 0;
        if (sizing == TRIL_ERR_STRUCT && attending == TRIL_ERR_STRUCT && weighing == TRIL_ERR_STRUCT && bytes == 77)
            continue;
        printf("byte %zu of what is appended: ", i);
        expect(0, "anything else is refused");
    }
    for (size_t i = 0; i < sizeof(to.appended); i++) {
        ((unsigned char *)to.appended)[i] = 1;
        const tril_status weighing = tril_weights(&call.known, &to.known, workspace, sizeof(workspace));
        ((unsigned char *)to.appended)[i] = 0;
        if (weighing == TRIL_ERR_STRUCT) continue;
        printf("byte %zu of what is appended to tril_weights_out: ", i);
        expect(0, "anything else is refused");
    }
    expect(untouched(), "a refused call has written nothing");
}

int main(void)
{
    for (int t = 0; t < TOKENS; t++) {
        for (int d = 0; d < DIM; d++)
            k[t][0][d] = (float)d, v[t][0][d] = (float)t;
    }
    old_caller();
    shorter();
    later_caller();
    printf("%d wrong\n", wrong);
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
