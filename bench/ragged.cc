// A batch as a server has it: sequences of very different lengths, most with a new token, some with a whole prompt, in
// one call by a team. Beside it, in the same rounds, each in a call of its own on one thread.

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "measure.h"
#include "operands.h"
#include "points.h"

namespace bench
{
namespace
{

constexpr int sequences = 64, least = 16, octaves = 9; // 16 ... 8192 keys
constexpr int threads = 2;

struct Batch {
    Shape shape; // all of them together
    std::vector<tril_seq> seqs;
    double flops;
};

// Lengths are log-uniform; every tenth sequence is a prompt. With this seed the longest keys are 7951 and the longest
// prompt is 3047, so that a round takes about half a second.
Batch batch(tril_dtype type)
{
    Batch b = {{8, 2, 128, 0, 0, false, type}, {}, 0};
    std::mt19937 random(29);
    for (int i = 0; i < sequences; i++) {
        tril_seq seq = {};
        seq.kv_len = int64_t(least * std::exp2(octaves * (double(random()) * 0x1p-32)));
        seq.q_len = i % 10 == 9 ? seq.kv_len : 1;
        seq.q_first = b.shape.queries;
        seq.kv_first = b.shape.keys;
        b.seqs.push_back(seq);
        b.shape.queries += seq.q_len;
        b.shape.keys += (seq.kv_len + page_tokens - 1) / page_tokens * page_tokens; // the next one begins a page
        Shape alone = b.shape;
        alone.queries = seq.q_len;
        alone.keys = seq.kv_len;
        b.flops += alone.attend_flops();
    }
    return b;
}

void ragged(benchmark::State &state, const char *tier, const Batch &b, bool in_pages)
{
    const Operands contiguous(b.shape, b.seqs), x = in_pages ? paged(contiguous) : Operands(b.shape, b.seqs);
    const Team team(threads);
    if (!team.complete()) return state.SkipWithError("not so many cores");
    TierCall call(tier, x, &team, threads);
    OneByOne each(tier, x, &team);
    if (refused(state, {&call, &each.all})) return;
    const std::vector<gate_contender> contenders = {call.contender(), each.contender()};
    if (result_of(contenders[0], x.out) != result_of(contenders[1], x.out))
        return state.SkipWithError("the contenders' results differ");
    if (!measure(state, contenders, team, {threads, 1}) || refused(state, {&call, &each.all})) return;
    report(state, b.flops, threads);
    state.counters["of_ideal"] = seconds_ratio(1, 0) / threads;
    state.counters["sequences_per_s"] = double(b.seqs.size()) / seconds(0).median;
}

void add_batch(const char *tier, tril_dtype type, bool in_pages)
{
    const Batch b = batch(type);
    add("ragged/" + std::string(b.shape.type_name()) + "/" + tier + "/" + b.shape.heads() + "_s" +
            std::to_string(sequences) + "_k" + std::to_string(least << octaves) +
            (in_pages ? "/paged" + std::to_string(page_tokens) : "") + "/t" + std::to_string(threads),
        [=](benchmark::State &s) { ragged(s, tier, b, in_pages); });
}

} // namespace

void add_ragged(const char *tier)
{
    if (team_cores() < threads) return;
    add_batch(tier, TRIL_F32, false);
    add_batch(tier, TRIL_F16, true);
}

} // namespace bench
