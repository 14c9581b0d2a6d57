/* A host with threads of its own: a prompt, then token by token over a growing K/V cache, every call shared by a team
 * (tril_attend_team); then the last token once more, its keys split between two memories (tril_merge). All of it must
 * give the bits of one call on one thread. Usage: threads [NUMBER OF THREADS]
 * Build: cc threads.c $(pkg-config --cflags --libs tril) -pthread */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tril.h>

enum { PROMPT = 600, TOKENS = 620, HEADS = 8, KV_HEADS = 2, DIM = 32, ROW = DIM * sizeof(float) };
enum { CUT = 2 * TRIL_KEY_BLOCK, BLOCKS = (TOKENS + TRIL_KEY_BLOCK - 1) / TRIL_KEY_BLOCK };
typedef float wide[HEADS][DIM]; /* a token's row of queries or results, and of keys or values */
typedef float slim[KV_HEADS][DIM];
static wide q[TOKENS], out[TOKENS], alone[TOKENS], part_out[BLOCKS], merged;
static slim k[TOKENS], v[TOKENS];
static float part_max[BLOCKS][HEADS], part_sum[BLOCKS][HEADS];

static int threads;

/* The host's way to run f(0) ... f(n - 1) at once. One that is in earnest keeps its threads; to the library it is the
 * same, as long as all are back before the next call begins. */
typedef struct task {
    pthread_t handle;
    void (*f)(int);
    int number;
} task;

static void *run(void *argument)
{
    const task *t = argument;
    t->f(t->number);
    return NULL;
}

static void parallel_for(int n, void (*f)(int))
{
    task tasks[256];
    for (int i = 0; i < n; i++) {
        tasks[i].f = f, tasks[i].number = i;
        if (i > 0 && pthread_create(&tasks[i].handle, NULL, run, &tasks[i])) abort();
    }
    f(0);
    for (int i = 1; i < n; i++)
        pthread_join(tasks[i].handle, NULL);
}

static void check(tril_status status)
{
    if (status == TRIL_OK) return;
    fprintf(stderr, "threads: %s\n", tril_status_text(status));
    exit(EXIT_FAILURE);
}

/* In place of a model: n numbers between -2 and 2. */
static void project(void *rows, size_t n)
{
    static uint32_t state = 1;
    for (float *x = rows; n > 0; n--)
        *x++ = (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-22f - 2;
}

static tril_seq now; /* the queries of `call`, and how much of the cache they see */
static tril_attention call = {sizeof(call),
                              .q_heads = HEADS,
                              .kv_heads = KV_HEADS,
                              .qk_dim = DIM,
                              .v_dim = DIM,
                              .q = {q, sizeof(q), .token_stride = sizeof(wide), .head_stride = ROW},
                              .k = {k, sizeof(k), .token_stride = sizeof(slim), .head_stride = ROW},
                              .v = {v, sizeof(v), .token_stride = sizeof(slim), .head_stride = ROW},
                              .out = {out, sizeof(out), .token_stride = sizeof(wide), .head_stride = ROW},
                              .seqs = &now,
                              .n_seqs = 1};
static void *workspace;
static size_t workspace_bytes;

/* Sees to it that the workspace is large enough for `call`. A new one is zeroed, and never again. */
static void make_room(void)
{
    size_t bytes = 0;
    check(tril_workspace(&call, threads, &bytes));
    if (bytes <= workspace_bytes) return;
    free(workspace);
    workspace = calloc(1, bytes);
    workspace_bytes = bytes;
}

static void member(int thread)
{
    const tril_status status = tril_attend_team(&call, workspace, workspace_bytes, thread, threads);
    if (thread == 0) check(status); /* every thread gets the same */
}

/* One of two NUMA nodes: the last token against the keys on this node, the first two blocks or the rest. The result is
 * one partial per block, before the division, at the block's place in the whole. */
static void node(int i)
{
    const int begin = i == 0 ? 0 : CUT, end = i == 0 ? CUT : TOKENS, block = begin / TRIL_KEY_BLOCK;
    const tril_seq last = {.q_len = 1, .kv_len = TOKENS, .key_begin = begin, .key_end = end};
    tril_attention part = call;
    part.flags = TRIL_UNNORMALISED | TRIL_BLOCKWISE;
    part.q.data = q[TOKENS - 1], part.q.bytes = sizeof(wide);
    part.k.data = k[begin], part.k.bytes = (end - begin) * (int64_t)sizeof(slim); /* from its own key_begin on */
    part.v.data = v[begin], part.v.bytes = (end - begin) * (int64_t)sizeof(slim);
    part.out.data = part_out[block], part.out.bytes = (BLOCKS - block) * (int64_t)sizeof(wide);
    part.out_part_stride = sizeof(wide); /* from one block's result to the next */
    part.row_max = part_max[block], part.row_sum = part_sum[block], part.statistics_part_stride = HEADS;
    part.seqs = &last;
    size_t bytes = 0;
    check(tril_workspace(&part, 1, &bytes));
    void *own = malloc(bytes);
    check(tril_attend(&part, own, bytes));
    free(own);
}

int main(int argc, char **argv)
{
    threads = argc > 1 ? atoi(argv[1]) : 2;
    if (threads < 1 || threads > 256) return fputs("usage: threads [1 ... 256]\n", stderr), EXIT_FAILURE;

    for (int done = 0, next; done < TOKENS; done += next) {
        next = done == 0 ? PROMPT : 1;
        project(q[done], (size_t)next * HEADS * DIM); /* the layer's input: new queries, and the cache grows */
        project(k[done], (size_t)next * KV_HEADS * DIM);
        project(v[done], (size_t)next * KV_HEADS * DIM);
        now = (tril_seq){.q_first = done, .q_len = next, .kv_len = done + next};
        make_room();
        parallel_for(threads, member); /* every thread comes to every call, so team_call can stay 0 */
    }

    parallel_for(2, node);
    tril_partial parts[BLOCKS];
    for (int b = 0; b < BLOCKS; b++)
        parts[b] = (tril_partial){part_out[b][0], part_max[b], part_sum[b], ROW};
    check(tril_merge(parts, BLOCKS, HEADS, DIM, 0, merged[0], ROW, NULL, NULL));

    now = (tril_seq){.q_len = TOKENS, .kv_len = TOKENS}; /* all at once, on this thread */
    call.out.data = alone;
    make_room(); /* a team's is enough for one */
    check(tril_attend(&call, workspace, workspace_bytes));
    free(workspace);
    const int team = !memcmp(out, alone, sizeof(out)), merge = !memcmp(merged, alone[TOKENS - 1], sizeof(merged));
    printf("%d threads, %s: %d tokens, then %d one by one: %s; keys in two parts, merged: %s\n", threads, tril_isa(),
           PROMPT, TOKENS - PROMPT, team ? "same bits" : "OTHER BITS", merge ? "same bits" : "OTHER BITS");
    return team && merge ? EXIT_SUCCESS : EXIT_FAILURE;
}
