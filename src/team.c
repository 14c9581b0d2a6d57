#include "team.h"

/* Numbers that the library counts itself are above those of the hosts. */
#define COUNTED (UINT64_C(1) << 62)

/* No number that memory is likely to hold. */
#define MARK UINT64_C(0x9d2c5680e7a1b34f)

/* In tril_team.folded: a thread is at it. */
#define FOLDING (UINT32_C(1) << 31)

/* Who sees `turn` moved on sees the mark as well, for it is set before. */
bool tril_team_was_zeroed(struct tril_team *team)
{
    uint64_t mark = atomic_load_explicit(&team->mark, memory_order_acquire);
    if (mark == 0 && atomic_load_explicit(&team->turn, memory_order_acquire) == 0)
        atomic_compare_exchange_strong(&team->mark, &mark, MARK);
    return atomic_load_explicit(&team->mark, memory_order_acquire) == MARK;
}

int tril_team_join(struct tril_team *team, uint64_t number, int thread, int threads)
{
    uint64_t turn = atomic_load_explicit(&team->turn, memory_order_acquire);
    bool counted = number == 0;
    if (counted) {
        /* The thread's next call, unless it has missed some: then it is taken for late, and catches up. */
        const uint64_t here = turn / 2 > COUNTED ? turn / 2 - COUNTED : 0;
        number = atomic_load_explicit(&team->calls[thread], memory_order_relaxed) + 1;
        if (number < here) number = here;
        atomic_store_explicit(&team->calls[thread], number, memory_order_relaxed);
        number += COUNTED;
    }
    while (turn / 2 != number) {
        const uint64_t mine = number * 2 + (1 - turn % 2);
        if (!atomic_compare_exchange_strong_explicit(&team->turn, &turn, mine, memory_order_acq_rel,
                                                     memory_order_acquire))
            continue; /* another was first; turn holds what it wrote */
        atomic_store_explicit(&team->claim[turn % 2].next, 0, memory_order_relaxed);
        /* Those who are not asked to this call do not miss it. */
        for (int i = threads; counted && i < TRIL_MAX_THREADS; i++)
            atomic_store_explicit(&team->calls[i], number - COUNTED, memory_order_relaxed);
        turn = mine;
    }
    return (int)(turn % 2);
}

uint64_t tril_team_claim(struct tril_team *team, int which)
{
    return atomic_fetch_add_explicit(&team->claim[which].next, 1, memory_order_relaxed);
}

void tril_team_made(struct tril_team *team, int64_t made, int64_t part)
{
    atomic_store(&team->made[made + part], 1);
}

/* Stores and loads of `made` and `folded` are in one order that all threads see alike: either the thread that folds
 * finds a part made when it has let go, or the one that made it finds that none folds. */
int64_t tril_team_turn(struct tril_team *team, int64_t unit, int64_t made)
{
    uint32_t next = atomic_load(&team->folded[unit]);
    do {
        if ((next & FOLDING) != 0 || atomic_load(&team->made[made + next]) == 0) return -1;
    } while (!atomic_compare_exchange_weak(&team->folded[unit], &next, next | FOLDING));
    if (atomic_load(&team->made[made + next]) != 0) {
        atomic_store(&team->made[made + next], 0);
        return next;
    }
    /* Others have folded all parts since `next` was read, which is 0 again. */
    atomic_store(&team->folded[unit], next);
    return -1;
}

void tril_team_folded(struct tril_team *team, int64_t unit, int64_t next)
{
    atomic_store(&team->folded[unit], (uint32_t)next);
}
