/* A tier's vector operations over arrays of `lanes` floats; see vec_ops.h. */
#ifndef TRIL_TESTS_VEC_OPS_TABLE_H
#define TRIL_TESTS_VEC_OPS_TABLE_H

struct vec_ops {
    int lanes, a_step;
    void (*zero)(float *to);
    void (*set1)(float *to, const float *x);
    void (*load_store)(float *to, const float *x);
    void (*stream)(float *to, const float *x); /* to: aligned to a vector */
    void (*load_part)(float *to, const float *x, int n);
    void (*store_part)(float *to, const float *x, int n);
    void (*load_f16)(float *to, const void *p);
    void (*load_bf16)(float *to, const void *p);
    void (*load_i8)(float *to, const void *p);
    void (*load_u4)(float *to, const void *p, int high);
    void (*set1_f16)(float *to, const void *p);
    void (*store_f16)(void *p, const float *x);
    void (*store_bf16)(void *p, const float *x);
    void (*store_bytes)(void *p, const float *x);
    void (*keep)(float *to, const float *x, int n, float fill);
    void (*add)(float *to, const float *a, const float *b);
    void (*sub)(float *to, const float *a, const float *b);
    void (*mul)(float *to, const float *a, const float *b);
    void (*div)(float *to, const float *a, const float *b);
    void (*max)(float *to, const float *x, const float *best);
    void (*min)(float *to, const float *x, const float *best);
    void (*copysign)(float *to, const float *x, const float *sign);
    void (*fma)(float *to, const float *a, const float *b, const float *c);
    void (*trunc)(float *to, const float *x);
    void (*rint)(float *to, const float *x);
    void (*scale2)(float *to, const float *p, const float *n, const float *t);
    void (*ninf_to_zero)(float *to, const float *x);
    void (*max_across)(float *to, const float *x);                                      /* 1 result */
    void (*sum16)(float *to, const float *x);                                           /* 16 values, 1 result */
    void (*transpose)(float *to, const float *x);                                       /* lanes x lanes */
    void (*a_fma)(float *to, const float *a, int lane, const float *b, const float *c); /* a_step values of a */
    void (*a_fma1)(float *to, const float *a, const float *b, const float *c);          /* one value of a */
    /* stored keys and values, widened where rows are few */
    void (*scaled_u4)(float *to, const float *scale, const void *p, int high);
    void (*halves)(float *to, const float *x, int f16);        /* 2 vectors */
    void (*words)(float *to, const char *p, long stride);      /* 4 vectors */
    void (*half_lines)(float *to, const char *p, long stride); /* 8 vectors, or null */
    void (*turn_f16)(float *to, const char *p, long stride);   /* 16 vectors, or null */
    void (*word_i8)(float *to, const float *x, int u);         /* u < 4 */
    void (*word_top)(float *to, const float *x, int u);
    void (*word_half)(float *to, const float *x, int high);      /* or null */
    void (*word_u4)(float *to, const float *x, int u, int high); /* or null */
    void (*rows_f16)(float *to, const char *p, long stride);     /* or null */
    void (*a_fma_in)(float *to, const float *a, const float *b, const float *c);
    void (*a_fma_at)(float *to, const float *a, const float *b, const float *c);
    /* pairs of bf16 in a float's place */
    void (*pair)(float *to, const float *x, const float *y);
    void (*store_pairs)(void *p, const float *x);
    void (*store_weights)(void *p, const float *x);
    void (*first_of_pair)(float *to, const float *b);
    void (*second_of_pair)(float *to, const float *b);
    void (*a_dot)(float *to, const float *a, int lane, const float *b, const float *c, int *low);
    int has_dots; /* 0: a_dot and store_weights are another tier's */
    int dot_exact;
    /* halves of vectors, or null */
    void (*half_load)(float *to, const float *p, const float *q);
    void (*half_twice)(float *to, const float *p);
    void (*half_store)(float *lower, float *upper, const float *from);
    void (*half_join)(float *to, const float *a, const float *b);
    void (*half_fma)(float *to, const float *a, const float *b, const float *c);
};

#endif
