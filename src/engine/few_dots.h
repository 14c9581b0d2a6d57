/* Few rows: scores of keys that are rows of f32. A vector holds one dim of V_LANES keys, which are transposed in
 * registers; each query row has a chain. Keys of another type: few_widen.h. */
#ifndef TRIL_ENGINE_FEW_DOTS_H
#define TRIL_ENGINE_FEW_DOTS_H

#include "few_stream.h"

/* Spells out a statement for every lane that a vector can have; see EACH_ROW. */
#define EACH_LANE(DO)                                                                                                  \
    DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

/* The most rows of a kernel that turns keys of f32 over: beside a vector for each lane there are registers for no more.
 */
#define FEW_DOTS_ROWS (V_LANES == PANEL ? 12 : TILE_ROWS)
#define FEW_MAX_ROWS  12
_Static_assert(FEW_DOTS_ROWS <= FEW_MAX_ROWS, "rows of few_dots()");

/* Whether for more rows than that it also keeps what it has turned over, as the panel that the tiles take for the rest
 * of them. Keys 4 KiB apart share so few sets of the first-level cache that none is there for a second look; and while
 * they come, there are the first rows to multiply. Where this is not so, panels are packed first. */
#define FEW_KEEPS (V_LANES == PANEL)

/* See EACH_ROW. */
#define EACH_FEW_ROW(DO) EACH_ROW(DO) DO(8) DO(9) DO(10) DO(11)

/* Where `rows` rows of a kernel begin, row floats apart, of which `real` are there, and more than rows - step: the last
 * of them takes the places of the others, too. */
static ALWAYS_INLINE void few_places(const int rows, const int step, const int real, const size_t row,
                                     size_t at[FEW_MAX_ROWS])
{
    UNROLL
    for (int r = 0; r < rows; r++)
        at[r] = (size_t)(r <= rows - step || r < real ? r : real - 1) * row;
}

/* One value of the rows' queries, times a vector of keys. */
static ALWAYS_INLINE void few_lane(const int rows, const int lane, const va av[FEW_MAX_ROWS], const float *q,
                                   const size_t at[FEW_MAX_ROWS], const vf keys, vf acc[FEW_MAX_ROWS])
{
#define DO(r)                                                                                                          \
    if (r < rows) acc[r] = a_fma(A_STEP > 1 ? av[r] : a_load1(q + at[r]), lane, keys, acc[r]);
    EACH_FEW_ROW(DO)
#undef DO
}

/* Whether the next square's rows are read one by one between the lanes of this one, whose registers they take: all of
 * them at once would wait for each other, while nothing more is asked for. */
#define FEW_READS_AHEAD (V_LANES == PANEL)

/* V_LANES values of the rows' queries, times t; and then in t the rows at `next`, `apart` bytes from each other. */
static ALWAYS_INLINE void few_lanes(const bool singly, const int rows, const float *q, const size_t at[FEW_MAX_ROWS],
                                    vf t[V_LANES], const char *next, const int64_t apart, vf acc[FEW_MAX_ROWS],
                                    struct few_stream *stream)
{
    enum { PARTS = V_LANES / FEW_TAKES };
    struct few_lines taken = {{NULL, NULL}, 0};
    va av[FEW_MAX_ROWS] = {a_load1(q)}; /* not used where A_STEP is 1, but compilers want it to have a value */
    _Static_assert(A_STEP == 1 || A_STEP == V_LANES, "a register of A holds the values of one transposition");
#define DO(r)                                                                                                          \
    if (A_STEP > 1 && r < rows) av[r] = a_load(q + at[r]);
    EACH_FEW_ROW(DO)
#undef DO
#define DO(u)                                                                                                          \
    if (u < V_LANES) {                                                                                                 \
        if (!singly && u % PARTS == 0) taken = few_take_more(stream);                                                  \
        few_lane(rows, A_STEP > 1 ? u % 4 : 0, av, q + u, at, t[u % V_LANES], acc);                                    \
        if (!singly) few_ask_share(true, &taken, &acc[0], FEW_TAKE_LINES, u % PARTS, PARTS);                           \
        if (singly && u % 4 < 3) few_pull_as(false, stream, 1);                                                        \
        if (!singly && FEW_READS_AHEAD) {                                                                              \
            V_BEHIND(next, acc[0]);                                                                                    \
            t[u % V_LANES] = v_load((const float *)(const void *)next);                                                \
            V_HERE(t[u % V_LANES]);                                                                                    \
            next += apart;                                                                                             \
        }                                                                                                              \
    }
    EACH_LANE(DO)
#undef DO
}

/* V_LANES keys x V_LANES dims (dims of them real), not transposed yet. */
static ALWAYS_INLINE void few_rows_of_square(const char *k, const int64_t stride, const int dims, vf t[V_LANES])
{
    UNROLL
    for (int i = 0; i < V_LANES; i++) {
        const float *row = (const float *)(const void *)(k + i * stride);
        t[i] = dims >= V_LANES ? v_load(row) : v_load_part(row, dims);
    }
}

/* The same, transposed in registers. */
static ALWAYS_INLINE void few_square(const char *k, const int64_t stride, const int dims, vf t[V_LANES])
{
    few_rows_of_square(k, stride, dims, t);
    v_transpose(t);
}

/* Numbers of rows for which there is a kernel are multiples of it, and FEW_DOTS_ROWS. Of others the last row takes part
 * more than once, which costs less than more kernels would in code: in vectors of a whole line, four chains of fma take
 * no longer than one. */
#define FEW_DOTS_STEP (V_LANES == PANEL ? 4 : 2)

/* V_LANES dims of a panel, or of half a one. */
static ALWAYS_INLINE void few_put(const vf t[V_LANES], float *panel)
{
    UNROLL
    for (int u = 0; u < V_LANES; u++)
        v_store(panel + u * V_LANES, t[u]);
}

/* Goes on with the chains in s over the last dims, `left` of them, one by one, so that no row is read past its end.
 * panel: null, or where they go, with zeros behind them. */
static NOINLINE void few_last_dots(const int rows, const int left, const float *q, const int dims, const char *k,
                                   const int64_t stride, float *s, float *panel)
{
    enum { AT_ONCE = 4 };
    float some[V_LANES * V_LANES], *lanes = panel != NULL ? panel : some;
    vf t[V_LANES];
    few_square(k, stride, left, t);
    few_put(t, lanes);
    for (int r = 0; r < rows; r += AT_ONCE, q += AT_ONCE * dims, s += AT_ONCE * FEW_ROW) {
        size_t at[FEW_MAX_ROWS], s_at[FEW_MAX_ROWS];
        vf acc[FEW_MAX_ROWS];
        few_places(AT_ONCE, AT_ONCE, rows - r, (size_t)dims, at);
        few_places(AT_ONCE, AT_ONCE, rows - r, FEW_ROW, s_at);
#define DO(i)                                                                                                          \
    if (i < AT_ONCE) acc[i] = v_load(s + s_at[i]);
        EACH_FEW_ROW(DO)
#undef DO
        NO_UNROLL
        for (int u = 0; u < left; u++) {
            va av[FEW_MAX_ROWS] = {a_load1(q)};
#define DO(i)                                                                                                          \
    if (A_STEP > 1 && i < AT_ONCE) av[i] = a_load1(q + at[i] + u);
            EACH_FEW_ROW(DO)
#undef DO
            few_lane(AT_ONCE, 0, av, q + u, at, v_load(lanes + u * V_LANES), acc);
        }
#define DO(i)                                                                                                          \
    if (i < AT_ONCE) v_store(s + s_at[i], acc[i]);
        EACH_FEW_ROW(DO)
#undef DO
    }
}

/* s[r][0 ... V_LANES - 1] = the scores of `rows` rows and V_LANES keys of at least as many dims. keep: the keys into
 * the panel. */
static ALWAYS_INLINE void few_dots(const bool singly, const bool keep, const int rows, const int real, const float *q,
                                   const int dims, const char *k, const int64_t stride, float *s, float *panel,
                                   struct few_stream *stream)
{
    size_t at[FEW_MAX_ROWS], s_at[FEW_MAX_ROWS];
    few_places(rows, FEW_DOTS_STEP, real, (size_t)dims, at);
    few_places(rows, FEW_DOTS_STEP, real, FEW_ROW, s_at);
    vf acc[FEW_MAX_ROWS];
    int left = dims;
#define DO(r)                                                                                                          \
    if (r < rows) acc[r] = v_zero();
    EACH_FEW_ROW(DO)
#undef DO
    vf t[V_LANES];
    if (!singly && FEW_READS_AHEAD) few_rows_of_square(k, stride, V_LANES, t);
    do {
        const char *rows_at = k, *next = (const char *)q; /* where there is no more: anything */
        int64_t apart = 0;
#define DO(r)                                                                                                          \
    if (0 < r && r < rows) V_OPAQUE(at[r]);
        EACH_FEW_ROW(DO)
#undef DO
        __asm__("" : "+r"(rows_at)); /* gcc 12 keeps a pointer to each of the rows otherwise, and spills them and t */
        if (singly || !FEW_READS_AHEAD) few_rows_of_square(rows_at, stride, V_LANES, t);
        if (left >= 2 * V_LANES) {
            next = rows_at + V_LANES * sizeof(float);
            apart = stride;
        }
        v_transpose(t);
        if (keep) {
            few_put(t, panel);
            panel += V_LANES * V_LANES;
        }
        few_lanes(singly, rows, q, at, t, next, apart, acc, stream);
        left -= V_LANES;
        q += V_LANES;
        k += V_LANES * sizeof(float);
    } while (left >= V_LANES);
#define DO(r)                                                                                                          \
    if (r < rows) v_store(s + s_at[r], acc[r]);
    EACH_FEW_ROW(DO)
#undef DO
    if (left > 0) few_last_dots(real, left, q, dims, k, stride, s, keep ? panel : NULL);
}

#define DOTS_ARGS                                                                                                      \
    const int rows, const float *q, const int dims, const char *k, const int64_t stride, float *s,                     \
        struct few_stream *stream
#define DOTS(name, singly, most)                                                                                       \
    static NOINLINE void name(DOTS_ARGS)                                                                               \
    {                                                                                                                  \
        few_dots(singly, false, most, rows, q, dims, k, stride, s, NULL, stream);                                      \
    }
DOTS(few_dots_1, false, FEW_DOTS_STEP)
DOTS(few_dots_2, false, 2 * FEW_DOTS_STEP)
DOTS(few_dots_3, false, 3 * FEW_DOTS_STEP)
#if FEW_DOTS_ROWS > 3 * FEW_DOTS_STEP
DOTS(few_dots_4, false, FEW_DOTS_ROWS)
#endif
#if FEW_SINGLE_ROWS > 0
DOTS(few_singly, true, FEW_SINGLE_ROWS)
#endif
#undef DOTS

static void (*const few_dots_by_rows[])(DOTS_ARGS) = {
    few_dots_1,
    few_dots_2,
    few_dots_3,
#if FEW_DOTS_ROWS > 3 * FEW_DOTS_STEP
    few_dots_4,
#endif
};

_Static_assert(sizeof(few_dots_by_rows) / sizeof(few_dots_by_rows[0]) ==
                   (FEW_DOTS_ROWS + FEW_DOTS_STEP - 1) / FEW_DOTS_STEP,
               "a function for each step of rows");

/* As many rows as a kernel takes, and the keys into the panel. */
static NOINLINE void few_dots_keeping(const float *q, const int dims, const char *k, const int64_t stride, float *s,
                                      float *panel, struct few_stream *stream)
{
    few_dots(false, FEW_KEEPS, FEW_DOTS_ROWS, FEW_DOTS_ROWS, q, dims, k, stride, s, panel, stream);
}

/* How many of the rows that are left a kernel of at most `most` takes. */
static int few_rows_left(int left, int most)
{
    return left < most ? left : most;
}

static void few_dots_of(DOTS_ARGS)
{
#if FEW_SINGLE_ROWS > 0
    if (stream->singly) {
        few_singly(rows, q, dims, k, stride, s, stream);
        return;
    }
#endif
    few_dots_by_rows[(rows - 1) / FEW_DOTS_STEP](rows, q, dims, k, stride, s, stream);
}

#endif
