/* tril verify: every tier of this machine against the scalar oracle, bit for bit, and both against double, within the
 * bound of docs/contract.md.
 *
 * A case is computed in F32, in math mode BF16, and in one of the forms below, whose operands are of other types. Every
 * tier computes it with K in rows, with K in panels that tril_append() has filled, with K and V in pages, and, if asked
 * for, by a team of threads, which has K in the one or the other. The oracle is the scalar tier with K in rows, on one
 * thread, and the reference takes what the stored values are worth.
 *
 * A last case has masks or score options, a mixture of which each case has in turn, in F32 or math mode BF16.
 *
 * A case is a function of (seed, number, form, mixture) alone: its sizes, its kind of content, and a host's habits.
 * Rows are padded, the padding and the tokens that no query sees are NaN, pages of such tokens alone have no block, and
 * outputs begin as a pattern, so that whatever is read or written where it must not be shows up in the comparison. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "operands.h"
#include "options.h"
#include "progress.h"
#include "random.h"
#include "reference.h"
#include "stored.h"
#include "tiers.h"
#include "tool.h"

static const char help[] =
    "usage: tril verify [OPTION]...\n\n"
    "Runs every tier (instruction set) of this machine on random and adversarial input: attend, its row statistics, "
    "and\n"
    "weights, dense and packed; with K in rows and in panels, and in pages; in F32, in math mode BF16, in one of the "
    "other\n"
    "types in turn, and with masks and score options, then with sums of columns as well.\n"
    "Compares each bit with the scalar tier and each value with the definition in double; prints tables with the "
    "worst\n"
    "errors in units of their bounds. Exit status 1 where a bit differs or a bound is exceeded.\n\n"
    "  --seed S       repeats a run; without it the clock gives one, and it is printed\n"
    "  --cases N      how many; default 200\n"
    "  --first N      the number of the first case; default 0\n"
    "  --isa TIER     this tier alone\n"
    "  --data DIR     real activations as well, in every type: the directory data of tril's source\n"
    "  --threads N    each case also by a team of N threads, at most 256; default 1: no team\n"
    "  -h, --help     this text\n";

enum { SEED = 256, CASES, FIRST, ISA, THREADS, DATA };

enum kind { USUAL, PEAKED, HUGE_LOGITS, TIES, FLAT, MINUS_INFINITE, INFINITE, WITH_NAN, SUBNORMAL, CANCELLING, KINDS };

static const char *const kind_names[KINDS] = {
    "usual",    "peaked",        "huge logits",       "ties",       "all scores equal", "scores of -inf",
    "infinite", "NaN somewhere", "subnormal numbers", "cancelling",
};

/* How operands are stored, and their result. */
static const struct form {
    tril_dtype k, v, q, out;
} forms[] = {
    {TRIL_F32, TRIL_F32, TRIL_F32, TRIL_F32},   {TRIL_F16, TRIL_F16, TRIL_F32, TRIL_F32},
    {TRIL_BF16, TRIL_BF16, TRIL_F32, TRIL_F32}, {TRIL_I8, TRIL_I8, TRIL_F32, TRIL_F32},
    {TRIL_Q8_0, TRIL_Q8_0, TRIL_F32, TRIL_F32}, {TRIL_Q4_0, TRIL_Q4_0, TRIL_F32, TRIL_F32},
    {TRIL_F32, TRIL_F32, TRIL_F16, TRIL_F16},   {TRIL_F32, TRIL_F32, TRIL_BF16, TRIL_BF16},
    {TRIL_F16, TRIL_F16, TRIL_F16, TRIL_F16},   {TRIL_BF16, TRIL_BF16, TRIL_BF16, TRIL_BF16},
    {TRIL_Q8_0, TRIL_Q4_0, TRIL_F32, TRIL_F16}, {TRIL_F16, TRIL_Q8_0, TRIL_F16, TRIL_F32},
    {TRIL_I8, TRIL_F32, TRIL_BF16, TRIL_BF16},  {TRIL_Q4_0, TRIL_I8, TRIL_F16, TRIL_BF16},
};
enum { IN_F32, FORMS = sizeof forms / sizeof forms[0] };

/* What a case asks for beside its scale. */
enum ask { NOTHING = 0, WINDOW = 1, SOFTCAP = 2, ALIBI = 4, SINK_LOGITS = 8, PREFIX = 16, TREE = 32, ALL = 63 };

static const struct mixture {
    const char *name;
    int asks;
    bool some; /* a random choice among these */
} mixtures[] = {
    {"window, sink tokens", WINDOW, false},
    {"softcap, ALiBi", SOFTCAP | ALIBI, false},
    {"sink logits", SINK_LOGITS, false},
    {"prefix", PREFIX, false},
    {"tree", TREE, false},
    {"all of them", ALL, false},
    {"some of them", ALL, true},
    {"none of them", NOTHING, false},
};
enum { MIXTURES = sizeof mixtures / sizeof mixtures[0] };

enum { PAD = 3, BEYOND = 2 }; /* elements between rows, tokens past the last key */
enum { MOST_THREADS = 256, MOST_TIERS = 16 };

struct sizes {
    enum kind kind;
    int group, kv_heads, qk_dim, v_dim, queries, keys;
};

struct case_data {
    struct sizes n;
    const struct form *form;
    bool real;  /* activations: both bounds for every output */
    bool mixed; /* has a mixture of masks and score options, be it of none, in the calls and in seq */
    float *slopes, *logits;
    uint64_t *tree;
    int64_t last_rows;      /* for the column sums */
    tril_dtype packed_type; /* of the packed weights */
    float *q, *k, *v;       /* [token][head][dim] */
    struct shape q_shape, k_shape, v_shape;
    struct stored stored_q, stored_k, stored_v; /* the same as the call has them */
    struct stored worth_q, worth_k, worth_v;    /* and as floats again */
    tril_attention call, in_floats;
    tril_seq seq;
    struct book book;
    int32_t *blocks; /* the book's table, but -1 for blocks where no query sees a token */
};

/* What a call wrote, all of it, the padding included. */
struct result {
    float *out, *max, *sum, *dense, *packed, *columns; /* floats, whatever they are stored as */
    size_t out_n, statistics_n, dense_n, packed_n, columns_n;
};

/* In units of a bound: of docs/contract.md's where it speaks, which is the output for logits of usual size; else of the
 * wide one (reference.h). */
struct errors {
    double usual, wide;
};

/* The ways to compute a case. */
enum way { ROWS, PANELS, PAGES, TEAM, WAYS };
static const char *const way_names[WAYS] = {"", " with K in panels", " in pages", " by the team"};

/* What came out of one way on one tier, or, of several tiers, the worst. */
struct verdict {
    const char *differs, *tier; /* the first difference, or null */
    struct errors errors;
};

struct score {
    int64_t cases, within, tried[WAYS], equal[WAYS];
    struct errors worst;
    bool by_wide;        /* within the bound is within the wide one */
    int64_t first_wrong; /* -1: none */
    struct verdict verdict;
    enum way how;
};

/* --- cases -------------------------------------------------------------------------------------------------------- */

static int pick(struct random *r, const int *from, int n)
{
    return from[random_below(r, n)];
}

static struct sizes choose_sizes(struct random *r)
{
    static const int dims[] = {1, 2, 7, 8, 15, 16, 17, 32, 48, 64, 64, 65, 80, 96, 112, 128, 128, 192, 256};
    static const int lengths[] = {1, 2, 15, 16, 17, 31, 33, 64, 100, 191, 193, 255, 256, 257, 300, 511, 512, 513, 600};
    const int n_dims = sizeof(dims) / sizeof(dims[0]), n_lengths = sizeof(lengths) / sizeof(lengths[0]);
    struct sizes n = {.kind = (enum kind)random_below(r, KINDS)};
    n.group = 1 + random_below(r, 5);
    n.kv_heads = 1 + random_below(r, 2);
    n.qk_dim = random_below(r, 4) == 0 ? 1 + random_below(r, 160) : pick(r, dims, n_dims);
    n.v_dim = random_below(r, 2) == 0 ? n.qk_dim : pick(r, dims, n_dims);
    n.keys = random_below(r, 3) == 0 ? 1 + random_below(r, 320) : pick(r, lengths, n_lengths);
    switch (random_below(r, 4)) {
    case 0: n.queries = 1; break;                           /* decode */
    case 1: n.queries = 1 + random_below(r, n.keys); break; /* a chunk */
    default: n.queries = n.keys;                            /* a prompt */
    }
    /* The oracle is slow: at most some 10 ms of it. */
    const int64_t most = 4000000, each = (int64_t)n.group * n.kv_heads * n.keys * (2 * n.qk_dim + n.v_dim);
    if (n.queries * each > most) n.queries = each > most ? 1 : (int)(most / each);
    return n;
}

/* Types whose numbers, or scales, are F16: what is large or small for them. */
static bool is_narrow(tril_dtype type)
{
    return type == TRIL_F16 || type == TRIL_Q8_0 || type == TRIL_Q4_0;
}

static bool in_blocks(tril_dtype type)
{
    return type == TRIL_Q8_0 || type == TRIL_Q4_0;
}

/* Types that have infinities and NaN of their own. */
static bool is_float(tril_dtype type)
{
    return type <= TRIL_BF16;
}

static float element(struct random *r, enum kind kind, char operand, tril_dtype type)
{
    const float x = random_normal(r), large = is_narrow(type) ? 1e4f : 1e6f;
    switch (kind) {
    case PEAKED: return operand == 'v' ? x : 3 * x;
    case HUGE_LOGITS: return operand == 'v' ? x : (is_narrow(type) ? 1e4f : 2e4f) * x;
    case TIES: return (float)(random_below(r, 3) - 1);
    case FLAT: return operand == 'q' ? 0 : x;
    case SUBNORMAL: return x * (is_narrow(type) ? 1e-5f : operand == 'v' ? 1e-39f : 1e-20f);
    case CANCELLING: return operand == 'v' ? (random_below(r, 2) ? large : -large) + x : 10 * x;
    default: return x;
    }
}

static float *fill(struct random *r, enum kind kind, char operand, struct shape shape, tril_dtype type)
{
    const int64_t n = shape.tokens * shape.heads * shape.dim;
    float *x = need((size_t)n, sizeof(float));
    for (int64_t i = 0; i < n; i++)
        x[i] = element(r, kind, operand, type);
    return x;
}

/* The kinds that are a few single elements among usual ones, where the type has them. */
static void spoil(struct case_data *c, struct random *r)
{
    const bool k_floats = is_float(c->form->k), v_floats = is_float(c->form->v);
    const int q_row = c->n.qk_dim, v_row = c->n.v_dim;
    const int key_rows = c->n.keys * c->n.kv_heads, query_rows = c->n.queries * c->n.kv_heads * c->n.group;
    for (int i = 0; i < 1 + key_rows / 16; i++) {
        float *q = c->q + (int64_t)random_below(r, query_rows) * q_row + random_below(r, c->n.qk_dim);
        float *k = c->k + (int64_t)random_below(r, key_rows) * q_row;
        float *v = c->v + (int64_t)random_below(r, key_rows) * v_row + random_below(r, c->n.v_dim);
        const int which = random_below(r, 3);
        if (c->n.kind == MINUS_INFINITE && k_floats) *k = -INFINITY; /* where a query's first element is positive */
        if (c->n.kind == INFINITE && which == 0 && v_floats) *v = INFINITY;
        if (c->n.kind == INFINITE && which == 1 && k_floats) k[c->n.qk_dim - 1] = INFINITY;
        if (c->n.kind != WITH_NAN || i >= 2) continue;
        if (which == 0) *q = NAN;
        if (which == 1 && k_floats) *k = NAN;
        if (which == 2 && v_floats) *v = NAN;
    }
    if (c->n.kind != MINUS_INFINITE) return;
    for (int i = 0; i < query_rows; i++)
        c->q[(int64_t)i * q_row] = fabsf(c->q[(int64_t)i * q_row]) + 0.01f;
    if (random_below(r, 4) > 0 || !k_floats) return;
    for (int i = 0; i < key_rows; i++) /* nothing but -inf */
        c->k[(int64_t)i * q_row] = -INFINITY;
}

/* The same kinds in blocks: an F16 scale that is not finite. */
static void spoil_scale(struct stored *x, enum kind kind, struct random *r)
{
    if (!in_blocks(x->x.dtype) || (kind != INFINITE && kind != WITH_NAN)) return;
    const uint16_t bits = kind == INFINITE ? 0x7c00 : 0x7e00;
    const int64_t token = random_below(r, (int)x->shape.tokens), head = random_below(r, (int)x->shape.heads);
    memcpy(x->memory + token * x->x.token_stride + head * x->x.head_stride, &bits, sizeof bits);
}

static float slope(struct random *r, int head, int heads, bool usual)
{
    return usual ? (float)exp2(-8.0 * (head + 1) / heads) : 0.1f * random_normal(r);
}

static float logit(struct random *r)
{
    switch (random_below(r, 8)) {
    case 0: return -INFINITY;
    case 1: return 60 * random_normal(r);
    default: return 3 * random_normal(r);
    }
}

/* A query sees its own token and that one's ancestors, or, now and then, anything. Rows are a word longer than they
 * have to be, and bits that stand for no token are ones. */
static void tree_make(struct case_data *c, struct random *r)
{
    const int n = c->n.queries, words = (n + 63) / 64 + 1;
    const bool anything = random_below(r, 4) == 0;
    c->tree = need((size_t)n * (size_t)words, sizeof(uint64_t));
    for (int i = 0; i < n; i++) {
        uint64_t *row = c->tree + (int64_t)i * words;
        const int parent = random_below(r, 3) == 0 ? random_below(r, i + 1) - 1 : i - 1;
        for (int t = 0; t < 64 * words; t++) {
            const bool ancestor =
                t == i || (parent >= 0 && (row[(int64_t)(parent - i) * words + t / 64] >> t % 64 & 1));
            if (t >= n || (anything ? random_below(r, 2) : ancestor)) row[t / 64] |= (uint64_t)1 << t % 64;
        }
    }
    c->call.tree = c->tree;
    c->call.tree_row_stride = 8 * words;
    c->call.tree_bytes = (int64_t)8 * n * words;
}

/* A mixture into the call and the sequence. */
static void case_ask(struct case_data *c, struct random *r, const struct mixture *mixture)
{
    static const int windows[] = {1, 2, 15, 16, 17, 64, 255, 256, 257, 300},
                     sinks[] = {0, 0, 1, 4, 4, 16, 17, 256, 300};
    static const float softcaps[] = {0.5f, 5, 30, 50};
    const int heads = c->n.group * c->n.kv_heads;
    const int asks = mixture->some ? 1 + random_below(r, ALL) : mixture->asks;
    c->mixed = true;
    if (asks & WINDOW) {
        c->call.window = random_below(r, 2) ? pick(r, windows, sizeof windows / sizeof windows[0])
                                            : 1 + random_below(r, c->n.keys + 8);
        c->call.sink_tokens = pick(r, sinks, sizeof sinks / sizeof sinks[0]);
    }
    if (asks & SOFTCAP) c->call.softcap = softcaps[random_below(r, 4)];
    if (asks & ALIBI) {
        const bool usual = random_below(r, 2);
        c->call.alibi_slopes = c->slopes = need((size_t)heads, sizeof(float));
        for (int h = 0; h < heads; h++)
            c->slopes[h] = slope(r, h, heads, usual);
    }
    if (asks & SINK_LOGITS) {
        c->call.sink_logits = c->logits = need((size_t)heads, sizeof(float));
        for (int h = 0; h < heads; h++)
            c->logits[h] = logit(r);
    }
    if (asks & PREFIX) c->seq.prefix = 1 + random_below(r, c->n.keys);
    if (asks & TREE) tree_make(c, r);
    c->last_rows = random_below(r, 3) ? 1 + random_below(r, c->n.queries + 1) : 0;
    c->packed_type = (tril_dtype)random_below(r, 3);
}

/* Tokens that no query sees become NaN where the type has one. */
static void hide(struct case_data *c)
{
    for (int j = 0; j < c->n.keys; j++) {
        bool seen = false;
        for (int i = 0; i < c->n.queries && !seen; i++)
            seen = reference_sees(&c->call, &c->seq, i, j);
        for (int64_t d = 0; d < c->n.kv_heads * c->n.qk_dim && !seen && is_float(c->form->k); d++)
            c->k[(int64_t)j * c->n.kv_heads * c->n.qk_dim + d] = NAN;
        for (int64_t d = 0; d < c->n.kv_heads * c->n.v_dim && !seen && is_float(c->form->v); d++)
            c->v[(int64_t)j * c->n.kv_heads * c->n.v_dim + d] = NAN;
    }
}

/* The table as a host may have it that has freed what nobody sees. */
static int32_t *blocks_of(const struct case_data *c)
{
    int32_t *blocks = need((size_t)c->book.n_blocks, sizeof(int32_t));
    for (int64_t b = 0; b < c->book.n_blocks; b++)
        blocks[b] = -1;
    for (int64_t j = 0; j < c->n.keys; j++) {
        const int64_t b = j / c->book.block_tokens;
        for (int i = 0; i < c->n.queries && blocks[b] < 0; i++) {
            if (reference_sees(&c->call, &c->seq, i, j)) blocks[b] = c->book.table[b];
        }
    }
    return blocks;
}

/* Blocks of 16, 32, 48 or 256 tokens, two more than are needed, in any order. */
static struct book book_make(struct random *r, int64_t keys)
{
    static const int sizes[] = {16, 16, 32, 48, 256};
    struct book book = {.block_tokens = pick(r, sizes, sizeof sizes / sizeof sizes[0])};
    book.n_blocks = (keys + book.block_tokens - 1) / book.block_tokens + 2;
    book.table = need((size_t)book.n_blocks, sizeof(int32_t));
    for (int i = 0; i < (int)book.n_blocks; i++) {
        const int j = random_below(r, i + 1);
        book.table[i] = book.table[j];
        book.table[j] = i;
    }
    return book;
}

/* The operands' floats become what the form says. */
static void case_store(struct case_data *c, struct random *r)
{
    const struct sizes *n = &c->n;
    const struct form *form = c->form;
    const tril_tensor q = tensor_of(c->q, n->queries, n->group * n->kv_heads, n->qk_dim);
    const tril_tensor k = tensor_of(c->k, n->keys, n->kv_heads, n->qk_dim);
    const tril_tensor v = tensor_of(c->v, n->keys, n->kv_heads, n->v_dim);
    c->stored_q = stored_rows(&q, c->q_shape, form->q, 0, PAD);
    c->stored_k = stored_rows(&k, c->k_shape, form->k, BEYOND, PAD);
    c->stored_v = stored_rows(&v, c->v_shape, form->v, BEYOND, PAD);
    spoil_scale(&c->stored_k, n->kind, r);
    spoil_scale(&c->stored_v, n->kind, r);
    c->worth_q = stored_floats(&c->stored_q.x, c->q_shape);
    c->worth_k = stored_floats(&c->stored_k.x, c->k_shape);
    c->worth_v = stored_floats(&c->stored_v.x, c->v_shape);
    c->book = book_make(r, n->keys);
    c->blocks = blocks_of(c);
    c->call.q = c->stored_q.x;
    c->call.k = c->stored_k.x;
    c->call.v = c->stored_v.x;
    c->in_floats = c->call;
    c->in_floats.q = c->worth_q.x;
    c->in_floats.k = c->worth_k.x;
    c->in_floats.v = c->worth_v.x;
}

static void case_shape(struct case_data *c)
{
    const struct sizes *n = &c->n;
    c->q_shape = (struct shape){n->queries, n->group * n->kv_heads, n->qk_dim};
    c->k_shape = (struct shape){n->keys, n->kv_heads, n->qk_dim};
    c->v_shape = (struct shape){n->keys, n->kv_heads, n->v_dim};
    c->seq = (tril_seq){.q_len = n->queries, .kv_len = n->keys};
    c->call = (tril_attention){
        .struct_size = sizeof c->call,
        .q_heads = n->group * n->kv_heads,
        .kv_heads = n->kv_heads,
        .qk_dim = n->qk_dim,
        .v_dim = n->v_dim,
        .seqs = &c->seq,
        .n_seqs = 1,
    };
}

/* mixture: -1 for none of them. */
static void case_make(struct case_data *c, uint64_t seed, int64_t number, int form, int mixture)
{
    struct random r = {seed + (uint64_t)number * 0xd1342543de82ef95u};
    random_bits(&r);
    struct random asking = {~r.state}; /* of its own: a case without is not changed by what others ask for */
    c->form = &forms[form];
    c->n = choose_sizes(&r);
    if (in_blocks(c->form->k)) c->n.qk_dim = (c->n.qk_dim + 31) / 32 * 32;
    if (in_blocks(c->form->v)) c->n.v_dim = (c->n.v_dim + 31) / 32 * 32;
    case_shape(c);
    c->q = fill(&r, c->n.kind, 'q', c->q_shape, c->form->q);
    c->k = fill(&r, c->n.kind, 'k', c->k_shape, c->form->k);
    c->v = fill(&r, c->n.kind, 'v', c->v_shape, c->form->v);
    spoil(c, &r);
    if (mixture >= 0) case_ask(c, &asking, &mixtures[mixture]);
    if (mixture >= 0) hide(c);
    case_store(c, &r);
    c->call.scale = c->in_floats.scale = random_below(&r, 2) ? 0.0f : 0.25f;
}

static void case_free(struct case_data *c)
{
    struct stored *const all[] = {&c->stored_q, &c->stored_k, &c->stored_v, &c->worth_q, &c->worth_k, &c->worth_v};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        stored_free(all[i]);
    free(c->book.table);
    free(c->blocks);
    free(c->slopes);
    free(c->logits);
    free(c->tree);
    free(c->q);
    free(c->k);
    free(c->v);
}

/* --- results ------------------------------------------------------------------------------------------------------ */

static float *pattern(size_t n)
{
    float *x = need(n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        x[i] = 12345.0f;
    return x;
}

static struct result result_new(const struct case_data *c)
{
    const struct sizes *n = &c->n;
    const int64_t heads = n->group * n->kv_heads;
    int64_t triangle = 0;
    for (int i = 0; i < n->queries; i++)
        triangle += reference_columns(&c->call, &c->seq, i);
    struct result x = {
        .out_n = (size_t)(n->queries * heads * (n->v_dim + PAD)),
        .statistics_n = (size_t)(n->queries * heads),
        .dense_n = (size_t)(heads * n->queries * (n->keys + PAD)),
        .packed_n = (size_t)(heads * (triangle + PAD)),
        .columns_n = (size_t)(heads * (n->keys + PAD)),
    };
    x.out = pattern(x.out_n);
    x.max = pattern(x.statistics_n);
    x.sum = pattern(x.statistics_n);
    x.dense = pattern(x.dense_n);
    x.packed = pattern(x.packed_n);
    x.columns = pattern(x.columns_n);
    return x;
}

static void result_free(struct result *x)
{
    free(x->out);
    free(x->max);
    free(x->sum);
    free(x->dense);
    free(x->packed);
    free(x->columns);
}

/* A call, by one thread or by several that each come to it. */
struct shared {
    const tril_attention *call;
    const tril_weights_out *to; /* null: attend */
    void *workspace;
    size_t bytes;
    int threads;
};

struct member {
    const struct shared *shared;
    int thread;
    tril_status status;
};

static void *member_run(void *argument)
{
    struct member *m = argument;
    const struct shared *s = m->shared;
    m->status = s->to == NULL ? tril_attend_team(s->call, s->workspace, s->bytes, m->thread, s->threads)
                              : tril_weights_team(s->call, s->to, s->workspace, s->bytes, m->thread, s->threads);
    return NULL;
}

static void call_with(const struct shared *s)
{
    if (s->threads == 1) {
        expect_ok("verify", s->to == NULL ? tril_attend(s->call, s->workspace, s->bytes)
                                          : tril_weights(s->call, s->to, s->workspace, s->bytes));
        return;
    }
    struct member members[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    for (int i = 0; i < s->threads; i++) {
        members[i] = (struct member){.shared = s, .thread = i};
        if (pthread_create(&threads[i], NULL, member_run, &members[i]) != 0)
            die("--threads %d: this machine does not let the tool start thread %d", s->threads, i + 1);
    }
    for (int i = 0; i < s->threads; i++) {
        pthread_join(threads[i], NULL);
        expect_ok("verify", members[i].status);
    }
}

/* How a case is computed. */
struct manner {
    bool panels, pages;
    int threads;
};

/* K and V as the manner has them, and what they take. */
struct cache {
    struct stored panels, paged_k, paged_v;
    tril_seq seq;
};

static void cache_make(struct cache *cache, const struct case_data *c, const struct manner *how, tril_attention *call)
{
    const tril_tensor k = tensor_of(c->k, c->n.keys, c->n.kv_heads, c->n.qk_dim);
    *cache = (struct cache){.seq = c->seq};
    if (how->panels) {
        cache->panels = stored_panels(&k, c->k_shape, c->form->k, PAD);
        call->k = cache->panels.x;
    }
    if (!how->pages) return;
    cache->paged_k = stored_pages(&call->k, c->k_shape, &c->book);
    cache->paged_v = stored_pages(&call->v, c->v_shape, &c->book);
    cache->seq.blocks = c->blocks;
    call->k = cache->paged_k.x;
    call->v = cache->paged_v.x;
    call->block_tokens = c->book.block_tokens;
    call->n_blocks = c->book.n_blocks;
    call->seqs = &cache->seq;
}

static void cache_free(struct cache *cache)
{
    stored_free(&cache->panels);
    stored_free(&cache->paged_k);
    stored_free(&cache->paged_v);
}

/* Memory for n elements of a result: the floats themselves, or, in a 16-bit type, halves that become floats once they
 * are there, the padding too. */
static void *result_memory(float *floats, size_t n, tril_dtype type)
{
    if (type == TRIL_F32) return floats;
    void *halves = need(n, sizeof(uint16_t));
    memset(halves, 0x5a, n * sizeof(uint16_t));
    return halves;
}

static void result_in_floats(float *floats, size_t n, tril_dtype type, void *memory)
{
    if (type == TRIL_F32) return;
    expect_ok("verify", tril_convert(floats, TRIL_F32, NULL, memory, type, NULL, (int64_t)n));
    free(memory);
}

static int64_t element_size(tril_dtype type)
{
    return type == TRIL_F32 ? 4 : 2;
}

static void attend(struct shared *shared, tril_attention *call, const struct case_data *c, struct result *x)
{
    const int64_t row = (c->n.v_dim + PAD) * element_size(c->form->out);
    call->out = (tril_out){.data = result_memory(x->out, x->out_n, c->form->out),
                           .bytes = c->n.queries * call->q_heads * row,
                           .token_stride = call->q_heads * row,
                           .head_stride = row,
                           .dtype = c->form->out};
    call->row_max = x->max;
    call->row_sum = x->sum;
    call_with(shared);
    result_in_floats(x->out, x->out_n, c->form->out, call->out.data);
    call->row_max = call->row_sum = NULL;
}

/* Dense, packed, and, in a case with a mixture, summed up. */
static void weigh(struct shared *shared, const struct case_data *c, struct result *x)
{
    const int64_t row = (c->n.keys + PAD) * (int64_t)sizeof(float), size = element_size(c->packed_type);
    const tril_weights_out dense = {.struct_size = sizeof dense,
                                    .data = x->dense,
                                    .bytes = (int64_t)(x->dense_n * sizeof(float)),
                                    .head_stride = c->n.queries * row,
                                    .row_stride = row};
    shared->to = &dense;
    call_with(shared);
    const tril_weights_out packed = {.struct_size = sizeof packed,
                                     .data = result_memory(x->packed, x->packed_n, c->packed_type),
                                     .bytes = (int64_t)x->packed_n * size,
                                     .head_stride = (int64_t)x->packed_n / c->call.q_heads * size,
                                     .form = TRIL_WEIGHTS_PACKED,
                                     .dtype = c->packed_type};
    shared->to = &packed;
    call_with(shared);
    result_in_floats(x->packed, x->packed_n, c->packed_type, packed.data);
    if (!c->mixed) return;
    const tril_weights_out columns = {.struct_size = sizeof columns,
                                      .data = x->columns,
                                      .bytes = (int64_t)(x->columns_n * sizeof(float)),
                                      .head_stride = row,
                                      .row_stride = row,
                                      .last_rows = c->last_rows,
                                      .form = TRIL_WEIGHTS_COLUMN_SUMS};
    shared->to = &columns;
    call_with(shared);
}

/* The case on the tier in use. */
static struct result run(const struct case_data *c, const struct manner *how)
{
    struct result x = result_new(c);
    tril_attention call = c->call;
    struct cache cache;
    cache_make(&cache, c, how, &call);
    struct shared shared = {.call = &call, .threads = how->threads};
    call.out.dtype = c->form->out;
    expect_ok("verify", tril_workspace(&call, how->threads, &shared.bytes));
    shared.workspace = need(shared.bytes, 1); /* zeroed, and then used for all the calls */
    attend(&shared, &call, c, &x);
    weigh(&shared, c, &x);
    free(shared.workspace);
    cache_free(&cache);
    return x;
}

/* Equal bits, but for the payload of a NaN. */
static bool same_bits(const float *a, const float *b, size_t n)
{
    if (memcmp(a, b, n * sizeof(float)) == 0) return true;
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&a[i], &b[i], sizeof(float)) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
    }
    return true;
}

/* What differs from the oracle, or null. */
static const char *difference(const struct result *a, const struct result *b)
{
    if (!same_bits(a->out, b->out, a->out_n)) return "the output";
    if (!same_bits(a->max, b->max, a->statistics_n)) return "a row's maximum";
    if (!same_bits(a->sum, b->sum, a->statistics_n)) return "a row's sum";
    if (!same_bits(a->dense, b->dense, a->dense_n)) return "the dense weights";
    if (!same_bits(a->packed, b->packed, a->packed_n)) return "the packed weights";
    if (!same_bits(a->columns, b->columns, a->columns_n)) return "the column sums";
    return NULL;
}

/* A row as a result of this type holds it. */
static void round_row(float *to, const float *from, int64_t n, tril_dtype type, uint16_t *halves)
{
    if (type == TRIL_F32) {
        memcpy(to, from, (size_t)n * sizeof(float));
        return;
    }
    expect_ok("verify", tril_convert(halves, type, NULL, from, TRIL_F32, NULL, n));
    expect_ok("verify", tril_convert(to, TRIL_F32, NULL, halves, type, NULL, n));
}

/* Where the weights contradict each other, or null: the packed ones are the dense ones, rounded where they are of a
 * smaller type; a column's sum is that of the dense rows, one float after the other. */
static const char *contradiction(const struct case_data *c, const struct result *x)
{
    const int64_t queries = c->n.queries, keys = c->n.keys, heads = c->call.q_heads;
    const int64_t first = c->last_rows > 0 && c->last_rows < queries ? queries - c->last_rows : 0;
    float *sums = need((size_t)keys, sizeof(float)), *rounded = need((size_t)keys, sizeof(float));
    uint16_t *halves = need((size_t)keys, sizeof(uint16_t));
    const char *what = NULL;
    for (int64_t h = 0; h < heads && what == NULL; h++) {
        const float *packed = x->packed + h * (int64_t)x->packed_n / heads;
        memset(sums, 0, (size_t)keys * sizeof(float));
        for (int64_t i = 0; i < queries; i++) {
            const float *row = x->dense + (h * queries + i) * (keys + PAD);
            const int64_t columns = reference_columns(&c->call, &c->seq, i);
            round_row(rounded, row, columns, c->packed_type, halves);
            if (!same_bits(packed, rounded, (size_t)columns)) what = "the packed weights beside the dense ones";
            packed += columns;
            for (int64_t j = 0; j < columns && i >= first; j++)
                sums[j] += row[j];
        }
        if (c->mixed && !same_bits(x->columns + h * (keys + PAD), sums, (size_t)keys))
            what = "the column sums beside the rows";
    }
    free(sums);
    free(rounded);
    free(halves);
    return what;
}

/* Of a row's statistics, together: of the logarithm of its sum, in units of a weight's bound. */
static double statistics_error(float max, float sum, const struct reference *r)
{
    const double got = 0.6931471805599453 * (double)max + log((double)sum);
    if (!isfinite(got) || !isfinite(r->log_sum)) return isfinite(got) == isfinite(r->log_sum) ? 0 : INFINITY;
    return fabs(got - r->log_sum) / r->wide;
}

/* The worst of output, statistics and weights. A weight's own magnitude is itself: it is the output for values of 1 at
 * its key and 0 elsewhere; where the query does not see the key it is +0. With masks and score options all of it is
 * held to the wide bound. */
static struct errors errors_of(const struct case_data *c, const struct result *x)
{
    const int heads = c->call.q_heads;
    const bool f32 = c->call.math == TRIL_MATH_F32;
    const bool large = f32 && (c->mixed || c->n.kind == PEAKED || c->n.kind == HUGE_LOGITS || c->n.kind == CANCELLING);
    const float zero = 0;
    struct reference r = reference_new(c->n.keys, c->n.v_dim);
    struct errors worst = {0, 0};
    for (int64_t i = 0; i < c->n.queries; i++) {
        for (int h = 0; h < heads; h++) {
            reference_row(&r, &c->in_floats, &c->seq, i, h, 1);
            const float *out = x->out + (i * heads + h) * (c->n.v_dim + PAD);
            const float *a = x->dense + (h * (int64_t)c->n.queries + i) * (c->n.keys + PAD);
            const bool usual = !large && r.usual, wide = !usual || c->real;
            worst.wide = fmax(worst.wide, statistics_error(x->max[i * heads + h], x->sum[i * heads + h], &r));
            for (int d = 0; d < c->n.v_dim; d++) {
                const double size = r.magnitude[d], flushed = r.flushed[d];
                if (usual)
                    worst.usual =
                        fmax(worst.usual, reference_error(out[d], c->form->out, r.out[d], r.factor * size, flushed));
                if (wide)
                    worst.wide =
                        fmax(worst.wide, reference_error(out[d], c->form->out, r.out[d], r.wide * size, flushed));
            }
            for (int64_t j = 0; j < c->n.keys; j++) {
                const double error = reference_error(a[j], TRIL_F32, r.weights[j], r.wide * r.weights[j], 0x1p-126);
                const bool wrong = !r.sees[j] && memcmp(&a[j], &zero, sizeof zero) != 0;
                worst.wide = fmax(worst.wide, wrong ? INFINITY : error);
            }
        }
    }
    reference_free(&r);
    if (c->mixed) worst = (struct errors){0, fmax(worst.usual, worst.wide)};
    return worst;
}

/* --- the command -------------------------------------------------------------------------------------------------- */

struct verify_options {
    uint64_t seed;
    int64_t cases, first;
    int threads;
    const char *isa, *data;
};

static struct verify_options parse(int argc, char **argv)
{
    static const struct option longs[] = {{"seed", required_argument, NULL, SEED},
                                          {"cases", required_argument, NULL, CASES},
                                          {"first", required_argument, NULL, FIRST},
                                          {"isa", required_argument, NULL, ISA},
                                          {"threads", required_argument, NULL, THREADS},
                                          {"data", required_argument, NULL, DATA},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct verify_options x = {
        .threads = 1, .seed = ((uint64_t)time(NULL) << 16 ^ (uint64_t)getpid()) % 1000000007, .cases = 200};
    for (int c; (c = next_option(argc, argv, "", longs, help)) != -1;) {
        switch (c) {
        case SEED: x.seed = (uint64_t)integer_option("--seed", optarg, 0, INT64_MAX); break;
        case CASES: x.cases = integer_option("--cases", optarg, 1, 100000000); break;
        case FIRST: x.first = integer_option("--first", optarg, 0, 2 * (int64_t)INT32_MAX); break;
        case THREADS: x.threads = (int)integer_option("--threads", optarg, 1, MOST_THREADS); break;
        case DATA: x.data = optarg; break;
        case ISA:
            isa_option(optarg);
            x.isa = optarg;
            break;
        }
    }
    return x;
}

struct tiers {
    const char *name[MOST_TIERS];
    int n;
};

/* The worse of two, the first where both differ. */
static struct verdict worse(struct verdict a, const struct verdict *b)
{
    if (a.differs == NULL && b->differs != NULL) {
        a.differs = b->differs;
        a.tier = b->tier;
    }
    a.errors.usual = fmax(a.errors.usual, b->errors.usual);
    a.errors.wide = fmax(a.errors.wide, b->errors.wide);
    return a;
}

/* One way of one case; the case counts once, as it is computed first. */
static void judge(struct score *s, int64_t number, enum way way, const struct verdict *v)
{
    const bool within = (v->errors.usual <= 1 || s->by_wide) && v->errors.wide <= 1;
    s->tried[way]++;
    s->equal[way] += v->differs == NULL;
    if (way == ROWS) {
        s->cases++;
        s->within += within;
    }
    s->worst.usual = fmax(s->worst.usual, v->errors.usual);
    s->worst.wide = fmax(s->worst.wide, v->errors.wide);
    if ((v->differs != NULL || !within) && s->first_wrong < 0) {
        s->first_wrong = number;
        s->verdict = *v;
        s->how = way;
    }
}

/* A way for case `number` of those that differ with it: pages and the team have K in rows or in panels. */
static struct manner manner_of(enum way way, const struct form *form, int64_t number, int threads)
{
    struct manner how = {.threads = way == TEAM ? threads : 1};
    how.panels = way == PANELS || (way != ROWS && number % 2 == 1 && !in_blocks(form->k));
    how.pages = way == PAGES || (way == TEAM && number % 3 == 2);
    return how;
}

/* A case on every tier; scores one for each tier, or, in a form, one for all of them. */
static void verify(const struct case_data *c, int64_t number, int threads, const struct tiers *tiers,
                   struct score *scores, bool each)
{
    const struct manner plain = {.threads = 1};
    tril_force_isa("scalar");
    struct result oracle = run(c, &plain);
    const struct errors oracle_errors = errors_of(c, &oracle);
    const char *oracle_contradiction = contradiction(c, &oracle);
    for (enum way way = ROWS; way < (threads > 1 ? WAYS : TEAM); way++) {
        const struct manner how = manner_of(way, c->form, number, threads);
        struct verdict all = {.tier = tiers->name[0]};
        if (way == PANELS && in_blocks(c->form->k)) continue; /* there are none */
        for (int t = 0; t < tiers->n; t++) {
            tril_force_isa(tiers->name[t]);
            struct result x = run(c, &how);
            struct verdict v = {.differs = difference(&x, &oracle), .tier = tiers->name[t]};
            v.errors = v.differs == NULL ? oracle_errors : errors_of(c, &x);
            if (v.differs == NULL) v.differs = oracle_contradiction;
            if (each) judge(&scores[t], number, way, &v);
            all = worse(all, &v);
            result_free(&x);
        }
        if (!each) judge(scores, number, way, &all);
    }
    result_free(&oracle);
}

/* --- real activations --------------------------------------------------------------------------------------------- */

enum { LAYERS = 2 };
static const int layer_numbers[LAYERS] = {0, 2};

struct layer {
    char path[3][512]; /* of q, k and v */
    struct operands x;
};

static void layer_read(struct layer *l, const char *directory, int number)
{
    for (int i = 0; i < 3; i++) {
        const int length = snprintf(l->path[i], sizeof l->path[i], "%s/layer%d_%c.npy", directory, number, "qkv"[i]);
        if ((size_t)length >= sizeof l->path[i]) die("%s: too long a path", directory);
    }
    l->x = operands_read(l->path[0], l->path[1], l->path[2]);
    if (l->x.qk_dim % 32 != 0 || l->x.v_dim % 32 != 0)
        die("%s: heads of size %d, and of values %d; give multiples of 32, as in the data that came with tril",
            l->path[0], l->x.qk_dim, l->x.v_dim);
    if (l->x.queries == 0) die("%s: no tokens; give some, as in the data that came with tril", l->path[0]);
}

static float *copy(const struct npy *x)
{
    float *to = need((size_t)x->elements, sizeof(float));
    memcpy(to, x->f32, (size_t)x->elements * sizeof(float));
    return to;
}

static void case_of_layer(struct case_data *c, const struct layer *l, int form)
{
    struct random r = {(uint64_t)form};
    c->form = &forms[form];
    c->n = (struct sizes){
        USUAL, l->x.q_heads / l->x.kv_heads, l->x.kv_heads, l->x.qk_dim, l->x.v_dim, (int)l->x.queries, (int)l->x.keys};
    case_shape(c);
    c->q = copy(&l->x.q);
    c->k = copy(&l->x.k);
    c->v = copy(&l->x.v);
    case_store(c, &r);
}

/* Every layer in every form; the number of a case is that of its layer. */
static void verify_layers(const char *directory, int threads, const struct tiers *tiers, struct score *scores)
{
    static struct layer layers[LAYERS];
    for (int i = 0; i < LAYERS; i++)
        layer_read(&layers[i], directory, layer_numbers[i]);
    for (int form = 0; form < FORMS; form++) {
        for (int i = 0; i < LAYERS; i++) {
            struct case_data c = {.real = true};
            progress("real activations", form * LAYERS + i, FORMS * LAYERS);
            case_of_layer(&c, &layers[i], form);
            verify(&c, layer_numbers[i], threads, tiers, &scores[form], false);
            case_free(&c);
        }
    }
    progress_end();
    for (int i = 0; i < LAYERS; i++)
        operands_free(&layers[i].x);
}

/* --- tables ------------------------------------------------------------------------------------------------------- */

static void print_columns(bool team)
{
    printf("%8s  %8s  %8s  %8s  %s%12s  %8s  %8s\n", "cases", "rows", "panels", "pages", team ? "    team  " : "",
           "within bound", "usual", "wide");
}

/* Equal cases in one way; of how many, where K may lie that way only in some. */
static void print_equal(const struct score *s, enum way way)
{
    char text[48] = "-";
    if (s->tried[way] == s->cases)
        snprintf(text, sizeof text, "%" PRId64, s->equal[way]);
    else if (s->tried[way] > 0)
        snprintf(text, sizeof text, "%" PRId64 "/%" PRId64, s->equal[way], s->tried[way]);
    printf("  %8s", text);
}

static void print_score(const struct score *s, bool usual, bool team)
{
    printf("%8" PRId64, s->cases);
    for (enum way way = ROWS; way < (team ? WAYS : TEAM); way++)
        print_equal(s, way);
    printf("  %12" PRId64, s->within);
    if (usual)
        printf("  %8.3f", s->worst.usual);
    else
        printf("  %8s", "-");
    printf("  %8.3f\n", s->worst.wide);
}

static void print_tiers(const struct tiers *tiers, const struct score *scores, bool team)
{
    printf("%-10s  ", "tier");
    print_columns(team);
    for (int t = 0; t < tiers->n; t++) {
        printf("%-10s  ", tiers->name[t]);
        print_score(&scores[t], true, team);
    }
}

/* Forms in which there was a case. */
static void print_forms(const struct score *scores, bool team)
{
    printf("%-5s %-5s %-5s %-5s  ", "K", "V", "Q", "out");
    print_columns(team);
    for (int i = 0; i < FORMS; i++) {
        const struct form *form = &forms[i];
        if (scores[i].cases == 0) continue;
        printf("%-5s %-5s %-5s %-5s  ", dtype_name(form->k), dtype_name(form->v), dtype_name(form->q),
               dtype_name(form->out));
        print_score(&scores[i], true, team);
    }
}

static void print_mixtures(const struct score *scores, bool team)
{
    printf("%-21s", "");
    print_columns(team);
    for (int i = 0; i < MIXTURES; i++) {
        printf("%-21s", mixtures[i].name);
        print_score(&scores[i], false, team);
    }
}

static void print_form(const struct form *form)
{
    printf("K %s, V %s, Q %s, out %s", dtype_name(form->k), dtype_name(form->v), dtype_name(form->q),
           dtype_name(form->out));
}

/* What a mixture came to. */
static void print_asks(const tril_attention *call, const tril_seq *seq)
{
    if (call->window > 0) printf("; window %" PRId64 ", %" PRId64 " sink tokens", call->window, call->sink_tokens);
    if (call->softcap > 0) printf("; softcap %g", (double)call->softcap);
    if (call->alibi_slopes != NULL) printf("; ALiBi");
    if (call->sink_logits != NULL) printf("; sink logits");
    if (seq->prefix > 0) printf("; prefix %" PRId64, seq->prefix);
    if (call->tree != NULL) printf("; tree");
}

static const char *what_is_wrong(const struct score *s)
{
    return s->verdict.differs != NULL ? s->verdict.differs : "the error";
}

/* 1 where there is something wrong. mixture: -1 for none. */
static int print_wrong(const struct verify_options *o, int form, int mixture, tril_math math, const struct score *s)
{
    struct case_data c = {.real = false};
    if (s->first_wrong < 0) return 0;
    case_make(&c, o->seed, s->first_wrong, form, mixture);
    printf("%s: case %" PRId64 " (%s; ", s->verdict.tier, s->first_wrong, kind_names[c.n.kind]);
    print_form(&forms[form]);
    if (math == TRIL_MATH_BF16) printf(", math mode BF16");
    print_asks(&c.call, &c.seq);
    printf("; %d query heads, %d K/V heads, dims %d and %d, %d queries, %d keys): %s%s is wrong; "
           "repeat it with\n    tril verify --seed %" PRIu64 " --first %" PRId64 " --cases 1 --isa %s --threads %d\n",
           c.call.q_heads, c.n.kv_heads, c.n.qk_dim, c.n.v_dim, c.n.queries, c.n.keys, what_is_wrong(s),
           way_names[s->how], o->seed, s->first_wrong, s->verdict.tier, o->threads);
    case_free(&c);
    return 1;
}

static int print_wrong_layer(int form, const struct score *s)
{
    if (s->first_wrong < 0) return 0;
    printf("%s: layer %" PRId64 " (", s->verdict.tier, s->first_wrong);
    print_form(&forms[form]);
    printf("): %s%s is wrong\n", what_is_wrong(s), way_names[s->how]);
    return 1;
}

static void print_legend(const struct verify_options *o)
{
    printf("seed %" PRIu64 ", cases %" PRId64 " to %" PRId64 "; the oracle is the scalar tier with K in rows\n",
           o->seed, o->first, o->first + o->cases - 1);
    printf("rows, panels, pages: cases whose bits are all equal to the oracle's, with K in this layout, or K and V in\n"
           "       pages, on one thread\n");
    if (o->threads > 1) printf("team:  the same by %d threads, in rows, panels and pages in turn\n", o->threads);
    printf("usual: worst error of an output, logits of usual size, in units of 2^-24 A (48 + 2 S + n/8192)\n"
           "wide:  worst error of a weight, of a row's log-sum-exp (the bound without A), or of an output where few\n"
           "       scores decide it, 2 S being (2 + 4 sqrt(D)) S; S includes |slope (j - p)| and |sink logit|\n"
           "       to either, one rounding more for an output in F16, 2^-11 |O| + 2^-25, or in BF16, 2^-8 |O|\n"
           "       in math mode BF16, which has bounds of its own: of an output, and of a weight\n"
           "Equal are also, within a case, packed weights to the dense ones and, with masks and score options, the\n"
           "columns' sums to those of the rows.\n");
}

/* --- the command -------------------------------------------------------------------------------------------------- */

static void score_new(struct score *s, int n, bool by_wide)
{
    for (int i = 0; i < n; i++)
        s[i] = (struct score){.first_wrong = -1, .by_wide = by_wide};
}

/* The tier that is asked for, or those that serve the mode themselves. */
static struct tiers tiers_for(tril_math math, const char *isa)
{
    struct tiers x = {.n = 0};
    int usable;
    for (int i = 0; tril_isa_list(i, &usable) != NULL && x.n < MOST_TIERS; i++) {
        const char *name = tril_isa_list(i, NULL);
        if (usable && (isa == NULL ? tier_serves(name, math) : strcmp(isa, name) == 0)) x.name[x.n++] = name;
    }
    return x;
}

/* How the case with masks and score options of a number is computed. Bounds of BF16 are for F32 operands. */
struct asking {
    int mixture, form;
    tril_math math;
};

static struct asking asking_of(int64_t number)
{
    const int turn = (int)(number / MIXTURES % (3 * FORMS));
    struct asking x = {.mixture = (int)(number % MIXTURES), .form = turn % 3 == 2 ? turn / 3 : IN_F32};
    x.math = turn % 3 == 1 ? TRIL_MATH_BF16 : TRIL_MATH_F32;
    return x;
}

int cmd_verify(int argc, char **argv)
{
    static struct score by_tier[TRIL_MATH_COUNT][MOST_TIERS], by_form[FORMS], real[FORMS], by_mixture[MIXTURES];
    const struct verify_options options = parse(argc, argv);
    const bool team = options.threads > 1;
    struct tiers tiers[TRIL_MATH_COUNT];
    int wrong = 0;
    for (tril_math math = TRIL_MATH_F32; math < TRIL_MATH_COUNT; math++) {
        tiers[math] = tiers_for(math, options.isa);
        score_new(by_tier[math], MOST_TIERS, false);
    }
    score_new(by_form, FORMS, false);
    score_new(real, FORMS, true);
    score_new(by_mixture, MIXTURES, false);
    if (options.data != NULL) verify_layers(options.data, options.threads, &tiers[TRIL_MATH_F32], real);
    for (int64_t i = 0; i < options.cases; i++) {
        const int64_t number = options.first + i;
        const int form = 1 + (int)(number % (FORMS - 1));
        struct case_data c = {.real = false};
        progress("verify", (double)i, (double)options.cases);
        case_make(&c, options.seed, number, IN_F32, -1);
        for (tril_math math = TRIL_MATH_F32; math < TRIL_MATH_COUNT; math++) {
            c.call.math = c.in_floats.math = math;
            verify(&c, number, options.threads, &tiers[math], by_tier[math], true);
        }
        case_free(&c);
        case_make(&c, options.seed, number, form, -1);
        verify(&c, number, options.threads, &tiers[TRIL_MATH_F32], &by_form[form], false);
        case_free(&c);
        const struct asking asking = asking_of(number);
        case_make(&c, options.seed, number, asking.form, asking.mixture);
        c.call.math = c.in_floats.math = asking.math;
        verify(&c, number, options.threads, &tiers[asking.math], &by_mixture[asking.mixture], false);
        case_free(&c);
    }
    progress_end();

    print_legend(&options);
    printf("\nF32, by tier\n");
    print_tiers(&tiers[TRIL_MATH_F32], by_tier[TRIL_MATH_F32], team);
    printf("\nMath mode BF16, by tier\n");
    print_tiers(&tiers[TRIL_MATH_BF16], by_tier[TRIL_MATH_BF16], team);
    printf("\nOther types, on every tier; each case is of one of them\n");
    print_forms(by_form, team);
    printf("\nMasks and score options, on every tier; each case has one mixture of them, in F32 or math mode BF16\n");
    print_mixtures(by_mixture, team);
    if (options.data != NULL) {
        printf("\nReal activations in every type, on every tier; the cases are layers. Both bounds for every output: "
               "within\n"
               "the wide one; the other may be exceeded where one key leads a column of V, whose others were rounded "
               "away\n");
        print_forms(real, team);
    }
    for (tril_math math = TRIL_MATH_F32; math < TRIL_MATH_COUNT; math++) {
        for (int t = 0; t < tiers[math].n; t++)
            wrong += print_wrong(&options, IN_F32, -1, math, &by_tier[math][t]);
    }
    for (int i = 0; i < FORMS; i++)
        wrong += print_wrong(&options, i, -1, TRIL_MATH_F32, &by_form[i]) + print_wrong_layer(i, &real[i]);
    for (int i = 0; i < MIXTURES; i++) {
        const struct asking asking = asking_of(by_mixture[i].first_wrong);
        wrong += print_wrong(&options, asking.form, i, asking.math, &by_mixture[i]);
    }
    printf("\n%s\n", wrong == 0 ? "every bit is equal, every value within the bound" : "WRONG");
    return wrong == 0 ? DONE : DIFFERS;
}
