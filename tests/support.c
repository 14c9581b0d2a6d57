#include "support.h"

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
    int index, only_case;
    char what[1024];
    char failure[3072];
} now = {.program = "test", .check = "", .tier = "", .scale = 1.0, .only_case = -1};

void support_begin(const char *program, uint64_t seed)
{
    const char *text = getenv("TRIL_TEST_SEED");
    now.program = program;
    now.seed = text != NULL ? strtoull(text, NULL, 0) : seed;
    if ((text = getenv("TRIL_TEST_SCALE")) != NULL) now.scale = strtod(text, NULL);
    if ((text = getenv("TRIL_TEST_CASE")) != NULL) now.only_case = atoi(text);
    now.only_check = getenv("TRIL_TEST_CHECK");
}

uint64_t support_seed(void)
{
    return now.seed;
}

void support_scale(double scale)
{
    now.scale = scale;
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

double problem_work(const struct problem *p)
{
    double pairs = 0.0;
    for (int i = 0; i < p->n_seqs; i++) {
        for (int64_t j = 0; j < p->seqs[i].q_len; j++)
            pairs += (double)visible_keys(&p->seqs[i], j);
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

void problem_fill(struct problem *p, struct rng *rng, enum values kind)
{
    free(p->q);
    free(p->k);
    free(p->v);
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
    free(p->q);
    free(p->k);
    free(p->v);
    free(p);
}

const char *values_name(enum values kind)
{
    static const char *const names[] = {"normal", "peaked", "tiny",    "vast",   "any",
                                        "ties",   "rising", "falling", "special"};
    _Static_assert(COUNT(names) == VALUES_COUNT, "a name for every kind");
    return names[kind];
}

void problem_describe(const struct problem *p, const char *more)
{
    char seqs[512] = "";
    size_t n = 0;
    for (int i = 0; i < p->n_seqs && n < sizeof seqs; i++)
        n += (size_t)snprintf(seqs + n, sizeof seqs - n, " q%lld@%lld k%lld@%lld", (long long)p->seqs[i].q_len,
                              (long long)p->seqs[i].q_first, (long long)p->seqs[i].kv_len,
                              (long long)p->seqs[i].kv_first);
    case_describe("h%dx%d d%d/%d scale %a, %d seqs:%s; %s", p->q_heads, p->kv_heads, p->qk_dim, p->v_dim,
                  (double)p->scale, p->n_seqs, seqs, more);
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
        .offset = (int)rng_below(rng, 16),
    };
}

struct placing placing_random(struct rng *rng)
{
    struct placing placing = {.workspace_offset = (int)rng_below(rng, 64)};
    placing.q = place_random(rng);
    placing.k = place_random(rng);
    placing.v = place_random(rng);
    placing.out = place_random(rng);
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
    const struct place *const places[] = {&placing->q, &placing->k, &placing->v, &placing->out};
    const struct team *team = &placing->team;
    size_t n = (size_t)snprintf(to, size, "guard %d, workspace+%d,%s", (int)placing->guard, placing->workspace_offset,
                                placing->panels ? " K in panels," : "");
    if (team->threads > 0 && n < size)
        n += (size_t)snprintf(to + n, size - n, " team of %d%s, absent %llx, call %lld,", team->threads,
                              team->one_by_one ? " one by one" : "",
                              (unsigned long long)team->absent & ((UINT64_C(1) << team->threads) - 1),
                              (long long)team->number);
    for (int i = 0; i < COUNT(places) && n < size; i++)
        n +=
            (size_t)snprintf(to + n, size - n, " %c:%s+%d+%d@%d", "qkvo"[i], places[i] -> head_major ? "head" : "token",
                             places[i]->row_pad, places[i]->outer_pad, places[i]->offset);
}

/* Runs */

const char *operation_name(enum operation operation)
{
    static const char *const names[OPERATIONS] = {"attend", "weights/dense", "weights/packed"};
    return names[operation];
}

#define ELEMENT ((int64_t)sizeof(float))

struct strides {
    int64_t token, head, bytes; /* bytes: the exact extent */
};

static struct strides strides_of(const struct place *place, int64_t tokens, int64_t heads, int64_t dim)
{
    struct strides s;
    if (place->head_major) {
        s.token = (dim + place->row_pad) * ELEMENT;
        s.head = tokens * s.token + place->outer_pad * ELEMENT;
    } else {
        s.head = (dim + place->row_pad) * ELEMENT;
        s.token = heads * s.head + place->outer_pad * ELEMENT;
    }
    s.bytes = tokens == 0 || dim == 0 ? 0 : (tokens - 1) * s.token + (heads - 1) * s.head + dim * ELEMENT;
    return s;
}

static void fill_words(struct area *a, uint32_t word)
{
    for (size_t i = 0; i + sizeof word <= a->bytes; i += sizeof word)
        memcpy(a->data + i, &word, sizeof word);
}

static bool extent_of(const tril_seq *seq, bool keys, int64_t *source, int64_t *n)
{
    *source = keys ? seq->kv_first + seq->key_begin : seq->q_first;
    *n = keys ? range_end(seq) - seq->key_begin : seq->q_len;
    return seq->q_len > 0 && *n > 0;
}

/* A tensor of rows in memory: those that a sequence uses, signalling NaN everywhere else. `seqs` say where keys lie. */
static struct area place_rows(const struct problem *p, const tril_seq *seqs, const struct place *place,
                              enum guard guard, const float *from, int64_t heads, int64_t dim, bool keys,
                              tril_tensor *to)
{
    int64_t tokens = 0, source, n;
    for (int i = 0; i < p->n_seqs; i++) {
        const int64_t first = keys ? seqs[i].kv_first : seqs[i].q_first;
        if (extent_of(&p->seqs[i], keys, &source, &n) && first + n > tokens) tokens = first + n;
    }
    const struct strides s = strides_of(place, tokens, heads, dim);
    struct area a = area_new((size_t)s.bytes, guard, (size_t)(place->offset * ELEMENT));
    fill_words(&a, SIGNALLING_NAN);
    for (int i = 0; i < p->n_seqs; i++) {
        const int64_t first = keys ? seqs[i].kv_first : seqs[i].q_first;
        if (!extent_of(&p->seqs[i], keys, &source, &n)) continue;
        for (int64_t token = 0; token < n; token++) {
            for (int64_t head = 0; head < heads; head++)
                memcpy(a.data + (first + token) * s.token + head * s.head,
                       from + ((source + token) * heads + head) * dim, (size_t)(dim * ELEMENT));
        }
    }
    *to = (tril_tensor){
        .data = a.data, .bytes = s.bytes, .token_stride = s.token, .head_stride = s.head, .dtype = TRIL_F32};
    return a;
}

/* K in panels, written out by hand from the header's formula; signalling NaN in the places of all other tokens. */
static struct area place_panels(const struct problem *p, const tril_seq *seqs, const struct place *place,
                                enum guard guard, tril_tensor *to)
{
    enum { PANEL = 16 };
    const int64_t dim = p->qk_dim, heads = p->kv_heads;
    int64_t panels = 0, panel, head_stride, source, n;
    for (int i = 0; i < p->n_seqs; i++) {
        if (!extent_of(&p->seqs[i], true, &source, &n)) continue;
        const int64_t end = (seqs[i].kv_first + n + PANEL - 1) / PANEL;
        if (end > panels) panels = end;
    }
    if (place->head_major) {
        panel = (dim + place->row_pad) * PANEL;
        head_stride = panels * panel + place->outer_pad;
    } else {
        head_stride = dim * PANEL + place->row_pad;
        panel = (heads * head_stride + place->outer_pad + PANEL - 1) / PANEL * PANEL;
    }
    const int64_t floats = panels == 0 ? 0 : (panels - 1) * panel + (heads - 1) * head_stride + dim * PANEL;
    struct area a = area_new((size_t)(floats * ELEMENT), guard, (size_t)(place->offset * ELEMENT));
    fill_words(&a, SIGNALLING_NAN);
    for (int i = 0; i < p->n_seqs; i++) {
        if (!extent_of(&p->seqs[i], true, &source, &n)) continue;
        for (int64_t j = 0; j < n; j++) {
            const int64_t token = seqs[i].kv_first + j;
            for (int64_t head = 0; head < heads; head++) {
                const float *from = problem_k(p, source + j, head);
                for (int64_t d = 0; d < dim; d++)
                    memcpy(a.data + (token / PANEL * panel + head * head_stride + d * PANEL + token % PANEL) * ELEMENT,
                           from + d, sizeof *from);
            }
        }
    }
    *to = (tril_tensor){.data = a.data,
                        .bytes = floats * ELEMENT,
                        .token_stride = panel / PANEL * ELEMENT,
                        .head_stride = head_stride * ELEMENT,
                        .layout = TRIL_PANELS};
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

static void take_row(struct output *o, int64_t at, int64_t n, float *to)
{
    if (n == 0) return;
    memcpy(to, o->area.data + at, (size_t)(n * ELEMENT));
    memcpy(o->area.data + at, o->former + at, (size_t)(n * ELEMENT));
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
    r->rows = p->q_tokens;
    r->heads = p->q_heads;
    r->width = operation == ATTEND ? p->v_dim : p->longest;
    r->x = need(calloc((size_t)(r->rows * r->heads * r->width + 1), sizeof(float)));
    r->row_max = need(calloc((size_t)(r->rows * r->heads + 1), sizeof(float)));
    r->row_sum = need(calloc((size_t)(r->rows * r->heads + 1), sizeof(float)));
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
static int64_t packed_before(const tril_seq *seq, int64_t query)
{
    int64_t n = 0;
    for (int64_t i = 0; i < query; i++)
        n += visible_keys(seq, i);
    return n;
}

static int64_t parts_of(const tril_seq *seq)
{
    return (range_end(seq) - seq->key_begin + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
}

static bool blockwise(const struct placed *x)
{
    return (x->call.flags & TRIL_BLOCKWISE) != 0;
}

static void take_rows(struct placed *x, int64_t part, struct result *r)
{
    const struct problem *p = x->p;
    int64_t packed = 0;
    for (int i = 0; i < p->n_seqs; i++) {
        const tril_seq *seq = &p->seqs[i];
        const bool is_there = !blockwise(x) || part < parts_of(seq);
        for (int64_t j = 0; j < seq->q_len; j++) {
            const int64_t token = seq->q_first + j;
            for (int64_t head = 0; head < p->q_heads; head++) {
                const int64_t row = token * p->q_heads + head;
                float *to = r->x + row * r->width;
                if (!is_there) {
                    r->row_max[row] = -INFINITY;
                    r->row_sum[row] = -0.0f;
                    continue;
                }
                if (x->operation == ATTEND)
                    take_row(&x->out,
                             part * x->call.out_part_stride + token * x->call.out.token_stride +
                                 head * x->call.out.head_stride,
                             p->v_dim, to);
                else if (x->operation == DENSE)
                    take_row(&x->out, token * x->weights.row_stride + head * x->weights.head_stride, seq->kv_len, to);
                else
                    take_row(&x->out, packed * ELEMENT + head * x->weights.head_stride, visible_keys(seq, j), to);
                const int64_t statistic = (part * x->call.statistics_part_stride + row) * ELEMENT;
                if (x->call.row_max != NULL) take_row(&x->max, statistic, 1, r->row_max + row);
                if (x->call.row_sum != NULL) take_row(&x->sum, statistic, 1, r->row_sum + row);
            }
            packed += visible_keys(seq, j);
        }
    }
}

/* Where the sequences' keys lie: with panels, on multiples of 16. */
static void place_seqs(const struct problem *p, bool panels, tril_seq *to)
{
    int64_t next = 0;
    for (int i = 0; i < p->n_seqs; i++) {
        const tril_seq *seq = &p->seqs[i];
        to[i] = *seq;
        if (!panels) continue;
        const int64_t gap = i > 0 && seq->kv_first > 0 && seq->kv_len % 2 == 1 ? 16 : 0;
        to[i].kv_first = (next + 15) / 16 * 16 + gap;
        if (seq->q_len > 0) next = to[i].kv_first + range_end(seq) - seq->key_begin;
    }
}

struct placed *placed_new(const struct problem *p, const struct placing *placing, enum operation operation)
{
    struct placed *x = need(calloc(1, sizeof *x));
    const enum guard guard = placing->guard;
    tril_attention *call = &x->call;
    tril_weights_out *weights = &x->weights;
    tril_seq seqs[MAX_SEQS];
    *x = (struct placed){.p = p, .placing = *placing, .operation = operation, .parts = 1};
    *call = (tril_attention){.struct_size = sizeof *call,
                             .flags = placing->flags,
                             .q_heads = p->q_heads,
                             .kv_heads = p->kv_heads,
                             .qk_dim = p->qk_dim,
                             .v_dim = operation == ATTEND ? p->v_dim : 0,
                             .n_seqs = p->n_seqs,
                             .team_call = placing->team.number,
                             .scale = p->scale};
    *weights = (tril_weights_out){.struct_size = sizeof *weights};
    place_seqs(p, placing->panels, seqs);
    x->q = place_rows(p, seqs, &placing->q, guard, p->q, p->q_heads, p->qk_dim, false, &call->q);
    x->k = placing->panels ? place_panels(p, seqs, &placing->k, guard, &call->k)
                           : place_rows(p, seqs, &placing->k, guard, p->k, p->kv_heads, p->qk_dim, true, &call->k);
    x->seqs = area_new((size_t)p->n_seqs * sizeof seqs[0], guard == GUARD_NONE ? GUARD_AFTER : guard, 0);
    memcpy(x->seqs.data, seqs, x->seqs.bytes);
    call->seqs = (const tril_seq *)(const void *)x->seqs.data;
    if (placing->repeat_keys) call->k.token_stride = 0;
    for (int i = 0; i < p->n_seqs && blockwise(x); i++) {
        if (p->seqs[i].q_len > 0 && parts_of(&p->seqs[i]) > x->parts) x->parts = parts_of(&p->seqs[i]);
    }

    const int64_t offset = placing->out.offset * ELEMENT, statistics = p->q_tokens * p->q_heads;
    if (operation == ATTEND) {
        x->v = place_rows(p, seqs, &placing->v, guard, p->v, p->kv_heads, p->v_dim, true, &call->v);
        if (placing->repeat_keys) call->v.token_stride = 0;
        const struct strides s = strides_of(&placing->out, p->q_tokens, p->q_heads, p->v_dim);
        if (blockwise(x)) {
            call->out_part_stride = s.bytes + placing->out.outer_pad * ELEMENT;
            call->statistics_part_stride = statistics + placing->out.row_pad;
        }
        x->out = placing->in_place ? output_from(x->q)
                                   : output_new((x->parts - 1) * call->out_part_stride + s.bytes, guard, offset);
        call->out = placing->in_place
                        ? (tril_out){.token_stride = call->q.token_stride, .head_stride = call->q.head_stride}
                        : (tril_out){.token_stride = s.token, .head_stride = s.head};
        call->out.data = x->out.area.data;
        call->out.bytes = (int64_t)x->out.area.bytes;
    } else if (operation == DENSE) {
        struct place rows = placing->out; /* a matrix per head is the only order the header promises */
        rows.head_major = true;
        const struct strides s = strides_of(&rows, p->q_tokens, p->q_heads, p->longest);
        x->out = output_new(s.bytes, guard, offset);
        weights->row_stride = s.token;
        weights->head_stride = s.head;
    } else {
        int64_t elements = 0;
        for (int i = 0; i < p->n_seqs; i++)
            elements += packed_before(&p->seqs[i], p->seqs[i].q_len);
        weights->form = TRIL_WEIGHTS_PACKED;
        weights->head_stride = (elements + placing->out.outer_pad) * ELEMENT;
        x->out =
            output_new(elements == 0 ? 0 : (p->q_heads - 1) * weights->head_stride + elements * ELEMENT, guard, offset);
    }
    weights->data = x->out.area.data;
    weights->bytes = (int64_t)x->out.area.bytes;
    const int64_t all = ((x->parts - 1) * call->statistics_part_stride + statistics) * ELEMENT;
    x->max = output_new(all, guard, offset);
    x->sum = output_new(all, guard, offset);
    if (!placing->no_max) call->row_max = (float *)(void *)x->max.area.data;
    if (!placing->no_sum) call->row_sum = (float *)(void *)x->sum.area.data;
    if (!placing->in_place) area_read_only(&x->q);
    area_read_only(&x->k);
    area_read_only(&x->v);
    area_read_only(&x->seqs);
    return x;
}

void placed_free(struct placed *x)
{
    if (x == NULL) return;
    if (!x->placing.in_place) area_free(&x->q);
    area_free(&x->k);
    area_free(&x->v);
    area_free(&x->seqs);
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

bool placed_run(const struct placed *x, const struct team *team, void *workspace, size_t bytes)
{
    struct member members[MAX_TEAM];
    pthread_t threads[MAX_TEAM];
    bool started[MAX_TEAM] = {false};
    struct rng rng = {.state = team->seed};
    tril_attention call = x->call;
    call.team_call = team->number;
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

void worker_here(void)
{
    static _Thread_local unsigned last;
    const unsigned current = atomic_load(&question);
    if (last != current) atomic_fetch_add(&worked, 1);
    last = current;
}

int workers(void)
{
    atomic_fetch_add(&question, 1);
    return (int)atomic_exchange(&worked, 0);
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

static bool same_floats(const float *got, const float *want, int64_t n, int64_t width, int heads, const char *name,
                        const char *what)
{
    int64_t worst = -1, wrong = 0, distance = -1;
    if (n == 0 || memcmp(got, want, (size_t)n * sizeof *got) == 0) return true;
    for (int64_t i = 0; i < n; i++) {
        if (same_float(got[i], want[i])) continue;
        wrong++;
        const bool odd = got[i] != got[i] || want[i] != want[i];
        const int64_t d = odd ? INT64_MAX : llabs(ordinal(got[i]) - ordinal(want[i]));
        if (d > distance) {
            distance = d;
            worst = i;
        }
    }
    if (wrong == 0) return true;
    const int64_t row = worst / width;
    return broken("%s: %s: %lld of %lld values differ; worst: token %lld head %lld column %lld is %a, not %a", what,
                  name, (long long)wrong, (long long)n, (long long)(row / heads), (long long)(row % heads),
                  (long long)(worst % width), (double)got[worst], (double)want[worst]);
}

bool same_rows(const struct result *got, int64_t got_token, const struct result *want, int64_t want_token,
               int64_t tokens, const char *what)
{
    if (got->heads != want->heads) return broken("%s: the shapes differ", what);
    const int64_t heads = got->heads, width = got->width < want->width ? got->width : want->width;
    bool ok = true;
    for (int64_t i = 0; i < tokens && ok; i++) {
        for (int64_t head = 0; head < heads && ok; head++)
            ok = same_floats(result_row(got, got_token + i, head), result_row(want, want_token + i, head), width, width,
                             1, "result", what);
    }
    return ok &&
           same_floats(got->row_max + got_token * heads, want->row_max + want_token * heads, tokens * heads, 1,
                       got->heads, "row_max", what) &&
           same_floats(got->row_sum + got_token * heads, want->row_sum + want_token * heads, tokens * heads, 1,
                       got->heads, "row_sum", what);
}

bool same_result(const struct result *got, const struct result *want, const char *what)
{
    const int64_t rows = want->rows * want->heads;
    return same_floats(got->x, want->x, rows * want->width, want->width, want->heads, "result", what) &&
           same_floats(got->row_max, want->row_max, rows, 1, want->heads, "row_max", what) &&
           same_floats(got->row_sum, want->row_sum, rows, 1, want->heads, "row_sum", what);
}
