/* See gate.h. */
#define _POSIX_C_SOURCE 199309L
#include "gate.h"

#include <stdlib.h>
#include <time.h>

#include "probe.h"

#define QUIET              0.9  /* of the best probe */
#define UNDISTURBED        0.98 /* of the time spent running */
#define REPETITION_SECONDS 3e-3 /* some thirty times the probe beside it */

static double best_probe;

static double probe(void)
{
    const double p = probe_gflops();
    if (p > best_probe) best_probe = p;
    return p;
}

double gate_best_probe(void)
{
    if (best_probe == 0.0)
        for (int i = 0; i < 200; i++)
            probe();
    return best_probe;
}

/* How long this thread has been running, in seconds. */
static double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void prepare(const struct gate_contender *c)
{
    if (c->prepare != NULL) c->prepare(c->context);
}

static double seconds_of(const struct gate_contender *c, long calls)
{
    const double begin = probe_seconds();
    for (long i = 0; i < calls; i++)
        c->call(c->context);
    return (probe_seconds() - begin) / (double)calls;
}

/* Doubles until a repetition is a fair part of its length, so that a cold first call does not decide. */
static long calls_for(const struct gate_contender *c)
{
    long calls = 1;
    double each;
    prepare(c);
    c->call(c->context);
    while ((each = seconds_of(c, calls)) * (double)calls < REPETITION_SECONDS / 4)
        calls *= 2;
    const long whole = (long)(REPETITION_SECONDS / each) + 1;
    return each >= REPETITION_SECONDS ? 1 : whole;
}

static struct gate_sample repetition(const struct gate_contender *c, long calls)
{
    prepare(c);
    const double before = probe(), ran = thread_seconds(), seconds = seconds_of(c, calls);
    const double share = (thread_seconds() - ran) / (seconds * (double)calls), after = probe();
    return (struct gate_sample){
        .seconds = seconds,
        .peak = before > after ? before : after,
        .quiet = before < after ? before : after,
        .share = share,
    };
}

static int round_counts(const struct gate *gate, int n, int round)
{
    for (int i = 0; i < n; i++) {
        const struct gate_sample *s = &gate->sample[i][round];
        if (s->quiet < QUIET * best_probe || s->share < UNDISTURBED) return 0;
    }
    return 1;
}

static int rounds_that_count(const struct gate *gate, int n)
{
    int counted = 0;
    for (int r = 0; r < gate->rounds; r++)
        counted += round_counts(gate, n, r);
    return counted;
}

void gate_measure(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds)
{
    long calls[GATE_CONTENDERS];
    gate_best_probe();
    const double begin = probe_seconds();
    for (int i = 0; i < n; i++)
        calls[i] = calls_for(&contenders[i]);

    gate->rounds = 0;
    do {
        for (int i = 0; i < n; i++)
            gate->sample[i][gate->rounds] = repetition(&contenders[i], calls[i]);
        gate->rounds++;
    } while (gate->rounds < GATE_ROUNDS && rounds_that_count(gate, n) < wanted && probe_seconds() - begin < seconds);

    gate->counted = 0;
    for (int r = 0; r < gate->rounds; r++) {
        if (!round_counts(gate, n, r)) continue;
        for (int i = 0; i < n; i++)
            gate->sample[i][gate->counted] = gate->sample[i][r];
        gate->counted++;
    }
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct gate_spread gate_spread_of(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(values[0]), ascending);
    return (struct gate_spread){values[0], 0.5 * (values[(n - 1) / 2] + values[n / 2]), values[n - 1]};
}
