// See contenders.h.

#include "contenders.h"

#include "probe.h"
#include "tiers.h"
#ifdef TRIL_HAVE_OPENBLAS
#include "baseline.h"
#endif

namespace bench
{

gate_team Team::for_gate() const
{
    gate_team g = {};
    g.threads = threads_;
    g.run = [](void *pool, void (*f)(void *, int), void *context) { team_run(static_cast<team *>(pool), f, context); };
    g.pool = team_;
    return g;
}

void ReadCall::part(int thread) const
{
    const int64_t pages = data.bytes() / 4096, begin = pages * thread / threads, end = pages * (thread + 1) / threads;
    probe_read(data.data() + begin * 4096, size_t(end - begin) * 4096);
}

void ReadCall::run()
{
    const auto each = [](void *c, int thread) { static_cast<ReadCall *>(c)->part(thread); };
    if (threads == 1)
        probe_read(data.data(), size_t(data.bytes()));
    else
        team_run(team->get(), each, this);
}

gate_contender ReadCall::contender()
{
    return {[](void *c) {
                const auto &r = *static_cast<ReadCall *>(c);
                if (r.team) r.team->ready(r.threads);
            },
            [](void *c) { static_cast<ReadCall *>(c)->run(); }, this, PROBE_F32};
}

TierCall::TierCall(const char *name, const Operands &x, const Team *with, int of)
    : tier(name), team(with), threads(of), seqs(x.seqs)
{
    const Shape &s = x.shape;
    call.struct_size = sizeof(call);
    call.math = s.math;
    call.q_heads = s.q_heads;
    call.kv_heads = s.kv_heads;
    call.qk_dim = s.dim;
    call.v_dim = s.v_dim();
    call.q = x.queries();
    call.k = x.k();
    call.v = x.v();
    call.out = x.result();
    call.seqs = seqs.data();
    call.n_seqs = int64_t(seqs.size());
    if (!x.pages.empty()) {
        call.block_tokens = page_tokens;
        call.n_blocks = int64_t(x.pages.size());
    }
    fit_workspace();
}

Memory TierCall::ask_weights(const Shape &shape, tril_weights_form form, tril_dtype dtype)
{
    const int64_t element = types[dtype].bytes, row = shape.keys;
    int64_t cells = row; // of one head
    if (form == TRIL_WEIGHTS_DENSE) cells = shape.queries * row;
    if (form == TRIL_WEIGHTS_PACKED) cells = int64_t(shape.visible()) / shape.q_heads;
    Memory a(shape.q_heads * cells * element);
    to.struct_size = sizeof(to);
    to.data = a.data();
    to.bytes = a.bytes();
    to.head_stride = cells * element;
    to.row_stride = form == TRIL_WEIGHTS_PACKED ? 0 : row * element;
    to.form = form;
    to.dtype = dtype;
    return a;
}

bool TierCall::works()
{
    fit_workspace();
    if (status == TRIL_OK) run();
    tril_force_isa(nullptr);
    return status == TRIL_OK;
}

void TierCall::fit_workspace()
{
    size_t bytes = 0;
    use();
    if (status == TRIL_OK) status = tril_workspace(&call, threads, &bytes);
    workspace.assign(bytes, 0); // zeros, as a team wants it
}

void TierCall::use()
{
    if (team) team->ready(threads);
    if (status == TRIL_OK) status = tril_force_isa(tier);
}

void TierCall::share(int thread)
{
    const tril_status s = tril_attend_team(&call, workspace.data(), workspace.size(), thread, threads);
    if (thread == 0 && s != TRIL_OK) status = s; // every thread gets the same
}

void TierCall::run()
{
    if (threads > 1) {
        const auto each = [](void *c, int thread) { static_cast<TierCall *>(c)->share(thread); };
        team_run(team->get(), each, this);
        return;
    }
    const tril_status s = to.data ? tril_weights(&call, &to, workspace.data(), workspace.size())
                                  : tril_attend(&call, workspace.data(), workspace.size());
    if (s != TRIL_OK) status = s;
}

bool TierCall::of_pairs() const
{
    return call.math == TRIL_MATH_BF16 && tier_by_instruction(tier, TRIL_MATH_BF16);
}

gate_contender TierCall::contender()
{
    return {[](void *c) { static_cast<TierCall *>(c)->use(); }, [](void *c) { static_cast<TierCall *>(c)->run(); },
            this, of_pairs() ? PROBE_BF16 : PROBE_F32};
}

void OneByOne::run()
{
    all.call.n_seqs = 1;
    for (const tril_seq &seq : all.seqs) {
        all.call.seqs = &seq;
        all.run(); // its workspace is the whole batch's, which is no smaller
    }
}

gate_contender OneByOne::contender()
{
    return {[](void *c) { static_cast<OneByOne *>(c)->all.use(); }, [](void *c) { static_cast<OneByOne *>(c)->run(); },
            this, PROBE_F32};
}

#ifdef TRIL_HAVE_OPENBLAS
BaselineCall::BaselineCall(const Operands &o)
    : x(o), scratch(int64_t(sizeof(float) *
                            baseline_scratch_floats(o.shape.q_heads, o.shape.kv_heads, o.shape.dim, int(o.shape.keys))))
{
}

void BaselineCall::run()
{
    const Shape &s = x.shape;
    const auto *k = static_cast<const float *>(x.k().data), *v = static_cast<const float *>(x.v().data);
    baseline_attend_openblas(s.q_heads, s.kv_heads, s.dim, int(s.queries), x.q.floats(), k, v, x.out.floats(),
                             scratch.floats());
}

gate_contender BaselineCall::contender()
{
    return {nullptr, [](void *c) { static_cast<BaselineCall *>(c)->run(); }, this, PROBE_F32};
}
#endif

} // namespace bench
