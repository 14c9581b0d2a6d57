// What is multiplied: shapes of calls, and the memory of their operands.
#ifndef TRIL_BENCH_OPERANDS_H
#define TRIL_BENCH_OPERANDS_H

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tril.h"

namespace bench
{

// How a row of K or V is stored: in units of so many values and bytes, besides so many bytes of scale per row.
struct Type {
    const char *name;
    int values, bytes, scale_bytes;
};
extern const Type types[TRIL_DTYPE_COUNT]; // by tril_dtype

constexpr int page_tokens = 16; // of those caches that are paged

struct Shape {
    int q_heads, kv_heads, dim;
    int64_t queries, keys;
    bool panels = false;        // K's layout
    tril_dtype type = TRIL_F32; // of K and V; q and out are f32
    tril_math math = TRIL_MATH_F32;
    int other_v_dim = 0; // the head size of V and the result where it is not dim

    int v_dim() const
    {
        return other_v_dim > 0 ? other_v_dim : dim;
    }
    Shape stored_as(tril_dtype as) const
    {
        Shape s = *this;
        s.type = as;
        return s;
    }
    Shape multiplied_in(tril_math as) const
    {
        Shape s = *this;
        s.math = as;
        return s;
    }
    const char *type_name() const
    {
        return types[type].name;
    }
    std::string heads() const
    {
        return "h" + std::to_string(q_heads) + "x" + std::to_string(kv_heads) + "_d" + std::to_string(dim) +
               (v_dim() != dim ? "_v" + std::to_string(v_dim()) : "");
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
        return 2.0 * (dim + v_dim()) * visible();
    }
    double weights_flops() const
    {
        return 2.0 * dim * visible();
    }
    // Of one token and head of K or V, without what it has of scales elsewhere.
    int64_t row_bytes(int size) const
    {
        return size / types[type].values * types[type].bytes;
    }
    int64_t k_bytes() const
    {
        return keys * kv_heads * row_bytes(dim);
    }
    int64_t v_bytes() const
    {
        return keys * kv_heads * row_bytes(v_dim());
    }
    int64_t scale_bytes() const // of either
    {
        return keys * kv_heads * types[type].scale_bytes;
    }
    // K and V as stored, scales included.
    int64_t kv_bytes() const
    {
        return k_bytes() + v_bytes() + 2 * scale_bytes();
    }
};

// Zeroed memory that begins with a cache line, as a runtime keeps its tensors. Every page of it has been written to.
class Memory
{
  public:
    explicit Memory(int64_t bytes);
    char *data() const
    {
        return data_.get();
    }
    float *floats() const
    {
        return reinterpret_cast<float *>(data_.get());
    }
    int64_t bytes() const
    {
        return bytes_;
    }

  private:
    struct Free {
        void operator()(char *p) const
        {
            std::free(p);
        }
    };
    int64_t bytes_;
    std::unique_ptr<char, Free> data_;
};

// The operands of a shape, filled with noise in -1 ... 1. K, V and their scales lie side by side, so that the read
// probe can run over exactly what decode reads.
struct Operands {
    Shape shape;
    Memory q, kv, out;
    std::vector<int32_t> pages; // the block of every page_tokens tokens; empty: contiguous
    std::vector<tril_seq> seqs;

    explicit Operands(const Shape &); // one sequence
    Operands(const Shape &, const std::vector<tril_seq> &);
    tril_tensor queries() const;
    tril_tensor k() const;
    tril_tensor v() const;
    tril_out result() const;

  private:
    tril_tensor half(int which) const; // of kv
};

// The same keys and values in pages, in an order of chance. Every sequence of `x` begins a page.
Operands paged(const Operands &x);

} // namespace bench
#endif
