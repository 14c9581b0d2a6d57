/* A Llama model, and one step of it over rows that may belong to several sequences. What a row gives does not depend on
 * the rows beside it, the threads or the tier: attention is the library's promise, and out here every sum is one chain
 * in a fixed order. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llm.h"

/* Outputs of a panel, in vectors that every 64-bit machine has, and rows that share a reading of it. */
enum { LANES = 16, VECTOR = 4, VECTORS = LANES / VECTOR, TOGETHER = 2 };
typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), aligned(sizeof(float)), may_alias));

void expect_ok(const char *what, tril_status status)
{
    if (status != TRIL_OK) die("%s: %s", what, tril_status_text(status));
}

static float *floats(int64_t rows, int64_t n)
{
    return need((size_t)rows, (size_t)n * sizeof(float));
}

/* "blk.NUMBER.PART.weight", until the next call. */
static const char *block(int64_t number, const char *part)
{
    static char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", (int)number, part);
    return name;
}

static struct matrix read_matrix(struct gguf *g, const char *name, int64_t rows, int64_t cols)
{
    const struct gguf_tensor *t = gguf_tensor(g, name, rows, cols, false);
    struct matrix m = {rows, cols, floats((rows + LANES - 1) / LANES * LANES, cols)};
    float *row = floats(1, cols);
    for (int64_t r = 0; r < rows; r++) {
        gguf_row(t, r, row);
        for (int64_t i = 0; i < cols; i++)
            m.panels[(r / LANES * cols + i) * LANES + r % LANES] = row[i];
    }
    free(row);
    return m;
}

static float *read_norm(struct gguf *g, const char *name, int64_t n)
{
    float *norm = floats(1, n);
    gguf_row(gguf_tensor(g, name, 1, n, false), 0, norm);
    return norm;
}

struct model model_read(const char *path)
{
    struct model m;
    struct gguf *g = gguf_open(path);
    gguf_expect(g, "general.architecture", "llama", false);
    m.tokens = tokens_read(g);
    m.layers = (int64_t)gguf_number(g, "llama.block_count", true, 1, 1024, NAN);
    m.width = (int64_t)gguf_number(g, "llama.embedding_length", true, 1, 1 << 16, NAN);
    m.hidden = (int64_t)gguf_number(g, "llama.feed_forward_length", true, 1, 1 << 18, NAN);
    m.context = (int64_t)gguf_number(g, "llama.context_length", true, 1, INT32_MAX, NAN);
    m.heads = (int32_t)gguf_number(g, "llama.attention.head_count", true, 1, 1024, NAN);
    m.kv_heads = (int32_t)gguf_number(g, "llama.attention.head_count_kv", true, 1, m.heads, m.heads);
    if (m.heads % m.kv_heads != 0)
        die("%s: %d query heads for %d K/V heads; a multiple would be right", path, m.heads, m.kv_heads);
    const double usual = (double)(m.width / m.heads);
    m.qk_dim = (int32_t)gguf_number(g, "llama.attention.key_length", true, 1, TRIL_MAX_HEAD_DIM, usual);
    m.v_dim = (int32_t)gguf_number(g, "llama.attention.value_length", true, 1, TRIL_MAX_HEAD_DIM, usual);
    m.rotated = (int64_t)gguf_number(g, "llama.rope.dimension_count", true, 2, m.qk_dim, m.qk_dim);
    if (m.rotated % 2 != 0) die("%s: RoPE over %d elements; an even number would be right", path, (int)m.rotated);
    m.eps = gguf_number(g, "llama.attention.layer_norm_rms_epsilon", false, 0, 1, NAN);
    m.speed = need((size_t)m.rotated / 2, sizeof *m.speed);
    gguf_expect(g, "llama.rope.scaling.type", "none", true);
    gguf_number(g, "llama.rope.scaling.factor", false, 1, 1, 1);
    gguf_number(g, "llama.rope.scale_linear", false, 1, 1, 1);
    const double base = gguf_number(g, "llama.rope.freq_base", false, 1, 1e12, 10000);
    for (int64_t i = 0; i < m.rotated / 2; i++)
        m.speed[i] = pow(base, -2.0 * (double)i / (double)m.rotated);
    m.layer = need((size_t)m.layers, sizeof *m.layer);
    for (int64_t i = 0; i < m.layers; i++) {
        struct layer *l = &m.layer[i];
        l->attention_norm = read_norm(g, block(i, "attn_norm"), m.width);
        l->q = read_matrix(g, block(i, "attn_q"), m.heads * m.qk_dim, m.width);
        l->k = read_matrix(g, block(i, "attn_k"), m.kv_heads * m.qk_dim, m.width);
        l->v = read_matrix(g, block(i, "attn_v"), m.kv_heads * m.v_dim, m.width);
        l->o = read_matrix(g, block(i, "attn_output"), m.width, m.heads * m.v_dim);
        l->ffn_norm = read_norm(g, block(i, "ffn_norm"), m.width);
        l->gate = read_matrix(g, block(i, "ffn_gate"), m.hidden, m.width);
        l->up = read_matrix(g, block(i, "ffn_up"), m.hidden, m.width);
        l->down = read_matrix(g, block(i, "ffn_down"), m.width, m.hidden);
    }
    m.norm = read_norm(g, "output_norm.weight", m.width);
    m.embedding = gguf_tensor(g, "token_embd.weight", m.tokens.n, m.width, false);
    const bool tied = gguf_tensor(g, "output.weight", m.tokens.n, m.width, true) == NULL;
    m.output = read_matrix(g, tied ? "token_embd.weight" : "output.weight", m.tokens.n, m.width);
    gguf_all_used(g);
    return m;
}

/* Where thread number `thread` begins in n things, and the one before it ends. */
static int64_t part(const struct runner *r, int thread, int64_t n)
{
    return n * thread / r->threads;
}

/* A panel of outputs for `rows` rows, a constant. Each sum is one chain over the inputs in their order, whatever else
 * is summed beside it. */
static inline __attribute__((always_inline)) void tile(int rows, const float *panel, const float *x, int64_t cols,
                                                       float to[TOGETHER][LANES])
{
    vector sum[TOGETHER][VECTORS] = {{{0}}};
    for (int64_t i = 0; i < cols; i++) {
        for (int r = 0; r < rows; r++) {
            for (int v = 0; v < VECTORS; v++)
                sum[r][v] += *(const vector *)(panel + i * LANES + v * VECTOR) * x[r * cols + i];
        }
    }
    memcpy(to, sum, sizeof sum);
}

/* This thread's part of y = W x, or y += W x, for [rows][inputs] into [rows][outputs]. */
static void multiply(const struct runner *r, int t, const struct matrix *w, const float *x, int64_t n, float *y,
                     bool add)
{
    float sum[TOGETHER][LANES];
    const int64_t panels = (w->rows + LANES - 1) / LANES, cols = w->cols;
    for (int64_t p = part(r, t, panels); p < part(r, t + 1, panels); p++) {
        const int64_t outputs = w->rows - p * LANES < LANES ? w->rows - p * LANES : LANES;
        for (int64_t row = 0; row < n; row += TOGETHER) {
            const int rows = n - row < TOGETHER ? 1 : TOGETHER;
            if (rows == TOGETHER)
                tile(TOGETHER, w->panels + p * LANES * cols, x + row * cols, cols, sum);
            else
                tile(1, w->panels + p * LANES * cols, x + row * cols, cols, sum);
            for (int i = 0; i < rows; i++) {
                float *to = y + (row + i) * w->rows + p * LANES;
                for (int64_t l = 0; l < outputs; l++)
                    to[l] = add ? to[l] + sum[i][l] : sum[i][l];
            }
        }
    }
}

static void normalise(const float *x, const float *weight, const struct model *m, float *to)
{
    double sum = 0;
    for (int64_t i = 0; i < m->width; i++)
        sum += (double)x[i] * (double)x[i];
    const float scale = (float)(1 / sqrt(sum / (double)m->width + m->eps));
    for (int64_t i = 0; i < m->width; i++)
        to[i] = x[i] * scale * weight[i];
}

/* Elements 2 i and 2 i + 1 of each head are turned together: so are the weights of this architecture ordered in GGUF
 * files. `turn` has cosine and sine for each i. */
static void rotate(float *x, int32_t heads, const struct model *m, const float *turn)
{
    for (int32_t h = 0; h < heads; h++, x += m->qk_dim) {
        for (int64_t i = 0; i < m->rotated; i += 2) {
            const float a = x[i], b = x[i + 1];
            x[i] = a * turn[i] - b * turn[i + 1];
            x[i + 1] = a * turn[i + 1] + b * turn[i];
        }
    }
}

static uint64_t fnv1a(const void *x, int64_t bytes)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const unsigned char *p = x; bytes > 0; bytes--)
        h = (h ^ *p++) * 0x100000001b3u;
    return h;
}

struct runner runner_new(const struct model *m, const struct cache *c, int threads, int64_t rows)
{
    const int64_t q = row_bytes(TRIL_F32, m->qk_dim), v = row_bytes(TRIL_F32, m->v_dim), heads = m->heads;
    struct runner r = {.model = m, .cache = c, .threads = threads, .team = team_new(threads)};
    r.x = floats(rows, m->width);
    r.normed = floats(rows, m->width);
    r.q = floats(rows, m->heads * m->qk_dim);
    r.k = floats(rows, m->kv_heads * m->qk_dim);
    r.v = floats(rows, m->kv_heads * m->v_dim);
    r.attended = floats(rows, m->heads * m->v_dim);
    r.gate = floats(rows, m->hidden);
    r.up = floats(rows, m->hidden);
    r.turn = floats(rows, m->rotated);
    r.logits = floats(rows, m->tokens.n);
    r.call = (tril_attention){.struct_size = sizeof r.call, .q_heads = m->heads, .kv_heads = m->kv_heads};
    r.call.qk_dim = m->qk_dim;
    r.call.v_dim = m->v_dim;
    r.call.block_tokens = c->page;
    r.call.n_blocks = c->pages;
    r.call.q = (tril_tensor){.data = r.q, .bytes = rows * heads * q, .token_stride = heads * q, .head_stride = q};
    r.call.out = (tril_out){r.attended, rows * heads * v, heads * v, v, TRIL_F32, 0};
    cache_layer(c, 0, &r.call.k, &r.call.v);
    return r;
}

/* The weights of this step's rows of the first sequence, which follow those of the steps before. */
static void draw_weights(const struct runner *r)
{
    tril_attention call = r->call;
    const tril_seq *seq = call.seqs;
    const int64_t row = row_bytes(TRIL_F32, r->step->picture_size), skip = (seq->kv_len - seq->q_len) * row;
    tril_weights_out to = {.struct_size = sizeof to, .head_stride = r->step->picture_size * row, .row_stride = row};
    to.data = (char *)r->step->picture + skip;
    to.bytes = call.q_heads * to.head_stride - skip;
    size_t bytes = 0;
    call.n_seqs = 1;
    expect_ok("the picture", tril_workspace(&call, 1, &bytes));
    void *workspace = need(bytes, 1);
    expect_ok("the picture", tril_weights(&call, &to, workspace, bytes));
    free(workspace);
}

static void attend(struct runner *r, int thread, int64_t layer)
{
    if (thread == 0) {
        cache_layer(r->cache, layer, &r->call.k, &r->call.v);
        r->call.team_call++;
    }
    team_wait(r->team);
    if (thread == 0) r->attention_seconds -= seconds();
    expect_ok("attention", tril_attend_team(&r->call, r->workspace, r->workspace_bytes, thread, r->threads));
    team_wait(r->team);
    if (thread != 0) return;
    r->attention_seconds += seconds();
    if (layer == r->step->picture_layer) draw_weights(r);
}

/* What each thread does in a step. Between two waits it writes what is its own, be it rows or outputs, and reads what
 * was finished before. */
static void member(void *context, int thread)
{
    struct runner *r = context;
    const struct model *m = r->model;
    const struct step *s = r->step;
    const int64_t begin = part(r, thread, s->rows), end = part(r, thread + 1, s->rows);
    const int64_t q = m->heads * m->qk_dim, k = m->kv_heads * m->qk_dim, v = m->kv_heads * m->v_dim;
    const int64_t wide = m->heads * m->v_dim;
    for (int64_t i = begin; i < end; i++) {
        gguf_row(m->embedding, s->row[i].token, r->x + i * m->width);
        for (int64_t j = 0; j < m->rotated; j += 2) {
            const double angle = (double)s->row[i].position * m->speed[j / 2];
            r->turn[i * m->rotated + j] = (float)cos(angle);
            r->turn[i * m->rotated + j + 1] = (float)sin(angle);
        }
    }
    for (int64_t layer = 0; layer < m->layers; layer++) {
        const struct layer *l = &m->layer[layer];
        for (int64_t i = begin; i < end; i++)
            normalise(r->x + i * m->width, l->attention_norm, m, r->normed + i * m->width);
        team_wait(r->team);
        multiply(r, thread, &l->q, r->normed, s->rows, r->q, false);
        multiply(r, thread, &l->k, r->normed, s->rows, r->k, false);
        multiply(r, thread, &l->v, r->normed, s->rows, r->v, false);
        team_wait(r->team);
        for (int64_t i = begin; i < end; i++) {
            rotate(r->q + i * q, m->heads, m, r->turn + i * m->rotated);
            rotate(r->k + i * k, m->kv_heads, m, r->turn + i * m->rotated);
            cache_append(r->cache, layer, &s->row[i], r->k + i * k, r->v + i * v);
        }
        attend(r, thread, layer);
        for (int64_t i = begin; i < end && r->hashes != NULL; i++)
            r->hashes[i * m->layers + layer] = fnv1a(r->attended + i * wide, row_bytes(TRIL_F32, wide));
        multiply(r, thread, &l->o, r->attended, s->rows, r->x, true);
        team_wait(r->team);
        for (int64_t i = begin; i < end; i++)
            normalise(r->x + i * m->width, l->ffn_norm, m, r->normed + i * m->width);
        team_wait(r->team);
        multiply(r, thread, &l->gate, r->normed, s->rows, r->gate, false);
        multiply(r, thread, &l->up, r->normed, s->rows, r->up, false);
        team_wait(r->team);
        for (int64_t i = begin * m->hidden; i < end * m->hidden; i++)
            r->gate[i] = r->gate[i] / (1 + expf(-r->gate[i])) * r->up[i];
        team_wait(r->team);
        multiply(r, thread, &l->down, r->gate, s->rows, r->x, true);
        team_wait(r->team);
    }
    for (int64_t i = part(r, thread, s->n_wanted); i < part(r, thread + 1, s->n_wanted); i++)
        normalise(r->x + s->wanted[i] * m->width, m->norm, m, r->normed + i * m->width);
    team_wait(r->team);
    multiply(r, thread, &m->output, r->normed, s->n_wanted, r->logits, false);
}

void runner_step(struct runner *r, const struct step *s)
{
    size_t bytes = 0;
    r->step = s;
    r->call.seqs = s->seqs;
    r->call.n_seqs = s->n_seqs;
    expect_ok("attention", tril_workspace(&r->call, r->threads, &bytes));
    if (bytes > r->workspace_bytes) { /* zeroed once, as a team's workspace must be */
        free(r->workspace);
        r->workspace = need(bytes, 1);
        r->workspace_bytes = bytes;
    }
    team_run(r->team, member, r);
}
