// See measure.h.

#include "measure.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace bench
{

gate measured; // large; one at a time

namespace
{

double budget()
{
    const char *text = std::getenv("TRIL_BENCH_SECONDS");
    const double seconds = text ? std::atof(text) : 0;
    return seconds > 0 ? seconds : 6;
}

} // namespace

gate_spread spread(const std::function<double(int)> &value)
{
    std::vector<double> values;
    for (int i = 0; i < measured.counted; i++)
        values.push_back(value(i));
    return gate_spread_of(values.data(), int(values.size()));
}

gate_spread of_peak(int contender, double flops)
{
    return spread([=](int i) {
        const gate_sample &s = measured.sample[contender][i];
        return 1e-9 * flops / s.seconds / s.peak;
    });
}

gate_spread seconds(int contender)
{
    return spread([=](int i) { return measured.sample[contender][i].seconds; });
}

double seconds_ratio(int a, int b)
{
    return spread([=](int i) { return measured.sample[a][i].seconds / measured.sample[b][i].seconds; }).median;
}

double longer(int b, int a)
{
    std::vector<double> ratios;
    for (int i = 0, j = 0; i < measured.own[a] && j < measured.own[b];) {
        const gate_sample &s = measured.sample[a][i], &t = measured.sample[b][j];
        if (s.round == t.round) ratios.push_back(t.seconds / s.seconds);
        if (s.round <= t.round) i++;
        if (t.round <= s.round) j++;
    }
    return ratios.empty() ? 0 : gate_spread_of(ratios.data(), int(ratios.size())).median;
}

void plainly(const std::vector<gate_contender> &contenders, int wanted, double seconds)
{
    gate_measure(&measured, contenders.data(), int(contenders.size()), wanted, seconds);
}

void each_alone(const std::vector<gate_contender> &contenders, int wanted, double seconds)
{
    gate_measure_each(&measured, contenders.data(), int(contenders.size()), wanted, seconds);
}

void beside_first(const std::vector<gate_contender> &contenders, int wanted, double seconds)
{
    gate_measure_beside(&measured, contenders.data(), int(contenders.size()), wanted, seconds);
}

bool measure(benchmark::State &state, const std::vector<gate_contender> &contenders, const Rounds &rounds)
{
    constexpr int wanted = 15;
    for (auto _ : state) {
        rounds(contenders, wanted, budget() * double(contenders.size()));
        state.SetIterationTime(measured.counted ? seconds(0).median : 0);
    }
    state.counters["counted"] = measured.counted;
    state.counters["tried"] = measured.rounds;
    if (measured.counted) return true;
    state.SkipWithError("no quiet repetition: something else uses this core");
    return false;
}

bool measure(benchmark::State &state, const std::vector<gate_contender> &contenders, const Team &team,
             const std::vector<int> &used)
{
    if (!team.get()) return measure(state, contenders);
    gate_team g = team.for_gate();
    std::copy(used.begin(), used.end(), g.used);
    return measure(state, contenders, [&](const auto &c, int wanted, double most) {
        gate_measure_team(&measured, &g, c.data(), int(c.size()), wanted, most);
    });
}

bool refused(benchmark::State &state, std::initializer_list<const TierCall *> calls)
{
    for (const TierCall *call : calls) {
        if (call->status == TRIL_OK) continue;
        state.SkipWithError(tril_status_text(call->status));
        return true;
    }
    return false;
}

std::vector<float> result_of(const gate_contender &contender, const Memory &out)
{
    std::memset(out.data(), 0, size_t(out.bytes()));
    if (contender.prepare) contender.prepare(contender.context);
    contender.call(contender.context);
    return {out.floats(), out.floats() + out.bytes() / int64_t(sizeof(float))};
}

void report(benchmark::State &state, double flops, int threads)
{
    const gate_spread share = of_peak(0, flops / threads);
    state.counters["GFLOPS"] = 1e-9 * flops / seconds(0).median;
    state.counters["of_peak"] = share.median;
    state.counters["of_peak_min"] = share.min;
    state.counters["of_peak_max"] = share.max;
}

} // namespace bench
