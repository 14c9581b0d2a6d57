/* How the threads of a team share a call: who does which task, and who comes last. Atomic counters at the start of the
 * workspace; no thread ever waits for another.
 *
 * Nothing has to be reset between calls. A call has a number. The thread that comes first moves `turn` on to it, and in
 * the same step turns to the other of the two claim counters, which lies at 0: the thread that began the call before
 * has put it there. A thread that comes late finds its call's number in `turn`, and no task left.
 *
 * The parts of a split unit are folded in their order, each as soon as those before it are, by a thread that has just
 * made one: then its states are still in a cache, and no thread is left with all of it when the others have gone. A
 * part that is made while another thread folds is left to that one, which looks for it when it has let go. */
#ifndef TRIL_TEAM_H
#define TRIL_TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "plan.h"

#define TRIL_LINE 64 /* a cache line: counters that threads write keep apart */

struct tril_team {
    _Alignas(TRIL_LINE) _Atomic uint64_t turn; /* the call's number * 2 + which claim counter */
    _Atomic uint64_t mark;                     /* 0; of a workspace that a team has used, what team.c says */
    struct {
        _Alignas(TRIL_LINE) _Atomic uint64_t next; /* the task that nobody has begun */
    } claim[2];
    _Alignas(TRIL_LINE) _Atomic uint64_t calls[TRIL_MAX_THREADS]; /* to which each thread has come; team_call 0 only */
    /* Of a split unit, all 0 between calls: how many parts are folded, and whether a thread is folding; which parts are
     * made and not folded. */
    _Alignas(TRIL_LINE) _Atomic uint32_t folded[TRIL_MAX_SPLIT_UNITS];
    _Alignas(TRIL_LINE) _Atomic uint8_t made[TRIL_MAX_PARTS];
};
_Static_assert(sizeof(struct tril_team) % TRIL_LINE == 0, "what follows is aligned");

/* Whether the workspace was zeroed once, as far as its first words tell: with anything else in it threads could wait
 * for ever for what nobody does. */
bool tril_team_was_zeroed(struct tril_team *team);
/* Joins call `number` (0: the thread's next one); says which claim counter serves it. */
int tril_team_join(struct tril_team *team, uint64_t number, int thread, int threads);
/* A task for the caller alone: 0, 1, 2 ... */
uint64_t tril_team_claim(struct tril_team *team, int which);
/* Part `part` of the unit is made. made: where the unit's parts begin in team->made. */
void tril_team_made(struct tril_team *team, int64_t made, int64_t part);
/* The part that is to be folded next, for the caller alone, who sees what others have written, until it says
 * tril_team_folded(). Negative: it is not made yet, or another thread folds. */
int64_t tril_team_turn(struct tril_team *team, int64_t unit, int64_t made);
/* It is folded; next: the one after it, 0 after the last one. */
void tril_team_folded(struct tril_team *team, int64_t unit, int64_t next);

#endif
