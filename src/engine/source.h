/* Where a few-row task's keys and values are: what is best from a cache that all cores share is not from memory. Their
 * size does not tell, as a model's other layers pass through the caches between two calls. So some keys are read, one
 * after the other, and the time that it takes is compared with that of multiplications. Only requests and the length of
 * steps hang on the outcome, no bit of the result does. */
#ifndef TRIL_ENGINE_SOURCE_H
#define TRIL_ENGINE_SOURCE_H

#include "block.h"

enum source {
    SOURCE_UNKNOWN, /* too few to be worth the question */
    SOURCE_CACHE,
    SOURCE_BOTH,
    SOURCE_MEMORY,
    SOURCE_FAR, /* memory, too, of a processor whose shared cache is as far away as others' memory */
};

/* Bytes of one key of one head and of its value. Where there are only weights nobody has checked the values. */
static int64_t source_row_bytes(const struct tril_job *job)
{
    const tril_attention *call = job->call;
    const int64_t key = tril_row_bytes(call->k.dtype, call->qk_dim);
    return job->weights != NULL ? key : key + tril_row_bytes(call->v.dtype, call->v_dim);
}

#ifdef V_TICKS

/* The question takes a quarter of a microsecond, of memory several. Tests ask it always. */
#ifdef TRIL_TELL_SOURCE
#define SOURCE_LEAST_BYTES ((int64_t)1)
#else
#define SOURCE_LEAST_BYTES ((int64_t)1 << 20)
#endif

#define SOURCE_READS 8
/* A multiplication takes three cycles. Read like that, a line of the shared cache took 85 to 145 cycles (Zen 5), where
 * half of them were in memory 150 to 300, and all of them 450 to 2500: where pages are looked up as well. An Intel
 * Xeon of 2024 took 490 to 1320 from its shared cache, 1490 to 5300 from memory. */
#define SOURCE_MULTIPLICATIONS 128
#define SOURCE_CACHE_CYCLES    160
#define SOURCE_MEMORY_CYCLES   400
#define SOURCE_FAR_CYCLES      1400

/* The first byte of a row of keys, or of a panel, in the i-th part of the task's blocks. */
static const char *source_row(const struct tril_job *job, const struct tril_task *task, int64_t block, int i)
{
    struct stretch part[2];
    const int64_t left = task->keys - block;
    if (block_stretches(task, block, left < TRIL_KEY_BLOCK ? (int)left : TRIL_KEY_BLOCK, part) == 0) return NULL;
    int64_t key = block + part[0].from + (part[0].to - part[0].from) * (2 * i + 1) / (2 * SOURCE_READS);
    if (job->call->k.layout == TRIL_PANELS) key = key / PANEL * PANEL;
    return rows_from(job, task, &job->call->k, key, task->head + i % task->heads).data;
}

static enum source source_by_clock(const struct tril_job *job, const struct tril_task *task)
{
    const int64_t row = source_row_bytes(job);
    int64_t blocks = 0;
    for (int64_t first = task->first; first < task->keys; first = tril_next_block(task, first))
        blocks++;
    if (blocks * TRIL_KEY_BLOCK * task->heads * row < SOURCE_LEAST_BYTES) return SOURCE_UNKNOWN;

    const char *at[SOURCE_READS];
    int n = 0;
    int64_t number = 0, first = task->first;
    for (int i = 0; i < SOURCE_READS; i++) {
        for (; number < blocks * i / SOURCE_READS; number++)
            first = tril_next_block(task, first);
        at[n] = source_row(job, task, first, i);
        if (at[n] != NULL) n++;
    }
    if (n == 0) return SOURCE_UNKNOWN;

    /* Each read waits for the one before, which adds what only we know to be 0 to its address. */
    size_t same = 0, was = 0;
    const uint64_t begin = V_TICKS();
    for (int i = 0; i < n; i++) {
        __asm__("" : "+r"(same));
        const size_t zero = same - was;
        was = same = *(const volatile unsigned char *)(at[i] + zero);
    }
    __asm__ volatile("" : "+r"(same));
    const uint64_t middle = V_TICKS();
    for (int i = 0; i < SOURCE_MULTIPLICATIONS; i++) {
        same *= 3;
        __asm__ volatile("" : "+r"(same));
    }
    const uint64_t end = V_TICKS();
    const uint64_t reads = (middle - begin) * 3 * SOURCE_MULTIPLICATIONS, cycle = (end - middle) * (uint64_t)n;
    return reads < cycle * SOURCE_CACHE_CYCLES    ? SOURCE_CACHE
           : reads < cycle * SOURCE_MEMORY_CYCLES ? SOURCE_BOTH
           : reads < cycle * SOURCE_FAR_CYCLES    ? SOURCE_MEMORY
                                                  : SOURCE_FAR;
}

#else

static enum source source_by_clock(const struct tril_job *job, const struct tril_task *task)
{
    (void)job;
    (void)task;
    return SOURCE_UNKNOWN;
}

#endif

#ifdef TRIL_TELL_SOURCE
/* tests/sources_table.c */
extern int tril_told_source(void);
extern bool tril_told_lower(void);

/* Asks, but goes by what it is told. */
static enum source source_of(const struct tril_job *job, const struct tril_task *task)
{
    (void)source_by_clock(job, task);
    return (enum source)tril_told_source();
}

static bool asks_lower(const struct tril_job *job, int64_t bytes)
{
    (void)job;
    (void)bytes;
    return tril_told_lower();
}

#else

static enum source source_of(const struct tril_job *job, const struct tril_task *task)
{
    return source_by_clock(job, task);
}

/* Less is in the second level itself, if it was read before. */
#define LOWER_LEAST_BYTES ((int64_t)1 << 20)

/* Whether so many bytes are better asked for into the second level: a matter of the processor. */
static bool asks_lower(const struct tril_job *job, int64_t bytes)
{
    return job->asks_lower && bytes >= LOWER_LEAST_BYTES;
}
#endif
#endif
