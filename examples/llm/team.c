/* A barrier is all that the threads need: they wait at it for work, and within the work for each other. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "llm.h"

/* Most waits are shorter than falling asleep would be. After so many looks, who looks on lets others run: with more
 * threads than cores the one that is waited for may be among them. */
enum { LOOKS = 1000 };

struct team {
    int threads;
    void (*f)(void *, int);
    void *context;
    atomic_int born, come;
    atomic_uint turn; /* how often all have come */
};

void team_wait(struct team *t)
{
    const unsigned turn = atomic_load(&t->turn);
    if (atomic_fetch_add(&t->come, 1) + 1 == t->threads) {
        atomic_store(&t->come, 0);
        atomic_store(&t->turn, turn + 1);
        return;
    }
    for (int looks = 0; atomic_load(&t->turn) == turn; looks++) {
        if (looks >= LOOKS) sched_yield();
    }
}

static void *live(void *argument)
{
    struct team *t = argument;
    const int number = atomic_fetch_add(&t->born, 1) + 1;
    for (;; team_wait(t)) {
        team_wait(t);
        t->f(t->context, number);
    }
    return NULL;
}

struct team *team_new(int threads)
{
    struct team *t = need(1, sizeof *t);
    t->threads = threads;
    for (int i = 1; i < threads; i++) {
        pthread_t handle;
        if (pthread_create(&handle, NULL, live, t) != 0)
            die("--threads %d: the system lets this program have %d; give at most so many", threads, i);
    }
    return t;
}

void team_run(struct team *t, void (*f)(void *, int), void *context)
{
    t->f = f;
    t->context = context;
    team_wait(t);
    f(context, 0);
    team_wait(t);
}
