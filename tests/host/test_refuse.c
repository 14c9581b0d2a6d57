/* Every refusal: a call that is sound but for one fault gets exactly the status that the header promises, from every
 * public call that can see the fault, and not a byte of any output, statistic, input or workspace changes. Beside each
 * refusal stands what is just still allowed. */
#include <check.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tril.h"

enum {
    OK = TRIL_OK,
    E_NULL = TRIL_ERR_NULL,
    STRUCT = TRIL_ERR_STRUCT,
    SHAPE = TRIL_ERR_SHAPE,
    OVERFLOW = TRIL_ERR_OVERFLOW,
    STRIDE = TRIL_ERR_STRIDE,
    EXTENT = TRIL_ERR_EXTENT,
    ALIGN = TRIL_ERR_ALIGN,
    ALIAS = TRIL_ERR_ALIAS,
    DTYPE = TRIL_ERR_DTYPE,
    PARAM = TRIL_ERR_PARAM,
    WORKSPACE = TRIL_ERR_WORKSPACE,
    UNSUPPORTED = TRIL_ERR_UNSUPPORTED,
};

/* Two sequences: 3 queries at the end of 5 keys, a prompt of 2. */
enum { HEADS = 4, KV_HEADS = 2, DIM = 8, QUERIES = 5, KEYS = 7, COLUMNS = 5, PACKED = 3 + 4 + 5 + 1 + 2, TAIL = 16 };
enum { PARTS = 3, PANEL = 16, PANELS = 2 };
enum { ROW = DIM * 4, Q_TOKEN = HEADS * ROW, K_TOKEN = KV_HEADS * ROW, GAP = 1024, ROOM = 1 << 18 };

/* Everything that a call may touch, in one piece, so that one comparison sees every write. */
struct arena {
    float q[QUERIES][HEADS][DIM];
    char gap_q[GAP];
    float k[KEYS][KV_HEADS][DIM];
    char gap_k[GAP];
    float v[KEYS][KV_HEADS][DIM];
    char gap_v[GAP];
    float out[QUERIES][HEADS][DIM];
    char gap_out[GAP];
    float row_max[QUERIES][HEADS];
    char gap_max[GAP];
    float row_sum[QUERIES][HEADS];
    char gap_sum[GAP];
    float weights[HEADS][QUERIES][COLUMNS];
    char gap_weights[GAP];
    tril_seq seqs[2];
    char gap_seqs[GAP];
    float parts[PARTS][QUERIES][HEADS][DIM]; /* results of a call with TRIL_BLOCKWISE */
    char gap_parts[GAP];
    float parts_max[PARTS][QUERIES][HEADS];
    char gap_parts_max[GAP];
    float parts_sum[PARTS][QUERIES][HEADS];
    char gap_parts_sum[GAP];
    float panels[PANELS][KV_HEADS][DIM][PANEL];
    char gap_panels[GAP];
    char workspace[ROOM];
    char gap_end[GAP];
};

struct setup {
    tril_attention call;
    unsigned char call_tail[TAIL]; /* what a later version appended */
    tril_weights_out to;
    unsigned char to_tail[TAIL];
    void *workspace;
    size_t workspace_bytes;
    int null_call, null_to;
};

static struct arena arena, before;
static struct setup s;

static tril_tensor tensor(const void *data, int64_t tokens, int64_t heads)
{
    return (tril_tensor){.data = data, .bytes = tokens * heads * ROW, .token_stride = heads * ROW, .head_stride = ROW};
}

static void set_up(void)
{
    memset(&arena, 0xa5, sizeof(arena));
    for (int i = 0; i < QUERIES * HEADS * DIM; i++)
        (&arena.q[0][0][0])[i] = (float)(i * 37 % 64 - 32) / 16.0f;
    for (int i = 0; i < KEYS * KV_HEADS * DIM; i++) {
        (&arena.k[0][0][0])[i] = (float)(i * 29 % 64 - 32) / 16.0f;
        (&arena.v[0][0][0])[i] = (float)(i * 43 % 64 - 32) / 16.0f;
    }
    arena.seqs[0] = (tril_seq){.q_first = 0, .q_len = 3, .kv_len = 5, .kv_first = 0};
    arena.seqs[1] = (tril_seq){.q_first = 3, .q_len = 2, .kv_len = 2, .kv_first = 5};

    s = (struct setup){
        .call = {.struct_size = sizeof(tril_attention),
                 .q_heads = HEADS,
                 .kv_heads = KV_HEADS,
                 .qk_dim = DIM,
                 .v_dim = DIM,
                 .q = tensor(arena.q, QUERIES, HEADS),
                 .k = tensor(arena.k, KEYS, KV_HEADS),
                 .v = tensor(arena.v, KEYS, KV_HEADS),
                 .out = {.data = arena.out, .bytes = sizeof(arena.out), .token_stride = Q_TOKEN, .head_stride = ROW},
                 .row_max = &arena.row_max[0][0],
                 .row_sum = &arena.row_sum[0][0],
                 .seqs = arena.seqs,
                 .n_seqs = 2},
        .to = {.struct_size = sizeof(tril_weights_out),
               .data = arena.weights,
               .bytes = sizeof(arena.weights),
               .head_stride = sizeof(arena.weights[0]),
               .row_stride = sizeof(arena.weights[0][0])},
        .workspace = arena.workspace,
        .workspace_bytes = ROOM,
    };
}

static void packed(void)
{
    s.to.form = TRIL_WEIGHTS_PACKED;
    s.to.row_stride = 0;
    s.to.head_stride = PACKED * 4;
    s.to.bytes = HEADS * PACKED * 4;
}

/* Whether the whole arena is as it was, or where it is not. */
static void expect_untouched(const char *name, const char *function)
{
    const unsigned char *is = (const unsigned char *)&arena, *was = (const unsigned char *)&before;
    if (memcmp(is, was, sizeof(arena)) == 0) return;
    size_t i = 0;
    while (is[i] == was[i])
        i++;
    ck_abort_msg("%s: %s() refused but wrote byte %zu of struct arena", name, function, i);
}

static void expect(const char *name, const char *function, tril_status is, int wanted)
{
    ck_assert_msg(is == (tril_status)wanted, "%s: %s() gave %d (%s), not %d (%s)", name, function, (int)is,
                  tril_status_text(is), wanted, tril_status_text((tril_status)wanted));
    if (is != TRIL_OK) expect_untouched(name, function);
    memcpy(&arena, &before, sizeof(arena));
}

/* The statuses that this setup must get from the three calls. */
static void expect_all(const char *name, int attend, int weights, int sizing)
{
    const struct setup given = s;
    const tril_attention *call = s.null_call ? NULL : &s.call;
    const tril_weights_out *to = s.null_to ? NULL : &s.to;
    memcpy(&before, &arena, sizeof(arena));

    expect(name, "tril_attend", tril_attend(call, s.workspace, s.workspace_bytes), attend);
    expect(name, "tril_attend_team", tril_attend_team(call, s.workspace, s.workspace_bytes, 0, 1), attend);
    expect(name, "tril_weights", tril_weights(call, to, s.workspace, s.workspace_bytes), weights);
    expect(name, "tril_weights_team", tril_weights_team(call, to, s.workspace, s.workspace_bytes, 0, 1), weights);
    size_t bytes = 4711;
    /* Every thread of a team gets the same status. Not where it depends on the room that the team needs. */
    if (attend != OK && attend != WORKSPACE)
        expect(name, "tril_attend_team, 1 of 2", tril_attend_team(call, s.workspace, s.workspace_bytes, 1, 2), attend);
    if (weights != OK && weights != WORKSPACE)
        expect(name, "tril_weights_team, 1 of 2", tril_weights_team(call, to, s.workspace, s.workspace_bytes, 1, 2),
               weights);
    const tril_status status = tril_workspace(call, 1, &bytes);
    expect(name, "tril_workspace", status, sizing);
    ck_assert_msg((bytes == 4711) == (status != TRIL_OK), "%s: tril_workspace() said %zu bytes", name, bytes);
    ck_assert_msg(memcmp(&given, &s, sizeof(s)) == 0, "%s: the caller's structs changed", name);
}

/* Faults that are one number in one field. */
#define CALL(field) offsetof(struct setup, call.field), sizeof(s.call.field)
#define TO(field)   offsetof(struct setup, to.field), sizeof(s.to.field)
#define NAN_BITS    0x7fc00000
#define INF_BITS    0x7f800000
#define HUGE_STRIDE (INT64_MAX - 3)

static const struct fault {
    const char *name;
    size_t offset, size;
    int64_t value;
    int attend, weights, sizing;
} faults[] = {
    {"no fault", CALL(flags), 0, OK, OK, OK},

    {"struct_size 0", CALL(struct_size), 0, STRUCT, STRUCT, STRUCT},
    {"struct_size 1 short", CALL(struct_size), sizeof(tril_attention) - 1, STRUCT, STRUCT, STRUCT},
    {"struct_size 1 long, tail 0", CALL(struct_size), sizeof(tril_attention) + 1, OK, OK, OK},
    {"struct_size long, tail 0", CALL(struct_size), sizeof(tril_attention) + TAIL, OK, OK, OK},
    {"to.struct_size 0", TO(struct_size), 0, OK, STRUCT, OK},
    {"to.struct_size 1 short", TO(struct_size), sizeof(tril_weights_out) - 1, OK, STRUCT, OK},
    {"to.struct_size long, tail 0", TO(struct_size), sizeof(tril_weights_out) + TAIL, OK, OK, OK},
    {"flag 4", CALL(flags), 4, STRUCT, STRUCT, STRUCT},
    {"flags 5", CALL(flags), 5, STRUCT, STRUCT, STRUCT},
    {"blockwise, but normalised", CALL(flags), TRIL_BLOCKWISE, STRUCT, STRUCT, STRUCT},
    {"flag 2^31", CALL(flags), INT32_MIN, STRUCT, STRUCT, STRUCT},
    {"out.reserved", CALL(out.reserved), 1, STRUCT, OK, STRUCT},

    {"q_heads 0", CALL(q_heads), 0, SHAPE, SHAPE, SHAPE},
    {"q_heads -4", CALL(q_heads), -4, SHAPE, SHAPE, SHAPE},
    {"q_heads 3 of 2", CALL(q_heads), 3, SHAPE, SHAPE, SHAPE},
    {"q_heads 65538", CALL(q_heads), 65538, SHAPE, SHAPE, SHAPE},
    {"kv_heads 0", CALL(kv_heads), 0, SHAPE, SHAPE, SHAPE},
    {"kv_heads -2", CALL(kv_heads), -2, SHAPE, SHAPE, SHAPE},
    {"kv_heads 3", CALL(kv_heads), 3, SHAPE, SHAPE, SHAPE},
    {"kv_heads 8", CALL(kv_heads), 8, SHAPE, SHAPE, SHAPE},
    {"qk_dim 0", CALL(qk_dim), 0, SHAPE, SHAPE, SHAPE},
    {"qk_dim -8", CALL(qk_dim), -8, SHAPE, SHAPE, SHAPE},
    {"qk_dim 1025", CALL(qk_dim), 1025, SHAPE, SHAPE, SHAPE},
    {"qk_dim 1024", CALL(qk_dim), 1024, STRIDE, STRIDE, OK},
    {"v_dim 0", CALL(v_dim), 0, SHAPE, OK, OK},
    {"v_dim -8", CALL(v_dim), -8, SHAPE, OK, SHAPE},
    {"v_dim 1025", CALL(v_dim), 1025, SHAPE, OK, SHAPE},
    {"n_seqs -1", CALL(n_seqs), -1, SHAPE, SHAPE, SHAPE},
    {"n_seqs 2^31", CALL(n_seqs), INT64_C(1) << 31, SHAPE, SHAPE, SHAPE},
    {"block_tokens -1", CALL(block_tokens), -1, SHAPE, SHAPE, SHAPE},
    {"team_call -1", CALL(team_call), -1, SHAPE, SHAPE, SHAPE},
    {"team_call min", CALL(team_call), INT64_MIN, SHAPE, SHAPE, SHAPE},
    {"team_call 2^62 + 1", CALL(team_call), (INT64_C(1) << 62) + 1, SHAPE, SHAPE, SHAPE},
    {"team_call max", CALL(team_call), INT64_MAX, SHAPE, SHAPE, SHAPE},
    {"team_call 2^62", CALL(team_call), INT64_C(1) << 62, OK, OK, OK},
    {"team_call 1", CALL(team_call), 1, OK, OK, OK},
    {"last_rows -1", TO(last_rows), -1, OK, SHAPE, OK},

    {"scale NaN", CALL(scale), NAN_BITS, PARAM, PARAM, PARAM},
    {"scale inf", CALL(scale), INF_BITS, PARAM, PARAM, PARAM},
    {"scale -inf", CALL(scale), INF_BITS | INT32_MIN, PARAM, PARAM, PARAM},
    {"scale -1", CALL(scale), 0xbf800000, OK, OK, OK},
    {"softcap NaN", CALL(softcap), NAN_BITS, PARAM, PARAM, PARAM},
    {"softcap inf", CALL(softcap), INF_BITS, PARAM, PARAM, PARAM},
    {"softcap -1", CALL(softcap), 0xbf800000, PARAM, PARAM, PARAM},
    {"window -1", CALL(window), -1, PARAM, PARAM, PARAM},
    {"sink_tokens -1", CALL(sink_tokens), -1, PARAM, PARAM, PARAM},

    {"math unknown", CALL(math), TRIL_MATH_COUNT, DTYPE, DTYPE, DTYPE},
    {"math -1", CALL(math), -1, DTYPE, DTYPE, DTYPE},
    {"q.dtype unknown", CALL(q.dtype), TRIL_DTYPE_COUNT, DTYPE, DTYPE, DTYPE},
    {"q.dtype -1", CALL(q.dtype), -1, DTYPE, DTYPE, DTYPE},
    {"q.dtype I8", CALL(q.dtype), TRIL_I8, DTYPE, DTYPE, DTYPE},
    {"q.dtype Q8_0", CALL(q.dtype), TRIL_Q8_0, DTYPE, DTYPE, DTYPE},
    {"q.dtype Q4_0", CALL(q.dtype), TRIL_Q4_0, DTYPE, DTYPE, DTYPE},
    {"k.dtype unknown", CALL(k.dtype), TRIL_DTYPE_COUNT, DTYPE, DTYPE, DTYPE},
    {"v.dtype unknown", CALL(v.dtype), TRIL_DTYPE_COUNT, DTYPE, OK, DTYPE},
    {"out.dtype unknown", CALL(out.dtype), TRIL_DTYPE_COUNT, DTYPE, OK, DTYPE},
    {"out.dtype -1", CALL(out.dtype), -1, DTYPE, OK, DTYPE},
    {"out.dtype I8", CALL(out.dtype), TRIL_I8, DTYPE, OK, DTYPE},
    {"out.dtype Q4_0", CALL(out.dtype), TRIL_Q4_0, DTYPE, OK, DTYPE},
    {"q.layout PANELS", CALL(q.layout), TRIL_PANELS, DTYPE, DTYPE, DTYPE},
    {"v.layout PANELS", CALL(v.layout), TRIL_PANELS, DTYPE, OK, DTYPE},
    {"q.layout unknown", CALL(q.layout), TRIL_LAYOUT_COUNT, DTYPE, DTYPE, DTYPE},
    {"k.layout unknown", CALL(k.layout), TRIL_LAYOUT_COUNT, DTYPE, DTYPE, DTYPE},
    {"k.layout -1", CALL(k.layout), -1, DTYPE, DTYPE, DTYPE},
    {"v.layout unknown", CALL(v.layout), TRIL_LAYOUT_COUNT, DTYPE, OK, DTYPE},
    {"to.form unknown", TO(form), TRIL_WEIGHTS_FORM_COUNT, OK, DTYPE, OK},
    {"to.form -1", TO(form), -1, OK, DTYPE, OK},
    {"to.dtype unknown", TO(dtype), TRIL_DTYPE_COUNT, OK, DTYPE, OK},
    {"to.dtype Q8_0", TO(dtype), TRIL_Q8_0, OK, DTYPE, OK},

    {"unnormalised", CALL(flags), TRIL_UNNORMALISED, OK, UNSUPPORTED, OK},
    {"math BF16", CALL(math), TRIL_MATH_BF16, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"q.dtype F16", CALL(q.dtype), TRIL_F16, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"q.dtype BF16", CALL(q.dtype), TRIL_BF16, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.dtype F16", CALL(k.dtype), TRIL_F16, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.dtype I8", CALL(k.dtype), TRIL_I8, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.dtype Q8_0", CALL(k.dtype), TRIL_Q8_0, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.dtype Q4_0", CALL(k.dtype), TRIL_Q4_0, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"v.dtype BF16", CALL(v.dtype), TRIL_BF16, UNSUPPORTED, OK, UNSUPPORTED},
    {"v.dtype Q4_0", CALL(v.dtype), TRIL_Q4_0, UNSUPPORTED, OK, UNSUPPORTED},
    {"out.dtype F16", CALL(out.dtype), TRIL_F16, UNSUPPORTED, OK, UNSUPPORTED},
    {"out.dtype BF16", CALL(out.dtype), TRIL_BF16, UNSUPPORTED, OK, UNSUPPORTED},
    {"to.dtype F16", TO(dtype), TRIL_F16, OK, UNSUPPORTED, OK},
    {"to.form COLUMN_SUMS", TO(form), TRIL_WEIGHTS_COLUMN_SUMS, OK, UNSUPPORTED, OK},
    {"last_rows", TO(last_rows), 1, OK, UNSUPPORTED, OK},
    {"q.block_stride", CALL(q.block_stride), 512, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.block_stride", CALL(k.block_stride), 512, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.scales", CALL(k.scales), 64, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.scales_bytes", CALL(k.scales_bytes), 4, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.scale_token_stride", CALL(k.scale_token_stride), 4, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.scale_head_stride", CALL(k.scale_head_stride), 4, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"k.scale_block_stride", CALL(k.scale_block_stride), 4, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"v.block_stride", CALL(v.block_stride), 512, UNSUPPORTED, OK, UNSUPPORTED},
    {"v.scales", CALL(v.scales), 64, UNSUPPORTED, OK, UNSUPPORTED},
    {"v.scale_token_stride", CALL(v.scale_token_stride), 4, UNSUPPORTED, OK, UNSUPPORTED},
    {"block_tokens", CALL(block_tokens), 16, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"softcap", CALL(softcap), 0x41f00000, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"window", CALL(window), 16, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"sink_tokens", CALL(sink_tokens), 4, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"sink_logits", CALL(sink_logits), 64, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"alibi_slopes", CALL(alibi_slopes), 64, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"tree", CALL(tree), 64, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"tree_row_stride", CALL(tree_row_stride), 8, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"tree_bytes", CALL(tree_bytes), 8, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},

    {"q null", CALL(q.data), 0, E_NULL, E_NULL, OK},
    {"k null", CALL(k.data), 0, E_NULL, E_NULL, OK},
    {"v null", CALL(v.data), 0, E_NULL, OK, OK},
    {"out null", CALL(out.data), 0, E_NULL, OK, OK},
    {"to.data null", TO(data), 0, OK, E_NULL, OK},
    {"seqs null", CALL(seqs), 0, E_NULL, E_NULL, E_NULL},
    {"row_max null", CALL(row_max), 0, OK, OK, OK},
    {"row_sum null", CALL(row_sum), 0, OK, OK, OK},
    {"null call", offsetof(struct setup, null_call), sizeof(int), 1, E_NULL, E_NULL, E_NULL},
    {"null to", offsetof(struct setup, null_to), sizeof(int), 1, OK, E_NULL, OK},

    {"out_part_stride without parts", CALL(out_part_stride), QUERIES *Q_TOKEN, STRIDE, STRIDE, STRIDE},
    {"statistics_part_stride without parts", CALL(statistics_part_stride), QUERIES *HEADS, STRIDE, STRIDE, STRIDE},
    {"q.token_stride < 0", CALL(q.token_stride), -Q_TOKEN, STRIDE, STRIDE, OK},
    {"q.head_stride < 0", CALL(q.head_stride), -ROW, STRIDE, STRIDE, OK},
    {"k.token_stride < 0", CALL(k.token_stride), -K_TOKEN, STRIDE, STRIDE, OK},
    {"k.head_stride < 0", CALL(k.head_stride), -ROW, STRIDE, STRIDE, OK},
    {"v.token_stride < 0", CALL(v.token_stride), -K_TOKEN, STRIDE, OK, OK},
    {"v.head_stride < 0", CALL(v.head_stride), -ROW, STRIDE, OK, OK},
    {"out.token_stride < 0", CALL(out.token_stride), -Q_TOKEN, STRIDE, OK, OK},
    {"out.head_stride < 0", CALL(out.head_stride), -ROW, STRIDE, OK, OK},
    {"to.row_stride < 0", TO(row_stride), -20, OK, STRIDE, OK},
    {"to.head_stride < 0", TO(head_stride), -100, OK, STRIDE, OK},
    {"q.token_stride 0", CALL(q.token_stride), 0, STRIDE, STRIDE, OK},
    {"q.head_stride 0", CALL(q.head_stride), 0, STRIDE, STRIDE, OK},
    {"k.token_stride 0", CALL(k.token_stride), 0, OK, OK, OK},
    {"k.head_stride 0", CALL(k.head_stride), 0, OK, OK, OK},
    {"v.token_stride 0", CALL(v.token_stride), 0, OK, OK, OK},
    {"v.head_stride 0", CALL(v.head_stride), 0, OK, OK, OK},
    {"out.token_stride 0", CALL(out.token_stride), 0, STRIDE, OK, OK},
    {"out.head_stride 0", CALL(out.head_stride), 0, STRIDE, OK, OK},
    {"to.row_stride 0", TO(row_stride), 0, OK, STRIDE, OK},
    {"to.head_stride 0", TO(head_stride), 0, OK, STRIDE, OK},
    {"q.token_stride < row", CALL(q.token_stride), ROW - 4, STRIDE, STRIDE, OK},
    {"q.head_stride < row", CALL(q.head_stride), ROW - 4, STRIDE, STRIDE, OK},
    {"k.token_stride < row", CALL(k.token_stride), ROW - 4, STRIDE, STRIDE, OK},
    {"k.head_stride < row", CALL(k.head_stride), ROW - 4, STRIDE, STRIDE, OK},
    {"v.head_stride < row", CALL(v.head_stride), ROW - 4, STRIDE, OK, OK},
    {"out.head_stride < row", CALL(out.head_stride), ROW - 4, STRIDE, OK, OK},
    {"to.row_stride < row", TO(row_stride), 16, OK, STRIDE, OK},
    {"to.head_stride < matrix", TO(head_stride), 96, OK, STRIDE, OK},
    {"q tokens run into heads", CALL(q.token_stride), Q_TOKEN - ROW, STRIDE, STRIDE, OK},
    {"k tokens run into heads", CALL(k.token_stride), ROW, STRIDE, STRIDE, OK},
    {"v tokens run into heads", CALL(v.token_stride), ROW, STRIDE, OK, OK},
    {"out tokens run into heads", CALL(out.token_stride), ROW, STRIDE, OK, OK},

    {"q.token_stride unaligned", CALL(q.token_stride), Q_TOKEN + 2, ALIGN, ALIGN, OK},
    {"q.head_stride unaligned", CALL(q.head_stride), ROW + 1, ALIGN, ALIGN, OK},
    {"k.token_stride unaligned", CALL(k.token_stride), K_TOKEN - 1, ALIGN, ALIGN, OK},
    {"k.head_stride unaligned", CALL(k.head_stride), ROW + 2, ALIGN, ALIGN, OK},
    {"v.head_stride unaligned", CALL(v.head_stride), ROW + 2, ALIGN, OK, OK},
    {"out.token_stride unaligned", CALL(out.token_stride), Q_TOKEN + 1, ALIGN, OK, OK},
    {"to.row_stride unaligned", TO(row_stride), 22, OK, ALIGN, OK},
    {"to.head_stride unaligned", TO(head_stride), 101, OK, ALIGN, OK},

    {"q.bytes 1 short", CALL(q.bytes), QUERIES *Q_TOKEN - 1, EXTENT, EXTENT, OK},
    {"k.bytes 1 short", CALL(k.bytes), KEYS *K_TOKEN - 1, EXTENT, EXTENT, OK},
    {"v.bytes 1 short", CALL(v.bytes), KEYS *K_TOKEN - 1, EXTENT, OK, OK},
    {"out.bytes 1 short", CALL(out.bytes), QUERIES *Q_TOKEN - 1, EXTENT, OK, OK},
    {"to.bytes 1 short", TO(bytes), HEADS *QUERIES *COLUMNS * 4 - 1, OK, EXTENT, OK},
    {"q.bytes 0", CALL(q.bytes), 0, EXTENT, EXTENT, OK},
    {"k.bytes -1", CALL(k.bytes), -1, EXTENT, EXTENT, OK},
    {"out.bytes min", CALL(out.bytes), INT64_MIN, EXTENT, OK, OK},
    {"to.bytes -1", TO(bytes), -1, OK, EXTENT, OK},

    {"q.token_stride huge", CALL(q.token_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"q.head_stride huge", CALL(q.head_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"k.token_stride huge", CALL(k.token_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"k.head_stride huge", CALL(k.head_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"v.token_stride huge", CALL(v.token_stride), HUGE_STRIDE, OVERFLOW, OK, OK},
    {"out.head_stride huge", CALL(out.head_stride), HUGE_STRIDE, OVERFLOW, OK, OK},
    {"to.row_stride huge", TO(row_stride), HUGE_STRIDE, OK, OVERFLOW, OK},
    {"to.head_stride huge", TO(head_stride), HUGE_STRIDE, OK, OVERFLOW, OK},
    {"k.token_stride 2^60", CALL(k.token_stride), INT64_C(1) << 60, EXTENT, EXTENT, OK},

    {"workspace null", offsetof(struct setup, workspace), sizeof(void *), 0, WORKSPACE, WORKSPACE, OK},
    {"workspace of 0 bytes", offsetof(struct setup, workspace_bytes), sizeof(size_t), 0, WORKSPACE, WORKSPACE, OK},
    {"workspace past the end", offsetof(struct setup, workspace_bytes), sizeof(size_t), -1, OVERFLOW, OVERFLOW, OK},
};

START_TEST(one_field)
{
    const struct fault *fault = &faults[_i];
    const int32_t narrow = (int32_t)fault->value;
    ck_assert_uint_eq(fault->size, fault->size == 4 ? sizeof(narrow) : sizeof(fault->value));
    memcpy((char *)&s + fault->offset, fault->size == 4 ? (const void *)&narrow : (const void *)&fault->value,
           fault->size);
    expect_all(fault->name, fault->attend, fault->weights, fault->sizing);
}
END_TEST

/* Faults of one field of a sequence. */
static const struct {
    const char *name;
    size_t offset;
    int64_t value;
    int attend, weights, sizing;
} seq_faults[] = {
    {"q_first -1", offsetof(tril_seq, q_first), -1, SHAPE, SHAPE, SHAPE},
    {"q_len -1", offsetof(tril_seq, q_len), -1, SHAPE, SHAPE, SHAPE},
    {"q_len 2^31", offsetof(tril_seq, q_len), INT64_C(1) << 31, SHAPE, SHAPE, SHAPE},
    {"kv_len -1", offsetof(tril_seq, kv_len), -1, SHAPE, SHAPE, SHAPE},
    {"kv_len 2^31", offsetof(tril_seq, kv_len), INT64_C(1) << 31, SHAPE, SHAPE, SHAPE},
    {"kv_len max", offsetof(tril_seq, kv_len), INT64_MAX, SHAPE, SHAPE, SHAPE},
    {"kv_first -1", offsetof(tril_seq, kv_first), -1, SHAPE, SHAPE, SHAPE},
    {"q_first max", offsetof(tril_seq, q_first), INT64_MAX, OVERFLOW, OVERFLOW, OVERFLOW},
    {"kv_first max", offsetof(tril_seq, kv_first), INT64_MAX, OVERFLOW, OVERFLOW, OVERFLOW},
    {"q_first 1 too far", offsetof(tril_seq, q_first), 4, EXTENT, EXTENT, OK},
    {"q_len 1 too long", offsetof(tril_seq, q_len), 3, EXTENT, EXTENT, OK},
    {"q_len 2^31 - 1", offsetof(tril_seq, q_len), INT32_MAX, EXTENT, EXTENT, OK},
    {"kv_len 1 too long", offsetof(tril_seq, kv_len), 3, EXTENT, EXTENT, OK},
    {"kv_len 2^31 - 1", offsetof(tril_seq, kv_len), INT32_MAX, EXTENT, EXTENT, OK},
    {"kv_first 1 too far", offsetof(tril_seq, kv_first), 6, EXTENT, EXTENT, OK},
    {"rows of two sequences overlap", offsetof(tril_seq, q_first), 2, SHAPE, SHAPE, SHAPE},
    {"sequences unsorted", offsetof(tril_seq, q_first), 0, SHAPE, SHAPE, SHAPE},
    {"two sequences share keys", offsetof(tril_seq, kv_first), 0, OK, OK, OK},
    {"kv_len < q_len", offsetof(tril_seq, kv_len), 1, OK, OK, OK},
    {"kv_len 0", offsetof(tril_seq, kv_len), 0, OK, OK, OK},
    {"q_len 0", offsetof(tril_seq, q_len), 0, OK, OK, OK},
    {"blocks", offsetof(tril_seq, blocks), 64, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"prefix", offsetof(tril_seq, prefix), 1, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
    {"key_begin past the end", offsetof(tril_seq, key_begin), 256, SHAPE, SHAPE, SHAPE},
    {"key_begin 1", offsetof(tril_seq, key_begin), 1, SHAPE, SHAPE, SHAPE},
    {"key_begin is kv_len", offsetof(tril_seq, key_begin), 2, SHAPE, SHAPE, SHAPE},
    {"key_begin -1", offsetof(tril_seq, key_begin), -1, SHAPE, SHAPE, SHAPE},
    {"key_begin -256", offsetof(tril_seq, key_begin), -256, SHAPE, SHAPE, SHAPE},
    {"key_begin min", offsetof(tril_seq, key_begin), INT64_MIN, SHAPE, SHAPE, SHAPE},
    {"key_end past kv_len", offsetof(tril_seq, key_end), 256, SHAPE, SHAPE, SHAPE},
    {"key_end 1", offsetof(tril_seq, key_end), 1, SHAPE, SHAPE, SHAPE},
    {"key_end -256", offsetof(tril_seq, key_end), -256, SHAPE, SHAPE, SHAPE},
    {"key_end max", offsetof(tril_seq, key_end), INT64_MAX, SHAPE, SHAPE, SHAPE},
    {"key_end is kv_len", offsetof(tril_seq, key_end), 2, OK, UNSUPPORTED, OK},
};

START_TEST(one_field_of_a_sequence)
{
    memcpy((char *)&arena.seqs[1] + seq_faults[_i].offset, &seq_faults[_i].value, sizeof(int64_t));
    expect_all(seq_faults[_i].name, seq_faults[_i].attend, seq_faults[_i].weights, seq_faults[_i].sizing);
}
END_TEST

/* Ranges of keys. One key and value serve every position, so that long sequences fit the arena. */
START_TEST(key_ranges)
{
    static const struct {
        int64_t kv_len, begin, end;
        int status;
    } ranges[] = {
        {773, 0, 0, OK},
        {773, 256, 512, OK},
        {773, 256, 0, OK},
        {773, 256, 773, OK},
        {773, 0, 256, OK},
        {773, 0, 773, OK},
        {773, 768, 773, OK},
        {773, 512, 512, OK},
        {768, 768, 0, OK},
        {768, 512, 768, OK},
        {768, 768, 768, OK},
        {773, 512, 256, SHAPE},
        {773, 255, 512, SHAPE},
        {773, 257, 512, SHAPE},
        {773, 16, 256, SHAPE},
        {773, 0, 255, SHAPE},
        {773, 256, 511, SHAPE},
        {773, 256, 772, SHAPE},
        {773, 256, 774, SHAPE},
        {773, 256, 1024, SHAPE},
        {773, 768, 512, SHAPE},
        {773, 1024, 0, SHAPE},
        {773, 1024, 1024, SHAPE},
        {773, 773, 773, SHAPE},
        {773, -256, 256, SHAPE},
        {773, -512, -256, SHAPE},
        {773, 0, -256, SHAPE},
        {773, 256, INT64_MIN, SHAPE},
        {773, INT64_MAX, 0, SHAPE},
        {773, 0, INT64_MAX, SHAPE},
        {0, 0, 256, SHAPE},
        {0, 256, 0, SHAPE},
    };
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        char name[96];
        set_up();
        s.call.k.token_stride = s.call.v.token_stride = 0;
        s.call.n_seqs = 1;
        arena.seqs[0].kv_len = ranges[i].kv_len;
        arena.seqs[0].key_begin = ranges[i].begin;
        arena.seqs[0].key_end = ranges[i].end;
        snprintf(name, sizeof(name), "keys %lld to %lld of %lld", (long long)ranges[i].begin, (long long)ranges[i].end,
                 (long long)ranges[i].kv_len);
        const int status = ranges[i].status;
        const bool whole = ranges[i].begin == 0 && ranges[i].end == 0;
        expect_all(name, status, status != OK ? status : whole ? STRIDE : UNSUPPORTED, status); /* rows too short */
    }
    /* Only the range's keys must lie in k and v. */
    set_up();
    arena.seqs[0] = (tril_seq){.q_len = 3, .kv_len = 256 + KEYS, .key_begin = 256};
    s.call.n_seqs = 1;
    expect_all("as many keys as there are", OK, UNSUPPORTED, OK);
    arena.seqs[0].kv_len++;
    expect_all("one key more", EXTENT, UNSUPPORTED, OK);
    arena.seqs[0].kv_len--;
    arena.seqs[0].kv_first = 1;
    expect_all("one token further", EXTENT, UNSUPPORTED, OK);
    arena.seqs[0] = (tril_seq){.q_len = 3, .kv_len = 512, .kv_first = 100, .key_begin = 512};
    expect_all("an empty range, wherever it lies", OK, UNSUPPORTED, OK);
}
END_TEST

/* Two sequences of 3 and 2 blocks of keys, a result for each. */
static void set_up_parts(void)
{
    set_up();
    arena.seqs[0].kv_len = 600;
    arena.seqs[1].kv_len = 300;
    s.call.k.token_stride = s.call.v.token_stride = 0;
    s.call.flags = TRIL_UNNORMALISED | TRIL_BLOCKWISE;
    s.call.out.data = arena.parts;
    s.call.out.bytes = sizeof(arena.parts);
    s.call.out_part_stride = sizeof(arena.parts[0]);
    s.call.row_max = &arena.parts_max[0][0][0];
    s.call.row_sum = &arena.parts_sum[0][0][0];
    s.call.statistics_part_stride = QUERIES * HEADS;
}

static const struct fault part_faults[] = {
    {"no fault", CALL(team_call), 0, OK, UNSUPPORTED, OK},
    {"blockwise alone", CALL(flags), TRIL_BLOCKWISE, STRUCT, STRUCT, STRUCT},
    {"strides, but no parts", CALL(flags), TRIL_UNNORMALISED, STRIDE, STRIDE, STRIDE},
    {"strides, but no flag", CALL(flags), 0, STRIDE, STRIDE, STRIDE},
    {"out_part_stride < 0", CALL(out_part_stride), -QUERIES *Q_TOKEN, STRIDE, STRIDE, STRIDE},
    {"out_part_stride 0", CALL(out_part_stride), 0, STRIDE, UNSUPPORTED, OK},
    {"out_part_stride < part", CALL(out_part_stride), QUERIES *Q_TOKEN - 4, STRIDE, UNSUPPORTED, OK},
    {"out_part_stride of a token", CALL(out_part_stride), Q_TOKEN, STRIDE, UNSUPPORTED, OK},
    {"out_part_stride unaligned", CALL(out_part_stride), QUERIES *Q_TOKEN + 2, ALIGN, ALIGN, ALIGN},
    {"out_part_stride past the extent", CALL(out_part_stride), QUERIES *Q_TOKEN + 4, EXTENT, UNSUPPORTED, OK},
    {"out_part_stride huge", CALL(out_part_stride), HUGE_STRIDE, OVERFLOW, UNSUPPORTED, OK},
    {"out 1 byte short", CALL(out.bytes), PARTS *QUERIES *Q_TOKEN - 1, EXTENT, UNSUPPORTED, OK},
    {"out of two parts", CALL(out.bytes), (PARTS - 1) * QUERIES *Q_TOKEN, EXTENT, UNSUPPORTED, OK},
    {"out null", CALL(out.data), 0, E_NULL, UNSUPPORTED, OK},
    {"row_max null", CALL(row_max), 0, E_NULL, UNSUPPORTED, OK},
    {"row_sum null", CALL(row_sum), 0, E_NULL, UNSUPPORTED, OK},
    {"statistics_part_stride < 0", CALL(statistics_part_stride), -QUERIES *HEADS, STRIDE, STRIDE, STRIDE},
    {"statistics_part_stride 0", CALL(statistics_part_stride), 0, STRIDE, UNSUPPORTED, OK},
    {"statistics_part_stride < part", CALL(statistics_part_stride), QUERIES *HEADS - 1, STRIDE, UNSUPPORTED, OK},
    {"statistics_part_stride max", CALL(statistics_part_stride), INT64_MAX, OVERFLOW, UNSUPPORTED, OK},
    {"statistics_part_stride 2^60", CALL(statistics_part_stride), INT64_C(1) << 60, OVERFLOW, UNSUPPORTED, OK},
};

START_TEST(one_field_of_parts)
{
    set_up_parts();
    const struct fault *fault = &part_faults[_i];
    const int32_t narrow = (int32_t)fault->value;
    memcpy((char *)&s + fault->offset, fault->size == 4 ? (const void *)&narrow : (const void *)&fault->value,
           fault->size);
    expect_all(fault->name, fault->attend, fault->weights, fault->sizing);
}
END_TEST

START_TEST(aliases_of_parts)
{
    char *const last = (char *)arena.parts[PARTS - 1];
    set_up_parts();
    s.call.out = (tril_out){.data = arena.q, .bytes = sizeof(arena.q), .token_stride = Q_TOKEN, .head_stride = ROW};
    arena.seqs[0].kv_len = arena.seqs[1].kv_len = 200;
    expect_all("out over q, one part", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    arena.seqs[0].kv_len = arena.seqs[1].kv_len = 200;
    expect_all("one part, apart from q", OK, UNSUPPORTED, OK);
    set_up_parts();
    s.call.q.data = last;
    expect_all("q in the last part", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    s.call.k.data = last;
    expect_all("k in the last part", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    s.call.v.data = last;
    expect_all("v in the last part", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    s.call.row_max = (float *)(void *)last;
    expect_all("row_max in the last part", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    s.call.row_sum = &arena.parts_max[PARTS - 1][QUERIES - 1][HEADS - 1];
    expect_all("row_sum at the end of row_max", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    s.workspace = last;
    expect_all("workspace in the last part", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    s.workspace = arena.parts_sum[PARTS - 1];
    expect_all("workspace in the last sums", ALIAS, UNSUPPORTED, OK);
    set_up_parts();
    memcpy(last + 64, arena.seqs, sizeof(arena.seqs));
    s.call.seqs = (const tril_seq *)(const void *)(last + 64);
    expect_all("seqs in the last part", ALIAS, UNSUPPORTED, OK);
}
END_TEST

/* K in panels: 5 keys in the first, 2 in the second. Values stand still. */
static void set_up_panels(void)
{
    set_up();
    for (int i = 0; i < PANELS * KV_HEADS * DIM * PANEL; i++)
        (&arena.panels[0][0][0][0])[i] = (float)(i * 31 % 64 - 32) / 16.0f;
    arena.seqs[1].kv_first = PANEL;
    s.call.v.token_stride = 0;
    s.call.k = (tril_tensor){.data = arena.panels,
                             .bytes = sizeof(arena.panels),
                             .token_stride = sizeof(arena.panels[0]) / PANEL,
                             .head_stride = sizeof(arena.panels[0][0]),
                             .layout = TRIL_PANELS};
}

enum { PANEL_TOKEN = KV_HEADS * DIM * 4, PANEL_HEAD = DIM * PANEL * 4 };
static const struct fault panel_faults[] = {
    {"no fault", CALL(team_call), 0, OK, OK, OK},
    {"k null", CALL(k.data), 0, E_NULL, E_NULL, OK},
    {"1 byte short", CALL(k.bytes), PANELS *KV_HEADS *PANEL_HEAD - 1, EXTENT, EXTENT, OK},
    {"to the last token's last element", CALL(k.bytes), PANELS *KV_HEADS *PANEL_HEAD - 14 * 4, EXTENT, EXTENT, OK},
    {"one panel", CALL(k.bytes), KV_HEADS *PANEL_HEAD, EXTENT, EXTENT, OK},
    {"token_stride < 0", CALL(k.token_stride), -PANEL_TOKEN, STRIDE, STRIDE, OK},
    {"token_stride unaligned", CALL(k.token_stride), PANEL_TOKEN + 2, ALIGN, ALIGN, OK},
    {"token_stride of a sixteenth of a byte too much", CALL(k.token_stride), PANEL_TOKEN + 1, ALIGN, ALIGN, OK},
    {"panels run into each other", CALL(k.token_stride), PANEL_TOKEN - 4, STRIDE, STRIDE, OK},
    {"token_stride 4", CALL(k.token_stride), 4, STRIDE, STRIDE, OK},
    {"token_stride 0", CALL(k.token_stride), 0, OK, OK, OK},
    {"token_stride huge", CALL(k.token_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"token_stride 2^59", CALL(k.token_stride), INT64_C(1) << 59, OVERFLOW, OVERFLOW, OK},
    {"token_stride past the extent", CALL(k.token_stride), PANEL_TOKEN + 4, EXTENT, EXTENT, OK},
    {"head_stride < panel", CALL(k.head_stride), PANEL_HEAD - 4, STRIDE, STRIDE, OK},
    {"head_stride of a row", CALL(k.head_stride), ROW, STRIDE, STRIDE, OK},
    {"head_stride < 0", CALL(k.head_stride), -PANEL_HEAD, STRIDE, STRIDE, OK},
    {"head_stride unaligned", CALL(k.head_stride), PANEL_HEAD + 2, ALIGN, ALIGN, OK},
    {"head_stride 0", CALL(k.head_stride), 0, OK, OK, OK},
    {"q.layout PANELS", CALL(q.layout), TRIL_PANELS, DTYPE, DTYPE, DTYPE},
    {"v.layout PANELS", CALL(v.layout), TRIL_PANELS, DTYPE, OK, DTYPE},
};

START_TEST(one_field_of_panels)
{
    set_up_panels();
    const struct fault *fault = &panel_faults[_i];
    const int32_t narrow = (int32_t)fault->value;
    memcpy((char *)&s + fault->offset, fault->size == 4 ? (const void *)&narrow : (const void *)&fault->value,
           fault->size);
    expect_all(fault->name, fault->attend, fault->weights, fault->sizing);
}
END_TEST

START_TEST(panels)
{
    static const int64_t firsts[] = {1, 2, 4, 8, 15, 17, 31};
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        set_up_panels();
        arena.seqs[1].kv_first = firsts[i];
        expect_all("kv_first within a panel", SHAPE, SHAPE, SHAPE);
    }
    set_up_panels();
    arena.seqs[1].kv_first = 2 * PANEL;
    expect_all("kv_first past the panels", EXTENT, EXTENT, OK);
    for (int by = 1; by < 4; by++) {
        set_up_panels();
        s.call.k.data = (char *)arena.panels + by;
        expect_all("unaligned", ALIGN, ALIGN, OK);
    }
    set_up_panels();
    s.call.k.data = (char *)arena.panels + 4;
    expect_all("by one element", OK, OK, OK);
    set_up_panels(); /* results where the last panel has no token */
    s.call.out.data = &arena.panels[PANELS - 1][KV_HEADS - 1][DIM - 1][PANEL - 1];
    expect_all("out in the last panel's end", ALIAS, OK, OK);
    set_up_panels();
    s.call.row_sum = &arena.panels[0][0][0][PANEL - 1];
    expect_all("row_sum between tokens", ALIAS, ALIAS, OK);
    set_up_panels();
    s.to.data = arena.panels;
    expect_all("weights over the panels", OK, ALIAS, OK);
}
END_TEST

START_TEST(tail_of_a_later_version)
{
    s.call.struct_size += TAIL;
    for (int i = 0; i < TAIL; i++) {
        s.call_tail[i] = 1;
        expect_all("struct_size long, tail not 0", STRUCT, STRUCT, STRUCT);
        s.call_tail[i] = 0;
    }
    set_up();
    s.to.struct_size += TAIL;
    for (int i = 0; i < TAIL; i++) {
        s.to_tail[i] = 0x80;
        expect_all("to.struct_size long, tail not 0", OK, STRUCT, OK);
        s.to_tail[i] = 0;
    }
}
END_TEST

START_TEST(products_that_overflow)
{
    arena.seqs[1].q_first = INT64_C(1) << 40;
    s.call.q.token_stride = INT64_C(1) << 30;
    expect_all("q rows times stride", OVERFLOW, OVERFLOW, OK);

    set_up();
    arena.seqs[1].kv_first = INT64_C(1) << 47;
    s.call.v.token_stride = INT64_C(1) << 20;
    s.call.k.token_stride = 0;
    expect_all("v rows times stride", OVERFLOW, OK, OK);

    set_up(); /* a triangle of (2^31 - 1)^2 / 2 elements fits in 63 bits, its bytes in 4 heads do not */
    packed();
    arena.seqs[0] = (tril_seq){.q_len = INT32_MAX, .kv_len = INT32_MAX};
    s.call.n_seqs = 1;
    s.call.q.bytes = s.call.k.bytes = INT64_C(1) << 45;
    s.to.bytes = INT64_MAX;
    s.to.head_stride = INT64_MAX - 3;
    s.call.row_max = s.call.row_sum = NULL;
    expect_all("a large packed triangle", EXTENT, OVERFLOW, OK); /* attend: v ends too early */

    set_up(); /* an extent that runs past the address space */
    s.call.k.token_stride = INT64_C(1) << 60;
    s.call.k.bytes = INT64_MAX;
    s.call.k.data = (const void *)(uintptr_t)(UINTPTR_MAX - 4095);
    expect_all("k past the address space", OVERFLOW, OVERFLOW, OK);
}
END_TEST

START_TEST(unaligned_pointers)
{
    for (int by = 1; by < 4; by++) {
        set_up();
        s.call.q.data = (char *)arena.q + by;
        expect_all("q", ALIGN, ALIGN, OK);
        set_up();
        s.call.k.data = (char *)arena.k + by;
        expect_all("k", ALIGN, ALIGN, OK);
        set_up();
        s.call.v.data = (char *)arena.v + by;
        expect_all("v", ALIGN, OK, OK);
        set_up();
        s.call.out.data = (char *)arena.out + by;
        expect_all("out", ALIGN, OK, OK);
        set_up();
        s.to.data = (char *)arena.weights + by;
        expect_all("to.data", OK, ALIGN, OK);
        /* Statistics: through integers, since a float pointer may not be unaligned. */
        set_up();
        uintptr_t p = (uintptr_t)arena.row_max + (uintptr_t)by;
        memcpy(&s.call.row_max, &p, sizeof(p));
        expect_all("row_max", ALIGN, ALIGN, OK);
        set_up();
        p = (uintptr_t)arena.row_sum + (uintptr_t)by;
        memcpy(&s.call.row_sum, &p, sizeof(p));
        expect_all("row_sum", ALIGN, ALIGN, OK);
    }
    set_up(); /* the element's alignment suffices */
    s.call.q.data = (char *)arena.q + 4;
    s.call.k.data = (char *)arena.k + 4;
    s.call.v.data = (char *)arena.v + 4;
    s.call.out.data = (char *)arena.out + 4;
    s.call.row_max += 1;
    s.call.row_sum += 1;
    s.to.data = (char *)arena.weights + 4;
    expect_all("by one element", OK, OK, OK);
    for (int by = 1; by < 64; by += 6) {
        set_up(); /* and the workspace may lie anywhere */
        s.workspace = arena.workspace + by;
        ck_assert_int_eq(tril_workspace(&s.call, 1, &s.workspace_bytes), TRIL_OK);
        expect_all("workspace", OK, OK, OK);
    }
}
END_TEST

START_TEST(workspace_size)
{
    size_t needed = 0;
    ck_assert_int_eq(tril_workspace(&s.call, 1, &needed), TRIL_OK);
    ck_assert_uint_gt(needed, 0);
    ck_assert_uint_le(needed, ROOM);
    s.workspace_bytes = needed;
    expect_all("exactly enough", OK, OK, OK);
    s.workspace_bytes = needed - 1;
    expect_all("1 byte short", WORKSPACE, OK, OK); /* weights need no room for v and o, or as much */
}
END_TEST

START_TEST(workspace_size_of_weights)
{
    size_t needed = 0;
    s.call.v_dim = 0; /* weights only */
    ck_assert_int_eq(tril_workspace(&s.call, 1, &needed), TRIL_OK);
    s.workspace_bytes = needed;
    expect_all("exactly enough", SHAPE, OK, OK);
    s.workspace_bytes = needed - 1;
    expect_all("1 byte short", SHAPE, WORKSPACE, OK);
}
END_TEST

/* The size never shrinks when lengths or the batch grow. */
START_TEST(workspace_grows)
{
    size_t last = 0, bytes = 0;
    s.call.n_seqs = 1;
    for (int64_t n = 0; n < 5000; n = n * 2 + 1) {
        arena.seqs[0] = (tril_seq){.q_len = n, .kv_len = n};
        ck_assert_int_eq(tril_workspace(&s.call, 1, &bytes), TRIL_OK);
        ck_assert_uint_ge(bytes, last);
        last = bytes;
    }
    arena.seqs[1] = (tril_seq){.q_first = 5000, .q_len = 1, .kv_len = 1};
    s.call.n_seqs = 2;
    ck_assert_int_eq(tril_workspace(&s.call, 1, &bytes), TRIL_OK);
    ck_assert_uint_ge(bytes, last);
}
END_TEST

/* Outputs over everything else, whole, by the first and by the last element. */
START_TEST(aliases)
{
    const struct {
        const char *name;
        void *at;
        int64_t bytes;
        int for_weights; /* it takes part in tril_weights() */
    } others[] = {
        {"q", arena.q, sizeof(arena.q), 1},
        {"k", arena.k, sizeof(arena.k), 1},
        {"v", arena.v, sizeof(arena.v), 0},
        {"row_max", arena.row_max, sizeof(arena.row_max), 1},
        {"row_sum", arena.row_sum, sizeof(arena.row_sum), 1},
        {"seqs", arena.seqs, sizeof(arena.seqs), 1},
        {"workspace", arena.workspace, 4096, 1},
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        const int64_t bytes = others[i].bytes;
        const int64_t by[] = {4, 0, bytes - 4, 4 - (int64_t)sizeof(arena.out)};
        for (size_t j = 0; j < sizeof(by) / sizeof(by[0]); j++) {
            char *const at = (char *)others[i].at + by[j];
            if (!(i == 0 && by[j] == 0)) { /* out exactly over q is fine */
                set_up();
                s.call.out.data = at;
                expect_all(others[i].name, ALIAS, OK, OK);
            }
            set_up();
            s.to.data = by[j] < 0 ? (char *)others[i].at + 4 - (int64_t)sizeof(arena.weights) : at;
            expect_all(others[i].name, OK, others[i].for_weights ? ALIAS : OK, OK);
            if (by[j] < 0 || i == 3) continue;
            set_up();
            s.call.row_max = (float *)(void *)at;
            expect_all(others[i].name, ALIAS, others[i].for_weights ? ALIAS : OK, OK);
            if (i == 4) continue;
            set_up();
            s.call.row_sum = (float *)(void *)at;
            expect_all(others[i].name, ALIAS, others[i].for_weights ? ALIAS : OK, OK);
            if (i == 6) continue;
            set_up();
            s.workspace = at; /* it is large enough to reach the statistics as well */
            expect_all(others[i].name, ALIAS, ALIAS, OK);
        }
    }
    set_up();
    s.workspace = arena.out;
    expect_all("workspace over out", ALIAS, ALIAS, OK);
    set_up();
    s.workspace = arena.weights;
    expect_all("workspace over weights", ALIAS, ALIAS, OK);
}
END_TEST

START_TEST(inputs_may_overlap)
{
    s.call.k.data = arena.q;
    s.call.v.data = arena.q;
    expect_all("k and v over q", OK, OK, OK);
    set_up();
    s.call.v.data = arena.k;
    expect_all("v is k", OK, OK, OK);
}
END_TEST

START_TEST(out_exactly_over_q)
{
    float wanted[QUERIES][HEADS][DIM];
    ck_assert_int_eq(tril_attend(&s.call, s.workspace, s.workspace_bytes), TRIL_OK);
    memcpy(wanted, arena.out, sizeof(wanted));
    set_up();
    s.call.out.data = arena.q;
    ck_assert_int_eq(tril_attend(&s.call, s.workspace, s.workspace_bytes), TRIL_OK);
    ck_assert(memcmp(wanted, arena.q, sizeof(wanted)) == 0);

    set_up();
    s.call.out.data = arena.q;
    s.call.out.token_stride = 2 * Q_TOKEN;
    s.call.out.bytes = 2 * QUERIES * Q_TOKEN;
    expect_all("other strides", ALIAS, OK, OK);

    set_up();
    s.call.out.data = arena.q;
    s.call.v_dim = DIM - 1;
    expect_all("shorter rows", ALIAS, OK, OK);
}
END_TEST

/* A fused projection: [token][q heads | k heads | v heads], out over q: rows that take turns. */
enum { FUSED = HEADS + 2 * KV_HEADS };
static float fused[KEYS][FUSED][DIM];

static void set_up_fused(void)
{
    set_up();
    memset(fused, 0xa5, sizeof(fused));
    for (int t = 0; t < KEYS; t++) {
        memcpy(fused[t], arena.q[t % QUERIES], sizeof(arena.q[0]));
        memcpy(fused[t] + HEADS, arena.k[t], sizeof(arena.k[0]));
        memcpy(fused[t] + HEADS + KV_HEADS, arena.v[t], sizeof(arena.v[0]));
    }
    const int64_t stride = sizeof(fused[0]), bytes = sizeof(fused);
    s.call.q = (tril_tensor){.data = fused, .bytes = bytes, .token_stride = stride, .head_stride = ROW};
    s.call.k = s.call.v = s.call.q;
    s.call.k.data = fused[0][HEADS];
    s.call.k.bytes -= HEADS * ROW;
    s.call.v.data = fused[0][HEADS + KV_HEADS];
    s.call.v.bytes -= (HEADS + KV_HEADS) * ROW;
    s.call.out = (tril_out){.data = fused, .bytes = bytes, .token_stride = stride, .head_stride = ROW};
    s.call.n_seqs = 1;
}

/* One query per token, and only the last tokens' queries. */
static const int64_t fused_queries[] = {KEYS, 3, 2, 1};

START_TEST(out_over_q_in_a_fused_buffer)
{
    const int64_t n = fused_queries[_i], first = KEYS - n;
    float apart[KEYS][HEADS][DIM], was[KEYS][FUSED][DIM];
    set_up_fused();
    arena.seqs[0] = (tril_seq){.q_len = n, .kv_len = KEYS};
    s.call.q.data = fused[first];
    s.call.q.bytes -= first * (int64_t)sizeof(fused[0]);
    s.call.out = (tril_out){.data = apart, .bytes = sizeof(apart), .token_stride = Q_TOKEN, .head_stride = ROW};
    ck_assert_int_eq(tril_attend(&s.call, s.workspace, s.workspace_bytes), TRIL_OK);

    memcpy(was, fused, sizeof(was));
    s.call.out =
        (tril_out){.data = fused[first], .bytes = s.call.q.bytes, .token_stride = sizeof(fused[0]), .head_stride = ROW};
    const tril_status status = tril_attend(&s.call, s.workspace, s.workspace_bytes);
    ck_assert_msg(status == TRIL_OK, "%d queries: %s", (int)n, tril_status_text(status));
    for (int64_t i = 0; i < n; i++)
        memcpy(was[first + i], apart[i], sizeof(apart[0]));
    ck_assert_msg(memcmp(was, fused, sizeof(was)) == 0, "other than the query rows changed, or other bits in them");
}
END_TEST

/* Whether rows [tokens][heads] at float `at` of the fused buffer share a float with q, k or v there. */
static bool meets(int64_t at, int64_t tokens, int64_t q_first)
{
    char used[KEYS * FUSED * DIM * 2] = {0};
    const int row = FUSED * DIM;
    for (int64_t t = 0; t < KEYS; t++) {
        if (t >= q_first) memset(used + t * row, 1, HEADS * DIM);
        memset(used + t * row + HEADS * DIM, 1, 2 * KV_HEADS * DIM);
    }
    for (int64_t t = 0; t < tokens; t++) {
        if (memchr(used + at + t * row, 1, HEADS * DIM) != NULL) return true;
    }
    return false;
}

/* Out anywhere else in the fused buffer, against a search float by float. */
START_TEST(out_anywhere_in_a_fused_buffer)
{
    const int64_t n = fused_queries[_i], first = KEYS - n, row = FUSED * DIM;
    int refused = 0;
    set_up_fused();
    arena.seqs[0] = (tril_seq){.q_len = n, .kv_len = KEYS};
    s.call.q.data = fused[first];
    s.call.q.bytes -= first * row * 4;
    for (int64_t at = 0; at + (n - 1) * row + HEADS * DIM <= KEYS * row; at++) {
        const bool over_q = at == first * row;
        const bool refuse = meets(at, n, first) && !over_q;
        s.call.out.data = &fused[0][0][0] + at;
        s.call.out.bytes = ((n - 1) * row + HEADS * DIM) * 4;
        float was[KEYS][FUSED][DIM];
        memcpy(was, fused, sizeof(was));
        const tril_status status = tril_attend(&s.call, s.workspace, s.workspace_bytes);
        ck_assert_msg(status == (refuse ? TRIL_ERR_ALIAS : TRIL_OK), "%d queries, out at float %d: %s", (int)n, (int)at,
                      tril_status_text(status));
        ck_assert(!refuse || memcmp(was, fused, sizeof(was)) == 0);
        memcpy(fused, was, sizeof(was));
        refused += refuse;
    }
    ck_assert_int_gt(refused, 0);
}
END_TEST

START_TEST(packed_form)
{
    packed();
    expect_all("packed", OK, OK, OK);
    s.to.bytes--;
    expect_all("1 byte short", OK, EXTENT, OK);
    s.to.bytes++;
    s.to.head_stride -= 4;
    expect_all("head_stride less than a matrix", OK, STRIDE, OK);
    s.to.head_stride += 3;
    expect_all("head_stride unaligned", OK, ALIGN, OK);
    s.to.head_stride = -PACKED * 4;
    expect_all("head_stride < 0", OK, STRIDE, OK);
    packed();
    s.to.row_stride = COLUMNS * 4;
    expect_all("row_stride", OK, STRIDE, OK);
    packed();
    s.to.data = NULL;
    expect_all("null", OK, E_NULL, OK);
    s.to.data = (char *)arena.weights + 2;
    expect_all("unaligned", OK, ALIGN, OK);
    s.to.data = &arena.k[KEYS - 1][KV_HEADS - 1][DIM - 1];
    expect_all("over k", OK, ALIAS, OK);
}
END_TEST

/* Weights ignore v, out and v_dim, whatever is there. */
START_TEST(weights_ignore_values)
{
    memset(&s.call.v, 0xff, sizeof(s.call.v));
    memset(&s.call.out, 0xff, sizeof(s.call.out));
    s.call.v_dim = -77;
    expect_all("v and out of nonsense", DTYPE, OK, DTYPE);
}
END_TEST

START_TEST(nothing_to_do)
{
    const tril_tensor none = {.data = NULL};
    s.call.q = s.call.k = s.call.v = none;
    s.call.out = (tril_out){.data = NULL};
    s.call.row_max = s.call.row_sum = NULL;
    s.to.data = NULL;
    s.to.bytes = s.to.row_stride = s.to.head_stride = 0;
    s.workspace = NULL;
    s.workspace_bytes = 0;
    arena.seqs[0].q_len = arena.seqs[1].q_len = 0;
    expect_all("no queries", OK, OK, OK);
    s.call.n_seqs = 0;
    expect_all("no sequences", OK, OK, OK);
    s.call.seqs = NULL;
    expect_all("no sequences, null", OK, OK, OK);
    memcpy(&before, &arena, sizeof(arena));
    ck_assert_int_eq(tril_attend(&s.call, arena.workspace, ROOM), TRIL_OK);
    ck_assert_int_eq(tril_weights(&s.call, &s.to, arena.workspace, ROOM), TRIL_OK);
    expect_untouched("nothing to do", "tril_attend, tril_weights");
    s.call.q_heads = 0;
    expect_all("no sequences, but no heads", SHAPE, SHAPE, SHAPE);
}
END_TEST

/* Legal, and at the edge of what a kernel may be given: on every tier. */
static void no_keys_at_all(void)
{
    set_up();
    arena.seqs[0].kv_len = arena.seqs[1].kv_len = 0;
    s.call.k = s.call.v = (tril_tensor){.data = NULL};
    expect_all("no keys, k and v null", OK, OK, OK);
    ck_assert_int_eq(tril_attend(&s.call, s.workspace, s.workspace_bytes), TRIL_OK);
    for (int i = 0; i < QUERIES * HEADS; i++) {
        const float zero = 0.0f;
        for (int d = 0; d < DIM; d++)
            ck_assert(memcmp(&(&arena.out[0][0][0])[i * DIM + d], &zero, sizeof(zero)) == 0);
        ck_assert(isinf((&arena.row_max[0][0])[i]) && (&arena.row_max[0][0])[i] < 0);
        ck_assert(memcmp(&(&arena.row_sum[0][0])[i], &zero, sizeof(zero)) == 0);
    }
    s.to.data = NULL; /* rows of no columns */
    s.to.bytes = s.to.row_stride = s.to.head_stride = 0;
    expect_all("no keys, no weights", OK, OK, OK);
    packed();
    s.to.data = NULL;
    s.to.bytes = s.to.head_stride = 0;
    expect_all("no keys, no packed weights", OK, OK, OK);
}

START_TEST(no_keys)
{
    const char *name;
    int usable;
    for (int i = 0; (name = tril_isa_list(i, &usable)) != NULL; i++) {
        if (!usable) continue;
        ck_assert_int_eq(tril_force_isa(name), TRIL_OK);
        no_keys_at_all();
    }
}
END_TEST

START_TEST(team)
{
    static const struct {
        int thread, threads, status;
    } teams[] = {
        {0, 1, OK},          {1, 1, SHAPE},       {-1, 1, SHAPE},      {0, 0, SHAPE},       {0, -1, SHAPE},
        {-1, -1, SHAPE},     {0, 257, SHAPE},     {256, 257, SHAPE},   {2, 2, SHAPE},       {-1, 2, SHAPE},
        {0, INT_MAX, SHAPE}, {INT_MIN, 1, SHAPE}, {0, 2, OK},          {1, 2, OK},          {255, 256, OK},
        {256, 256, SHAPE},   {0, 256, OK},        {INT_MAX, 2, SHAPE}, {0, INT_MIN, SHAPE},
    };
    float wanted[QUERIES][HEADS][DIM];
    ck_assert_int_eq(tril_attend(&s.call, s.workspace, ROOM), TRIL_OK);
    memcpy(wanted, arena.out, sizeof(wanted));
    for (size_t i = 0; i < sizeof(teams) / sizeof(teams[0]); i++) {
        char name[64];
        size_t bytes = 4711;
        const int thread = teams[i].thread, threads = teams[i].threads, status = teams[i].status;
        snprintf(name, sizeof(name), "thread %d of %d", thread, threads);
        memset(arena.out, 0xa5, sizeof(arena.out));
        memcpy(&before, &arena, sizeof(arena));
        const bool countable = threads >= 1 && threads <= 256;
        expect(name, "tril_workspace", tril_workspace(&s.call, threads, &bytes), countable ? OK : SHAPE);
        ck_assert_msg((bytes == 4711) == !countable, "%s", name);
        char *room = calloc(bytes, 1); /* zeroed once, as the header asks */
        ck_assert_ptr_nonnull(room);
        expect(name, "tril_weights_team", tril_weights_team(&s.call, &s.to, room, bytes, thread, threads), status);
        if (status == OK) {
            expect(name, "tril_attend_team", tril_attend_team(&s.call, room, bytes - 1, thread, threads), WORKSPACE);
            expect(name, "tril_attend_team", tril_attend_team(&s.call, NULL, bytes, thread, threads), WORKSPACE);
        }
        const tril_status got = tril_attend_team(&s.call, room, bytes, thread, threads);
        /* A thread that comes alone does all the work. */
        ck_assert_msg(status != OK || memcmp(wanted, arena.out, sizeof(wanted)) == 0, "%s: wrong output", name);
        expect(name, "tril_attend_team", got, status);
        free(room);
    }
    memcpy(&before, &arena, sizeof(arena));
    expect("null bytes", "tril_workspace", tril_workspace(&s.call, 1, NULL), E_NULL);
}
END_TEST

/* How many bytes `threads` threads need, at least as many as one. */
static size_t room_for(int threads)
{
    size_t bytes = 0, one = 0;
    ck_assert_int_eq(tril_workspace(&s.call, 1, &one), TRIL_OK);
    ck_assert_int_eq(tril_workspace(&s.call, threads, &bytes), TRIL_OK);
    ck_assert_msg(bytes >= one, "%d threads want %zu bytes, one thread wants %zu", threads, bytes, one);
    return bytes;
}

/* For one thread the size never shrinks, whatever grows; teams, which split keys only where there is not enough other
 * work, need no less than one thread. */
START_TEST(workspace_never_shrinks)
{
    static tril_seq seqs[64];
    static const int threads[] = {1, 2, 3, 8, 256};
    s.call.seqs = seqs;
    s.call.kv_heads = 1;
    for (int i = 0; i < 5; i++) {
        const bool alone = threads[i] == 1;
        for (int group = 1; group <= 32; group *= 2) {
            s.call.q_heads = group;
            size_t last, bytes;
            for (int64_t keys = 1; keys <= 10000; keys = keys * 3 + 1) {
                last = 0;
                for (int n = 1; n <= 64; n++, last = bytes) { /* the batch */
                    seqs[n - 1] = (tril_seq){.q_first = n - 1, .q_len = 1, .kv_len = keys};
                    s.call.n_seqs = n;
                    bytes = room_for(threads[i]);
                    ck_assert_msg(!alone || bytes >= last, "%d heads, %d keys: %d sequences want %zu bytes, not %zu",
                                  group, (int)keys, n, bytes, last);
                }
                s.call.n_seqs = 1;
                last = 0;
                for (int64_t n = 1; n <= keys; n += n < 64 ? 1 : n / 7, last = bytes) { /* the queries */
                    seqs[0] = (tril_seq){.q_len = n, .kv_len = keys};
                    bytes = room_for(threads[i]);
                    ck_assert_msg(!alone || bytes >= last, "%d heads, %d keys: %d queries want %zu bytes, not %zu",
                                  group, (int)keys, (int)n, bytes, last);
                }
            }
            last = 0;
            for (int64_t keys = 0; keys < 20000; keys += 97, last = bytes) { /* the keys */
                seqs[0] = (tril_seq){.q_len = 3, .kv_len = keys};
                bytes = room_for(threads[i]);
                ck_assert_msg(!alone || bytes >= last, "%d heads: %d keys want %zu bytes, not %zu", group, (int)keys,
                              bytes, last);
            }
        }
    }
}
END_TEST

/* tril_merge(): three parts of 5 rows, in the arena's inputs. */
static struct merging {
    tril_partial parts[3];
    const tril_partial *from;
    int64_t n, rows, dim;
    uint32_t flags;
    float *out;
    int64_t stride;
    float *row_max, *row_sum;
} m;

static void set_up_merge(void)
{
    set_up();
    float *const at[] = {&arena.q[0][0][0], &arena.k[0][0][0], &arena.v[0][0][0]};
    m = (struct merging){.from = m.parts, .n = 3, .rows = QUERIES, .dim = DIM, .stride = ROW};
    for (int i = 0; i < 3; i++)
        m.parts[i] = (tril_partial){at[i], at[i] + QUERIES * DIM, at[i] + QUERIES * DIM + QUERIES, ROW};
    m.out = &arena.out[0][0][0];
    m.row_max = &arena.row_max[0][0];
    m.row_sum = &arena.row_sum[0][0];
}

#define MERGE(field) offsetof(struct merging, field), sizeof(m.field)
static const struct {
    const char *name;
    size_t offset, size;
    int64_t value; /* of a pointer: bytes to add, or 0: null */
    int status;
} merge_faults[] = {
    {"no fault", MERGE(flags), 0, OK},
    {"to be merged again", MERGE(flags), TRIL_UNNORMALISED, OK},
    {"flag 2", MERGE(flags), TRIL_BLOCKWISE, STRUCT},
    {"flags 3", MERGE(flags), 3, STRUCT},
    {"flag 2^31", MERGE(flags), INT32_MIN, STRUCT},
    {"n 0", MERGE(n), 0, SHAPE},
    {"n -1", MERGE(n), -1, SHAPE},
    {"n min", MERGE(n), INT64_MIN, SHAPE},
    {"n 1", MERGE(n), 1, OK},
    {"rows -1", MERGE(rows), -1, SHAPE},
    {"rows min", MERGE(rows), INT64_MIN, SHAPE},
    {"rows 0", MERGE(rows), 0, OK},
    {"rows 2^60", MERGE(rows), INT64_C(1) << 60, OVERFLOW},
    {"rows max", MERGE(rows), INT64_MAX, OVERFLOW},
    {"dim 0", MERGE(dim), 0, SHAPE},
    {"dim -8", MERGE(dim), -DIM, SHAPE},
    {"dim 1025", MERGE(dim), 1025, SHAPE},
    {"dim max", MERGE(dim), INT64_MAX, SHAPE},
    {"dim of more than a row", MERGE(dim), DIM + 1, STRIDE},
    {"out_row_stride < row", MERGE(stride), ROW - 4, STRIDE},
    {"out_row_stride 0", MERGE(stride), 0, STRIDE},
    {"out_row_stride < 0", MERGE(stride), -ROW, STRIDE},
    {"out_row_stride unaligned", MERGE(stride), ROW + 2, ALIGN},
    {"out_row_stride huge", MERGE(stride), HUGE_STRIDE, OVERFLOW},
    {"row_stride < row", MERGE(parts[2].row_stride), ROW - 4, STRIDE},
    {"row_stride 0", MERGE(parts[0].row_stride), 0, STRIDE},
    {"row_stride < 0", MERGE(parts[1].row_stride), -ROW, STRIDE},
    {"row_stride unaligned", MERGE(parts[2].row_stride), ROW + 1, ALIGN},
    {"row_stride huge", MERGE(parts[2].row_stride), HUGE_STRIDE, OVERFLOW},
    {"parts null", MERGE(from), 0, E_NULL},
    {"out null", MERGE(out), 0, E_NULL},
    {"row_max null", MERGE(row_max), 0, OK},
    {"row_sum null", MERGE(row_sum), 0, OK},
    {"a part's out null", MERGE(parts[2].out), 0, E_NULL},
    {"a part's row_max null", MERGE(parts[2].row_max), 0, E_NULL},
    {"a part's row_sum null", MERGE(parts[2].row_sum), 0, E_NULL},
    {"the first part's row_max null", MERGE(parts[0].row_max), 0, E_NULL},
    {"out unaligned", MERGE(out), 2, ALIGN},
    {"row_max unaligned", MERGE(row_max), 1, ALIGN},
    {"row_sum unaligned", MERGE(row_sum), 3, ALIGN},
    {"a part's out unaligned", MERGE(parts[2].out), 2, ALIGN},
    {"a part's row_max unaligned", MERGE(parts[2].row_max), 2, ALIGN},
    {"a part's row_sum unaligned", MERGE(parts[2].row_sum), 1, ALIGN},
};

static tril_status merge(void)
{
    return tril_merge(m.from, m.n, m.rows, m.dim, m.flags, m.out, m.stride, m.row_max, m.row_sum);
}

START_TEST(one_field_of_a_merge)
{
    set_up_merge();
    const int64_t value = merge_faults[_i].value;
    char *const field = (char *)&m + merge_faults[_i].offset;
    const size_t at = merge_faults[_i].offset, size = merge_faults[_i].size;
    if (size == sizeof(int32_t)) {
        const int32_t narrow = (int32_t)value;
        memcpy(field, &narrow, size);
    } else if (value > 0 && value < 4 && merge_faults[_i].status == ALIGN && at != offsetof(struct merging, stride)) {
        uintptr_t p; /* through an integer, since a float pointer may not be unaligned */
        memcpy(&p, field, sizeof(p));
        p += (uintptr_t)value;
        memcpy(field, &p, sizeof(p));
    } else {
        memcpy(field, &value, size);
    }
    memcpy(&before, &arena, sizeof(arena));
    expect(merge_faults[_i].name, "tril_merge", merge(), merge_faults[_i].status);
}
END_TEST

START_TEST(merge_of_nothing)
{
    set_up_merge();
    m.rows = 0;
    m.out = m.row_max = m.row_sum = NULL;
    m.stride = 0;
    memset(m.parts, 0, sizeof(m.parts));
    memcpy(&before, &arena, sizeof(arena));
    expect("no rows, no memory", "tril_merge", merge(), OK);
    set_up_merge();
    m.rows = 0;
    memcpy(&before, &arena, sizeof(arena));
    ck_assert_int_eq(merge(), TRIL_OK);
    expect_untouched("no rows", "tril_merge");
    set_up_merge(); /* a single row has no neighbour */
    m.rows = 1;
    m.stride = m.parts[0].row_stride = m.parts[1].row_stride = m.parts[2].row_stride = 0;
    memcpy(&before, &arena, sizeof(arena));
    expect("one row", "tril_merge", merge(), OK);
}
END_TEST

/* tril_append(): 3 tokens of the arena's q, as [token][kv_heads][dim], to tokens 2 ... 4 of a cache. */
static struct appending {
    tril_tensor cache, from;
    int64_t at, from_token, tokens;
    int32_t kv_heads, dim;
    int null_cache, null_from;
} a;

static void set_up_append(bool in_panels)
{
    set_up();
    a = (struct appending){.cache = tensor(arena.k, KEYS, KV_HEADS),
                           .from = tensor(arena.q, QUERIES, KV_HEADS),
                           .at = 2,
                           .from_token = 1,
                           .tokens = 3,
                           .kv_heads = KV_HEADS,
                           .dim = DIM};
    a.cache.bytes = 5 * K_TOKEN;
    a.from.bytes = 4 * K_TOKEN;
    if (!in_panels) return;
    a.at = PANEL - 1;
    a.cache = (tril_tensor){.data = arena.panels,
                            .bytes = sizeof(arena.panels),
                            .token_stride = PANEL_TOKEN,
                            .head_stride = PANEL_HEAD,
                            .layout = TRIL_PANELS};
}

static tril_status append(void)
{
    return tril_append(a.null_cache ? NULL : &a.cache, a.at, a.null_from ? NULL : &a.from, a.from_token, a.tokens,
                       a.kv_heads, a.dim);
}

#define APPEND(field) offsetof(struct appending, field), sizeof(a.field)
static const struct {
    const char *name;
    size_t offset, size;
    int64_t value;
    int rows, panels;
} append_faults[] = {
    {"no fault", APPEND(null_from), 0, OK, OK},
    {"cache null", APPEND(null_cache), 1, E_NULL, E_NULL},
    {"from null", APPEND(null_from), 1, E_NULL, E_NULL},
    {"cache.data null", APPEND(cache.data), 0, E_NULL, E_NULL},
    {"from.data null", APPEND(from.data), 0, E_NULL, E_NULL},
    {"at -1", APPEND(at), -1, SHAPE, SHAPE},
    {"at min", APPEND(at), INT64_MIN, SHAPE, SHAPE},
    {"at max", APPEND(at), INT64_MAX, OVERFLOW, OVERFLOW},
    {"at 2^47 + 1", APPEND(at), (INT64_C(1) << 47) + 1, OVERFLOW, OVERFLOW},
    {"at 2^47", APPEND(at), INT64_C(1) << 47, EXTENT, EXTENT},
    {"at 1 too far", APPEND(at), 3, EXTENT, OK},
    {"at the end of the panels", APPEND(at), PANELS *PANEL - 3, EXTENT, OK},
    {"at past the panels", APPEND(at), PANELS *PANEL - 2, EXTENT, EXTENT},
    {"from_token -1", APPEND(from_token), -1, SHAPE, SHAPE},
    {"from_token max", APPEND(from_token), INT64_MAX, OVERFLOW, OVERFLOW},
    {"from_token 1 too far", APPEND(from_token), 2, EXTENT, EXTENT},
    {"tokens -1", APPEND(tokens), -1, SHAPE, SHAPE},
    {"tokens 2^31", APPEND(tokens), INT64_C(1) << 31, SHAPE, SHAPE},
    {"tokens max", APPEND(tokens), INT64_MAX, SHAPE, SHAPE},
    {"tokens 1 too many", APPEND(tokens), 4, EXTENT, EXTENT},
    {"tokens 0", APPEND(tokens), 0, OK, OK},
    {"kv_heads 0", APPEND(kv_heads), 0, SHAPE, SHAPE},
    {"kv_heads -2", APPEND(kv_heads), -2, SHAPE, SHAPE},
    {"kv_heads 65537", APPEND(kv_heads), 65537, SHAPE, SHAPE},
    {"dim 0", APPEND(dim), 0, SHAPE, SHAPE},
    {"dim -8", APPEND(dim), -DIM, SHAPE, SHAPE},
    {"dim 1025", APPEND(dim), 1025, SHAPE, SHAPE},
    {"dim of more than a row", APPEND(dim), DIM + 1, STRIDE, STRIDE},
    {"cache.dtype unknown", APPEND(cache.dtype), TRIL_DTYPE_COUNT, DTYPE, DTYPE},
    {"cache.dtype -1", APPEND(cache.dtype), -1, DTYPE, DTYPE},
    {"cache.layout unknown", APPEND(cache.layout), TRIL_LAYOUT_COUNT, DTYPE, DTYPE},
    {"cache.layout -1", APPEND(cache.layout), -1, DTYPE, DTYPE},
    {"from.dtype F16", APPEND(from.dtype), TRIL_F16, DTYPE, DTYPE},
    {"from.dtype unknown", APPEND(from.dtype), TRIL_DTYPE_COUNT, DTYPE, DTYPE},
    {"from.layout PANELS", APPEND(from.layout), TRIL_PANELS, DTYPE, DTYPE},
    {"from.layout unknown", APPEND(from.layout), TRIL_LAYOUT_COUNT, DTYPE, DTYPE},
    {"cache.dtype F16", APPEND(cache.dtype), TRIL_F16, UNSUPPORTED, UNSUPPORTED},
    {"cache.dtype Q8_0", APPEND(cache.dtype), TRIL_Q8_0, UNSUPPORTED, UNSUPPORTED},
    {"cache.block_stride", APPEND(cache.block_stride), 512, UNSUPPORTED, UNSUPPORTED},
    {"cache.scales", APPEND(cache.scales), 64, UNSUPPORTED, UNSUPPORTED},
    {"cache.scales_bytes", APPEND(cache.scales_bytes), 4, UNSUPPORTED, UNSUPPORTED},
    {"cache.scale_token_stride", APPEND(cache.scale_token_stride), 4, UNSUPPORTED, UNSUPPORTED},
    {"cache.scale_head_stride", APPEND(cache.scale_head_stride), 4, UNSUPPORTED, UNSUPPORTED},
    {"cache.scale_block_stride", APPEND(cache.scale_block_stride), 4, UNSUPPORTED, UNSUPPORTED},
    {"from.block_stride", APPEND(from.block_stride), 512, UNSUPPORTED, UNSUPPORTED},
    {"from.scales", APPEND(from.scales), 64, UNSUPPORTED, UNSUPPORTED},
    {"cache.token_stride < 0", APPEND(cache.token_stride), -K_TOKEN, STRIDE, STRIDE},
    {"cache.token_stride 0", APPEND(cache.token_stride), 0, STRIDE, STRIDE},
    {"cache.head_stride < 0", APPEND(cache.head_stride), -ROW, STRIDE, STRIDE},
    {"cache.head_stride 0", APPEND(cache.head_stride), 0, STRIDE, STRIDE},
    {"cache.head_stride < row", APPEND(cache.head_stride), ROW - 4, STRIDE, STRIDE},
    {"cache tokens run into heads", APPEND(cache.token_stride), K_TOKEN - 4, STRIDE, STRIDE},
    {"cache.token_stride unaligned", APPEND(cache.token_stride), K_TOKEN + 2, ALIGN, ALIGN},
    {"cache.head_stride unaligned", APPEND(cache.head_stride), ROW + 1, ALIGN, ALIGN},
    {"cache.token_stride huge", APPEND(cache.token_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW},
    {"cache.head_stride huge", APPEND(cache.head_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW},
    {"from.token_stride < 0", APPEND(from.token_stride), -K_TOKEN, STRIDE, STRIDE},
    {"from.token_stride < row", APPEND(from.token_stride), ROW - 4, STRIDE, STRIDE},
    {"from.token_stride 0", APPEND(from.token_stride), 0, OK, OK},
    {"from.head_stride 0", APPEND(from.head_stride), 0, OK, OK},
    {"from.token_stride unaligned", APPEND(from.token_stride), K_TOKEN + 2, ALIGN, ALIGN},
    {"from.token_stride huge", APPEND(from.token_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW},
    {"cache.bytes 1 short", APPEND(cache.bytes), 5 * K_TOKEN - 1, EXTENT, EXTENT},
    {"cache.bytes of all panels but 1", APPEND(cache.bytes), PANELS *KV_HEADS *PANEL_HEAD - 1, OK, EXTENT},
    {"cache.bytes -1", APPEND(cache.bytes), -1, EXTENT, EXTENT},
    {"from.bytes 1 short", APPEND(from.bytes), 4 * K_TOKEN - 1, EXTENT, EXTENT},
    {"from.bytes 0", APPEND(from.bytes), 0, EXTENT, EXTENT},
};

START_TEST(one_field_of_an_append)
{
    for (int in_panels = 0; in_panels < 2; in_panels++) {
        set_up_append(in_panels != 0);
        const int64_t value = append_faults[_i].value;
        const int32_t narrow = (int32_t)value;
        memcpy((char *)&a + append_faults[_i].offset,
               append_faults[_i].size == 4 ? (const void *)&narrow : (const void *)&value, append_faults[_i].size);
        const struct appending given = a;
        memcpy(&before, &arena, sizeof(arena));
        expect(append_faults[_i].name, in_panels ? "tril_append, panels" : "tril_append, rows", append(),
               in_panels ? append_faults[_i].panels : append_faults[_i].rows);
        ck_assert(memcmp(&given, &a, sizeof(a)) == 0);
    }
}
END_TEST

START_TEST(append_elsewhere)
{
    for (int in_panels = 0; in_panels < 2; in_panels++) {
        for (int by = 1; by < 4; by++) {
            set_up_append(in_panels != 0);
            a.cache.data = (const char *)a.cache.data + by;
            memcpy(&before, &arena, sizeof(arena));
            expect("cache unaligned", "tril_append", append(), ALIGN);
            set_up_append(in_panels != 0);
            a.from.data = (const char *)a.from.data + by;
            memcpy(&before, &arena, sizeof(arena));
            expect("from unaligned", "tril_append", append(), ALIGN);
        }
        set_up_append(in_panels != 0);
        a.from.data = a.cache.data;
        memcpy(&before, &arena, sizeof(arena));
        expect("from is the cache", "tril_append", append(), ALIAS);
        set_up_append(in_panels != 0);
        a.from.data = (const char *)a.cache.data + (in_panels ? PANELS * KV_HEADS * PANEL_HEAD : 5 * K_TOKEN) - 4;
        memcpy(&before, &arena, sizeof(arena));
        expect("from at the cache's end", "tril_append", append(), ALIAS);
        set_up_append(in_panels != 0);
        a.tokens = 0;
        a.cache.data = a.from.data = NULL;
        a.cache.bytes = a.from.bytes = 0;
        memcpy(&before, &arena, sizeof(arena));
        ck_assert_int_eq(append(), TRIL_OK);
        expect_untouched("no tokens", "tril_append");
    }
}
END_TEST

START_TEST(not_built_yet)
{
    memcpy(&before, &arena, sizeof(arena));
    expect("f32", "tril_convert", tril_convert(arena.out, TRIL_F32, arena.q, TRIL_F32, DIM), UNSUPPORTED);
}
END_TEST

START_TEST(texts)
{
    for (int i = 0; i < TRIL_STATUS_COUNT; i++) {
        const char *text = tril_status_text((tril_status)i);
        ck_assert_ptr_nonnull(text);
        ck_assert_str_ne(text, "");
        ck_assert_str_ne(text, "unknown status");
        ck_assert_ptr_null(strchr(text, '\n'));
        for (int j = 0; j < i; j++)
            ck_assert_str_ne(text, tril_status_text((tril_status)j));
    }
    ck_assert_str_eq(tril_status_text(TRIL_STATUS_COUNT), "unknown status");
    ck_assert_str_eq(tril_status_text((tril_status)-1), "unknown status");
    ck_assert_uint_eq(tril_version(), TRIL_VERSION);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refuse");
    TCase *tcase = tcase_create("refuse");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, NULL);
    tcase_add_loop_test(tcase, one_field, 0, (int)(sizeof(faults) / sizeof(faults[0])));
    tcase_add_loop_test(tcase, one_field_of_a_sequence, 0, (int)(sizeof(seq_faults) / sizeof(seq_faults[0])));
    tcase_add_test(tcase, key_ranges);
    tcase_add_loop_test(tcase, one_field_of_parts, 0, (int)(sizeof(part_faults) / sizeof(part_faults[0])));
    tcase_add_test(tcase, aliases_of_parts);
    tcase_add_loop_test(tcase, one_field_of_panels, 0, (int)(sizeof(panel_faults) / sizeof(panel_faults[0])));
    tcase_add_test(tcase, panels);
    tcase_add_test(tcase, tail_of_a_later_version);
    tcase_add_test(tcase, products_that_overflow);
    tcase_add_test(tcase, unaligned_pointers);
    tcase_add_test(tcase, workspace_size);
    tcase_add_test(tcase, workspace_size_of_weights);
    tcase_add_test(tcase, workspace_grows);
    tcase_add_test(tcase, aliases);
    tcase_add_test(tcase, inputs_may_overlap);
    tcase_add_test(tcase, out_exactly_over_q);
    tcase_add_loop_test(tcase, out_over_q_in_a_fused_buffer, 0, (int)(sizeof(fused_queries) / sizeof(int64_t)));
    tcase_add_loop_test(tcase, out_anywhere_in_a_fused_buffer, 0, (int)(sizeof(fused_queries) / sizeof(int64_t)));
    tcase_add_test(tcase, packed_form);
    tcase_add_test(tcase, weights_ignore_values);
    tcase_add_test(tcase, nothing_to_do);
    tcase_add_test(tcase, no_keys);
    tcase_add_test(tcase, team);
    tcase_add_test(tcase, workspace_never_shrinks);
    tcase_add_loop_test(tcase, one_field_of_a_merge, 0, (int)(sizeof(merge_faults) / sizeof(merge_faults[0])));
    tcase_add_test(tcase, merge_of_nothing);
    tcase_add_loop_test(tcase, one_field_of_an_append, 0, (int)(sizeof(append_faults) / sizeof(append_faults[0])));
    tcase_add_test(tcase, append_elsewhere);
    tcase_add_test(tcase, not_built_yet);
    tcase_add_test(tcase, texts);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
