/* Any call: a small legal one, some of whose fields then become anything. Whatever it asks for, nothing is touched but
 * what it owns, which the sanitizers watch; an error leaves every byte as it was; and all tiers of this machine, alone
 * or by a team, answer alike, byte for byte. What the call claims to own it does own: a caller's lie is not looked for.
 */
#include <stdio.h>
#include <stdlib.h>

#include "memory.h"

enum {
    MOST_SEQS = 4,
    MOST_WORK = 1 << 19,  /* multiplications of one call */
    MOST_UNITS = 1 << 16, /* that a team's plan has to walk */
};

struct fuzz {
    struct memory memory;
    /* Each with room for fields of a later version. */
    struct {
        tril_attention call;
        char more[64];
    } attention;
    struct {
        tril_weights_out to;
        char more[64];
    } weights;
    tril_seq *seqs;
    int n_seqs;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A legal call, without its memory. */
static void make_call(struct fuzz *f)
{
    static const int dims[] = {16, 1, 3, 8, 17, 32, 40, 64, 96};
    tril_attention *call = &f->attention.call;
    struct bytes *from = &f->memory.from;
    call->struct_size = sizeof *call;
    call->math = (tril_math)(take_below(from, 4) / 3);
    call->kv_heads = 1 + (int32_t)take_below(from, 3);
    call->q_heads = call->kv_heads * (1 + (int32_t)take_below(from, 5));
    call->q.dtype = (tril_dtype)take_below(from, 3);
    call->k.dtype = (tril_dtype)take_below(from, 6);
    call->v.dtype = (tril_dtype)take_below(from, 6);
    call->qk_dim = call->k.dtype >= TRIL_Q8_0 ? 32 : dims[take_below(from, COUNT(dims))];
    call->v_dim = call->v.dtype >= TRIL_Q8_0 ? 64 : dims[take_below(from, COUNT(dims))];
    call->k.layout = call->k.dtype < TRIL_Q8_0 && take_below(from, 3) == 2 ? TRIL_PANELS : TRIL_ROWS;
    call->block_tokens = 16 * (take_below(from, 9) / 3 % 3);
    call->flags = take_below(from, 5) == 4 ? TRIL_UNNORMALISED : 0;
    if (call->flags != 0 && take_below(from, 2) == 1) call->flags |= TRIL_BLOCKWISE;
    call->out.dtype = call->flags != 0 ? TRIL_F32 : (tril_dtype)(take_below(from, 5) % 3);
    call->scale = take_below(from, 3) == 2 ? take_float(from) : 0.0f;
    call->softcap = take_below(from, 6) == 5 ? take_float(from) : 0.0f;
    call->window = take_below(from, 3) == 2 ? take_below(from, 400) : 0;
    call->sink_tokens = call->window > 0 ? take_below(from, 20) : 0;
    call->n_seqs = f->n_seqs = (int)take_below(from, MOST_SEQS + 1);
    f->seqs = allocate((size_t)f->n_seqs * sizeof *f->seqs + (f->n_seqs == 0));
    const bool tree = take_below(from, 5) == 4, long_chunks = take_below(from, 4) == 3;
    int64_t tokens = 0, keys = 0, longest = 0, longest_q = 0, blocks = 0, parts = 0;
    for (int i = 0; i < f->n_seqs; i++) {
        tril_seq *seq = &f->seqs[i];
        *seq = (tril_seq){.q_first = tokens + take_below(from, 2), .q_len = take_below(from, long_chunks ? 90 : 9)};
        seq->kv_len = take_below(from, 5) == 4 ? take_below(from, 40)
                                               : seq->q_len + take_below(from, take_below(from, 6) == 5 ? 600 : 40);
        if (tree && seq->kv_len < seq->q_len) seq->kv_len = seq->q_len;
        seq->prefix = take_below(from, 5) == 4 ? take_below(from, seq->kv_len + 1) : 0;
        if (take_below(from, 5) == 4) {
            seq->key_begin = take_below(from, seq->kv_len + 1) / 256 * 256;
            seq->key_end = seq->key_begin + 256 < seq->kv_len ? seq->key_begin + 256 : 0;
        }
        const int64_t range = (seq->key_end == 0 ? seq->kv_len : seq->key_end) - seq->key_begin;
        if (seq->q_len == 0) continue;
        tokens = seq->q_first + seq->q_len;
        if (call->block_tokens == 0) seq->kv_first = take_below(from, 4) * 16;
        if (seq->kv_first + range > keys) keys = seq->kv_first + range;
        if (seq->kv_len > longest) longest = seq->kv_len;
        if (seq->q_len > longest_q) longest_q = seq->q_len;
        if ((range + 255) / 256 > parts) parts = (range + 255) / 256;
        if (call->block_tokens > 0) blocks += (range + call->block_tokens - 1) / call->block_tokens;
    }
    call->n_blocks = blocks;
    if (blocks > 0) keys = call->block_tokens;
    lay_out_tensor(&f->memory, &call->q, tokens, 0, call->q_heads, call->qk_dim);
    lay_out_tensor(&f->memory, &call->k, keys, blocks, call->kv_heads, call->qk_dim);
    lay_out_tensor(&f->memory, &call->v, keys, blocks, call->kv_heads, call->v_dim);
    call->out.bytes = lay_out(&f->memory, tokens, call->q_heads, row_bytes(call->out.dtype, call->v_dim), 1,
                              element_of(call->out.dtype), &call->out.token_stride, &call->out.head_stride);
    if ((call->flags & TRIL_BLOCKWISE) != 0) {
        call->out_part_stride = call->out.bytes;
        call->statistics_part_stride = tokens * call->q_heads + take_below(from, 3);
        call->out.bytes *= parts;
    }
    if (tree) {
        call->tree_row_stride = (longest_q + 63) / 64 * 8 + 8 * take_below(from, 2);
        call->tree_bytes = tokens * call->tree_row_stride;
    }
    tril_weights_out *to = &f->weights.to;
    to->struct_size = sizeof *to;
    to->form = (tril_weights_form)take_below(from, 3);
    to->dtype = to->form == TRIL_WEIGHTS_COLUMN_SUMS ? TRIL_F32 : (tril_dtype)(take_below(from, 5) % 3);
    const int64_t element = (int64_t)element_of(to->dtype), rows = to->form == TRIL_WEIGHTS_DENSE ? tokens : f->n_seqs;
    to->last_rows = to->form == TRIL_WEIGHTS_COLUMN_SUMS ? take_below(from, 10) : 0;
    if (to->form != TRIL_WEIGHTS_PACKED) to->row_stride = (longest + take_below(from, 3)) * element;
    to->head_stride = to->form == TRIL_WEIGHTS_PACKED ? tokens * longest * element : rows * to->row_stride;
    to->bytes = call->q_heads * to->head_stride;
}

#define CALL(name) INTEGER(tril_attention, name)
#define TENSOR(x)                                                                                                      \
    CALL(x.bytes), CALL(x.token_stride), CALL(x.head_stride), CALL(x.dtype), CALL(x.layout), CALL(x.block_stride),     \
        CALL(x.scales_bytes), CALL(x.scale_token_stride), CALL(x.scale_head_stride), CALL(x.scale_block_stride)

static const struct field call_fields[] = {CALL(struct_size),
                                           CALL(flags),
                                           CALL(math),
                                           CALL(q_heads),
                                           CALL(kv_heads),
                                           CALL(qk_dim),
                                           CALL(v_dim),
                                           TENSOR(q),
                                           TENSOR(k),
                                           TENSOR(v),
                                           CALL(out.bytes),
                                           CALL(out.token_stride),
                                           CALL(out.head_stride),
                                           CALL(out.dtype),
                                           CALL(out.reserved),
                                           CALL(n_seqs),
                                           CALL(block_tokens),
                                           CALL(n_blocks),
                                           CALL(out_part_stride),
                                           CALL(statistics_part_stride),
                                           CALL(team_call),
                                           REAL(tril_attention, scale),
                                           REAL(tril_attention, softcap),
                                           CALL(window),
                                           CALL(sink_tokens),
                                           CALL(tree_row_stride),
                                           CALL(tree_bytes)};
/* What keeps the library inside its operands comes up more often. */
static const struct field extent_fields[] = {CALL(q.bytes),   CALL(k.bytes),        CALL(v.bytes),
                                             CALL(out.bytes), CALL(k.scales_bytes), CALL(v.scales_bytes),
                                             CALL(tree_bytes)};
static const struct field seq_fields[] = {
    INTEGER(tril_seq, q_first),   INTEGER(tril_seq, q_len),   INTEGER(tril_seq, kv_len), INTEGER(tril_seq, kv_first),
    INTEGER(tril_seq, key_begin), INTEGER(tril_seq, key_end), INTEGER(tril_seq, prefix)};
static const struct field weights_fields[] = {
    INTEGER(tril_weights_out, struct_size), INTEGER(tril_weights_out, bytes),
    INTEGER(tril_weights_out, head_stride), INTEGER(tril_weights_out, row_stride),
    INTEGER(tril_weights_out, last_rows),   INTEGER(tril_weights_out, form),
    INTEGER(tril_weights_out, dtype)};

static void change_some(struct fuzz *f)
{
    for (int64_t n = take_below(&f->memory.changes, 5) - 1; n > 0; n--) {
        switch (take_below(&f->memory.changes, 4)) {
        case 0: change(&f->memory, &f->attention, call_fields, COUNT(call_fields)); break;
        case 1: change(&f->memory, &f->attention, extent_fields, COUNT(extent_fields)); break;
        case 2:
            if (f->n_seqs > 0)
                change(&f->memory, &f->seqs[take_below(&f->memory.changes, f->n_seqs)], seq_fields, COUNT(seq_fields));
            break;
        default: change(&f->memory, &f->weights, weights_fields, COUNT(weights_fields));
        }
    }
    tril_attention *call = &f->attention.call;
    if (call->n_seqs > f->n_seqs) call->n_seqs = f->n_seqs;
    if (call->struct_size > sizeof f->attention) call->struct_size = sizeof f->attention;
    if (f->weights.to.struct_size > sizeof f->weights) f->weights.to.struct_size = sizeof f->weights;
    if (call->struct_size > sizeof *call) f->attention.more[0] = (char)(take_below(&f->memory.changes, 4) / 3);
    if (f->weights.to.struct_size > sizeof f->weights.to)
        f->weights.more[0] = (char)(take_below(&f->memory.changes, 4) / 3);
}

/* The multiplications of the call and the units of its plan, at most. */
static int64_t work_of(const struct fuzz *f, int64_t *units)
{
    const tril_attention *call = &f->attention.call;
    int64_t work = 0;
    *units = 0;
    for (int64_t i = 0; i < call->n_seqs; i++) {
        const int64_t rows = times(f->seqs[i].q_len, call->q_heads);
        const int64_t here = times(times(rows, f->seqs[i].kv_len), (int64_t)call->qk_dim + call->v_dim);
        work += here < MOST_WORK ? here : MOST_WORK;
        *units += rows < MOST_UNITS ? rows : MOST_UNITS;
    }
    return work;
}

static int64_t pages_of(const tril_attention *call, const tril_seq *seq)
{
    const int64_t end = seq->key_end == 0 ? seq->kv_len : seq->key_end;
    if (call->block_tokens < 1 || seq->q_len < 1 || end < 1) return 0;
    return (end - 1) / call->block_tokens + 1;
}

/* Everything that the call says it has. */
static void make_memory(struct fuzz *f)
{
    tril_attention *call = &f->attention.call;
    own_tensor(&f->memory, &call->q, true);
    own_tensor(&f->memory, &call->k, true);
    own_tensor(&f->memory, &call->v, true);
    call->out.data = own(&f->memory, call->out.bytes, call->out.dtype, false);
    f->weights.to.data = own(&f->memory, f->weights.to.bytes, f->weights.to.dtype, false);
    int64_t tokens = 0, parts = 1;
    for (int i = 0; i < f->n_seqs; i++) {
        tril_seq *seq = &f->seqs[i];
        const int64_t end =
            seq->q_first < INT64_MAX / 4 && seq->q_len < INT64_MAX / 4 ? seq->q_first + seq->q_len : INT64_MAX / 4;
        if (seq->q_len > 0 && end > tokens) tokens = end;
        if (seq->kv_len > 0 && seq->kv_len / 256 + 1 > parts) parts = seq->kv_len / 256 + 1;
        const int64_t pages = pages_of(call, seq);
        if (pages == 0) continue;
        int32_t *table = own(&f->memory, times(pages, 4), TRIL_F32, false);
        struct region *r = &f->memory.regions[f->memory.n_regions - 1];
        for (size_t page = 0; page < r->bytes / 4; page++) {
            const int64_t n = call->n_blocks > 0 ? call->n_blocks : 1;
            int32_t block = (int32_t)((page + (size_t)next_random(&f->memory) % 2) % (size_t)n);
            if (next_random(&f->memory) % 512 == 0) block = (int32_t)take_number(&f->memory.from, n);
            memcpy(r->before + 4 * page, &block, 4);
        }
        memcpy(table, r->before, r->bytes);
        seq->blocks = table;
    }
    if ((call->flags & TRIL_BLOCKWISE) == 0) parts = 1;
    const int64_t rows = times(tokens, call->q_heads);
    const int64_t last = parts > 1 ? times(parts - 1, call->statistics_part_stride) : 0;
    const bool needed = (call->flags & TRIL_BLOCKWISE) != 0;
    if (needed || take_below(&f->memory.from, 2) == 1)
        call->row_max = own(&f->memory, times(rows + last, 4), TRIL_F32, false);
    if (needed || take_below(&f->memory.from, 2) == 1)
        call->row_sum = own(&f->memory, times(rows + last, 4), TRIL_F32, false);
    if (take_below(&f->memory.from, 4) == 3)
        call->sink_logits = own(&f->memory, times(call->q_heads, 4), TRIL_F32, true);
    if (take_below(&f->memory.from, 4) == 3)
        call->alibi_slopes = own(&f->memory, times(call->q_heads, 4), TRIL_F32, true);
    if (call->tree_bytes != 0 || call->tree_row_stride != 0)
        call->tree = own(&f->memory, call->tree_bytes, TRIL_DTYPE_COUNT, true);
}

/* One pointer of the call becomes null, is moved by a byte, or takes another's place. */
static void change_pointer(struct fuzz *f, bool weights)
{
    tril_attention *call = &f->attention.call;
    char **pointers[] = {(char **)(void *)&call->q.data,   (char **)(void *)&call->k.data,
                         (char **)(void *)&call->v.data,   (char **)(void *)&call->out.data,
                         (char **)(void *)&call->row_max,  (char **)(void *)&call->row_sum,
                         (char **)(void *)&call->tree,     (char **)(void *)&call->sink_logits,
                         (char **)(void *)&call->k.scales, (char **)(void *)&call->alibi_slopes};
    int64_t *extents[] = {&call->q.bytes, &call->k.bytes, &call->v.bytes, &call->out.bytes};
    const int64_t which = take_below(&f->memory.changes, COUNT(pointers));
    const int64_t other = take_below(&f->memory.changes, f->memory.n_regions);
    char **p = pointers[which];
    struct region *r = &f->memory.regions[other];
    switch (take_below(&f->memory.changes, 8)) {
    case 5: *p = NULL; break;
    case 6:
        if (*p != NULL) (*p)++;
        f->memory.owns_all = false;
        break;
    case 7: /* with the extent that the other has */
        if (which >= (int64_t)COUNT(extents)) break;
        *p = r->now;
        *extents[which] = (int64_t)r->bytes;
        if (extents[which] == &call->out.bytes && !weights) r->type = call->out.dtype; /* whose NaN are alike */
        break;
    default: break;
    }
}

/* For the report of what broke. */
static void tell(const struct fuzz *f, bool weights, const char *tier, int threads, tril_status status)
{
    const tril_attention *c = &f->attention.call;
    const tril_tensor *x[] = {&c->q, &c->k, &c->v};
    fprintf(stderr, "%s, %s, %d threads: status %d, flags %d, math %d, heads %d/%d, sizes %d/%d\n",
            weights ? "weights" : "attend", tier, threads, (int)status, (int)c->flags, (int)c->math, (int)c->q_heads,
            (int)c->kv_heads, (int)c->qk_dim, (int)c->v_dim);
    for (int i = 0; i < 3; i++) {
        const tril_tensor *t = x[i];
        fprintf(stderr, "%c: %p, %lld bytes, strides %lld, %lld, %lld, type %d, layout %d\n", "qkv"[i], t -> data,
                (long long)t -> bytes, (long long)t -> token_stride, (long long)t -> head_stride,
                (long long)t -> block_stride, (int)t -> dtype, (int)t -> layout);
    }
    fprintf(stderr, "out: %p, %lld bytes, strides %lld, %lld, parts %lld, %lld, type %d\n", c->out.data,
            (long long)c->out.bytes, (long long)c->out.token_stride, (long long)c->out.head_stride,
            (long long)c->out_part_stride, (long long)c->statistics_part_stride, (int)c->out.dtype);
    fprintf(stderr, "weights: form %d, type %d, %lld bytes, strides %lld, %lld, last %lld\n", (int)f->weights.to.form,
            (int)f->weights.to.dtype, (long long)f->weights.to.bytes, (long long)f->weights.to.row_stride,
            (long long)f->weights.to.head_stride, (long long)f->weights.to.last_rows);
    fprintf(stderr, "pages of %lld, %lld; scale %g, softcap %g, window %lld, sinks %lld, %p, slopes %p, tree %p\n",
            (long long)c->block_tokens, (long long)c->n_blocks, (double)c->scale, (double)c->softcap,
            (long long)c->window, (long long)c->sink_tokens, (const void *)c->sink_logits,
            (const void *)c->alibi_slopes, (const void *)c->tree);
    for (int i = 0; i < f->n_seqs; i++)
        fprintf(stderr, "queries %lld + %lld, keys %lld + %lld, range %lld to %lld, prefix %lld\n",
                (long long)f->seqs[i].q_first, (long long)f->seqs[i].q_len, (long long)f->seqs[i].kv_first,
                (long long)f->seqs[i].kv_len, (long long)f->seqs[i].key_begin, (long long)f->seqs[i].key_end,
                (long long)f->seqs[i].prefix);
}

static tril_status run(struct fuzz *f, bool weights, void *workspace, size_t bytes, int threads)
{
    tril_status status = TRIL_OK;
    for (int thread = 0; thread < threads; thread++) {
        const tril_status here =
            weights ? tril_weights_team(&f->attention.call, &f->weights.to, workspace, bytes, thread, threads)
                    : tril_attend_team(&f->attention.call, workspace, bytes, thread, threads);
        if (thread > 0 && here != status) broken("a team's threads get different answers");
        status = here;
        if (status != TRIL_OK) break;
    }
    return status;
}

static void try_call(struct fuzz *f)
{
    struct memory *m = &f->memory;
    const bool weights = take_below(&f->memory.from, 2) == 1;
    int team = 1 + (int)take_below(&f->memory.from, 4);
    make_call(f);
    change_some(f);
    f->attention.call.seqs = f->seqs;
    make_memory(f);
    change_pointer(f, weights);
    int64_t units;
    const bool runs = work_of(f, &units) < MOST_WORK && f->memory.owns_all;
    if (units >= MOST_UNITS) team = 1;

    tril_status want = TRIL_OK;
    const char *name;
    for (int tier = 0, usable; (name = tril_isa_list(tier, &usable)) != NULL; tier++) {
        if (!usable) continue;
        if (tril_force_isa(name) != TRIL_OK) broken("a usable tier cannot be had");
        for (int threads = 1; threads <= team; threads += team > 1 ? team - 1 : 1) {
            size_t bytes = 0;
            const tril_status sized = tril_workspace(&f->attention.call, threads, &bytes);
            const bool whole = runs && sized == TRIL_OK && bytes < (64 << 20);
            void *workspace = whole ? allocate(bytes) : NULL;
            if (whole) memset(workspace, threads > 1 ? 0 : 0xa5, bytes); /* a team's is zeroed once */
            memory_restore(m);
            const tril_status got = run(f, weights, workspace, whole ? bytes : 0, threads);
            free(workspace);
            /* Without values tril_workspace() takes the call for one of weights, and looks at less of it. */
            const bool same_question = !weights && f->attention.call.v_dim != 0;
            if (same_question && sized != TRIL_OK && got != sized) broken("tril_workspace() and the call disagree");
            if (got != TRIL_OK && !memory_unchanged(m)) broken("an error changed something");
            if (!whole) continue; /* a call without a workspace says so, if nothing else is wrong */
            if (tier == 0 && threads == 1) {
                want = got;
                memory_keep(m);
            }
            if (got != want) broken("another tier or team gives another status");
            if (!memory_alike(m, true)) {
                tell(f, weights, name, threads, got);
                broken("another tier or team gives other bytes");
            }
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz *f = calloc(1, sizeof *f);
    if (f == NULL) broken("no memory");
    memory_begin(&f->memory, data, size);
    try_call(f);
    memory_end(&f->memory);
    free(f->seqs);
    free(f);
    return 0;
}
