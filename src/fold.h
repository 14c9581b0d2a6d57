/* Partial results become whole: the parts of a split unit, and those of tril_merge(). */
#ifndef TRIL_FOLD_H
#define TRIL_FOLD_H

#include "kernels.h"

/* Folds part `part` of the unit of `task`, which is made, onto what the parts before it have become: that is where the
 * first part, which is folded as it goes, has its states. After the last part the unit goes to the caller's place. */
TRIL_COLD void tril_fold_part(const struct tril_job *job, const struct tril_task *task, int64_t part,
                              const struct tril_kernels *kernels);

/* Row `row` of n partial results into o, *max and *sum; -inf and -0 where it sees nothing. o may be the first part's.
 */
void tril_fold_parts(const tril_partial *parts, int64_t n, int64_t row, int dim, const struct tril_kernels *kernels,
                     float *o, float *max, float *sum);

/* o / sum, and 0 for a sum of 0; returns the sum, -0 as 0. */
float tril_divide(float *o, int dim, float sum);

#endif
