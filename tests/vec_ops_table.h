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
    void (*keep)(float *to, const float *x, int n, float fill);
    void (*add)(float *to, const float *a, const float *b);
    void (*sub)(float *to, const float *a, const float *b);
    void (*mul)(float *to, const float *a, const float *b);
    void (*div)(float *to, const float *a, const float *b);
    void (*max)(float *to, const float *x, const float *best);
    void (*fma)(float *to, const float *a, const float *b, const float *c);
    void (*rint)(float *to, const float *x);
    void (*scale2)(float *to, const float *p, const float *n, const float *t);
    void (*ninf_to_zero)(float *to, const float *x);
    void (*max_across)(float *to, const float *x);                                      /* 1 result */
    void (*sum16)(float *to, const float *x);                                           /* 16 values, 1 result */
    void (*transpose)(float *to, const float *x);                                       /* lanes x lanes */
    void (*a_fma)(float *to, const float *a, int lane, const float *b, const float *c); /* a_step values of a */
    void (*a_fma1)(float *to, const float *a, const float *b, const float *c);          /* one value of a */
};

#endif
