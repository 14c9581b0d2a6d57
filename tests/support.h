/* What every suite shares: tiers, random problems, operands placed in memory on purpose, runs, comparisons, reports.
 *
 * A check is a function over a list of tiers. The suites run it over every usable tier of the table; test_mutants runs
 * the same functions over one broken tier at a time and expects them to fail. So nothing here or in a check may abort:
 * a check says false, after broken() has said why. */
#ifndef TRIL_TESTS_SUPPORT_H
#define TRIL_TESTS_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tril.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Tiers, by name. */
struct tiers {
    const char *name[256];
    int n;
};

struct check {
    const char *name;
    bool (*run)(const struct tiers *);
};

/* One per test_*.c, suite_*; test_mutants.c runs several of them, and a test program has one, under this name: */
struct suite {
    const char *name;
    const struct check *checks;
    int n;
};
extern const struct suite suite_under_test;

/* Environment: TRIL_TEST_SEED, _SCALE, _EVERY, _CHECK, _CASE, as tests/main.c says. Reads it once; `seed` serves where
 * it gives none. */
void support_begin(const char *program, uint64_t seed);
uint64_t support_seed(void);
/* `count` times TRIL_TEST_SCALE, at least 1: how many random cases of a kind. A kind is never left out. */
int scaled(int count);
/* 1, or every how many-th value a sweep may take where TRIL_TEST_SCALE is below 1; odd. */
uint64_t support_stride(void);
/* What TRIL_TEST_SCALE and TRIL_TEST_EVERY say, for programs that do without them. */
void support_scale(double scale, int every);

/* A check names itself and its operation before its first case; a crash report and broken() tell it. */
void check_begin(const char *check);
/* Starts case `index` of the check: seeds `rng` from the run's seed, the check and the index. False if the environment
 * asks for another one. */
struct rng;
bool case_begin(int index, struct rng *rng);
/* The same for a case of a table: with TRIL_TEST_EVERY=n one in n of them, from where the seed says. */
bool table_case_begin(int index, struct rng *rng);
/* The same of a table with few but long cases, of which at least so many are taken. */
bool short_table_case_begin(int index, int cases, int least, struct rng *rng);
/* What the case is and which tier is at work, for the report of a failure or of a crash. */
void case_describe(const char *format, ...) __attribute__((format(printf, 1, 2)));
void case_tier(const char *tier);
/* Records why the check fails: the message, the case, the seed and the command that replays it. Returns false. */
bool broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *failure(void);
/* Reports on a fatal signal which case was at work, then lets the signal kill. */
void report_signals(void);

struct rng {
    uint64_t state;
};
uint64_t rng_next(struct rng *);
int64_t rng_below(struct rng *, int64_t n); /* 0 ... n - 1 */
bool rng_one_in(struct rng *, int n);
float rng_normal(struct rng *);
#define rng_of(rng, array) ((array)[rng_below(rng, COUNT(array))])

uint32_t bits_of(float x);
float float_of(uint32_t bits);
/* Bits equal, or both NaN: the payload of a NaN is outside the contract. */
bool same_float(float a, float b);
#define SIGNALLING_NAN 0x7fa00000u

enum values {
    NORMAL,  /* logits of a few units */
    PEAKED,  /* logits of some hundreds */
    TINY,    /* products are subnormal or 0 */
    VAST,    /* scores up to overflow: inf, and inf - inf */
    ANY,     /* every exponent, subnormals, both zeros */
    TIES,    /* small integers and both zeros: equal scores */
    RISING,  /* each key scores above the one before it: the running maximum moves in every block */
    FALLING, /* and the other way */
    SPECIAL, /* normal, with a sprinkle of inf, NaN, -0, subnormal and FLT_MAX */
    VALUES_COUNT
};

/* How an operand is stored: the bytes that its floats were decoded from. (To encode them again may give others.) */
enum operand { OF_Q, OF_K, OF_V, OPERANDS };
struct codes {
    tril_dtype type;
    unsigned char *rows; /* [token][head], without gaps; null with F32: the floats themselves */
    float *scales;       /* [token][head]: with I8, else of no use */
};

/* What a call may ask for beside plain attention, as bits. */
enum {
    SOFTCAP = 1,
    WINDOW = 2,
    SINK_TOKENS = 4,
    SINK_LOGITS = 8,
    ALIBI = 16,
    TREE = 32,
    PREFIX = 64,
    EVERY_OPTION = 127,
    CHUNK_OPTIONS = EVERY_OPTION & ~TREE /* with which the end of a sequence may be a call of its own */
};

/* A call without its memory: shapes, sequences, and dense values [token][head][dim]. Tokens that no sequence uses have
 * values too, but placed_new() writes signalling NaN in their stead. */
#define MAX_SEQS 8
struct problem {
    int q_heads, kv_heads, qk_dim, v_dim;
    float scale;
    tril_math math;
    int n_seqs;
    tril_seq seqs[MAX_SEQS];
    int64_t q_tokens, kv_tokens, longest; /* rows of q, tokens of k and v, the largest kv_len */
    enum values values;
    float *q, *k, *v;
    struct codes codes[OPERANDS];
    /* The options, 0 and null for none of them; a sequence has its prefix. */
    float softcap;
    int64_t window, sink_tokens;
    float *sink_logits, *alibi_slopes; /* [q_heads] */
    uint64_t *tree;                    /* [q_tokens][tree_words] */
    int64_t tree_words;                /* as many as the sequence with the most queries needs */
    int64_t last_rows;                 /* of COLUMNS */
};

struct problem *problem_new(int q_heads, int kv_heads, int qk_dim, int v_dim);
/* Appends a sequence behind `q_gap` unused query rows, its keys behind `kv_gap` unused tokens. */
void problem_seq(struct problem *, int64_t q_gap, int64_t q_len, int64_t kv_gap, int64_t kv_len);
/* Math mode BF16 every third time. */
void problem_math_random(struct problem *, struct rng *);
/* New values, F32. */
void problem_fill(struct problem *, struct rng *, enum values);
/* Encodes the present values, and puts in their place what the codes are worth: placings may then ask for `stored`. A
 * value that is changed afterwards needs problem_encode(). Q8_0 and Q4_0 only where type_fits(). */
void problem_store(struct problem *, tril_dtype q, tril_dtype k, tril_dtype v);
/* In random types, of ANY values sometimes with codes that no encoder gives; one in three stays F32. */
void problem_store_random(struct problem *, struct rng *);
/* Codes at random instead of the values; see random_row(). */
void problem_scramble(struct problem *, struct rng *, bool wild);
/* Encodes `n` tokens of k and v anew. */
void problem_encode(struct problem *, int64_t token, int64_t n);
/* Room for the values, all 0, stored in the types of `like`. */
void problem_room(struct problem *, const struct problem *like);
struct problem *problem_copy(const struct problem *);
/* The queries `first` ... `first + queries - 1` of one sequence, with the keys up to the last of them. With a tree all
 * of the sequence; with a prefix they reach its end at least, or begin behind it: see chunk_reaches(). */
struct problem *problem_part(const struct problem *, const tril_seq *, int64_t first, int64_t queries);
/* How many queries from `first` on a call must have at the least to stand for a part of the sequence. */
int64_t chunk_reaches(const tril_seq *, int64_t first);
/* Each K/V head written out once for every query head that uses it, as floats. */
struct problem *problem_ungrouped(const struct problem *);
/* These options at random, the others off. No tree where a sequence has more queries than keys. Of ANY and VAST values
 * also numbers of odd sizes. */
void problem_options(struct problem *, struct rng *, unsigned which);
/* Each of these options in one of three cases. */
void problem_options_random(struct problem *, struct rng *, unsigned among);
/* Room for a tree of which nobody sees anything. */
void problem_tree(struct problem *);
/* Of another problem with the same heads; not its tree. */
void problem_copy_options(struct problem *to, const struct problem *from);
/* Rows of a tree for all queries of a sequence. */
void problem_copy_tree(struct problem *to, const tril_seq *at, const struct problem *from, const tril_seq *seq);
/* Copies tokens of an operand with their codes, between problems that store it alike or within one. */
void problem_copy_tokens(struct problem *to, enum operand, int64_t at, const struct problem *from, int64_t token,
                         int64_t n);
/* Random shape of at most about `work` multiplications, filled. */
struct problem *problem_random(struct rng *, double work, enum values);
void problem_free(struct problem *);
double problem_work(const struct problem *);
void problem_describe(const struct problem *, const char *more);
const char *values_name(enum values);

static inline uint64_t *problem_tree_row(const struct problem *p, int64_t token)
{
    return p->tree + token * p->tree_words;
}

static inline float *problem_q(const struct problem *p, int64_t token, int64_t head)
{
    return p->q + (token * p->q_heads + head) * p->qk_dim;
}

static inline float *problem_k(const struct problem *p, int64_t token, int64_t head)
{
    return p->k + (token * p->kv_heads + head) * p->qk_dim;
}

static inline float *problem_v(const struct problem *p, int64_t token, int64_t head)
{
    return p->v + (token * p->kv_heads + head) * p->v_dim;
}

/* How the operands lie in memory. */
enum guard { GUARD_NONE, GUARD_AFTER, GUARD_BEFORE }; /* a page that faults, directly behind or before the extent */

/* Memory whose last or first byte borders a page that faults; or exact malloc, so that a sanitizer sees its ends. */
struct area {
    unsigned char *data;
    size_t bytes;
    void *base;
    size_t mapped; /* 0: malloc */
};
struct area area_new(size_t bytes, enum guard, size_t offset);
void area_read_only(const struct area *);
void area_free(struct area *);

struct place {
    bool head_major;
    int row_pad, outer_pad; /* elements: after each row; after each token (or head, in head-major order) */
    int block_pad;          /* elements after each page */
    bool crowded;           /* tokens, or panels, a multiple of 2 KiB apart, whose lines share sets of a cache */
    int offset;             /* elements past an aligned address; without a guard only */
};

/* Who computes. A thread that does not come, or comes when all is done, must make no difference. */
struct team {
    int threads;     /* 0: tril_attend() or tril_weights(); else tril_*_team() with so many, at most MAX_TEAM */
    bool one_by_one; /* one OS thread calls with each number in turn: all but the first come late */
    uint64_t absent; /* bit i: thread i never comes; one must */
    uint64_t seed;   /* of the order in which threads come, and of their delays */
    int64_t number;  /* team_call */
};
#define MAX_TEAM 64

struct placing {
    struct place q, k, v, out, scales; /* out: the weights too; scales: those of k and of v */
    enum guard guard;
    bool stored;         /* the problem's codes are placed, else its floats */
    bool poisoned;       /* keys and values that no query sees are NaN, and pages of such keys only have no number */
    int tree_pad;        /* words after each row of the tree */
    tril_dtype out_type; /* of ATTEND, DENSE and PACKED: F32, F16 or BF16 */
    int page;            /* tokens of a page, or 0 */
    uint32_t page_seed;  /* of the order in which pages are given out */
    bool page_by_page;   /* in the order of positions, and not in none */
    int shared_pages;    /* so many first pages of every sequence are one: their keys must be the same, page by page */
    bool panels;         /* k in TRIL_PANELS, where its type has them */
    bool in_place;       /* out is q's memory, and has its type */
    bool no_max, no_sum;
    bool repeat_keys;     /* k and v hold token 0 alone, with a token stride of 0; neither with panels nor with pages */
    int workspace_offset; /* bytes */
    uint32_t flags;       /* of the call; see placed_take_part() */
    struct team team;
};

extern const struct placing contiguous;
struct placing placing_random(struct rng *);
void placing_describe(const struct placing *, char *to, size_t size);

enum operation { ATTEND, DENSE, PACKED, COLUMNS, OPERATIONS };
const char *operation_name(enum operation);

/* Dense results: x [rows][q_heads][width], rows = q_tokens, or of COLUMNS n_seqs, width = v_dim or longest; row_max and
 * row_sum [tokens][q_heads], tokens = q_tokens. Rows that no sequence has are 0, and so are statistics of rows that
 * COLUMNS does not sum, and the columns of a weights row past its kv_len, or, packed, past those it has. */
struct result {
    int64_t rows, tokens, width;
    int heads;
    tril_dtype type; /* that x had in memory */
    float *x, *row_max, *row_sum;
};

/* Places the problem, runs it on exactly that tier, and checks what holds for every run: TRIL_OK, the tier that ran,
 * and that no byte changed but the results. A new result (result_free) or null after broken(). */
struct result *run(const struct problem *, const struct placing *, enum operation, const char *tier);
void result_free(struct result *);
static inline const float *result_row(const struct result *r, int64_t token, int64_t head)
{
    return r->x + (token * r->heads + head) * r->width;
}

/* The same step by step, for a workspace of one's own and for several calls: */
struct output {
    struct area area;
    unsigned char *former; /* the bytes that it had before */
};
/* Which blocks the sequences' keys lie in. */
struct pages {
    int64_t tokens;               /* of a block; 0: there are no pages */
    int64_t n;                    /* blocks that memory has */
    struct area tables[MAX_SEQS]; /* tril_seq.blocks */
};
struct placed {
    const struct problem *p;
    struct placing placing;
    enum operation operation;
    tril_attention call;
    tril_weights_out weights;
    struct area q, k, v, k_scales, v_scales, seqs, sink_logits, alibi_slopes, tree;
    struct pages pages;
    struct output out, max, sum;
    int64_t parts; /* TRIL_BLOCKWISE: of the sequence with the most, at least 1; else 1 */
};
struct placed *placed_new(const struct problem *, const struct placing *, enum operation);
void placed_free(struct placed *);
/* The call, by the team that the placing asks for or by another one: what every thread got, or broken(). */
bool placed_run(const struct placed *, const struct team *, void *workspace, size_t bytes);
/* Takes the results out of the memory that the call wrote, which is then as it was before the call. With
 * TRIL_BLOCKWISE: part `part`. A sequence that has no such part leaves its rows at 0 with the statistics of an empty
 * part, -inf and -0. */
struct result *placed_take_part(struct placed *, int64_t part);
/* After all parts have been taken: broken() if anything but results was written. */
bool placed_untouched(const struct placed *);
/* All of it with a fresh workspace, in parts; *n of them. The array and its results are the caller's. */
struct result **run_parts(const struct problem *, const struct placing *, const char *tier, int64_t *n);
void parts_free(struct result **, int64_t n);
/* Forces the tier; broken() where that does not work. */
bool use_tier(const char *tier);
struct team team_random(struct rng *);
/* Who works on a call; see yielding.c. One that begins with workers_ask(true) and is divisible waits at its first task,
 * if a team of several comes to it, until a second thread has one. */
struct crew {
    int workers;
    bool waited;
};
void workers_ask(bool wait);
void worker_here(bool divisible);
struct crew workers(void);

/* broken() with the worst element, unless all bits are the same. What `got` had in 16 bits must be `want` rounded. */
bool same_result(const struct result *got, const struct result *want, const char *what);
/* Of COLUMNS, the sums of one sequence that may have another number. */
bool same_columns(const struct result *got, int64_t got_seq, const struct result *want, int64_t want_seq,
                  const char *what);
/* The same for the rows of one sequence that may stand at another place. */
bool same_rows(const struct result *got, int64_t got_token, const struct result *want, int64_t want_token,
               int64_t tokens, const char *what);

/* How many keys the causal rule alone lets query i of a sequence see. */
int64_t visible_keys(const tril_seq *, int64_t query);
/* The header's "Who sees whom". */
bool sees(const struct problem *, const tril_seq *, int64_t query, int64_t key);
/* One past the last key that a query can see, as the packed form counts. */
int64_t columns_of(const struct problem *, const tril_seq *, int64_t query);
/* The first query that COLUMNS sums. */
int64_t first_summed(const struct problem *, const tril_seq *);
/* broken() unless COLUMNS gave the sums of the rows that DENSE gave, one by one, to the bit; and their statistics. */
bool columns_are_sums(const struct problem *, const struct result *columns, const struct result *dense);

/* One past the last key of the sequence's range. */
int64_t range_end(const tril_seq *);

#endif
