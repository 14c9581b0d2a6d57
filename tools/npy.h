/* NumPy's .npy files, versions 1 to 3: little-endian floats, or bytes, in C order. The format is NumPy's own,
 * numpy.lib.format. */
#ifndef NPY_H
#define NPY_H

#include <stdint.h>

#include "output.h"

enum { NPY_MOST_DIMS = 4 };

/* What may be in a file: any of these, ORed. NPY_1 is '|b1', NumPy's bool, or '|u1'. */
enum npy_dtypes { NPY_F2 = 1, NPY_F4 = 2, NPY_F8 = 4, NPY_1 = 8 };

struct npy {
    const char *path;
    int dims;
    int64_t shape[NPY_MOST_DIMS];
    int64_t elements;
    float *f32;  /* '<f4', or '<f2' or bytes converted without rounding; else null */
    double *f64; /* '<f8'; else null */
};

/* Reads the file or dies: with another dtype than `allowed`, another number of dimensions than `dims` (whose meaning
 * `axes` tells, as "[token][head][dim]"), a size that does not fit its shape. */
struct npy npy_read(const char *path, int allowed, int dims, const char *axes);
void npy_free(struct npy *x);

/* Writes NPY_F4, floats, or NPY_F2, the bits of halves: first the header, then the elements in any number of pieces. */
void npy_write_header(struct output *to, enum npy_dtypes type, int dims, const int64_t *shape);
void npy_write_elements(struct output *to, enum npy_dtypes type, const void *from, int64_t n);

#endif
