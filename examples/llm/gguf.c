/* Every offset, count and size in the file is checked against its end before it is used. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "llm.h"

enum value_type { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, VALUE_TYPES };
static const size_t value_bytes[VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* Beyond these a count is a mistake, be the file as long as it may. */
enum { MOST_ENTRIES = 1 << 16, MOST_DIMS = 4, MOST_NESTING = 4 };

struct value {
    struct string key;
    uint32_t type, element;    /* element: of an array */
    uint64_t n;                /* of an array or string */
    const unsigned char *data; /* behind the count, where there is one */
};

struct gguf {
    const char *path;
    unsigned char *file;
    size_t bytes, at; /* at: how far it has been read */
    uint64_t n_tensors, n_values;
    struct value *values;
    struct gguf_tensor *tensors;
};

static _Noreturn void bad(const struct gguf *g, const char *what)
{
    die("%s: before byte %zu: %s", g->path, g->at, what);
}

static _Noreturn void bad_tensor(const struct gguf *g, const struct gguf_tensor *t, const char *what)
{
    die("%s: tensor %s: %s", g->path, t->name, what);
}

static const unsigned char *take(struct gguf *g, uint64_t n)
{
    if (n > g->bytes - g->at)
        die("%s: byte %zu: %" PRIu64 " bytes should follow, but the file ends %zu further; give a complete GGUF file",
            g->path, g->at, n, g->bytes - g->at);
    g->at += (size_t)n;
    return g->file + g->at - n;
}

/* An unsigned number of so many bytes. */
static uint64_t take_uint(struct gguf *g, size_t bytes)
{
    uint64_t x = 0;
    memcpy(&x, take(g, bytes), bytes);
    return x;
}

static struct string take_string(struct gguf *g)
{
    const uint64_t n = take_uint(g, 8);
    return (struct string){(const char *)take(g, n), (size_t)n};
}

static struct value take_value(struct gguf *g, uint32_t type, int depth)
{
    struct value v = {.type = type};
    if (type >= VALUE_TYPES) bad(g, "no type of a value; GGUF has 0 to 12");
    if (depth > MOST_NESTING) bad(g, "arrays in arrays in arrays; up to four are read");
    if (type == ARRAY) v.element = (uint32_t)take_uint(g, 4);
    if (type == ARRAY || type == STRING) v.n = take_uint(g, 8);
    v.data = take(g, type == STRING ? v.n : value_bytes[type]);
    for (uint64_t i = 0; i < v.n && type == ARRAY; i++)
        take_value(g, v.element, depth + 1);
    return v;
}

/* All but where the data lies: its offset, which is returned, counts from behind the list of tensors. */
static uint64_t take_tensor(struct gguf *g, struct gguf_tensor *t)
{
    uint64_t size[MOST_DIMS] = {1, 1, 1, 1};
    const struct string name = take_string(g);
    if (name.n >= sizeof t->name) bad(g, "a long name of a tensor; GGUF has up to 64 bytes");
    memcpy(t->name, name.text, name.n);
    const uint64_t dims = take_uint(g, 4);
    if (dims < 1 || dims > MOST_DIMS) bad_tensor(g, t, "no number of dimensions; GGUF has 1 to 4");
    for (uint64_t i = 0; i < dims; i++)
        size[i] = take_uint(g, 8);
    if (size[0] < 1 || size[0] > INT32_MAX || size[1] < 1 || size[1] > INT32_MAX || size[2] != 1 || size[3] != 1)
        bad_tensor(g, t, "no shape of a weight; one or two dimensions of 1 to 2147483647 are");
    t->cols = (int64_t)size[0];
    t->rows = (int64_t)size[1];
    const uint64_t type = take_uint(g, 4);
    if (type != 0 && type != 1 && type != 8) bad_tensor(g, t, "its type is not read here; f32, f16 and q8_0 are");
    t->type = type == 0 ? TRIL_F32 : type == 1 ? TRIL_F16 : TRIL_Q8_0;
    if (type == 8 && t->cols % 32 != 0) bad_tensor(g, t, "rows in q8_0 should be multiples of 32 long");
    return take_uint(g, 8);
}

struct gguf *gguf_open(const char *path)
{
    static struct gguf file, *g = &file; /* a program has one model */
    struct stat status;
    const int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0) die("%s: cannot read: %s; give a GGUF file", path, strerror(errno));
    if (!S_ISREG(status.st_mode) || status.st_size == 0 || (uintmax_t)status.st_size > PTRDIFF_MAX)
        die("%s: no file; give a GGUF file", path);
    file = (struct gguf){.path = path, .bytes = (size_t)status.st_size};
    g->file = mmap(NULL, g->bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (g->file == MAP_FAILED) die("%s: cannot read: %s; give a GGUF file", path, strerror(errno));
    if (memcmp(take(g, 4), "GGUF", 4) != 0) bad(g, "a GGUF file would begin with 'GGUF'; give one");
    if (take_uint(g, 4) != 3) bad(g, "not version 3 of GGUF; give a file of that");
    g->n_tensors = take_uint(g, 8);
    g->n_values = take_uint(g, 8);
    if (g->n_tensors > MOST_ENTRIES || g->n_values > MOST_ENTRIES)
        bad(g, "more tensors or values than 65536; give fewer");
    g->values = need((size_t)g->n_values, sizeof *g->values);
    g->tensors = need((size_t)g->n_tensors, sizeof *g->tensors);
    uint64_t *offset = need((size_t)g->n_tensors, sizeof *offset);
    for (size_t i = 0; i < g->n_values; i++) {
        const struct string key = take_string(g);
        g->values[i] = take_value(g, (uint32_t)take_uint(g, 4), 1);
        g->values[i].key = key;
    }
    for (size_t i = 0; i < g->n_tensors; i++)
        offset[i] = take_tensor(g, &g->tensors[i]);
    const uint64_t alignment = (uint64_t)gguf_number(g, "general.alignment", true, 8, 1 << 20, 32);
    if ((alignment & (alignment - 1)) != 0) bad(g, "the alignment should be a power of two");
    if (g->n_tensors > 0) take(g, -(uint64_t)g->at & (alignment - 1));
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        const uint64_t bytes = (uint64_t)row_bytes(t->type, t->cols) * (uint64_t)t->rows, room = g->bytes - g->at;
        if (offset[i] % alignment != 0) bad_tensor(g, t, "its offset should be a multiple of the alignment");
        if (offset[i] > room || bytes > room - offset[i]) bad_tensor(g, t, "ends past the file's end; give all of it");
        t->data = g->file + g->at + offset[i];
    }
    free(offset);
    return g;
}

static bool equal(struct string s, const char *text)
{
    return strlen(text) == s.n && memcmp(s.text, text, s.n) == 0;
}

static const struct value *find(const struct gguf *g, const char *key, bool optional)
{
    for (size_t i = 0; i < g->n_values; i++) {
        if (equal(g->values[i].key, key)) return &g->values[i];
    }
    if (!optional) die("%s: no metadata '%s'; give a Llama model", g->path, key);
    return NULL;
}

double gguf_number(const struct gguf *g, const char *key, bool whole, double min, double max, double otherwise)
{
    const struct value *v = find(g, key, !isnan(otherwise));
    if (v == NULL) return otherwise;
    double x = NAN;
    float f;
    uint64_t bits = 0;
    memcpy(&bits, v->data, value_bytes[v->type]);
    if (v->type == U8 || v->type == U16 || v->type == U32 || v->type == U64) {
        x = (double)bits;
    } else if (v->type == I8 || v->type == I16 || v->type == I32 || v->type == I64) {
        const size_t above = 64 - 8 * value_bytes[v->type];
        x = (double)((int64_t)(bits << above) >> above);
    } else if (v->type == F32 && !whole) {
        memcpy(&f, v->data, sizeof f);
        x = f;
    } else if (v->type == F64 && !whole) {
        memcpy(&x, v->data, sizeof x);
    }
    if (!(x >= min && x <= max))
        die("%s: metadata '%s' is %.15g; %s from %.15g to %.15g would be right", g->path, key, x,
            whole ? "an integer" : "a number", min, max);
    return x;
}

void gguf_expect(const struct gguf *g, const char *key, const char *wanted, bool optional)
{
    const struct value *v = find(g, key, optional);
    if (v == NULL) return;
    const struct string s = {(const char *)v->data, v->type == STRING ? (size_t)v->n : 0};
    if (!equal(s, wanted))
        die("%s: metadata '%s' is '%.*s'; '%s' is read here", g->path, key, s.n < 64 ? (int)s.n : 64, s.text, wanted);
}

struct string *gguf_strings(struct gguf *g, const char *key, int64_t *n)
{
    const struct value *v = find(g, key, false);
    if (v->type != ARRAY || v->element != STRING || v->n < 1 || v->n > INT32_MAX)
        die("%s: metadata '%s': an array of strings would be right", g->path, key);
    struct string *strings = need((size_t)v->n, sizeof *strings);
    *n = (int64_t)v->n;
    g->at = (size_t)(v->data - g->file);
    for (int64_t i = 0; i < *n; i++)
        strings[i] = take_string(g);
    return strings;
}

const struct gguf_tensor *gguf_tensor(struct gguf *g, const char *name, int64_t rows, int64_t cols, bool optional)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        if (strcmp(t->name, name) != 0) continue;
        if (t->rows != rows || t->cols != cols)
            die("%s: tensor %s: %d rows of %d; the metadata ask for %d of %d", g->path, name, (int)t->rows,
                (int)t->cols, (int)rows, (int)cols);
        t->used = true;
        return t;
    }
    if (!optional) die("%s: no tensor %s; give a Llama model", g->path, name);
    return NULL;
}

void gguf_row(const struct gguf_tensor *t, int64_t row, float *to)
{
    const unsigned char *from = t->data + row * row_bytes(t->type, t->cols);
    expect_ok(t->name, tril_convert(to, TRIL_F32, NULL, from, t->type, NULL, t->cols));
}

void gguf_all_used(const struct gguf *g)
{
    for (size_t i = 0; i < g->n_tensors; i++) {
        if (!g->tensors[i].used)
            bad_tensor(g, &g->tensors[i], "not in a plain Llama model: no biases, no experts; give one");
    }
}
