// The harness: tier x operation x dtype x shape, registered at start-up from the library's own list of tiers, so that a
// tier that exists is measured. See gate.h for what is counted and docs/performance.md for how to read it.
//
//     attend/f32/avx512/h32x8_d128_q2048_k2048        32 query heads, 8 K/V heads, head size, queries, keys
//     weights/f32/avx2/packed/h8x2_d128_q1024_k1024
//     compare/attend/f32/h8x2_d128_q2048_k2048        all tiers and the baseline, A B A B
//
// Google Benchmark calls a function of ours once; repetitions, gating and statistics are gate.c's.

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gate.h"
#include "probe.h"
#include "tril.h"
#ifdef TRIL_HAVE_OPENBLAS
#include "baseline.h"
#endif

namespace
{

struct Shape {
    int q_heads, kv_heads, dim;
    int64_t queries, keys;

    std::string name() const
    {
        return "h" + std::to_string(q_heads) + "x" + std::to_string(kv_heads) + "_d" + std::to_string(dim) + "_q" +
               std::to_string(queries) + "_k" + std::to_string(keys);
    }
    // Pairs of a query and a key that it sees: the lower triangle, or what of it the chunk covers.
    double visible() const
    {
        const double n = double(queries), before = double(keys - queries);
        return q_heads * (n * before + n * (n + 1) / 2);
    }
    double attend_flops() const
    {
        return 4.0 * dim * visible();
    }
    double weights_flops() const
    {
        return 2.0 * dim * visible();
    }
    double kv_bytes() const
    {
        return 2.0 * double(keys) * kv_heads * dim * sizeof(float);
    }
};

// Whole prompts; chunks at the end of a cache; one new token.
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
        for (int64_t n : {1, 2, 4, 8, 16, 32, 63, 64})
            s.push_back({8, 2, 128, n, 4096});
        for (int64_t keys : {1024, 32768})
            s.push_back({32, 8, 128, 1, keys});
        s.push_back({1, 1, 64, 128, 128}); // small enough for the oracle
        s.push_back({1, 1, 64, 1, 1024});
        s.push_back({1, 1, 64, 1, 16}); // a call on nothing much
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

constexpr double oracle_flops = 2e7; // the scalar tier is an oracle, not a contender: small shapes will do

// A block of floats on a cache line's start, as a runtime keeps its tensors, filled with noise in -1 ... 1.
class Floats
{
  public:
    explicit Floats(size_t n, uint32_t seed = 0)
        : n_(n), data_(static_cast<float *>(std::aligned_alloc(64, (n * sizeof(float) + 511) / 512 * 512)))
    {
        if (!data_) std::abort();
        for (size_t i = 0; i < n; i++) {
            seed = seed * 1664525u + 1013904223u;
            data_.get()[i] = float(int32_t(seed)) * 0x1p-31f;
        }
    }
    float *data() const
    {
        return data_.get();
    }
    int64_t bytes() const
    {
        return int64_t(n_ * sizeof(float));
    }

  private:
    struct Free {
        void operator()(float *p) const
        {
            std::free(p);
        }
    };
    size_t n_;
    std::unique_ptr<float, Free> data_;
};

// The operands of a shape; K and V side by side, so that the read probe runs over exactly what decode reads.
struct Operands {
    Shape shape;
    Floats q, kv, out;

    explicit Operands(const Shape &s)
        : shape(s), q(size_t(s.queries) * s.q_heads * s.dim, 1), kv(2 * size_t(s.keys) * s.kv_heads * s.dim, 2),
          out(size_t(s.queries) * s.q_heads * s.dim)
    {
    }
    const float *k() const
    {
        return kv.data();
    }
    const float *v() const
    {
        return kv.data() + size_t(shape.keys) * shape.kv_heads * shape.dim;
    }
};

// One tier's call on the operands. A tril_weights call where `to` is set.
struct TierCall {
    const char *tier;
    tril_attention call = {};
    tril_weights_out to = {};
    tril_seq seq = {};
    std::vector<char> workspace;
    tril_status status = TRIL_OK;

    TierCall(const char *name, const Operands &x) : tier(name)
    {
        const Shape &s = x.shape;
        const int64_t row = int64_t(s.dim) * int64_t(sizeof(float));
        seq.q_len = s.queries;
        seq.kv_len = s.keys;
        call.struct_size = sizeof(call);
        call.q_heads = s.q_heads;
        call.kv_heads = s.kv_heads;
        call.qk_dim = call.v_dim = s.dim;
        call.q = tensor(x.q.data(), x.q.bytes(), s.q_heads, row);
        call.k = tensor(x.k(), x.kv.bytes() / 2, s.kv_heads, row);
        call.v = tensor(x.v(), x.kv.bytes() / 2, s.kv_heads, row);
        call.out.data = x.out.data();
        call.out.bytes = x.out.bytes();
        call.out.token_stride = s.q_heads * row;
        call.out.head_stride = row;
        call.seqs = &seq;
        call.n_seqs = 1;
        use();
        size_t bytes = 0;
        if (status == TRIL_OK) status = tril_workspace(&call, 1, &bytes);
        workspace.resize(bytes);
    }
    TierCall(const TierCall &) = delete;

    static tril_tensor tensor(const float *data, int64_t bytes, int heads, int64_t row)
    {
        tril_tensor t = {};
        t.data = data;
        t.bytes = bytes;
        t.token_stride = heads * row;
        t.head_stride = row;
        return t;
    }
    void use()
    {
        if (status == TRIL_OK) status = tril_force_isa(tier);
    }
    void run()
    {
        const tril_status s = to.data ? tril_weights(&call, &to, workspace.data(), workspace.size())
                                      : tril_attend(&call, workspace.data(), workspace.size());
        if (s != TRIL_OK) status = s;
    }
    gate_contender contender()
    {
        return {[](void *c) { static_cast<TierCall *>(c)->use(); }, [](void *c) { static_cast<TierCall *>(c)->run(); },
                this};
    }
};

#ifdef TRIL_HAVE_OPENBLAS
struct BaselineCall {
    const Operands &x;
    Floats scratch;

    explicit BaselineCall(const Operands &o)
        : x(o), scratch(baseline_scratch_floats(o.shape.q_heads, o.shape.kv_heads, o.shape.dim, int(o.shape.keys)))
    {
    }
    gate_contender contender()
    {
        return {nullptr,
                [](void *c) {
                    auto &b = *static_cast<BaselineCall *>(c);
                    const Shape &s = b.x.shape;
                    baseline_attend_openblas(s.q_heads, s.kv_heads, s.dim, int(s.queries), b.x.q.data(), b.x.k(),
                                             b.x.v(), b.x.out.data(), b.scratch.data());
                },
                this};
    }
};
#endif

// What a benchmark learns, from its own contender (and the ratio to another in the same rounds).
gate measured; // large; one at a time

double budget()
{
    const char *text = std::getenv("TRIL_BENCH_SECONDS");
    const double seconds = text ? std::atof(text) : 0;
    return seconds > 0 ? seconds : 6;
}

template <class F> gate_spread spread(F value)
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

// Runs the rounds. False, and the reason in `state`, if there is no figure to give.
bool measure(benchmark::State &state, const std::vector<gate_contender> &contenders)
{
    constexpr int wanted = 15;
    const int n = int(contenders.size());
    for (auto _ : state) {
        gate_measure(&measured, contenders.data(), n, wanted, budget() * n);
        state.SetIterationTime(measured.counted ? seconds(0).median : 0);
    }
    state.counters["counted"] = measured.counted;
    state.counters["tried"] = measured.rounds;
    if (measured.counted) return true;
    state.SkipWithError("no quiet repetition: something else uses this core");
    return false;
}

void report(benchmark::State &state, double flops)
{
    const gate_spread share = of_peak(0, flops);
    state.counters["GFLOPS"] = 1e-9 * flops / seconds(0).median;
    state.counters["of_peak"] = share.median;
    state.counters["of_peak_min"] = share.min;
    state.counters["of_peak_max"] = share.max;
}

bool refused(benchmark::State &state, const TierCall &call)
{
    if (call.status == TRIL_OK) return false;
    state.SkipWithError(tril_status_text(call.status));
    return true;
}

void attend(benchmark::State &state, const char *tier, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    std::vector<gate_contender> contenders = {call.contender()};
    const bool decode = shape.queries == 1;
    if (decode) // the read probe, over the same K and V, in the same rounds
        contenders.push_back({nullptr,
                              [](void *c) {
                                  const auto &kv = static_cast<Operands *>(c)->kv;
                                  probe_read(kv.data(), size_t(kv.bytes()));
                              },
                              const_cast<Operands *>(&x)});
    if (refused(state, call) || !measure(state, contenders) || refused(state, call)) return;
    report(state, shape.attend_flops());
    if (!decode) return;
    state.counters["GBps"] = 1e-9 * shape.kv_bytes() / seconds(0).median;
    state.counters["of_read"] = seconds_ratio(1, 0);
    // What a call costs beyond the least that its arithmetic can take.
    state.counters["over_us"] = 1e6 * spread([&](int i) {
                                          const gate_sample &s = measured.sample[0][i];
                                          return s.seconds - 1e-9 * shape.attend_flops() / s.peak;
                                      }).median;
}

void weights(benchmark::State &state, const char *tier, tril_weights_form form, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    const int64_t cells =
        form == TRIL_WEIGHTS_DENSE ? shape.queries * shape.keys : int64_t(shape.visible()) / shape.q_heads;
    const Floats a(size_t(shape.q_heads * cells));
    call.to.struct_size = sizeof(call.to);
    call.to.data = a.data();
    call.to.bytes = a.bytes();
    call.to.head_stride = cells * int64_t(sizeof(float));
    call.to.row_stride = form == TRIL_WEIGHTS_DENSE ? shape.keys * int64_t(sizeof(float)) : 0;
    call.to.form = form;
    if (refused(state, call) || !measure(state, {call.contender()}) || refused(state, call)) return;
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
        if (refused(state, *calls.back())) return;
        contenders.push_back(calls.back()->contender());
        names.push_back(tier);
    }
#ifdef TRIL_HAVE_OPENBLAS
    BaselineCall blas(x);
    contenders.push_back(blas.contender());
    names.push_back("openblas");
#endif
    // A contender that computes something else has no place in a comparison.
    std::vector<float> first;
    for (const gate_contender &c : contenders) {
        if (c.prepare) c.prepare(c.context);
        c.call(c.context);
        const float *out = x.out.data();
        const size_t n = size_t(x.out.bytes()) / sizeof(float);
        if (first.empty()) first.assign(out, out + n);
        for (size_t i = 0; i < n; i++) {
            if (std::fabs(out[i] - first[i]) <= 1e-4f) continue;
            state.SkipWithError("the contenders' results differ");
            return;
        }
    }
    if (!measure(state, contenders)) return;
    for (size_t i = 0; i < contenders.size(); i++) {
        state.counters[names[i]] = of_peak(int(i), shape.attend_flops()).median;
        if (i == 0) continue;
        if (i < tiers.size())
            state.counters[names[i] + "_of_" + names[0]] = seconds_ratio(0, int(i));
        else
            state.counters[names[0] + "_over_" + names[i]] = seconds_ratio(int(i), 0);
    }
}

template <class F> void add(const std::string &name, F run)
{
    benchmark::RegisterBenchmark(name.c_str(), run)->Iterations(1)->UseManualTime()->Unit(benchmark::kMicrosecond);
}

void add_tier(const char *tier, bool oracle)
{
    const std::string id = tier;
    for (const Shape &shape : attend_shapes())
        if (!oracle || shape.attend_flops() <= oracle_flops)
            add("attend/f32/" + id + "/" + shape.name(), [=](benchmark::State &s) { attend(s, tier, shape); });
    for (const auto &form :
         {std::make_pair("dense", TRIL_WEIGHTS_DENSE), std::make_pair("packed", TRIL_WEIGHTS_PACKED)})
        for (const Shape &shape : weights_shapes)
            if (!oracle || shape.weights_flops() <= oracle_flops)
                add("weights/f32/" + id + "/" + form.first + "/" + shape.name(),
                    [=](benchmark::State &s) { weights(s, tier, form.second, shape); });
}

void add_all()
{
    std::vector<const char *> contenders;
    int usable;
    for (int i = 0; const char *tier = tril_isa_list(i, &usable); i++) {
        if (!usable) continue;
        add_tier(tier, i == 0);
        if (i > 0) contenders.insert(contenders.begin(), tier);
    }
#ifdef TRIL_HAVE_OPENBLAS
    for (const Shape &shape : attend_shapes())
        if (shape.queries == shape.keys)
            add("attend/f32/openblas/" + shape.name(), [=](benchmark::State &s) { baseline(s, shape); });
#endif
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
    std::snprintf(text, sizeof(text), "%s, %.1f GFLOP/s", probe_name(), gate_best_probe());
    benchmark::AddCustomContext("probe", text);
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
