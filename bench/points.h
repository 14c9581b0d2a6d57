// The points that have files of their own, one tier's. None of them is for the oracle but those of tril_append().
#ifndef TRIL_BENCH_POINTS_H
#define TRIL_BENCH_POINTS_H

namespace bench
{

void add_turns(const char *tier);  // turns.cc: types of K and V beside each other, pages beside contiguous caches
void add_math(const char *tier);   // turns.cc: math mode BF16 beside f32
void add_ragged(const char *tier); // ragged.cc: many sequences of different lengths
void add_append(const char *tier); // append.cc: tril_append()

} // namespace bench
#endif
