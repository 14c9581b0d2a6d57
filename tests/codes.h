/* The stored formats, written down from the words of tril.h alone: the tests' own, so that they share no mistake with
 * the library's. */
#ifndef TRIL_TESTS_CODES_H
#define TRIL_TESTS_CODES_H

#include "support.h"

const char *type_name(tril_dtype);
/* Whether rows of so many elements are whole blocks. */
bool type_fits(tril_dtype, int64_t dim);
int64_t type_row_bytes(tril_dtype, int64_t dim);
/* Bytes of which a row's address and its strides are multiples: an element, or a block's scale. */
int64_t type_unit(tril_dtype);
/* A word with which memory is filled that no sequence owns: signalling NaN, also for the scales within blocks; for I8
 * the largest value, whose scale then is NaN. */
uint32_t type_filler(tril_dtype);

/* One row. The scale is read and written for I8 alone. encode_row() takes any floats: what is too large for a block's
 * scale saturates, and an infinity or a NaN spreads over its block. */
void encode_row(tril_dtype, const float *from, int64_t dim, unsigned char *row, float *scale);
void decode_row(tril_dtype, const unsigned char *row, float scale, int64_t dim, float *to);
/* Any bytes, but neither NaN nor infinity: each code of the blocks and of I8, scales of both signs. Not wild: values of
 * a few units, so that no score overflows. What there is nothing to gain for stays as it is: F32, and BF16 not wild. */
void random_row(tril_dtype, struct rng *, bool wild, int64_t dim, unsigned char *row, float *scale);

/* The nearest number of the type, ties to even, as a float: what an output of the type holds. F32, F16 or BF16. */
float round_to(tril_dtype, float x);

#endif
