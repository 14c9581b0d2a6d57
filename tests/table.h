/* A table of tiers in place of src/dispatch.c's: for tests of kernels that the library was not built with. Whoever
 * links table.c defines tril_tiers[] and tril_tier_count. */
#ifndef TRIL_TESTS_TABLE_H
#define TRIL_TESTS_TABLE_H

#include "cpu.h"
#include "dispatch.h"

/* By tier: empty, or why the mutant could not be made. Mutants' table only. */
extern const char *const mutant_stale[];

#endif
