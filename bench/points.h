// The points that have files of their own, one tier's. None of them is for the oracle but those of tril_append().
#ifndef TRIL_BENCH_POINTS_H
#define TRIL_BENCH_POINTS_H

namespace bench
{

void add_stored(const char *tier);  // stored.cc: types of K and V beside each other, pages beside contiguous caches
void add_math(const char *tier);    // stored.cc: math mode BF16 beside f32
void add_ragged(const char *tier);  // ragged.cc: many sequences of different lengths
void add_append(const char *tier);  // append.cc: tril_append()
void add_options(const char *tier); // options.cc: score options and masks beside plain attention
void add_forms(const char *tier);   // forms.cc: the weights' column sums, and the matrix in 16 bits
void add_heads(const char *tier);   // heads.cc: head sizes beside padded ones
void add_builds(const char *tier);  // builds.cc: another build of the library beside this one, where one is named

} // namespace bench
#endif
