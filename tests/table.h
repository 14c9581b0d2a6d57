/* A table of tiers in place of src/dispatch.c's: for tests of kernels that the library was not built with. Whoever
 * links table.c defines tril_tiers[] and tril_tier_count. */
#ifndef TRIL_TESTS_TABLE_H
#define TRIL_TESTS_TABLE_H

#include "cpu.h"
#include "dispatch.h"

/* The copies of the library outside the tiers, each with the tier under whose name its mistake is asked for; the first
 * is without one, and serves all other tiers. Mutants' table only. */
struct mutant_library {
    const struct tril_kernels *kernels;
    __typeof__(tril_workspace) *workspace;
    __typeof__(tril_attend) *attend;
    __typeof__(tril_weights) *weights;
    __typeof__(tril_attend_team) *attend_team;
    __typeof__(tril_weights_team) *weights_team;
    __typeof__(tril_merge) *merge;
    __typeof__(tril_append) *append;
    __typeof__(tril_convert) *convert;
};
extern const struct mutant_library mutant_libraries[];
extern const int mutant_library_count;

/* By tier: empty, or why the mutant could not be made. Mutants' table only. */
extern const char *const mutant_stale[];
/* Likewise: empty, or the check to try first. */
extern const char *const mutant_first[];

#endif
