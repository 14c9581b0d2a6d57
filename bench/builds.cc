// Another build of the library beside this one, so that a change is measured in one run: TRIL_BENCH_OTHER is the path
// of its libtril.so. It is called by its public functions alone, with this build's structs, in the same tier, on the
// same operands and in the same workspace.

#include <dlfcn.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "measure.h"
#include "operands.h"
#include "points.h"

namespace bench
{
namespace
{

const Shape prompts[] = {{8, 2, 128, 2048, 2048}, {8, 8, 64, 2048, 2048}};
const Shape new_tokens[] = {{32, 8, 128, 1, 1024}, {32, 8, 128, 1, 32768}};
const Shape matrix = {8, 2, 128, 1024, 1024};

class Library
{
  public:
    decltype(&tril_force_isa) force_isa = nullptr;
    decltype(&tril_workspace) workspace = nullptr;
    decltype(&tril_attend) attend = nullptr;
    decltype(&tril_weights) weights = nullptr;

    explicit Library(const char *path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL))
    {
        if (!handle_) error_ = dlerror();
        find("tril_force_isa", force_isa);
        find("tril_workspace", workspace);
        find("tril_attend", attend);
        find("tril_weights", weights);
    }
    ~Library()
    {
        if (handle_) dlclose(handle_);
    }
    Library(const Library &) = delete;
    const std::string &error() const // empty: it can be called
    {
        return error_;
    }

  private:
    template <class F> void find(const char *name, F &f)
    {
        if (!error_.empty()) return;
        f = reinterpret_cast<F>(dlsym(handle_, name));
        if (!f) error_ = dlerror();
    }

    void *handle_;
    std::string error_;
};

// The other library's answer to a call of this one's.
struct OtherCall {
    const Library &library;
    TierCall &same;
    tril_status status = TRIL_OK;

    OtherCall(const Library &other, TierCall &call) : library(other), same(call)
    {
        size_t bytes = 0;
        use();
        if (status == TRIL_OK) status = library.workspace(&same.call, 1, &bytes);
        if (bytes > same.workspace.size()) same.workspace.resize(bytes);
    }
    void use()
    {
        if (status == TRIL_OK) status = library.force_isa(same.tier);
    }
    void run()
    {
        std::vector<char> &w = same.workspace;
        const tril_status s = same.to.data ? library.weights(&same.call, &same.to, w.data(), w.size())
                                           : library.attend(&same.call, w.data(), w.size());
        if (s != TRIL_OK) status = s;
    }
    gate_contender contender()
    {
        return {[](void *c) { static_cast<OtherCall *>(c)->use(); },
                [](void *c) { static_cast<OtherCall *>(c)->run(); }, this, PROBE_F32};
    }
};

// Their results need not be the same: the contract may have changed between the two.
bool alike(const std::vector<float> &a, const std::vector<float> &b)
{
    for (size_t i = 0; i < a.size(); i++)
        if (!(std::fabs(a[i] - b[i]) <= 1e-4f)) return false;
    return true;
}

void beside(benchmark::State &state, const char *path, TierCall &call, const Memory &out, double flops)
{
    const Library library(path);
    if (!library.error().empty()) return state.SkipWithError(library.error().c_str());
    OtherCall other(library, call);
    const auto refused_either = [&] {
        if (other.status != TRIL_OK)
            state.SkipWithError(("the other: " + std::string(tril_status_text(other.status))).c_str());
        return other.status != TRIL_OK || refused(state, {&call});
    };
    if (refused_either()) return;
    const std::vector<gate_contender> contenders = {call.contender(), other.contender()};
    const bool holds = alike(result_of(contenders[0], out), result_of(contenders[1], out));
    if (refused_either()) return;
    if (!holds) return state.SkipWithError("the contenders' results differ");
    if (!measure(state, contenders) || refused_either()) return;
    report(state, flops);
    state.counters["of_other"] = seconds_ratio(1, 0);
}

void attend(benchmark::State &state, const char *path, const char *tier, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    beside(state, path, call, x.out, shape.attend_flops());
}

void weights(benchmark::State &state, const char *path, const char *tier, const Shape &shape)
{
    const Operands x(shape);
    TierCall call(tier, x);
    const Memory a = call.ask_weights(shape, TRIL_WEIGHTS_DENSE);
    beside(state, path, call, a, shape.weights_flops());
}

} // namespace

void add_builds(const char *tier)
{
    const char *path = std::getenv("TRIL_BENCH_OTHER");
    if (!path || !*path) return;
    for (const Shape &shape : prompts)
        add("compare/other/attend/" + shape.name(), [=](benchmark::State &s) { attend(s, path, tier, shape); });
    for (const Shape &shape : new_tokens)
        add("compare/other/decode/" + shape.cache(), [=](benchmark::State &s) { attend(s, path, tier, shape); });
    add("compare/other/weights/" + matrix.name(), [=](benchmark::State &s) { weights(s, path, tier, matrix); });
}

} // namespace bench
