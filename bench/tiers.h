/* What a tier does itself, and how: seen from inside the library, since a caller gets the same bits either way. */
#ifndef TRIL_BENCH_TIERS_H
#define TRIL_BENCH_TIERS_H

#include <stdbool.h>

#include "tril.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The tier that serves calls of that math mode while `tier` is in use: itself, or one that it leaves them to. Static;
 * null for an unknown name. */
const char *tier_serving(const char *tier, tril_math math);

/* Whether that is itself. Measured or tested under its name is only what it serves. */
bool tier_serves(const char *tier, tril_math math);

/* Whether who serves them does so by an instruction for what that mode adds up: fma, or of pairs of bf16. If not, the
 * bits are made by other means, and no peak is theirs. */
bool tier_by_instruction(const char *tier, tril_math math);

#ifdef __cplusplus
}
#endif
#endif
