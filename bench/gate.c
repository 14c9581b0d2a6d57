/* See gate.h. */
#define _POSIX_C_SOURCE 199309L
#include "gate.h"

#include <stdlib.h>
#include <time.h>

#define QUIET              0.9  /* of the best probe */
#define UNDISTURBED        0.98 /* of the time spent running */
#define REPETITION_SECONDS 3e-3 /* some thirty times the probe beside it */

static double best_probe[PROBE_KINDS];

static void saw(enum probe_kind kind, double gflops)
{
    if (gflops > best_probe[kind]) best_probe[kind] = gflops;
}

double gate_best_probe(enum probe_kind kind)
{
    if (best_probe[kind] == 0.0)
        for (int i = 0; i < 200; i++)
            saw(kind, probe_gflops(kind));
    return best_probe[kind];
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

/* What a repetition asks of every thread. */
struct team_state {
    enum probe_kind kind;
    double probe[GATE_THREADS], ran[GATE_THREADS];
};

static void probe_thread(void *context, int thread)
{
    struct team_state *state = context;
    state->probe[thread] = probe_gflops(state->kind);
}

static void clock_thread(void *context, int thread)
{
    ((struct team_state *)context)->ran[thread] = thread_seconds();
}

static void on_each(const struct gate_team *team, void (*f)(void *, int), struct team_state *state)
{
    if (team != NULL)
        team->run(team->pool, f, state);
    else
        f(state, 0);
}

static double mean_of(const double *values, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += values[i];
    return sum / n;
}

static struct gate_sample repetition(const struct gate_team *team, const struct gate_contender *c, int used, long calls)
{
    const int threads = team != NULL ? team->threads : 1;
    struct team_state before = {.kind = c->peak}, after = {.kind = c->peak};
    prepare(c);
    on_each(team, probe_thread, &before);
    on_each(team, clock_thread, &before);
    const double seconds = seconds_of(c, calls);
    on_each(team, clock_thread, &after);
    on_each(team, probe_thread, &after);

    const double first = mean_of(before.probe, threads), last = mean_of(after.probe, threads);
    struct gate_sample s = {
        .seconds = seconds, .peak = first > last ? first : last, .quiet = before.probe[0], .share = 1.0};
    for (int i = 0; i < threads; i++) {
        const double low = before.probe[i] < after.probe[i] ? before.probe[i] : after.probe[i];
        const double high = before.probe[i] > after.probe[i] ? before.probe[i] : after.probe[i];
        const double share = (after.ran[i] - before.ran[i]) / (seconds * (double)calls);
        if (low < s.quiet) s.quiet = low;
        saw(c->peak, high);
        if (i < used && share < s.share) s.share = share;
    }
    return s;
}

static int sample_counts(const struct gate_sample *s, const struct gate_contender *c)
{
    return s->quiet >= QUIET * best_probe[c->peak] && s->share >= UNDISTURBED;
}

/* Sets own[] and `counted` to how many samples count, only in rounds in which those of the first `together` contenders
 * all do; with `keep` drops the others. */
static void verdict(struct gate *gate, const struct gate_contender *contenders, int n, int together, int keep)
{
    int count[GATE_ROUNDS];
    for (int r = 0; r < gate->rounds; r++) {
        count[r] = 1;
        for (int i = 0; i < together; i++)
            count[r] &= sample_counts(&gate->sample[i][r], &contenders[i]);
    }
    gate->counted = gate->rounds;
    for (int i = 0; i < n; i++) {
        int own = 0;
        for (int r = 0; r < gate->rounds; r++) {
            if (!count[r] || !sample_counts(&gate->sample[i][r], &contenders[i])) continue;
            if (keep) gate->sample[i][own] = gate->sample[i][r];
            own++;
        }
        gate->own[i] = own;
        if (own < gate->counted) gate->counted = own;
    }
}

static void measure(struct gate *gate, const struct gate_team *team, const struct gate_contender *contenders, int n,
                    int wanted, double seconds, int together)
{
    long calls[GATE_CONTENDERS];
    for (int i = 0; i < n; i++)
        gate_best_probe(contenders[i].peak);
    const double begin = probe_seconds();
    for (int i = 0; i < n; i++)
        calls[i] = calls_for(&contenders[i]);

    gate->rounds = 0;
    do {
        for (int i = 0; i < n; i++) {
            struct gate_sample *s = &gate->sample[i][gate->rounds];
            *s = repetition(team, &contenders[i], team != NULL ? team->used[i] : 1, calls[i]);
            s->round = gate->rounds;
        }
        gate->rounds++;
        verdict(gate, contenders, n, together, 0);
    } while (gate->rounds < GATE_ROUNDS && gate->counted < wanted && probe_seconds() - begin < seconds);
    verdict(gate, contenders, n, together, 1);
}

void gate_measure(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds)
{
    measure(gate, NULL, contenders, n, wanted, seconds, n);
}

void gate_measure_team(struct gate *gate, const struct gate_team *team, const struct gate_contender *contenders, int n,
                       int wanted, double seconds)
{
    measure(gate, team, contenders, n, wanted, seconds, n);
}

void gate_measure_each(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds)
{
    measure(gate, NULL, contenders, n, wanted, seconds, 0);
}

void gate_measure_beside(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds)
{
    measure(gate, NULL, contenders, n, wanted, seconds, 1);
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
