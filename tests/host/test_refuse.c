/* Every refusal: a call that is sound but for one fault gets exactly the status that the header promises, from every
 * public call that can see the fault, and not a byte of any output, statistic, input or workspace changes (of the
 * workspace it may, where a block table's entry is the fault). Beside each refusal stands what is just still allowed.
 */
#include <check.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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
    BLOCK_TABLE = TRIL_ERR_BLOCK_TABLE,
    UNSUPPORTED = TRIL_ERR_UNSUPPORTED,
};

/* Two sequences: 3 queries at the end of 5 keys, a prompt of 2. */
enum { HEADS = 4, KV_HEADS = 2, DIM = 8, QUERIES = 5, KEYS = 7, COLUMNS = 5, PACKED = 3 + 4 + 5 + 1 + 2, TAIL = 16 };
enum { PARTS = 3, PANEL = 16, PANELS = 2 };
enum { ROW = DIM * 4, Q_TOKEN = HEADS * ROW, K_TOKEN = KV_HEADS * ROW, GAP = 1024, ROOM = 1 << 19 };
/* Stored types: heads of whole blocks. Pages: the first sequence has 3 of them, the last in part, the second 2. */
enum { WIDE = 32, PAGE = 16, PAGES = 6, TABLE = 24, LONG = 40, SHORT = 20 };
enum { PAGE_BYTES = PAGE * K_TOKEN };
enum { TREE_ROWS = 65, TREE_WORDS = 2 };
enum { LINE = 64 }; /* what the workspace's beginning is rounded up to */

/* Everything that a call may touch, in one piece, so that one comparison sees every write. */
struct arena {
    char gap_first[GAP]; /* tests write before q as well */
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
    float wide_q[QUERIES][HEADS][WIDE]; /* room for any type */
    char gap_wide_q[GAP];
    float wide_k[KEYS][KV_HEADS][WIDE];
    char gap_wide_k[GAP];
    float wide_v[KEYS][KV_HEADS][WIDE];
    char gap_wide_v[GAP];
    float wide_out[QUERIES][HEADS][WIDE];
    char gap_wide_out[GAP];
    float wide_panels[PANELS][KV_HEADS][WIDE][PANEL];
    char gap_wide_panels[GAP];
    float k_scales[PAGES][PAGE][KV_HEADS];
    char gap_k_scales[GAP];
    float v_scales[PAGES][PAGE][KV_HEADS];
    char gap_v_scales[GAP];
    float pages_k[PAGES][PAGE][KV_HEADS][DIM];
    char gap_pages_k[GAP];
    float pages_v[PAGES][PAGE][KV_HEADS][DIM];
    char gap_pages_v[GAP];
    float long_weights[HEADS][QUERIES][LONG];
    char gap_long_weights[GAP];
    int32_t tables[2][TABLE];
    char gap_tables[GAP];
    float logits[HEADS];
    char gap_logits[GAP];
    float slopes[HEADS];
    char gap_slopes[GAP];
    uint64_t tree[TREE_ROWS][TREE_WORDS];
    char gap_tree[GAP];
    float sums[HEADS][2][COLUMNS]; /* of each sequence's columns */
    char gap_sums[GAP];
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
    memset(arena.workspace, 0, 4 * LINE); /* a team's would be zeroed */
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
    /* A table is copied into the workspace while it is checked. */
    if (is == TRIL_ERR_BLOCK_TABLE) memcpy(arena.workspace, before.workspace, sizeof(arena.workspace));
    if (is != TRIL_OK)
        expect_untouched(name, function);
    else
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
    {"math BF16", CALL(math), TRIL_MATH_BF16, OK, OK, OK},
    {"q.dtype F16", CALL(q.dtype), TRIL_F16, OK, OK, OK},
    {"q.dtype BF16", CALL(q.dtype), TRIL_BF16, OK, OK, OK},
    {"k.dtype F16", CALL(k.dtype), TRIL_F16, OK, OK, OK},
    {"k.dtype I8", CALL(k.dtype), TRIL_I8, E_NULL, E_NULL, OK},
    {"k.dtype Q8_0", CALL(k.dtype), TRIL_Q8_0, SHAPE, SHAPE, SHAPE},
    {"k.dtype Q4_0", CALL(k.dtype), TRIL_Q4_0, SHAPE, SHAPE, SHAPE},
    {"v.dtype BF16", CALL(v.dtype), TRIL_BF16, OK, OK, OK},
    {"v.dtype Q4_0", CALL(v.dtype), TRIL_Q4_0, SHAPE, OK, SHAPE},
    {"out.dtype F16", CALL(out.dtype), TRIL_F16, OK, OK, OK},
    {"out.dtype BF16", CALL(out.dtype), TRIL_BF16, OK, OK, OK},
    {"to.dtype F16", TO(dtype), TRIL_F16, OK, OK, OK},
    {"to.dtype BF16", TO(dtype), TRIL_BF16, OK, OK, OK},
    {"to.form COLUMN_SUMS", TO(form), TRIL_WEIGHTS_COLUMN_SUMS, OK, OK, OK},
    {"last_rows of another form", TO(last_rows), 1, OK, STRUCT, OK},
    {"q.block_stride", CALL(q.block_stride), 512, STRUCT, STRUCT, STRUCT},
    {"k.block_stride", CALL(k.block_stride), 512, STRUCT, STRUCT, STRUCT},
    {"v.block_stride", CALL(v.block_stride), 512, STRUCT, OK, STRUCT},
    {"block_tokens 16, but kv_first 5", CALL(block_tokens), 16, SHAPE, SHAPE, SHAPE},
    {"n_blocks without pages", CALL(n_blocks), 1, SHAPE, SHAPE, SHAPE},
    {"softcap", CALL(softcap), 0x41f00000, OK, OK, OK},
    {"window", CALL(window), 16, OK, OK, OK},
    {"sink_tokens without a window", CALL(sink_tokens), 4, OK, OK, OK},
    {"tree_row_stride without a tree", CALL(tree_row_stride), 8, STRUCT, STRUCT, STRUCT},
    {"tree_bytes without a tree", CALL(tree_bytes), 8, STRUCT, STRUCT, STRUCT},

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

static void expect_fault(const struct fault *fault)
{
    const int32_t narrow = (int32_t)fault->value;
    ck_assert_uint_eq(fault->size, fault->size == 4 ? sizeof(narrow) : sizeof(fault->value));
    memcpy((char *)&s + fault->offset, fault->size == 4 ? (const void *)&narrow : (const void *)&fault->value,
           fault->size);
    expect_all(fault->name, fault->attend, fault->weights, fault->sizing);
}

START_TEST(one_field)
{
    expect_fault(&faults[_i]);
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
    {"blocks without pages", offsetof(tril_seq, blocks), 64, SHAPE, SHAPE, SHAPE},
    {"prefix 1", offsetof(tril_seq, prefix), 1, OK, OK, OK},
    {"prefix of all keys", offsetof(tril_seq, prefix), 2, OK, OK, OK},
    {"prefix 1 too long", offsetof(tril_seq, prefix), 3, SHAPE, SHAPE, SHAPE},
    {"prefix -1", offsetof(tril_seq, prefix), -1, SHAPE, SHAPE, SHAPE},
    {"prefix min", offsetof(tril_seq, prefix), INT64_MIN, SHAPE, SHAPE, SHAPE},
    {"prefix max", offsetof(tril_seq, prefix), INT64_MAX, SHAPE, SHAPE, SHAPE},
    {"prefix 2^32 + 1", offsetof(tril_seq, prefix), (INT64_C(1) << 32) + 1, SHAPE, SHAPE, SHAPE},
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
    expect_fault(&part_faults[_i]);
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
    expect_fault(&panel_faults[_i]);
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

/* Stored types, by what the header says of them: bytes of a row of WIDE elements, and of what aligns it. */
static const struct type {
    const char *name;
    int64_t unit, row;
} types[] = {
    [TRIL_F32] = {"F32", 4, WIDE * 4}, [TRIL_F16] = {"F16", 2, WIDE * 2}, [TRIL_BF16] = {"BF16", 2, WIDE * 2},
    [TRIL_I8] = {"I8", 1, WIDE},       [TRIL_Q8_0] = {"Q8_0", 2, 34},     [TRIL_Q4_0] = {"Q4_0", 2, 18},
};
_Static_assert(sizeof(types) / sizeof(types[0]) == TRIL_DTYPE_COUNT, "a line for every type");

/* A call's operands of tokens; the fields of a tril_out lie where those of a tril_tensor do. */
static const struct operand {
    const char *name;
    size_t offset; /* in struct setup */
    int64_t tokens, heads;
    bool stored; /* in any type, and with strides of 0 */
    bool value;  /* which tril_weights() ignores */
} operands[] = {
    {"q", offsetof(struct setup, call.q), QUERIES, HEADS, false, false},
    {"k", offsetof(struct setup, call.k), KEYS, KV_HEADS, true, false},
    {"v", offsetof(struct setup, call.v), KEYS, KV_HEADS, true, true},
    {"out", offsetof(struct setup, call.out), QUERIES, HEADS, false, true},
};
enum { N_OPERANDS = sizeof(operands) / sizeof(operands[0]), N_CASES = N_OPERANDS * TRIL_DTYPE_COUNT };
_Static_assert(offsetof(tril_out, data) == offsetof(tril_tensor, data) &&
                   offsetof(tril_out, bytes) == offsetof(tril_tensor, bytes) &&
                   offsetof(tril_out, token_stride) == offsetof(tril_tensor, token_stride) &&
                   offsetof(tril_out, head_stride) == offsetof(tril_tensor, head_stride) &&
                   offsetof(tril_out, dtype) == offsetof(tril_tensor, dtype),
               "operands are set alike");

/* Faults of one field of a tensor. */
#define TENSOR(field) offsetof(tril_tensor, field), sizeof(((tril_tensor *)NULL)->field)
struct tensor_fault {
    const char *name;
    size_t offset, size;
    int64_t value;
    int status;
};

static void put(void *tensor, const struct tensor_fault *fault)
{
    const int32_t narrow = (int32_t)fault->value;
    memcpy((char *)tensor + fault->offset, fault->size == 4 ? (const void *)&narrow : (const void *)&fault->value,
           fault->size);
}

/* The fault in this operand of the call that is set up; what refuses a type or a field, refuses it in sizing as well.
 */
static void expect_operand(const struct operand *x, const char *type, const struct tensor_fault *fault)
{
    char name[96];
    const int status = fault->status, early = status == DTYPE || status == STRUCT || status == SHAPE ? status : OK;
    snprintf(name, sizeof(name), "%s.%s of %s", x->name, fault->name, type);
    put((char *)&s + x->offset, fault);
    expect_all(name, status, x->value ? OK : status, early);
}

static tril_tensor stored(const void *data, int type, int64_t tokens, int64_t heads, int64_t row)
{
    return (tril_tensor){.data = data,
                         .bytes = tokens * heads * row,
                         .token_stride = heads * row,
                         .head_stride = row,
                         .dtype = (tril_dtype)type};
}

/* A scale for each token and head. */
static void add_scales(tril_tensor *x, float *scales, int64_t tokens)
{
    if (x->dtype != TRIL_I8) return;
    for (int64_t i = 0; i < tokens * KV_HEADS; i++)
        scales[i] = 1.0f / 64;
    x->scales = scales;
    x->scales_bytes = tokens * KV_HEADS * 4;
    x->scale_token_stride = KV_HEADS * 4;
    x->scale_head_stride = 4;
}

/* Each operand in a type of its own. */
static void set_up_stored(int q, int k, int v, int out)
{
    set_up();
    s.call.qk_dim = s.call.v_dim = WIDE;
    s.call.q = stored(arena.wide_q, q, QUERIES, HEADS, types[q].row);
    s.call.k = stored(arena.wide_k, k, KEYS, KV_HEADS, types[k].row);
    s.call.v = stored(arena.wide_v, v, KEYS, KV_HEADS, types[v].row);
    add_scales(&s.call.k, &arena.k_scales[0][0][0], KEYS);
    add_scales(&s.call.v, &arena.v_scales[0][0][0], KEYS);
    s.call.out = (tril_out){.data = arena.wide_out,
                            .bytes = QUERIES * HEADS * types[out].row,
                            .token_stride = HEADS * types[out].row,
                            .head_stride = types[out].row,
                            .dtype = (tril_dtype)out};
}

/* The operand in this type, the others in F32. */
static void set_up_operand(int operand, int type)
{
    set_up_stored(operand == 0 ? type : TRIL_F32, operand == 1 ? type : TRIL_F32, operand == 2 ? type : TRIL_F32,
                  operand == 3 ? type : TRIL_F32);
}

START_TEST(one_field_of_a_stored_operand)
{
    const int operand = _i / TRIL_DTYPE_COUNT, type = _i % TRIL_DTYPE_COUNT;
    const struct operand *x = &operands[operand];
    const int64_t unit = types[type].unit, row = types[type].row, token = x->heads * row, bytes = x->tokens * token;
    const int zero = x->stored ? OK : STRIDE, odd = unit == 1 ? STRIDE : ALIGN;
    const bool allowed = x->stored || type <= TRIL_BF16;
    const struct tensor_fault type_faults[] = {
        {"nothing", TENSOR(bytes), bytes, OK},
        {"data null", TENSOR(data), 0, E_NULL},
        {"bytes 1 short", TENSOR(bytes), bytes - 1, EXTENT},
        {"bytes 0", TENSOR(bytes), 0, EXTENT},
        {"bytes -1", TENSOR(bytes), -1, EXTENT},
        {"token_stride < 0", TENSOR(token_stride), -token, STRIDE},
        {"token_stride 0", TENSOR(token_stride), 0, zero},
        {"token_stride < token", TENSOR(token_stride), token - unit, STRIDE},
        {"token_stride unaligned", TENSOR(token_stride), token - 1, odd},
        {"token_stride past the extent", TENSOR(token_stride), token + unit, EXTENT},
        {"token_stride huge", TENSOR(token_stride), HUGE_STRIDE, OVERFLOW},
        {"head_stride < 0", TENSOR(head_stride), -row, STRIDE},
        {"head_stride 0", TENSOR(head_stride), 0, zero},
        {"head_stride < row", TENSOR(head_stride), row - unit, STRIDE},
        {"head_stride unaligned", TENSOR(head_stride), row - 1, odd},
        {"head_stride > row", TENSOR(head_stride), row + unit, STRIDE},
        {"head_stride huge", TENSOR(head_stride), HUGE_STRIDE, OVERFLOW},
    };
    for (size_t i = 0; i < sizeof(type_faults) / sizeof(type_faults[0]); i++) {
        struct tensor_fault fault = type_faults[i];
        if (!allowed) fault.status = DTYPE;
        set_up_operand(operand, type);
        expect_operand(x, types[type].name, &fault);
    }
    for (int by = 0; by < 5 && allowed; by++) {
        set_up_operand(operand, type);
        char *at;
        memcpy(&at, (char *)&s + x->offset, sizeof(at));
        expect_operand(
            x, types[type].name,
            &(struct tensor_fault){"data", TENSOR(data), (int64_t)(intptr_t)(at + by), by % unit == 0 ? OK : ALIGN});
    }
}
END_TEST

/* Where the element is a byte, so are strides. */
START_TEST(bytes_at_any_stride)
{
    set_up_stored(TRIL_F32, TRIL_I8, TRIL_I8, TRIL_F32);
    s.call.k.token_stride = s.call.v.token_stride = KV_HEADS * WIDE + 3;
    s.call.k.head_stride = s.call.v.head_stride = WIDE + 1;
    s.call.k.bytes = s.call.v.bytes = (KEYS - 1) * (KV_HEADS * WIDE + 3) + (KV_HEADS - 1) * (WIDE + 1) + WIDE;
    expect_all("rows of 33 bytes", OK, OK, OK);
    s.call.v.bytes--;
    expect_all("v of rows of 33 bytes, 1 short", EXTENT, OK, OK);
    s.call.k.bytes--;
    expect_all("rows of 33 bytes, 1 short", EXTENT, EXTENT, OK);
}
END_TEST

START_TEST(every_pair_of_types)
{
    for (int k = 0; k < TRIL_DTYPE_COUNT; k++) {
        for (int v = 0; v < TRIL_DTYPE_COUNT; v++) {
            set_up_stored((k + v) % 3, k, v, v % 3);
            expect_all("a pair of types", OK, OK, OK);
        }
    }
}
END_TEST

/* Blocks of 32 elements fill a head. */
START_TEST(heads_of_whole_blocks)
{
    static const int dims[] = {1, 16, 31, 33, 48, 63, 1008, 1023};
    static const int block_types[] = {TRIL_Q8_0, TRIL_Q4_0};
    for (int i = 0; i < 2; i++) {
        const int type = block_types[i];
        for (size_t j = 0; j < sizeof(dims) / sizeof(dims[0]); j++) {
            set_up_stored(TRIL_F32, type, TRIL_F32, TRIL_F32);
            s.call.qk_dim = dims[j];
            expect_all("k of part of a block", SHAPE, SHAPE, SHAPE);
            set_up_stored(TRIL_F32, TRIL_F32, type, TRIL_F32);
            s.call.v_dim = dims[j];
            expect_all("v of part of a block", SHAPE, OK, SHAPE);
        }
        set_up_stored(TRIL_F32, type, type, TRIL_F32);
        s.call.qk_dim = 1024;
        expect_all("k of 32 blocks, too near each other", STRIDE, STRIDE, OK);
        set_up_stored(TRIL_F32, type, type, TRIL_F32);
        s.call.v_dim = 64;
        expect_all("v of 2 blocks, too near each other", STRIDE, OK, OK);
        set_up_stored(TRIL_F32, TRIL_F32, type, TRIL_F32);
        s.call.v_dim = 0;
        expect_all("weights alone", SHAPE, OK, OK);
        set_up_stored(TRIL_F32, type, TRIL_F32, TRIL_F32);
        s.call.k.layout = TRIL_PANELS;
        expect_all("blocks in panels", DTYPE, DTYPE, DTYPE);
    }
}
END_TEST

START_TEST(panels_of_stored_types)
{
    for (int type = TRIL_F32; type <= TRIL_I8; type++) {
        const struct operand *k = &operands[1];
        const int64_t unit = types[type].unit, row = types[type].row, token = KV_HEADS * row, head = row * PANEL;
        const int64_t bytes = PANELS * PANEL * token;
        const int odd = unit == 1 ? STRIDE : ALIGN;
        const struct tensor_fault type_faults[] = {
            {"nothing, panels", TENSOR(bytes), bytes, OK},
            {"bytes 1 short, panels", TENSOR(bytes), bytes - 1, EXTENT},
            {"bytes to the last token", TENSOR(bytes), bytes - 14 * unit, EXTENT},
            {"token_stride < token, panels", TENSOR(token_stride), token - unit, STRIDE},
            {"token_stride unaligned, panels", TENSOR(token_stride), token - 1, odd},
            {"token_stride past the extent, panels", TENSOR(token_stride), token + unit, EXTENT},
            {"token_stride 0, panels", TENSOR(token_stride), 0, OK},
            {"token_stride huge, panels", TENSOR(token_stride), HUGE_STRIDE, OVERFLOW},
            {"head_stride < panel", TENSOR(head_stride), head - unit, STRIDE},
            {"head_stride unaligned, panels", TENSOR(head_stride), head - 1, odd},
            {"head_stride of a row, panels", TENSOR(head_stride), row, STRIDE},
            {"data at 1, panels", TENSOR(data), (int64_t)(intptr_t)arena.wide_panels + 1, unit == 1 ? OK : ALIGN},
        };
        for (size_t i = 0; i < sizeof(type_faults) / sizeof(type_faults[0]); i++) {
            set_up_stored(TRIL_F32, type, TRIL_F32, TRIL_F32);
            arena.seqs[1].kv_first = PANEL;
            s.call.v.token_stride = 0;
            s.call.k = stored(arena.wide_panels, type, PANELS * PANEL, KV_HEADS, row);
            s.call.k.head_stride = head;
            s.call.k.layout = TRIL_PANELS;
            add_scales(&s.call.k, &arena.k_scales[0][0][0], PANEL + 2);
            expect_operand(k, types[type].name, &type_faults[i]);
        }
    }
    s.call.k.scales_bytes--; /* of I8, the last one: scales are of tokens, not of panels */
    expect_all("panels, scales 1 byte short", EXTENT, EXTENT, OK);
}
END_TEST

/* What is merged is F32. */
START_TEST(halves_are_whole_results)
{
    for (int type = TRIL_F16; type <= TRIL_BF16; type++) {
        set_up_stored(type, TRIL_F32, TRIL_F32, type);
        s.call.flags = TRIL_UNNORMALISED;
        expect_all("unnormalised", DTYPE, UNSUPPORTED, DTYPE);
        set_up_stored(type, TRIL_F32, TRIL_F32, TRIL_F32);
        s.call.flags = TRIL_UNNORMALISED;
        expect_all("unnormalised F32", OK, UNSUPPORTED, OK);
        set_up_parts();
        s.call.out.dtype = (tril_dtype)type;
        expect_all("blockwise", DTYPE, UNSUPPORTED, DTYPE);

        set_up_stored(type, TRIL_F32, TRIL_F32, type);
        s.call.out.data = arena.wide_q;
        expect_all("out over q", OK, OK, OK);
        s.call.out.dtype = type == TRIL_F16 ? TRIL_BF16 : TRIL_F16;
        expect_all("out over q of another type", ALIAS, OK, OK);
        s.call.out.dtype = (tril_dtype)type;
        s.call.out.data = (char *)arena.wide_q + 2;
        expect_all("out an element from q", ALIAS, OK, OK);
        set_up_stored(type, TRIL_F32, TRIL_F32, TRIL_F32);
        s.call.out.data = arena.wide_q;
        expect_all("F32 over halves", ALIAS, OK, OK);
        set_up_stored(TRIL_F32, TRIL_F32, TRIL_F32, type);
        s.call.out.data = arena.wide_q;
        expect_all("halves over F32", ALIAS, OK, OK);
    }
}
END_TEST

/* Scales and block strides of q, k and v where there is no use for them. */
START_TEST(fields_of_other_types)
{
    static const struct tensor_fault unused[] = {
        {"block_stride", TENSOR(block_stride), 512, STRUCT},
        {"block_stride < 0", TENSOR(block_stride), -512, STRUCT},
        {"scale_block_stride", TENSOR(scale_block_stride), 4, STRUCT},
        {"scale_block_stride < 0", TENSOR(scale_block_stride), -4, STRUCT},
        {"scales", TENSOR(scales), 64, STRUCT},
        {"scales_bytes", TENSOR(scales_bytes), 4, STRUCT},
        {"scales_bytes -1", TENSOR(scales_bytes), -1, STRUCT},
        {"scale_token_stride", TENSOR(scale_token_stride), 4, STRUCT},
        {"scale_head_stride", TENSOR(scale_head_stride), 1, STRUCT},
    };
    const int operand = _i / TRIL_DTYPE_COUNT, type = _i % TRIL_DTYPE_COUNT;
    const struct operand *x = &operands[operand];
    const bool allowed = x->stored || type <= TRIL_BF16;
    for (size_t i = 0; i < sizeof(unused) / sizeof(unused[0]) && allowed; i++) {
        if (type == TRIL_I8 && i >= 4) continue;
        set_up_operand(operand, type);
        expect_operand(x, types[type].name, &unused[i]);
    }
}
END_TEST

/* The scales of I8, of K and of V. */
static const struct tensor_fault scale_faults[] = {
    {"scales null", TENSOR(scales), 0, E_NULL},
    {"scales_bytes 1 short", TENSOR(scales_bytes), KEYS *KV_HEADS * 4 - 1, EXTENT},
    {"scales_bytes 0", TENSOR(scales_bytes), 0, EXTENT},
    {"scales_bytes -1", TENSOR(scales_bytes), -1, EXTENT},
    {"scale_token_stride < 0", TENSOR(scale_token_stride), -KV_HEADS * 4, STRIDE},
    {"scale_token_stride 0", TENSOR(scale_token_stride), 0, OK},
    {"scale_token_stride unaligned", TENSOR(scale_token_stride), KV_HEADS * 4 + 2, ALIGN},
    {"scale_token_stride 1", TENSOR(scale_token_stride), 1, ALIGN},
    {"scale_token_stride past the extent", TENSOR(scale_token_stride), KV_HEADS * 4 + 4, EXTENT},
    {"scale_token_stride of a head", TENSOR(scale_token_stride), 4, STRIDE},
    {"scale_token_stride huge", TENSOR(scale_token_stride), HUGE_STRIDE, OVERFLOW},
    {"scale_head_stride < 0", TENSOR(scale_head_stride), -4, STRIDE},
    {"scale_head_stride 0", TENSOR(scale_head_stride), 0, OK},
    {"scale_head_stride unaligned", TENSOR(scale_head_stride), 6, ALIGN},
    {"scale_head_stride 3", TENSOR(scale_head_stride), 3, ALIGN},
    {"scale_head_stride of a token", TENSOR(scale_head_stride), KV_HEADS * 4, STRIDE},
    {"scale_head_stride huge", TENSOR(scale_head_stride), HUGE_STRIDE, OVERFLOW},
};

START_TEST(one_field_of_scales)
{
    for (int operand = 1; operand < 3; operand++) {
        set_up_operand(operand, TRIL_I8);
        expect_operand(&operands[operand], "I8", &scale_faults[_i]);
    }
}
END_TEST

START_TEST(scales)
{
    for (int operand = 1; operand < 3; operand++) {
        const struct operand *x = &operands[operand];
        for (int by = 0; by < 5; by++) {
            set_up_operand(operand, TRIL_I8);
            expect_operand(x, "I8",
                           &(struct tensor_fault){"scales at", TENSOR(scales), (int64_t)(intptr_t)arena.k_scales + by,
                                                  by % 4 == 0 ? OK : ALIGN});
        }
    }
    set_up_stored(TRIL_F32, TRIL_I8, TRIL_I8, TRIL_F32);
    s.call.k.scale_token_stride = s.call.k.scale_head_stride = 0;
    s.call.k.scales_bytes = 4;
    expect_all("one scale for all", OK, OK, OK);
    s.call.k.scales_bytes = 3;
    expect_all("a scale that is cut", EXTENT, EXTENT, OK);
    set_up_stored(TRIL_F32, TRIL_I8, TRIL_I8, TRIL_F32);
    s.call.v.scales = s.call.k.scales;
    expect_all("k and v share scales", OK, OK, OK);
    arena.seqs[0].kv_len = arena.seqs[1].kv_len = 0;
    s.call.k.scales = s.call.v.scales = NULL;
    s.call.k.scales_bytes = s.call.v.scales_bytes = 0;
    expect_all("no keys, no scales", OK, OK, OK);

    const struct {
        const char *name;
        void *at;
        int64_t bytes;
        int attend, weights; /* of k's; of v's, weights know nothing */
    } others[] = {
        {"scales in out", arena.wide_out, sizeof(arena.wide_out), ALIAS, OK},
        {"scales in row_max", arena.row_max, sizeof(arena.row_max), ALIAS, ALIAS},
        {"scales in row_sum", arena.row_sum, sizeof(arena.row_sum), ALIAS, ALIAS},
        {"scales in the weights", arena.weights, sizeof(arena.weights), OK, ALIAS},
        {"scales in the workspace", arena.workspace, 4096, ALIAS, ALIAS},
        {"scales in q", arena.wide_q, sizeof(arena.wide_q), OK, OK},
        {"scales in v", arena.wide_v, sizeof(arena.wide_v), OK, OK},
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        const int64_t by[] = {0, 4, 4 - KEYS * KV_HEADS * 4, others[i].bytes - 4};
        for (size_t j = 0; j < sizeof(by) / sizeof(by[0]); j++) {
            set_up_operand(1, TRIL_I8);
            s.call.k.scales = (const float *)(const void *)((char *)others[i].at + by[j]);
            expect_all(others[i].name, others[i].attend, others[i].weights, OK);
            set_up_operand(2, TRIL_I8);
            s.call.v.scales = (const float *)(const void *)((char *)others[i].at + by[j]);
            expect_all(others[i].name, others[i].attend, OK, OK);
        }
    }
}
END_TEST

/* Pages of 16 tokens: 40 keys in blocks 4, 0, 2, then 20 in blocks 5, 1. What the tables hold past that is nonsense. */
static void set_up_pages(void)
{
    static const int32_t used[2][3] = {{4, 0, 2}, {5, 1, -1}};
    set_up();
    for (int i = 0; i < PAGES * PAGE * KV_HEADS * DIM; i++) {
        (&arena.pages_k[0][0][0][0])[i] = (float)(i * 29 % 64 - 32) / 16.0f;
        (&arena.pages_v[0][0][0][0])[i] = (float)(i * 43 % 64 - 32) / 16.0f;
    }
    for (int i = 0; i < 2; i++)
        memcpy(arena.tables[i], used[i], sizeof(used[i]));
    arena.seqs[0] = (tril_seq){.q_len = 3, .kv_len = LONG, .blocks = arena.tables[0]};
    arena.seqs[1] = (tril_seq){.q_first = 3, .q_len = 2, .kv_len = SHORT, .blocks = arena.tables[1]};
    s.call.block_tokens = PAGE;
    s.call.n_blocks = PAGES;
    s.call.k = tensor(arena.pages_k, (int64_t)PAGES * PAGE, KV_HEADS);
    s.call.v = tensor(arena.pages_v, (int64_t)PAGES * PAGE, KV_HEADS);
    s.call.k.block_stride = s.call.v.block_stride = PAGE_BYTES;
    s.to.data = arena.long_weights;
    s.to.bytes = sizeof(arena.long_weights);
    s.to.head_stride = sizeof(arena.long_weights[0]);
    s.to.row_stride = sizeof(arena.long_weights[0][0]);
}

static const struct fault page_faults[] = {
    {"no fault", CALL(team_call), 0, OK, OK, OK},
    {"block_tokens 0", CALL(block_tokens), 0, SHAPE, SHAPE, SHAPE},
    {"block_tokens 1", CALL(block_tokens), 1, SHAPE, SHAPE, SHAPE},
    {"block_tokens 8", CALL(block_tokens), 8, SHAPE, SHAPE, SHAPE},
    {"block_tokens 15", CALL(block_tokens), 15, SHAPE, SHAPE, SHAPE},
    {"block_tokens 24", CALL(block_tokens), 24, SHAPE, SHAPE, SHAPE},
    {"block_tokens -16", CALL(block_tokens), -16, SHAPE, SHAPE, SHAPE},
    {"block_tokens min", CALL(block_tokens), INT64_MIN, SHAPE, SHAPE, SHAPE},
    {"block_tokens 2^30 + 16", CALL(block_tokens), (INT64_C(1) << 30) + 16, SHAPE, SHAPE, SHAPE},
    {"block_tokens 2^32 + 16", CALL(block_tokens), (INT64_C(1) << 32) + 16, SHAPE, SHAPE, SHAPE},
    {"block_tokens 2^30", CALL(block_tokens), INT64_C(1) << 30, EXTENT, EXTENT, OK},
    {"block_tokens 32 in blocks of 16", CALL(block_tokens), 32, STRIDE, STRIDE, OK},
    {"n_blocks -1", CALL(n_blocks), -1, SHAPE, SHAPE, SHAPE},
    {"n_blocks min", CALL(n_blocks), INT64_MIN, SHAPE, SHAPE, SHAPE},
    {"n_blocks 2^31", CALL(n_blocks), INT64_C(1) << 31, SHAPE, SHAPE, SHAPE},
    {"n_blocks 2^32 + 6", CALL(n_blocks), (INT64_C(1) << 32) + PAGES, SHAPE, SHAPE, SHAPE},
    {"n_blocks 2^31 - 1", CALL(n_blocks), INT32_MAX, EXTENT, EXTENT, OK},
    {"n_blocks 1 too many", CALL(n_blocks), PAGES + 1, EXTENT, EXTENT, OK},
    {"n_blocks 1 too few", CALL(n_blocks), PAGES - 1, BLOCK_TABLE, BLOCK_TABLE, OK},
    {"n_blocks 1", CALL(n_blocks), 1, BLOCK_TABLE, BLOCK_TABLE, OK},
    {"n_blocks 0", CALL(n_blocks), 0, BLOCK_TABLE, BLOCK_TABLE, OK},
    {"q.block_stride", CALL(q.block_stride), PAGE_BYTES, STRUCT, STRUCT, STRUCT},
    {"k null", CALL(k.data), 0, E_NULL, E_NULL, OK},
    {"k.bytes 1 short", CALL(k.bytes), PAGES *PAGE_BYTES - 1, EXTENT, EXTENT, OK},
    {"k.bytes of the used tokens", CALL(k.bytes), 5 * PAGE_BYTES + 4 * K_TOKEN, EXTENT, EXTENT, OK},
    {"k.bytes of a block", CALL(k.bytes), PAGE_BYTES, EXTENT, EXTENT, OK},
    {"k.block_stride 0", CALL(k.block_stride), 0, STRIDE, STRIDE, OK},
    {"k.block_stride < 0", CALL(k.block_stride), -PAGE_BYTES, STRIDE, STRIDE, OK},
    {"k.block_stride < block", CALL(k.block_stride), PAGE_BYTES - 4, STRIDE, STRIDE, OK},
    {"k.block_stride of a token", CALL(k.block_stride), K_TOKEN, STRIDE, STRIDE, OK},
    {"k.block_stride unaligned", CALL(k.block_stride), PAGE_BYTES + 2, ALIGN, ALIGN, OK},
    {"k.block_stride past the extent", CALL(k.block_stride), PAGE_BYTES + 4, EXTENT, EXTENT, OK},
    {"k.block_stride huge", CALL(k.block_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"k.token_stride 0", CALL(k.token_stride), 0, OK, OK, OK},
    {"k.token_stride huge", CALL(k.token_stride), HUGE_STRIDE, OVERFLOW, OVERFLOW, OK},
    {"k.token_stride of a row more", CALL(k.token_stride), K_TOKEN + ROW, STRIDE, STRIDE, OK},
    {"k.head_stride 0", CALL(k.head_stride), 0, OK, OK, OK},
    {"k.scales", CALL(k.scales), 64, STRUCT, STRUCT, STRUCT},
    {"v null", CALL(v.data), 0, E_NULL, OK, OK},
    {"v.bytes 1 short", CALL(v.bytes), PAGES *PAGE_BYTES - 1, EXTENT, OK, OK},
    {"v.block_stride 0", CALL(v.block_stride), 0, STRIDE, OK, OK},
    {"v.block_stride < 0", CALL(v.block_stride), -PAGE_BYTES, STRIDE, OK, OK},
    {"v.block_stride < block", CALL(v.block_stride), PAGE_BYTES - 4, STRIDE, OK, OK},
    {"v.block_stride unaligned", CALL(v.block_stride), PAGE_BYTES + 1, ALIGN, OK, OK},
    {"v.block_stride past the extent", CALL(v.block_stride), PAGE_BYTES + 4, EXTENT, OK, OK},
    {"v.block_stride huge", CALL(v.block_stride), HUGE_STRIDE, OVERFLOW, OK, OK},
    {"v.scale_block_stride", CALL(v.scale_block_stride), 4, STRUCT, OK, STRUCT},
    {"math BF16", CALL(math), TRIL_MATH_BF16, OK, OK, OK},
    {"workspace null", offsetof(struct setup, workspace), sizeof(void *), 0, WORKSPACE, WORKSPACE, OK},
};

START_TEST(one_field_of_pages)
{
    set_up_pages();
    expect_fault(&page_faults[_i]);
}
END_TEST

/* Where pages lie. */
START_TEST(places_of_pages)
{
    set_up_pages(); /* [head][block][token][dim] */
    s.call.k.token_stride = ROW;
    s.call.k.block_stride = PAGE * ROW;
    s.call.k.head_stride = (int64_t)PAGES * PAGE * ROW;
    s.call.v = s.call.k;
    expect_all("heads first", OK, OK, OK);
    s.call.v.head_stride -= 4;
    expect_all("heads of v run into each other's blocks", STRIDE, OK, OK);
    s.call.v.head_stride += 4;
    s.call.k.block_stride -= 4;
    expect_all("blocks of a head run into each other", STRIDE, STRIDE, OK);
    s.call.k.block_stride += 4;
    s.call.k.bytes--;
    expect_all("heads first, 1 byte short", EXTENT, EXTENT, OK);

    set_up_pages(); /* [block][head][token][dim] */
    s.call.k.token_stride = ROW;
    s.call.k.head_stride = PAGE * ROW;
    expect_all("heads within blocks", OK, OK, OK);
    s.call.k.block_stride -= 4;
    expect_all("heads within blocks that run into each other", STRIDE, STRIDE, OK);

    set_up_pages(); /* [block][k, v][token][head][dim] */
    s.call.n_blocks = PAGES / 2;
    arena.tables[0][0] = arena.tables[1][0] = 2;
    s.call.k.block_stride = s.call.v.block_stride = 2 * PAGE_BYTES;
    s.call.v.data = arena.pages_k[1];
    s.call.v.bytes = (PAGES - 1) * PAGE_BYTES;
    expect_all("k and v in turns", OK, OK, OK);
    s.call.v.bytes--;
    expect_all("k and v in turns, 1 byte short", EXTENT, OK, OK);

    set_up_pages();
    s.call.n_blocks = 1;
    s.call.block_tokens = INT64_C(1) << 30;
    s.call.k.token_stride = s.call.v.token_stride = s.call.k.block_stride = s.call.v.block_stride = 0;
    arena.tables[0][0] = arena.tables[1][0] = 0;
    expect_all("one block of 2^30 tokens, which are one", OK, OK, OK);

    set_up_pages();
    s.call.n_blocks = 1;
    s.call.v.block_stride = -PAGE_BYTES;
    expect_all("the one block of v, at a negative stride", STRIDE, BLOCK_TABLE, OK);
    s.call.k.block_stride = -PAGE_BYTES;
    expect_all("the one block, at a negative stride", STRIDE, STRIDE, OK);

    set_up_pages(); /* an extent that runs past the address space */
    s.call.k.data = (const void *)(uintptr_t)(UINTPTR_MAX - 4095);
    s.call.k.bytes = INT64_MAX;
    expect_all("k past the address space", OVERFLOW, OVERFLOW, OK);

    set_up_pages();
    arena.seqs[0].kv_len = arena.seqs[1].kv_len = 0;
    arena.seqs[0].blocks = arena.seqs[1].blocks = NULL;
    s.call.n_blocks = 0;
    s.call.k.data = s.call.v.data = NULL;
    expect_all("no keys, no blocks", OK, OK, OK);
    arena.seqs[1].kv_len = 1;
    arena.seqs[1].blocks = arena.tables[1];
    expect_all("a key, no blocks", BLOCK_TABLE, BLOCK_TABLE, OK);
    arena.seqs[1].q_len = 0;
    expect_all("a key that none asks for, no blocks", OK, OK, OK);
}
END_TEST

/* I8 in pages: scales lie in blocks as well, which may share them. */
START_TEST(scales_in_pages)
{
    enum { BLOCK = PAGE * KV_HEADS * 4, ALL = PAGES * BLOCK };
    static const struct tensor_fault paged[] = {
        {"nothing", TENSOR(scale_block_stride), BLOCK, OK},
        {"scales null", TENSOR(scales), 0, E_NULL},
        {"scales_bytes 1 short", TENSOR(scales_bytes), ALL - 1, EXTENT},
        {"scales_bytes of a block", TENSOR(scales_bytes), BLOCK, EXTENT},
        {"scale_block_stride 0", TENSOR(scale_block_stride), 0, OK},
        {"scale_block_stride < 0", TENSOR(scale_block_stride), -BLOCK, STRIDE},
        {"scale_block_stride unaligned", TENSOR(scale_block_stride), BLOCK + 2, ALIGN},
        {"scale_block_stride past the extent", TENSOR(scale_block_stride), BLOCK + 4, EXTENT},
        {"scale_block_stride huge", TENSOR(scale_block_stride), HUGE_STRIDE, OVERFLOW},
        {"scale_token_stride 0", TENSOR(scale_token_stride), 0, OK},
        {"scale_head_stride 0", TENSOR(scale_head_stride), 0, OK},
        {"bytes 1 short", TENSOR(bytes), PAGES * PAGE * KV_HEADS * DIM - 1, EXTENT},
        {"block_stride < block", TENSOR(block_stride), PAGE * KV_HEADS * DIM - 1, STRIDE},
    };
    for (size_t i = 0; i < sizeof(paged) / sizeof(paged[0]); i++) {
        for (int operand = 1; operand < 3; operand++) {
            set_up_pages();
            tril_tensor *const x = operand == 1 ? &s.call.k : &s.call.v;
            *x = stored(x->data, TRIL_I8, (int64_t)PAGES * PAGE, KV_HEADS, DIM);
            x->block_stride = PAGE * KV_HEADS * DIM;
            add_scales(x, &arena.k_scales[0][0][0], (int64_t)PAGES * PAGE);
            x->scale_block_stride = BLOCK;
            expect_operand(&operands[operand], "I8 in pages", &paged[i]);
            if (i > 0) continue;
            x->scale_block_stride = 4096;
            x->scales_bytes = INT64_MAX;
            x->scales = (const float *)(uintptr_t)(UINTPTR_MAX - 4095);
            expect_all("scales past the address space", OVERFLOW, operand == 1 ? OVERFLOW : OK, OK);
        }
    }
}
END_TEST

START_TEST(panels_in_pages)
{
    set_up_pages();
    s.call.k.layout = TRIL_PANELS; /* [block][panel][head][dim][16] */
    s.call.k.head_stride = PANEL_HEAD;
    expect_all("panels", OK, OK, OK);
    s.call.k.bytes--;
    expect_all("panels, 1 byte short", EXTENT, EXTENT, OK);
    s.call.k.bytes++;
    s.call.k.block_stride -= 4;
    expect_all("panels that run into each other", STRIDE, STRIDE, OK);
}
END_TEST

START_TEST(entries_of_a_block_table)
{
    static const int32_t wrong[] = {-1, PAGES, PAGES + 1, INT32_MIN, INT32_MAX};
    static const int pages[] = {3, 2}; /* of each sequence */
    for (int seq = 0; seq < 2; seq++) {
        for (int page = 0; page < TABLE; page++) {
            for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                char name[96];
                const int status = page < pages[seq] ? BLOCK_TABLE : OK;
                snprintf(name, sizeof(name), "sequence %d, page %d: block %d", seq, page, (int)wrong[i]);
                set_up_pages();
                arena.tables[seq][page] = wrong[i];
                expect_all(name, status, status, OK);
                arena.seqs[seq].q_len = 0; /* nobody asks */
                expect_all(name, OK, OK, OK);
            }
        }
    }
    set_up_pages();
    for (int i = 0; i < 3; i++)
        arena.tables[0][i] = arena.tables[1][i] = PAGES - 1;
    expect_all("one block many times", OK, OK, OK);
    set_up_pages(); /* as the last thing in the workspace, which ends here */
    size_t needed = 0;
    ck_assert_int_eq(tril_workspace(&s.call, 1, &needed), TRIL_OK);
    s.workspace = arena.workspace + ROOM - needed;
    s.workspace_bytes = needed;
    arena.tables[1][1] = PAGES;
    memcpy(&before, &arena, sizeof(arena));
    expect("a table in a full workspace", "tril_attend", tril_attend(&s.call, s.workspace, needed), BLOCK_TABLE);
    expect("a table in a full workspace", "tril_weights", tril_weights(&s.call, &s.to, s.workspace, needed),
           BLOCK_TABLE);
}
END_TEST

/* Of a range of keys, only its entries. */
START_TEST(block_tables_of_key_ranges)
{
    static const struct {
        int64_t begin, end;
        int first, last; /* used entries of 19 */
    } ranges[] = {{256, 0, 16, 18}, {256, 300, 16, 18}, {0, 256, 0, 15}, {256, 256, 0, -1}, {0, 300, 0, 18}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        for (int page = 0; page < TABLE; page++) {
            const bool used = page >= ranges[i].first && page <= ranges[i].last;
            char name[96];
            snprintf(name, sizeof(name), "keys %d to %d, page %d", (int)ranges[i].begin, (int)ranges[i].end, page);
            set_up_pages();
            for (int j = 0; j < TABLE; j++)
                arena.tables[0][j] = j >= ranges[i].first && j <= ranges[i].last ? j % PAGES : -1;
            arena.tables[0][page] = -1;
            arena.seqs[0].kv_len = 300;
            arena.seqs[0].key_begin = ranges[i].begin;
            arena.seqs[0].key_end = ranges[i].end;
            expect_all(name, used ? BLOCK_TABLE : OK, UNSUPPORTED, OK);
        }
    }
    set_up_pages();
    arena.seqs[0] = (tril_seq){.q_len = 3, .kv_len = 512, .key_begin = 512};
    expect_all("an empty range, no table", OK, UNSUPPORTED, OK);

    set_up_pages(); /* 16 entries in row_max, then those of the range, in the gap behind it */
    const int32_t used[] = {4, 0, 2};
    arena.seqs[0].kv_len = 300;
    arena.seqs[0].key_begin = 256;
    char *const end = arena.gap_max;
    memcpy(end, used, sizeof(used));
    arena.seqs[0].blocks = (const int32_t *)(const void *)(end - 16 * sizeof(int32_t));
    expect_all("what is not used, in row_max", OK, UNSUPPORTED, OK);
    memcpy(end - 4, used, sizeof(used));
    arena.seqs[0].blocks--;
    expect_all("the first that is used, in row_max", ALIAS, UNSUPPORTED, OK);
}
END_TEST

START_TEST(block_tables)
{
    for (int seq = 0; seq < 2; seq++) {
        set_up_pages();
        arena.seqs[seq].blocks = NULL;
        expect_all("null", E_NULL, E_NULL, OK);
        arena.seqs[seq].q_len = 0;
        expect_all("null, no query", OK, OK, OK);
        for (int by = 1; by < 4; by++) {
            set_up_pages();
            const uintptr_t p = (uintptr_t)arena.tables[seq] + (uintptr_t)by;
            memcpy(&arena.seqs[seq].blocks, &p, sizeof(p));
            expect_all("unaligned", ALIGN, ALIGN, OK);
            arena.seqs[seq].kv_len = 0;
            expect_all("unaligned, no key", OK, OK, OK);
        }
        static const int64_t firsts[] = {1, PAGE, -1, INT64_C(1) << 47, INT64_MAX};
        for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
            set_up_pages();
            arena.seqs[seq].kv_first = firsts[i];
            expect_all("kv_first with pages", SHAPE, SHAPE, SHAPE);
            arena.seqs[seq].q_len = 0;
            expect_all("kv_first with pages, no query", SHAPE, SHAPE, SHAPE);
        }
        set_up();
        arena.seqs[seq].blocks = arena.tables[seq];
        expect_all("a table, but no pages", SHAPE, SHAPE, SHAPE);
    }
}
END_TEST

/* A table that is all of the memory that may be read, from its first used entry to its last. */
START_TEST(block_table_between_guards)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *const memory = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert(memory != MAP_FAILED);
    ck_assert_int_eq(mprotect(memory + page, page, PROT_READ | PROT_WRITE), 0);

    static const int32_t whole[] = {4, 0, 2};
    set_up_pages();
    memcpy(memory + 2 * page - sizeof(whole), whole, sizeof(whole));
    arena.seqs[0].blocks = (const int32_t *)(const void *)(memory + 2 * page - sizeof(whole));
    expect_all("to the end of memory", OK, OK, OK);

    set_up_pages(); /* the entries of 16 ... 18 of a range that begins there */
    memcpy(memory + page, whole, sizeof(whole));
    arena.seqs[0].kv_len = 300;
    arena.seqs[0].key_begin = 256;
    arena.seqs[0].blocks = (const int32_t *)(const void *)(memory + page - 16 * sizeof(int32_t));
    expect_all("from the beginning of memory", OK, UNSUPPORTED, OK);

    set_up_pages(); /* those of 0 ... 15 of a range that ends there */
    for (size_t i = 0; i < 16; i++)
        memcpy(memory + 2 * page - (i + 1) * sizeof(int32_t), &whole[i % 3], sizeof(int32_t));
    arena.seqs[0].kv_len = 300;
    arena.seqs[0].key_end = 256;
    arena.seqs[0].blocks = (const int32_t *)(const void *)(memory + 2 * page - 16 * sizeof(int32_t));
    expect_all("a range to the end of memory", OK, UNSUPPORTED, OK);

    set_up_pages();
    arena.seqs[0].q_len = 0;
    arena.seqs[0].blocks = (const int32_t *)(const void *)memory;
    expect_all("of no queries, out of reach", OK, OK, OK);
    munmap(memory, 3 * page);
}
END_TEST

/* Where no table may lie, by each of its used entries; what is not used may. */
START_TEST(aliases_of_block_tables)
{
    const struct {
        const char *name;
        void *at;
        int64_t bytes;
        int attend, weights;
    } others[] = {
        {"out", arena.out, sizeof(arena.out), ALIAS, OK},
        {"row_max", arena.row_max, sizeof(arena.row_max), ALIAS, ALIAS},
        {"row_sum", arena.row_sum, sizeof(arena.row_sum), ALIAS, ALIAS},
        {"the weights", arena.long_weights, sizeof(arena.long_weights), OK, ALIAS},
        {"the workspace", arena.workspace, 4096, ALIAS, ALIAS},
        {"q", arena.q, sizeof(arena.q), OK, OK},
        {"k", arena.pages_k, sizeof(arena.pages_k), OK, OK},
    };
    static const int64_t pages[] = {3, 2};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        for (int seq = 0; seq < 2; seq++) {
            /* Before it; its last entry in it; its first in it, wholly, and at the end; behind it. */
            const int64_t size = pages[seq] * 4, end = others[i].bytes;
            const struct {
                int64_t at;
                bool within;
            } places[] = {{-size, false}, {4 - size, true}, {0, true}, {16, true}, {end - 4, true}, {end, false}};
            for (size_t j = 0; j < sizeof(places) / sizeof(places[0]); j++) {
                char name[96];
                const bool workspace = others[i].at == (void *)arena.workspace; /* how long it is depends on the tier */
                if (workspace && places[j].at == end) continue;
                snprintf(name, sizeof(name), "the table of sequence %d at byte %d of %s", seq, (int)places[j].at,
                         others[i].name);
                set_up_pages();
                char *const at = (char *)others[i].at + places[j].at;
                memcpy(at, arena.tables[seq], (size_t)size);
                arena.seqs[seq].blocks = (const int32_t *)(const void *)at;
                expect_all(name, places[j].within ? others[i].attend : OK, places[j].within ? others[i].weights : OK,
                           OK);
            }
        }
    }
    set_up_pages(); /* between the rows of an output */
    s.call.out.data = arena.wide_out;
    s.call.out.token_stride = sizeof(arena.wide_out[0]);
    s.call.out.head_stride = ROW;
    s.call.out.bytes = sizeof(arena.wide_out);
    memcpy(&arena.wide_out[1][HEADS - 1][DIM], arena.tables[0], 3 * sizeof(int32_t));
    arena.seqs[0].blocks = (const int32_t *)(const void *)&arena.wide_out[1][HEADS - 1][DIM];
    expect_all("between the rows of out", OK, OK, OK);
    memcpy(&arena.wide_out[2][0][0] - 2, arena.tables[0], 3 * sizeof(int32_t));
    arena.seqs[0].blocks = (const int32_t *)(const void *)(&arena.wide_out[2][0][0] - 2);
    expect_all("from between the rows of out into one", ALIAS, OK, OK);

    set_up_pages();
    s.call.out.data = arena.pages_k[3];
    expect_all("out in a block that no table names", ALIAS, OK, OK);
    set_up_pages();
    s.call.row_max = &arena.pages_v[PAGES - 1][PAGE - 1][KV_HEADS - 1][DIM - 1];
    expect_all("row_max at the end of the last block", ALIAS, OK, OK);
    set_up_pages();
    s.workspace = arena.pages_k;
    expect_all("workspace over pages", ALIAS, ALIAS, OK);
}
END_TEST

START_TEST(workspace_of_pages)
{
    size_t needed = 0, more = 0, weights = 0;
    set_up_pages();
    ck_assert_int_eq(tril_workspace(&s.call, 1, &needed), TRIL_OK);
    s.workspace_bytes = needed;
    expect_all("exactly enough", OK, OK, OK);
    s.workspace_bytes = needed - 1;
    expect_all("1 byte short", WORKSPACE, OK, OK);
    arena.tables[0][0] = -1;
    memcpy(&before, &arena, sizeof(arena));
    expect("1 byte short, and a bad table", "tril_attend", tril_attend(&s.call, s.workspace, needed - 1), WORKSPACE);
    set_up_pages();
    s.call.v_dim = 0;
    ck_assert_int_eq(tril_workspace(&s.call, 1, &weights), TRIL_OK);
    s.workspace_bytes = weights;
    expect_all("exactly enough for weights", SHAPE, OK, OK);
    s.workspace_bytes = weights - 1;
    expect_all("1 byte short for weights", SHAPE, WORKSPACE, OK);

    set_up_pages(); /* it grows by what the tables take */
    for (int64_t keys = LONG; keys < 100000; keys = keys * 2 + 1) {
        arena.seqs[0].kv_len = keys;
        ck_assert_int_eq(tril_workspace(&s.call, 1, &more), TRIL_OK);
        ck_assert_uint_ge(more, needed);
        ck_assert_uint_ge(more, (size_t)(keys / PAGE) * sizeof(int32_t));
        needed = more;
    }
}
END_TEST

/* What models ask for beside: everything at once. A row of the tree is one word, of two that there are. */
static void set_up_options(void)
{
    set_up();
    for (int i = 0; i < HEADS; i++) {
        arena.logits[i] = (float)(i - 2);
        arena.slopes[i] = 1.0f / (float)(2 << i);
    }
    for (int i = 0; i < TREE_ROWS; i++)
        arena.tree[i][0] = arena.tree[i][1] = UINT64_C(0x5555555555555555) >> i % 2;
    arena.seqs[0].prefix = 2;
    s.call.softcap = 30.0f;
    s.call.window = 3;
    s.call.sink_tokens = 1;
    s.call.sink_logits = arena.logits;
    s.call.alibi_slopes = arena.slopes;
    s.call.tree = &arena.tree[0][0];
    s.call.tree_row_stride = sizeof(arena.tree[0]);
    s.call.tree_bytes = QUERIES * (int64_t)sizeof(arena.tree[0]);
}

/* The largest multiple of 8, whose product with the rows does not fit. */
#define HUGE_WORDS (INT64_MAX - 7)

static const struct fault option_faults[] = {
    {"no fault", CALL(team_call), 0, OK, OK, OK},
    {"softcap 0", CALL(softcap), 0, OK, OK, OK},
    {"softcap NaN", CALL(softcap), NAN_BITS, PARAM, PARAM, PARAM},
    {"softcap inf", CALL(softcap), INF_BITS, PARAM, PARAM, PARAM},
    {"softcap -inf", CALL(softcap), INF_BITS | INT32_MIN, PARAM, PARAM, PARAM},
    {"softcap -2^-149", CALL(softcap), INT32_MIN + 1, PARAM, PARAM, PARAM},
    {"softcap 2^-149, by which scale overflows", CALL(softcap), 1, PARAM, PARAM, PARAM},
    {"softcap 2^-126", CALL(softcap), 0x00800000, OK, OK, OK},
    {"softcap 1.359 2^127", CALL(softcap), 0x7f2e0000, OK, OK, OK},
    {"softcap 1.387 2^127, which overflows times log2(e)", CALL(softcap), 0x7f318000, PARAM, PARAM, PARAM},
    {"softcap max", CALL(softcap), 0x7f7fffff, PARAM, PARAM, PARAM},
    {"window 1", CALL(window), 1, OK, OK, OK},
    {"window max", CALL(window), INT64_MAX, OK, OK, OK},
    {"window -1", CALL(window), -1, PARAM, PARAM, PARAM},
    {"window min", CALL(window), INT64_MIN, PARAM, PARAM, PARAM},
    {"sink_tokens 0", CALL(sink_tokens), 0, OK, OK, OK},
    {"sink_tokens max", CALL(sink_tokens), INT64_MAX, OK, OK, OK},
    {"sink_tokens -1", CALL(sink_tokens), -1, PARAM, PARAM, PARAM},
    {"sink_tokens min", CALL(sink_tokens), INT64_MIN, PARAM, PARAM, PARAM},
    {"sink_logits null", CALL(sink_logits), 0, OK, OK, OK},
    {"alibi_slopes null", CALL(alibi_slopes), 0, OK, OK, OK},
    {"tree null", CALL(tree), 0, STRUCT, STRUCT, STRUCT},
    {"tree_row_stride < 0", CALL(tree_row_stride), -16, STRIDE, STRIDE, OK},
    {"tree_row_stride 0", CALL(tree_row_stride), 0, STRIDE, STRIDE, OK},
    {"tree_row_stride 8", CALL(tree_row_stride), 8, OK, OK, OK},
    {"tree_row_stride 12", CALL(tree_row_stride), 12, ALIGN, ALIGN, OK},
    {"tree_row_stride 15", CALL(tree_row_stride), 15, ALIGN, ALIGN, OK},
    {"tree_row_stride past the extent", CALL(tree_row_stride), 24, EXTENT, EXTENT, OK},
    {"tree_row_stride huge", CALL(tree_row_stride), HUGE_WORDS, OVERFLOW, OVERFLOW, OK},
    {"tree_bytes to the last row's word", CALL(tree_bytes), 4 * 16 + 8, OK, OK, OK},
    {"tree_bytes 1 short", CALL(tree_bytes), 4 * 16 + 7, EXTENT, EXTENT, OK},
    {"tree_bytes 0", CALL(tree_bytes), 0, EXTENT, EXTENT, OK},
    {"tree_bytes -1", CALL(tree_bytes), -1, EXTENT, EXTENT, OK},
    {"tree_bytes min", CALL(tree_bytes), INT64_MIN, EXTENT, EXTENT, OK},
};

START_TEST(one_field_of_options)
{
    set_up_options();
    expect_fault(&option_faults[_i]);
}
END_TEST

/* What scale and softcap make together. */
START_TEST(scales_by_softcaps)
{
    static const struct {
        float scale, softcap;
        int status;
    } pairs[] = {
        {1.0f, 1e-38f, OK},    {10.0f, 1e-38f, PARAM}, {-10.0f, 1e-38f, PARAM},
        {1e20f, 1e-18f, OK},   {1e20f, 1e-19f, PARAM}, {1e-30f, 1e30f, OK}, /* 0, and no score counts */
        {-1.0f, 50.0f, OK},    {1e38f, 1e38f, OK},     {0.0f, 2e-39f, OK},
        {0.0f, 5e-40f, PARAM}, /* 1 / sqrt(8) */
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char name[64];
        set_up();
        s.call.scale = pairs[i].scale;
        s.call.softcap = pairs[i].softcap;
        snprintf(name, sizeof(name), "scale %g, softcap %g", (double)pairs[i].scale, (double)pairs[i].softcap);
        expect_all(name, pairs[i].status, pairs[i].status, pairs[i].status);
    }
}
END_TEST

/* Every element of the arrays counts; tril_workspace() does not look at them. */
START_TEST(numbers_of_heads)
{
    static const struct {
        float x;
        int logit, slope;
    } numbers[] = {
        {0.0f, OK, OK},          {-0.0f, OK, OK},          {-INFINITY, OK, PARAM}, {INFINITY, PARAM, PARAM},
        {NAN, PARAM, PARAM},     {-NAN, PARAM, PARAM},     {2.3e38f, OK, OK},      {-2.3e38f, OK, OK},
        {2.4e38f, PARAM, PARAM}, {-2.4e38f, PARAM, PARAM}, {0x1p-149f, OK, OK},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        for (int head = 0; head < HEADS; head++) {
            char name[64];
            snprintf(name, sizeof(name), "logit %g of head %d", (double)numbers[i].x, head);
            set_up_options();
            arena.logits[head] = numbers[i].x;
            expect_all(name, numbers[i].logit, numbers[i].logit, OK);
            s.call.sink_logits = NULL; /* nobody asks */
            expect_all(name, OK, OK, OK);
            snprintf(name, sizeof(name), "slope %g of head %d", (double)numbers[i].x, head);
            set_up_options();
            arena.slopes[head] = numbers[i].x;
            expect_all(name, numbers[i].slope, numbers[i].slope, OK);
            s.call.alibi_slopes = NULL;
            expect_all(name, OK, OK, OK);
        }
    }
}
END_TEST

/* Through integers, since a pointer to floats or words may not be unaligned. */
START_TEST(unaligned_options)
{
    for (int by = 1; by < 9; by++) {
        set_up_options();
        uintptr_t p = (uintptr_t)arena.logits + (uintptr_t)by;
        memcpy(&s.call.sink_logits, &p, sizeof(p));
        if (by % 4 != 0) expect_all("sink_logits", ALIGN, ALIGN, OK);
        set_up_options();
        p = (uintptr_t)arena.slopes + (uintptr_t)by;
        memcpy(&s.call.alibi_slopes, &p, sizeof(p));
        if (by % 4 != 0) expect_all("alibi_slopes", ALIGN, ALIGN, OK);
        set_up_options();
        p = (uintptr_t)arena.tree + (uintptr_t)by;
        memcpy(&s.call.tree, &p, sizeof(p));
        expect_all("tree", by == 8 ? OK : ALIGN, by == 8 ? OK : ALIGN, OK);
    }
    set_up_options(); /* of a float's size, no more */
    memmove(arena.logits + 1, arena.logits, sizeof(arena.logits));
    memmove(arena.slopes + 1, arena.slopes, sizeof(arena.slopes));
    s.call.sink_logits++;
    s.call.alibi_slopes++;
    expect_all("by one float", OK, OK, OK);
}
END_TEST

/* Outputs and the workspace over what is read: by the first and by the last of it. */
START_TEST(aliases_of_options)
{
    const struct {
        const char *name;
        void *at;
        int64_t bytes;
        int attend, weights;
    } others[] = {
        {"out", arena.out, sizeof(arena.out), ALIAS, OK},
        {"row_max", arena.row_max, sizeof(arena.row_max), ALIAS, ALIAS},
        {"row_sum", arena.row_sum, sizeof(arena.row_sum), ALIAS, ALIAS},
        {"the weights", arena.weights, sizeof(arena.weights), OK, ALIAS},
        {"the workspace", arena.workspace, 4096, ALIAS, ALIAS},
        {"q", arena.q, sizeof(arena.q), OK, OK},
        {"v", arena.v, sizeof(arena.v), OK, OK},
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        for (int option = 0; option < 3; option++) {
            const int64_t size = option == 2 ? 4 * 16 + 8 : HEADS * 4, unit = option == 2 ? 8 : 4;
            const int64_t end = others[i].bytes;
            /* Before it; its last in it; its first in it, wholly, and at the end; behind it. */
            const struct {
                int64_t at;
                bool within;
            } places[] = {{-size, false}, {unit - size, true}, {0, true}, {16, true}, {end - unit, true}, {end, false}};
            for (size_t j = 0; j < sizeof(places) / sizeof(places[0]); j++) {
                char name[96];
                const bool workspace = others[i].at == (void *)arena.workspace; /* how long it is depends on the tier */
                if (workspace && places[j].at == end) continue;
                snprintf(name, sizeof(name), "option %d at byte %d of %s", option, (int)places[j].at, others[i].name);
                set_up_options();
                char *const at = (char *)others[i].at + places[j].at;
                const void *const what = option == 0   ? (const void *)arena.logits
                                         : option == 1 ? (const void *)arena.slopes
                                                       : arena.tree;
                memmove(at, what, (size_t)size);
                if (option == 0) s.call.sink_logits = (const float *)(const void *)at;
                if (option == 1) s.call.alibi_slopes = (const float *)(const void *)at;
                if (option == 2) s.call.tree = (const uint64_t *)(const void *)at;
                expect_all(name, places[j].within ? others[i].attend : OK, places[j].within ? others[i].weights : OK,
                           OK);
            }
        }
    }
    set_up_options();
    s.call.alibi_slopes = s.call.sink_logits;
    s.call.tree = (const uint64_t *)(const void *)arena.q;
    expect_all("inputs may overlap", OK, OK, OK);
}
END_TEST

/* A prefix is checked, whoever asks for it. */
START_TEST(prefixes)
{
    static const int64_t wrong[] = {-1, 6, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        set_up();
        arena.seqs[0].prefix = wrong[i];
        expect_all("prefix", SHAPE, SHAPE, SHAPE);
        arena.seqs[0].q_len = 0;
        expect_all("prefix, no query", SHAPE, SHAPE, SHAPE);
        arena.seqs[0].q_len = 3;
        arena.seqs[0].kv_len = 0;
        expect_all("prefix, no key", SHAPE, SHAPE, SHAPE);
    }
    set_up();
    arena.seqs[0].prefix = 5;
    expect_all("prefix of all keys", OK, OK, OK);
    arena.seqs[0].kv_len = 2;
    arena.seqs[0].prefix = 2;
    expect_all("prefix, more queries than keys", OK, OK, OK);
}
END_TEST

/* With a tree a sequence has as many keys as queries at least; its rows hold a bit for each query of the longest. */
START_TEST(rows_of_a_tree)
{
    for (int seq = 0; seq < 2; seq++) {
        set_up_options();
        arena.seqs[seq].prefix = 0;
        arena.seqs[seq].kv_len = arena.seqs[seq].q_len;
        expect_all("as many keys as queries", OK, OK, OK);
        arena.seqs[seq].kv_len--;
        expect_all("a key too few", SHAPE, SHAPE, SHAPE);
        arena.seqs[seq].kv_len = 0;
        expect_all("no key", SHAPE, SHAPE, SHAPE);
        arena.seqs[seq].q_len = 0;
        expect_all("no key, no query", OK, OK, OK);
    }
    static const struct {
        int64_t queries, stride, bytes;
        int status;
    } rows[] = {
        {64, 8, 64 * 8, OK},
        {64, 8, 64 * 8 - 1, EXTENT},
        {65, 8, 64 * 16, STRIDE},
        {65, 16, 65 * 16, OK},
        {65, 16, 65 * 16 - 1, EXTENT},
        {65, 24, 64 * 24 + 16, OK},
        {1, 0, 8, OK},
        {1, 0, 7, EXTENT},
        {1, 8, 8, OK},
        {1, 4, 8, ALIGN},
        {2, 0, 16, STRIDE},
        {2, 8, 16, OK},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char name[96];
        set_up_options(); /* heads of one number, so that so many queries fit the arena; weights behind the workspace */
        const int64_t n = rows[i].queries;
        s.call.q_heads = s.call.kv_heads = s.call.qk_dim = s.call.v_dim = 1;
        s.call.q.token_stride = s.call.out.token_stride = 4;
        s.call.k.token_stride = s.call.v.token_stride = 0;
        s.call.row_max = s.call.row_sum = NULL;
        s.call.n_seqs = 1;
        s.workspace_bytes = ROOM / 2;
        s.to.data = arena.workspace + ROOM / 2;
        s.to.row_stride = n * 4;
        s.to.head_stride = s.to.bytes = n * n * 4;
        arena.seqs[0] = (tril_seq){.q_len = n, .kv_len = n};
        memset(arena.tree, 0, sizeof(arena.tree));
        memset(arena.gap_tree, 0, sizeof(arena.gap_tree)); /* rows 24 bytes apart reach into it */
        s.call.tree_row_stride = rows[i].stride;
        s.call.tree_bytes = rows[i].bytes;
        snprintf(name, sizeof(name), "%d queries, rows %d bytes apart in %d", (int)n, (int)rows[i].stride,
                 (int)rows[i].bytes);
        expect_all(name, rows[i].status, rows[i].status, OK);
    }
    set_up_options(); /* the arrays of nobody */
    arena.seqs[0].q_len = arena.seqs[1].q_len = 0;
    s.call.tree_row_stride = s.call.tree_bytes = 0;
    expect_all("a tree without rows", OK, OK, OK);
}
END_TEST

/* Rows of the packed form reach as far as a query can see. */
START_TEST(packed_form_of_options)
{
    static const struct {
        bool tree;
        int64_t prefix;
        int64_t elements;
    } forms[] = {
        {false, 2, PACKED}, {false, 3, PACKED}, {false, 4, 4 + 4 + 5 + 3}, {false, 5, 15 + 3}, {true, 2, 15 + 4}};
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        set_up_options();
        packed();
        if (!forms[i].tree) {
            s.call.tree = NULL;
            s.call.tree_row_stride = s.call.tree_bytes = 0;
        }
        arena.seqs[0].prefix = forms[i].prefix;
        s.to.head_stride = forms[i].elements * 4;
        s.to.bytes = HEADS * forms[i].elements * 4;
        expect_all("packed", OK, OK, OK);
        s.to.bytes--;
        expect_all("packed, 1 byte short", OK, EXTENT, OK);
        s.to.bytes++;
        s.to.head_stride -= 4;
        expect_all("packed, head_stride less than a matrix", OK, STRIDE, OK);
    }
}
END_TEST

START_TEST(weights_in_16_bits)
{
    for (int type = TRIL_F16; type <= TRIL_BF16; type++) {
        for (int form = TRIL_WEIGHTS_DENSE; form <= TRIL_WEIGHTS_PACKED; form++) {
            const int64_t row = form == TRIL_WEIGHTS_DENSE ? COLUMNS * 2 : 0;
            const int64_t matrix = form == TRIL_WEIGHTS_DENSE ? QUERIES * row : PACKED * 2;
            set_up();
            s.to.form = (tril_weights_form)form;
            s.to.dtype = (tril_dtype)type;
            s.to.row_stride = row;
            s.to.head_stride = matrix;
            s.to.bytes = HEADS * matrix;
            expect_all("halves", OK, OK, OK);
            s.to.bytes--;
            expect_all("halves, 1 byte short", OK, EXTENT, OK);
            s.to.bytes++;
            s.to.head_stride -= 2;
            expect_all("halves, head_stride less than a matrix", OK, STRIDE, OK);
            s.to.head_stride++;
            expect_all("halves, head_stride unaligned", OK, ALIGN, OK);
            s.to.head_stride++;
            s.to.data = (char *)arena.weights + 1;
            expect_all("halves, unaligned", OK, ALIGN, OK);
            s.to.data = (char *)arena.weights + 2;
            expect_all("halves, by one", OK, OK, OK);
            s.to.data = (char *)arena.row_sum + sizeof(arena.row_sum) - 2;
            expect_all("halves over the end of row_sum", OK, ALIAS, OK);
            s.to.data = arena.weights;
            s.to.last_rows = 1;
            expect_all("halves, last_rows", OK, STRUCT, OK);
            if (form == TRIL_WEIGHTS_PACKED) continue;
            s.to.last_rows = 0;
            s.to.row_stride -= 2;
            expect_all("halves, row_stride less than a row", OK, STRIDE, OK);
            s.to.row_stride++;
            expect_all("halves, row_stride unaligned", OK, ALIGN, OK);
        }
    }
}
END_TEST

/* One row for each of the two sequences. */
static void sums(void)
{
    s.to.form = TRIL_WEIGHTS_COLUMN_SUMS;
    s.to.data = arena.sums;
    s.to.bytes = sizeof(arena.sums);
    s.to.head_stride = sizeof(arena.sums[0]);
    s.to.row_stride = sizeof(arena.sums[0][0]);
}

static void set_up_sums(void)
{
    set_up();
    sums();
}

static const struct fault sum_faults[] = {
    {"no fault", CALL(team_call), 0, OK, OK, OK},
    {"last_rows 1", TO(last_rows), 1, OK, OK, OK},
    {"last_rows 3", TO(last_rows), 3, OK, OK, OK},
    {"last_rows max", TO(last_rows), INT64_MAX, OK, OK, OK},
    {"last_rows -1", TO(last_rows), -1, OK, SHAPE, OK},
    {"last_rows min", TO(last_rows), INT64_MIN, OK, SHAPE, OK},
    {"in F16", TO(dtype), TRIL_F16, OK, DTYPE, OK},
    {"in BF16", TO(dtype), TRIL_BF16, OK, DTYPE, OK},
    {"in I8", TO(dtype), TRIL_I8, OK, DTYPE, OK},
    {"null", TO(data), 0, OK, E_NULL, OK},
    {"bytes 1 short", TO(bytes), HEADS * 2 * COLUMNS * 4 - 1, OK, EXTENT, OK},
    {"bytes 0", TO(bytes), 0, OK, EXTENT, OK},
    {"bytes -1", TO(bytes), -1, OK, EXTENT, OK},
    {"row_stride < 0", TO(row_stride), -COLUMNS * 4, OK, STRIDE, OK},
    {"row_stride 0", TO(row_stride), 0, OK, STRIDE, OK},
    {"row_stride < row", TO(row_stride), COLUMNS * 4 - 4, OK, STRIDE, OK},
    {"row_stride unaligned", TO(row_stride), COLUMNS * 4 - 2, OK, ALIGN, OK},
    {"row_stride past the next head", TO(row_stride), COLUMNS * 4 + 4, OK, STRIDE, OK},
    {"row_stride huge", TO(row_stride), HUGE_STRIDE, OK, OVERFLOW, OK},
    {"head_stride < 0", TO(head_stride), -COLUMNS * 8, OK, STRIDE, OK},
    {"head_stride 0", TO(head_stride), 0, OK, STRIDE, OK},
    {"head_stride < matrix", TO(head_stride), COLUMNS * 8 - 4, OK, STRIDE, OK},
    {"head_stride unaligned", TO(head_stride), COLUMNS * 8 + 2, OK, ALIGN, OK},
    {"head_stride past the extent", TO(head_stride), COLUMNS * 8 + 4, OK, EXTENT, OK},
    {"head_stride huge", TO(head_stride), HUGE_STRIDE, OK, OVERFLOW, OK},
    {"unnormalised", CALL(flags), TRIL_UNNORMALISED, OK, UNSUPPORTED, OK},
};

START_TEST(one_field_of_sums)
{
    set_up_sums();
    expect_fault(&sum_faults[_i]);
}
END_TEST

START_TEST(aliases_of_sums)
{
    const int64_t size = sizeof(arena.sums);
    const struct {
        const char *name;
        void *at;
        int64_t bytes;
        int weights;
    } others[] = {{"q", arena.q, sizeof(arena.q), ALIAS},
                  {"k", arena.k, sizeof(arena.k), ALIAS},
                  {"v", arena.v, sizeof(arena.v), OK},
                  {"row_max", arena.row_max, sizeof(arena.row_max), ALIAS},
                  {"seqs", arena.seqs, sizeof(arena.seqs), ALIAS},
                  {"logits", arena.logits, sizeof(arena.logits), ALIAS},
                  {"slopes", arena.slopes, sizeof(arena.slopes), ALIAS},
                  {"tree", arena.tree, QUERIES * sizeof(arena.tree[0]) - 8, ALIAS},
                  {"the workspace", arena.workspace, 4096, ALIAS}};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        const int64_t by[] = {0, 4 - size, others[i].bytes - 4};
        for (size_t j = 0; j < sizeof(by) / sizeof(by[0]); j++) {
            set_up_options();
            sums();
            s.to.data = (char *)others[i].at + by[j];
            expect_all(others[i].name, OK, others[i].weights, OK);
        }
    }
    set_up_sums();
    for (int by = 1; by < 4; by++) {
        s.to.data = (char *)arena.sums + by;
        expect_all("unaligned", OK, ALIGN, OK);
    }
    set_up_sums(); /* a sequence with keys, but without queries, counts for nothing */
    arena.seqs[0].q_len = 0;
    s.to.row_stride = 8;
    s.to.head_stride = 16;
    s.to.bytes = HEADS * 16;
    expect_all("the longest that has queries", OK, OK, OK);
}
END_TEST

/* A table's entries of pages that left every window, or, with a tree that shows nothing of the new tokens, that no
 * query sees: any numbers. All others must be blocks. */
struct unseen_pages {
    int64_t window, sinks;
    int used[2][3]; /* of each sequence's pages */
};

static void set_up_unseen_pages(const struct unseen_pages *x, bool tree)
{
    set_up_pages();
    s.call.window = x->window;
    s.call.sink_tokens = x->sinks;
    if (tree) {
        memset(arena.tree, 0, sizeof(arena.tree));
        s.call.tree = &arena.tree[0][0];
        s.call.tree_row_stride = sizeof(arena.tree[0]);
        s.call.tree_bytes = sizeof(arena.tree);
    }
    for (int j = 0; j < 3; j++) {
        if (!x->used[0][j]) arena.tables[0][j] = -1;
        if (!x->used[1][j]) arena.tables[1][j] = INT32_MAX;
    }
}

static void expect_unseen_pages(const struct unseen_pages *x, bool tree)
{
    char name[96];
    snprintf(name, sizeof(name), "window %d, sinks %d%s", (int)x->window, (int)x->sinks, tree ? ", tree" : "");
    set_up_unseen_pages(x, tree);
    expect_all(name, OK, OK, OK);
    for (int seq = 0; seq < 2; seq++) {
        for (int page = 0; page < 3; page++) {
            if (!x->used[seq][page]) continue;
            set_up_unseen_pages(x, tree);
            arena.tables[seq][page] = -1;
            expect_all(name, BLOCK_TABLE, BLOCK_TABLE, OK);
        }
    }
}

START_TEST(block_tables_behind_a_window)
{
    static const struct unseen_pages cases[] = {
        {0, 0, {{1, 1, 1}, {1, 1, 0}}},  {8, 0, {{0, 1, 1}, {1, 1, 0}}},  {7, 0, {{0, 1, 1}, {1, 1, 0}}},
        {6, 0, {{0, 0, 1}, {1, 1, 0}}},  {5, 0, {{0, 0, 1}, {1, 1, 0}}},  {3, 0, {{0, 0, 1}, {0, 1, 0}}},
        {22, 0, {{0, 1, 1}, {1, 1, 0}}}, {23, 0, {{1, 1, 1}, {1, 1, 0}}}, {5, 1, {{1, 0, 1}, {1, 1, 0}}},
        {3, 16, {{1, 0, 1}, {1, 1, 0}}}, {3, 17, {{1, 1, 1}, {1, 1, 0}}}, {3, INT64_MAX, {{1, 1, 1}, {1, 1, 0}}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_unseen_pages(&cases[i], false);
}
END_TEST

/* A page that begins before the range: its first keys are sinks and take no part, its last ones have left the window.
 */
START_TEST(block_table_across_a_key_range)
{
    enum { TOKENS = 528, LAST = 771 };
    static float kv[2][TOKENS][4], out[4], q[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    int32_t table[2] = {-1, 1};
    tril_seq seq = {.q_len = 1, .kv_len = LAST, .key_begin = 512, .key_end = LAST, .blocks = table};
    tril_attention call = {
        .struct_size = sizeof(call),
        .q_heads = 1,
        .kv_heads = 1,
        .qk_dim = 4,
        .v_dim = 4,
        .q = {.data = q, .bytes = sizeof(q), .token_stride = 16, .head_stride = 16},
        .k = {.data = kv, .bytes = sizeof(kv), .token_stride = 16, .head_stride = 16, .block_stride = sizeof(kv[0])},
        .out = {.data = out, .bytes = sizeof(out), .token_stride = 16, .head_stride = 16},
        .seqs = &seq,
        .n_seqs = 1,
        .block_tokens = TOKENS,
        .n_blocks = 2,
        .window = LAST - TOKENS,
        .sink_tokens = 5};
    call.v = call.k;
    size_t bytes = 0;
    ck_assert_int_eq(tril_workspace(&call, 1, &bytes), TRIL_OK);
    void *workspace = malloc(bytes);
    ck_assert_int_eq(tril_attend(&call, workspace, bytes), TRIL_OK);
    call.window++;
    ck_assert_int_eq(tril_attend(&call, workspace, bytes), TRIL_ERR_BLOCK_TABLE);
    table[0] = 0;
    ck_assert_int_eq(tril_attend(&call, workspace, bytes), TRIL_OK);
    free(workspace);
}
END_TEST

START_TEST(block_tables_behind_a_tree)
{
    static const struct unseen_pages cases[] = {
        {0, 0, {{1, 1, 1}, {1, 1, 0}}},
        {3, 0, {{0, 0, 1}, {0, 1, 0}}}, /* the first query still sees keys before the tree's */
        {1, 0, {{0, 0, 0}, {0, 0, 0}}},
        {1, 1, {{1, 0, 0}, {1, 0, 0}}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect_unseen_pages(&cases[i], true);
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

    /* Keys or values may be q's rows, and out, but not both: they are read while out is written. */
    for (int values = 0; values < 2; values++) {
        set_up();
        arena.seqs[0] = (tril_seq){.q_len = QUERIES, .kv_len = QUERIES};
        s.call.n_seqs = 1;
        s.call.kv_heads = HEADS;
        s.call.k = s.call.v = s.call.q;
        *(values ? &s.call.k.data : &s.call.v.data) = arena.out;
        s.call.out.data = arena.q;
        expect_all(values ? "v and out over q" : "k and out over q", ALIAS, OK, OK);
    }
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

/* A team's workspace that plainly was never zeroed is refused by every thread, before and after calls that use it
 * rightly; a single thread takes any. */
START_TEST(workspace_never_zeroed)
{
    size_t bytes = 0;
    ck_assert_int_eq(tril_workspace(&s.call, 2, &bytes), TRIL_OK);
    char *room = malloc(bytes + LINE), *first = room, *was = malloc(bytes + LINE);
    ck_assert_ptr_nonnull(room);
    ck_assert_ptr_nonnull(was);
    while ((uintptr_t)first % LINE != 0) /* where the library begins */
        first++;
    memcpy(&before, &arena, sizeof(arena));
    for (int i = -1; i < 16; i++) {
        memset(room, i < 0 ? 0xa5 : 0, bytes + LINE);
        if (i >= 0) first[i] = 1;
        memcpy(was, room, bytes + LINE);
        for (int thread = 0; thread < 2; thread++) {
            expect("never zeroed", "tril_attend_team", tril_attend_team(&s.call, first, bytes, thread, 2), WORKSPACE);
            expect("never zeroed", "tril_weights_team", tril_weights_team(&s.call, &s.to, first, bytes, thread, 2),
                   WORKSPACE);
        }
        ck_assert_msg(memcmp(was, room, bytes + LINE) == 0, "written to, byte %d", i);
        ck_assert_int_eq(tril_attend(&s.call, first, bytes), TRIL_OK);
        memcpy(&before, &arena, sizeof(arena));
    }
    memset(room, 0, bytes + LINE);
    for (int turn = 0; turn < 3; turn++) {
        ck_assert_int_eq(tril_attend_team(&s.call, first, bytes, turn % 2, 2), TRIL_OK);
        ck_assert_int_eq(tril_attend(&s.call, first, bytes), TRIL_OK); /* keeps what the team has there */
    }
    first[8] ^= 1;
    memcpy(&before, &arena, sizeof(arena));
    expect("spoilt later", "tril_attend_team", tril_attend_team(&s.call, first, bytes, 0, 2), WORKSPACE);
    free(was);
    free(room);
}
END_TEST

/* The size of a call of billions of queries is known at once: the test's time limit would end a walk over its tasks. */
START_TEST(workspace_of_billions)
{
    static const int threads[] = {1, 2, 256};
    s.call.q_heads = 65536;
    s.call.kv_heads = 65536;
    s.call.n_seqs = 2;
    arena.seqs[0] = (tril_seq){.q_len = INT32_MAX, .kv_len = INT32_MAX};
    arena.seqs[1] = (tril_seq){.q_first = INT32_MAX, .q_len = 1, .kv_len = 40};
    for (int i = 0; i < 3; i++) {
        size_t bytes = 0, one = 0;
        ck_assert_int_eq(tril_workspace(&s.call, threads[i], &bytes), TRIL_OK);
        s.call.n_seqs = 1;
        ck_assert_int_eq(tril_workspace(&s.call, threads[i], &one), TRIL_OK);
        s.call.n_seqs = 2;
        ck_assert_uint_ge(bytes, one);
        ck_assert_uint_gt(bytes, 0);
    }
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
/* Heads of K lie together and those of V do not: a size for both serves weights, which look at K alone. */
START_TEST(workspace_of_heads_apart)
{
    enum { Q = 32, KV = 8, N = 200000, ROWS = Q * 4 };
    static float q[Q], out[Q];
    const tril_seq seq = {.q_len = 1, .kv_len = N};
    float *k = calloc(N * KV, sizeof(float)), *weights = malloc((size_t)N * ROWS);
    const tril_attention call = {
        .struct_size = sizeof(call),
        .q_heads = Q,
        .kv_heads = KV,
        .qk_dim = 1,
        .v_dim = 1,
        .q = {.data = q, .bytes = sizeof(q), .token_stride = sizeof(q), .head_stride = 4},
        .k = {.data = k, .bytes = N * KV * 4, .token_stride = KV * 4, .head_stride = 4},
        .v = {.data = k, .bytes = N * KV * 4, .token_stride = 4, .head_stride = N * 4},
        .out = {.data = out, .bytes = sizeof(out), .token_stride = sizeof(out), .head_stride = 4},
        .seqs = &seq,
        .n_seqs = 1};
    const tril_weights_out to = {.struct_size = sizeof(to),
                                 .data = weights,
                                 .bytes = (int64_t)N * ROWS,
                                 .head_stride = N * 4,
                                 .row_stride = N * 4};
    size_t bytes = 0;
    ck_assert_int_eq(tril_workspace(&call, 2, &bytes), TRIL_OK);
    void *workspace = calloc(1, bytes);
    ck_assert_int_eq(tril_weights_team(&call, &to, workspace, bytes, 0, 2), TRIL_OK);
    ck_assert_int_eq(tril_attend_team(&call, workspace, bytes, 0, 2), TRIL_OK);
    free(workspace);
    free(weights);
    free(k);
}
END_TEST

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
    {"from.dtype I8", APPEND(from.dtype), TRIL_I8, DTYPE, DTYPE},
    {"from.dtype unknown", APPEND(from.dtype), TRIL_DTYPE_COUNT, DTYPE, DTYPE},
    {"from.layout PANELS", APPEND(from.layout), TRIL_PANELS, DTYPE, DTYPE},
    {"from.layout unknown", APPEND(from.layout), TRIL_LAYOUT_COUNT, DTYPE, DTYPE},
    {"cache.dtype F16", APPEND(cache.dtype), TRIL_F16, OK, OK},
    {"cache.dtype I8", APPEND(cache.dtype), TRIL_I8, E_NULL, E_NULL},
    {"cache.dtype Q8_0", APPEND(cache.dtype), TRIL_Q8_0, SHAPE, DTYPE},
    {"cache.dtype Q4_0", APPEND(cache.dtype), TRIL_Q4_0, SHAPE, DTYPE},
    {"cache.block_stride", APPEND(cache.block_stride), 512, STRUCT, STRUCT},
    {"cache.scales", APPEND(cache.scales), 64, STRUCT, STRUCT},
    {"cache.scales_bytes", APPEND(cache.scales_bytes), 4, STRUCT, STRUCT},
    {"cache.scale_token_stride", APPEND(cache.scale_token_stride), 4, STRUCT, STRUCT},
    {"cache.scale_head_stride", APPEND(cache.scale_head_stride), 4, STRUCT, STRUCT},
    {"cache.scale_block_stride", APPEND(cache.scale_block_stride), 4, STRUCT, STRUCT},
    {"from.block_stride", APPEND(from.block_stride), 512, STRUCT, STRUCT},
    {"from.scales", APPEND(from.scales), 64, STRUCT, STRUCT},
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

/* tril_append() into a cache of each type: tokens 2 ... 4, from floats. */
static void set_up_stored_append(int type)
{
    set_up();
    a = (struct appending){.cache = stored(arena.wide_k, type, 5, KV_HEADS, types[type].row),
                           .from = stored(arena.wide_q, TRIL_F32, 4, KV_HEADS, types[TRIL_F32].row),
                           .at = 2,
                           .from_token = 1,
                           .tokens = 3,
                           .kv_heads = KV_HEADS,
                           .dim = WIDE};
    add_scales(&a.cache, &arena.k_scales[0][0][0], 5);
    for (int i = 0; i < QUERIES * HEADS * WIDE; i++)
        (&arena.wide_q[0][0][0])[i] = (float)(i * 37 % 64 - 32) / 16.0f;
}

static void expect_append(const char *type, const char *name, int status)
{
    char text[96];
    snprintf(text, sizeof(text), "%s: %s", type, name);
    const struct appending given = a;
    memcpy(&before, &arena, sizeof(arena));
    expect(text, "tril_append", append(), status);
    ck_assert(memcmp(&given, &a, sizeof(a)) == 0);
}

START_TEST(append_to_stored_types)
{
    const char *const type = types[_i].name;
    const int64_t unit = types[_i].unit, row = types[_i].row, token = KV_HEADS * row;
    const int odd = unit == 1 ? STRIDE : ALIGN;
    const struct tensor_fault type_faults[] = {
        {"no fault", TENSOR(bytes), 5 * token, OK},
        {"data null", TENSOR(data), 0, E_NULL},
        {"bytes 1 short", TENSOR(bytes), 5 * token - 1, EXTENT},
        {"bytes -1", TENSOR(bytes), -1, EXTENT},
        {"token_stride 0", TENSOR(token_stride), 0, STRIDE},
        {"token_stride < 0", TENSOR(token_stride), -token, STRIDE},
        {"token_stride < token", TENSOR(token_stride), token - unit, STRIDE},
        {"token_stride unaligned", TENSOR(token_stride), token - 1, odd},
        {"token_stride past the extent", TENSOR(token_stride), token + unit, EXTENT},
        {"token_stride huge", TENSOR(token_stride), HUGE_STRIDE, OVERFLOW},
        {"head_stride 0", TENSOR(head_stride), 0, STRIDE},
        {"head_stride < 0", TENSOR(head_stride), -row, STRIDE},
        {"head_stride < row", TENSOR(head_stride), row - unit, STRIDE},
        {"head_stride unaligned", TENSOR(head_stride), row - 1, odd},
        {"head_stride huge", TENSOR(head_stride), HUGE_STRIDE, OVERFLOW},
        {"block_stride", TENSOR(block_stride), 5 * token, STRUCT},
    };
    for (size_t i = 0; i < sizeof(type_faults) / sizeof(type_faults[0]); i++) {
        set_up_stored_append(_i);
        put(&a.cache, &type_faults[i]);
        expect_append(type, type_faults[i].name, type_faults[i].status);
    }
    for (int by = 0; by < 5; by++) {
        set_up_stored_append(_i);
        a.cache.data = (const char *)a.cache.data + by;
        expect_append(type, "cache at", by % unit == 0 ? OK : ALIGN);
    }
    set_up_stored_append(_i);
    a.at++;
    expect_append(type, "a token too far", EXTENT);
    a.cache.bytes += token;
    expect_append(type, "a token further", _i == TRIL_I8 ? EXTENT : OK); /* of scales there are 5 */
    set_up_stored_append(_i);
    a.from.data = (const char *)a.cache.data + 5 * token - unit; /* for its first token, too */
    expect_append(type, "from at the cache's end", (5 * token - unit) % 4 == 0 ? ALIAS : ALIGN);
    set_up_stored_append(_i);
    a.from.data = a.cache.data;
    expect_append(type, "from is the cache", ALIAS);
    const bool in_blocks = _i == TRIL_Q8_0 || _i == TRIL_Q4_0;
    for (int dim = WIDE - 16; dim < WIDE; dim += 5) {
        set_up_stored_append(_i);
        a.dim = dim;
        expect_append(type, "part of a block", in_blocks ? SHAPE : OK);
    }
    set_up_stored_append(_i);
    a.cache = stored(arena.wide_panels, _i, (int64_t)PANELS * PANEL, KV_HEADS, row);
    a.cache.head_stride = row * PANEL;
    a.cache.layout = TRIL_PANELS;
    add_scales(&a.cache, &arena.k_scales[0][0][0], 5);
    expect_append(type, "panels", in_blocks ? DTYPE : OK);
    a.cache.bytes = KV_HEADS * row * PANEL - 1;
    expect_append(type, "panels 1 byte short", in_blocks ? DTYPE : EXTENT);
}
END_TEST

START_TEST(append_with_scales)
{
    static const struct tensor_fault cache[] = {
        {"scales null", TENSOR(scales), 0, E_NULL},
        {"scales_bytes 1 short", TENSOR(scales_bytes), 5 * KV_HEADS * 4 - 1, EXTENT},
        {"scales_bytes -1", TENSOR(scales_bytes), -1, EXTENT},
        {"scale_token_stride 0", TENSOR(scale_token_stride), 0, STRIDE}, /* each token and head has its own */
        {"scale_token_stride < 0", TENSOR(scale_token_stride), -KV_HEADS * 4, STRIDE},
        {"scale_token_stride of a head", TENSOR(scale_token_stride), 4, STRIDE},
        {"scale_token_stride unaligned", TENSOR(scale_token_stride), KV_HEADS * 4 + 2, ALIGN},
        {"scale_token_stride past the extent", TENSOR(scale_token_stride), KV_HEADS * 4 + 4, EXTENT},
        {"scale_token_stride huge", TENSOR(scale_token_stride), HUGE_STRIDE, OVERFLOW},
        {"scale_head_stride 0", TENSOR(scale_head_stride), 0, STRIDE},
        {"scale_head_stride < 0", TENSOR(scale_head_stride), -4, STRIDE},
        {"scale_head_stride unaligned", TENSOR(scale_head_stride), 2, ALIGN},
        {"scale_head_stride huge", TENSOR(scale_head_stride), HUGE_STRIDE, OVERFLOW},
        {"scale_block_stride", TENSOR(scale_block_stride), 4, STRUCT},
        {"scale_block_stride < 0", TENSOR(scale_block_stride), -4, STRUCT},
    };
    static const struct tensor_fault unused[] = {
        {"scales", TENSOR(scales), 64, STRUCT},
        {"scales_bytes", TENSOR(scales_bytes), 4, STRUCT},
        {"scale_token_stride", TENSOR(scale_token_stride), 4, STRUCT},
        {"scale_head_stride", TENSOR(scale_head_stride), 4, STRUCT},
        {"scale_block_stride", TENSOR(scale_block_stride), 4, STRUCT},
        {"block_stride", TENSOR(block_stride), 512, STRUCT},
    };
    for (size_t i = 0; i < sizeof(cache) / sizeof(cache[0]); i++) {
        set_up_stored_append(TRIL_I8);
        put(&a.cache, &cache[i]);
        expect_append("I8", cache[i].name, cache[i].status);
    }
    for (size_t i = 0; i < sizeof(unused) / sizeof(unused[0]); i++) {
        set_up_stored_append(TRIL_I8);
        put(&a.from, &unused[i]);
        expect_append("from", unused[i].name, unused[i].status);
        for (int type = 0; type < TRIL_DTYPE_COUNT; type++) {
            set_up_stored_append(type);
            put(&a.cache, &unused[i]);
            if (type != TRIL_I8 || i >= 4) expect_append(types[type].name, unused[i].name, unused[i].status);
        }
    }
    for (int by = 0; by < 5; by++) {
        set_up_stored_append(TRIL_I8);
        const uintptr_t p = (uintptr_t)arena.k_scales + (uintptr_t)by;
        memcpy(&a.cache.scales, &p, sizeof(p));
        expect_append("I8", "scales at", by % 4 == 0 ? OK : ALIGN);
    }
    const void *const taken[] = {arena.wide_k, arena.wide_k[0][0] + 5 * KV_HEADS * WIDE / 4 - 1, arena.wide_q};
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        set_up_stored_append(TRIL_I8);
        a.cache.scales = taken[i];
        expect_append("I8", "scales in the cache or in from", ALIAS);
    }
    set_up_stored_append(TRIL_I8);
    a.tokens = 0;
    a.cache.scales = NULL;
    a.cache.scales_bytes = 0;
    expect_append("I8", "no tokens, no scales", OK);
    /* A scale behind each row of bytes of its own: one head. */
    set_up_stored_append(TRIL_I8);
    a.kv_heads = 1;
    a.cache.token_stride = a.cache.scale_token_stride = WIDE + 4;
    a.cache.bytes = 4 * (WIDE + 4) + WIDE;
    a.cache.scales = &arena.wide_k[0][0][0] + WIDE / 4;
    a.cache.scales_bytes = 4 * (WIDE + 4) + 4;
    expect_append("I8", "a scale behind each row", OK);
    a.cache.head_stride = a.cache.scale_head_stride = 5 * (WIDE + 4);
    expect_append("I8", "a scale behind each row, a stride for more heads", OK);
    /* The same of two heads, one behind the other; and then without room: it would be in the next token's row. */
    a.kv_heads = 2;
    a.cache.bytes += 5 * (WIDE + 4);
    a.cache.scales_bytes += 5 * (WIDE + 4);
    expect_append("I8", "a scale behind each row, head by head", OK);
    a.cache.token_stride = a.cache.scale_token_stride = WIDE;
    expect_append("I8", "a scale in the next token's row, two heads", ALIAS);
    a.kv_heads = 1;
    expect_append("I8", "a scale in the next token's row", ALIAS);
    a.at = a.from_token = 0;
    a.tokens = 1;
    expect_append("I8", "a scale behind the only row", OK);
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

/* tril_convert(): the arena's q, or what has been put there, to out. Bytes are added to the four pointers, or NONE. */
#define NONE (-1)
static const struct {
    const char *name;
    int to_dtype, from_dtype;
    int to, to_scale, from, from_scale;
    int64_t n;
    int status;
} convert_faults[] = {
    {"to F32", TRIL_F32, TRIL_F32, 0, NONE, 0, NONE, 33, OK},
    {"to F16", TRIL_F16, TRIL_F32, 0, NONE, 0, NONE, 33, OK},
    {"to BF16", TRIL_BF16, TRIL_F32, 0, NONE, 0, NONE, 33, OK},
    {"to I8", TRIL_I8, TRIL_F32, 0, 0, 0, NONE, 33, OK},
    {"to Q8_0", TRIL_Q8_0, TRIL_F32, 0, NONE, 0, NONE, 64, OK},
    {"to Q4_0", TRIL_Q4_0, TRIL_F32, 0, NONE, 0, NONE, 64, OK},
    {"from F16", TRIL_F32, TRIL_F16, 0, NONE, 0, NONE, 33, OK},
    {"from BF16", TRIL_F32, TRIL_BF16, 0, NONE, 0, NONE, 33, OK},
    {"from I8", TRIL_F32, TRIL_I8, 0, NONE, 0, 0, 33, OK},
    {"from Q8_0", TRIL_F32, TRIL_Q8_0, 0, NONE, 0, NONE, 64, OK},
    {"from Q4_0", TRIL_F32, TRIL_Q4_0, 0, NONE, 0, NONE, 64, OK},
    {"to null", TRIL_F16, TRIL_F32, NONE, NONE, 0, NONE, 1, E_NULL},
    {"from null", TRIL_F16, TRIL_F32, 0, NONE, NONE, NONE, 1, E_NULL},
    {"to_scale null", TRIL_I8, TRIL_F32, 0, NONE, 0, 0, 1, E_NULL},
    {"to_scale null, no element", TRIL_I8, TRIL_F32, 0, NONE, 0, 0, 0, E_NULL},
    {"from_scale null", TRIL_F32, TRIL_I8, 0, 0, 0, NONE, 1, E_NULL},
    {"no element, no memory", TRIL_Q8_0, TRIL_F32, NONE, NONE, NONE, NONE, 0, OK},
    {"no element, no memory, F32", TRIL_F32, TRIL_F32, NONE, NONE, NONE, NONE, 0, OK},
    {"no element, a scale", TRIL_I8, TRIL_F32, NONE, 0, NONE, NONE, 0, OK},
    {"n -1", TRIL_F16, TRIL_F32, 0, NONE, 0, NONE, -1, SHAPE},
    {"n -32", TRIL_Q8_0, TRIL_F32, 0, NONE, 0, NONE, -32, SHAPE},
    {"n min", TRIL_F32, TRIL_I8, 0, NONE, 0, 0, INT64_MIN, SHAPE},
    {"n 2^31", TRIL_Q8_0, TRIL_F32, 0, NONE, 0, NONE, INT64_C(1) << 31, SHAPE},
    {"n 2^32 + 32", TRIL_F32, TRIL_F16, 0, NONE, 0, NONE, (INT64_C(1) << 32) + 32, SHAPE},
    {"n max", TRIL_F32, TRIL_F32, 0, NONE, 0, NONE, INT64_MAX, SHAPE},
    {"half a block to Q8_0", TRIL_Q8_0, TRIL_F32, 0, NONE, 0, NONE, 16, SHAPE},
    {"half a block to Q4_0", TRIL_Q4_0, TRIL_F32, 0, NONE, 0, NONE, 16, SHAPE},
    {"a block and 1 from Q8_0", TRIL_F32, TRIL_Q8_0, 0, NONE, 0, NONE, 33, SHAPE},
    {"a block and 1 from Q4_0", TRIL_F32, TRIL_Q4_0, 0, NONE, 0, NONE, 33, SHAPE},
    {"to F32 unaligned", TRIL_F32, TRIL_BF16, 2, NONE, 0, NONE, 1, ALIGN},
    {"to F16 unaligned", TRIL_F16, TRIL_F32, 1, NONE, 0, NONE, 1, ALIGN},
    {"to BF16 unaligned", TRIL_BF16, TRIL_F32, 3, NONE, 0, NONE, 1, ALIGN},
    {"to Q8_0 unaligned", TRIL_Q8_0, TRIL_F32, 1, NONE, 0, NONE, 32, ALIGN},
    {"to Q4_0 unaligned", TRIL_Q4_0, TRIL_F32, 1, NONE, 0, NONE, 32, ALIGN},
    {"from F32 unaligned", TRIL_F16, TRIL_F32, 0, NONE, 2, NONE, 1, ALIGN},
    {"from F16 unaligned", TRIL_F32, TRIL_F16, 0, NONE, 1, NONE, 1, ALIGN},
    {"from Q8_0 unaligned", TRIL_F32, TRIL_Q8_0, 0, NONE, 1, NONE, 32, ALIGN},
    {"to_scale unaligned", TRIL_I8, TRIL_F32, 0, 2, 0, NONE, 1, ALIGN},
    {"from_scale unaligned", TRIL_F32, TRIL_I8, 0, NONE, 0, 1, 1, ALIGN},
    {"to I8 anywhere", TRIL_I8, TRIL_F32, 1, 0, 0, NONE, 33, OK},
    {"from I8 anywhere", TRIL_F32, TRIL_I8, 0, NONE, 3, 0, 33, OK},
    {"halves at 2", TRIL_F16, TRIL_F32, 2, NONE, 4, NONE, 33, OK},
    {"blocks at 2", TRIL_F32, TRIL_Q4_0, 4, NONE, 2, NONE, 64, OK},
    {"scales of others are ignored", TRIL_F16, TRIL_F32, 0, 1, 0, 1, 33, OK},
};

/* Through an integer, since a float pointer may not be unaligned. */
static void *past(void *p, int bytes)
{
    return bytes == NONE ? NULL : (void *)((uintptr_t)p + (uintptr_t)bytes);
}

START_TEST(one_fault_of_a_conversion)
{
    memcpy(&before, &arena, sizeof(arena));
    expect(convert_faults[_i].name, "tril_convert",
           tril_convert(past(arena.out, convert_faults[_i].to), (tril_dtype)convert_faults[_i].to_dtype,
                        past(arena.row_max, convert_faults[_i].to_scale), past(arena.q, convert_faults[_i].from),
                        (tril_dtype)convert_faults[_i].from_dtype, past(arena.row_sum, convert_faults[_i].from_scale),
                        convert_faults[_i].n),
           convert_faults[_i].status);
}
END_TEST

START_TEST(dtypes_of_a_conversion)
{
    static const int unknown[] = {-1, TRIL_DTYPE_COUNT, INT_MIN, INT_MAX};
    memcpy(&before, &arena, sizeof(arena));
    for (int to = 0; to < TRIL_DTYPE_COUNT + 4; to++) {
        for (int from = 0; from < TRIL_DTYPE_COUNT + 4; from++) {
            const int is_to = to < TRIL_DTYPE_COUNT ? to : unknown[to - TRIL_DTYPE_COUNT];
            const int is_from = from < TRIL_DTYPE_COUNT ? from : unknown[from - TRIL_DTYPE_COUNT];
            const bool known = to < TRIL_DTYPE_COUNT && from < TRIL_DTYPE_COUNT;
            char name[64];
            snprintf(name, sizeof(name), "dtype %d to %d", is_from, is_to);
            expect(name, "tril_convert",
                   tril_convert(arena.out, (tril_dtype)is_to, &arena.row_max[0][0], arena.q, (tril_dtype)is_from,
                                &arena.row_sum[0][0], 32),
                   known && (is_to == TRIL_F32 || is_from == TRIL_F32) ? OK : DTYPE);
        }
    }
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
    tcase_add_loop_test(tcase, one_field_of_a_stored_operand, 0, N_CASES);
    tcase_add_test(tcase, bytes_at_any_stride);
    tcase_add_test(tcase, every_pair_of_types);
    tcase_add_test(tcase, heads_of_whole_blocks);
    tcase_add_test(tcase, panels_of_stored_types);
    tcase_add_test(tcase, halves_are_whole_results);
    tcase_add_loop_test(tcase, fields_of_other_types, 0, 3 * TRIL_DTYPE_COUNT);
    tcase_add_loop_test(tcase, one_field_of_scales, 0, (int)(sizeof(scale_faults) / sizeof(scale_faults[0])));
    tcase_add_test(tcase, scales);
    tcase_add_loop_test(tcase, one_field_of_pages, 0, (int)(sizeof(page_faults) / sizeof(page_faults[0])));
    tcase_add_test(tcase, places_of_pages);
    tcase_add_test(tcase, scales_in_pages);
    tcase_add_test(tcase, panels_in_pages);
    tcase_add_test(tcase, entries_of_a_block_table);
    tcase_add_test(tcase, block_tables_of_key_ranges);
    tcase_add_test(tcase, block_tables);
    tcase_add_test(tcase, block_table_between_guards);
    tcase_add_test(tcase, aliases_of_block_tables);
    tcase_add_test(tcase, workspace_of_pages);
    tcase_add_loop_test(tcase, one_field_of_options, 0, (int)(sizeof(option_faults) / sizeof(option_faults[0])));
    tcase_add_test(tcase, scales_by_softcaps);
    tcase_add_test(tcase, numbers_of_heads);
    tcase_add_test(tcase, unaligned_options);
    tcase_add_test(tcase, aliases_of_options);
    tcase_add_test(tcase, prefixes);
    tcase_add_test(tcase, rows_of_a_tree);
    tcase_add_test(tcase, packed_form_of_options);
    tcase_add_test(tcase, weights_in_16_bits);
    tcase_add_loop_test(tcase, one_field_of_sums, 0, (int)(sizeof(sum_faults) / sizeof(sum_faults[0])));
    tcase_add_test(tcase, aliases_of_sums);
    tcase_add_test(tcase, block_tables_behind_a_window);
    tcase_add_test(tcase, block_table_across_a_key_range);
    tcase_add_test(tcase, block_tables_behind_a_tree);
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
    tcase_add_test(tcase, workspace_never_zeroed);
    tcase_add_test(tcase, workspace_of_billions);
    tcase_add_test(tcase, workspace_of_heads_apart);
    tcase_add_test(tcase, workspace_never_shrinks);
    tcase_add_loop_test(tcase, one_field_of_a_merge, 0, (int)(sizeof(merge_faults) / sizeof(merge_faults[0])));
    tcase_add_test(tcase, merge_of_nothing);
    tcase_add_loop_test(tcase, one_field_of_an_append, 0, (int)(sizeof(append_faults) / sizeof(append_faults[0])));
    tcase_add_loop_test(tcase, append_to_stored_types, 0, TRIL_DTYPE_COUNT);
    tcase_add_test(tcase, append_with_scales);
    tcase_add_test(tcase, append_elsewhere);
    tcase_add_loop_test(tcase, one_fault_of_a_conversion, 0, (int)(sizeof(convert_faults) / sizeof(convert_faults[0])));
    tcase_add_test(tcase, dtypes_of_a_conversion);
    tcase_add_test(tcase, texts);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
