/* tril.h - causal attention on a CPU: the lower triangle, and nothing else.
 * SPDX-License-Identifier: MIT
 *
 *     A = softmax(scale * Q K^T + mask)      tril_weights()
 *     O = A V                                tril_attend()
 *
 * A is the lower-triangular weight matrix: its row i is the probability distribution of token i over itself and the
 * tokens before it, and zero above the diagonal. The library asks nothing of its host: it starts no thread, allocates
 * nothing, prints nothing, never aborts and changes no floating-point control state (rounding, traps, flush-to-zero).
 *
 * One answer. In either math mode the bits of a result row depend on its query, its visible keys and values and
 * the scale alone: not on the instruction set, the number of threads, the batch, the chunking of the prompt, strides or
 * alignment. (Outside this promise: the payload of a NaN, a rounding mode other than to nearest, and subnormal values
 * when the caller has switched on flush-to-zero.) docs/contract.md gives the order of every operation.
 *
 * Conventions. A size is in elements unless its name or comment says bytes; strides and extents are in bytes. Every
 * function may be called from any number of threads at once, as long as two calls do not share a workspace or an
 * output; tril_force_isa() is the one exception. Every error is found before the first byte of a result is written.
 *
 * A zeroed field never asks for anything.
 */
#ifndef TRIL_H
#define TRIL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRIL_VERSION_MAJOR 0
#define TRIL_VERSION_MINOR 1
#define TRIL_VERSION_PATCH 0
#define TRIL_VERSION       ((TRIL_VERSION_MAJOR << 16) | (TRIL_VERSION_MINOR << 8) | TRIL_VERSION_PATCH)

#if defined(_WIN32) && defined(TRIL_SHARED)
#ifdef TRIL_BUILD
#define TRIL_API __declspec(dllexport)
#else
#define TRIL_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define TRIL_API __attribute__((visibility("default")))
#else
#define TRIL_API
#endif

/* Keys are folded in blocks of this many absolute positions: 0 ... 255, 256 ... 511, and so on. Where one sequence is
 * split (tril_merge), the cuts are multiples of it. */
#define TRIL_KEY_BLOCK 256

/* The largest qk_dim and v_dim. The smallest is 1; every size between is legal. */
#define TRIL_MAX_HEAD_DIM 1024

/* What a call can answer. TRIL_OK is 0, every error is positive and means that nothing was written. */
typedef enum tril_status {
    TRIL_OK = 0,
    TRIL_ERR_NULL,     /* a pointer is null where its extent is not 0 */
    TRIL_ERR_STRUCT,   /* struct_size is not that of a known version, or an unknown flag or reserved field is set */
    TRIL_ERR_SHAPE,    /* a head count, head size, length, row or thread number out of its range */
    TRIL_ERR_OVERFLOW, /* a product of sizes and strides does not fit in 63 bits */
    TRIL_ERR_STRIDE,   /* a stride is negative, or makes two elements share memory */
    TRIL_ERR_EXTENT,   /* a tensor's extent in bytes ends before its last element */
    TRIL_ERR_ALIGN,    /* a pointer or stride is not a multiple of the element's size */
    TRIL_ERR_ALIAS,    /* an output overlaps an input, another output or the workspace */
    TRIL_ERR_DTYPE,    /* not a dtype, layout, math mode or form of this version, or not one allowed for this operand */
    TRIL_ERR_PARAM,    /* scale, softcap or another number is NaN, infinite or out of its range */
    TRIL_ERR_WORKSPACE,   /* the workspace is null or smaller than tril_workspace() says, or a team's was not zeroed */
    TRIL_ERR_BLOCK_TABLE, /* a block number is negative or not below the number of blocks */
    TRIL_ERR_UNSUPPORTED, /* legal, but not built yet, or not possible on this machine */
    TRIL_STATUS_COUNT     /* how many codes there are; never returned */
} tril_status;

/* How one element is stored. Q and the output of tril_attend*(): F32, F16 or BF16; K and V: any, each its own. What is
 * stored becomes f32 without rounding, but for I8, where the product scale * value is rounded once; from there on a
 * result does not depend on how its operands are stored. */
typedef enum tril_dtype {
    TRIL_F32 = 0, /* IEEE binary32, 4 bytes */
    TRIL_F16,     /* IEEE binary16, 2 bytes */
    TRIL_BF16,    /* the upper half of a binary32, 2 bytes */
    TRIL_I8,      /* a signed byte, times one f32 scale per token and head: see tril_tensor.scales */
    TRIL_Q8_0,    /* 34-byte blocks of 32 values along the head, as GGUF files keep them: an f16 scale, 32 signed bytes.
                   * The head size is a multiple of 32. */
    TRIL_Q4_0,    /* 18-byte blocks of 32 values, likewise: an f16 scale, 16 bytes; byte i holds value i in its lower
                   * and value i + 16 in its upper half, each plus 8 */
    TRIL_DTYPE_COUNT
} tril_dtype;

/* How the elements of one token and head lie. */
typedef enum tril_layout {
    TRIL_ROWS = 0, /* the head's elements are contiguous: [token][head][dim], with the strides of tril_tensor */
    TRIL_PANELS,   /* K of F32, F16, BF16 or I8: per head [token/16][dim][16], so that 16 keys lie side by side for each
                    * dim; the scales of I8 lie as with ROWS */
    TRIL_LAYOUT_COUNT
} tril_layout;

/* In a K cache of TRIL_PANELS 16 tokens, a panel, take the place of 16 rows: element (token t, head h, dim i) lies at
 * data + t / 16 * 16 * token_stride + h * head_stride + (i * 16 + t % 16) * size_of_element. Sequences begin at a
 * multiple of 16 (kv_first), and the extent covers the last panel to its end; what stands there for tokens past kv_len
 * is read and has no influence on any result. tril_append() fills such a cache. Attention reads it as it is, where
 * rows have to be transposed first.
 *
 * Pages. With block_tokens above 0 a sequence's keys and values lie in blocks of so many tokens, a multiple of 16,
 * which its table names: the key at position p lies in block blocks[p / block_tokens], and there where token p %
 * block_tokens would lie without pages, counted from data + blocks[p / block_tokens] * block_stride (scales likewise).
 * K and V have the same tables; each has its own block_stride. The extents cover all of n_blocks blocks. */

/* What is multiplied. The caller chooses; the library never does so by itself. */
typedef enum tril_math {
    TRIL_MATH_F32 = 0, /* everything in f32, exact to the contract */
    TRIL_MATH_BF16,    /* q, k, v and the weights rounded to bf16, in pairs, sums in f32: the bits of vdpbf16ps, which
                        * the tier avx512bf16 uses. Other tiers emulate it, slower than F32. Few rows are not read as
                        * fast as in F32: it is for prompts. */
    TRIL_MATH_COUNT
} tril_math;

/* One operand where the host keeps it. Element (token t, head h, dim i) of a ROWS tensor lies at
 * data + t * token_stride + h * head_stride + i * size_of_element; the block of 32 elements that holds it, for Q8_0 and
 * Q4_0, at data + t * token_stride + h * head_stride + i / 32 * size_of_block. data and strides are multiples of the
 * element's size, of 2 bytes for Q8_0 and Q4_0. */
typedef struct tril_tensor {
    const void *data; /* element (token 0, head 0, dim 0); null is fine where the call needs no element */
    int64_t bytes;    /* extent: nothing at or past data + bytes is touched */
    /* Bytes from a token and from a head to the next. Where there is a next one: at least one head's row, with
     * TRIL_PANELS from a head to the next 16 of them; or, K and V only, 0. */
    int64_t token_stride;
    int64_t head_stride;
    tril_dtype dtype;
    tril_layout layout;
    int64_t block_stride; /* paged K/V: bytes from a block of tokens to the next, at least one block's tokens; else 0 */
    /* TRIL_I8, else all 0. The scale of (token t, head h) lies at scales + t * scale_token_stride + h *
     * scale_head_stride, which are in bytes, multiples of 4; either may be 0, so that tokens or heads share a scale. */
    const float *scales;
    int64_t scales_bytes;                          /* extent, as above */
    int64_t scale_token_stride, scale_head_stride; /* bytes */
    int64_t scale_block_stride;                    /* paged: bytes from a block to the next, any; else 0 */
} tril_tensor;

/* Where a result goes. Elements lie as in a ROWS tensor. */
typedef struct tril_out {
    void *data;
    int64_t bytes;        /* extent; nothing at or past data + bytes is touched, nor any padding between rows */
    int64_t token_stride; /* bytes */
    int64_t head_stride;  /* bytes */
    tril_dtype dtype;
    uint32_t reserved; /* 0 */
} tril_out;

/* One sequence of the batch. Its query i (0 <= i < q_len) stands at position kv_len - q_len + i and sees the keys
 * 0 ... that position, its own included: the alignment of a prompt (kv_len == q_len), of a chunk at the end of a cache,
 * and of a single new token (q_len == 1) alike. A query before position 0 (kv_len < q_len) sees no key; its result
 * is 0. */
typedef struct tril_seq {
    int64_t q_first;  /* its first row in q, out and the row statistics, 0 ... 2^47 (OVERFLOW above) */
    int64_t q_len;    /* queries, 0 ... 2^31 - 1; 0 is nothing to do */
    int64_t kv_len;   /* keys, 0 ... 2^31 - 1, the new ones included; 0 gives zeros */
    int64_t kv_first; /* the token of k and v that holds its first key, 0 ... 2^47; a multiple of 16 with TRIL_PANELS,
                       * 0 with pages */
    /* Of its keys only key_begin ... key_end - 1 take part, and k and v hold only these, from token kv_first on:
     * key_begin a multiple of TRIL_KEY_BLOCK, key_end too or kv_len, 0 <= key_begin <= key_end <= kv_len; a key_end of
     * 0 stands for kv_len. Both 0: all. For tril_attend*() only (else UNSUPPORTED); see tril_merge(). */
    int64_t key_begin;
    int64_t key_end;
    /* Paged K/V, else null: where its keys lie, see TRIL_PANELS. The entries of those of positions key_begin
     * ... key_end - 1 that any query sees are read, once in a call; each is a block number, 0 ... n_blocks - 1
     * (BLOCK_TABLE). kv_first is then 0. */
    const int32_t *blocks;
    int64_t prefix; /* its first positions that see each other both ways, 0 ... kv_len; see "Who sees whom" */
} tril_seq;

/* Who sees whom. A query at position p = kv_len - q_len + i sees the key at position j if any of these holds:
 *
 *   j <= p, and the window and the tree allow it     the causal rule
 *   0 <= p < prefix and j < prefix                   both in the sequence's prefix, whatever window and tree say
 *
 * The window allows j if window is 0, or j > p - window, or j < sink_tokens: with a window of W a query sees W
 * positions at the most, p - W + 1 ... p, its own included, and the first sink_tokens ones beside them. The tree, where
 * there is one, decides about the sequence's last q_len tokens instead of j <= p, earlier ones too: query i sees token
 * kv_len - q_len + t if bit t of its row is set, its own token among them. What none of a sequence's queries sees is
 * not read, by panels of 16 positions, 16 n ... 16 n + 15, nor are the entries of a block table for pages of which they
 * see nothing: a host may free the pages that have left every window. */

/* Flags of a call, for tril_merge(). out is then TRIL_F32 (DTYPE); tril_weights*() takes neither (UNSUPPORTED). */
#define TRIL_UNNORMALISED 1u /* out holds O before the division by row_sum */
#define TRIL_BLOCKWISE    2u /* with the other: a result of its own for every block of keys, see out_part_stride */

/* One call. Zero it, set struct_size, then the fields that are wanted. */
typedef struct tril_attention {
    size_t struct_size; /* sizeof(tril_attention); later versions append fields, older callers stay valid */
    uint32_t flags;     /* TRIL_UNNORMALISED, also with TRIL_BLOCKWISE; or 0 */
    tril_math math;

    int32_t q_heads;  /* query heads, 1 ... 65536, a multiple of kv_heads */
    int32_t kv_heads; /* K/V heads, >= 1; query head h uses K/V head h / (q_heads / kv_heads) */
    int32_t qk_dim;   /* size of a query's and a key's head, 1 ... TRIL_MAX_HEAD_DIM */
    int32_t v_dim;    /* size of a value's and an output's head, likewise; tril_weights() ignores it, and
                       * tril_workspace() takes 0 for "weights alone" */

    tril_tensor q;  /* [token][q_heads][qk_dim] */
    tril_tensor k;  /* [token][kv_heads][qk_dim] */
    tril_tensor v;  /* [token][kv_heads][v_dim] */
    tril_out out;   /* [token][q_heads][v_dim]; may be exactly q's memory, any other overlap is refused */
    float *row_max; /* optional, [token][q_heads]: the largest visible t, see below; -inf where no key is visible. A
                     * learned sink counts as a key. */
    float *row_sum; /* optional, [token][q_heads]: the sum of 2^(t - row_max); 0 where no key is visible (-0 with
                     * TRIL_UNNORMALISED) or all visible scores are -inf, NaN for a row with a NaN or +inf score */

    const tril_seq *seqs; /* n_seqs of them, ascending in q_first, their query rows disjoint */
    int64_t n_seqs;       /* 0 ... 2^31 - 1; 0 is nothing to do */
    int64_t block_tokens; /* paged K/V: tokens in a block, a multiple of 16 up to 2^30; else 0 */
    int64_t n_blocks;     /* paged K/V: the blocks that the extents of k and v hold, 0 ... 2^31 - 1; else 0 */

    /* TRIL_BLOCKWISE, else 0. Part b of a sequence, the keys of its block key_begin / TRIL_KEY_BLOCK + b, has its O at
     * out.data + b * out_part_stride, and its row statistics (then not optional) at row_max and row_sum +
     * b * statistics_part_stride. Each part reaches as far as a whole result; out.bytes is the extent of all of them.
     * Parts that a sequence does not have, because it has fewer blocks than another or none, are left alone: who merges
     * as many for all rows sets their row_sum to -0 first. out may not be q. */
    int64_t out_part_stride;        /* bytes */
    int64_t statistics_part_stride; /* floats, at least q_heads times the largest q_first + q_len */

    /* tril_*_team(): which call this is: the same number on each of its threads, one that no earlier call had in this
     * workspace, 1 ... 2^62: say a counter. 0: the library counts by itself, which needs every thread 0 ... threads - 1
     * to come to every call, be it late (or some never to any). One workspace may see both kinds of calls. */
    int64_t team_call;

    float scale; /* of the scores; 0 means 1 / sqrt(qk_dim). scale * log2(e) must be finite in f32. */

    /* What else models ask for; all 0 for none of it. All of them combine. With x = scale * q.k a score is
     *     softcap * tanh(x / softcap) + alibi_slopes[head] * (j - p)
     * for key j and a query at position p, each part only where asked for. */
    float softcap;            /* > 0: see above; Gemma 2. softcap * log2(e) and scale / softcap must be finite. */
    int64_t window;           /* > 0: a query sees its last `window` positions, its own included; see "Who sees whom" */
    int64_t sink_tokens;      /* the first positions that stay visible behind a window; without one of no effect */
    const float *sink_logits; /* [q_heads], or null: e^(sink_logits[head]) joins the sum under each weight of the row,
                               * as of one more key with a value of 0; GPT-OSS. -inf, or finite times log2(e). With
                               * TRIL_UNNORMALISED it is left out: merge a last part with O 0, row_max logit * log2(e)
                               * and row_sum 1, or row_sum -0 for a logit of -inf. */
    const float *alibi_slopes; /* [q_heads], or null; finite times log2(e); BLOOM */
    const uint64_t *tree;      /* or null: row q_first + i, in words of 64 bits, the lowest first; bit t: query i sees
                                * token kv_len - q_len + t. Every sequence has q_len <= kv_len then. */
    int64_t tree_row_stride;   /* bytes from a row to the next, a multiple of 8, at least that of the longest q_len */
    int64_t tree_bytes;        /* extent; each row's words are those of the longest q_len */
} tril_attention;

/* In which shape tril_weights() gives A. With columns(i) = max(0, kv_len - q_len + i + 1), one past the last key that
 * the causal rule lets query i see; in a prefix it is the prefix, with a tree kv_len. A key among them that the query
 * does not see has the weight 0. */
typedef enum tril_weights_form {
    TRIL_WEIGHTS_DENSE = 0, /* row i has kv_len columns, zero from columns(i) on; rows at row_stride, query i of a
                             * sequence in row q_first + i */
    TRIL_WEIGHTS_PACKED, /* row i has columns(i) columns, and follows row i - 1 without a gap: for a whole prompt row i
                          * starts at element i (i + 1) / 2. Sequences follow each other without a gap. */
    TRIL_WEIGHTS_COLUMN_SUMS, /* one row for each sequence, in row s that of seqs[s]: per key the sum of its weights in
                               * the rows of the last `last_rows` queries, which are added one by one, in their order,
                               * as f32 from +0. A itself is not stored. A sequence without queries leaves its row
                               * alone, and the row statistics are those of the summed rows alone. A team shares the
                               * K/V heads of all sequences, not the rows of one. */
    TRIL_WEIGHTS_FORM_COUNT
} tril_weights_form;

/* Where the weights go: [q_heads] matrices, head_stride bytes apart. For one new token (q_len == 1) the first two forms
 * are the single row of kv_len weights. */
typedef struct tril_weights_out {
    size_t struct_size;  /* sizeof(tril_weights_out) */
    void *data;          /* element (head 0, row 0, column 0) */
    int64_t bytes;       /* extent, each row as long as the longest; nothing at or past data + bytes is touched, nor any
                          * padding between rows */
    int64_t head_stride; /* bytes from a query head's matrix to the next; rows of two heads must not overlap */
    int64_t row_stride;  /* bytes from a row to the next, at least the longest kv_len's elements; with PACKED 0 */
    int64_t last_rows;   /* COLUMN_SUMS: how many of each sequence's last queries; 0, or more than q_len: all. Else 0 */
    tril_weights_form form;
    tril_dtype dtype; /* DENSE and PACKED: TRIL_F32, TRIL_F16 or TRIL_BF16, each weight rounded once more; else F32 */
} tril_weights_out;

/* The row statistics. With s the score q.k of a visible key, c = (float)(scale * log2(e)) and t = s * c, both rounded
 * to f32 (docs/contract.md has t with a soft-cap or ALiBi), a weight is 2^(t - row_max) / row_sum; the natural
 * log-sum-exp of the row is ln 2 * (row_max + log2(row_sum)). The blockwise softmax follows Milakov and Gimelshein,
 * "Online normalizer calculation for softmax" (2018), and Dao et al., "FlashAttention" (2022), with base-2 exponentials
 * and each block's own maximum. */

/* The bytes of workspace that `threads` threads together need for this call by tril_attend*() or tril_weights*(). The
 * tensors' pointers and extents are not looked at and may still be null, and of the arrays only whether `tree` is; all
 * else of the call is checked as there. The size depends on the tier in use (ask again after tril_force_isa()). For one
 * thread it never shrinks when lengths or the batch grow. A team may need more for one long sequence, whose keys it
 * splits, than for a batch; so ask for each call, or take the largest answer. A team's size also serves tril_attend()
 * and tril_weights() of the same call. v_dim may be 0 where only weights are wanted; v and out are then ignored.
 * threads: 1 ... 256.
 * Errors: NULL (call, bytes or seqs), STRUCT, SHAPE, DTYPE, PARAM, OVERFLOW, STRIDE and ALIGN (of parts), UNSUPPORTED;
 * *bytes is then left alone. */
TRIL_API tril_status tril_workspace(const tril_attention *call, int threads, size_t *bytes);

/* O = softmax(scale * Q K^T + causal mask) V for every sequence of the call, on the calling thread alone, and the row
 * statistics where asked for. workspace: `bytes` bytes, of any content and alignment, not shared with a concurrent
 * call; null with 0 bytes is fine where there is nothing to do, and no tensor is looked at then. Returns TRIL_OK or any
 * error above. */
TRIL_API tril_status tril_attend(const tril_attention *call, void *workspace, size_t bytes);

/* A = softmax(scale * Q K^T + causal mask), in the form and place that `to` says. v, out and v_dim of the call are
 * ignored; row_max and row_sum are given where asked for. Otherwise as tril_attend(). A row with a NaN or +inf score is
 * NaN in its visible columns; a row whose visible scores are all -inf is 0. */
TRIL_API tril_status tril_weights(const tril_attention *call, const tril_weights_out *to, void *workspace,
                                  size_t bytes);

/* The same by a team of the host's threads, 1 ... 256 of them: each calls it with the same arguments and its own number
 * `thread`, 0 <= thread < threads, at the same time, one after the other, or not at all, as long as one comes. A thread
 * returns when it finds no work that nobody has begun. The result is complete when every thread that came has returned;
 * only then may the next call begin. It fits parallel_for(threads, f): no thread waits for another. Every thread gets
 * the same status.
 *
 * workspace: tril_workspace(call, threads) bytes, which the host zeroes once in its life; then it serves any number of
 * calls of any shape, one after the other, at the same address, tril_attend() and tril_weights() among them. One whose
 * first words are neither zero nor what such a call left there is refused with WORKSPACE by every thread of a team of
 * two or more. See team_call for hosts whose threads do not all come to every call.
 * Errors as above, and SHAPE for a thread or a number of threads out of range. */
TRIL_API tril_status tril_attend_team(const tril_attention *call, void *workspace, size_t bytes, int thread,
                                      int threads);
TRIL_API tril_status tril_weights_team(const tril_attention *call, const tril_weights_out *to, void *workspace,
                                       size_t bytes, int thread, int threads);

/* One partial result over a range of keys, as tril_attend*() gives it with TRIL_UNNORMALISED: */
typedef struct tril_partial {
    const float *out;     /* [rows][dim], row_stride bytes apart: before the division */
    const float *row_max; /* [rows]; -inf where the row sees none of the keys */
    const float *row_sum; /* [rows]; -0 where the row sees none of the keys: the part is left out of that row */
    int64_t row_stride;   /* bytes, a multiple of 4, at least 4 * dim */
} tril_partial;

/* Folds n partial results over disjoint ranges of keys, ascending, into one: what a host needs that spreads the keys of
 * a sequence over machines, NUMA nodes or calls. To the bits of one call over all keys if the first part begins at key
 * 0, each of the others is one block of TRIL_KEY_BLOCK keys (TRIL_BLOCKWISE), and none is missing; where a later part
 * covers several blocks, within the error bound of docs/contract.md.
 *
 * rows >= 0, n >= 1, 1 <= dim <= TRIL_MAX_HEAD_DIM. out: [rows][dim], out_row_stride bytes apart; it may be the first
 * part's out with the same stride, row_max and row_sum (each optional) the first part's; any other overlap is not
 * allowed and not looked for. flags: TRIL_UNNORMALISED to leave out the division, so that the result can be merged
 * again, as a first part; else 0. A first part without any key (row_max -inf, row_sum -0) is a beginning to fold onto.
 * Where a row sees no key at all, out is 0. Errors: NULL, STRUCT (a flag), SHAPE, STRIDE, ALIGN, OVERFLOW. */
TRIL_API tril_status tril_merge(const tril_partial *parts, int64_t n, int64_t rows, int64_t dim, uint32_t flags,
                                float *out, int64_t out_row_stride, float *row_max, float *row_sum);

/* Writes tokens from_token ... from_token + tokens - 1 of `from` (F32, ROWS) into a K or V cache as its tokens at ...
 * at + tokens - 1, in the cache's dtype, as tril_convert() does, and layout. (I8: each token and head has a scale of
 * its own, be it between the rows.) A page is a cache of its own: give its address as data, and a block_stride of 0.
 * `cache` is the tensor as attention will read it; here its memory is written: of the tokens' own elements only, never
 * of others in the same panel. Both are [token][kv_heads][dim] with their own strides. Tokens and heads may be any, and
 * nothing else is kept: a cache needs no initialisation. Not to be called while another thread reads or writes the same
 * tokens. Errors: NULL, STRUCT, SHAPE, DTYPE, STRIDE, EXTENT, ALIGN, ALIAS, OVERFLOW. */
TRIL_API tril_status tril_append(const tril_tensor *cache, int64_t at, const tril_tensor *from, int64_t from_token,
                                 int64_t tokens, int32_t kv_heads, int32_t dim);

/* Converts n elements, one row, between F32 and any dtype, either way: so a host fills a cache of its own layout, or
 * reads one. To F16 and BF16: to the nearest, ties to even; what is too large becomes infinite, a NaN stays one. From
 * any dtype to F32: exact, for I8 rounded once. To the block formats, per block of 32 as the format's reference does,
 * and to I8 alike, the whole row being one block:
 *   I8    scale = amax / 127 with amax the largest |x|; value = x * (1 / scale), to the nearest, ties away from 0
 *   Q8_0  the same, the scale then stored as f16
 *   Q4_0  scale = x[j] / -8 with j the first of the largest |x|, stored as f16; value = the integer part of
 *         x * (1 / scale) + 8.5, at most 15
 * with a scale of 0, and then values of 0, where it is 0 as computed. What a block becomes that has an infinity or NaN
 * in it, whose scale is too large for f16, or so small that 1 / scale is infinite, is the same on every tier, and else
 * not defined. to_scale / from_scale: I8 only, the row's scale; else ignored and may be null. n: 0 ... 2^31 - 1, a
 * multiple of 32 for Q8_0 and Q4_0. The memory must not overlap, which is not looked for, and is aligned as in
 * tril_tensor. Errors: NULL, SHAPE, DTYPE (neither is F32, or one is unknown), ALIGN. */
TRIL_API tril_status tril_convert(void *to, tril_dtype to_dtype, float *to_scale, const void *from,
                                  tril_dtype from_dtype, const float *from_scale, int64_t n);

/* The tier (instruction set) in use: "scalar", "avx2", "avx512", "avx512bf16" or "neon". Chosen when the library loads,
 * by CPUID and XCR0 or hwcaps; the environment variable TRIL_ISA=<tier> is a ceiling for that choice (an unknown name,
 * or a set-user-id process, ignores it). The string is static. */
TRIL_API const char *tril_isa(void);

/* The tiers that this library was built with, from the least to the best: the name of tier `index`, or null past the
 * last. *usable, if not null, tells whether this machine can run it. The string is static. */
TRIL_API const char *tril_isa_list(int index, int *usable);

/* Uses exactly the tier `name` from now on; null chooses anew as at load time, from the machine and TRIL_ISA. For tests
 * and measurements. Not to be called while another thread is in the library. Error: UNSUPPORTED if this build or this
 * machine does not have that tier; the one in use is then unchanged. */
TRIL_API tril_status tril_force_isa(const char *name);

/* One line in English, without a final newline, for every status; "unknown status" for any other number. Static. */
TRIL_API const char *tril_status_text(tril_status status);

/* The version of the library that is linked, as TRIL_VERSION is that of the header: major << 16 | minor << 8 | patch.
 */
TRIL_API uint32_t tril_version(void);

#ifdef __cplusplus
}
#endif
#endif
