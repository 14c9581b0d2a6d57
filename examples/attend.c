/* Causal attention over a prompt of 6 tokens, 4 query heads sharing 2 K/V heads of size 8. Every query is 0, so every
 * weight of row t is 1 / (t + 1). Build: cc attend.c $(pkg-config --cflags --libs tril) */
#include <stdio.h>
#include <stdlib.h>
#include <tril.h>

enum { TOKENS = 6, HEADS = 4, KV_HEADS = 2, DIM = 8, ROW = DIM * sizeof(float) };
static float q[TOKENS * HEADS * DIM], k[TOKENS * KV_HEADS * DIM], v[TOKENS * KV_HEADS * DIM], out[TOKENS * HEADS * DIM];

static tril_tensor tensor(const float *data, int heads)
{
    return (tril_tensor){data, TOKENS * heads * ROW, .token_stride = heads * ROW, .head_stride = ROW};
}

int main(void)
{
    for (int i = 0; i < TOKENS * KV_HEADS * DIM; i++)
        k[i] = (float)(i % 7), v[i] = (float)(i / (KV_HEADS * DIM)); /* the value is the token's number */

    const tril_seq prompt = {.q_len = TOKENS, .kv_len = TOKENS};
    tril_attention call = {sizeof(call), .q_heads = HEADS, .kv_heads = KV_HEADS, .qk_dim = DIM, .v_dim = DIM};
    call.q = tensor(q, HEADS);
    call.k = tensor(k, KV_HEADS);
    call.v = tensor(v, KV_HEADS);
    call.out = (tril_out){out, sizeof(out), .token_stride = HEADS * ROW, .head_stride = ROW};
    call.seqs = &prompt;
    call.n_seqs = 1;

    size_t bytes = 0;
    tril_status status = tril_workspace(&call, 1, &bytes);
    void *workspace = malloc(bytes);
    if (status == TRIL_OK) status = tril_attend(&call, workspace, bytes);
    free(workspace);
    if (status != TRIL_OK) return fprintf(stderr, "attend: %s\n", tril_status_text(status)), EXIT_FAILURE;
    for (int t = 0; t < TOKENS; t++)
        printf("%s: token %d attends to the mean of 0 ... %d: %g\n", tril_isa(), t, t, (double)out[t * HEADS * DIM]);
    return EXIT_SUCCESS;
}
