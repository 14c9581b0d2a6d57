/* The parts of the example, each a file: gguf.c reads the container, text.c turns text into tokens and scores into the
 * next one, cache.c keeps keys and values in pages, team.c the threads, model.c the weights and what a step computes,
 * main.c lets sequences join and leave. die(), need() and seconds() are those of tools/tool.h. What need() gives is
 * kept until the program ends, unless it is freed where it was taken. */
#ifndef LLM_H
#define LLM_H

#include "tool.h"
#include "tril.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers in files are taken as they are");

/* Bytes of n elements side by side; n is a multiple of 32 for q8_0 and q4_0. */
int64_t row_bytes(tril_dtype type, int64_t n);
void expect_ok(const char *what, tril_status status);

/* gguf.c: a GGUF file of version 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) */
struct string {
    const char *text; /* in the file, without a final 0 */
    size_t n;
};

struct gguf_tensor {
    char name[65];
    int64_t cols, rows; /* a row's elements lie side by side */
    tril_dtype type;
    const unsigned char *data;
    bool used; /* somebody asked for it */
};

/* Maps the file and reads all but the weights, or dies: every offset and size in it is known to be sound afterwards. */
struct gguf *gguf_open(const char *path);
/* A number of the metadata, `whole` or not. Dies where it is out of its range; a missing one is `otherwise`, and an
 * error if that is NaN. */
double gguf_number(const struct gguf *g, const char *key, bool whole, double min, double max, double otherwise);
/* Dies unless the string is `wanted`, or missing and `optional`. */
void gguf_expect(const struct gguf *g, const char *key, const char *wanted, bool optional);
struct string *gguf_strings(struct gguf *g, const char *key, int64_t *n);
/* The tensor of this shape; null where it is missing and `optional`. */
const struct gguf_tensor *gguf_tensor(struct gguf *g, const char *name, int64_t rows, int64_t cols, bool optional);
void gguf_row(const struct gguf_tensor *t, int64_t row, float *to);
/* Dies if there is a tensor that nobody asked for: what it means would be missing in the result. */
void gguf_all_used(const struct gguf *g);

/* text.c */
struct tokens {
    struct string *of; /* what each stands for */
    int64_t n, end;    /* how many there are; the one that ends a text, or -1 */
};

struct tokens tokens_read(struct gguf *g);
/* Cuts a text into tokens, of which there are as many as bytes at the most, or dies. */
int64_t tokenize(const struct tokens *t, const char *text, int32_t *to);
/* The next token: the likeliest at temperature 0, else drawn; `random` is the state of tools/random.h. */
int32_t sample(const float *scores, int64_t n, double temperature, uint64_t *random);

/* team.c: the host's threads */
struct team *team_new(int threads);
/* f(context, 0) here, f(context, 1) ... on the others. */
void team_run(struct team *team, void (*f)(void *, int), void *context);
/* Within f: goes on when every thread has come. */
void team_wait(struct team *team);

/* model.c: a Llama model */
struct matrix {
    int64_t rows, cols;
    float *panels; /* [rows/LANES][cols][LANES]: what is multiplied at once lies side by side; zeros behind the end */
};

struct layer {
    float *attention_norm, *ffn_norm;
    struct matrix q, k, v, o, gate, up, down;
};

struct model {
    struct tokens tokens;
    int64_t layers, width, hidden, context, rotated; /* rotated: elements of a head that RoPE turns */
    int32_t heads, kv_heads, qk_dim, v_dim;
    double eps;    /* of the norms */
    double *speed; /* [rotated/2]: radians per position */
    const struct gguf_tensor *embedding;
    struct layer *layer;
    float *norm;
    struct matrix output;
};

struct model model_read(const char *path);

/* cache.c: keys and values of all layers and sequences, in pages */
struct cache {
    tril_dtype type;
    int32_t kv_heads, qk_dim, v_dim;
    int64_t page, pages; /* tokens of a page; pages there are */
    tril_tensor k, v;    /* of layer 0, all pages of it; further layers follow */
    int32_t *free;       /* the pages that belong to nobody, the next one last */
    int64_t n_free;
};

/* A token of a sequence that a step computes. */
struct row {
    int32_t token;
    int64_t position;
    const int32_t *pages; /* of its sequence */
};

struct cache cache_new(const struct model *m, tril_dtype type, int64_t page, int64_t pages);
/* What attention reads of a layer, with block_tokens `page` and n_blocks `pages`. */
void cache_layer(const struct cache *c, int64_t layer, tril_tensor *k, tril_tensor *v);
/* Stores a token's keys and values, f32; several tokens may be stored at the same time. */
void cache_append(const struct cache *c, int64_t layer, const struct row *row, const float *k, const float *v);

/* The rest of model.c: a step is some tokens of some sequences, those of each side by side. picture, if picture_layer
 * is not -1, gets the weights of seqs[0] in that layer: [heads][picture_size][picture_size]. */
struct step {
    int64_t rows, n_wanted, n_seqs;
    struct row *row;
    tril_seq *seqs;
    int64_t *wanted; /* the rows whose logits are asked for */
    float *picture;
    int64_t picture_layer, picture_size;
};

/* All that a step needs beside itself. */
struct runner {
    const struct model *model;
    const struct cache *cache;
    struct team *team;
    int threads;
    const struct step *step;
    tril_attention call; /* of the layer at hand */
    void *workspace;
    size_t workspace_bytes;
    float *x, *normed, *q, *k, *v, *attended, *gate, *up, *turn; /* [rows][...] */
    float *logits;                                               /* [n_wanted][tokens]: the result */
    uint64_t *hashes;         /* or null; [rows][layers]: of the bits that attention gave */
    double attention_seconds; /* so far */
};

struct runner runner_new(const struct model *m, const struct cache *c, int threads, int64_t most_rows);
void runner_step(struct runner *r, const struct step *step);

#endif
