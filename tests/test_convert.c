/* tril_convert(): every type, both ways, against encoders and decoders of this file and stored.h. What blocks with an
 * infinity or NaN become is left open by the contract, but the same on every tier. Rows of every length end or begin at
 * a page that faults, and what lies around a result stays. */
#include "support.h"

#include <string.h>

#include "stored.h"

#define LONGEST 1024
#define STAYS   64 /* bytes around a result that must be as they were */
#define FILL    0xc5

static const tril_dtype types[] = {TRIL_F16, TRIL_BF16, TRIL_I8, TRIL_Q8_0, TRIL_Q4_0};

/* A row in both forms. */
struct row {
    tril_dtype type;
    int64_t n;
    float scale;
    float x[LONGEST];
    unsigned char stored[LONGEST * 2];
};

/* How its memory is placed: against a page at either side, or some floats past an aligned address. */
struct spot {
    enum guard guard;
    size_t offset; /* bytes */
};

static struct spot spot_random(struct rng *rng)
{
    static const enum guard guards[] = {GUARD_AFTER, GUARD_BEFORE, GUARD_NONE};
    const enum guard guard = rng_of(rng, guards);
    return (struct spot){guard, guard == GUARD_NONE ? (size_t)rng_below(rng, 16) * sizeof(float) : 0};
}

static bool surroundings_stay(const struct area *a, size_t begin, size_t bytes)
{
    for (size_t i = 0; i < a->bytes; i++) {
        if ((i < begin || i >= begin + bytes) && a->data[i] != FILL)
            return broken("byte %lld of a result of %lld was written", (long long)i - (long long)begin,
                          (long long)bytes);
    }
    return true;
}

/* Makes one form of the row from the other. */
static bool convert(struct row *r, bool encodes, struct spot spot)
{
    const size_t narrow = (size_t)stored_bytes(r->type, r->n), wide = (size_t)r->n * sizeof *r->x;
    const size_t bytes = encodes ? narrow : wide, from_bytes = encodes ? wide : narrow;
    const size_t begin = spot.guard == GUARD_BEFORE ? 0 : STAYS, end = spot.guard == GUARD_AFTER ? 0 : STAYS;
    struct area from = area_new(from_bytes, spot.guard, spot.offset);
    struct area to = area_new(begin + bytes + end, spot.guard, spot.offset);
    struct area scale = area_new(sizeof r->scale, GUARD_AFTER, 0);
    float *const given = r->type == TRIL_I8 ? (float *)(void *)scale.data : NULL;
    if (from_bytes > 0) memcpy(from.data, encodes ? (const void *)r->x : r->stored, from_bytes);
    memset(to.data, FILL, to.bytes);
    memcpy(scale.data, &r->scale, sizeof r->scale);
    area_read_only(&from);
    if (!encodes) area_read_only(&scale);
    const tril_status status = encodes ? tril_convert(to.data + begin, r->type, given, from.data, TRIL_F32, NULL, r->n)
                                       : tril_convert(to.data + begin, TRIL_F32, NULL, from.data, r->type, given, r->n);
    if (bytes > 0) memcpy(encodes ? (void *)r->stored : r->x, to.data + begin, bytes);
    memcpy(&r->scale, scale.data, sizeof r->scale);
    const bool ok = status == TRIL_OK ? surroundings_stay(&to, begin, bytes)
                                      : broken("tril_convert() gives: %s", tril_status_text(status));
    area_free(&from);
    area_free(&to);
    area_free(&scale);
    return ok;
}

/* What x is stored as, in the order of the format's definition. */

static float peak_of(const float *x, int64_t n)
{
    float peak = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(peak)) peak = x[i];
    }
    return peak;
}

static float reciprocal_of(float scale)
{
    return scale != 0.0f ? 1.0f / scale : 0.0f;
}

static int clamped(float x, int least, int most)
{
    return x != x ? 0 : (int)fmaxf((float)least, fminf((float)most, x)); /* a NaN is 0 times infinity */
}

/* -127 ... 127, or -8 ... 7 */
static int value_of(tril_dtype type, float x, float reciprocal)
{
    const float y = x * reciprocal;
    return type == TRIL_Q4_0 ? clamped(floorf(y + 8.5f) - 8.0f, -8, 7) : clamped(roundf(y), -127, 127);
}

static bool all_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return false;
    }
    return true;
}

/* Values first ... first + n - 1, which share a scale. */
static bool block_encoded(const struct row *r, int64_t first, int64_t n)
{
    const float peak = peak_of(r->x + first, n), scale = r->type == TRIL_Q4_0 ? peak / -8.0f : fabsf(peak) / 127.0f;
    const unsigned char *const block = r->stored + stored_bytes(r->type, first);
    if (!all_finite(r->x + first, n)) return true;
    if (r->type == TRIL_I8 ? bits_of(r->scale) != bits_of(scale) : !half_is(TRIL_F16, u16_at(block), scale))
        return broken("the scale of the values from %lld on is not %a", (long long)first, (double)scale);
    for (int64_t i = 0; i < n; i++) {
        const int got = stored_integer(r->type, block, i);
        const int want = value_of(r->type, r->x[first + i], reciprocal_of(scale));
        if (got != want)
            return broken("value %lld, %a with a scale of %a, is stored as %d, not %d", (long long)(first + i),
                          (double)r->x[first + i], (double)scale, got, want);
    }
    return true;
}

static bool row_encoded(const struct row *r)
{
    if (r->type == TRIL_I8) return block_encoded(r, 0, r->n);
    if (in_blocks(r->type)) {
        for (int64_t i = 0; i < r->n; i += BLOCK_VALUES) {
            if (!block_encoded(r, i, BLOCK_VALUES)) return false;
        }
        return true;
    }
    for (int64_t i = 0; i < r->n; i++) {
        const uint16_t got = u16_at(r->stored + 2 * i);
        if (!half_is(r->type, got, r->x[i]))
            return broken("value %lld, %a, is stored as %04x", (long long)i, (double)r->x[i], got);
    }
    return true;
}

/* To the bit, where no NaN became one of halves. */
static bool same_stored(const struct row *got, const struct row *want)
{
    const int64_t unit = got->type == TRIL_F16 || got->type == TRIL_BF16 ? 2 : 1;
    if (!same_float(got->scale, want->scale))
        return broken("the scale is %a, the scalar tier's %a", (double)got->scale, (double)want->scale);
    for (int64_t i = 0; i < stored_bytes(got->type, got->n); i += unit) {
        const bool nan = unit == 2 && got->x[i / 2] != got->x[i / 2];
        if (!nan && memcmp(got->stored + i, want->stored + i, (size_t)unit) != 0)
            return broken("byte %lld is %02x, the scalar tier's %02x", (long long)i, got->stored[i], want->stored[i]);
    }
    return true;
}

static bool row_decoded(const struct row *r)
{
    for (int64_t i = 0; i < r->n; i++) {
        const float want = stored_value(r->type, r->stored, r->scale, i);
        if (!same_float(r->x[i], want))
            return broken("value %lld comes back as %a, not %a", (long long)i, (double)r->x[i], (double)want);
    }
    return true;
}

/* How far a value may be from what it was: half a step, a whole one for what is clipped at the upper end of Q4_0; and
 * the rounding of the scale to f16. */
static double most_error(tril_dtype type, float x, double scale, double back)
{
    const bool clipped = type == TRIL_Q4_0 && (double)x / scale > 7.5;
    return fabs(scale) * (clipped ? 1.0001 : 0.5001) + (type == TRIL_I8 ? 0.0 : fabs(back) * 0x1p-11);
}

/* What comes back of values first ... first + n - 1, which share a scale. */
static bool block_is_near(const struct row *r, const struct row *back, int64_t first, int64_t n)
{
    const float *const x = r->x + first;
    const double peak = peak_of(x, n), scale = r->type == TRIL_Q4_0 ? peak / -8.0 : fabs(peak) / 127.0;
    const bool finite = all_finite(x, n), ordinary = fabs(scale) >= 0x1.01p-14 && fabs(scale) < 65504.0;
    for (int64_t i = 0; i < n; i++) {
        const float y = back->x[first + i];
        if (finite && ordinary && !(fabs((double)x[i] - (double)y) <= most_error(r->type, x[i], scale, (double)y)))
            return broken("value %lld, %a, comes back as %a; the scale is %a", (long long)(first + i), (double)x[i],
                          (double)y, scale);
        if (!finite && (ordinary || isinf(peak)) && isinf(y))
            return broken("value %lld of a block that is not finite comes back as %a", (long long)(first + i),
                          (double)y);
    }
    return true;
}

static bool row_is_near(const struct row *r, const struct row *back)
{
    const int64_t block = in_blocks(r->type) ? BLOCK_VALUES : r->n;
    if (r->type == TRIL_F16 || r->type == TRIL_BF16) return true; /* row_encoded() knows better */
    for (int64_t i = 0; i < r->n; i += block) {
        if (!block_is_near(r, back, i, block)) return false;
    }
    return true;
}

/* There and back on every tier. */
static bool row_holds(const struct tiers *tiers, const struct row *given, struct spot spot)
{
    struct row scalar = *given;
    if (!use_tier("scalar") || !convert(&scalar, true, spot)) return false;
    for (int i = 0; i < tiers->n; i++) {
        struct row r = *given, back;
        if (!use_tier(tiers->name[i]) || !convert(&r, true, spot) || !row_encoded(&r) || !same_stored(&r, &scalar))
            return false;
        back = r;
        if (!convert(&back, false, spot) || !row_decoded(&back) || !row_is_near(&r, &back)) return false;
    }
    return true;
}

static void describe(const struct row *r, struct spot spot)
{
    static const char *const guards[] = {"anywhere", "a page's end", "a page's begin"};
    case_describe("%lld values of %s, %s + %d", (long long)r->n, dtype_name(r->type), guards[spot.guard],
                  (int)spot.offset);
}

enum kind { ORDINARY, WIDE, EQUALS, ZEROS, TIES_OF_127, TIES_OF_8, SMALLEST, LARGEST, ANY_BITS, ODD, KINDS };

static float value_of_kind(struct rng *rng, enum kind kind)
{
    static const float odd[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f};
    switch (kind) {
    case WIDE: return ldexpf(rng_normal(rng), (int)rng_below(rng, 40) - 20);
    case EQUALS: return (float)(rng_below(rng, 9) - 4);
    case ZEROS: return rng_one_in(rng, 2) ? 0.0f : -0.0f;
    case TIES_OF_127: return 0.5f * (float)(rng_below(rng, 509) - 254);
    case TIES_OF_8: return 0.5f * (float)(rng_below(rng, 33) - 16);
    case SMALLEST: return float_of((uint32_t)rng_below(rng, 1 << 26) | (rng_one_in(rng, 2) ? 0x80000000u : 0));
    case LARGEST: return rng_normal(rng) * 0x1p126f;
    case ANY_BITS: return float_of((uint32_t)rng_next(rng));
    case ODD: return rng_one_in(rng, 8) ? rng_of(rng, odd) : rng_normal(rng);
    default: return rng_normal(rng);
    }
}

/* Each block of a kind of its own, or the whole row of one. Where ties are, the scale is 1. */
static void fill(struct row *r, struct rng *rng)
{
    const bool one = rng_one_in(rng, 2);
    enum kind kind = (enum kind)rng_below(rng, KINDS);
    for (int64_t i = 0; i < r->n; i++) {
        const bool begins = i % BLOCK_VALUES == 0;
        if (begins && !one) kind = (enum kind)rng_below(rng, KINDS);
        r->x[i] = begins && kind == TIES_OF_127 ? 127.0f
                  : begins && kind == TIES_OF_8 ? -8.0f
                                                : value_of_kind(rng, kind);
    }
}

/* Every length up to some vectors, longer ones at random. */
static bool rows(const struct tiers *tiers)
{
    const int always = 100, rounds = always + scaled(1500);
    static struct row r;
    struct rng rng;
    for (int round = 0; round < rounds; round++) {
        if (!case_begin(round, &rng)) continue;
        const int64_t n = round < always ? round : rng_below(&rng, LONGEST + 1);
        for (int i = 0; i < COUNT(types); i++) {
            const struct spot spot = spot_random(&rng);
            r = (struct row){.type = types[i],
                             .n = !in_blocks(types[i]) ? n : n % (LONGEST / BLOCK_VALUES + 1) * BLOCK_VALUES};
            fill(&r, &rng);
            describe(&r, spot);
            if (!row_holds(tiers, &r, spot)) return false;
        }
    }
    return true;
}

/* Rows of any bytes, with any scale: all that a file may hold. */
static bool any_bytes(const struct tiers *tiers)
{
    const int rounds = scaled(500);
    static struct row r;
    struct rng rng;
    for (int round = 0; round < rounds; round++) {
        if (!case_begin(round, &rng)) continue;
        const struct spot spot = spot_random(&rng);
        r.type = rng_of(&rng, types);
        r.n = rng_below(&rng, LONGEST / BLOCK_VALUES + 1) * BLOCK_VALUES;
        if (!in_blocks(r.type)) r.n -= r.n == 0 ? 0 : rng_below(&rng, BLOCK_VALUES);
        r.scale = value_of_kind(&rng, (enum kind)rng_below(&rng, KINDS));
        for (int64_t i = 0; i < stored_bytes(r.type, r.n); i++)
            r.stored[i] = (unsigned char)rng_next(&rng);
        describe(&r, spot);
        for (int i = 0; i < tiers->n; i++) {
            if (!use_tier(tiers->name[i]) || !convert(&r, false, spot) || !row_decoded(&r)) return false;
        }
    }
    return true;
}

/* Each of the 65536 becomes f32 without rounding, and itself again, a NaN some NaN. */
static bool every_half(const struct tiers *tiers)
{
    const struct spot spot = {GUARD_AFTER, 0};
    static struct row r, again;
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int i = 0; i < tiers->n; i++) {
        for (int first = 0; first < 2 * 65536; first += LONGEST) {
            r = (struct row){.type = first < 65536 ? TRIL_F16 : TRIL_BF16, .n = LONGEST};
            for (int j = 0; j < LONGEST; j++) {
                const uint16_t half = (uint16_t)(first + j);
                memcpy(r.stored + 2 * j, &half, sizeof half);
            }
            describe(&r, spot);
            if (!use_tier(tiers->name[i]) || !convert(&r, false, spot) || !row_decoded(&r)) return false;
            again = r;
            if (!convert(&again, true, spot) || !row_encoded(&again) || !same_stored(&again, &r)) return false;
        }
    }
    return true;
}

/* F32 to F32 is a copy, to the payload of a NaN. */
static bool copies(const struct tiers *tiers)
{
    static float x[LONGEST], y[LONGEST];
    struct rng rng;
    for (int n = 0; n <= LONGEST; n = 2 * n + 1) {
        if (!case_begin(n, &rng)) continue;
        for (int i = 0; i < LONGEST; i++)
            x[i] = value_of_kind(&rng, ANY_BITS);
        for (int i = 0; i < tiers->n; i++) {
            memset(y, FILL, sizeof y);
            if (!use_tier(tiers->name[i])) return false;
            const tril_status status = tril_convert(y, TRIL_F32, NULL, x, TRIL_F32, NULL, n);
            const bool stays = n == LONGEST || bits_of(y[n]) == 0xc5c5c5c5;
            if (status != TRIL_OK || memcmp(y, x, (size_t)n * sizeof *x) != 0 || !stays)
                return broken("%d values of F32 are not copied as they are", n);
        }
    }
    return true;
}

/* The values around every half integer, with a scale of 1; and, of I8 between 0.25 and 1, one in so many. */
static bool rounding(const struct tiers *tiers)
{
    const struct spot spot = {GUARD_AFTER, 0};
    const uint32_t stride = (uint32_t)(97 * support_stride());
    static struct row r;
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int i = 2; i < COUNT(types); i++) {
        const bool small = types[i] == TRIL_Q4_0;
        const int block = in_blocks(types[i]) ? BLOCK_VALUES : LONGEST;
        uint32_t sweep = bits_of(0.25f);
        for (int twice = small ? -16 : -254; twice <= (small ? 16 : 254); twice++) {
            const uint32_t middle = bits_of(0.5f * (float)twice) - (twice == 0 ? 0 : LONGEST / 8);
            r = (struct row){.type = types[i], .n = LONGEST};
            for (uint32_t j = 0; j < LONGEST; j++) {
                const bool near = j < LONGEST / 4 || sweep >= 0x3f800000;
                const float x = float_of(near ? middle + j % (LONGEST / 4) : (sweep += stride));
                r.x[j] = j % block == 0 ? (small ? -8.0f : 127.0f) : fabsf(x) > (small ? 8.0f : 127.0f) ? 0.0f : x;
            }
            describe(&r, spot);
            if (!row_holds(tiers, &r, spot)) return false;
        }
    }
    return true;
}

/* Known numbers: of binary16 from IEEE 754 and Wikipedia's examples, of bfloat16 from the latter. */
static const struct {
    tril_dtype type;
    uint16_t stored;
    float x;
    bool exact; /* it comes back */
} known_halves[] = {
    {TRIL_F16, 0x3c00, 1.0f, true},
    {TRIL_F16, 0xc000, -2.0f, true},
    {TRIL_F16, 0x3555, 0x1.554p-2f, true},
    {TRIL_F16, 0x3555, 1.0f / 3.0f, false},
    {TRIL_F16, 0x3bff, 0x1.ffcp-1f, true},
    {TRIL_F16, 0x3c01, 0x1.004p0f, true},
    {TRIL_F16, 0x7bff, 65504.0f, true},
    {TRIL_F16, 0x7bff, 65519.996f, false},
    {TRIL_F16, 0x7c00, 65520.0f, false},
    {TRIL_F16, 0x7c00, INFINITY, true},
    {TRIL_F16, 0x0400, 0x1p-14f, true},
    {TRIL_F16, 0x03ff, 0x1.ff8p-15f, true},
    {TRIL_F16, 0x0001, 0x1p-24f, true},
    {TRIL_F16, 0x0000, 0x1p-25f, false},
    {TRIL_F16, 0x8001, -0x1.000002p-25f, false},
    {TRIL_F16, 0x3c00, 0x1.002p0f, false},
    {TRIL_F16, 0x3c02, 0x1.006p0f, false},
    {TRIL_F16, 0x8000, -0.0f, true},
    {TRIL_BF16, 0x3f80, 1.0f, true},
    {TRIL_BF16, 0xc000, -2.0f, true},
    {TRIL_BF16, 0x4049, 3.140625f, true},
    {TRIL_BF16, 0x4049, 3.14159265f, false},
    {TRIL_BF16, 0x3eab, 0.333984375f, true},
    {TRIL_BF16, 0x7f7f, 0x1.fep127f, true},
    {TRIL_BF16, 0x7f80, 0x1.ffp127f, false},
    {TRIL_BF16, 0x7f80, INFINITY, true},
    {TRIL_BF16, 0x0080, 0x1p-126f, true},
    {TRIL_BF16, 0x0001, 0x1p-133f, true},
    {TRIL_BF16, 0x3f80, 0x1.01p0f, false},
    {TRIL_BF16, 0x3f82, 0x1.03p0f, false},
};

/* What ggml's quantize_row_q8_0_ref and quantize_row_q4_0_ref (d99724f2) make of four rows. */
static float known_value(int row, int i)
{
    switch (row) {
    case 0: return (float)(i - 16) / 8.0f;
    case 1: return (float)(i * 37 % 64 - 31) / 16.0f;
    case 2: return i == 5 ? 3.0f : i == 9 ? -3.0f : 0.25f * (float)(i % 7);
    default: return 0.0f;
    }
}

static const unsigned char known_q8_0[][34] = {
    {0x08, 0x24, 0x81, 0x89, 0x91, 0x99, 0xa1, 0xa9, 0xb1, 0xb9, 0xc0, 0xc8, 0xd0, 0xd8, 0xe0, 0xe8, 0xf0,
     0xf8, 0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x47, 0x4f, 0x57, 0x5f, 0x67, 0x6f, 0x77},
    {0x08, 0x24, 0x85, 0x18, 0xad, 0x40, 0xd4, 0x67, 0xfc, 0x91, 0x24, 0xb9, 0x4b, 0xe0, 0x73, 0x08, 0x9d,
     0x30, 0xc4, 0x57, 0xec, 0x7f, 0x14, 0xa9, 0x3c, 0xd0, 0x63, 0xf8, 0x8d, 0x20, 0xb5, 0x47, 0xdc, 0x6f},
    {0x0c, 0x26, 0x00, 0x0b, 0x15, 0x20, 0x2a, 0x7f, 0x40, 0x00, 0x0b, 0x81, 0x20, 0x2a, 0x35, 0x40, 0x00,
     0x0b, 0x15, 0x20, 0x2a, 0x35, 0x40, 0x00, 0x0b, 0x15, 0x20, 0x2a, 0x35, 0x40, 0x00, 0x0b, 0x15, 0x20},
    {0},
};
static const unsigned char known_q4_0[][18] = {
    {0x00, 0x34, 0x80, 0x91, 0x91, 0xa2, 0xa2, 0xb3, 0xb3, 0xc4, 0xc4, 0xd5, 0xd5, 0xe6, 0xe6, 0xf7, 0xf7, 0xf8},
    {0x00, 0xb4, 0xcf, 0x37, 0x9d, 0x04, 0x7b, 0xe2, 0x48, 0xbf, 0x26, 0x9d, 0xf3, 0x6a, 0xd1, 0x48, 0xae, 0x15},
    {0x00, 0xb6, 0x78, 0x67, 0x57, 0x56, 0x45, 0x80, 0x74, 0x78, 0x67, 0x5f, 0x56, 0x45, 0x85, 0x74, 0x78, 0x67},
    {0x00, 0x80, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88},
};

static bool known_half(int i)
{
    uint16_t stored = 0;
    float back = 0.0f;
    tril_convert(&stored, known_halves[i].type, NULL, &known_halves[i].x, TRIL_F32, NULL, 1);
    tril_convert(&back, TRIL_F32, NULL, &stored, known_halves[i].type, NULL, 1);
    if (stored != known_halves[i].stored)
        return broken("%a is stored as %04x, not %04x", (double)known_halves[i].x, stored, known_halves[i].stored);
    if ((bits_of(back) == bits_of(known_halves[i].x)) != known_halves[i].exact)
        return broken("%04x comes back as %a", stored, (double)back);
    return true;
}

static bool known_blocks(void)
{
    float x[4 * BLOCK_VALUES];
    uint16_t q8[sizeof known_q8_0 / 2], q4[sizeof known_q4_0 / 2];
    for (int i = 0; i < COUNT(x); i++)
        x[i] = known_value(i / BLOCK_VALUES, i % BLOCK_VALUES);
    tril_convert(q8, TRIL_Q8_0, NULL, x, TRIL_F32, NULL, COUNT(x));
    tril_convert(q4, TRIL_Q4_0, NULL, x, TRIL_F32, NULL, COUNT(x));
    if (memcmp(q8, known_q8_0, sizeof q8) != 0) return broken("the known blocks of Q8_0 are others");
    if (memcmp(q4, known_q4_0, sizeof q4) != 0) return broken("the known blocks of Q4_0 are others");
    return true;
}

static bool known(const struct tiers *tiers)
{
    struct rng rng;
    if (!case_begin(0, &rng)) return true;
    for (int i = 0; i < tiers->n; i++) {
        if (!use_tier(tiers->name[i]) || !known_blocks()) return false;
        for (int j = 0; j < COUNT(known_halves); j++) {
            if (!known_half(j)) return false;
        }
    }
    return true;
}

static const struct check checks[] = {
    {"convert_known", known},   {"convert_rows", rows},         {"convert_any_bytes", any_bytes},
    {"convert_copies", copies}, {"convert_rounding", rounding}, {"convert_every_half", every_half},
};
const struct suite suite_convert = {"convert", checks, COUNT(checks)};
