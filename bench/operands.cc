// See operands.h.

#include "operands.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <utility>

namespace bench
{

const Type types[TRIL_DTYPE_COUNT] = {
    {"f32", 1, 4, 0}, {"f16", 1, 2, 0}, {"bf16", 1, 2, 0}, {"i8", 1, 1, 4}, {"q8_0", 32, 34, 0}, {"q4_0", 32, 18, 0},
};
static_assert(TRIL_DTYPE_COUNT == 6 && TRIL_Q4_0 == 5, "a line for every type, in their order");

namespace
{

constexpr int64_t f32 = int64_t(sizeof(float));

class Noise
{
  public:
    explicit Noise(uint32_t seed) : seed_(seed) {}
    float value()
    {
        return float(int32_t(next())) * 0x1p-31f;
    }
    char byte()
    {
        return char(next() >> 24); // the lower bits of such a generator have short periods
    }

  private:
    uint32_t next()
    {
        return seed_ = seed_ * 1664525u + 1013904223u;
    }
    uint32_t seed_;
};

uint32_t bits_of(float x)
{
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    return bits;
}

// Of |x| <= 1, toward 0; what would be subnormal becomes 0.
uint16_t to_f16(float x)
{
    const uint32_t bits = bits_of(x), magnitude = (bits & 0x7fffffff) >> 13, bias = (127 - 15) << 10;
    return uint16_t(bits >> 16 & 0x8000) | uint16_t(magnitude > bias + 0x3ff ? magnitude - bias : 0);
}

// One unit of a row, its numbers in -1 ... 1.
void fill_unit(char *to, tril_dtype type, Noise &noise)
{
    const float x = type <= TRIL_BF16 ? noise.value() : 0;
    const uint16_t upper = uint16_t(bits_of(x) >> 16), half = to_f16(x), a_128th = 0x2000, an_8th = 0x3000;
    switch (type) {
    case TRIL_F32: std::memcpy(to, &x, sizeof(x)); return;
    case TRIL_F16: std::memcpy(to, &half, sizeof(half)); return;
    case TRIL_BF16: std::memcpy(to, &upper, sizeof(upper)); return;
    case TRIL_Q8_0: std::memcpy(to, &a_128th, sizeof(a_128th)); break;
    case TRIL_Q4_0: std::memcpy(to, &an_8th, sizeof(an_8th)); break;
    default: break;
    }
    for (int i = types[type].values > 1 ? int(sizeof(uint16_t)) : 0; i < types[type].bytes; i++)
        to[i] = noise.byte();
}

void fill(char *to, int64_t bytes, tril_dtype type, uint32_t seed)
{
    Noise noise(seed);
    for (int64_t i = 0; i < bytes; i += types[type].bytes)
        fill_unit(to + i, type, noise);
}

std::vector<tril_seq> one_sequence(const Shape &s)
{
    tril_seq seq = {};
    seq.q_len = s.queries;
    seq.kv_len = s.keys;
    return {seq};
}

} // namespace

Memory::Memory(int64_t bytes)
    : bytes_(bytes), data_(static_cast<char *>(std::aligned_alloc(4096, size_t(bytes + 4095) / 4096 * 4096)))
{
    if (!data_) std::abort();
    std::memset(data_.get(), 0, size_t(bytes));
}

Operands::Operands(const Shape &s) : Operands(s, one_sequence(s)) {}

Operands::Operands(const Shape &s, const std::vector<tril_seq> &sequences)
    : shape(s), q(s.queries * s.q_heads * s.dim * f32), kv(s.kv_bytes()), out(s.queries * s.q_heads * s.v_dim() * f32),
      seqs(sequences)
{
    fill(q.data(), q.bytes(), TRIL_F32, 1);
    const int64_t values = s.k_bytes() + s.v_bytes();
    fill(kv.data(), values, s.type, 2);
    std::fill_n(reinterpret_cast<float *>(kv.data() + values), 2 * s.scale_bytes() / f32, 1.0f / 128);
}

tril_tensor Operands::queries() const
{
    tril_tensor t = {};
    t.data = q.data();
    t.bytes = q.bytes();
    t.token_stride = shape.q_heads * shape.dim * f32;
    t.head_stride = shape.dim * f32;
    return t;
}

tril_tensor Operands::half(int which) const
{
    const int64_t row = shape.row_bytes(which == 0 ? shape.dim : shape.v_dim()), scale = types[shape.type].scale_bytes;
    tril_tensor t = {};
    t.data = kv.data() + which * shape.k_bytes();
    t.bytes = which == 0 ? shape.k_bytes() : shape.v_bytes();
    t.token_stride = shape.kv_heads * row;
    t.head_stride = row;
    t.dtype = shape.type;
    if (scale > 0) {
        const char *scales = kv.data() + shape.k_bytes() + shape.v_bytes() + which * shape.scale_bytes();
        t.scales = reinterpret_cast<const float *>(scales);
        t.scales_bytes = shape.scale_bytes();
        t.scale_token_stride = shape.kv_heads * scale;
        t.scale_head_stride = scale;
    }
    if (pages.empty()) return t;
    t.block_stride = page_tokens * t.token_stride;
    t.scale_block_stride = page_tokens * t.scale_token_stride;
    return t;
}

tril_tensor Operands::k() const
{
    tril_tensor t = half(0);
    if (shape.panels) {
        t.layout = TRIL_PANELS;
        t.head_stride *= 16; // a panel of one head comes before that of the next
    }
    return t;
}

tril_tensor Operands::v() const
{
    return half(1);
}

tril_out Operands::result() const
{
    tril_out t = {};
    t.data = out.data();
    t.bytes = out.bytes();
    t.token_stride = shape.q_heads * shape.v_dim() * f32;
    t.head_stride = shape.v_dim() * f32;
    return t;
}

Operands paged(const Operands &x)
{
    const Shape &s = x.shape;
    const int64_t n = s.keys / page_tokens;
    if (s.keys % page_tokens != 0) std::abort();
    Operands y(s, x.seqs);
    for (int64_t i = 0; i < n; i++)
        y.pages.push_back(int32_t(i));
    std::mt19937 random(7);
    for (int64_t i = n - 1; i > 0; i--)
        std::swap(y.pages[size_t(i)], y.pages[random() % size_t(i + 1)]);

    // Of K, V, K's scales and V's: a page is one piece of each, in panels too.
    int64_t begin = 0;
    for (int64_t bytes : {s.k_bytes(), s.v_bytes(), s.scale_bytes(), s.scale_bytes()}) {
        const int64_t page = bytes / n;
        for (int64_t i = 0; i < n; i++)
            std::memcpy(y.kv.data() + begin + y.pages[size_t(i)] * page, x.kv.data() + begin + i * page, size_t(page));
        begin += bytes;
    }
    for (tril_seq &seq : y.seqs) {
        if (seq.kv_first % page_tokens != 0) std::abort();
        seq.blocks = y.pages.data() + seq.kv_first / page_tokens;
        seq.kv_first = 0;
    }
    return y;
}

} // namespace bench
