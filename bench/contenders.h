// Who takes turns in a measurement: a tier's call, a pure read, the baseline; and the threads that they share.
#ifndef TRIL_BENCH_CONTENDERS_H
#define TRIL_BENCH_CONTENDERS_H

#include <vector>

#include "gate.h"
#include "operands.h"
#include "team.h"
#include "tril.h"

namespace bench
{

// The threads of a measurement. One alone needs no team, and none of its pins.
class Team
{
  public:
    explicit Team(int threads) : threads_(threads), team_(threads > 1 ? team_start(threads) : nullptr) {}
    ~Team()
    {
        if (team_) team_stop(team_);
    }
    Team(const Team &) = delete;
    int threads() const
    {
        return threads_;
    }
    bool complete() const // false: not so many cores
    {
        return threads_ == 1 || team_;
    }
    team *get() const
    {
        return team_;
    }
    // Before a contender's repetition. The others sleep while one thread works.
    void ready(int threads) const
    {
        if (team_) team_spin(team_, threads > 1);
    }
    gate_team for_gate() const;

  private:
    int threads_;
    team *team_;
};

// The pure read of some memory, each thread its own contiguous part.
struct ReadCall {
    const Memory &data;
    const Team *team = nullptr;
    int threads = 1;

    void part(int thread) const;
    void run();
    gate_contender contender();
};

// One tier's call on the operands. A tril_weights call where `to` is set; shared by a team where there is one.
struct TierCall {
    const char *tier;
    const Team *team;
    int threads;
    std::vector<tril_seq> seqs;
    tril_attention call = {};
    tril_weights_out to = {};
    std::vector<char> workspace;
    tril_status status = TRIL_OK;

    TierCall(const char *name, const Operands &x, const Team *with = nullptr, int of = 1);
    TierCall(const TierCall &) = delete;
    // Makes it a call of tril_weights() on operands of that shape. Its result is the caller's to keep.
    Memory ask_weights(const Shape &shape, tril_weights_form form, tril_dtype dtype = TRIL_F32);
    void fit_workspace(); // once more after a change of the call
    bool works();         // runs once: whether this library does it
    void use();
    void share(int thread);
    void run();
    bool of_pairs() const; // whether it runs on the machine's bf16 units, whose peak it is then a share of
    gate_contender contender();
};

// The same call's sequences, each in a call of its own, one after the other on one thread.
struct OneByOne {
    TierCall all;

    OneByOne(const char *tier, const Operands &x, const Team *team) : all(tier, x, team) {}
    void run();
    gate_contender contender();
};

#ifdef TRIL_HAVE_OPENBLAS
struct BaselineCall {
    const Operands &x;
    Memory scratch;

    explicit BaselineCall(const Operands &o);
    void run();
    gate_contender contender();
};
#endif

} // namespace bench
#endif
