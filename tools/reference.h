/* Attention of one row in double, straight from the definition, and the bound that docs/contract.md puts on a float
 * result: |O - O*| <= u A (48 + 2 S + n / 8192), with u = 2^-24, A = sum p |v|, S = the largest |scale| sum |q k| +
 * |slope (j - p)|, or |sink logit|, and n visible keys. It counts on the roundings of many scores evening out. A single
 * weight, or an output that one or two large scores decide, has no such help: the D roundings of a score walk sqrt(D)
 * steps away from it, and the wide bound has (2 + 4 sqrt(D)) S. Math mode BF16 has bounds of its own, which say nothing
 * of very large S. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "tril.h"

struct reference {
    double *weights;   /* [kv_len]; 0 where the query does not see the key */
    int *sees;         /* [kv_len] */
    double *out;       /* [v_dim] */
    double *magnitude; /* [v_dim]: A */
    double *flushed;   /* [v_dim]: what exp2 may flush to 0, sum 2^-126 |v|, and a result itself, 2^-126 */
    double log_sum;    /* the natural logarithm of the sum that the weights are divided by, sink included */
    double factor;     /* u (48 + 2 S + n / 8192); in math mode BF16 the bound of an output */
    double wide;       /* u (48 + (2 + 4 sqrt(D)) S + n / 8192); in math mode BF16 that of a weight */
    int usual;         /* S <= 30: scores of usual size; in math mode BF16 always */
    int64_t visible;   /* keys that the query sees */
};

/* Whether query `query`, counted in the sequence, sees the key at position `key`. */
int reference_sees(const tril_attention *call, const tril_seq *seq, int64_t query, int64_t key);

/* Its columns in the packed form of the weights. */
int64_t reference_columns(const tril_attention *call, const tril_seq *seq, int64_t query);

/* Room for the rows of a call with at most `keys` keys. */
struct reference reference_new(int64_t keys, int64_t v_dim);
void reference_free(struct reference *r);

/* Row `query` of query head `head`; without `values` the weights alone. */
void reference_row(struct reference *r, const tril_attention *call, const tril_seq *seq, int64_t query, int64_t head,
                   int values);

/* |got - wanted|, less what may have been flushed to 0 (of a weight 2^-126), in units of the bound, which is that of
 * F32 and grows by one rounding where `got` was stored as F16 or BF16. Infinite where one of the two is finite and the
 * other is not, unless the type has no number as large; 0 where neither is. */
double reference_error(float got, tril_dtype type, double wanted, double bound, double flushed);

#endif
