/* Times calls on a machine that others use too.
 *
 *     round 1:   probe  A A A  probe   probe  B B B  probe        A B A B ...: what slows the machine down for longer
 *     round 2:   probe  A A A  probe   probe  B B B  probe        than a round slows both, and their ratio stays
 *
 * A repetition is enough calls to last 3 ms, or one longer call. A round counts only if every probe in it reached 90 %
 * of the best probe that this process has seen, and this thread kept its core in between: 98 % of the time went to it.
 * The verdict is taken at the end, when that best is known. Probes see a neighbour on the core, not one on the memory:
 * compare memory-bound contenders within a round. */
#ifndef TRIL_BENCH_GATE_H
#define TRIL_BENCH_GATE_H

#ifdef __cplusplus
extern "C" {
#endif

enum { GATE_CONTENDERS = 8, GATE_ROUNDS = 2048 };

struct gate_contender {
    void (*prepare)(void *context); /* before each repetition, not timed; may be null */
    void (*call)(void *context);
    void *context;
};

struct gate_sample {
    double seconds; /* of one call */
    double peak;    /* the higher of the two probes, GFLOP/s: a share of it is not flattered by a slow probe */
    double quiet;   /* the lower */
    double share;   /* of the time that this thread was running */
};

struct gate {
    int rounds, counted;                                     /* how many were run, and how many of them count */
    struct gate_sample sample[GATE_CONTENDERS][GATE_ROUNDS]; /* the counted ones, in order of time */
};

struct gate_spread {
    double min, median, max;
};

/* Runs rounds until `wanted` of them count, or `seconds` have passed, or GATE_ROUNDS were run; at least one. */
void gate_measure(struct gate *gate, const struct gate_contender *contenders, int n, int wanted, double seconds);

/* The best probe so far, GFLOP/s; the first call looks for it for 20 ms. */
double gate_best_probe(void);

/* Of n > 0 values, which it sorts. */
struct gate_spread gate_spread_of(double *values, int n);

#ifdef __cplusplus
}
#endif
#endif
