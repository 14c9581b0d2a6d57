/* A table that has every tier a second time, as one that pauses before each task: other threads then get their turn
 * between two tasks, on a single core too, and a call is really shared. Which threads work is counted, and some calls
 * wait until it is more than one. */
#include <sched.h>
#include <time.h>

#include "support.h"
#include "table.h"

static const struct tril_kernels *const real[] = {
    &tril_kernels_scalar,
#ifdef TRIL_HAVE_AVX2
    &tril_kernels_avx2,
#endif
#ifdef TRIL_HAVE_AVX512
    &tril_kernels_avx512,
#endif
#ifdef TRIL_HAVE_AVX512BF16
    &tril_kernels_avx512bf16,
#endif
#ifdef TRIL_HAVE_NEON
    &tril_kernels_neon,
#endif
};
static struct tril_kernels yielding[COUNT(real)];

#define TIER(i, name)                                                                                                  \
    {&tril_kernels_##name, TRIL_NEEDS_##name},                                                                         \
    {                                                                                                                  \
        &yielding[i], TRIL_NEEDS_##name                                                                                \
    }
#define TRIL_NEEDS_scalar     0
#define TRIL_NEEDS_avx2       TRIL_CPU_AVX2
#define TRIL_NEEDS_avx512     TRIL_CPU_AVX512
#define TRIL_NEEDS_avx512bf16 (TRIL_CPU_AVX512 | TRIL_CPU_AVX512_BF16)
#define TRIL_NEEDS_neon       TRIL_CPU_NEON

const struct tril_tier tril_tiers[] = {
    TIER(0, scalar),
#ifdef TRIL_HAVE_AVX2
    TIER(1, avx2),
#endif
#ifdef TRIL_HAVE_AVX512
    TIER(2, avx512),
#endif
#ifdef TRIL_HAVE_AVX512BF16
    TIER(3, avx512bf16),
#endif
#ifdef TRIL_HAVE_NEON
    TIER(1, neon),
#endif
};
const int tril_tier_count = COUNT(tril_tiers);

/* The tier that the one in use stands for, or who serves in its stead. */
static const struct tril_kernels *behind(const struct tril_job *job)
{
    const struct tril_kernels *tier = real[tril_kernels_in_use() - yielding], *other = tier->instead[job->call->math];
    return other == NULL ? tier : other;
}

/* Whether the call has work for two; of tril_attend a tier gets no task that sees no key. */
static bool divisible(const struct tril_job *job)
{
    struct tril_walk walk = {0};
    struct tril_task task;
    int n = 0;
    while (n < 2 && tril_plan_next(job->plan, job->call, &walk, &task))
        n += job->weights != NULL || task.first < task.keys;
    return n == 2;
}

static void pause_here(const struct tril_job *job)
{
    static _Thread_local uint32_t state;
    const struct timespec moment = {.tv_nsec = 1000};
    worker_here(divisible(job));
    if (state == 0) state = (uint32_t)(uintptr_t)&state | 1;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    if (state % 4 == 0) sched_yield();
    if (state % 32 == 1) nanosleep(&moment, NULL);
}

static void attend(const struct tril_job *job, const struct tril_task *task, float *workspace)
{
    pause_here(job);
    behind(job)->attend(job, task, workspace);
}

static void weights(const struct tril_job *job, const struct tril_task *task, float *workspace)
{
    pause_here(job);
    behind(job)->weights(job, task, workspace);
}

/* Before any thread: the library chooses its tier as early. */
__attribute__((constructor)) static void fill_in(void)
{
    static const char *const names[] = {
        "yielding_scalar",
#ifdef TRIL_HAVE_AVX2
        "yielding_avx2",
#endif
#ifdef TRIL_HAVE_AVX512
        "yielding_avx512",
#endif
#ifdef TRIL_HAVE_AVX512BF16
        "yielding_avx512bf16",
#endif
#ifdef TRIL_HAVE_NEON
        "yielding_neon",
#endif
    };
    for (int i = 0; i < COUNT(real); i++) {
        yielding[i] = *real[i];
        yielding[i].name = names[i];
        for (int math = 0; math < TRIL_MATH_COUNT; math++)
            yielding[i].instead[math] = NULL; /* so that it pauses for whoever serves, too */
        yielding[i].attend = attend;
        yielding[i].weights = weights;
    }
}
