/* See team.h. */
#define _GNU_SOURCE
#include "team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef __linux__
#include <sched.h>
#endif

enum { MOST = 16 };

struct member {
    struct team *team;
    pthread_t handle;
    int number;
    _Alignas(64) _Atomic unsigned done; /* the last job that it has finished */
};

struct team {
    int threads, cpu[MOST];
    void (*f)(void *, int); /* null: the end */
    void *context;
    _Alignas(64) _Atomic unsigned job; /* the number of the job at hand */
    _Alignas(64) _Atomic int spin;
    pthread_mutex_t lock;
    pthread_cond_t changed;
#ifdef __linux__
    cpu_set_t before; /* where the caller was allowed to run */
#endif
    struct member members[MOST];
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#ifdef __linux__
/* The first hardware thread of the core that `cpu` belongs to; itself where the system does not say. */
static int core_of(int cpu)
{
    char path[96];
    int first = cpu;
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *file = fopen(path, "r");
    if (file == NULL) return cpu;
    if (fscanf(file, "%d", &first) != 1) first = cpu;
    fclose(file);
    return first;
}

/* One CPU of each core that this process may use. */
static int find_cores(int cpus[MOST])
{
    cpu_set_t allowed;
    int n = 0, core[MOST];
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE && n < MOST; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        int known = 0;
        core[n] = core_of(cpu);
        for (int i = 0; i < n; i++)
            known |= core[i] == core[n];
        if (!known) cpus[n++] = cpu;
    }
    return n;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}
#else
/* Nowhere else is there a portable way to say where a thread runs, and unpinned ratios would mislead. */
static int find_cores(int cpus[MOST])
{
    cpus[0] = 0;
    return 1;
}

static void pin(int cpu)
{
    (void)cpu;
}
#endif

int team_cores(void)
{
    int cpus[MOST];
    return find_cores(cpus);
}

/* Waits for another job than `last`. */
static unsigned next_job(struct team *team, unsigned last)
{
    unsigned job;
    while ((job = atomic_load_explicit(&team->job, memory_order_acquire)) == last) {
        if (atomic_load_explicit(&team->spin, memory_order_relaxed)) {
            relax();
            continue;
        }
        pthread_mutex_lock(&team->lock);
        while (atomic_load(&team->job) == last && !atomic_load(&team->spin))
            pthread_cond_wait(&team->changed, &team->lock);
        pthread_mutex_unlock(&team->lock);
    }
    return job;
}

static void *member_main(void *argument)
{
    struct member *m = argument;
    struct team *team = m->team;
    pin(team->cpu[m->number]);
    for (unsigned job = 0;;) {
        job = next_job(team, job);
        void (*const f)(void *, int) = team->f;
        if (f != NULL) f(team->context, m->number);
        atomic_store_explicit(&m->done, job, memory_order_release);
        if (f == NULL) return NULL;
    }
}

struct team *team_start(int threads)
{
    int cpus[MOST];
    if (threads < 1 || threads > find_cores(cpus)) return NULL;
    struct team *team = aligned_alloc(64, sizeof(*team)); /* a multiple of 64, as its members' alignment is */
    if (team == NULL) abort();
    *team = (struct team){.threads = threads};
    for (int i = 0; i < threads; i++)
        team->cpu[i] = cpus[i];
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->changed, NULL);
#ifdef __linux__
    sched_getaffinity(0, sizeof(team->before), &team->before);
#endif
    pin(team->cpu[0]);
    for (int i = 1; i < threads; i++) {
        struct member *m = &team->members[i];
        m->team = team;
        m->number = i;
        if (pthread_create(&m->handle, NULL, member_main, m) != 0) abort();
    }
    return team;
}

/* The lock is for those about to sleep: spinning ones see the number by themselves. */
static void give(struct team *team, void (*f)(void *, int), void *context)
{
    const int asleep = !atomic_load_explicit(&team->spin, memory_order_relaxed);
    team->f = f;
    team->context = context;
    if (asleep) pthread_mutex_lock(&team->lock);
    atomic_fetch_add_explicit(&team->job, 1, memory_order_release);
    if (!asleep) return;
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

void team_run(struct team *team, void (*f)(void *context, int thread), void *context)
{
    give(team, f, context);
    const unsigned job = atomic_load_explicit(&team->job, memory_order_relaxed);
    f(context, 0);
    for (int i = 1; i < team->threads; i++)
        while (atomic_load_explicit(&team->members[i].done, memory_order_acquire) != job)
            relax();
}

void team_spin(struct team *team, int spin)
{
    pthread_mutex_lock(&team->lock);
    atomic_store(&team->spin, spin);
    pthread_cond_broadcast(&team->changed);
    pthread_mutex_unlock(&team->lock);
}

void team_stop(struct team *team)
{
    give(team, NULL, NULL);
    for (int i = 1; i < team->threads; i++)
        pthread_join(team->members[i].handle, NULL);
#ifdef __linux__
    sched_setaffinity(0, sizeof(team->before), &team->before);
#endif
    pthread_cond_destroy(&team->changed);
    pthread_mutex_destroy(&team->lock);
    free(team);
}
