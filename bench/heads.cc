// Head sizes of models, most of them no multiple of 64. Beside such a one, in the same rounds, the same problem with
// its heads padded by zeros to the next multiple: what a library would do that knows only those.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "measure.h"
#include "operands.h"
#include "points.h"

namespace bench
{
namespace
{

constexpr int64_t tokens = 1024;

struct Size {
    int qk, v;
};
const Size sizes[] = {{40, 40},   {48, 48},   {64, 64},   {72, 72},   {80, 80},   {96, 96},  {112, 112},
                      {128, 128}, {160, 160}, {192, 128}, {256, 256}, {512, 512}, {576, 512}};

int padded(int size)
{
    return (size + 63) / 64 * 64;
}

Shape padded(Shape s)
{
    s.other_v_dim = padded(s.v_dim());
    s.dim = padded(s.dim);
    return s;
}

void pad_rows(float *to, int to_size, const float *from, int from_size, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        float *rest = std::copy_n(from + r * from_size, from_size, to + r * to_size);
        std::fill(rest, to + (r + 1) * to_size, 0.0f);
    }
}

// Of operands in f32 rows.
Operands padded(const Operands &x)
{
    const Shape &s = x.shape;
    Operands y(padded(s));
    const int64_t v = s.k_bytes() / int64_t(sizeof(float)), v_padded = y.shape.k_bytes() / int64_t(sizeof(float));
    pad_rows(y.q.floats(), y.shape.dim, x.q.floats(), s.dim, s.queries * s.q_heads);
    pad_rows(y.kv.floats(), y.shape.dim, x.kv.floats(), s.dim, s.keys * s.kv_heads);
    pad_rows(y.kv.floats() + v_padded, y.shape.v_dim(), x.kv.floats() + v, s.v_dim(), s.keys * s.kv_heads);
    return y;
}

// Zeros add nothing to a score: padding must not change a bit.
bool same_results(const std::vector<float> &a, int a_size, const std::vector<float> &b, int b_size)
{
    for (size_t r = 0; r < a.size() / size_t(a_size); r++)
        if (!std::equal(&a[r * size_t(a_size)], &a[r * size_t(a_size)] + a_size, &b[r * size_t(b_size)])) return false;
    return true;
}

void heads(benchmark::State &state, const char *tier, const Shape &shape)
{
    const Operands x(shape), with_zeros = padded(x);
    const Shape &large = with_zeros.shape;
    TierCall call(tier, x), of_padded(tier, with_zeros);
    call.call.scale = of_padded.call.scale = float(1 / std::sqrt(double(shape.dim)));
    if (refused(state, {&call, &of_padded})) return;
    std::vector<gate_contender> contenders = {call.contender()};
    const bool pads = large.dim != shape.dim || large.v_dim() != shape.v_dim();
    if (pads) {
        contenders.push_back(of_padded.contender());
        const std::vector<float> result = result_of(contenders[0], x.out);
        if (!same_results(result, shape.v_dim(), result_of(contenders[1], with_zeros.out), large.v_dim()))
            return state.SkipWithError("the contenders' results differ");
    }
    if (!measure(state, contenders) || refused(state, {&call, &of_padded})) return;
    report(state, shape.attend_flops());
    if (!pads) return;
    state.counters["of_padded"] = seconds_ratio(1, 0);
    state.counters["of_next"] = seconds_ratio(1, 0) * shape.attend_flops() / large.attend_flops();
}

} // namespace

void add_heads(const char *tier)
{
    for (const Size &size : sizes) {
        Shape shape = {8, 2, size.qk, tokens, tokens};
        shape.other_v_dim = size.v;
        add("compare/heads/" + std::string(tier) + "/" + shape.name(),
            [=](benchmark::State &s) { heads(s, tier, shape); });
    }
}

} // namespace bench
