// Calls of one tier that take turns in the same rounds.
#ifndef TRIL_BENCH_TURNS_H
#define TRIL_BENCH_TURNS_H

#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contenders.h"
#include "measure.h"
#include "operands.h"

namespace bench
{

// What a call's result has to be, beside that of its reference: a contender that computes something else has no place
// in a comparison, nor has one that does not do what it was asked for.
enum class Result { any, same, other };

class Turns
{
  public:
    explicit Turns(const char *tier, int threads = 1) : tier_(tier), team_(threads) {}

    // A call on operands that it keeps, compared with the call of number `reference`. It may be changed until run().
    TierCall &add(const std::string &name, std::shared_ptr<const Operands> operands, int reference = 0,
                  Result result = Result::any);
    TierCall &add(const std::string &name, Operands &&operands, int reference = 0, Result result = Result::any)
    {
        return add(name, std::make_shared<const Operands>(std::move(operands)), reference, result);
    }

    const TierCall &call(int i) const
    {
        return *turns_[size_t(i)].call;
    }

    // False, and the reason in `state`, if there is no figure to give. `alone`: the rounds of one thread without a
    // team.
    bool run(benchmark::State &state, const Rounds &alone = plainly);

    // After run(), for every call: f(name, shape, number, number of its reference).
    template <class F> void each(F f) const
    {
        for (int i = 0; i < int(turns_.size()); i++)
            f(turns_[size_t(i)].name, turns_[size_t(i)].operands->shape, i, turns_[size_t(i)].reference);
    }
    const std::string &name(int i) const
    {
        return turns_[size_t(i)].name;
    }

  private:
    struct Turn {
        std::string name;
        std::shared_ptr<const Operands> operands;
        int reference;
        Result result;
        std::unique_ptr<TierCall> call;
    };

    bool refused_any(benchmark::State &state) const;
    bool results_hold(benchmark::State &state, const std::vector<gate_contender> &contenders) const;

    const char *tier_;
    Team team_;
    std::vector<Turn> turns_;
};

} // namespace bench
#endif
