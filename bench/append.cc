// Filling a cache: tokens of a K, one call after the other at the next place, round and round.

#include <algorithm>
#include <cstring>
#include <string>

#include "measure.h"
#include "operands.h"
#include "points.h"

namespace bench
{
namespace
{

struct AppendCall {
    const char *tier;
    Operands x;
    Memory rows;
    int64_t tokens;
    int64_t at = 0;
    tril_tensor cache = {}, from = {};
    tril_status status = TRIL_OK;

    // The cache of `shape`, whose size is a multiple of `n` tokens.
    AppendCall(const char *name, const Shape &shape, int64_t n)
        : tier(name), x(shape), rows(n * shape.kv_heads * shape.dim * int64_t(sizeof(float))), tokens(n)
    {
        const int64_t row = shape.dim * int64_t(sizeof(float));
        std::fill_n(rows.floats(), rows.bytes() / int64_t(sizeof(float)), 0.75f);
        cache = x.k();
        from.data = rows.data();
        from.bytes = rows.bytes();
        from.token_stride = shape.kv_heads * row;
        from.head_stride = row;
        use();
    }
    void use()
    {
        if (status == TRIL_OK) status = tril_force_isa(tier);
    }
    void run()
    {
        const tril_status s = tril_append(&cache, at, &from, 0, tokens, x.shape.kv_heads, x.shape.dim);
        if (s != TRIL_OK) status = s;
        at = (at + tokens) % x.shape.keys;
    }
    gate_contender contender()
    {
        return {[](void *c) { static_cast<AppendCall *>(c)->use(); },
                [](void *c) { static_cast<AppendCall *>(c)->run(); }, this, PROBE_F32};
    }
};

void append(benchmark::State &state, const char *tier, const Shape &shape, int64_t tokens)
{
    AppendCall call(tier, shape, tokens);
    if (call.status == TRIL_OK && !measure(state, {call.contender()})) return;
    if (call.status != TRIL_OK) return state.SkipWithError(tril_status_text(call.status));
    const double bytes = double(shape.k_bytes() + shape.scale_bytes()) / double(shape.keys);
    state.counters["tokens_per_s"] = double(tokens) / seconds(0).median;
    state.counters["GBps"] = 1e-9 * (double(call.rows.bytes()) + double(tokens) * bytes) / seconds(0).median;
}

// Whether this library does it: a call that is accepted, and writes something.
bool can_append(const char *tier, const Shape &cache)
{
    constexpr int64_t n = 16;
    Shape small = cache;
    small.keys = n;
    AppendCall call(tier, small, n);
    std::memset(call.x.kv.data(), 0, size_t(call.x.kv.bytes()));
    if (call.status == TRIL_OK) call.run();
    tril_force_isa(nullptr);
    const char *begin = call.x.kv.data(), *end = begin + small.k_bytes();
    return call.status == TRIL_OK && std::any_of(begin, end, [](char c) { return c != 0; });
}

} // namespace

void add_append(const char *tier)
{
    for (int type = 0; type < TRIL_DTYPE_COUNT; type++)
        for (bool panels : {false, true}) {
            const Shape cache = {8, 8, 128, 1, 4096, panels, tril_dtype(type)};
            if (!can_append(tier, cache)) continue;
            for (int64_t tokens : {1, 512}) // one that was decoded, a part of a prompt
                add("append/" + std::string(cache.type_name()) + "/" + tier + "/" + cache.cache() + "/n" +
                        std::to_string(tokens),
                    [=](benchmark::State &s) { append(s, tier, cache, tokens); });
        }
}

} // namespace bench
