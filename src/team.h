/* How the threads of a team share a call: who does which task, and who comes last. Atomic counters at the start of the
 * workspace; no thread ever waits for another.
 *
 * Nothing has to be reset between calls. A call has a number. The thread that comes first moves `turn` on to it, and in
 * the same step turns to the other of the two claim counters, which lies at 0: the thread that began the call before
 * has put it there. A thread that comes late finds its call's number in `turn`, and no task left. */
#ifndef TRIL_TEAM_H
#define TRIL_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "plan.h"

#define TRIL_LINE 64 /* a cache line: counters that threads write keep apart */

struct tril_team {
    _Alignas(TRIL_LINE) _Atomic uint64_t turn; /* the call's number * 2 + which claim counter */
    struct {
        _Alignas(TRIL_LINE) _Atomic uint64_t next; /* the task that nobody has begun */
    } claim[2];
    _Alignas(TRIL_LINE) _Atomic uint64_t calls[TRIL_MAX_THREADS]; /* to which each thread has come; team_call 0 only */
    _Alignas(TRIL_LINE) _Atomic uint32_t done[TRIL_MAX_SPLIT_UNITS]; /* parts of a split unit; 0 between calls */
};
_Static_assert(sizeof(struct tril_team) % TRIL_LINE == 0, "what follows is aligned");

/* Joins call `number` (0: the thread's next one); says which claim counter serves it. */
int tril_team_join(struct tril_team *team, uint64_t number, int thread, int threads);
/* A task for the caller alone: 0, 1, 2 ... */
uint64_t tril_team_claim(struct tril_team *team, int which);
/* One of the unit's parts is done; true for the thread that completes it, which sees what the others wrote. */
bool tril_team_completes(struct tril_team *team, int64_t unit, int64_t parts);

#endif
