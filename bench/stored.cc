// Calls with operands of their own that take turns: K and V in every type, in pages beside contiguous, and math mode
// BF16 beside F32. A ratio above 1 says faster than what it is compared with.

#include <string>
#include <utility>

#include "measure.h"
#include "operands.h"
#include "points.h"
#include "turns.h"

namespace bench
{
namespace
{

const Shape prompt = {8, 2, 128, 2048, 2048}, small_heads = {8, 8, 64, 2048, 2048};
const Shape token = {32, 8, 128, 1, 32768}, token_panels = {32, 8, 128, 1, 32768, true};
const tril_dtype paged_types[] = {TRIL_F32, TRIL_F16};
const Shape math_shapes[] = {{8, 2, 128, 512, 512}, prompt, {8, 2, 128, 4096, 4096}, small_heads};

const std::string of_pages = "paged" + std::to_string(page_tokens);

// For every call what `figures` makes of it, and how much faster than its reference it is.
template <class F> void count(benchmark::State &state, const Turns &turns, F figures)
{
    turns.each([&](const std::string &name, const Shape &shape, int i, int reference) {
        figures(name, shape, i);
        if (reference != i) state.counters[name + "_of_" + turns.name(reference)] = seconds_ratio(reference, i);
    });
}

void count_attend(benchmark::State &state, const Turns &turns)
{
    count(state, turns, [&](const std::string &name, const Shape &shape, int i) {
        state.counters[name] = of_peak(i, shape.attend_flops()).median;
    });
}

void count_decode(benchmark::State &state, const Turns &turns)
{
    count(state, turns, [&](const std::string &name, const Shape &shape, int i) {
        state.counters[name + "_GBps"] = 1e-9 * double(shape.kv_bytes()) / seconds(i).median;
        state.counters[name + "_tokens_per_s"] = double(shape.queries) / seconds(i).median;
    });
}

// K and V in every type, `first` being what the others are compared with.
bool turn_types(benchmark::State &state, Turns &turns, const Shape &shape, tril_dtype first)
{
    turns.add(types[first].name, Operands(shape.stored_as(first)));
    for (int i = 0; i < TRIL_DTYPE_COUNT; i++)
        if (i != first) turns.add(types[i].name, Operands(shape.stored_as(tril_dtype(i))));
    return turns.run(state);
}

void compare_attend_types(benchmark::State &state, const char *tier, const Shape &shape)
{
    Turns turns(tier);
    if (turn_types(state, turns, shape, TRIL_F32)) count_attend(state, turns);
}

void compare_decode_types(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    Turns turns(tier, threads);
    if (turn_types(state, turns, shape, TRIL_F16)) count_decode(state, turns);
}

// Contiguous and in pages, in some types.
bool turn_pages(benchmark::State &state, Turns &turns, const Shape &shape)
{
    int reference = 0;
    for (tril_dtype type : paged_types) {
        Operands contiguous(shape.stored_as(type)), pages = paged(contiguous);
        const std::string name = types[type].name;
        turns.add(name, std::move(contiguous), reference);
        turns.add(name + "_" + of_pages, std::move(pages), reference, Result::same);
        reference += 2;
    }
    return turns.run(state);
}

void compare_attend_pages(benchmark::State &state, const char *tier, const Shape &shape)
{
    Turns turns(tier);
    if (turn_pages(state, turns, shape)) count_attend(state, turns);
}

void compare_decode_pages(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    Turns turns(tier, threads);
    if (turn_pages(state, turns, shape)) count_decode(state, turns);
}

// One type in pages, beside itself without.
void in_pages(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    Turns turns(tier, threads);
    Operands contiguous(shape), pages = paged(contiguous);
    turns.add(of_pages, std::move(pages));
    turns.add("contiguous", std::move(contiguous), 0, Result::same);
    if (!turns.run(state)) return;
    report(state, shape.attend_flops(), threads);
    if (shape.queries == 1) state.counters["GBps"] = 1e-9 * double(shape.kv_bytes()) / seconds(0).median;
    state.counters["of_contiguous"] = seconds_ratio(1, 0);
}

// Math mode BF16 with K and V in bf16, beside f32 throughout. Emulated it has no peak to be a share of.
void in_bf16(benchmark::State &state, const char *tier, const Shape &shape)
{
    Turns turns(tier);
    turns.add("bf16math", Operands(shape.stored_as(TRIL_BF16).multiplied_in(TRIL_MATH_BF16)));
    turns.add("f32", Operands(shape));
    if (!turns.run(state)) return;
    if (turns.call(0).of_pairs())
        report(state, shape.attend_flops());
    else
        state.counters["GFLOPS"] = 1e-9 * shape.attend_flops() / seconds(0).median;
    state.counters["of_f32"] = seconds_ratio(1, 0);
}

} // namespace

void add_math(const char *tier)
{
    for (const Shape &shape : math_shapes)
        add("attend/bf16math/" + std::string(tier) + "/" + shape.name(),
            [=](benchmark::State &s) { in_bf16(s, tier, shape); });
}

void add_stored(const char *tier)
{
    const std::string id = tier;
    const int cores = team_cores();
    for (tril_dtype type : paged_types) {
        const Shape shape = prompt.stored_as(type);
        add("attend/" + std::string(shape.type_name()) + "/" + id + "/" + shape.name() + "/" + of_pages,
            [=](benchmark::State &s) { in_pages(s, tier, shape, 1); });
    }
    for (const Shape &shape : {prompt, small_heads})
        add("compare/attend/types/" + id + "/" + shape.name(),
            [=](benchmark::State &s) { compare_attend_types(s, tier, shape); });
    add("compare/attend/pages/" + id + "/" + prompt.name(),
        [=](benchmark::State &s) { compare_attend_pages(s, tier, prompt); });

    for (int threads = 1; threads <= 2 && threads <= cores; threads++) {
        const std::string by = "/t" + std::to_string(threads);
        for (tril_dtype type : paged_types)
            for (const Shape &layout : {token, token_panels}) {
                const Shape shape = layout.stored_as(type);
                add("decode/" + std::string(shape.type_name()) + "/" + id + "/" + shape.cache() + "/" + of_pages + by,
                    [=](benchmark::State &s) { in_pages(s, tier, shape, threads); });
            }
        add("compare/decode/types/" + id + "/" + token.cache() + by,
            [=](benchmark::State &s) { compare_decode_types(s, tier, token, threads); });
        for (const Shape &shape : {token, token_panels})
            add("compare/decode/pages/" + id + "/" + shape.cache() + by,
                [=](benchmark::State &s) { compare_decode_pages(s, tier, shape, threads); });
    }
}

} // namespace bench
