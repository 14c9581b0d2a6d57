// The weights otherwise than as a matrix of f32: their column sums, and the matrix in 16 bits.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

#include "measure.h"
#include "operands.h"
#include "points.h"

namespace bench
{
namespace
{

const Shape prompt = {8, 2, 128, 2048, 2048}, long_prompt = {8, 2, 128, 8192, 8192};
const Shape trial = {2, 1, 16, 32, 32};
constexpr int64_t last_rows = 64; // as those look at that drop keys after a prompt

// The sums of the last `rows` rows, beside the attention of the same rows.
void columns(benchmark::State &state, const char *tier, const Shape &shape, int64_t rows)
{
    const Operands x(shape);
    TierCall sums(tier, x), attend(tier, x);
    const Memory a = sums.ask_weights(shape, TRIL_WEIGHTS_COLUMN_SUMS);
    sums.to.last_rows = rows;
    attend.seqs[0].q_first = shape.queries - rows;
    attend.seqs[0].q_len = rows;
    if (refused(state, {&sums, &attend})) return;
    const std::vector<float> result = result_of(sums.contender(), a);
    const double total = std::accumulate(result.begin(), result.end(), 0.0), rows_of_1 = double(rows * shape.q_heads);
    if (refused(state, {&sums})) return;
    if (!(std::fabs(total - rows_of_1) < 1e-3 * rows_of_1)) return state.SkipWithError("the sums are wrong");
    if (!measure(state, {sums.contender(), attend.contender()}) || refused(state, {&sums, &attend})) return;
    Shape summed = shape;
    summed.queries = rows;
    report(state, summed.weights_flops());
    state.counters["of_attend"] = seconds_ratio(0, 1);
}

// The matrix in 16 bits, beside that in f32, of which it is the rounding.
void dense(benchmark::State &state, const char *tier, const Shape &shape, tril_dtype dtype)
{
    const Operands x(shape);
    TierCall call(tier, x), in_f32(tier, x);
    const Memory a = call.ask_weights(shape, TRIL_WEIGHTS_DENSE, dtype);
    const Memory wide = in_f32.ask_weights(shape, TRIL_WEIGHTS_DENSE), rounded(a.bytes());
    if (refused(state, {&call, &in_f32})) return;
    for (TierCall *c : {&call, &in_f32}) {
        c->use();
        c->run();
    }
    if (refused(state, {&call, &in_f32})) return;
    tril_convert(rounded.data(), dtype, nullptr, wide.data(), TRIL_F32, nullptr, a.bytes() / types[dtype].bytes);
    if (std::memcmp(rounded.data(), a.data(), size_t(a.bytes())) != 0)
        return state.SkipWithError("the contenders' results differ");
    if (!measure(state, {call.contender(), in_f32.contender()}) || refused(state, {&call, &in_f32})) return;
    report(state, shape.weights_flops());
    state.counters["of_f32"] = seconds_ratio(1, 0);
}

// Whether this library does it.
bool gives(const char *tier, tril_weights_form form, tril_dtype dtype)
{
    const Operands x(trial);
    TierCall call(tier, x);
    const Memory a = call.ask_weights(trial, form, dtype);
    return call.works();
}

} // namespace

void add_forms(const char *tier)
{
    const std::string id = tier;
    if (gives(tier, TRIL_WEIGHTS_COLUMN_SUMS, TRIL_F32)) {
        add("weights/columns/" + id + "/" + prompt.name(),
            [=](benchmark::State &s) { columns(s, tier, prompt, prompt.queries); });
        add("weights/columns/" + id + "/" + long_prompt.name() + "/last" + std::to_string(last_rows),
            [=](benchmark::State &s) { columns(s, tier, long_prompt, last_rows); });
    }
    for (tril_dtype dtype : {TRIL_F16, TRIL_BF16})
        if (gives(tier, TRIL_WEIGHTS_DENSE, dtype))
            add("weights/" + std::string(types[dtype].name) + "/" + id + "/dense/" + prompt.name(),
                [=](benchmark::State &s) { dense(s, tier, prompt, dtype); });
}

} // namespace bench
