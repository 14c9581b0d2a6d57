// The harness: tier x operation x dtype x shape, registered at start-up from the library's own list of tiers, so that a
// tier that exists is measured. See gate.h for what is counted and docs/performance.md for how to read it.
//
//     attend/f32/avx512/h32x8_d128_q2048_k2048        32 query heads, 8 K/V heads, head size, queries, keys
//     weights/f32/avx2/packed/h8x2_d128_q1024_k1024
//     attend/f32/avx512/h32x8_d128_q2048_k2048/t2     a team of two threads, against one in the same rounds
//     decode/f32/avx512/h32x8_d128_k32768/t1          one new token, against a pure read of K and V; K in rows
//     decode/f32/avx512/h32x8_d128_k32768_panels/t2   ... and in panels; two threads, one thread, and both reads
//     chunk/f32/avx512/h32x8_d128_k4096/q7            7 new tokens at the end of a cache
//     chunk/table/avx512/h32x8_d128_k4096             all chunk sizes, in turn
//     overhead/f32/avx512/h1_d64_q1_k16               what a call costs beside its arithmetic
//     compare/attend/f32/h8x2_d128_q2048_k2048        all tiers and the baseline, A B A B
//
// Google Benchmark calls a function of ours once; repetitions, gating and statistics are gate.c's.

#include <benchmark/benchmark.h>

#include <algorithm>
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
#include "team.h"
#include "tril.h"
#ifdef TRIL_HAVE_OPENBLAS
#include "baseline.h"
#endif

namespace
{

struct Shape {
    int q_heads, kv_heads, dim;
    int64_t queries, keys;
    bool panels = false; // K's layout

    std::string heads() const
    {
        return "h" + std::to_string(q_heads) + "x" + std::to_string(kv_heads) + "_d" + std::to_string(dim);
    }
    std::string cache() const
    {
        return heads() + "_k" + std::to_string(keys) + (panels ? "_panels" : "");
    }
    std::string name() const
    {
        return heads() + "_q" + std::to_string(queries) + "_k" + std::to_string(keys);
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

const Shape team_shape = {32, 8, 128, 2048, 2048};

const std::vector<Shape> chunk_shapes = {{32, 8, 128, 128, 4096}, {8, 8, 128, 128, 4096}}; // the largest chunk
const std::vector<int> chunks = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 12,  14, 16,
                                 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128};

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

// The threads of those measurements that want more than one.
class Team
{
  public:
    explicit Team(int threads) : threads_(threads), team_(team_start(threads)) {}
    ~Team()
    {
        if (team_) team_stop(team_);
    }
    Team(const Team &) = delete;
    team *get() const
    {
        return team_;
    }
    // Before a contender's repetition. The others sleep while one thread works.
    void ready(int threads) const
    {
        if (team_) team_spin(team_, threads > 1);
    }
    gate_team for_gate() const
    {
        gate_team g = {};
        g.threads = threads_;
        g.run = [](void *pool, void (*f)(void *, int), void *context) {
            team_run(static_cast<team *>(pool), f, context);
        };
        g.pool = team_;
        return g;
    }

  private:
    int threads_;
    team *team_;
};

// The pure read of what an operand holds, each thread its own contiguous part.
struct ReadCall {
    const Floats &data;
    const Team *team = nullptr;
    int threads = 1;

    void part(int thread) const
    {
        const int64_t pages = data.bytes() / 4096, begin = pages * thread / threads,
                      end = pages * (thread + 1) / threads;
        probe_read(data.data() + begin * 1024, size_t(end - begin) * 4096);
    }
    gate_contender contender()
    {
        return {[](void *c) {
                    const auto &r = *static_cast<ReadCall *>(c);
                    if (r.team) r.team->ready(r.threads);
                },
                [](void *c) {
                    const auto &r = *static_cast<ReadCall *>(c);
                    if (r.threads == 1)
                        probe_read(r.data.data(), size_t(r.data.bytes()));
                    else
                        team_run(
                            r.team->get(), [](void *d, int thread) { static_cast<ReadCall *>(d)->part(thread); }, c);
                },
                this};
    }
};

// One tier's call on the operands. A tril_weights call where `to` is set; shared by a team where there is one.
struct TierCall {
    const char *tier;
    const Team *team;
    int threads;
    tril_attention call = {};
    tril_weights_out to = {};
    tril_seq seq = {};
    std::vector<char> workspace;
    tril_status status = TRIL_OK;

    TierCall(const char *name, const Operands &x, const Team *with = nullptr, int of = 1)
        : tier(name), team(with), threads(of)
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
        if (s.panels) {
            call.k.layout = TRIL_PANELS;
            call.k.head_stride = 16 * row;
        }
        call.v = tensor(x.v(), x.kv.bytes() / 2, s.kv_heads, row);
        call.out.data = x.out.data();
        call.out.bytes = x.out.bytes();
        call.out.token_stride = s.q_heads * row;
        call.out.head_stride = row;
        call.seqs = &seq;
        call.n_seqs = 1;
        use();
        size_t bytes = 0;
        if (status == TRIL_OK) status = tril_workspace(&call, threads, &bytes);
        workspace.resize(bytes); // zeros, as a team wants it
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
        if (team) team->ready(threads);
        if (status == TRIL_OK) status = tril_force_isa(tier);
    }
    void share(int thread)
    {
        const tril_status s = tril_attend_team(&call, workspace.data(), workspace.size(), thread, threads);
        if (thread == 0 && s != TRIL_OK) status = s; // every thread gets the same
    }
    void run()
    {
        if (threads > 1) {
            team_run(
                team->get(), [](void *c, int thread) { static_cast<TierCall *>(c)->share(thread); }, this);
            return;
        }
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

// What runs the rounds: gate_measure() or one of its kin.
void plainly(const std::vector<gate_contender> &contenders, int wanted, double seconds)
{
    gate_measure(&measured, contenders.data(), int(contenders.size()), wanted, seconds);
}

void each_alone(const std::vector<gate_contender> &contenders, int wanted, double seconds)
{
    gate_measure_each(&measured, contenders.data(), int(contenders.size()), wanted, seconds);
}

// Runs the rounds. False, and the reason in `state`, if there is no figure to give.
template <class Rounds = decltype(&plainly)>
bool measure(benchmark::State &state, const std::vector<gate_contender> &contenders, Rounds rounds = plainly)
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

void report(benchmark::State &state, double flops, int threads = 1)
{
    const gate_spread share = of_peak(0, flops / threads);
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
    ReadCall read = {x.kv};
    if (decode) contenders.push_back(read.contender()); // over the same K and V, in the same rounds
    if (refused(state, call) || !measure(state, contenders) || refused(state, call)) return;
    report(state, shape.attend_flops());
    if (!decode) return;
    state.counters["GBps"] = 1e-9 * shape.kv_bytes() / seconds(0).median;
    state.counters["of_read"] = seconds_ratio(1, 0);
}

// One new token, beside a pure read of the same K and V by as many threads; with a team both also on one thread.
void decode(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    const Operands x(shape);
    std::unique_ptr<Team> team; // one thread needs none, and none of its pins
    if (threads > 1) {
        team = std::make_unique<Team>(threads);
        if (!team->get()) return state.SkipWithError("not so many cores");
    }
    TierCall call(tier, x, team.get(), threads), alone(tier, x, team.get());
    ReadCall read = {x.kv, team.get(), threads}, read_alone = {x.kv, team.get(), 1};
    if (refused(state, call) || refused(state, alone)) return;
    std::vector<gate_contender> contenders = {call.contender(), read.contender()};
    bool measured_some;
    if (threads == 1) {
        measured_some = measure(state, contenders);
    } else {
        contenders.push_back(alone.contender());
        contenders.push_back(read_alone.contender());
        gate_team g = team->for_gate();
        g.used[0] = g.used[1] = threads;
        g.used[2] = g.used[3] = 1;
        measured_some = measure(state, contenders, [&](const auto &c, int wanted, double most) {
            gate_measure_team(&measured, &g, c.data(), int(c.size()), wanted, most);
        });
    }
    if (!measured_some || refused(state, call) || refused(state, alone)) return;
    report(state, shape.attend_flops(), threads);
    state.counters["GBps"] = 1e-9 * shape.kv_bytes() / seconds(0).median;
    state.counters["read_GBps"] = 1e-9 * shape.kv_bytes() / seconds(1).median;
    state.counters["of_read"] = seconds_ratio(1, 0);
    if (threads == 1) return;
    state.counters["speedup"] = seconds_ratio(2, 0);
    state.counters["read_speedup"] = seconds_ratio(3, 1);
}

// A prompt by a team, beside one thread.
void attend_team(benchmark::State &state, const char *tier, const Shape &shape, int threads)
{
    const Operands x(shape);
    const Team team(threads);
    if (!team.get()) return state.SkipWithError("not so many cores");
    TierCall call(tier, x, &team, threads), alone(tier, x, &team);
    gate_team g = team.for_gate();
    g.used[0] = threads;
    g.used[1] = 1;
    if (refused(state, call) || refused(state, alone)) return;
    const bool some =
        measure(state, {call.contender(), alone.contender()}, [&](const auto &c, int wanted, double most) {
            gate_measure_team(&measured, &g, c.data(), int(c.size()), wanted, most);
        });
    if (!some || refused(state, call) || refused(state, alone)) return;
    report(state, shape.attend_flops(), threads);
    state.counters["speedup"] = seconds_ratio(1, 0);
}

// A chunk at the end of a cache.
void chunk(benchmark::State &state, const char *tier, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    if (refused(state, call) || !measure(state, {call.contender()}) || refused(state, call)) return;
    report(state, shape.attend_flops());
    state.counters["us_per_token"] = 1e6 * seconds(0).median / double(shape.queries);
}

// How much longer contender b's call takes than a's: the median over the rounds in which both count; 0 without any.
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
        if (refused(state, *calls.back())) return;
        calls.back()->seq.q_len = q;
        contenders.push_back(calls.back()->contender());
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
    if (refused(state, call) || refused(state, of_many)) return;
    if (!measure(state, {call.contender(), of_many.contender()}) || refused(state, call) || refused(state, of_many))
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
    no_query.seq.q_len = 0;
    no_seq.call.n_seqs = 0;
    if (refused(state, no_query) || refused(state, no_seq)) return;
    if (!measure(state, {no_query.contender(), no_seq.contender()}) || refused(state, no_query) ||
        refused(state, no_seq))
        return;
    state.counters["no_query_ns"] = 1e9 * seconds(0).median;
    state.counters["no_seq_ns"] = 1e9 * seconds(1).median;
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
    const int cores = team_cores(); // a point for two threads is only there where they have a core each
    if (cores > 1 && !oracle)
        add("attend/f32/" + id + "/" + team_shape.name() + "/t2",
            [=](benchmark::State &s) { attend_team(s, tier, team_shape, 2); });
    for (const Shape &shape : decode_shapes)
        for (int threads = 1; threads <= 2 && threads <= cores; threads++)
            if (!oracle || shape.attend_flops() <= oracle_flops)
                add("decode/f32/" + id + "/" + shape.cache() + "/t" + std::to_string(threads),
                    [=](benchmark::State &s) { decode(s, tier, shape, threads); });
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
    static const std::string in_use = tril_isa();
    add("overhead/nothing", [](benchmark::State &s) { overhead_of_nothing(s, in_use.c_str()); });
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
