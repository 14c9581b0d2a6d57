/* Context parallelism: one sequence spread over the ranks of an MPI job. A rank keeps its own tokens' queries and
 * results while keys and values travel round a ring; it folds into its rows whatever passes that they may see. The bits
 * are those of one process with one call, for any number of ranks. Build: mpicc ring.c $(pkg-config --cflags --libs
 * tril)   Run: mpirun -n 4 ./a.out [TOKENS] */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tril.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 64, ROW = DIM * sizeof(float) };
enum { WIDE = HEADS * DIM, SLIM = 2 * KV_HEADS * DIM }; /* floats of a token: its queries; its keys, then its values */

static int tokens = 1100, ranks, rank;

/* The first token of a rank's shard: whole blocks of keys, but for the last token's. A shard may be empty. */
static int first(int of)
{
    const int blocks = (tokens + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
    const int token = (int)((int64_t)blocks * of / ranks) * TRIL_KEY_BLOCK;
    return token < tokens ? token : tokens;
}

static void check(tril_status status)
{
    if (status == TRIL_OK) return;
    fprintf(stderr, "ring: rank %d: %s\n", rank, tril_status_text(status));
    MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
}

static float *floats(int64_t n)
{
    float *memory = calloc((size_t)n + 1, sizeof(float));
    if (!memory) MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    return memory;
}

/* In place of a model: rows of tokens begin ... end - 1, numbers between -2 and 2 that do not depend on the rank. */
static float *project(int begin, int end, int width, uint32_t salt)
{
    float *rows = floats((int64_t)(end - begin) * width);
    for (int64_t i = 0; i < (int64_t)(end - begin) * width; i++) {
        uint32_t x = ((uint32_t)begin * (uint32_t)width + (uint32_t)i + salt) * 0x9e3779b1u;
        x = (x ^ x >> 15) * 0x85ebca77u;
        rows[i] = (float)((x ^ x >> 13) >> 8) * 0x1p-22f - 2;
    }
    return rows;
}

/* Attention of all queries given to one shard of the keys, in which keys and values take turns token by token. */
static void attend(tril_attention call, const tril_seq *seq, const float *queries, const float *kv)
{
    const int64_t rows = seq->q_len, keys = seq->key_end - seq->key_begin, stride = SLIM * sizeof(float);
    call.struct_size = sizeof(call);
    call.q_heads = HEADS, call.kv_heads = KV_HEADS, call.qk_dim = DIM, call.v_dim = DIM;
    call.q = (tril_tensor){queries, rows * HEADS * ROW, .token_stride = HEADS * ROW, .head_stride = ROW};
    call.k = (tril_tensor){kv, keys * stride - KV_HEADS * ROW, .token_stride = stride, .head_stride = ROW};
    call.v = call.k, call.v.data = kv + SLIM / 2;
    call.out.token_stride = HEADS * ROW, call.out.head_stride = ROW;
    call.seqs = seq, call.n_seqs = 1;
    size_t bytes = 0;
    check(tril_workspace(&call, 1, &bytes));
    void *workspace = malloc(bytes);
    check(tril_attend(&call, workspace, bytes));
    free(workspace);
}

/* What a rank knows of its rows so far: O before the division and the statistics, over keys 0 ... */
static float *q, *out, *row_max, *row_sum;

/* Folds a rank's shard of keys into these rows. Ascending shards, block by block, is what makes it exact. */
static void fold(int from, const float *kv, uint32_t flags)
{
    const tril_seq seq = {.q_len = first(rank + 1) - first(rank),
                          .kv_len = first(rank + 1), /* positions: the last query's is the last of this rank's shard */
                          .key_begin = first(from),
                          .key_end = first(from + 1)};
    if (seq.q_len == 0 || seq.key_begin == seq.key_end) return;
    const int64_t rows = seq.q_len * HEADS,
                  blocks = (seq.key_end - seq.key_begin + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK;
    float *o = floats(blocks * rows * DIM), *max = floats(blocks * rows), *sum = floats(blocks * rows);
    attend((tril_attention){.flags = TRIL_UNNORMALISED | TRIL_BLOCKWISE,
                            .out = {.data = o, .bytes = blocks * rows * ROW},
                            .out_part_stride = rows * ROW,
                            .row_max = max,
                            .row_sum = sum,
                            .statistics_part_stride = rows},
           &seq, q, kv);
    tril_partial *parts = malloc((size_t)(1 + blocks) * sizeof(*parts));
    if (!parts) MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    parts[0] = (tril_partial){out, row_max, row_sum, ROW};
    for (int64_t b = 0; b < blocks; b++)
        parts[1 + b] = (tril_partial){o + b * rows * DIM, max + b * rows, sum + b * rows, ROW};
    check(tril_merge(parts, 1 + blocks, rows, DIM, flags, out, ROW, row_max, row_sum));
    free(parts), free(o), free(max), free(sum);
}

/* Rank 0: the results of all ranks against one call. */
static int compare(const float *whole)
{
    const tril_seq seq = {.q_len = tokens, .kv_len = tokens, .key_end = tokens};
    float *queries = project(0, tokens, WIDE, 0), *kv = project(0, tokens, SLIM, 1u << 31);
    float *alone = floats((int64_t)tokens * WIDE);
    const size_t bytes = (size_t)tokens * WIDE * sizeof(float);
    attend((tril_attention){.out = {.data = alone, .bytes = (int64_t)bytes}}, &seq, queries, kv);
    const int same = memcmp(whole, alone, bytes) == 0;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)whole)[i]) * 1099511628211u;
    printf("%d ranks, %d tokens: %s, %016llx\n", ranks, tokens, same ? "same bits" : "OTHER BITS",
           (unsigned long long)hash);
    free(queries), free(kv), free(alone);
    return same ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (argc > 1) tokens = atoi(argv[1]);
    if (tokens < 1 || tokens > 100000) check(TRIL_ERR_SHAPE);

    const int begin = first(rank), end = first(rank + 1), rows = (end - begin) * HEADS;
    q = project(begin, end, WIDE, 0);
    float *own = project(begin, end, SLIM, 1u << 31);
    out = floats((int64_t)rows * DIM), row_max = floats(rows), row_sum = floats(rows);
    for (int i = 0; i < rows; i++)
        row_max[i] = -INFINITY, row_sum[i] = -0.0f; /* no key so far: tril_merge() leaves such a part out */

    /* Shards travel downwards, so that a rank meets those of its past as 0, 1, 2, ..., in the order of the fold, and
     * only ever keeps the partial results of one. Its own is the last that its rows see. */
    const int down = (rank + ranks - 1) % ranks, up = (rank + 1) % ranks;
    const int largest = (tokens / TRIL_KEY_BLOCK / ranks + 2) * TRIL_KEY_BLOCK;
    float *buffers[2] = {floats((int64_t)largest * SLIM), floats((int64_t)largest * SLIM)}, *here = own;
    for (int step = 0; step < ranks; step++) {
        const int from = (rank + step) % ranks, next = (from + 1) % ranks;
        MPI_Request requests[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};
        if (step + 1 < ranks) { /* on its way while the shard that is here is worked on */
            MPI_Irecv(buffers[step % 2], (first(next + 1) - first(next)) * SLIM, MPI_FLOAT, up, 0, MPI_COMM_WORLD,
                      &requests[0]);
            MPI_Isend(here, (first(from + 1) - first(from)) * SLIM, MPI_FLOAT, down, 0, MPI_COMM_WORLD, &requests[1]);
        }
        if (from < rank) fold(from, here, TRIL_UNNORMALISED);
        MPI_Waitall(2, requests, MPI_STATUSES_IGNORE);
        here = buffers[step % 2];
    }
    fold(rank, own, 0);

    int *counts = malloc((size_t)ranks * sizeof(int)), *places = malloc((size_t)ranks * sizeof(int));
    if (!counts || !places) MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    for (int r = 0; r < ranks; r++)
        counts[r] = (first(r + 1) - first(r)) * WIDE, places[r] = first(r) * WIDE;
    float *whole = floats(rank == 0 ? (int64_t)tokens * WIDE : 0);
    MPI_Gatherv(out, rows * DIM, MPI_FLOAT, whole, counts, places, MPI_FLOAT, 0, MPI_COMM_WORLD);
    const int status = rank == 0 ? compare(whole) : EXIT_SUCCESS;
    free(counts), free(places), free(whole), free(buffers[0]), free(buffers[1]);
    free(own), free(q), free(out), free(row_max), free(row_sum);
    MPI_Finalize();
    return status;
}
