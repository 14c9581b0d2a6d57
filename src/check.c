#include <string.h>

#include "check.h"
#include "formats.h"
#include "scale.h"

#define MAX_HEADS  65536
#define MAX_LENGTH INT32_MAX          /* a triangle's elements fit in 63 bits */
#define MAX_FIRST  (INT64_C(1) << 47) /* a token's number */
#define MAX_CALL   (INT64_C(1) << 62)
#define MAX_BLOCK  (INT64_C(1) << 30)
#define TRY(x)                                                                                                         \
    do {                                                                                                               \
        const tril_status status_ = (x);                                                                               \
        if (status_ != TRIL_OK) return status_;                                                                        \
    } while (0)

/* A caller's struct of another version: a shorter one is not known (this is the first version); a longer one is, if
 * what this version does not know is 0. */
static tril_status take_struct(void *to, size_t size, const void *from, size_t given)
{
    if (given < size) return TRIL_ERR_STRUCT;
    const unsigned char *p = from;
    for (size_t i = size; i < given; i++) {
        if (p[i] != 0) return TRIL_ERR_STRUCT;
    }
    memcpy(to, from, size);
    return TRIL_OK;
}

static bool finite_f32(float x)
{
    return x - x == 0.0f;
}

static bool without_values(enum tril_operation operation)
{
    return operation == TRIL_WEIGHING || operation == TRIL_SIZING_WEIGHTS;
}

/* a * b + c, all >= 0 */
static tril_status mul_add(int64_t a, int64_t b, int64_t c, int64_t *to)
{
    if (__builtin_mul_overflow(a, b, to) || __builtin_add_overflow(*to, c, to)) return TRIL_ERR_OVERFLOW;
    return TRIL_OK;
}

/* A tensor's rows, as the checks see q, k, v, out and the weights alike. */
struct rows {
    const void *data;
    int64_t bytes;
    int64_t tokens, token_stride;
    int64_t heads, head_stride;
    int64_t width;   /* bytes of a row */
    int64_t element; /* bytes, a power of two */
    bool may_repeat; /* a stride of 0 is fine */
    bool written;
};

/* Whether rows of `width` bytes, n of them `stride` apart, keep clear of each other. */
static bool strides_fit(int64_t n, int64_t stride, int64_t width, bool may_repeat)
{
    return n <= 1 || stride >= width || (may_repeat && stride == 0);
}

/* Whether so many bytes from there on are more than addresses reach, of 32 bits, too. */
static bool passes_the_end(uintptr_t begin, int64_t bytes)
{
    return (uint64_t)bytes > UINTPTR_MAX - begin;
}

static tril_status check_rows(const struct rows *x, struct tril_checked *checked)
{
    if (x->token_stride < 0 || x->head_stride < 0) return TRIL_ERR_STRIDE;
    if (x->bytes < 0) return TRIL_ERR_EXTENT;
    const uint64_t units = (uint64_t)x->token_stride | (uint64_t)x->head_stride | (uintptr_t)x->data;
    if ((units & (uint64_t)(x->element - 1)) != 0) return TRIL_ERR_ALIGN;
    if (x->tokens == 0 || x->width == 0) return TRIL_OK;
    if (x->data == NULL) return TRIL_ERR_NULL;
    if (!strides_fit(x->tokens, x->token_stride, x->width, x->may_repeat) ||
        !strides_fit(x->heads, x->head_stride, x->width, x->may_repeat))
        return TRIL_ERR_STRIDE;

    int64_t one_token, one_head, end;
    TRY(mul_add(x->heads - 1, x->head_stride, x->width, &one_token));
    TRY(mul_add(x->tokens - 1, x->token_stride, x->width, &one_head));
    TRY(mul_add(x->tokens - 1, x->token_stride, one_token, &end));
    if (passes_the_end((uintptr_t)x->data, end)) return TRIL_ERR_OVERFLOW;
    const bool by_token = strides_fit(x->tokens, x->token_stride, one_token, false);
    const bool by_head = strides_fit(x->heads, x->head_stride, one_head, false);
    const bool repeats = x->token_stride == 0 || x->head_stride == 0; /* strides_fit() has asked whether they may */
    if (!by_token && !by_head && !repeats) return TRIL_ERR_STRIDE;    /* heads of one token run into another's */
    if (end > x->bytes) return TRIL_ERR_EXTENT;

    struct tril_region *region = &checked->regions[checked->n_regions++];
    *region = (struct tril_region){.begin = (uintptr_t)x->data, .bytes = (uint64_t)end, .written = x->written};
    if (x->tokens > 1 && by_token) {
        region->period = x->token_stride;
        region->width = one_token;
    } else if (x->heads > 1 && by_head) {
        region->period = x->head_stride;
        region->width = one_head;
    }
    return TRIL_OK;
}

/* The region checked last comes `parts` times, a stride apart, all within `bytes`. */
static tril_status repeat(struct tril_checked *checked, int64_t parts, int64_t stride, int64_t bytes)
{
    struct tril_region *region = &checked->regions[checked->n_regions - 1];
    int64_t end;
    if (stride < (int64_t)region->bytes) return TRIL_ERR_STRIDE;
    TRY(mul_add(parts - 1, stride, (int64_t)region->bytes, &end));
    if (passes_the_end(region->begin, end)) return TRIL_ERR_OVERFLOW;
    if (end > bytes) return TRIL_ERR_EXTENT;
    region->bytes = (uint64_t)end;
    region->period = 0; /* what lies between counts as written */
    return TRIL_OK;
}

/* Whether b, taken as one run of bytes, lies between two neighbouring pieces of a. */
static bool between(const struct tril_region *a, const struct tril_region *b)
{
    const uint64_t period = (uint64_t)a->period;
    if (period == 0 || b->bytes > period) return false;
    const uint64_t shift =
        b->begin >= a->begin ? (b->begin - a->begin) % period : (period - (a->begin - b->begin) % period) % period;
    return shift >= (uint64_t)a->width && shift + b->bytes <= period;
}

static bool overlap(const struct tril_region *a, const struct tril_region *b)
{
    if (a->begin + a->bytes <= b->begin || b->begin + b->bytes <= a->begin) return false;
    /* Rows that take turns: b's first piece stands for all of them. */
    struct tril_region piece = *b;
    if (a->period != 0 && a->period == b->period) piece.bytes = (uint64_t)b->width;
    return !between(a, &piece) && !between(b, a);
}

/* Whether a row is stored in blocks of several elements. */
static bool in_blocks(tril_dtype type)
{
    return type == TRIL_Q8_0 || type == TRIL_Q4_0;
}

static tril_status check_enums(const tril_attention *call, enum tril_operation operation)
{
    const tril_tensor *in[] = {&call->q, &call->k, &call->v};
    const int operands = without_values(operation) ? 2 : 3;
    if ((unsigned)call->math >= TRIL_MATH_COUNT) return TRIL_ERR_DTYPE;
    for (int i = 0; i < operands; i++) {
        if ((unsigned)in[i]->dtype >= TRIL_DTYPE_COUNT || (unsigned)in[i]->layout >= TRIL_LAYOUT_COUNT)
            return TRIL_ERR_DTYPE;
        if (in[i]->dtype > TRIL_BF16 && in[i] == &call->q) return TRIL_ERR_DTYPE;
        if (in[i]->layout == TRIL_PANELS && (in[i] != &call->k || in_blocks(in[i]->dtype))) return TRIL_ERR_DTYPE;
    }
    if (without_values(operation)) return TRIL_OK;
    if ((unsigned)call->out.dtype > TRIL_BF16) return TRIL_ERR_DTYPE;
    if (call->flags != 0 && call->out.dtype != TRIL_F32) return TRIL_ERR_DTYPE; /* what is merged is f32 */
    return call->out.reserved != 0 ? TRIL_ERR_STRUCT : TRIL_OK;
}

/* Fields that say something only for another kind of tensor. */
static tril_status check_unused(const tril_tensor *x, bool paged)
{
    const bool scaled = x->scales != NULL || x->scales_bytes != 0 || x->scale_token_stride != 0 ||
                        x->scale_head_stride != 0 || x->scale_block_stride != 0;
    if (scaled && x->dtype != TRIL_I8) return TRIL_ERR_STRUCT;
    return !paged && (x->block_stride != 0 || x->scale_block_stride != 0) ? TRIL_ERR_STRUCT : TRIL_OK;
}

static tril_status check_all_unused(const tril_attention *call, enum tril_operation operation)
{
    const bool paged = call->block_tokens > 0;
    TRY(check_unused(&call->q, false));
    TRY(check_unused(&call->k, paged));
    return without_values(operation) ? TRIL_OK : check_unused(&call->v, paged);
}

static tril_status check_numbers(const tril_attention *call)
{
    if (!finite_f32(tril_log2(call->scale))) return TRIL_ERR_PARAM;
    if (!finite_f32(tril_log2(call->softcap)) || call->softcap < 0.0f) return TRIL_ERR_PARAM;
    if (call->softcap > 0.0f &&
        !finite_f32(tril_cap_scale(tril_scale_or_default(call->scale, call->qk_dim), call->softcap)))
        return TRIL_ERR_PARAM;
    if (call->window < 0 || call->sink_tokens < 0) return TRIL_ERR_PARAM;
    return TRIL_OK;
}

static tril_status check_shape(const tril_attention *call, enum tril_operation operation)
{
    if (call->q_heads < 1 || call->q_heads > MAX_HEADS || call->kv_heads < 1) return TRIL_ERR_SHAPE;
    if (call->q_heads % call->kv_heads != 0) return TRIL_ERR_SHAPE;
    if (call->qk_dim < 1 || call->qk_dim > TRIL_MAX_HEAD_DIM) return TRIL_ERR_SHAPE;
    if (!without_values(operation) && (call->v_dim < 1 || call->v_dim > TRIL_MAX_HEAD_DIM)) return TRIL_ERR_SHAPE;
    if (in_blocks(call->k.dtype) && call->qk_dim % TRIL_Q_BLOCK != 0) return TRIL_ERR_SHAPE;
    if (!without_values(operation) && in_blocks(call->v.dtype) && call->v_dim % TRIL_Q_BLOCK != 0)
        return TRIL_ERR_SHAPE;
    if (call->n_seqs < 0 || call->n_seqs > INT32_MAX) return TRIL_ERR_SHAPE;
    if (call->block_tokens < 0 || call->block_tokens > MAX_BLOCK || call->block_tokens % TRIL_PANEL != 0)
        return TRIL_ERR_SHAPE;
    if (call->n_blocks < 0 || call->n_blocks > INT32_MAX || (call->block_tokens == 0 && call->n_blocks != 0))
        return TRIL_ERR_SHAPE;
    return TRIL_OK;
}

/* Whether the sequence's range of keys is one. */
static bool is_key_range(const tril_seq *seq)
{
    const int64_t end = tril_key_end(seq);
    return seq->key_begin >= 0 && seq->key_begin <= end && end <= seq->kv_len && seq->key_begin % TRIL_KEY_BLOCK == 0 &&
           (end % TRIL_KEY_BLOCK == 0 || end == seq->kv_len);
}

static bool has_key_range(const tril_attention *call)
{
    for (int64_t i = 0; i < call->n_seqs; i++) {
        if (call->seqs[i].key_begin != 0 || call->seqs[i].key_end != 0) return true;
    }
    return false;
}

/* The sequences' ranges, how many rows of q and of k and v they reach, and into how many blocks their keys fall. */
static tril_status check_seqs(const tril_attention *call, int64_t *query_tokens, int64_t *key_tokens, int64_t *blocks)
{
    const bool panels = call->k.layout == TRIL_PANELS;
    int64_t next = 0;
    *query_tokens = *key_tokens = *blocks = 0;
    if (call->n_seqs > 0 && call->seqs == NULL) return TRIL_ERR_NULL;
    for (int64_t i = 0; i < call->n_seqs; i++) {
        const tril_seq *seq = &call->seqs[i];
        if (seq->q_first < 0 || seq->q_len < 0 || seq->kv_len < 0 || seq->kv_first < 0) return TRIL_ERR_SHAPE;
        if (seq->q_len > MAX_LENGTH || seq->kv_len > MAX_LENGTH) return TRIL_ERR_SHAPE;
        if (!is_key_range(seq)) return TRIL_ERR_SHAPE;
        if (seq->prefix < 0 || seq->prefix > seq->kv_len) return TRIL_ERR_SHAPE;
        if (call->tree != NULL && seq->q_len > seq->kv_len) return TRIL_ERR_SHAPE;
        if (panels && seq->kv_first % TRIL_PANEL != 0) return TRIL_ERR_SHAPE;
        if (call->block_tokens > 0 ? seq->kv_first != 0 : seq->blocks != NULL) return TRIL_ERR_SHAPE;
        if (seq->q_first > MAX_FIRST || seq->kv_first > MAX_FIRST) return TRIL_ERR_OVERFLOW;
        if (seq->q_len == 0) continue;
        if (seq->q_first < next) return TRIL_ERR_SHAPE;
        next = seq->q_first + seq->q_len;
        *query_tokens = next;
        const int64_t keys = tril_key_end(seq) - seq->key_begin;
        if (keys > 0 && seq->kv_first + keys > *key_tokens) *key_tokens = seq->kv_first + keys;
        if (tril_seq_blocks(seq) > *blocks) *blocks = tril_seq_blocks(seq);
    }
    return TRIL_OK;
}

/* The blocks of a paged tensor, of which the region checked last is one, and of whose rows one head's take `one_head`
 * bytes: one behind the other, or, where heads come first, the blocks of one head. */
static tril_status repeat_blocks(struct tril_checked *checked, int64_t blocks, int64_t block_stride, int64_t one_head,
                                 int64_t head_stride, int64_t bytes)
{
    struct tril_region *region = &checked->regions[checked->n_regions - 1];
    int64_t end, head_end;
    TRY(mul_add(blocks - 1, block_stride, (int64_t)region->bytes, &end));
    TRY(mul_add(blocks - 1, block_stride, one_head, &head_end));
    const bool by_block = block_stride >= (int64_t)region->bytes;
    const bool by_head = block_stride >= one_head && head_stride >= head_end;
    if (blocks > 1 && !by_block && !by_head) return TRIL_ERR_STRIDE;
    if (passes_the_end(region->begin, end)) return TRIL_ERR_OVERFLOW;
    if (end > bytes) return TRIL_ERR_EXTENT;
    region->bytes = (uint64_t)end;
    region->period = 0; /* what lies between counts as read */
    return TRIL_OK;
}

/* Where the tokens of a tensor lie, and how large they are. */
struct tokens {
    int64_t n;      /* tokens, of each block if there are pages */
    int64_t blocks; /* 0: no pages */
    int64_t heads, dim;
    bool may_repeat, written;
};

/* In panels 16 tokens stand for one row of theirs. */
static tril_status check_elements(const tril_tensor *x, const struct tokens *t, struct tril_checked *checked)
{
    const int64_t together = x->layout == TRIL_PANELS ? TRIL_PANEL : 1, unit = tril_unit_bytes(x->dtype);
    const int64_t width = tril_row_bytes(x->dtype, t->dim) * together, groups = (t->n + together - 1) / together;
    const int before = checked->n_regions;
    int64_t stride, one_head;
    if (x->token_stride < 0 || x->block_stride < 0) return TRIL_ERR_STRIDE;
    if (x->token_stride % unit != 0 || x->block_stride % unit != 0) return TRIL_ERR_ALIGN;
    TRY(mul_add(x->token_stride, together, 0, &stride));
    const struct rows rows = {x->data,        x->bytes, groups, stride,        t->heads,
                              x->head_stride, width,    unit,   t->may_repeat, t->written};
    TRY(check_rows(&rows, checked));
    if (t->blocks == 0 || checked->n_regions == before) return TRIL_OK;
    TRY(mul_add(groups - 1, stride, width, &one_head));
    return repeat_blocks(checked, t->blocks, x->block_stride, one_head, x->head_stride, x->bytes);
}

/* Tokens, heads and blocks may share a scale where it is only read. */
static tril_status check_scales(const tril_tensor *x, const struct tokens *t, struct tril_checked *checked)
{
    const int64_t element = (int64_t)sizeof(float);
    const int before = checked->n_regions;
    int64_t end;
    if (x->dtype != TRIL_I8) return TRIL_OK;
    if (x->scale_block_stride < 0) return TRIL_ERR_STRIDE;
    if (x->scale_block_stride % element != 0) return TRIL_ERR_ALIGN;
    const struct rows rows = {
        x->scales, x->scales_bytes, t->n,      x->scale_token_stride, t->heads, x->scale_head_stride, element,
        element,   !t->written,     t->written};
    TRY(check_rows(&rows, checked));
    if (t->blocks == 0 || checked->n_regions == before) return TRIL_OK;
    struct tril_region *region = &checked->regions[checked->n_regions - 1];
    TRY(mul_add(t->blocks - 1, x->scale_block_stride, (int64_t)region->bytes, &end));
    if (passes_the_end(region->begin, end)) return TRIL_ERR_OVERFLOW;
    if (end > x->scales_bytes) return TRIL_ERR_EXTENT;
    region->bytes = (uint64_t)end;
    region->period = 0;
    return TRIL_OK;
}

static tril_status check_tensor(const tril_tensor *x, const struct tokens *t, struct tril_checked *checked)
{
    TRY(check_elements(x, t, checked));
    return check_scales(x, t, checked);
}

/* K or V, of which key_tokens are reached; in pages, every token of every block. */
static tril_status check_cache(const tril_attention *call, const tril_tensor *x, int64_t key_tokens, int64_t dim,
                               struct tril_checked *checked)
{
    struct tokens t = {key_tokens, 0, call->kv_heads, dim, true, false};
    if (call->block_tokens > 0 && key_tokens > 0) {
        if (call->n_blocks == 0) return TRIL_ERR_BLOCK_TABLE; /* no entry can be below it */
        t.n = call->block_tokens;
        t.blocks = call->n_blocks;
    }
    return check_tensor(x, &t, checked);
}

static tril_status check_out(const tril_out *x, int64_t tokens, int64_t heads, int64_t dim, int64_t parts,
                             int64_t part_stride, struct tril_checked *checked)
{
    const struct rows rows = {x->data,
                              x->bytes,
                              tokens,
                              x->token_stride,
                              heads,
                              x->head_stride,
                              tril_row_bytes(x->dtype, dim),
                              tril_unit_bytes(x->dtype),
                              false,
                              true};
    const int before = checked->n_regions;
    TRY(check_rows(&rows, checked));
    return parts > 1 && checked->n_regions > before ? repeat(checked, parts, part_stride, x->bytes) : TRIL_OK;
}

static tril_status check_statistics(const float *p, int64_t parts, const struct tril_checked *so_far,
                                    struct tril_checked *checked)
{
    const tril_attention *call = &so_far->call;
    if (p == NULL) return (call->flags & TRIL_BLOCKWISE) != 0 && so_far->query_tokens > 0 ? TRIL_ERR_NULL : TRIL_OK;
    const int64_t row = call->q_heads * (int64_t)sizeof(float);
    int64_t bytes, stride;
    TRY(mul_add(so_far->query_tokens, row, 0, &bytes));
    const struct rows rows = {p, bytes, so_far->query_tokens, row, 1, 0, row, (int64_t)sizeof(float), false, true};
    TRY(check_rows(&rows, checked));
    if (parts <= 1 || so_far->query_tokens == 0) return TRIL_OK;
    TRY(mul_add(call->statistics_part_stride, (int64_t)sizeof(float), 0, &stride));
    return repeat(checked, parts, stride, INT64_MAX);
}

static tril_status check_weights(const struct tril_checked *so_far, struct tril_checked *checked)
{
    const tril_attention *call = &so_far->call;
    const tril_weights_out *to = &so_far->weights;
    const int64_t element = tril_unit_bytes(to->dtype);
    struct rows rows = {to->data, to->bytes, 0, 0, call->q_heads, to->head_stride, 0, element, false, true};

    if (to->form == TRIL_WEIGHTS_PACKED) {
        int64_t elements = 0;
        for (int64_t i = 0; i < call->n_seqs; i++)
            TRY(mul_add(1, tril_packed_offset(call, &call->seqs[i], call->seqs[i].q_len), elements, &elements));
        TRY(mul_add(elements, element, 0, &rows.width));
        rows.tokens = 1;
        if (to->row_stride != 0) return TRIL_ERR_STRIDE;
        return check_rows(&rows, checked);
    }
    int64_t longest = 0, last = 0;
    for (int64_t i = 0; i < call->n_seqs; i++) {
        if (call->seqs[i].q_len == 0) continue;
        if (call->seqs[i].kv_len > longest) longest = call->seqs[i].kv_len;
        last = i;
    }
    rows.tokens = to->form == TRIL_WEIGHTS_DENSE ? so_far->query_tokens : last + 1;
    rows.token_stride = to->row_stride;
    rows.width = longest * element;
    return check_rows(&rows, checked);
}

/* Numbers that each query head has one of. */
static tril_status check_head_numbers(const float *p, bool may_be_minus_inf, struct tril_checked *checked)
{
    const int32_t heads = checked->call.q_heads;
    if (p == NULL) return TRIL_OK;
    if ((uintptr_t)p % sizeof(float) != 0) return TRIL_ERR_ALIGN;
    for (int32_t i = 0; i < heads; i++) {
        if (!finite_f32(tril_log2(p[i])) && !(may_be_minus_inf && p[i] == -__builtin_inff())) return TRIL_ERR_PARAM;
    }
    checked->regions[checked->n_regions++] =
        (struct tril_region){.begin = (uintptr_t)p, .bytes = (uint64_t)heads * sizeof(float), .written = false};
    return TRIL_OK;
}

static tril_status check_tree(struct tril_checked *checked)
{
    const tril_attention *call = &checked->call;
    int64_t longest = 0;
    if (call->tree == NULL) return TRIL_OK;
    for (int64_t i = 0; i < call->n_seqs; i++) {
        if (call->seqs[i].q_len > longest) longest = call->seqs[i].q_len;
    }
    const int64_t word = (int64_t)sizeof(uint64_t);
    const struct rows rows = {call->tree,
                              call->tree_bytes,
                              checked->query_tokens,
                              call->tree_row_stride,
                              1,
                              0,
                              (longest + 63) / 64 * word,
                              word,
                              false,
                              false};
    return check_rows(&rows, checked);
}

static bool same_memory(const tril_attention *call)
{
    return call->q.data == call->out.data && call->q.token_stride == call->out.token_stride &&
           call->q.head_stride == call->out.head_stride && call->q.dtype == call->out.dtype &&
           call->qk_dim == call->v_dim;
}

/* Where a sequence's block table is read. */
static struct tril_region table_of(const tril_attention *call, const tril_seq *seq)
{
    const int64_t pages = tril_pages(call, seq);
    if (pages == 0) return (struct tril_region){.bytes = 0};
    return (struct tril_region){.begin = (uintptr_t)(seq->blocks + tril_first_page(call, seq)),
                                .bytes = (uint64_t)pages * sizeof(int32_t)};
}

/* Whether any sequence's block table lies in what is written to. */
static bool table_overlaps(const tril_attention *call, const struct tril_region *written)
{
    for (int64_t i = 0; i < call->n_seqs && call->block_tokens > 0; i++) {
        const struct tril_region table = table_of(call, &call->seqs[i]);
        if (table.bytes > 0 && overlap(&table, written)) return true;
    }
    return false;
}

/* Every written region against every other. The first one is q's. */
static tril_status check_aliases(const struct tril_checked *checked)
{
    const tril_attention *call = &checked->call;
    for (int i = 0; i < checked->n_regions; i++) {
        const struct tril_region *to = &checked->regions[i];
        if (!to->written) continue;
        if (table_overlaps(call, to)) return TRIL_ERR_ALIAS;
        for (int j = 0; j < checked->n_regions; j++) {
            const struct tril_region *other = &checked->regions[j];
            if (j == i || !overlap(to, other)) continue;
            const bool q_and_out = j == 0 && (call->flags & TRIL_BLOCKWISE) == 0 &&
                                   to->begin == (uintptr_t)call->out.data && other->bytes == to->bytes;
            if (!(q_and_out && same_memory(call))) return TRIL_ERR_ALIAS;
        }
    }
    return TRIL_OK;
}

/* The block tables themselves; what they hold is for tril_check_pages(). */
static tril_status check_tables(const tril_attention *call)
{
    for (int64_t i = 0; i < call->n_seqs && call->block_tokens > 0; i++) {
        const tril_seq *seq = &call->seqs[i];
        if (tril_pages(call, seq) == 0) continue;
        if (seq->blocks == NULL) return TRIL_ERR_NULL;
        if ((uintptr_t)seq->blocks % sizeof(int32_t) != 0) return TRIL_ERR_ALIGN;
    }
    return TRIL_OK;
}

tril_status tril_check_call(const tril_attention *call, enum tril_operation operation, const tril_weights_out *to,
                            struct tril_checked *checked)
{
    int64_t key_tokens, blocks;
    checked->n_regions = 0; /* the rest is filled in; zeroing it first would show in a call with nothing to do */
    if (call == NULL) return TRIL_ERR_NULL;
    TRY(take_struct(&checked->call, sizeof(*call), call, call->struct_size));
    const tril_attention *c = &checked->call;
    if ((c->flags & ~(TRIL_UNNORMALISED | TRIL_BLOCKWISE)) != 0 || c->flags == TRIL_BLOCKWISE) return TRIL_ERR_STRUCT;
    const bool blockwise = (c->flags & TRIL_BLOCKWISE) != 0;
    if (operation == TRIL_WEIGHING) {
        if (to == NULL) return TRIL_ERR_NULL;
        TRY(take_struct(&checked->weights, sizeof(*to), to, to->struct_size));
        if ((unsigned)to->form >= TRIL_WEIGHTS_FORM_COUNT || (unsigned)to->dtype > TRIL_BF16) return TRIL_ERR_DTYPE;
        if (to->form == TRIL_WEIGHTS_COLUMN_SUMS && to->dtype != TRIL_F32) return TRIL_ERR_DTYPE;
        if (to->form != TRIL_WEIGHTS_COLUMN_SUMS && to->last_rows != 0) return TRIL_ERR_STRUCT;
        if (to->last_rows < 0) return TRIL_ERR_SHAPE;
        checked->call.v_dim = 0;
    }
    /* Sizing without values is for weights alone. */
    if (operation == TRIL_SIZING && c->v_dim == 0) operation = TRIL_SIZING_WEIGHTS;
    TRY(check_enums(c, operation));
    TRY(check_shape(c, operation));
    TRY(check_numbers(c));
    TRY(check_seqs(c, &checked->query_tokens, &key_tokens, &blocks));
    if (c->team_call < 0 || c->team_call > MAX_CALL) return TRIL_ERR_SHAPE;
    if (c->out_part_stride < 0 || c->statistics_part_stride < 0) return TRIL_ERR_STRIDE;
    if (!blockwise && (c->out_part_stride != 0 || c->statistics_part_stride != 0)) return TRIL_ERR_STRIDE;
    if (c->out_part_stride % (int64_t)sizeof(float) != 0) return TRIL_ERR_ALIGN;
    TRY(check_all_unused(c, operation));
    if (c->tree == NULL && (c->tree_row_stride != 0 || c->tree_bytes != 0)) return TRIL_ERR_STRUCT;
    if (operation == TRIL_WEIGHING && (c->flags != 0 || has_key_range(c))) return TRIL_ERR_UNSUPPORTED;
    if (operation == TRIL_SIZING || operation == TRIL_SIZING_WEIGHTS) return TRIL_OK;
    if (checked->query_tokens == 0) return TRIL_OK; /* no tensor is touched */

    const int64_t parts = blockwise ? blocks : 1;
    const struct tokens queries = {checked->query_tokens, 0, c->q_heads, c->qk_dim, false, false};
    TRY(check_tensor(&c->q, &queries, checked));
    TRY(check_tables(c));
    TRY(check_cache(c, &c->k, key_tokens, c->qk_dim, checked));
    if (operation == TRIL_ATTENDING) {
        TRY(check_cache(c, &c->v, key_tokens, c->v_dim, checked));
        TRY(check_out(&c->out, checked->query_tokens, c->q_heads, c->v_dim, parts, c->out_part_stride, checked));
    } else {
        TRY(check_weights(checked, checked));
    }
    TRY(check_head_numbers(c->sink_logits, true, checked));
    TRY(check_head_numbers(c->alibi_slopes, false, checked));
    TRY(check_tree(checked));
    TRY(check_statistics(c->row_max, parts, checked, checked));
    TRY(check_statistics(c->row_sum, parts, checked, checked));
    checked->regions[checked->n_regions++] = (struct tril_region){
        .begin = (uintptr_t)c->seqs, .bytes = (uint64_t)c->n_seqs * sizeof(tril_seq), .written = false};
    return check_aliases(checked);
}

tril_status tril_check_team(int thread, int threads)
{
    return threads < 1 || threads > TRIL_MAX_THREADS || thread < 0 || thread >= threads ? TRIL_ERR_SHAPE : TRIL_OK;
}

/* One side of a conversion: the elements, and of I8 the scale. */
static tril_status check_stored_row(const void *data, tril_dtype type, const float *scale, int64_t n)
{
    const bool scaled = type == TRIL_I8;
    if ((n > 0 && data == NULL) || (scaled && scale == NULL)) return TRIL_ERR_NULL;
    if ((uintptr_t)data % (uintptr_t)tril_unit_bytes(type) != 0 || (scaled && (uintptr_t)scale % sizeof(float) != 0))
        return TRIL_ERR_ALIGN;
    return TRIL_OK;
}

tril_status tril_check_convert(const void *to, tril_dtype to_dtype, const float *to_scale, const void *from,
                               tril_dtype from_dtype, const float *from_scale, int64_t n)
{
    if ((unsigned)to_dtype >= TRIL_DTYPE_COUNT || (unsigned)from_dtype >= TRIL_DTYPE_COUNT ||
        (to_dtype != TRIL_F32 && from_dtype != TRIL_F32))
        return TRIL_ERR_DTYPE;
    const tril_dtype stored = to_dtype == TRIL_F32 ? from_dtype : to_dtype;
    const bool in_blocks = stored == TRIL_Q8_0 || stored == TRIL_Q4_0;
    if (n < 0 || n > MAX_LENGTH || (in_blocks && n % TRIL_Q_BLOCK != 0)) return TRIL_ERR_SHAPE;
    TRY(check_stored_row(to, to_dtype, to_scale, n));
    return check_stored_row(from, from_dtype, from_scale, n);
}

tril_status tril_check_workspace(const struct tril_checked *checked, const void *workspace, size_t bytes, size_t needed)
{
    if (workspace == NULL || bytes < needed) return TRIL_ERR_WORKSPACE;
    if ((uintptr_t)workspace > UINTPTR_MAX - bytes) return TRIL_ERR_OVERFLOW;
    const struct tril_region region = {.begin = (uintptr_t)workspace, .bytes = needed, .written = true};
    for (int i = 0; i < checked->n_regions; i++) {
        if (overlap(&region, &checked->regions[i])) return TRIL_ERR_ALIAS;
    }
    return table_overlaps(&checked->call, &region) ? TRIL_ERR_ALIAS : TRIL_OK;
}

tril_status tril_check_pages(const tril_attention *call, int32_t *to)
{
    for (int64_t i = 0; i < call->n_seqs && call->block_tokens > 0; i++) {
        const tril_seq *seq = &call->seqs[i];
        const int64_t pages = tril_pages(call, seq);
        if (pages == 0) continue;
        const volatile int32_t *from = seq->blocks + tril_first_page(call, seq); /* each is read once */
        for (int64_t page = 0; page < pages; page++) {
            *to = 0; /* a page that no query sees */
            if (!tril_page_is_seen(call, seq, page + tril_first_page(call, seq))) {
                to++;
                continue;
            }
            const int32_t block = from[page];
            if (block < 0 || block >= call->n_blocks) return TRIL_ERR_BLOCK_TABLE;
            *to++ = block;
        }
    }
    if (call->block_tokens > 0) *to = 0;
    return TRIL_OK;
}

tril_status tril_check_merge(const tril_partial *parts, int64_t n, int64_t rows, int64_t dim, uint32_t flags,
                             const float *out, int64_t out_row_stride, const float *row_max, const float *row_sum)
{
    struct tril_checked none = {.n_regions = 0};
    if ((flags & ~TRIL_UNNORMALISED) != 0) return TRIL_ERR_STRUCT;
    if (n < 1 || rows < 0 || dim < 1 || dim > TRIL_MAX_HEAD_DIM) return TRIL_ERR_SHAPE;
    if (parts == NULL) return TRIL_ERR_NULL;
    const int64_t width = dim * (int64_t)sizeof(float), element = (int64_t)sizeof(float);
    const struct rows result = {out, INT64_MAX, rows, out_row_stride, 1, 0, width, element, false, true};
    TRY(check_rows(&result, &none));
    if ((uintptr_t)row_max % sizeof(float) != 0 || (uintptr_t)row_sum % sizeof(float) != 0) return TRIL_ERR_ALIGN;
    for (int64_t i = 0; i < n; i++) {
        const tril_partial *part = &parts[i];
        const struct rows partial = {part->out, INT64_MAX, rows, part->row_stride, 1, 0, width, element, false, false};
        none.n_regions = 0;
        TRY(check_rows(&partial, &none));
        if (rows > 0 && (part->row_max == NULL || part->row_sum == NULL)) return TRIL_ERR_NULL;
        if ((uintptr_t)part->row_max % sizeof(float) != 0 || (uintptr_t)part->row_sum % sizeof(float) != 0)
            return TRIL_ERR_ALIGN;
    }
    return TRIL_OK;
}

/* Whether an I8 cache has a scale behind each of its rows, before the next token's and the next head's: neither is then
 * in the other's way, though their extents overlap.
 */
static bool scales_between_rows(const tril_tensor *x, int64_t tokens, int64_t heads, int64_t dim)
{
    const uint64_t shift = (uintptr_t)x->scales - (uintptr_t)x->data; /* huge where scales lie before */
    const uint64_t end = shift + sizeof(float);
    return x->dtype == TRIL_I8 && x->layout == TRIL_ROWS && x->scale_token_stride == x->token_stride &&
           x->scale_head_stride == x->head_stride && shift >= (uint64_t)dim &&
           (tokens == 1 || end <= (uint64_t)x->token_stride) && (heads == 1 || end <= (uint64_t)x->head_stride);
}

tril_status tril_check_append(const tril_tensor *cache, int64_t at, const tril_tensor *from, int64_t from_token,
                              int64_t tokens, int32_t kv_heads, int32_t dim)
{
    struct tril_checked checked = {.n_regions = 0};
    if (cache == NULL || from == NULL) return TRIL_ERR_NULL;
    if ((unsigned)cache->dtype >= TRIL_DTYPE_COUNT || (unsigned)cache->layout >= TRIL_LAYOUT_COUNT ||
        from->dtype != TRIL_F32 || from->layout != TRIL_ROWS)
        return TRIL_ERR_DTYPE;
    if (in_blocks(cache->dtype) && cache->layout == TRIL_PANELS) return TRIL_ERR_DTYPE;
    if (at < 0 || from_token < 0 || tokens < 0 || tokens > MAX_LENGTH) return TRIL_ERR_SHAPE;
    if (kv_heads < 1 || kv_heads > MAX_HEADS || dim < 1 || dim > TRIL_MAX_HEAD_DIM) return TRIL_ERR_SHAPE;
    if (in_blocks(cache->dtype) && dim % TRIL_Q_BLOCK != 0) return TRIL_ERR_SHAPE;
    if (at > MAX_FIRST || from_token > MAX_FIRST) return TRIL_ERR_OVERFLOW;
    TRY(check_unused(from, false));
    TRY(check_unused(cache, false));
    const struct tokens source = {tokens == 0 ? 0 : from_token + tokens, 0, kv_heads, dim, true, false};
    const struct tokens result = {tokens == 0 ? 0 : at + tokens, 0, kv_heads, dim, false, true};
    TRY(check_elements(from, &source, &checked));
    const int first_written = checked.n_regions;
    TRY(check_tensor(cache, &result, &checked));
    for (int i = first_written; i < checked.n_regions; i++) {
        for (int j = 0; j < i; j++) {
            if (j >= first_written && scales_between_rows(cache, result.n, kv_heads, dim)) continue;
            if (overlap(&checked.regions[i], &checked.regions[j])) return TRIL_ERR_ALIAS;
        }
    }
    return TRIL_OK;
}
