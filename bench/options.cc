// What models ask for beside plain attention: other scores, other masks. Each takes turns with plain attention on the
// same operands. Here a ratio is of times, so that above 1 is slower: what the option costs.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "measure.h"
#include "operands.h"
#include "points.h"
#include "turns.h"

namespace bench
{
namespace
{

const Shape prompt = {8, 2, 128, 2048, 2048}, long_prompt = {8, 2, 128, 8192, 8192};
const Shape token = {32, 8, 128, 1, 32768}, drafts = {32, 8, 128, 64, 4096};
const Shape trial = {2, 1, 16, 256, 256};
constexpr int64_t prompt_window = 1024, token_window = 4096, sink_tokens = 4;

// The arrays that options point to, for one shape. In its tree token i hangs under token (i - 1) / branches and sees
// the tokens on its way to the root: all tokens before it where there is one branch.
struct Arrays {
    std::vector<float> logits, slopes;
    int64_t words; // of a row of the tree
    std::vector<uint64_t> tree;

    Arrays(const Shape &s, int branches) : logits(size_t(s.q_heads), 0.5f), words((s.queries + 63) / 64)
    {
        for (int h = 0; h < s.q_heads; h++)
            slopes.push_back(float(std::exp2(-8.0 * (h + 1) / s.q_heads))); // BLOOM's, for a power of two
        for (int64_t i = 0; i < s.queries; i++) {
            const int64_t parent = (i - 1) / branches;
            for (int64_t w = 0; w < words; w++)
                tree.push_back(i > 0 ? tree[size_t(parent * words + w)] : 0);
            tree[size_t(i * words + i / 64)] |= uint64_t(1) << (i % 64);
        }
    }
};

struct Option {
    const char *name;
    void (*ask)(TierCall &, const Arrays &);
    Result result; // beside plain attention's
};

void ask_tree(TierCall &c, const Arrays &a)
{
    c.call.tree = a.tree.data();
    c.call.tree_row_stride = a.words * int64_t(sizeof(uint64_t));
    c.call.tree_bytes = int64_t(a.tree.size() * sizeof(uint64_t));
}

const Option softcap = {"softcap", [](TierCall &c, const Arrays &) { c.call.softcap = 50; }, Result::other};
const Option alibi = {"alibi", [](TierCall &c, const Arrays &a) { c.call.alibi_slopes = a.slopes.data(); },
                      Result::other};
const Option sinks = {"sinks", [](TierCall &c, const Arrays &a) { c.call.sink_logits = a.logits.data(); },
                      Result::other};
const Option prefix = {"prefix", [](TierCall &c, const Arrays &) { c.seqs[0].prefix = 256; }, Result::other};
const Option tree = {"tree", ask_tree, Result::other}, chain = {"tree", ask_tree, Result::same};

// With one branch the tree shows what the triangle shows, and costs what asking it costs; with two it is one of drafts.
struct Contest {
    Shape shape;
    int branches;
    std::vector<Option> options;
};
const std::vector<Contest> contests = {
    {prompt, 1, {softcap, alibi, sinks, prefix, chain}},
    {token, 1, {softcap, alibi, sinks}},
    {drafts, 2, {tree}},
};

// Whether this library does it.
template <class F> bool takes(const char *tier, F ask)
{
    const Operands x(trial);
    TierCall call(tier, x);
    ask(call);
    return call.works();
}

void compare_options(benchmark::State &state, const char *tier, const Contest &contest)
{
    const auto x = std::make_shared<const Operands>(contest.shape);
    const Arrays arrays(contest.shape, contest.branches);
    Turns turns(tier);
    turns.add("plain", x);
    for (const Option &option : contest.options)
        option.ask(turns.add(option.name, x, 0, option.result), arrays);
    if (!turns.run(state, beside_first)) return;
    state.counters["plain"] = of_peak(0, contest.shape.attend_flops()).median;
    for (int i = 1; i <= int(contest.options.size()); i++)
        state.counters[turns.name(i) + "_of_plain"] = longer(i, 0);
}

void ask_window(TierCall &c, int64_t window, int64_t sinks_before)
{
    c.call.window = window;
    c.call.sink_tokens = sinks_before;
}

// How much of a prompt's triangle a window shows.
double share_of_triangle(int64_t tokens, int64_t window, int64_t sinks_before)
{
    double cells = 0;
    for (int64_t p = 0; p < tokens; p++)
        cells += double(std::min(p + 1, window + std::min(sinks_before, std::max<int64_t>(p + 1 - window, 0))));
    return cells / (0.5 * double(tokens) * double(tokens + 1));
}

void compare_window(benchmark::State &state, const char *tier, const Shape &shape)
{
    const auto x = std::make_shared<const Operands>(shape);
    Turns turns(tier);
    turns.add("plain", x);
    ask_window(turns.add("window", x, 0, Result::other), prompt_window, 0);
    ask_window(turns.add("sinks", x, 0, Result::other), prompt_window, sink_tokens);
    if (!turns.run(state, beside_first)) return;
    state.counters["plain"] = of_peak(0, shape.attend_flops()).median;
    for (int i : {1, 2}) {
        const std::string before = i == 1 ? "" : "sinks_";
        const double share = share_of_triangle(shape.keys, prompt_window, i == 1 ? 0 : sink_tokens);
        state.counters[before + "share"] = share;
        state.counters[before + "time_over_share"] = longer(i, 0) / share;
    }
}

// One new token that sees the last keys of a long cache, beside one whose cache holds only those. The window begins a
// block of keys, so that even the bits are the same.
void compare_window_of_token(benchmark::State &state, const char *tier, const Shape &shape)
{
    const auto x = std::make_shared<const Operands>(shape);
    Turns turns(tier);
    TierCall &plain = turns.add("plain", x);
    plain.seqs[0].kv_len = token_window;
    plain.seqs[0].kv_first = shape.keys - token_window;
    ask_window(turns.add("window", x, 0, Result::same), token_window, 0);
    if (turns.run(state, beside_first)) state.counters["window_of_plain"] = longer(1, 0);
}

} // namespace

void add_options(const char *tier)
{
    const std::string id = tier;
    const Arrays arrays(trial, 1);
    for (Contest contest : contests) {
        std::vector<Option> taken;
        for (const Option &option : contest.options)
            if (takes(tier, [&](TierCall &c) { option.ask(c, arrays); })) taken.push_back(option);
        contest.options = taken;
        if (!taken.empty())
            add("compare/options/" + id + "/" + contest.shape.name(),
                [=](benchmark::State &s) { compare_options(s, tier, contest); });
    }
    if (!takes(tier, [](TierCall &c) { ask_window(c, 16, 1); })) return;
    add("compare/window/" + id + "/" + long_prompt.name(),
        [=](benchmark::State &s) { compare_window(s, tier, long_prompt); });
    add("compare/window/" + id + "/" + token.cache(),
        [=](benchmark::State &s) { compare_window_of_token(s, tier, token); });
}

} // namespace bench
