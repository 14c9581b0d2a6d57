#include "support.h"

#include "codes.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Reports */

static struct {
    const char *program, *check, *tier, *only_check;
    uint64_t seed;
    double scale;
    int index, only_case, every;
    char what[1024];
    char failure[3072];
} now = {.program = "test", .check = "", .tier = "", .scale = 1.0, .only_case = -1, .every = 1};

void support_begin(const char *program, uint64_t seed)
{
    const char *text = getenv("TRIL_TEST_SEED");
    now.program = program;
    now.seed = text != NULL ? strtoull(text, NULL, 0) : seed;
    if ((text = getenv("TRIL_TEST_SCALE")) != NULL) now.scale = strtod(text, NULL);
    if ((text = getenv("TRIL_TEST_EVERY")) != NULL && atoi(text) > 0) now.every = atoi(text);
    if ((text = getenv("TRIL_TEST_CASE")) != NULL) now.only_case = atoi(text);
    now.only_check = getenv("TRIL_TEST_CHECK");
}

uint64_t support_seed(void)
{
    return now.seed;
}

void support_scale(double scale, int every)
{
    now.scale = scale;
    now.every = every;
}

int scaled(int count)
{
    const double n = count * now.scale;
    return n < 1.0 ? 1 : (int)n;
}

uint64_t support_stride(void)
{
    return now.scale >= 1.0 ? 1 : (uint64_t)(0.5 / now.scale) * 2 + 1;
}

void check_begin(const char *check)
{
    now.check = check;
    now.tier = "";
    now.index = -1;
    now.what[0] = now.failure[0] = '\0';
}

bool case_begin(int index, struct rng *rng)
{
    if (now.only_case >= 0 && now.only_case != index) return false;
    now.index = index;
    now.what[0] = '\0';
    rng->state = now.seed;
    for (const char *c = now.check; *c != '\0'; c++)
        rng->state = (rng->state ^ (unsigned char)*c) * 0x100000001b3;
    rng->state += (uint64_t)index * 0x632be59bd9b4e019;
    rng_next(rng);
    return true;
}

bool table_case_begin(int index, struct rng *rng)
{
    const bool taken = ((uint64_t)index + now.seed) % (uint64_t)now.every == 0;
    return (taken || now.only_case == index) && case_begin(index, rng);
}

bool short_table_case_begin(int index, int cases, int least, struct rng *rng)
{
    const int most = cases / least, every = now.every;
    now.every = every < most ? every : most;
    const bool taken = table_case_begin(index, rng);
    now.every = every;
    return taken;
}

void case_describe(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(now.what, sizeof now.what, format, args);
    va_end(args);
}

void case_tier(const char *tier)
{
    now.tier = tier;
}

static int where(char *to, size_t size)
{
    return snprintf(to, size,
                    "\n  check %s, case %d, tier %s: %s\n"
                    "  replay: TRIL_TEST_SEED=0x%llx TRIL_TEST_SCALE=%g TRIL_TEST_CHECK=%s TRIL_TEST_CASE=%d %s\n",
                    now.check, now.index, now.tier, now.what, (unsigned long long)now.seed, now.scale, now.check,
                    now.index, now.program);
}

bool broken(const char *format, ...)
{
    if (now.failure[0] != '\0') return false; /* the first reason is the one to read */
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(now.failure, 1536, format, args);
    va_end(args);
    where(now.failure + (n < 1535 ? n : 1535), sizeof now.failure - 1536);
    return false;
}

const char *failure(void)
{
    return now.failure;
}

static struct sigaction former[NSIG];

static void on_signal(int number)
{
    char text[2048];
    const int head = snprintf(text, 64, "signal %d", number);
    const int n = head + where(text + head, sizeof text - 64);
    const ssize_t written = write(STDERR_FILENO, text, n < (int)sizeof text ? (size_t)n : sizeof text);
    (void)written;
    sigaction(number, &former[number], NULL); /* the instruction runs again and meets the former handler */
}

void report_signals(void)
{
    const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    for (int i = 0; i < COUNT(numbers); i++)
        sigaction(numbers[i], &action, &former[numbers[i]]);
}

/* Numbers */

uint64_t rng_next(struct rng *rng) /* splitmix64 */
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

int64_t rng_below(struct rng *rng, int64_t n)
{
    return (int64_t)(rng_next(rng) % (uint64_t)n);
}

bool rng_one_in(struct rng *rng, int n)
{
    return rng_below(rng, n) == 0;
}

/* The sum of eight uniform numbers: near enough to normal, and the same on every machine's libm. */
float rng_normal(struct rng *rng)
{
    int64_t sum = 0;
    for (int i = 0; i < 2; i++) {
        const uint64_t x = rng_next(rng);
        for (int j = 0; j < 4; j++)
            sum += (int64_t)(x >> (16 * j) & 0xffff);
    }
    return ((float)(sum - 4 * 0xffff) + 0.37f * (float)(rng_next(rng) & 1)) / (65536.0f * 0.8164966f);
}

uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

bool same_float(float a, float b)
{
    return bits_of(a) == bits_of(b) || (a != a && b != b);
}

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "out of memory\n");
        abort();
    }
    return p;
}

/* Problems */

struct problem *problem_new(int q_heads, int kv_heads, int qk_dim, int v_dim)
{
    struct problem *p = need(calloc(1, sizeof *p));
    p->q_heads = q_heads;
    p->kv_heads = kv_heads;
    p->qk_dim = qk_dim;
    p->v_dim = v_dim;
    return p;
}

void problem_seq(struct problem *p, int64_t q_gap, int64_t q_len, int64_t kv_gap, int64_t kv_len)
{
    const tril_seq seq = {
        .q_first = p->q_tokens + q_gap, .q_len = q_len, .kv_first = p->kv_tokens + kv_gap, .kv_len = kv_len};
    if (p->n_seqs == MAX_SEQS) abort();
    p->seqs[p->n_seqs++] = seq;
    if (q_len == 0) return; /* it has no extent: nothing of it may be looked at */
    p->q_tokens = seq.q_first + q_len;
    if (kv_len > 0) p->kv_tokens = seq.kv_first + kv_len;
    if (kv_len > p->longest) p->longest = kv_len;
}

int64_t visible_keys(const tril_seq *seq, int64_t query)
{
    const int64_t n = seq->kv_len - seq->q_len + query + 1;
    return n < 0 ? 0 : n;
}

int64_t range_end(const tril_seq *seq)
{
    return seq->key_end == 0 ? seq->kv_len : seq->key_end;
}

bool sees(const struct problem *p, const tril_seq *seq, int64_t query, int64_t key)
{
    const int64_t before = seq->kv_len - seq->q_len, position = before + query, token = key - before;
    if (position < 0) return false;
    if (position < seq->prefix && key < seq->prefix) return true;
    if (p->window > 0 && key <= position - p->window && key >= p->sink_tokens) return false;
    if (p->tree == NULL || token < 0) return key <= position;
    return (problem_tree_row(p, seq->q_first + query)[token / 64] >> token % 64 & 1) != 0;
}

int64_t columns_of(const struct problem *p, const tril_seq *seq, int64_t query)
{
    const int64_t causal = visible_keys(seq, query);
    if (p->tree != NULL) return seq->kv_len;
    return causal > 0 && causal <= seq->prefix ? seq->prefix : causal;
}

int64_t first_summed(const struct problem *p, const tril_seq *seq)
{
    return p->last_rows > 0 && p->last_rows < seq->q_len ? seq->q_len - p->last_rows : 0;
}

/* Whether any query of the sequence sees the key. */
static bool seen(const struct problem *p, const tril_seq *seq, int64_t key)
{
    if (p->window == 0 && p->tree == NULL) return seq->q_len > 0; /* the last query sees them all */
    for (int64_t i = seq->q_len - 1; i >= 0; i--) {
        if (sees(p, seq, i, key)) return true;
    }
    return false;
}

double problem_work(const struct problem *p)
{
    double pairs = 0.0;
    for (int i = 0; i < p->n_seqs; i++) {
        for (int64_t j = 0; j < p->seqs[i].q_len; j++)
            pairs += (double)columns_of(p, &p->seqs[i], j);
    }
    return pairs * p->q_heads * (p->qk_dim + p->v_dim);
}

static float random_value(struct rng *rng, enum values kind)
{
    switch (kind) {
    case PEAKED: return 6.0f * rng_normal(rng);
    case TINY: return rng_normal(rng) * 1e-21f;
    case VAST: return rng_normal(rng) * (rng_one_in(rng, 4) ? 1e30f : rng_one_in(rng, 2) ? 1e15f : 1e18f);
    case ANY: {
        const uint32_t bits = (uint32_t)rng_next(rng);
        return float_of((bits & 0x7f800000) == 0x7f800000 ? bits & 0x807fffff : bits);
    }
    case TIES: {
        const float x = (float)(rng_below(rng, 5) - 2);
        return x == 0.0f && rng_one_in(rng, 2) ? -0.0f : x;
    }
    case SPECIAL: {
        static const uint32_t odd[] = {0x7f800000, 0xff800000, 0x7fc00000, SIGNALLING_NAN, 0x80000000,
                                       0x00000001, 0x807fffff, 0x7f7fffff, 0xff7fffff};
        return rng_one_in(rng, 200) ? float_of(rng_of(rng, odd)) : rng_normal(rng);
    }
    default: return rng_normal(rng);
    }
}

static float *random_values(struct rng *rng, enum values kind, int64_t n)
{
    float *x = need(malloc((size_t)(n > 0 ? n : 1) * sizeof *x));
    for (int64_t i = 0; i < n; i++)
        x[i] = random_value(rng, kind);
    return x;
}

/* The numbers of an operand, without what they are. */
struct shape {
    int64_t tokens, heads, dim;
    float *values;
};

static struct shape shape_of(const struct problem *p, enum operand operand)
{
    switch (operand) {
    case OF_Q: return (struct shape){p->q_tokens, p->q_heads, p->qk_dim, p->q};
    case OF_K: return (struct shape){p->kv_tokens, p->kv_heads, p->qk_dim, p->k};
    default: return (struct shape){p->kv_tokens, p->kv_heads, p->v_dim, p->v};
    }
}

static void codes_drop(struct problem *p)
{
    for (int i = 0; i < OPERANDS; i++) {
        free(p->codes[i].rows);
        free(p->codes[i].scales);
        p->codes[i] = (struct codes){.type = TRIL_F32};
    }
}

static void options_drop(struct problem *p)
{
    free(p->sink_logits);
    free(p->alibi_slopes);
    free(p->tree);
    p->softcap = 0.0f;
    p->window = p->sink_tokens = 0;
    p->sink_logits = p->alibi_slopes = NULL;
    p->tree = NULL;
}

static void values_drop(struct problem *p)
{
    codes_drop(p);
    free(p->q);
    free(p->k);
    free(p->v);
    p->q = p->k = p->v = NULL;
}

static void codes_room(struct problem *p, enum operand operand, tril_dtype type)
{
    const struct shape s = shape_of(p, operand);
    const int64_t rows = s.tokens * s.heads;
    if (type == TRIL_F32) return;
    if (!type_fits(type, s.dim)) abort();
    p->codes[operand] = (struct codes){.type = type,
                                       .rows = need(calloc((size_t)(rows * type_row_bytes(type, s.dim) + 1), 1)),
                                       .scales = need(calloc((size_t)rows + 1, sizeof(float)))};
}

/* What encodes a row anew: its values, or (with an rng) chance. */
struct encoder {
    struct rng *rng;
    bool wild;
};
static const struct encoder from_values;

static void encode_tokens(struct problem *p, enum operand operand, int64_t token, int64_t n, struct encoder encoder)
{
    const struct shape s = shape_of(p, operand);
    const struct codes *codes = &p->codes[operand];
    if (codes->type == TRIL_F32) return;
    for (int64_t row = token * s.heads; row < (token + n) * s.heads; row++) {
        float *values = s.values + row * s.dim, *scale = codes->scales + row;
        unsigned char *code = codes->rows + row * type_row_bytes(codes->type, s.dim);
        if (encoder.rng != NULL)
            random_row(codes->type, encoder.rng, encoder.wild, s.dim, code, scale);
        else
            encode_row(codes->type, values, s.dim, code, scale);
        decode_row(codes->type, code, *scale, s.dim, values);
    }
}

void problem_store(struct problem *p, tril_dtype q, tril_dtype k, tril_dtype v)
{
    const tril_dtype types[OPERANDS] = {q, k, v};
    codes_drop(p);
    for (enum operand i = OF_Q; i < OPERANDS; i++) {
        codes_room(p, i, types[i]);
        encode_tokens(p, i, 0, shape_of(p, i).tokens, from_values);
    }
}

static tril_dtype random_type(struct rng *rng, int n, int64_t dim)
{
    tril_dtype type;
    do
        type = (tril_dtype)rng_below(rng, n);
    while (!type_fits(type, dim));
    return type;
}

void problem_store_random(struct problem *p, struct rng *rng)
{
    if (rng_one_in(rng, 3)) {
        codes_drop(p);
        return;
    }
    const tril_dtype q = random_type(rng, TRIL_BF16 + 1, p->qk_dim);
    const tril_dtype k = random_type(rng, TRIL_DTYPE_COUNT, p->qk_dim);
    problem_store(p, q, k, random_type(rng, TRIL_DTYPE_COUNT, p->v_dim));
    if (p->values == ANY && rng_one_in(rng, 2)) problem_scramble(p, rng, rng_one_in(rng, 2));
}

void problem_scramble(struct problem *p, struct rng *rng, bool wild)
{
    for (enum operand i = OF_Q; i < OPERANDS; i++)
        encode_tokens(p, i, 0, shape_of(p, i).tokens, (struct encoder){rng, wild});
}

void problem_encode(struct problem *p, int64_t token, int64_t n)
{
    encode_tokens(p, OF_K, token, n, from_values);
    encode_tokens(p, OF_V, token, n, from_values);
}

static float *zeros(int64_t n)
{
    return need(calloc((size_t)n + 1, sizeof(float)));
}

void problem_room(struct problem *p, const struct problem *like)
{
    values_drop(p);
    p->values = like->values;
    p->q = zeros(p->q_tokens * p->q_heads * p->qk_dim);
    p->k = zeros(p->kv_tokens * p->kv_heads * p->qk_dim);
    p->v = zeros(p->kv_tokens * p->kv_heads * p->v_dim);
    for (enum operand i = OF_Q; i < OPERANDS; i++)
        codes_room(p, i, like->codes[i].type);
}

static void *copy_of(const void *from, size_t bytes)
{
    return from == NULL ? NULL : memcpy(need(malloc(bytes + 1)), from, bytes);
}

void problem_copy_options(struct problem *to, const struct problem *from)
{
    const size_t heads = (size_t)from->q_heads * sizeof(float);
    options_drop(to);
    to->softcap = from->softcap;
    to->window = from->window;
    to->sink_tokens = from->sink_tokens;
    to->last_rows = from->last_rows;
    to->sink_logits = copy_of(from->sink_logits, heads);
    to->alibi_slopes = copy_of(from->alibi_slopes, heads);
}

void problem_tree(struct problem *p)
{
    int64_t queries = 1;
    for (int i = 0; i < p->n_seqs; i++) {
        if (p->seqs[i].q_len > queries) queries = p->seqs[i].q_len;
    }
    free(p->tree);
    p->tree_words = (queries + 63) / 64;
    p->tree = need(calloc((size_t)(p->q_tokens * p->tree_words + 1), sizeof *p->tree));
}

void problem_copy_tree(struct problem *to, const tril_seq *at, const struct problem *from, const tril_seq *seq)
{
    for (int64_t i = 0; i < seq->q_len; i++)
        memcpy(problem_tree_row(to, at->q_first + i), problem_tree_row(from, seq->q_first + i),
               (size_t)(seq->q_len + 63) / 64 * sizeof *from->tree);
}

struct problem *problem_copy(const struct problem *p)
{
    struct problem *copy = problem_new(p->q_heads, p->kv_heads, p->qk_dim, p->v_dim);
    *copy = *p;
    copy->q = copy->k = copy->v = NULL;
    memset(copy->codes, 0, sizeof copy->codes);
    copy->sink_logits = copy->alibi_slopes = NULL;
    copy->tree = NULL;
    problem_copy_options(copy, p);
    copy->tree = copy_of(p->tree, (size_t)(p->q_tokens * p->tree_words) * sizeof *p->tree);
    problem_room(copy, p);
    problem_copy_tokens(copy, OF_Q, 0, p, 0, p->q_tokens);
    problem_copy_tokens(copy, OF_K, 0, p, 0, p->kv_tokens);
    problem_copy_tokens(copy, OF_V, 0, p, 0, p->kv_tokens);
    return copy;
}

/* Rows of `size` bytes. */
static void copy_rows(void *to, int64_t at, const void *from, int64_t first, int64_t n, int64_t size)
{
    memmove((char *)to + at * size, (const char *)from + first * size, (size_t)(n * size));
}

void problem_copy_tokens(struct problem *to, enum operand operand, int64_t at, const struct problem *from,
                         int64_t token, int64_t n)
{
    const struct shape s = shape_of(from, operand), t = shape_of(to, operand);
    const struct codes *codes = &from->codes[operand], *to_codes = &to->codes[operand];
    if (s.heads != t.heads || s.dim != t.dim || codes->type != to_codes->type) abort();
    copy_rows(t.values, at * s.heads, s.values, token * s.heads, n * s.heads, s.dim * (int64_t)sizeof(float));
    if (codes->type == TRIL_F32) return;
    copy_rows(to_codes->rows, at * s.heads, codes->rows, token * s.heads, n * s.heads,
              type_row_bytes(codes->type, s.dim));
    copy_rows(to_codes->scales, at * s.heads, codes->scales, token * s.heads, n * s.heads, sizeof(float));
}

void problem_fill(struct problem *p, struct rng *rng, enum values kind)
{
    values_drop(p);
    p->values = kind;
    p->q = random_values(rng, kind, p->q_tokens * p->q_heads * p->qk_dim);
    p->k = random_values(rng, kind, p->kv_tokens * p->kv_heads * p->qk_dim);
    /* Values of their own kind half of the time, so that a plain sum meets odd weights and the other way about. */
    p->v = random_values(rng, rng_one_in(rng, 2) ? NORMAL : kind, p->kv_tokens * p->kv_heads * p->v_dim);
    if (kind != RISING && kind != FALLING) return;
    for (int64_t token = 0; token < p->q_tokens; token++) {
        for (int head = 0; head < p->q_heads; head++)
            problem_q(p, token, head)[0] = 1.0f;
    }
    for (int64_t token = 0; token < p->kv_tokens; token++) {
        const float step = (float)token * 0.25f * sqrtf((float)p->qk_dim);
        for (int head = 0; head < p->kv_heads; head++)
            problem_k(p, token, head)[0] = kind == RISING ? step : -step;
    }
}

int64_t chunk_reaches(const tril_seq *seq, int64_t first)
{
    const int64_t missing = seq->prefix - (seq->kv_len - seq->q_len + first);
    return seq->prefix == 0 || missing < 1 ? 1 : missing;
}

struct problem *problem_part(const struct problem *p, const tril_seq *seq, int64_t first, int64_t queries)
{
    struct problem *part = problem_new(p->q_heads, p->kv_heads, p->qk_dim, p->v_dim);
    const int64_t kv_len = seq->kv_len - seq->q_len + first + queries;
    part->scale = p->scale;
    part->math = p->math;
    /* Queries before position 0 keep their place by being more than there are keys. */
    problem_seq(part, 0, queries, 0, kv_len < 0 ? 0 : kv_len);
    part->seqs[0].prefix = seq->prefix;
    problem_copy_options(part, p);
    if (p->tree != NULL) {
        problem_tree(part);
        problem_copy_tree(part, &part->seqs[0], p, seq);
    }
    problem_room(part, p);
    problem_copy_tokens(part, OF_Q, 0, p, seq->q_first + first, queries);
    problem_copy_tokens(part, OF_K, 0, p, seq->kv_first, part->kv_tokens);
    problem_copy_tokens(part, OF_V, 0, p, seq->kv_first, part->kv_tokens);
    return part;
}

struct problem *problem_ungrouped(const struct problem *p)
{
    const int group = p->q_heads / p->kv_heads;
    struct problem *wide = problem_copy(p);
    problem_store(wide, TRIL_F32, TRIL_F32, TRIL_F32);
    free(wide->k);
    free(wide->v);
    wide->kv_heads = p->q_heads;
    wide->k = zeros(p->kv_tokens * p->q_heads * p->qk_dim);
    wide->v = zeros(p->kv_tokens * p->q_heads * p->v_dim);
    for (int64_t token = 0; token < p->kv_tokens; token++) {
        for (int64_t head = 0; head < p->q_heads; head++) {
            memcpy(problem_k(wide, token, head), problem_k(p, token, head / group), (size_t)p->qk_dim * sizeof(float));
            memcpy(problem_v(wide, token, head), problem_v(p, token, head / group), (size_t)p->v_dim * sizeof(float));
        }
    }
    return wide;
}

static float random_cap(struct rng *rng, bool odd)
{
    static const float usual[] = {50.0f, 30.0f, 5.0f, 1.0f, 0.25f}, sizes[] = {1e-10f, 1e-3f, 1e4f, 1e20f, 2.3e38f};
    if (odd && rng_one_in(rng, 2)) return rng_of(rng, sizes);
    return rng_one_in(rng, 3) ? 0.01f + 10.0f * fabsf(rng_normal(rng)) : rng_of(rng, usual);
}

/* Around the lanes, around one block and two, and of no effect. */
static int64_t random_window(struct rng *rng)
{
    static const int64_t around[] = {1, 16, 64, 256, 512}, large[] = {1 << 20, INT64_MAX};
    if (rng_one_in(rng, 10)) return rng_of(rng, large);
    if (rng_one_in(rng, 4)) return 1 + rng_below(rng, 700);
    const int64_t window = rng_of(rng, around) - 2 + rng_below(rng, 5);
    return window < 1 ? 1 : window;
}

static float random_logit(struct rng *rng, bool odd)
{
    static const float sizes[] = {-INFINITY, 0.0f, 60.0f, -300.0f}, extremes[] = {2.3e38f, -2.3e38f, 1e-40f, 1e10f};
    if (odd && rng_one_in(rng, 4)) return rng_of(rng, extremes);
    return rng_one_in(rng, 3) ? rng_of(rng, sizes) : 3.0f * rng_normal(rng);
}

static float random_slope(struct rng *rng, bool odd)
{
    static const float sizes[] = {0.0f, -0.0f, 1.0f, 0x1p-8f, -0x1p-4f}, extremes[] = {2.3e38f, -1e30f, 1e-40f, -50.0f};
    if (odd && rng_one_in(rng, 4)) return rng_of(rng, extremes);
    return rng_one_in(rng, 3) ? rng_of(rng, sizes) : 0.1f * rng_normal(rng);
}

/* Up to some query, most of the time, or anywhere. */
static int64_t random_prefix(struct rng *rng, const tril_seq *seq)
{
    const int64_t before = seq->kv_len < seq->q_len ? 0 : seq->kv_len - seq->q_len;
    return rng_one_in(rng, 3) ? rng_below(rng, seq->kv_len + 1) : before + rng_below(rng, seq->kv_len - before + 1);
}

/* One query's row: nothing, everything, what is causal, or any bits, few or many of them, also of later tokens. */
static void random_tree_row(struct rng *rng, int64_t query, int64_t queries, uint64_t *row)
{
    const int kind = (int)rng_below(rng, 8), one_in = 2 + (int)rng_below(rng, 6);
    for (int64_t t = 0; t < queries; t++) {
        const bool some = rng_one_in(rng, one_in) != (kind == 7);
        const bool bit = kind == 0 ? false : kind == 1 ? true : kind == 2 ? t <= query : some;
        row[t / 64] |= (uint64_t)bit << t % 64;
    }
}

static void random_tree(struct problem *p, struct rng *rng)
{
    for (int s = 0; s < p->n_seqs; s++) {
        if (p->seqs[s].q_len > p->seqs[s].kv_len) return;
    }
    problem_tree(p);
    for (int s = 0; s < p->n_seqs; s++) {
        for (int64_t i = 0; i < p->seqs[s].q_len; i++)
            random_tree_row(rng, i, p->seqs[s].q_len, problem_tree_row(p, p->seqs[s].q_first + i));
    }
}

void problem_options(struct problem *p, struct rng *rng, unsigned which)
{
    const bool odd = p->values == ANY || p->values == VAST;
    options_drop(p);
    if ((which & SOFTCAP) != 0) p->softcap = random_cap(rng, odd);
    if ((which & WINDOW) != 0) p->window = random_window(rng);
    if ((which & SINK_TOKENS) != 0) p->sink_tokens = rng_one_in(rng, 2) ? rng_below(rng, 6) : rng_below(rng, 301);
    if ((which & SINK_LOGITS) != 0) p->sink_logits = zeros(p->q_heads);
    if ((which & ALIBI) != 0) p->alibi_slopes = zeros(p->q_heads);
    for (int head = 0; head < p->q_heads; head++) {
        if (p->sink_logits != NULL) p->sink_logits[head] = random_logit(rng, odd);
        if (p->alibi_slopes != NULL) p->alibi_slopes[head] = random_slope(rng, odd);
    }
    if ((which & TREE) != 0) random_tree(p, rng);
    for (int s = 0; s < p->n_seqs; s++)
        p->seqs[s].prefix = (which & PREFIX) != 0 ? random_prefix(rng, &p->seqs[s]) : 0;
}

void problem_options_random(struct problem *p, struct rng *rng, unsigned among)
{
    unsigned which = 0;
    for (unsigned bit = 1; bit <= EVERY_OPTION; bit *= 2)
        which |= rng_one_in(rng, 3) ? bit : 0;
    problem_options(p, rng, which & among);
}

void problem_math_random(struct problem *p, struct rng *rng)
{
    p->math = rng_one_in(rng, 3) ? TRIL_MATH_BF16 : TRIL_MATH_F32;
}

struct problem *problem_random(struct rng *rng, double work, enum values kind)
{
    static const int dims[] = {1,  2,  3,  4,  5,  7,  8,  15,  16,  17,  24,  31,  32,  33,
                               40, 48, 63, 64, 65, 80, 96, 128, 128, 192, 256, 320, 512, 576};
    static const int lengths[] = {1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 100, 255, 256, 257, 300, 511, 512, 513, 700};
    static const int groups[] = {1, 1, 2, 3, 4, 5, 6, 7, 8, 11, 16};
    for (;;) {
        const int group = rng_of(rng, groups), kv_heads = 1 + (int)rng_below(rng, 3), qk_dim = rng_of(rng, dims);
        struct problem *p =
            problem_new(group * kv_heads, kv_heads, qk_dim, rng_one_in(rng, 2) ? qk_dim : rng_of(rng, dims));
        const int n_seqs = rng_one_in(rng, 2) ? 1 : 1 + (int)rng_below(rng, MAX_SEQS);
        p->scale = rng_one_in(rng, 2) ? 0.0f : rng_one_in(rng, 4) ? -0.11f : 0.05f + 0.3f * fabsf(rng_normal(rng));
        p->last_rows = rng_one_in(rng, 2) ? 0 : 1 + rng_below(rng, 40);
        for (int i = 0; i < n_seqs; i++) {
            const int64_t kv_len = rng_one_in(rng, 12) ? 0 : rng_of(rng, lengths);
            const int64_t q_len = rng_one_in(rng, 3)    ? 1
                                  : rng_one_in(rng, 3)  ? kv_len
                                  : rng_one_in(rng, 12) ? kv_len + 1 + rng_below(rng, 20)
                                                        : rng_below(rng, kv_len + 1);
            problem_seq(p, rng_one_in(rng, 4) ? rng_below(rng, 4) : 0, q_len,
                        rng_one_in(rng, 4) ? rng_below(rng, 9) : 0, kv_len);
        }
        if (problem_work(p) <= work) {
            problem_fill(p, rng, kind);
            return p;
        }
        problem_free(p);
    }
}

void problem_free(struct problem *p)
{
    if (p == NULL) return;
    values_drop(p);
    options_drop(p);
    free(p);
}

const char *values_name(enum values kind)
{
    static const char *const names[] = {"normal", "peaked", "tiny",    "vast",   "any",
                                        "ties",   "rising", "falling", "special"};
    _Static_assert(COUNT(names) == VALUES_COUNT, "a name for every kind");
    return names[kind];
}

/* Those that are asked for. */
static void options_describe(const struct problem *p, char *to, size_t size)
{
    size_t n = 0;
    to[0] = '\0';
    if (p->softcap > 0.0f) n += (size_t)snprintf(to, size, " softcap %a", (double)p->softcap);
    if (p->window > 0) n += (size_t)snprintf(to + n, size - n, " window %lld", (long long)p->window);
    if (p->sink_tokens > 0) n += (size_t)snprintf(to + n, size - n, " sinks %lld", (long long)p->sink_tokens);
    snprintf(to + n, size - n, "%s%s%s", p->sink_logits != NULL ? " logits" : "",
             p->alibi_slopes != NULL ? " slopes" : "", p->tree != NULL ? " tree" : "");
}

void problem_describe(const struct problem *p, const char *more)
{
    char seqs[512] = "", options[160];
    size_t n = 0;
    for (int i = 0; i < p->n_seqs && n < sizeof seqs; i++) {
        const tril_seq *seq = &p->seqs[i];
        n += (size_t)snprintf(seqs + n, sizeof seqs - n, " q%lld@%lld k%lld@%lld", (long long)seq->q_len,
                              (long long)seq->q_first, (long long)seq->kv_len, (long long)seq->kv_first);
        if (seq->prefix > 0 && n < sizeof seqs)
            n += (size_t)snprintf(seqs + n, sizeof seqs - n, " prefix %lld", (long long)seq->prefix);
    }
    options_describe(p, options, sizeof options);
    case_describe("h%dx%d d%d/%d %s/%s/%s%s scale %a%s, last %lld, %d seqs:%s; %s", p->q_heads, p->kv_heads, p->qk_dim,
                  p->v_dim, type_name(p->codes[OF_Q].type), type_name(p->codes[OF_K].type),
                  type_name(p->codes[OF_V].type), p->math == TRIL_MATH_BF16 ? " math BF16" : "", (double)p->scale,
                  options, (long long)p->last_rows, p->n_seqs, seqs, more);
}

/* Memory */

struct area area_new(size_t bytes, enum guard guard, size_t offset)
{
    struct area a = {.bytes = bytes};
    if (guard == GUARD_NONE) {
        a.base = need(malloc(offset + bytes + (offset + bytes == 0)));
        a.data = (unsigned char *)a.base + offset;
        return a;
    }
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
    a.mapped = inner + 2 * page;
    a.base = mmap(NULL, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (a.base == MAP_FAILED || (inner > 0 && mprotect((char *)a.base + page, inner, PROT_READ | PROT_WRITE) != 0))
        need(NULL);
    a.data = (unsigned char *)a.base + page + (guard == GUARD_AFTER ? inner - bytes : 0);
    return a;
}

void area_read_only(const struct area *a)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (a->mapped > 2 * page && mprotect((char *)a->base + page, a->mapped - 2 * page, PROT_READ) != 0) need(NULL);
}

void area_free(struct area *a)
{
    if (a->mapped > 0)
        munmap(a->base, a->mapped);
    else
        free(a->base);
    memset(a, 0, sizeof *a);
}

const struct placing contiguous;

static struct place place_random(struct rng *rng)
{
    return (struct place){
        .head_major = rng_one_in(rng, 2),
        .row_pad = rng_one_in(rng, 2) ? 0 : (int)rng_below(rng, 20),
        .outer_pad = rng_one_in(rng, 2) ? 0 : (int)rng_below(rng, 40),
        .block_pad = rng_one_in(rng, 2) ? 0 : (int)rng_below(rng, 50),
        .offset = (int)rng_below(rng, 16),
    };
}

struct placing placing_random(struct rng *rng)
{
    static const int pages[] = {16, 32, 48, 64, 128, 256, 272};
    struct placing placing = {.workspace_offset = (int)rng_below(rng, 64)};
    placing.q = place_random(rng);
    placing.k = place_random(rng);
    placing.k.crowded = rng_one_in(rng, 5);
    placing.v = place_random(rng);
    placing.out = place_random(rng);
    placing.scales = place_random(rng);
    placing.stored = !rng_one_in(rng, 3);
    placing.poisoned = rng_one_in(rng, 2);
    placing.tree_pad = rng_one_in(rng, 2) ? 0 : (int)rng_below(rng, 3);
    placing.out_type = !rng_one_in(rng, 4) ? TRIL_F32 : rng_one_in(rng, 2) ? TRIL_F16 : TRIL_BF16;
    if (rng_one_in(rng, 3)) placing.page = rng_of(rng, pages);
    placing.page_seed = (uint32_t)rng_next(rng);
    placing.page_by_page = placing.page_seed % 3 == 0;
    placing.panels = rng_one_in(rng, 2);
    placing.team = team_random(rng);
    return placing;
}

/* Every other time nobody: the plain call. */
struct team team_random(struct rng *rng)
{
    struct team team = {.threads = 0};
    if (rng_one_in(rng, 2)) return team;
    team.threads = 1 + (int)rng_below(rng, 8);
    team.one_by_one = rng_one_in(rng, 2);
    team.seed = rng_next(rng);
    team.number = rng_one_in(rng, 2) ? 0 : 1 + rng_below(rng, INT64_C(1) << 62);
    if (rng_one_in(rng, 3)) team.absent = rng_next(rng) & ~(UINT64_C(1) << rng_below(rng, team.threads));
    return team;
}

void placing_describe(const struct placing *placing, char *to, size_t size)
{
    const struct place *const places[] = {&placing->q, &placing->k, &placing->v, &placing->out, &placing->scales};
    const struct team *team = &placing->team;
    size_t n = (size_t)snprintf(to, size, "guard %d, workspace+%d,%s%s%s tree+%d, out %s,", (int)placing->guard,
                                placing->workspace_offset, placing->stored ? " stored," : "",
                                placing->poisoned ? " poisoned," : "", placing->panels ? " K in panels," : "",
                                placing->tree_pad, placing->in_place ? "in place" : type_name(placing->out_type));
    if (placing->page > 0 && n < size)
        n +=
            (size_t)snprintf(to + n, size - n, " pages of %d by %#x, %s, %d shared,", placing->page, placing->page_seed,
                             placing->page_by_page ? "in order" : "in none", placing->shared_pages);
    if (team->threads > 0 && n < size)
        n += (size_t)snprintf(to + n, size - n, " team of %d%s, absent %llx, call %lld,", team->threads,
                              team->one_by_one ? " one by one" : "",
                              (unsigned long long)team->absent & ((UINT64_C(1) << team->threads) - 1),
                              (long long)team->number);
    for (int i = 0; i < COUNT(places) && n < size; i++)
        n += (size_t)snprintf(to + n, size - n, " %c:%s%s+%d+%d+%d@%d", "qkvos"[i],
                              places[i] -> head_major ? "head" : "token", places[i]->crowded ? " crowded" : "",
                              places[i]->row_pad, places[i]->outer_pad, places[i]->block_pad, places[i]->offset);
}

/* Runs */

const char *operation_name(enum operation operation)
{
    static const char *const names[OPERATIONS] = {"attend", "weights/dense", "weights/packed", "weights/columns"};
    return names[operation];
}

#define ELEMENT ((int64_t)sizeof(float))

enum { PANEL = 16 };

/* What is to lie in memory: rows of `row` bytes, aligned to `unit`. A step is one token, or with panels 16. */
struct extent {
    int64_t blocks, tokens, heads; /* tokens of a block; one block where there are no pages */
    int64_t row, unit, step;
};
struct strides {
    int64_t block, step, head, bytes; /* bytes: the exact extent */
};

static int64_t stride_of(const struct place *place, int64_t bytes)
{
    const int64_t whole = place->crowded ? 2048 : 1;
    return (bytes + whole - 1) / whole * whole;
}

static struct strides strides_of(const struct place *place, const struct extent *x)
{
    const int64_t row = x->row * x->step, row_pad = place->row_pad * x->unit, outer_pad = place->outer_pad * x->unit;
    const int64_t steps = (x->tokens + x->step - 1) / x->step, panel_unit = x->unit * x->step;
    struct strides s;
    if (place->head_major) {
        s.step = stride_of(place, row + row_pad * x->step);
        s.head = steps * s.step + outer_pad;
    } else {
        s.head = row + row_pad;
        s.step = stride_of(place, (x->heads * s.head + outer_pad + panel_unit - 1) / panel_unit * panel_unit);
    }
    const int64_t block = (steps - 1) * s.step + (x->heads - 1) * s.head + row;
    s.block = block + place->block_pad * x->unit;
    s.bytes = x->blocks == 0 || x->tokens == 0 || x->row == 0 ? 0 : (x->blocks - 1) * s.block + block;
    return s;
}

static struct strides strides_of_rows(const struct place *place, int64_t tokens, int64_t heads, int64_t dim,
                                      tril_dtype type)
{
    return strides_of(place, &(struct extent){1, tokens, heads, type_row_bytes(type, dim), type_unit(type), 1});
}

static void fill_words(struct area *a, uint32_t word)
{
    for (size_t i = 0; i < a->bytes; i += sizeof word)
        memcpy(a->data + i, &word, a->bytes - i < sizeof word ? a->bytes - i : sizeof word);
}

static bool extent_of(const tril_seq *seq, bool keys, int64_t *source, int64_t *n)
{
    *source = keys ? seq->kv_first + seq->key_begin : seq->q_first;
    *n = keys ? range_end(seq) - seq->key_begin : seq->q_len;
    return seq->q_len > 0 && *n > 0;
}

/* Whether keys of a sequence's page take part, and where poisoned, some query sees one of the page's. */
static bool page_used(const struct problem *p, const tril_seq *seq, const struct placing *placing, int64_t page)
{
    const int64_t first = page * placing->page, next = first + placing->page;
    if (next <= seq->key_begin || first >= range_end(seq)) return false;
    bool used = !placing->poisoned;
    for (int64_t j = first; j < next && j < seq->kv_len && !used; j++)
        used = seen(p, seq, j);
    return used;
}

/* Pages in no order, or one behind the other, out of a pool that is somewhat larger. The last of the pool is some
 * sequence's last, so that the memory's end is the end of a page in use. Entries of positions that do not take part are
 * no block numbers. */
static struct pages pages_new(const struct problem *p, const struct placing *placing)
{
    static const int32_t garbage[] = {-1, INT32_MAX, INT32_MIN};
    const int64_t page = placing->page;
    struct pages pages = {.tokens = page};
    struct rng rng = {.state = placing->page_seed};
    int64_t n = placing->shared_pages > 0, source, keys, last = 0;
    bool any = false;
    int used = 0;
    if (page == 0) return pages;
    for (int i = 0; i < p->n_seqs; i++) { /* numbers in order first */
        const tril_seq *seq = &p->seqs[i];
        const bool has_keys = extent_of(seq, true, &source, &keys);
        const int64_t end = has_keys ? (range_end(seq) + page - 1) / page : 0;
        struct area *table = &pages.tables[i];
        bool found = false;
        *table =
            area_new((size_t)end * sizeof(int32_t), placing->guard == GUARD_BEFORE ? GUARD_BEFORE : GUARD_AFTER, 0);
        for (int64_t j = end - 1; j >= 0; j--) {
            const bool is_used = page_used(p, seq, placing, j);
            const int32_t number = !is_used ? -1 : j < placing->shared_pages ? 0 : (int32_t)n++;
            memcpy(table->data + j * (int64_t)sizeof number, &number, sizeof number);
            if (is_used && !found && rng_one_in(&rng, ++used)) last = number;
            found = found || is_used;
        }
        any = any || has_keys;
    }
    pages.n = n + rng_below(&rng, 4);
    if (used == 0) pages.n = any; /* keys that nobody sees still lie somewhere */
    int32_t *order = need(malloc(((size_t)pages.n + 1) * sizeof *order));
    for (int64_t i = 0; i < pages.n; i++) {
        const int64_t at = rng_below(&rng, i + 1);
        order[i] = order[at];
        order[at] = (int32_t)i;
    }
    for (int64_t i = 0; i < pages.n && placing->page_by_page; i++) /* a sequence's first page has the largest number */
        order[i] = (int32_t)(pages.n - 1 - i);
    for (int64_t i = 0; i < pages.n; i++) {
        if (order[i] != pages.n - 1) continue;
        order[i] = order[last];
        order[last] = (int32_t)(pages.n - 1);
        break;
    }
    for (int i = 0; i < p->n_seqs; i++) {
        int32_t *table = (int32_t *)(void *)pages.tables[i].data;
        for (int64_t j = 0; j < (int64_t)(pages.tables[i].bytes / sizeof *table); j++)
            table[j] = table[j] < 0 ? rng_of(&rng, garbage) : order[table[j]];
        area_read_only(&pages.tables[i]);
    }
    free(order);
    return pages;
}

/* Where row `i` of a sequence lies, counted from the first that takes part. */
struct spot {
    int64_t block, token;
};

static struct spot spot_of(const struct placed *x, int s, enum operand operand, int64_t i)
{
    const tril_seq *seq = &x->call.seqs[s];
    if (operand == OF_Q) return (struct spot){0, seq->q_first + i};
    if (x->pages.tokens == 0) return (struct spot){0, seq->kv_first + i};
    const int64_t position = seq->key_begin + i;
    return (struct spot){seq->blocks[position / x->pages.tokens], position % x->pages.tokens};
}

static tril_dtype placed_type(const struct problem *p, const struct placing *placing, enum operand operand)
{
    return placing->stored ? p->codes[operand].type : TRIL_F32;
}

static bool in_panels(const struct problem *p, const struct placing *placing)
{
    return placing->panels && placed_type(p, placing, OF_K) <= TRIL_I8;
}

static struct extent extent_in_memory(const struct placed *x, enum operand operand, tril_dtype type, bool panels)
{
    const struct problem *p = x->p;
    const struct shape s = shape_of(p, operand);
    struct extent e = {.blocks = 1,
                       .heads = s.heads,
                       .row = type_row_bytes(type, s.dim),
                       .unit = type_unit(type),
                       .step = panels ? PANEL : 1};
    int64_t source, n;
    if (operand != OF_Q && x->pages.tokens > 0) {
        e.blocks = x->pages.n;
        e.tokens = x->pages.tokens;
        return e;
    }
    for (int i = 0; i < p->n_seqs; i++) {
        if (!extent_of(&p->seqs[i], operand != OF_Q, &source, &n)) continue;
        const int64_t end = spot_of(x, i, operand, n - 1).token + 1;
        if (end > e.tokens) e.tokens = end;
    }
    return e;
}

/* One row, or its place in a panel, from the header's formula. */
static void put_row(unsigned char *to, const unsigned char *row, int64_t token, const struct extent *e)
{
    if (e->step == 1) {
        memcpy(to, row, (size_t)e->row);
        return;
    }
    for (int64_t d = 0; d < e->row / e->unit; d++)
        memcpy(to + (d * PANEL + token % PANEL) * e->unit, row + d * e->unit, (size_t)e->unit);
}

/* An operand in memory: the rows that a sequence uses, what makes a NaN everywhere else. */
static struct area place_operand(const struct placed *x, enum operand operand, const struct place *place,
                                 struct area *scales, tril_tensor *to)
{
    const struct problem *p = x->p;
    const struct placing *placing = &x->placing;
    const struct shape shape = shape_of(p, operand);
    const tril_dtype type = placed_type(p, placing, operand);
    const struct codes *codes = &p->codes[operand];
    const unsigned char *rows = type == TRIL_F32 ? (const unsigned char *)shape.values : codes->rows;
    const bool panels = operand == OF_K && in_panels(p, placing), pages = operand != OF_Q && x->pages.tokens > 0;
    const struct extent e = extent_in_memory(x, operand, type, panels);
    const struct extent scale = {e.blocks, type == TRIL_I8 ? e.tokens : 0, e.heads, ELEMENT, ELEMENT, 1};
    const struct strides s = strides_of(place, &e), t = strides_of(&placing->scales, &scale);
    struct area a = area_new((size_t)s.bytes, placing->guard, (size_t)(place->offset * e.unit));
    fill_words(&a, type_filler(type));
    *scales = area_new((size_t)t.bytes, placing->guard, (size_t)(placing->scales.offset * ELEMENT));
    fill_words(scales, SIGNALLING_NAN);
    for (int i = 0; i < p->n_seqs; i++) {
        int64_t source, n;
        if (!extent_of(&p->seqs[i], operand != OF_Q, &source, &n)) continue;
        for (int64_t j = 0; j < n; j++) {
            const tril_seq *seq = &p->seqs[i];
            if (operand != OF_Q && placing->poisoned && !seen(p, seq, seq->key_begin + j)) continue;
            const struct spot spot = spot_of(x, i, operand, j);
            for (int64_t head = 0; head < shape.heads; head++) {
                const int64_t row = (source + j) * shape.heads + head;
                put_row(a.data + spot.block * s.block + spot.token / e.step * s.step + head * s.head,
                        rows + row * e.row, spot.token, &e);
                if (type == TRIL_I8)
                    memcpy(scales->data + spot.block * t.block + spot.token * t.step + head * t.head,
                           codes->scales + row, sizeof(float));
            }
        }
    }
    const bool repeats = operand != OF_Q && placing->repeat_keys;
    *to = (tril_tensor){.data = a.data,
                        .bytes = s.bytes,
                        .token_stride = repeats ? 0 : s.step / e.step,
                        .head_stride = s.head,
                        .dtype = type,
                        .layout = panels ? TRIL_PANELS : TRIL_ROWS,
                        .block_stride = pages ? s.block : 0};
    if (type != TRIL_I8) return a;
    to->scales = (const float *)(const void *)scales->data;
    to->scales_bytes = t.bytes;
    to->scale_token_stride = repeats ? 0 : t.step;
    to->scale_head_stride = t.head;
    to->scale_block_stride = pages ? t.block : 0;
    return a;
}

/* take_row() brings a written row home and puts the former bytes back, so that at the end the whole area must be as it
 * was. */
static struct output output_from(struct area area)
{
    struct output o = {.area = area, .former = need(malloc(area.bytes + 1))};
    memcpy(o.former, area.data, area.bytes);
    return o;
}

static struct output output_new(int64_t bytes, enum guard guard, int64_t offset)
{
    struct area area = area_new((size_t)bytes, guard, (size_t)offset);
    fill_words(&area, 0xc5c5c5c5);
    return output_from(area);
}

static void take_row(struct output *o, tril_dtype type, int64_t at, int64_t n, float *to)
{
    if (n == 0) return;
    decode_row(type, o->area.data + at, 0.0f, n, to);
    memcpy(o->area.data + at, o->former + at, (size_t)type_row_bytes(type, n));
}

static bool untouched(const struct output *o, const char *name)
{
    for (size_t i = 0; i < o->area.bytes; i++) {
        if (o->area.data[i] != o->former[i])
            return broken("%s: byte %zu of %zu was overwritten, and is no part of any result", name, i, o->area.bytes);
    }
    return true;
}

static void output_free(struct output *o)
{
    free(o->former);
    area_free(&o->area);
}

static struct result *result_new(const struct problem *p, enum operation operation)
{
    struct result *r = need(calloc(1, sizeof *r));
    r->rows = operation == COLUMNS ? p->n_seqs : p->q_tokens;
    r->tokens = p->q_tokens;
    r->heads = p->q_heads;
    r->width = operation == ATTEND ? p->v_dim : p->longest;
    r->x = need(calloc((size_t)(r->rows * r->heads * r->width + 1), sizeof(float)));
    r->row_max = need(calloc((size_t)(r->tokens * r->heads + 1), sizeof(float)));
    r->row_sum = need(calloc((size_t)(r->tokens * r->heads + 1), sizeof(float)));
    return r;
}

void result_free(struct result *r)
{
    if (r == NULL) return;
    free(r->x);
    free(r->row_max);
    free(r->row_sum);
    free(r);
}

/* Where row `query` of a sequence begins in the packed form, counted by hand. */
static int64_t packed_before(const struct problem *p, const tril_seq *seq, int64_t query)
{
    int64_t n = 0;
    for (int64_t i = 0; i < query; i++)
        n += columns_of(p, seq, i);
    return n;
}

static int64_t parts_of(const tril_seq *seq)
{
    return (range_end(seq) - seq->key_begin + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
}

/* The type of what the call writes. */
static tril_dtype out_type(const struct placed *x)
{
    if (x->operation == COLUMNS) return TRIL_F32;
    return x->placing.in_place ? placed_type(x->p, &x->placing, OF_Q) : x->placing.out_type;
}

static bool blockwise(const struct placed *x)
{
    return (x->call.flags & TRIL_BLOCKWISE) != 0;
}

/* Where query `query` of a sequence has its row, of which `packed` elements of the sequences lie before; how long it
 * is.
 */
static int64_t row_at(const struct placed *x, int64_t part, const tril_seq *seq, int64_t query, int64_t head,
                      int64_t packed, int64_t *n)
{
    const int64_t token = seq->q_first + query;
    switch (x->operation) {
    case ATTEND:
        *n = x->p->v_dim;
        return part * x->call.out_part_stride + token * x->call.out.token_stride + head * x->call.out.head_stride;
    case DENSE: *n = seq->kv_len; return token * x->weights.row_stride + head * x->weights.head_stride;
    case PACKED:
        *n = columns_of(x->p, seq, query);
        return packed * type_unit(out_type(x)) + head * x->weights.head_stride;
    default: *n = 0; return 0;
    }
}

static void take_statistics(struct placed *x, int64_t part, int64_t row, struct result *r)
{
    const int64_t at = (part * x->call.statistics_part_stride + row) * ELEMENT;
    if (x->call.row_max != NULL) take_row(&x->max, TRIL_F32, at, 1, r->row_max + row);
    if (x->call.row_sum != NULL) take_row(&x->sum, TRIL_F32, at, 1, r->row_sum + row);
}

static void take_columns(struct placed *x, struct result *r)
{
    for (int64_t i = 0; i < x->p->n_seqs; i++) {
        const tril_seq *seq = &x->p->seqs[i];
        for (int64_t head = 0; seq->q_len > 0 && head < r->heads; head++) {
            take_row(&x->out, TRIL_F32, i * x->weights.row_stride + head * x->weights.head_stride, seq->kv_len,
                     r->x + (i * r->heads + head) * r->width);
        }
    }
}

static void take_rows(struct placed *x, int64_t part, struct result *r)
{
    const struct problem *p = x->p;
    int64_t packed = 0;
    r->type = out_type(x);
    if (x->operation == COLUMNS) take_columns(x, r);
    for (int i = 0; i < p->n_seqs; i++) {
        const tril_seq *seq = &p->seqs[i];
        const bool is_there = !blockwise(x) || part < parts_of(seq);
        for (int64_t j = x->operation == COLUMNS ? first_summed(p, seq) : 0; j < seq->q_len; j++) {
            for (int64_t head = 0; head < p->q_heads; head++) {
                const int64_t row = (seq->q_first + j) * p->q_heads + head;
                if (!is_there) {
                    r->row_max[row] = -INFINITY;
                    r->row_sum[row] = -0.0f;
                    continue;
                }
                int64_t n;
                const int64_t at = row_at(x, part, seq, j, head, packed, &n);
                if (n > 0) take_row(&x->out, r->type, at, n, r->x + row * r->width);
                take_statistics(x, part, row, r);
            }
            packed += columns_of(p, seq, j);
        }
    }
}

/* Where the sequences' keys lie: in pages, or with panels on multiples of 16. One without keys may have no table. */
static void place_seqs(struct placed *x)
{
    const struct problem *p = x->p;
    const enum guard guard = x->placing.guard;
    int64_t next = 0;
    x->seqs = area_new((size_t)p->n_seqs * sizeof(tril_seq), guard == GUARD_NONE ? GUARD_AFTER : guard, 0);
    tril_seq *to = (tril_seq *)(void *)x->seqs.data;
    for (int i = 0; i < p->n_seqs; i++) {
        const tril_seq *seq = &p->seqs[i];
        to[i] = *seq;
        if (x->pages.tokens > 0) {
            to[i].kv_first = 0;
            if (x->pages.tables[i].bytes > 0 || i % 2 == 0)
                to[i].blocks = (const int32_t *)(const void *)x->pages.tables[i].data;
        } else if (in_panels(p, &x->placing)) {
            const int64_t gap = i > 0 && seq->kv_first > 0 && seq->kv_len % 2 == 1 ? PANEL : 0;
            to[i].kv_first = (next + PANEL - 1) / PANEL * PANEL + gap;
            if (seq->q_len > 0) next = to[i].kv_first + range_end(seq) - seq->key_begin;
        }
    }
    area_read_only(&x->seqs);
    x->call.seqs = to;
    x->call.block_tokens = x->pages.tokens;
    x->call.n_blocks = x->pages.n;
}

static void place_out(struct placed *x)
{
    const struct problem *p = x->p;
    const struct place *place = &x->placing.out;
    const tril_dtype type = out_type(x);
    tril_attention *call = &x->call;
    const struct strides s = strides_of_rows(place, p->q_tokens, p->q_heads, p->v_dim, type);
    call->out = (tril_out){.token_stride = s.step, .head_stride = s.head, .dtype = type};
    if (blockwise(x)) {
        call->out_part_stride = s.bytes + place->outer_pad * type_unit(type);
        call->statistics_part_stride = p->q_tokens * p->q_heads + place->row_pad;
    }
    if (x->placing.in_place) {
        x->out = output_from(x->q);
        call->out.token_stride = call->q.token_stride;
        call->out.head_stride = call->q.head_stride;
    } else {
        x->out = output_new((x->parts - 1) * call->out_part_stride + s.bytes, x->placing.guard,
                            place->offset * type_unit(type));
    }
    call->out.data = x->out.area.data;
    call->out.bytes = (int64_t)x->out.area.bytes;
}

static void place_weights(struct placed *x)
{
    const struct problem *p = x->p;
    const tril_dtype type = out_type(x);
    const int64_t unit = type_unit(type);
    tril_weights_out *weights = &x->weights;
    int64_t bytes = 0;
    weights->dtype = type;
    if (x->operation == PACKED) {
        int64_t elements = 0;
        for (int i = 0; i < p->n_seqs; i++)
            elements += packed_before(p, &p->seqs[i], p->seqs[i].q_len);
        weights->form = TRIL_WEIGHTS_PACKED;
        weights->head_stride = (elements + x->placing.out.outer_pad) * unit;
        if (elements > 0) bytes = (p->q_heads - 1) * weights->head_stride + elements * unit;
    } else {
        struct place rows = x->placing.out; /* a matrix per head is the only order the header promises */
        rows.head_major = true;
        const int64_t n = x->operation == COLUMNS ? p->n_seqs : p->q_tokens;
        const struct strides s = strides_of_rows(&rows, n, p->q_heads, p->longest, type);
        bytes = s.bytes;
        weights->row_stride = s.step;
        weights->head_stride = s.head;
    }
    if (x->operation == COLUMNS) {
        weights->form = TRIL_WEIGHTS_COLUMN_SUMS;
        weights->last_rows = p->last_rows;
    }
    x->out = output_new(bytes, x->placing.guard, x->placing.out.offset * unit);
    weights->data = x->out.area.data;
    weights->bytes = bytes;
}

/* A copy between pages that fault, for reading. */
static struct area guarded_copy(const void *from, int64_t bytes, enum guard guard)
{
    struct area a = area_new((size_t)bytes, guard == GUARD_NONE ? GUARD_AFTER : guard, 0);
    memcpy(a.data, from, (size_t)bytes);
    area_read_only(&a);
    return a;
}

/* Bits of tokens that are none, of rows that are nobody's and of padding say that a token is seen. */
static void place_tree(struct placed *x)
{
    const struct problem *p = x->p;
    const int64_t word = (int64_t)sizeof *p->tree, stride = p->tree_words + x->placing.tree_pad;
    const int64_t words = p->q_tokens == 0 ? 0 : (p->q_tokens - 1) * stride + p->tree_words;
    uint64_t *bits = need(malloc((size_t)((words + 1) * word)));
    memset(bits, 0xff, (size_t)(words * word));
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        for (int64_t i = 0; i < seq->q_len; i++) {
            uint64_t *to = bits + (seq->q_first + i) * stride;
            memcpy(to, problem_tree_row(p, seq->q_first + i), (size_t)((seq->q_len + 63) / 64 * word));
            if (seq->q_len % 64 != 0) to[seq->q_len / 64] |= ~UINT64_C(0) << seq->q_len % 64;
        }
    }
    x->tree = guarded_copy(bits, words * word, x->placing.guard);
    free(bits);
    x->call.tree = (const uint64_t *)(const void *)x->tree.data;
    x->call.tree_row_stride = stride * word;
    x->call.tree_bytes = words * word;
}

static void place_options(struct placed *x)
{
    const struct problem *p = x->p;
    const int64_t bytes = p->q_heads * ELEMENT;
    x->call.softcap = p->softcap;
    x->call.window = p->window;
    x->call.sink_tokens = p->sink_tokens;
    if (p->sink_logits != NULL) {
        x->sink_logits = guarded_copy(p->sink_logits, bytes, x->placing.guard);
        x->call.sink_logits = (const float *)(const void *)x->sink_logits.data;
    }
    if (p->alibi_slopes != NULL) {
        x->alibi_slopes = guarded_copy(p->alibi_slopes, bytes, x->placing.guard);
        x->call.alibi_slopes = (const float *)(const void *)x->alibi_slopes.data;
    }
    if (p->tree != NULL) place_tree(x);
}

struct placed *placed_new(const struct problem *p, const struct placing *placing, enum operation operation)
{
    struct placed *x = need(calloc(1, sizeof *x));
    const enum guard guard = placing->guard;
    tril_attention *call = &x->call;
    *x = (struct placed){.p = p, .placing = *placing, .operation = operation, .parts = 1};
    *call = (tril_attention){.struct_size = sizeof *call,
                             .flags = placing->flags,
                             .q_heads = p->q_heads,
                             .kv_heads = p->kv_heads,
                             .qk_dim = p->qk_dim,
                             .v_dim = operation == ATTEND ? p->v_dim : 0,
                             .n_seqs = p->n_seqs,
                             .team_call = placing->team.number,
                             .scale = p->scale,
                             .math = p->math};
    x->weights = (tril_weights_out){.struct_size = sizeof x->weights};
    x->pages = pages_new(p, placing);
    place_seqs(x);
    place_options(x);
    for (int i = 0; i < p->n_seqs && blockwise(x); i++) {
        if (p->seqs[i].q_len > 0 && parts_of(&p->seqs[i]) > x->parts) x->parts = parts_of(&p->seqs[i]);
    }
    struct area none; /* q has no scales */
    x->q = place_operand(x, OF_Q, &placing->q, &none, &call->q);
    area_free(&none);
    x->k = place_operand(x, OF_K, &placing->k, &x->k_scales, &call->k);
    if (operation == ATTEND) {
        x->v = place_operand(x, OF_V, &placing->v, &x->v_scales, &call->v);
        place_out(x);
    } else {
        place_weights(x);
    }
    const int64_t offset = placing->out.offset * ELEMENT, statistics = p->q_tokens * p->q_heads;
    const int64_t all = ((x->parts - 1) * call->statistics_part_stride + statistics) * ELEMENT;
    x->max = output_new(all, guard, offset);
    x->sum = output_new(all, guard, offset);
    if (!placing->no_max) call->row_max = (float *)(void *)x->max.area.data;
    if (!placing->no_sum) call->row_sum = (float *)(void *)x->sum.area.data;
    if (!placing->in_place) area_read_only(&x->q);
    area_read_only(&x->k);
    area_read_only(&x->v);
    area_read_only(&x->k_scales);
    area_read_only(&x->v_scales);
    return x;
}

void placed_free(struct placed *x)
{
    if (x == NULL) return;
    if (!x->placing.in_place) area_free(&x->q);
    area_free(&x->k);
    area_free(&x->v);
    area_free(&x->k_scales);
    area_free(&x->v_scales);
    area_free(&x->seqs);
    area_free(&x->sink_logits);
    area_free(&x->alibi_slopes);
    area_free(&x->tree);
    for (int i = 0; i < MAX_SEQS; i++)
        area_free(&x->pages.tables[i]);
    output_free(&x->out);
    output_free(&x->max);
    output_free(&x->sum);
    free(x);
}

/* One thread of a team. */
struct member {
    const struct placed *x;
    tril_attention call;
    void *workspace;
    size_t bytes;
    int thread, threads, pauses;
    bool sleeps;
    tril_status status;
};

static void *member_run(void *argument)
{
    struct member *m = argument;
    const struct timespec moment = {.tv_nsec = 1000 * m->pauses};
    for (int i = 0; i < m->pauses && !m->sleeps; i++)
        sched_yield();
    if (m->sleeps) nanosleep(&moment, NULL);
    m->status = m->x->operation == ATTEND
                    ? tril_attend_team(&m->call, m->workspace, m->bytes, m->thread, m->threads)
                    : tril_weights_team(&m->call, &m->x->weights, m->workspace, m->bytes, m->thread, m->threads);
    return NULL;
}

static atomic_bool several; /* threads come to the call at once */

bool placed_run(const struct placed *x, const struct team *team, void *workspace, size_t bytes)
{
    struct member members[MAX_TEAM];
    pthread_t threads[MAX_TEAM];
    bool started[MAX_TEAM] = {false};
    struct rng rng = {.state = team->seed};
    tril_attention call = x->call;
    call.team_call = team->number;
    atomic_store(&several, false);
    if (team->threads == 0) {
        const tril_status status = x->operation == ATTEND ? tril_attend(&call, workspace, bytes)
                                                          : tril_weights(&call, &x->weights, workspace, bytes);
        return status == TRIL_OK || broken("%s: %s", operation_name(x->operation), tril_status_text(status));
    }
    int n = 0;
    for (int i = 0; i < team->threads; i++) {
        if ((team->absent >> i & 1) != 0) continue;
        const int at = n == 0 ? 0 : (int)rng_below(&rng, n + 1); /* a random order */
        members[n] = members[at];
        members[at] = (struct member){.x = x,
                                      .call = call,
                                      .workspace = workspace,
                                      .bytes = bytes,
                                      .thread = i,
                                      .threads = team->threads,
                                      .pauses = rng_one_in(&rng, 2) ? 0 : (int)rng_below(&rng, 30),
                                      .sleeps = rng_one_in(&rng, 3),
                                      .status = TRIL_STATUS_COUNT};
        n++;
    }
    if (n == 0) return broken("a team of nobody");
    atomic_store(&several, n > 1 && !team->one_by_one);
    for (int i = 0; i < n; i++) {
        if (team->one_by_one)
            member_run(&members[i]);
        else
            started[i] = pthread_create(&threads[i], NULL, member_run, &members[i]) == 0;
    }
    for (int i = 0; i < n; i++) {
        if (started[i]) pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < n; i++) {
        if (members[i].status != TRIL_OK)
            return broken("%s, thread %d of %d: %s", operation_name(x->operation), members[i].thread, team->threads,
                          members[i].status == TRIL_STATUS_COUNT ? "did not start"
                                                                 : tril_status_text(members[i].status));
    }
    return true;
}

static atomic_uint question = 1, worked;
static atomic_bool wait_wanted, waited;

void workers_ask(bool wait)
{
    atomic_fetch_add(&question, 1);
    atomic_store(&worked, 0);
    atomic_store(&waited, false);
    atomic_store(&wait_wanted, wait);
}

void worker_here(bool divisible)
{
    static _Thread_local unsigned last;
    const struct timespec moment = {.tv_nsec = 100000};
    const unsigned current = atomic_load(&question);
    if (last == current) return;
    last = current;
    if (atomic_fetch_add(&worked, 1) > 0 || !divisible || !atomic_load(&several) || !atomic_load(&wait_wanted)) return;
    atomic_store(&waited, true);
    for (int i = 0; i < 300000 && atomic_load(&worked) < 2; i++) /* half a minute and more: it never comes */
        nanosleep(&moment, NULL);
}

struct crew workers(void)
{
    return (struct crew){.workers = (int)atomic_load(&worked), .waited = atomic_load(&waited)};
}

struct result *placed_take_part(struct placed *x, int64_t part)
{
    struct result *r = result_new(x->p, x->operation);
    take_rows(x, part, r);
    return r;
}

bool placed_untouched(const struct placed *x)
{
    return untouched(&x->out, operation_name(x->operation)) && untouched(&x->max, "row_max") &&
           untouched(&x->sum, "row_sum");
}

bool use_tier(const char *tier)
{
    case_tier(tier);
    return (tril_force_isa(tier) == TRIL_OK && strcmp(tril_isa(), tier) == 0) ||
           broken("tier %s was asked for, %s is in use", tier, tril_isa());
}

static struct result **run_all(const struct problem *p, const struct placing *placing, enum operation operation,
                               const char *tier, int64_t *n)
{
    const struct team *team = &placing->team;
    struct placed *x = placed_new(p, placing, operation);
    struct result **parts = NULL;
    struct area workspace = {.bytes = 0};
    size_t bytes = 0;
    bool ok = use_tier(tier);
    if (ok) {
        const tril_status sized = tril_workspace(&x->call, team->threads == 0 ? 1 : team->threads, &bytes);
        if (sized != TRIL_OK) ok = broken("tril_workspace: %s", tril_status_text(sized));
    }
    if (ok) {
        workspace = area_new(bytes, placing->guard, (size_t)placing->workspace_offset);
        memset(workspace.data, team->threads == 0 ? 0xff : 0, workspace.bytes); /* NaN, where the content is free */
        ok = placed_run(x, team, workspace.data, bytes);
    }
    *n = x->parts;
    if (ok) {
        parts = need(calloc((size_t)x->parts, sizeof(struct result *)));
        for (int64_t i = 0; i < x->parts; i++)
            parts[i] = placed_take_part(x, i);
        ok = placed_untouched(x);
    }
    if (!ok && parts != NULL) {
        parts_free(parts, *n);
        parts = NULL;
    }
    area_free(&workspace);
    placed_free(x);
    return parts;
}

struct result **run_parts(const struct problem *p, const struct placing *placing, const char *tier, int64_t *n)
{
    return run_all(p, placing, ATTEND, tier, n);
}

struct result *run(const struct problem *p, const struct placing *placing, enum operation operation, const char *tier)
{
    int64_t n;
    struct result **parts = run_all(p, placing, operation, tier, &n), *r = NULL;
    if (parts == NULL) return NULL;
    r = parts[0];
    free(parts);
    return r;
}

void parts_free(struct result **parts, int64_t n)
{
    for (int64_t i = 0; i < n && parts != NULL; i++)
        result_free(parts[i]);
    free(parts);
}

/* Floats on a line, for distances between them. */
static int64_t ordinal(float x)
{
    const uint32_t bits = bits_of(x);
    return bits & 0x80000000 ? -(int64_t)(bits & 0x7fffffff) : (int64_t)bits;
}

/* Whether `got`, that had this type, is `want`. */
static bool same_floats(const float *got, const float *want, tril_dtype type, int64_t n, int64_t width, int heads,
                        const char *name, const char *what)
{
    int64_t worst = -1, wrong = 0, distance = -1;
    if (n == 0 || memcmp(got, want, (size_t)n * sizeof *got) == 0) return true;
    for (int64_t i = 0; i < n; i++) {
        const float expected = round_to(type, want[i]);
        if (same_float(got[i], expected)) continue;
        wrong++;
        const bool odd = got[i] != got[i] || expected != expected;
        const int64_t d = odd ? INT64_MAX : llabs(ordinal(got[i]) - ordinal(expected));
        if (d > distance) {
            distance = d;
            worst = i;
        }
    }
    if (wrong == 0) return true;
    const int64_t row = worst / width;
    return broken("%s: %s: %lld of %lld values differ; worst: token %lld head %lld column %lld is %a, not %a", what,
                  name, (long long)wrong, (long long)n, (long long)(row / heads), (long long)(row % heads),
                  (long long)(worst % width), (double)got[worst], (double)round_to(type, want[worst]));
}

bool same_rows(const struct result *got, int64_t got_token, const struct result *want, int64_t want_token,
               int64_t tokens, const char *what)
{
    if (got->heads != want->heads) return broken("%s: the shapes differ", what);
    const int64_t heads = got->heads, width = got->width < want->width ? got->width : want->width;
    bool ok = true;
    for (int64_t i = 0; i < tokens && ok; i++) {
        for (int64_t head = 0; head < heads && ok; head++)
            ok = same_floats(result_row(got, got_token + i, head), result_row(want, want_token + i, head), got->type,
                             width, width, 1, "result", what);
    }
    return ok &&
           same_floats(got->row_max + got_token * heads, want->row_max + want_token * heads, TRIL_F32, tokens * heads,
                       1, got->heads, "row_max", what) &&
           same_floats(got->row_sum + got_token * heads, want->row_sum + want_token * heads, TRIL_F32, tokens * heads,
                       1, got->heads, "row_sum", what);
}

bool same_result(const struct result *got, const struct result *want, const char *what)
{
    const int64_t n = want->rows * want->heads * want->width, statistics = want->tokens * want->heads;
    return same_floats(got->x, want->x, got->type, n, want->width, want->heads, "result", what) &&
           same_floats(got->row_max, want->row_max, TRIL_F32, statistics, 1, want->heads, "row_max", what) &&
           same_floats(got->row_sum, want->row_sum, TRIL_F32, statistics, 1, want->heads, "row_sum", what);
}

bool same_columns(const struct result *got, int64_t got_seq, const struct result *want, int64_t want_seq,
                  const char *what)
{
    const int64_t width = got->width < want->width ? got->width : want->width;
    bool ok = got->heads == want->heads || broken("%s: the shapes differ", what);
    for (int64_t head = 0; head < want->heads && ok; head++)
        ok = same_floats(result_row(got, got_seq, head), result_row(want, want_seq, head), TRIL_F32, width, width, 1,
                         "column sums", what);
    return ok;
}

bool columns_are_sums(const struct problem *p, const struct result *columns, const struct result *dense)
{
    for (int s = 0; s < p->n_seqs; s++) {
        const tril_seq *seq = &p->seqs[s];
        for (int64_t head = 0; head < p->q_heads && seq->q_len > 0; head++) {
            for (int64_t j = 0; j < seq->kv_len; j++) {
                float sum = 0.0f;
                for (int64_t i = first_summed(p, seq); i < seq->q_len; i++)
                    sum += result_row(dense, seq->q_first + i, head)[j];
                const float got = result_row(columns, s, head)[j];
                if (!same_float(got, sum))
                    return broken("the weights of key %lld, sequence %d, head %lld have the sum %a, not %a",
                                  (long long)j, s, (long long)head, (double)got, (double)sum);
            }
        }
        for (int64_t i = first_summed(p, seq) * p->q_heads; i < seq->q_len * p->q_heads; i++) {
            const int64_t row = seq->q_first * p->q_heads + i;
            if (!same_float(columns->row_max[row], dense->row_max[row]) ||
                !same_float(columns->row_sum[row], dense->row_sum[row]))
                return broken("column sums of sequence %d: row %lld has other statistics", s, (long long)i);
        }
    }
    return true;
}
