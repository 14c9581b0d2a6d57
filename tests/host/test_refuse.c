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
    {"flag 2", CALL(flags), 2, STRUCT, STRUCT, STRUCT},
    {"flags 3", CALL(flags), 3, STRUCT, STRUCT, STRUCT},
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

    {"unnormalised", CALL(flags), TRIL_UNNORMALISED, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
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
    {"k.layout PANELS", CALL(k.layout), TRIL_PANELS, UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
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
    int status, sizing; /* attend and weights alike; tril_workspace() */
} seq_faults[] = {
    {"q_first -1", offsetof(tril_seq, q_first), -1, SHAPE, SHAPE},
    {"q_len -1", offsetof(tril_seq, q_len), -1, SHAPE, SHAPE},
    {"q_len 2^31", offsetof(tril_seq, q_len), INT64_C(1) << 31, SHAPE, SHAPE},
    {"kv_len -1", offsetof(tril_seq, kv_len), -1, SHAPE, SHAPE},
    {"kv_len 2^31", offsetof(tril_seq, kv_len), INT64_C(1) << 31, SHAPE, SHAPE},
    {"kv_len max", offsetof(tril_seq, kv_len), INT64_MAX, SHAPE, SHAPE},
    {"kv_first -1", offsetof(tril_seq, kv_first), -1, SHAPE, SHAPE},
    {"q_first max", offsetof(tril_seq, q_first), INT64_MAX, OVERFLOW, OVERFLOW},
    {"kv_first max", offsetof(tril_seq, kv_first), INT64_MAX, OVERFLOW, OVERFLOW},
    {"q_first 1 too far", offsetof(tril_seq, q_first), 4, EXTENT, OK},
    {"q_len 1 too long", offsetof(tril_seq, q_len), 3, EXTENT, OK},
    {"q_len 2^31 - 1", offsetof(tril_seq, q_len), INT32_MAX, EXTENT, OK},
    {"kv_len 1 too long", offsetof(tril_seq, kv_len), 3, EXTENT, OK},
    {"kv_len 2^31 - 1", offsetof(tril_seq, kv_len), INT32_MAX, EXTENT, OK},
    {"kv_first 1 too far", offsetof(tril_seq, kv_first), 6, EXTENT, OK},
    {"rows of two sequences overlap", offsetof(tril_seq, q_first), 2, SHAPE, SHAPE},
    {"sequences unsorted", offsetof(tril_seq, q_first), 0, SHAPE, SHAPE},
    {"two sequences share keys", offsetof(tril_seq, kv_first), 0, OK, OK},
    {"kv_len < q_len", offsetof(tril_seq, kv_len), 1, OK, OK},
    {"kv_len 0", offsetof(tril_seq, kv_len), 0, OK, OK},
    {"q_len 0", offsetof(tril_seq, q_len), 0, OK, OK},
    {"blocks", offsetof(tril_seq, blocks), 64, UNSUPPORTED, UNSUPPORTED},
    {"prefix", offsetof(tril_seq, prefix), 1, UNSUPPORTED, UNSUPPORTED},
    {"key_begin", offsetof(tril_seq, key_begin), 256, UNSUPPORTED, UNSUPPORTED},
    {"key_end", offsetof(tril_seq, key_end), 256, UNSUPPORTED, UNSUPPORTED},
};

START_TEST(one_field_of_a_sequence)
{
    memcpy((char *)&arena.seqs[1] + seq_faults[_i].offset, &seq_faults[_i].value, sizeof(int64_t));
    expect_all(seq_faults[_i].name, seq_faults[_i].status, seq_faults[_i].status, seq_faults[_i].sizing);
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
        {0, 1, OK},          {1, 1, SHAPE},         {-1, 1, SHAPE},      {0, 0, SHAPE},       {0, -1, SHAPE},
        {-1, -1, SHAPE},     {0, 257, SHAPE},       {256, 257, SHAPE},   {2, 2, SHAPE},       {-1, 2, SHAPE},
        {0, INT_MAX, SHAPE}, {INT_MIN, 1, SHAPE},   {0, 2, UNSUPPORTED}, {1, 2, UNSUPPORTED}, {255, 256, UNSUPPORTED},
        {256, 256, SHAPE},   {0, 256, UNSUPPORTED}, {INT_MAX, 2, SHAPE}, {0, INT_MIN, SHAPE},
    };
    memcpy(&before, &arena, sizeof(arena));
    for (size_t i = 0; i < sizeof(teams) / sizeof(teams[0]); i++) {
        char name[64];
        size_t bytes = 4711;
        const int thread = teams[i].thread, threads = teams[i].threads, status = teams[i].status;
        snprintf(name, sizeof(name), "thread %d of %d", thread, threads);
        expect(name, "tril_attend_team", tril_attend_team(&s.call, s.workspace, ROOM, thread, threads), status);
        expect(name, "tril_weights_team", tril_weights_team(&s.call, &s.to, s.workspace, ROOM, thread, threads),
               status);
        if (thread != 0) continue;
        expect(name, "tril_workspace", tril_workspace(&s.call, threads, &bytes), status);
        ck_assert_msg((bytes == 4711) == (status != OK), "%s", name);
    }
    expect("null bytes", "tril_workspace", tril_workspace(&s.call, 1, NULL), E_NULL);
}
END_TEST

START_TEST(not_built_yet)
{
    memcpy(&before, &arena, sizeof(arena));
    const tril_partial parts[] = {{&arena.q[0][0][0], &arena.k[0][0][0], &arena.v[0][0][0], ROW}};
    expect("one part", "tril_merge",
           tril_merge(parts, 1, 1, DIM, &arena.out[0][0][0], ROW, &arena.row_max[0][0], &arena.row_sum[0][0]),
           UNSUPPORTED);
    expect("one token", "tril_append", tril_append(&s.call.out, TRIL_ROWS, 0, &arena.k[0][0][0], 1, KV_HEADS, DIM),
           UNSUPPORTED);
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
    tcase_add_test(tcase, not_built_yet);
    tcase_add_test(tcase, texts);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
