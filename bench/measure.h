// Rounds of contenders, and the counters that they give. Points of all files share these.
#ifndef TRIL_BENCH_MEASURE_H
#define TRIL_BENCH_MEASURE_H

#include <benchmark/benchmark.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "contenders.h"
#include "gate.h"

namespace bench
{

extern gate measured; // what the last rounds gave

// What runs the rounds: gate_measure() or one of its kin.
using Rounds = std::function<void(const std::vector<gate_contender> &, int wanted, double seconds)>;
void plainly(const std::vector<gate_contender> &contenders, int wanted, double seconds);
void each_alone(const std::vector<gate_contender> &contenders, int wanted, double seconds);
void beside_first(const std::vector<gate_contender> &contenders, int wanted, double seconds);

// Runs the rounds. False, and the reason in `state`, if there is no figure to give.
bool measure(benchmark::State &state, const std::vector<gate_contender> &contenders, const Rounds &rounds = plainly);

// With a team, of which contender i keeps used[i] threads busy.
bool measure(benchmark::State &state, const std::vector<gate_contender> &contenders, const Team &team,
             const std::vector<int> &used);

// True, and the reason in `state`, if a call was refused.
bool refused(benchmark::State &state, std::initializer_list<const TierCall *> calls);

// What a contender writes to `out`, which is cleared before.
std::vector<float> result_of(const gate_contender &contender, const Memory &out);

// Over the counted rounds.
gate_spread spread(const std::function<double(int round)> &value);
gate_spread of_peak(int contender, double flops);
gate_spread seconds(int contender);
double seconds_ratio(int a, int b); // the median of the rounds' ratios

// How much longer contender b's call takes than a's: the median over the rounds in which both count; 0 without any.
double longer(int b, int a);

// GFLOPS and of_peak of contender 0, the peak being its own kind's (gate_contender.peak).
void report(benchmark::State &state, double flops, int threads = 1);

// A point: Google Benchmark calls it once.
template <class F> void add(const std::string &name, F run)
{
    benchmark::RegisterBenchmark(name.c_str(), run)->Iterations(1)->UseManualTime()->Unit(benchmark::kMicrosecond);
}

} // namespace bench
#endif
