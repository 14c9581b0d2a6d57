/* Times calls on a machine that others use too.
 *
 *     round 1:   probe  A A A  probe   probe  B B B  probe        A B A B ...: what slows the machine down for longer
 *     round 2:   probe  A A A  probe   probe  B B B  probe        than a round slows both, and their ratio stays
 *
 * A repetition is enough calls to last 3 ms, or one longer call. A round counts only if every probe in it reached 90 %
 * of the best of its kind that this process has seen, and this thread kept its core in between: 98 % of the time went
 * to it. The verdict is taken at the end, when that best is known. Probes see a neighbour on the core, not one on the
 * memory: compare memory-bound contenders within a round. */
#ifndef TRIL_BENCH_GATE_H
#define TRIL_BENCH_GATE_H

#include "probe.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { GATE_CONTENDERS = 48, GATE_ROUNDS = 2048, GATE_THREADS = 16 };

struct gate_contender {
    void (*prepare)(void *context); /* before each repetition, not timed; may be null */
    void (*call)(void *context);
    void *context;
    enum probe_kind peak; /* what it is a share of: the probe beside it; one that this machine has */
};

struct gate_sample {
    double seconds; /* of one call */
    double peak;  /* the higher of the two probes, GFLOP/s: a share of it is not flattered by a slow probe. Of a team's
                   * threads the mean, so that its peak is that times its threads. */
    double quiet; /* the lower, of all threads */
    double share; /* of the time that this thread was running; of the contender's threads the least */
    int round;
};

struct gate {
    int rounds, counted;                                     /* how many were run, and how many of them count */
    int own[GATE_CONTENDERS];                                /* how many samples of each contender there are */
    struct gate_sample sample[GATE_CONTENDERS][GATE_ROUNDS]; /* the counted ones, in order of time */
};

/* Threads on cores of their own, the caller being thread 0. All of them probe, side by side, before and after every
 * repetition, also of a contender that uses fewer: what else it is compared with used them all. */
struct gate_team {
    int threads;                                                                  /* at most GATE_THREADS */
    void (*run)(void *pool, void (*f)(void *context, int thread), void *context); /* f on every thread; waits for all */
    void *pool;
    int used[GATE_CONTENDERS]; /* how many of the threads each contender keeps busy */
};

struct gate_spread {
    double min, median, max;
};

/* Runs rounds until `wanted` of them count, or `seconds` have passed, or GATE_ROUNDS were run; at least one. */
void gate_measure(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds);

/* The same with a team. */
void gate_measure_team(struct gate *gate, const struct gate_team *team, const struct gate_contender *contenders, int n,
                       int wanted, double seconds);

/* The same for more contenders than one quiet stretch has room for: a round may count for some of them, gate->own[i]
 * samples of contender i, until each has `wanted`. `counted` is the least of these; samples of one round are found by
 * their `round`. */
void gate_measure_each(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds);

/* The same for contenders that are all compared with the first: for each of the others a round counts only if it does
 * for the first as well. */
void gate_measure_beside(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds);

/* The best probe of that kind so far, GFLOP/s; the first call looks for it for 20 ms. 0 where there is none. */
double gate_best_probe(enum probe_kind kind);

/* Of n > 0 values, which it sorts. */
struct gate_spread gate_spread_of(double *values, int n);

#ifdef __cplusplus
}
#endif
#endif
