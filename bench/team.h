/* Threads of the host, for calls that a team shares: started once, each pinned to a core of its own. */
#ifndef TRIL_BENCH_TEAM_H
#define TRIL_BENCH_TEAM_H

#ifdef __cplusplus
extern "C" {
#endif

struct team;

/* On how many cores this process may run; hardware threads of one core count once. */
int team_cores(void);

/* A team whose thread 0 is the caller, which is pinned as well until team_stop(). Null where there are not so many
 * cores. */
struct team *team_start(int threads);
void team_stop(struct team *team);

/* f on every thread at once; returns when all are done. */
void team_run(struct team *team, void (*f)(void *context, int thread), void *context);

/* How the others wait for work: spinning, which starts a call within a fraction of a microsecond, or asleep, which
 * leaves their cores alone while thread 0 works by itself. Asleep at first. */
void team_spin(struct team *team, int spin);

#ifdef __cplusplus
}
#endif
#endif
