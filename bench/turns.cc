// See turns.h.

#include "turns.h"

#include <algorithm>
#include <cmath>

namespace bench
{

TierCall &Turns::add(const std::string &name, std::shared_ptr<const Operands> operands, int reference, Result result)
{
    auto call = std::make_unique<TierCall>(tier_, *operands, &team_, team_.threads());
    turns_.push_back({name, std::move(operands), reference, result, std::move(call)});
    return *turns_.back().call;
}

bool Turns::run(benchmark::State &state, const Rounds &alone)
{
    if (!team_.complete()) {
        state.SkipWithError("not so many cores");
        return false;
    }
    std::vector<gate_contender> contenders;
    for (const Turn &t : turns_) {
        t.call->fit_workspace();
        contenders.push_back(t.call->contender());
    }
    if (refused_any(state) || !results_hold(state, contenders)) return false;
    const std::vector<int> used(turns_.size(), team_.threads());
    const bool measured_all = team_.get() ? measure(state, contenders, team_, used) : measure(state, contenders, alone);
    return measured_all && !refused_any(state);
}

bool Turns::refused_any(benchmark::State &state) const
{
    return std::any_of(turns_.begin(), turns_.end(), [&](const Turn &t) { return refused(state, {t.call.get()}); });
}

bool Turns::results_hold(benchmark::State &state, const std::vector<gate_contender> &contenders) const
{
    std::vector<std::vector<float>> results;
    for (size_t i = 0; i < turns_.size(); i++) {
        const Turn &t = turns_[i];
        results.push_back(result_of(contenders[i], t.operands->out));
        if (refused_any(state)) return false;
        const auto finite = [](float x) { return std::isfinite(x); };
        const auto zero = [](float x) { return x == 0; };
        if (!std::all_of(results[i].begin(), results[i].end(), finite) ||
            std::all_of(results[i].begin(), results[i].end(), zero)) {
            state.SkipWithError("a result is missing or not finite");
            return false;
        }
        const bool same = results[i] == results[size_t(t.reference)];
        if (t.result == Result::any || same == (t.result == Result::same)) continue;
        state.SkipWithError(same ? "what was asked for changes nothing" : "the contenders' results differ");
        return false;
    }
    return true;
}

} // namespace bench
