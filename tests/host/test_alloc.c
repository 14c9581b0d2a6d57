/* No call allocates, maps memory or starts a thread: this executable puts its own functions in the place of the C
 * library's and counts. The allocator below serves the process from a static array, so it works with any C library. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

#include "tril.h"

void *memalign(size_t alignment, size_t size);
void *valloc(size_t size);
void *pvalloc(size_t size);
void *reallocarray(void *p, size_t n, size_t size);

static _Alignas(64) char pool[1 << 22];
static size_t used;
static volatile int calls; /* since the last reset */
static const char *volatile last_call = "";

static void *take(const char *name, size_t alignment, size_t size)
{
    calls++;
    last_call = name;
    const size_t header = sizeof(size_t), to = alignment < 16 ? 16 : alignment;
    const size_t at = (used + header + to - 1) / to * to;
    if (to > 4096 || size > sizeof(pool) || at + size > sizeof(pool)) return NULL;
    memcpy(pool + at - header, &size, header);
    used = at + size;
    return pool + at;
}

void *malloc(size_t size)
{
    return take("malloc", 16, size);
}

void free(void *p)
{
    if (p == NULL) return;
    calls++;
    last_call = "free";
}

void *calloc(size_t n, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(n, size, &bytes) ? NULL : take("calloc", 16, bytes); /* the pool is zero, and only
                                                                                          given away once */
}

void *realloc(void *p, size_t size)
{
    void *to = take("realloc", 16, size);
    size_t old = 0;
    if (p != NULL) memcpy(&old, (char *)p - sizeof(old), sizeof(old));
    if (p != NULL && to != NULL) memcpy(to, p, old < size ? old : size);
    return to;
}

void *reallocarray(void *p, size_t n, size_t size)
{
    size_t bytes;
    return __builtin_mul_overflow(n, size, &bytes) ? NULL : realloc(p, bytes);
}

int posix_memalign(void **to, size_t alignment, size_t size)
{
    *to = take("posix_memalign", alignment, size);
    return *to == NULL;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return take("aligned_alloc", alignment, size);
}

void *memalign(size_t alignment, size_t size)
{
    return take("memalign", alignment, size);
}

void *valloc(size_t size)
{
    return take("valloc", 4096, size);
}

void *pvalloc(size_t size)
{
    return take("pvalloc", 4096, size);
}

/* None of these is needed by this program, so they only fail. */
static void *refuse(const char *name)
{
    calls++;
    last_call = name;
    return NULL;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int file, off_t offset)
{
    (void)at, (void)bytes, (void)protection, (void)flags, (void)file, (void)offset;
    refuse("mmap");
    return MAP_FAILED;
}

void *sbrk(intptr_t by)
{
    (void)by;
    refuse("sbrk");
    return (void *)-1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    (void)thread, (void)attributes, (void)run, (void)argument;
    refuse("pthread_create");
    return 1;
}

enum { HEADS = 4, KV_HEADS = 2, DIM = 72, TOKENS = 300 };

static float q[TOKENS][HEADS][DIM], k[TOKENS][KV_HEADS][DIM], v[TOKENS][KV_HEADS][DIM], out[TOKENS][HEADS][DIM];
static float row_max[TOKENS][HEADS], row_sum[TOKENS][HEADS], weights[HEADS][TOKENS][TOKENS];
static char workspace[1 << 22];

static tril_tensor tensor(const void *data, int64_t heads)
{
    const int64_t row = DIM * 4;
    return (tril_tensor){.data = data, .bytes = TOKENS * heads * row, .token_stride = heads * row, .head_stride = row};
}

/* Every dtype, there and back; how many of them did not work. */
static int conversions(void)
{
    enum { N = KV_HEADS * 32 }; /* within a token of k */
    float scale = 0.0f;
    int wrong = 0;
    for (int type = 0; type < TRIL_DTYPE_COUNT; type++) {
        wrong += tril_convert(out, (tril_dtype)type, &scale, k, TRIL_F32, NULL, N) != TRIL_OK;
        wrong += tril_convert(k, TRIL_F32, NULL, out, (tril_dtype)type, &scale, N) != TRIL_OK;
    }
    return wrong;
}

/* Every public function once; how many of them did not do what they should. */
static int every_call(const char *isa, int64_t queries)
{
    const int64_t row = DIM * 4;
    const tril_seq seq = {.q_len = queries, .kv_len = TOKENS};
    tril_attention call = {.struct_size = sizeof(call),
                           .q_heads = HEADS,
                           .kv_heads = KV_HEADS,
                           .qk_dim = DIM,
                           .v_dim = DIM,
                           .q = tensor(q, HEADS),
                           .k = tensor(k, KV_HEADS),
                           .v = tensor(v, KV_HEADS),
                           .out = {.data = out, .bytes = sizeof(out), .token_stride = HEADS * row, .head_stride = row},
                           .row_max = &row_max[0][0],
                           .row_sum = &row_sum[0][0],
                           .seqs = &seq,
                           .n_seqs = 1};
    tril_weights_out to = {.struct_size = sizeof(to),
                           .data = weights,
                           .bytes = sizeof(weights),
                           .head_stride = sizeof(weights[0]),
                           .row_stride = sizeof(weights[0][0])};
    size_t bytes = 0;
    int wrong = 0, usable;

    wrong += tril_force_isa(isa) != TRIL_OK;
    wrong += strcmp(tril_isa(), isa) != 0;
    wrong += tril_isa_list(0, &usable) == NULL;
    wrong += tril_workspace(&call, 1, &bytes) != TRIL_OK || bytes > sizeof(workspace);
    wrong += tril_attend(&call, workspace, sizeof(workspace)) != TRIL_OK;
    wrong += tril_attend_team(&call, workspace, sizeof(workspace), 0, 1) != TRIL_OK;
    wrong += tril_weights(&call, &to, workspace, sizeof(workspace)) != TRIL_OK;
    wrong += tril_weights_team(&call, &to, workspace, sizeof(workspace), 0, 1) != TRIL_OK;
    to.form = TRIL_WEIGHTS_PACKED;
    to.row_stride = 0;
    wrong += tril_weights(&call, &to, workspace, sizeof(workspace)) != TRIL_OK;
    call.q_heads = 3;
    wrong += tril_attend(&call, workspace, sizeof(workspace)) != TRIL_ERR_SHAPE;
    wrong += tril_status_text(TRIL_ERR_SHAPE) == NULL || tril_version() != TRIL_VERSION;
    wrong += tril_merge(NULL, 1, 0, 1, 0, NULL, 0, NULL, NULL) != TRIL_ERR_NULL;
    wrong += tril_append(NULL, 0, NULL, 0, 0, 1, 1) != TRIL_ERR_NULL;
    wrong += conversions();
    wrong += tril_force_isa("none") != TRIL_ERR_UNSUPPORTED;
    wrong += tril_force_isa(NULL) != TRIL_OK;
    return wrong;
}

int main(void)
{
    static const int64_t queries[] = {1, 7, TOKENS};
    int failed = 0, usable;
    const char *name;

    /* The counter itself: the C library must come through here, or the rest proves nothing. */
    calls = 0;
    void *volatile p = malloc(10);
    free(p);
    char *volatile copy = strdup("x");
    if (calls < 3 || copy == NULL) {
        fprintf(stderr, "alloc: the allocator is not the one in use: %d calls counted\n", calls);
        return EXIT_FAILURE;
    }
    for (int i = 0; (name = tril_isa_list(i, &usable)) != NULL; i++) {
        for (int j = 0; usable && j < 3; j++) {
            calls = 0;
            const int wrong = every_call(name, queries[j]), counted = calls;
            const char *what = last_call;
            if (wrong == 0 && counted == 0) continue;
            fprintf(stderr, "alloc: %s, %d queries: %d wrong answers, %d calls, the last of %s\n", name,
                    (int)queries[j], wrong, counted, counted > 0 ? what : "nothing");
            failed = 1;
        }
    }
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
