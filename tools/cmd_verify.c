/* tril verify: every tier of this machine against the scalar oracle, bit for bit, and both against double, within the
 * bound of docs/contract.md.
 *
 * Every tier computes a case with K in rows, with K in panels that tril_append() has filled, and, if asked for, by a
 * team of threads, which has K in the one or the other. The oracle is the scalar tier with K in rows, on one thread.
 *
 * A case is a function of (seed, number) alone: its sizes, its kind of content, and a host's habits. Rows are padded,
 * the padding and the tokens past the last key are NaN, and outputs begin as a pattern, so that whatever is read or
 * written where it must not be shows up in the comparison. */
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
#include "tool.h"

static const char help[] =
    "usage: tril verify [OPTION]...\n\n"
    "Runs every tier (instruction set) of this machine on random and adversarial input: attend, its row statistics, "
    "and\n"
    "weights, dense and packed; with K in rows and in panels. Compares each bit with the scalar tier and each value "
    "with\n"
    "the definition in double; prints a table with the worst errors in units of their bounds. Exit status 1 where a "
    "bit\n"
    "differs or a bound is exceeded.\n\n"
    "  --seed S       repeats a run; without it the clock gives one, and it is printed\n"
    "  --cases N      how many; default 200\n"
    "  --first N      the number of the first case; default 0\n"
    "  --isa TIER     this tier alone\n"
    "  --threads N    each case also by a team of N threads, at most 256; default 1: no team\n"
    "  -h, --help     this text\n";

enum { SEED = 256, CASES, FIRST, ISA, THREADS };

enum kind { USUAL, PEAKED, HUGE_LOGITS, TIES, FLAT, MINUS_INFINITE, INFINITE, WITH_NAN, SUBNORMAL, CANCELLING, KINDS };

static const char *const kind_names[KINDS] = {
    "usual",    "peaked",        "huge logits",       "ties",       "all scores equal", "scores of -inf",
    "infinite", "NaN somewhere", "subnormal numbers", "cancelling",
};

enum { PAD = 3, BEYOND = 2 }; /* floats between rows, tokens past the last key */
enum { MOST_THREADS = 256 };

struct sizes {
    enum kind kind;
    int group, kv_heads, qk_dim, v_dim, queries, keys;
};

struct case_data {
    struct sizes n;
    float *q, *k, *v;
    tril_attention call;
    tril_seq seq;
};

/* What a call wrote, all of it, the padding included. */
struct result {
    float *out, *max, *sum, *dense, *packed;
    size_t out_n, statistics_n, dense_n, packed_n;
};

/* In units of a bound: of docs/contract.md's where it speaks, which is the output for logits of usual size; else of the
 * wide one (reference.h). */
struct errors {
    double usual, wide;
};

/* The ways to compute a case. */
enum way { ROWS, PANELS, TEAM, WAYS };
static const char *const way_names[WAYS] = {"", " with K in panels", " by the team"};

struct score {
    int64_t cases, within, equal[WAYS];
    struct errors worst;
    int64_t first_wrong; /* -1: none */
    const char *what;
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

static float element(struct random *r, enum kind kind, char operand)
{
    const float x = random_normal(r);
    switch (kind) {
    case PEAKED: return operand == 'v' ? x : 3 * x;
    case HUGE_LOGITS: return operand == 'v' ? x : 2e4f * x;
    case TIES: return (float)(random_below(r, 3) - 1);
    case FLAT: return operand == 'q' ? 0 : x;
    case SUBNORMAL: return x * (operand == 'v' ? 1e-39f : 1e-20f);
    case CANCELLING: return operand == 'v' ? (random_below(r, 2) ? 1e6f : -1e6f) + x : 10 * x;
    default: return x;
    }
}

/* rows of `dim` floats, `dim + PAD` apart; the padding and the rows from `filled` on are NaN. */
static float *fill(struct random *r, enum kind kind, char operand, int64_t rows, int64_t filled, int dim)
{
    float *x = need((size_t)(rows * (dim + PAD)), sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
        for (int d = 0; d < dim + PAD; d++)
            x[i * (dim + PAD) + d] = i < filled && d < dim ? element(r, kind, operand) : NAN;
    }
    return x;
}

/* The kinds that are a few single elements among usual ones. */
static void spoil(struct case_data *c, struct random *r)
{
    const int q_row = c->n.qk_dim + PAD, v_row = c->n.v_dim + PAD;
    const int key_rows = c->n.keys * c->n.kv_heads, query_rows = c->n.queries * c->n.kv_heads * c->n.group;
    for (int i = 0; i < 1 + key_rows / 16; i++) {
        float *q = c->q + (int64_t)random_below(r, query_rows) * q_row + random_below(r, c->n.qk_dim);
        float *k = c->k + (int64_t)random_below(r, key_rows) * q_row;
        float *v = c->v + (int64_t)random_below(r, key_rows) * v_row + random_below(r, c->n.v_dim);
        const int which = random_below(r, 3);
        if (c->n.kind == MINUS_INFINITE) *k = -INFINITY; /* where a query's first element is positive */
        if (c->n.kind == INFINITE && which == 0) *v = INFINITY;
        if (c->n.kind == INFINITE && which == 1) k[c->n.qk_dim - 1] = INFINITY;
        if (c->n.kind == WITH_NAN && i < 2) *(which == 0 ? q : (which == 1 ? k : v)) = NAN;
    }
    if (c->n.kind != MINUS_INFINITE) return;
    for (int i = 0; i < query_rows; i++)
        c->q[(int64_t)i * q_row] = fabsf(c->q[(int64_t)i * q_row]) + 0.01f;
    if (random_below(r, 4) > 0) return;
    for (int i = 0; i < key_rows; i++) /* nothing but -inf */
        c->k[(int64_t)i * q_row] = -INFINITY;
}

static tril_tensor padded(const float *x, int64_t tokens, int64_t heads, int dim)
{
    return tensor_of(x, tokens, heads, dim + PAD);
}

static void case_make(struct case_data *c, uint64_t seed, int64_t number)
{
    struct random r = {seed + (uint64_t)number * 0xd1342543de82ef95u};
    random_bits(&r);
    c->n = choose_sizes(&r);
    const struct sizes *n = &c->n;
    const int64_t q_rows = (int64_t)n->queries * n->kv_heads * n->group, key_rows = (int64_t)n->keys * n->kv_heads;
    const int64_t all_keys = n->keys + BEYOND;
    c->q = fill(&r, n->kind, 'q', q_rows, q_rows, n->qk_dim);
    c->k = fill(&r, n->kind, 'k', all_keys * n->kv_heads, key_rows, n->qk_dim);
    c->v = fill(&r, n->kind, 'v', all_keys * n->kv_heads, key_rows, n->v_dim);
    spoil(c, &r);
    c->seq = (tril_seq){.q_len = n->queries, .kv_len = n->keys};
    c->call = (tril_attention){
        .struct_size = sizeof c->call,
        .q_heads = n->group * n->kv_heads,
        .kv_heads = n->kv_heads,
        .qk_dim = n->qk_dim,
        .v_dim = n->v_dim,
        .q = padded(c->q, n->queries, n->group * n->kv_heads, n->qk_dim),
        .k = padded(c->k, all_keys, n->kv_heads, n->qk_dim),
        .v = padded(c->v, all_keys, n->kv_heads, n->v_dim),
        .seqs = &c->seq,
        .n_seqs = 1,
        .scale = random_below(&r, 2) ? 0.0f : 0.25f,
    };
}

static void case_free(struct case_data *c)
{
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

static struct result result_new(const struct sizes *n)
{
    const int64_t heads = n->group * n->kv_heads, before = n->keys - n->queries;
    const int64_t triangle = n->queries * before + (int64_t)n->queries * (n->queries + 1) / 2;
    struct result x = {
        .out_n = (size_t)(n->queries * heads * (n->v_dim + PAD)),
        .statistics_n = (size_t)(n->queries * heads),
        .dense_n = (size_t)(heads * n->queries * (n->keys + PAD)),
        .packed_n = (size_t)(heads * (triangle + PAD)),
    };
    x.out = pattern(x.out_n);
    x.max = pattern(x.statistics_n);
    x.sum = pattern(x.statistics_n);
    x.dense = pattern(x.dense_n);
    x.packed = pattern(x.packed_n);
    return x;
}

static void result_free(struct result *x)
{
    free(x->out);
    free(x->max);
    free(x->sum);
    free(x->dense);
    free(x->packed);
}

/* K as it is in the case, in panels. */
static float *panels_of(const struct case_data *c, tril_tensor *to)
{
    enum { PANEL = 16 };
    const int64_t heads = c->n.kv_heads, panels = (c->n.keys + PANEL - 1) / PANEL;
    const int64_t head = (c->n.qk_dim + PAD) * PANEL, floats = panels * heads * head;
    float *x = need((size_t)floats, sizeof(float));
    for (int64_t i = 0; i < floats; i++)
        x[i] = NAN;
    *to = (tril_tensor){.data = x,
                        .bytes = floats * (int64_t)sizeof(float),
                        .token_stride = heads * head / PANEL * (int64_t)sizeof(float),
                        .head_stride = head * (int64_t)sizeof(float),
                        .layout = TRIL_PANELS};
    expect_ok("verify", tril_append(to, 0, &c->call.k, 0, c->n.keys, c->n.kv_heads, c->n.qk_dim));
    return x;
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

/* The case on the tier in use. */
static struct result run(const struct case_data *c, bool in_panels, int threads)
{
    struct result x = result_new(&c->n);
    const int64_t heads = c->call.q_heads, row = (c->n.keys + PAD) * (int64_t)sizeof(float);
    tril_attention call = c->call;
    float *panels = in_panels ? panels_of(c, &call.k) : NULL;
    call.out = out_of(x.out, c->n.queries, heads, c->n.v_dim + PAD);
    call.row_max = x.max;
    call.row_sum = x.sum;
    struct shared shared = {.call = &call, .threads = threads};
    expect_ok("verify", tril_workspace(&call, threads, &shared.bytes));
    shared.workspace = need(shared.bytes, 1); /* zeroed, and then used for all three calls */
    call_with(&shared);
    call.row_max = call.row_sum = NULL;
    const tril_weights_out dense = {.struct_size = sizeof dense,
                                    .data = x.dense,
                                    .bytes = (int64_t)(x.dense_n * sizeof(float)),
                                    .head_stride = c->n.queries * row,
                                    .row_stride = row};
    shared.to = &dense;
    call_with(&shared);
    const tril_weights_out packed = {.struct_size = sizeof packed,
                                     .data = x.packed,
                                     .bytes = (int64_t)(x.packed_n * sizeof(float)),
                                     .head_stride = (int64_t)(x.packed_n * sizeof(float)) / heads,
                                     .form = TRIL_WEIGHTS_PACKED};
    shared.to = &packed;
    call_with(&shared);
    free(shared.workspace);
    free(panels);
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
    return NULL;
}

/* The worst of output and weights. A weight's own magnitude is itself: it is the output for values of 1 at its key and
 * 0 elsewhere. */
static struct errors errors_of(const struct case_data *c, const struct result *x)
{
    const int heads = c->call.q_heads;
    const bool large = c->n.kind == PEAKED || c->n.kind == HUGE_LOGITS || c->n.kind == CANCELLING;
    struct reference r = reference_new(c->n.keys, c->n.v_dim);
    struct errors worst = {0, 0};
    for (int64_t i = 0; i < c->n.queries; i++) {
        for (int h = 0; h < heads; h++) {
            reference_row(&r, &c->call, &c->seq, i, h, 1);
            const float *out = x->out + (i * heads + h) * (c->n.v_dim + PAD);
            const float *a = x->dense + (h * (int64_t)c->n.queries + i) * (c->n.keys + PAD);
            const bool wide = large || !r.usual;
            const double factor = wide ? r.wide : r.factor;
            double *output = wide ? &worst.wide : &worst.usual;
            for (int d = 0; d < c->n.v_dim; d++)
                *output = fmax(*output, reference_error(out[d], r.out[d], r.magnitude[d], factor));
            for (int64_t j = 0; j < r.visible; j++)
                worst.wide = fmax(worst.wide, reference_error(a[j], r.weights[j], r.weights[j], r.wide));
        }
    }
    reference_free(&r);
    return worst;
}

/* --- the command -------------------------------------------------------------------------------------------------- */

enum { MOST_TIERS = 16 };

struct verify_options {
    uint64_t seed;
    int64_t cases, first;
    int threads;
    const char *isa;
};

static struct verify_options parse(int argc, char **argv)
{
    static const struct option longs[] = {{"seed", required_argument, NULL, SEED},
                                          {"cases", required_argument, NULL, CASES},
                                          {"first", required_argument, NULL, FIRST},
                                          {"isa", required_argument, NULL, ISA},
                                          {"threads", required_argument, NULL, THREADS},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct verify_options x = {
        .threads = 1, .seed = ((uint64_t)time(NULL) << 16 ^ (uint64_t)getpid()) % 1000000007, .cases = 200};
    for (int c; (c = next_option(argc, argv, "", longs, help)) != -1;) {
        switch (c) {
        case SEED: x.seed = (uint64_t)integer_option("--seed", optarg, 0, INT64_MAX); break;
        case CASES: x.cases = integer_option("--cases", optarg, 1, 100000000); break;
        case FIRST: x.first = integer_option("--first", optarg, 0, INT32_MAX); break;
        case THREADS: x.threads = (int)integer_option("--threads", optarg, 1, MOST_THREADS); break;
        case ISA:
            isa_option(optarg);
            x.isa = optarg;
            break;
        }
    }
    return x;
}

/* One way of one case; the case counts once, as it is computed first. */
static void judge(struct score *s, int64_t number, enum way way, const char *differs, struct errors errors)
{
    const bool within = errors.usual <= 1 && errors.wide <= 1;
    s->equal[way] += differs == NULL;
    if (way == ROWS) {
        s->cases++;
        s->within += within;
    }
    s->worst.usual = fmax(s->worst.usual, errors.usual);
    s->worst.wide = fmax(s->worst.wide, errors.wide);
    if ((differs != NULL || !within) && s->first_wrong < 0) {
        s->first_wrong = number;
        s->what = differs != NULL ? differs : "the error";
        s->how = way;
    }
}

static void verify_case(uint64_t seed, int64_t number, int threads, const char **tiers, int n, struct score *scores)
{
    struct case_data c;
    case_make(&c, seed, number);
    tril_force_isa("scalar");
    struct result oracle = run(&c, false, 1);
    const struct errors oracle_errors = errors_of(&c, &oracle);
    for (int t = 0; t < n; t++) {
        tril_force_isa(tiers[t]);
        for (enum way way = ROWS; way < (threads > 1 ? WAYS : TEAM); way++) {
            struct result x = run(&c, way == PANELS || (way == TEAM && number % 2 == 1), way == TEAM ? threads : 1);
            const char *differs = difference(&x, &oracle);
            judge(&scores[t], number, way, differs, differs == NULL ? oracle_errors : errors_of(&c, &x));
            result_free(&x);
        }
    }
    result_free(&oracle);
    case_free(&c);
}

static void print_wrong(uint64_t seed, int threads, const char *tier, const struct score *s)
{
    struct case_data c;
    case_make(&c, seed, s->first_wrong);
    printf("%s: case %" PRId64
           " (%s; %d query heads, %d K/V heads, dims %d and %d, %d queries, %d keys): %s%s is wrong; "
           "repeat it with\n    tril verify --seed %" PRIu64 " --first %" PRId64 " --cases 1 --isa %s --threads %d\n",
           tier, s->first_wrong, kind_names[c.n.kind], c.call.q_heads, c.n.kv_heads, c.n.qk_dim, c.n.v_dim, c.n.queries,
           c.n.keys, s->what, way_names[s->how], seed, s->first_wrong, tier, threads);
    case_free(&c);
}

int cmd_verify(int argc, char **argv)
{
    const struct verify_options options = parse(argc, argv);
    const char *tiers[MOST_TIERS];
    struct score scores[MOST_TIERS];
    int n = 0, usable, status = DONE;
    for (int i = 0; tril_isa_list(i, &usable) != NULL && n < MOST_TIERS; i++) {
        const char *name = tril_isa_list(i, NULL);
        if (usable && (options.isa == NULL || strcmp(options.isa, name) == 0)) tiers[n++] = name;
    }
    for (int t = 0; t < n; t++)
        scores[t] = (struct score){.first_wrong = -1};
    for (int64_t i = 0; i < options.cases; i++) {
        progress("verify", (double)i, (double)options.cases);
        verify_case(options.seed, options.first + i, options.threads, tiers, n, scores);
    }
    progress_end();

    const bool team = options.threads > 1;
    printf("seed %" PRIu64 ", cases %" PRId64 " to %" PRId64 "; the oracle is the scalar tier with K in rows\n",
           options.seed, options.first, options.first + options.cases - 1);
    printf("rows, panels: cases whose bits are all equal to the oracle's, with K in this layout, on one thread\n");
    if (team) printf("team:  the same by %d threads, K in rows and in panels in turn\n", options.threads);
    printf(
        "usual: worst error of an output, logits of usual size, in units of 2^-24 A (48 + 2 S + n/8192)\n"
        "wide:  worst error of a weight, or of an output where few scores decide it, 2 S being (2 + 4 sqrt(D)) S\n\n");
    printf("%-8s  %8s  %8s  %8s  %s%12s  %8s  %8s\n", "tier", "cases", "rows", "panels", team ? "    team  " : "",
           "within bound", "usual", "wide");
    for (int t = 0; t < n; t++) {
        const struct score *s = &scores[t];
        printf("%-8s  %8" PRId64 "  %8" PRId64 "  %8" PRId64, tiers[t], s->cases, s->equal[ROWS], s->equal[PANELS]);
        if (team) printf("  %8" PRId64, s->equal[TEAM]);
        printf("  %12" PRId64 "  %8.3f  %8.3f\n", s->within, s->worst.usual, s->worst.wide);
        if (s->first_wrong >= 0) status = DIFFERS;
    }
    for (int t = 0; t < n; t++) {
        if (scores[t].first_wrong >= 0) print_wrong(options.seed, options.threads, tiers[t], &scores[t]);
    }
    printf("\n%s\n", status == DONE ? "every bit is equal, every value within the bound" : "WRONG");
    return status;
}
