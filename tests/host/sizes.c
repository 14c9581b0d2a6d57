/* What tril_workspace() says of calls whose states pass 32 bits: at least what they need, or that it does not fit.
 * Plain C, for machines of 32 bits, whose sizes would wrap. */
#include <stdio.h>
#include <stdlib.h>

#include <tril.h>

/* A block's output, of whole panels, maximum and sum for each row: a team that splits one token's keys has a state of
 * each block. */
static uint64_t states(int64_t heads, int64_t keys, int64_t dim)
{
    const uint64_t row = (uint64_t)(dim + 15) / 16 * 16 + 2;
    return (uint64_t)(keys / TRIL_KEY_BLOCK) * (uint64_t)heads * row * sizeof(float);
}

/* One key and one value for all tokens: strides of 0, so that as many tokens as one likes fit in memory. */
static int check(int32_t heads, int64_t keys, int32_t dim, int threads)
{
    const int64_t row = dim * (int64_t)sizeof(float), all = heads * row;
    const tril_seq seq = {.q_len = 1, .kv_len = keys};
    const tril_attention call = {.struct_size = sizeof(call),
                                 .q_heads = heads,
                                 .kv_heads = 1, /* one unit of work */
                                 .qk_dim = dim,
                                 .v_dim = dim,
                                 .q = {.bytes = all, .token_stride = all, .head_stride = row},
                                 .k = {.bytes = row},
                                 .v = {.bytes = row},
                                 .out = {.bytes = all, .token_stride = all, .head_stride = row},
                                 .seqs = &seq,
                                 .n_seqs = 1};
    size_t bytes = 0;
    const tril_status status = tril_workspace(&call, threads, &bytes);
    if (status == TRIL_ERR_OVERFLOW && states(heads, keys, dim) > SIZE_MAX / 4) return 0;
    if (status == TRIL_OK && bytes >= states(heads, keys, dim)) return 0;
    printf("%d heads of %d, %lld keys, %d threads: %s, %llu bytes\n", (int)heads, (int)dim, (long long)keys, threads,
           tril_status_text(status), (unsigned long long)bytes);
    return 1;
}

int main(void)
{
    static const int32_t heads[] = {1, 64, 512, 65536}, dims[] = {1, 128, TRIL_MAX_HEAD_DIM};
    const char *name;
    int usable, wrong = 0;
    for (int tier = 0; (name = tril_isa_list(tier, &usable)) != NULL; tier++) {
        if (!usable || tril_force_isa(name) != TRIL_OK) continue;
        for (int64_t keys = (int64_t)1 << 16; keys <= INT32_MAX; keys *= 2) {
            for (int i = 0; i < 12; i++)
                wrong += check(heads[i % 4], keys, dims[i / 4], 4);
        }
    }
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
