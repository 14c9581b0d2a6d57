// The harness: tier x operation x dtype x shape, registered at start-up from the library's own list of tiers, so that a
// tier that exists is measured, and under its name only what it serves itself: in f32 avx512bf16 is avx512. See gate.h
// for what is counted and docs/performance.md for how to read it.
//
//     attend/f32/avx512/h32x8_d128_q2048_k2048        32 query heads, 8 K/V heads, head size, queries, keys
//     weights/f32/avx2/packed/h8x2_d128_q1024_k1024
//     attend/f32/avx512/h32x8_d128_q2048_k2048/t2     a team of two threads, against one in the same rounds
//     attend/bf16math/avx512bf16/h8x2_d128_q2048_k2048  math mode BF16, K and V in bf16, against f32 throughout
//     decode/f32/avx512/h32x8_d128_k32768/t1          one new token, against a pure read of K and V; K in rows
//     decode/f32/avx512/h32x8_d128_k32768_panels/t2   ... and in panels; two threads, one thread, and both reads
//     decode/q8_0/avx512/h32x8_d128_k32768/t1         K and V in another type
//     decode/f16/avx512/h32x8_d128_k32768/paged16/t1  in pages of 16 tokens, against the same without pages
//     chunk/f32/avx512/h32x8_d128_k4096/q7            7 new tokens at the end of a cache
//     chunk/table/avx512/h32x8_d128_k4096             all chunk sizes, in turn
//     overhead/f32/avx512/h1_d64_q1_k16               what a call costs beside its arithmetic
//     ragged/f32/avx512/h8x2_d128_s64_k8192/t2        64 sequences of up to 8192 keys, against each alone
//     append/f16/avx512/h8x8_d128_k4096_panels/n512   tril_append() of 512 tokens, into a cache of 4096
//     compare/attend/f32/h8x2_d128_q2048_k2048        all tiers and the baseline, A B A B
//     compare/attend/types/avx2/h8x2_d128_q2048_k2048 one tier, K and V in all types, A B C A B C
//     compare/decode/pages/avx2/h32x8_d128_k32768/t2  one tier, contiguous and in pages
//     compare/options/avx512/h8x2_d128_q2048_k2048    one tier, plain and with softcap, alibi, sinks, prefix, tree
//     compare/window/avx512/h8x2_d128_q8192_k8192     one tier, with a window and without
//     weights/f16/avx512/dense/h8x2_d128_q2048_k2048  rounded to f16, against f32 in the same rounds
//     weights/columns/avx512/h8x2_d128_q8192_k8192/last64  sums of the last 64 rows, against their attention
//     compare/heads/avx512/h8x2_d80_q1024_k1024       a head size, against the same padded to 128
//     compare/heads/avx512/h8x2_d192_v128_q1024_k1024  V of another head size
//     compare/other/attend/h8x2_d128_q2048_k2048      another build of the library, TRIL_BENCH_OTHER, and this one
//
// Google Benchmark calls a function of ours once; repetitions, gating and statistics are gate.c's.

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contenders.h"
#include "measure.h"
#include "operands.h"
#include "points.h"
#include "probe.h"
#include "tiers.h"
#include "tril.h"
#ifdef TRIL_HAVE_OPENBLAS
#include "baseline.h"
#endif

using namespace bench;

namespace
{

// Whole prompts; one new token.
const std::vector<Shape> &attend_shapes()
{
    static const std::vector<Shape> shapes = [] {
        std::vector<Shape> s;
        for (int64_t n : {128, 512, 1024, 2048, 4096}) {
            s.push_back({8, 2, 128, n, n});
            s.push_back({8, 8, 64, n, n});
        }
        s.push_back({32, 8, 128, 2048, 2048});
        for (int64_t n : {2048, 4096, 8192, 16384}) // how cost grows
            s.push_back({1, 1, 128, n, n});
        s.push_back({8, 2, 128, 1, 4096});
        s.push_back({1, 1, 64, 128, 128}); // small enough for the oracle
        s.push_back({1, 1, 64, 1, 1024});
        return s;
    }();
    return shapes;
}

const std::vector<Shape> weights_shapes = {
    {8, 2, 128, 512, 512}, {8, 2, 128, 1024, 1024}, {8, 2, 128, 2048, 2048}, {8, 8, 64, 1024, 1024},
    {8, 2, 128, 64, 4096}, {8, 2, 128, 1, 4096},    {1, 1, 64, 128, 128},
};

const std::vector<Shape> compare_shapes = {
    {8, 2, 128, 128, 128},   {8, 8, 64, 128, 128},   {8, 2, 128, 512, 512},    {8, 8, 64, 512, 512},
    {8, 2, 128, 2048, 2048}, {8, 8, 64, 2048, 2048}, {32, 8, 128, 2048, 2048},
};

// Four query heads to a K/V head, and one. 1024 keys of 8 heads fit in L3, and of one call after the other stay there.
const std::vector<Shape> decode_shapes = [] {
    std::vector<Shape> s;
    for (int q_heads : {32, 8})
        for (int64_t keys : {1024, 8192, 32768})
            for (bool panels : {false, true})
                s.push_back({q_heads, 8, 128, 1, keys, panels});
    return s;
}();

// K and V in the other types; the last for the oracle too.
const std::vector<Shape> typed_attend_shapes = {{8, 2, 128, 2048, 2048}, {8, 8, 64, 2048, 2048}, {1, 1, 64, 128, 128}};
const Shape typed_decode_shape = {32, 8, 128, 1, 32768};

const Shape team_shape = {32, 8, 128, 2048, 2048};

const std::vector<Shape> chunk_shapes = {{32, 8, 128, 128, 4096}, {8, 8, 128, 128, 4096}}; // the largest chunk
const std::vector<int> chunks = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 12,  14, 16,
                                 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128};

constexpr double oracle_flops = 2e7; // the scalar tier is an oracle, not a contender: small shapes will do

void attend(benchmark::State &state, const char *tier, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    std::vector<gate_contender> contenders = {call.contender()};
    const bool decode = shape.queries == 1;
    ReadCall read = {x.kv};
    if (decode) contenders.push_back(read.contender()); // over the same K and V, in the same rounds
    if (refused(state, {&call}) || !measure(state, contenders) || refused(state, {&call})) return;
    report(state, shape.attend_flops());
    if (!decode) return;
    state.counters["GBps"] = 1e-9 * double(shape.kv_bytes()) / seconds(0).median;
    state.counters["of_read"] = seconds_ratio(1, 0);
}

// Before a repetition that reads: the part of an Intel Xeon's clock that its L3 hangs on takes some 4 ms to follow a
// call that reads little, or the probe, and in that time a new token takes 2.4 instead of 1.2 ms. So what is short
// would lose more by it than what is long.
constexpr double settling_seconds = 8e-3;

template <typename Call> gate_contender settled(Call &call)
{
    gate_contender contender = call.contender();
    contender.prepare = [](void *context) {
        const gate_contender own = static_cast<Call *>(context)->contender();
        own.prepare(context);
        for (const double begin = probe_seconds(); probe_seconds() - begin < settling_seconds;)
            own.call(context);
    };
    return contender;
}

// One new token, beside a pure read by as many threads; with a team both also on one thread. What is read is the same K
// and V, or, if they are stored in less than f32, other memory of the size that f32 takes: bandwidth is that of the
// memory then as well, and not of a cache into which they fit.
void decode(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    const Operands x(shape);
    const Team team(threads);
    if (!team.complete()) return state.SkipWithError("not so many cores");
    std::unique_ptr<Memory> other;
    if (shape.type != TRIL_F32) other = std::make_unique<Memory>(shape.stored_as(TRIL_F32).kv_bytes());
    const Memory &to_read = other ? *other : x.kv;
    TierCall call(tier, x, &team, threads), alone(tier, x, &team);
    ReadCall read = {to_read, &team, threads}, read_alone = {to_read, &team, 1};
    if (refused(state, {&call, &alone})) return;
    std::vector<gate_contender> contenders = {settled(call), settled(read)};
    if (threads > 1) {
        contenders.push_back(settled(alone));
        contenders.push_back(settled(read_alone));
    }
    if (!measure(state, contenders, team, {threads, threads, 1, 1}) || refused(state, {&call, &alone})) return;
    report(state, shape.attend_flops(), threads);
    state.counters["GBps"] = 1e-9 * double(shape.kv_bytes()) / seconds(0).median;
    state.counters["read_GBps"] = 1e-9 * double(to_read.bytes()) / seconds(1).median;
    state.counters["of_read"] = seconds_ratio(1, 0) * double(shape.kv_bytes()) / double(to_read.bytes());
    if (threads == 1) return;
    state.counters["speedup"] = seconds_ratio(2, 0);
    state.counters["read_speedup"] = seconds_ratio(3, 1);
}

// A prompt by a team, beside one thread.
void attend_team(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    const Operands x(shape);
    const Team team(threads);
    if (!team.complete()) return state.SkipWithError("not so many cores");
    TierCall call(tier, x, &team, threads), alone(tier, x, &team);
    if (refused(state, {&call, &alone})) return;
    if (!measure(state, {call.contender(), alone.contender()}, team, {threads, 1}) || refused(state, {&call, &alone}))
        return;
    report(state, shape.attend_flops(), threads);
    state.counters["speedup"] = seconds_ratio(1, 0);
}

// A chunk at the end of a cache.
void chunk(benchmark::State &state, const char *tier, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    if (refused(state, {&call}) || !measure(state, {call.contender()}) || refused(state, {&call})) return;
    report(state, shape.attend_flops());
    state.counters["us_per_token"] = 1e6 * seconds(0).median / double(shape.queries);
}

// All chunk sizes in turn, every one from 1 to 32: does time rise evenly?
void chunk_table(benchmark::State &state, const char *tier, const Shape &largest)
{
    const Operands x(largest);
    std::vector<int> sizes;
    for (int q = 1; q <= 32; q++)
        sizes.push_back(q);
    for (int q : chunks)
        if (q > 32) sizes.push_back(q);
    std::vector<std::unique_ptr<TierCall>> calls;
    std::vector<gate_contender> contenders;
    for (int q : sizes) {
        calls.push_back(std::make_unique<TierCall>(tier, x));
        if (refused(state, {calls.back().get()})) return;
        calls.back()->seqs[0].q_len = q;
        contenders.push_back(settled(*calls.back()));
    }
    if (!measure(state, contenders, each_alone)) return;

    double worst = 0, beyond = 0;
    int worst_at = 0, beyond_at = 0, falls = 0;
    for (size_t i = 0; i < sizes.size(); i++) {
        char name[16];
        std::snprintf(name, sizeof(name), "q%03d_us", sizes[i]);
        const gate_sample *s = measured.sample[i];
        std::vector<double> values;
        for (int j = 0; j < measured.own[i]; j++)
            values.push_back(1e6 * s[j].seconds);
        state.counters[name] = gate_spread_of(values.data(), int(values.size())).median;

        bool falls_here = false;
        for (size_t j = i + 1; j < sizes.size(); j++) {
            const double ratio = longer(int(j), int(i));
            falls_here |= ratio > 0 && ratio < 0.97;
        }
        falls += falls_here;
        if (i + 1 == sizes.size() || sizes[i + 1] != sizes[i] + 1) continue;
        const double step = longer(int(i) + 1, int(i)), per_row = step * sizes[i] / sizes[i + 1];
        if (step > worst) worst = step, worst_at = sizes[i];
        if (per_row > beyond) beyond = per_row, beyond_at = sizes[i];
    }
    state.counters["worst_step"] = worst; // from worst_step_at to one query more
    state.counters["worst_step_at"] = worst_at;
    state.counters["worst_per_query"] =
        beyond; // the same, of the time per query: above 1 a query more makes all dearer
    state.counters["worst_per_query_at"] = beyond_at;
    state.counters["falls"] = falls; // sizes that some larger chunk undercuts by more than 3 %
}

// What a call costs beside its arithmetic, and that of the same work where 63 more heads share one call.
void overhead(benchmark::State &state, const char *tier)
{
    constexpr int many = 64;
    const Operands one({1, 1, 64, 1, 16}), all({many, many, 64, 1, 16});
    TierCall call(tier, one), of_many(tier, all);
    if (refused(state, {&call, &of_many}) || !measure(state, {call.contender(), of_many.contender()}) ||
        refused(state, {&call, &of_many}))
        return;
    const auto head = [](int i) { // one more of them
        return (measured.sample[1][i].seconds - measured.sample[0][i].seconds) / (many - 1);
    };
    state.counters["call_ns"] = 1e9 * seconds(0).median;
    state.counters["head_ns"] = 1e9 * spread(head).median;
    state.counters["overhead_ns"] = 1e9 * spread([&](int i) { return measured.sample[0][i].seconds - head(i); }).median;
}

// Calls with nothing to do: no query in the one sequence, and no sequence.
void overhead_of_nothing(benchmark::State &state, const char *tier)
{
    const Operands x({1, 1, 64, 1, 16});
    TierCall no_query(tier, x), no_seq(tier, x);
    no_query.seqs[0].q_len = 0;
    no_seq.call.n_seqs = 0;
    if (refused(state, {&no_query, &no_seq}) || !measure(state, {no_query.contender(), no_seq.contender()}) ||
        refused(state, {&no_query, &no_seq}))
        return;
    state.counters["no_query_ns"] = 1e9 * seconds(0).median;
    state.counters["no_seq_ns"] = 1e9 * seconds(1).median;
}

void weights(benchmark::State &state, const char *tier, tril_weights_form form, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    const Memory a = call.ask_weights(shape, form);
    if (refused(state, {&call}) || !measure(state, {call.contender()}) || refused(state, {&call})) return;
    report(state, shape.weights_flops());
}

#ifdef TRIL_HAVE_OPENBLAS
void baseline(benchmark::State &state, const Shape &shape)
{
    const Operands x(shape);
    BaselineCall call(x);
    if (measure(state, {call.contender()})) report(state, shape.attend_flops());
}
#endif

// All tiers but the oracle, and the baseline, in the same rounds. The best tier comes first.
void compare(benchmark::State &state, const std::vector<const char *> &tiers, const Shape &shape)
{
    const Operands x(shape);
    std::vector<std::unique_ptr<TierCall>> calls;
    std::vector<gate_contender> contenders;
    std::vector<std::string> names;
    for (const char *tier : tiers) {
        calls.push_back(std::make_unique<TierCall>(tier, x));
        if (refused(state, {calls.back().get()})) return;
        contenders.push_back(calls.back()->contender());
        names.push_back(tier);
    }
#ifdef TRIL_HAVE_OPENBLAS
    BaselineCall blas(x);
    contenders.push_back(blas.contender());
    names.push_back("openblas");
#endif
    // A contender that computes something else has no place in a comparison.
    const std::vector<float> first = result_of(contenders[0], x.out);
    for (const gate_contender &c : contenders) {
        const std::vector<float> result = result_of(c, x.out);
        for (size_t i = 0; i < result.size(); i++) {
            if (std::fabs(result[i] - first[i]) <= 1e-4f) continue;
            state.SkipWithError("the contenders' results differ");
            return;
        }
    }
    if (!measure(state, contenders)) return;
    for (size_t i = 0; i < contenders.size(); i++) {
        state.counters[names[i]] = of_peak(int(i), shape.attend_flops()).median;
        if (i == 0) continue;
        if (i < tiers.size()) {
            state.counters[names[i] + "_of_" + names[0]] = seconds_ratio(0, int(i));
            // Of a core that computes in wider vectors, half the peak may be all that this tier's can reach.
            const double share = probe_share(tiers[i]);
            if (share < 0.95) state.counters[names[i] + "_of_own"] = state.counters[names[i]] / share;
        } else {
            state.counters[names[0] + "_over_" + names[i]] = seconds_ratio(int(i), 0);
        }
    }
}

void add_tier(const char *tier, bool oracle)
{
    const std::string id = tier;
    const auto add_attend = [&](const Shape &shape) {
        if (!oracle || shape.attend_flops() <= oracle_flops)
            add("attend/" + std::string(shape.type_name()) + "/" + id + "/" + shape.name(),
                [=](benchmark::State &s) { attend(s, tier, shape); });
    };
    for (const Shape &shape : attend_shapes())
        add_attend(shape);
    const int cores = team_cores(); // a point for two threads is only there where they have a core each
    if (cores > 1 && !oracle)
        add("attend/f32/" + id + "/" + team_shape.name() + "/t2",
            [=](benchmark::State &s) { attend_team(s, tier, team_shape, 2); });
    const auto add_decode = [&](const Shape &shape) {
        for (int threads = 1; threads <= 2 && threads <= cores; threads++)
            if (!oracle || shape.attend_flops() <= oracle_flops)
                add("decode/" + std::string(shape.type_name()) + "/" + id + "/" + shape.cache() + "/t" +
                        std::to_string(threads),
                    [=](benchmark::State &s) { decode(s, tier, shape, threads); });
    };
    for (const Shape &shape : decode_shapes)
        add_decode(shape);
    for (int i = TRIL_F32 + 1; i < TRIL_DTYPE_COUNT; i++) {
        for (const Shape &shape : typed_attend_shapes)
            add_attend(shape.stored_as(tril_dtype(i)));
        Shape shape = typed_decode_shape.stored_as(tril_dtype(i));
        add_decode(shape);
        shape.panels = true;
        if (types[i].values == 1) add_decode(shape); // K in blocks of 32 values has no panels
    }
    for (const Shape &largest : chunk_shapes) {
        if (oracle) break;
        for (int queries : chunks) {
            Shape shape = largest;
            shape.queries = queries;
            add("chunk/f32/" + id + "/" + shape.cache() + "/q" + std::to_string(queries),
                [=](benchmark::State &s) { chunk(s, tier, shape); });
        }
        add("chunk/table/" + id + "/" + largest.cache(), [=](benchmark::State &s) { chunk_table(s, tier, largest); });
    }
    add("overhead/f32/" + id + "/h1_d64_q1_k16", [=](benchmark::State &s) { overhead(s, tier); });
    for (const auto &form :
         {std::make_pair("dense", TRIL_WEIGHTS_DENSE), std::make_pair("packed", TRIL_WEIGHTS_PACKED)})
        for (const Shape &shape : weights_shapes)
            if (!oracle || shape.weights_flops() <= oracle_flops)
                add("weights/f32/" + id + "/" + form.first + "/" + shape.name(),
                    [=](benchmark::State &s) { weights(s, tier, form.second, shape); });
    add_append(tier);
    if (oracle) return;
    add_stored(tier);
    add_ragged(tier);
    add_options(tier);
    add_forms(tier);
    add_heads(tier);
}

void add_all()
{
    std::vector<const char *> contenders;
    int usable;
    for (int i = 0; const char *tier = tril_isa_list(i, &usable); i++) {
        if (!usable) continue;
        if (i > 0 && tier_serves(tier, TRIL_MATH_BF16)) add_math(tier);
        if (!tier_serves(tier, TRIL_MATH_F32)) continue;
        add_tier(tier, i == 0);
        if (i > 0) contenders.insert(contenders.begin(), tier);
    }
#ifdef TRIL_HAVE_OPENBLAS
    for (const Shape &shape : attend_shapes())
        if (shape.queries == shape.keys)
            add("attend/f32/openblas/" + shape.name(), [=](benchmark::State &s) { baseline(s, shape); });
#endif
    static const std::string in_use = tril_isa();
    add("overhead/nothing", [](benchmark::State &s) { overhead_of_nothing(s, in_use.c_str()); });
    add_builds(in_use.c_str());
    if (contenders.empty()) return;
    for (const Shape &shape : compare_shapes)
        add("compare/attend/f32/" + shape.name(), [=](benchmark::State &s) { compare(s, contenders, shape); });
}

// Google Benchmark appends how it was told to call us; that says nothing about what was measured.
template <class Reporter> class Plain : public Reporter
{
  public:
    using Reporter::Reporter;
    void ReportRuns(const std::vector<benchmark::BenchmarkReporter::Run> &runs) override
    {
        auto plain = runs;
        for (auto &run : plain) {
            run.run_name.iterations.clear();
            run.run_name.time_type.clear();
        }
        Reporter::ReportRuns(plain);
    }
};

} // namespace

int main(int argc, char **argv)
{
    bool json = false, file = false;
    for (int i = 1; i < argc; i++) {
        json |= std::strcmp(argv[i], "--benchmark_format=json") == 0;
        file |= std::strncmp(argv[i], "--benchmark_out=", 16) == 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;

    char text[64];
    std::snprintf(text, sizeof(text), "%s, %.1f GFLOP/s", probe_name(PROBE_F32), gate_best_probe(PROBE_F32));
    benchmark::AddCustomContext("probe", text);
    if (probe_name(PROBE_BF16)) {
        std::snprintf(text, sizeof(text), "%s, %.1f GFLOP/s", probe_name(PROBE_BF16), gate_best_probe(PROBE_BF16));
        benchmark::AddCustomContext("probe_bf16", text);
    }
    benchmark::AddCustomContext("tril_isa", tril_isa());
#ifdef TRIL_HAVE_OPENBLAS
    benchmark::AddCustomContext("openblas", baseline_core());
#endif
    add_all();

    Plain<benchmark::ConsoleReporter> console(benchmark::ConsoleReporter::OO_None);
    Plain<benchmark::JSONReporter> as_json, to_file;
    benchmark::BenchmarkReporter *display = json ? static_cast<benchmark::BenchmarkReporter *>(&as_json) : &console;
    if (file)
        benchmark::RunSpecifiedBenchmarks(display, &to_file);
    else
        benchmark::RunSpecifiedBenchmarks(display);
    benchmark::Shutdown();
    return 0;
}
