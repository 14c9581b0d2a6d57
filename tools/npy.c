#include "npy.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tool.h"

static const char magic[6] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

enum {
    MOST_HEADER = 1 << 20,
    PIECE = 1 << 14 /* elements converted at a time */
};

/* --- the header: a Python dictionary of three entries --------------------------------------------------------- */

struct text {
    const char *at, *end;
    const char *path;
};

struct header {
    char descr[32];
    int fortran_order; /* -1: not given yet, as dims */
    int dims;
    int64_t shape[8];
};

static _Noreturn void die_header(const struct text *t)
{
    die("%s: the .npy header is not understood; give an array written by numpy.save", t->path);
}

static void skip_space(struct text *t)
{
    while (t->at < t->end && isspace((unsigned char)*t->at))
        t->at++;
}

static bool accept(struct text *t, const char *word)
{
    const size_t n = strlen(word);
    skip_space(t);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0) return false;
    t->at += n;
    return true;
}

static void expect(struct text *t, const char *word)
{
    if (!accept(t, word)) die_header(t);
}

static void take_string(struct text *t, char *to, size_t room)
{
    skip_space(t);
    if (t->at == t->end || (*t->at != '\'' && *t->at != '"')) die_header(t);
    const char quote = *t->at++;
    size_t n = 0;
    while (t->at < t->end && *t->at != quote && n + 1 < room)
        to[n++] = *t->at++;
    if (t->at == t->end || *t->at != quote) die_header(t);
    t->at++;
    to[n] = '\0';
}

static int64_t take_size(struct text *t)
{
    int64_t n = 0;
    skip_space(t);
    if (t->at == t->end || !isdigit((unsigned char)*t->at)) die_header(t);
    while (t->at < t->end && isdigit((unsigned char)*t->at)) {
        if (n > (INT64_MAX - 9) / 10) die_header(t);
        n = 10 * n + (*t->at++ - '0');
    }
    return n;
}

static void take_shape(struct text *t, struct header *h)
{
    h->dims = 0;
    expect(t, "(");
    while (!accept(t, ")")) {
        if (h->dims == (int)(sizeof(h->shape) / sizeof(h->shape[0]))) die_header(t);
        h->shape[h->dims++] = take_size(t);
        if (!accept(t, ",")) {
            expect(t, ")");
            break;
        }
    }
}

static struct header parse_header(struct text t)
{
    struct header h = {.fortran_order = -1, .dims = -1};
    expect(&t, "{");
    while (!accept(&t, "}")) {
        char key[32];
        take_string(&t, key, sizeof key);
        expect(&t, ":");
        if (strcmp(key, "descr") == 0) {
            if (accept(&t, "[")) die("%s: the dtype is a structure; give '<f4' or '<f2'", t.path);
            take_string(&t, h.descr, sizeof h.descr);
        } else if (strcmp(key, "fortran_order") == 0) {
            h.fortran_order = accept(&t, "True");
            if (!h.fortran_order) expect(&t, "False");
        } else if (strcmp(key, "shape") == 0) {
            take_shape(&t, &h);
        } else {
            die_header(&t);
        }
        if (!accept(&t, ",")) {
            expect(&t, "}");
            break;
        }
    }
    skip_space(&t);
    if (t.at != t.end || h.descr[0] == '\0' || h.fortran_order < 0 || h.dims < 0) die_header(&t);
    return h;
}

/* --- elements -------------------------------------------------------------------------------------------------- */

static uint64_t little_endian(const unsigned char *p, int bytes)
{
    uint64_t n = 0;
    for (int i = 0; i < bytes; i++)
        n |= (uint64_t)p[i] << 8 * i;
    return n;
}

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Exact: every f16 is an f32. */
static float float_of_half(uint32_t h)
{
    const uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 0x1f, fraction = h & 0x3ff;
    if (exponent == 0) {
        const float x = (float)fraction * 0x1p-24f;
        return sign != 0 ? -x : x;
    }
    return float_of_bits(sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | fraction << 13);
}

static void convert(struct npy *x, int64_t at, const unsigned char *p, int64_t n, int bytes)
{
    for (int64_t i = 0; i < n; i++, p += bytes) {
        const uint64_t bits = little_endian(p, bytes);
        if (bytes == 1) {
            x->f32[at + i] = (float)bits;
        } else if (bytes == 2) {
            x->f32[at + i] = float_of_half((uint32_t)bits);
        } else if (bytes == 4) {
            x->f32[at + i] = float_of_bits((uint32_t)bits);
        } else {
            memcpy(&x->f64[at + i], &bits, sizeof bits);
        }
    }
}

/* --- files ----------------------------------------------------------------------------------------------------- */

static void shape_text(char *to, size_t room, int dims, const int64_t *shape)
{
    size_t used = (size_t)snprintf(to, room, "(");
    for (int i = 0; i < dims && used < room; i++)
        used += (size_t)snprintf(to + used, room - used, "%" PRId64 "%s", shape[i],
                                 i + 1 < dims ? ", " : (dims == 1 ? "," : ""));
    if (used < room) snprintf(to + used, room - used, ")");
}

static const char *allowed_text(int allowed)
{
    if (allowed & NPY_1) return "'|b1', '|u1' or '<f4'";
    return allowed == NPY_F8 ? "'<f8'" : "'<f4' or '<f2'";
}

static void read_bytes(FILE *file, void *to, size_t n, const char *path)
{
    if (fread(to, 1, n, file) == n) return;
    if (ferror(file)) die("%s: cannot read: %s", path, strerror(errno));
    die("%s: ends within its .npy header; give a whole file written by numpy.save", path);
}

static struct header read_header(FILE *file, const char *path)
{
    unsigned char start[8], length[4];
    read_bytes(file, start, 1, path);
    if (start[0] != (unsigned char)magic[0]) die("%s: is not a .npy file; give one written by numpy.save", path);
    read_bytes(file, start + 1, sizeof start - 1, path);
    if (memcmp(start, magic, sizeof magic) != 0) die("%s: is not a .npy file; give one written by numpy.save", path);
    if (start[6] < 1 || start[6] > 3 || start[7] != 0)
        die("%s: .npy version %d.%d is not known; give 1.0, 2.0 or 3.0", path, start[6], start[7]);
    const int length_bytes = start[6] == 1 ? 2 : 4;
    read_bytes(file, length, (size_t)length_bytes, path);
    const uint64_t n = little_endian(length, length_bytes);
    if (n > MOST_HEADER) die("%s: a .npy header of %" PRIu64 " bytes; give at most %d", path, n, MOST_HEADER);
    char *text = need((size_t)n, 1);
    read_bytes(file, text, (size_t)n, path);
    const struct header h = parse_header((struct text){text, text + n, path});
    free(text);
    return h;
}

/* The elements, and not a byte more. */
static void read_elements(struct npy *x, FILE *file, int bytes, const char *descr)
{
    char shape[128];
    struct stat status;
    shape_text(shape, sizeof shape, x->dims, x->shape);
    const long header = ftell(file);
    if (header >= 0 && fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode)) { /* before any allocation */
        const int64_t has = (int64_t)status.st_size - header;
        if (has != x->elements * bytes)
            die("%s: holds %" PRId64 " bytes of elements; shape %s of '%s' needs exactly %" PRId64, x->path, has, shape,
                descr, x->elements * bytes);
    }
    if (bytes == 8)
        x->f64 = need((size_t)x->elements, sizeof(double));
    else
        x->f32 = need((size_t)x->elements, sizeof(float));
    unsigned char *piece = need(PIECE, (size_t)bytes);
    for (int64_t at = 0; at < x->elements; at += PIECE) {
        const int64_t n = x->elements - at < PIECE ? x->elements - at : PIECE;
        if (fread(piece, (size_t)bytes, (size_t)n, file) != (size_t)n) {
            if (ferror(file)) die("%s: cannot read: %s", x->path, strerror(errno));
            die("%s: ends early; shape %s of '%s' needs %" PRId64 " bytes of elements", x->path, shape, descr,
                x->elements * bytes);
        }
        convert(x, at, piece, n, bytes);
    }
    free(piece);
    if (fgetc(file) != EOF) die("%s: goes on after its last element; give exactly shape %s", x->path, shape);
}

struct npy npy_read(const char *path, int allowed, int dims, const char *axes)
{
    struct npy x = {.path = path, .dims = dims, .elements = 1};
    FILE *file = fopen(path, "rb");
    if (file == NULL) die("%s: cannot read: %s; give a .npy file", path, strerror(errno));
    const struct header h = read_header(file, path);

    int bytes = 0;
    if ((strcmp(h.descr, "|b1") == 0 || strcmp(h.descr, "|u1") == 0) && (allowed & NPY_1)) bytes = 1;
    if (strcmp(h.descr, "<f2") == 0 && (allowed & NPY_F2)) bytes = 2;
    if (strcmp(h.descr, "<f4") == 0 && (allowed & NPY_F4)) bytes = 4;
    if (strcmp(h.descr, "<f8") == 0 && (allowed & NPY_F8)) bytes = 8;
    if (bytes == 0) die("%s: dtype '%s' is not supported; give %s", path, h.descr, allowed_text(allowed));
    if (h.fortran_order) die("%s: is in Fortran order; give C order (numpy.ascontiguousarray)", path);
    if (h.dims != dims) {
        char shape[128];
        shape_text(shape, sizeof shape, h.dims, h.shape);
        die("%s: shape %s has %d dimension%s; give %d: %s", path, shape, h.dims, h.dims == 1 ? "" : "s", dims, axes);
    }
    for (int i = 0; i < dims; i++) {
        x.shape[i] = h.shape[i];
        if (__builtin_mul_overflow(x.elements, h.shape[i], &x.elements) || x.elements > INT64_MAX / 8)
            die("%s: its shape has more elements than a machine can hold", path);
    }
    read_elements(&x, file, bytes, h.descr);
    fclose(file);
    return x;
}

void npy_free(struct npy *x)
{
    free(x->f32);
    free(x->f64);
    x->f32 = NULL;
    x->f64 = NULL;
}

void npy_write_header(struct output *to, enum npy_dtypes type, int dims, const int64_t *shape)
{
    char text[256], dictionary[192];
    shape_text(text, sizeof text, dims, shape);
    snprintf(dictionary, sizeof dictionary, "{'descr': '<f%d', 'fortran_order': False, 'shape': %.128s, }",
             type == NPY_F2 ? 2 : 4, text);
    /* Magic, version 1.0 and the length, 10 bytes in all; then spaces so that the elements start at a multiple of 64 */
    const size_t length = strlen(dictionary), whole = (10 + length + 1 + 63) / 64 * 64, header = whole - 10;
    unsigned char start[10] = {0, 0, 0, 0, 0, 0, 1, 0, (unsigned char)(header & 0xff), (unsigned char)(header >> 8)};
    memcpy(start, magic, sizeof magic);
    output_write(to, start, sizeof start);
    memset(text, ' ', sizeof text);
    memcpy(text, dictionary, length);
    text[header - 1] = '\n';
    output_write(to, text, header);
}

/* An element of NPY_F2 or NPY_F4, wherever it lies. */
static uint32_t bits_at(const unsigned char *p, bool half)
{
    uint16_t low;
    uint32_t bits;
    if (!half) {
        memcpy(&bits, p, sizeof bits);
        return bits;
    }
    memcpy(&low, p, sizeof low);
    return low;
}

void npy_write_elements(struct output *to, enum npy_dtypes type, const void *from, int64_t n)
{
    const bool half = type == NPY_F2;
    const int bytes = half ? 2 : 4;
    unsigned char piece[4 * 1024];
    for (int64_t at = 0; at < n; at += 1024) {
        const int64_t m = n - at < 1024 ? n - at : 1024;
        for (int64_t i = 0; i < m; i++) {
            const uint32_t bits = bits_at((const unsigned char *)from + bytes * (at + i), half);
            for (int b = 0; b < bytes; b++)
                piece[bytes * i + b] = (unsigned char)(bits >> 8 * b);
        }
        output_write(to, piece, (size_t)(bytes * m));
    }
}
