/* tril demo: the main job on real input. Real activations against their float64 reference, a head's weights as a
 * picture, and a layer of the size of an 8-billion-parameter model on every tier of this machine. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gate.h"
#include "operands.h"
#include "options.h"
#include "picture.h"
#include "probe.h"
#include "progress.h"
#include "random.h"
#include "reference.h"
#include "tiers.h"
#include "tool.h"

#ifdef TRIL_HAVE_OPENBLAS
#include "baseline.h"
#endif

static const char help[] =
    "usage: tril demo [OPTION]...\n\n"
    "Runs real activations of a small language model through the chosen tier and compares with the float64 reference;\n"
    "draws the weights of a head; then times a layer of the size of an 8-billion-parameter model (32 query heads, 8 "
    "K/V\n"
    "heads, 128, 2048 tokens) on every tier of this machine, on one thread, beside OpenBLAS if the tool was built "
    "with\n"
    "it. A figure is the median of repetitions during which the machine was quiet: a register-only FMA probe just "
    "before\n"
    "and just after reached 90 % of the best. Exit status 1 where a result exceeds the bound.\n\n"
    "  --data DIR    the activations; default data\n"
    "  --out DIR     where the picture goes, made where it is missing; default .\n"
    "  -h, --help    this text\n";

enum { DATA = 256, OUT };

enum { Q_HEADS = 32, KV_HEADS = 8, DIM = 128, TOKENS = 2048 };
enum { REPETITIONS = 7, PICTURE_LAYER = 2, PICTURE_HEAD = 0 };

static void join(char *to, size_t room, const char *directory, const char *name)
{
    if ((size_t)snprintf(to, room, "%s/%s", directory, name) >= room) die("%s: too long a path", directory);
}

/* --- real activations --------------------------------------------------------------------------------------------- */

struct layer {
    int number;
    char q[512], k[512], v[512], o[512];
    struct operands x;
    struct npy reference;
};

static void layer_read(struct layer *l, const char *directory, int number)
{
    const char *const names[] = {"q", "k", "v", "o"};
    char *const paths[] = {l->q, l->k, l->v, l->o};
    l->number = number;
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof name, "layer%d_%s.npy", number, names[i]);
        join(paths[i], sizeof l->q, directory, name);
    }
    l->x = operands_read(l->q, l->k, l->v);
    l->reference = npy_read(l->o, NPY_F8, 3, "[token][head][dim]");
    const int64_t shape[3] = {l->x.queries, l->x.q_heads, l->x.v_dim};
    if (memcmp(l->reference.shape, shape, sizeof shape) != 0)
        die("%s: its shape does not belong to %s and %s; give the data that came with tril", l->o, l->q, l->v);
}

/* The worst error against the file's reference, in units of the bound. */
static double layer_error(const struct layer *l)
{
    const tril_seq seq = {.q_len = l->x.queries, .kv_len = l->x.keys};
    const int64_t heads = l->x.q_heads, dim = l->x.v_dim;
    float *out = need((size_t)l->reference.elements, sizeof(float));
    tril_attention call = call_of(&l->x);
    call.out = out_of(out, l->x.queries, heads, dim);
    call.seqs = &seq;
    call.n_seqs = 1;
    size_t bytes;
    void *workspace = workspace_for(&call, &bytes);
    expect_ok("demo", tril_attend(&call, workspace, bytes));
    free(workspace);

    struct reference r = reference_new(l->x.keys, dim);
    double worst = 0;
    for (int64_t i = 0; i < l->x.queries; i++) {
        for (int64_t h = 0; h < heads; h++) {
            reference_row(&r, &call, &seq, i, h, 1); /* for the bound; the reference itself is the file's */
            for (int64_t d = 0; d < dim; d++) {
                const int64_t at = (i * heads + h) * dim + d;
                worst = fmax(worst, reference_error(out[at], TRIL_F32, l->reference.f64[at], r.factor * r.magnitude[d],
                                                    r.flushed[d]));
            }
        }
    }
    reference_free(&r);
    free(out);
    return worst;
}

static void draw(const struct layer *l, const char *data, const char *out)
{
    const struct scoring plain = {.scale = 0};
    char text[512], png[512], title[128];
    join(text, sizeof text, data, "tokens.txt");
    join(png, sizeof png, out, "weights.png");
    struct tokens labels = tokens_read(text, false);
    const struct range range = range_settle((struct range){0, 0}, &l->x, &labels, text);
    if (mkdir(out, 0777) != 0 && errno != EEXIST) die("--out %s: %s; give a directory", out, strerror(errno));
    struct output *to = output_open(png);
    snprintf(title, sizeof title, "Attention weights of a character model, layer %d", l->number);
    picture_write(&l->x, &plain, PICTURE_HEAD, range, &labels, title, to);
    outputs_commit();
    tokens_free(&labels);
    printf("picture   %s: layer %d, head %d, tokens %" PRId64 " to %" PRId64 "\n", png, l->number, PICTURE_HEAD,
           range.first, range.end - 1);
}

static int real_input(const char *data, const char *out)
{
    static struct layer layers[2];
    static const int numbers[2] = {0, PICTURE_LAYER};
    int status = DONE;
    if (access(data, R_OK) != 0) die("--data %s: %s; give the directory data of tril's source", data, strerror(errno));
    for (int i = 0; i < 2; i++)
        layer_read(&layers[i], data, numbers[i]);
    printf("Real activations, tier %s, against float64; the bound is 2^-24 A (48 + 2 S + n/8192)\n",
           tier_serving(tril_isa(), TRIL_MATH_F32));
    for (int i = 0; i < 2; i++) {
        const struct layer *l = &layers[i];
        const double error = layer_error(l);
        printf("layer %d   %d query heads over %d, %" PRId64 " tokens: worst error %.3f of the bound%s\n", l->number,
               l->x.q_heads, l->x.kv_heads, l->x.queries, error, error <= 1 ? "" : ": WRONG");
        if (!(error <= 1)) status = DIFFERS;
    }
    draw(&layers[1], data, out);
    for (int i = 0; i < 2; i++) {
        operands_free(&layers[i].x);
        npy_free(&layers[i].reference);
    }
    return status;
}

/* --- a large layer ------------------------------------------------------------------------------------------------ */

struct big {
    float *q, *k, *v, *out, *workspace, *scratch;
    size_t bytes;
};

/* One line of the table: a tier, or OpenBLAS where tier is null. */
struct contender {
    struct big *big;
    const char *name, *tier;
    int heads, tokens, samples;
    tril_attention call;
    tril_seq seq;
    struct gate_spread seconds, of_peak;
    bool quiet;
};

enum { MOST_TIERS = GATE_CONTENDERS - 1 };

static float *normal(struct random *r, size_t n)
{
    float *x = need(n, sizeof(float));
    for (size_t i = 0; i < n; i++)
        x[i] = random_normal(r);
    return x;
}

static struct big big_new(void)
{
    struct random r = {8};
    const size_t q = (size_t)TOKENS * Q_HEADS * DIM, k = (size_t)TOKENS * KV_HEADS * DIM;
    return (struct big){.q = normal(&r, q), .k = normal(&r, k), .v = normal(&r, k), .out = need(q, sizeof(float))};
}

static void big_free(struct big *b)
{
    free(b->q);
    free(b->k);
    free(b->v);
    free(b->out);
    free(b->workspace);
    free(b->scratch);
}

static double flops(int heads, int tokens)
{
    return 4.0 * (double)DIM * heads * (0.5 * tokens * (tokens + 1));
}

static void show_turn(void *context)
{
    static int turn;
    const struct contender *c = context;
    char what[64];
    snprintf(what, sizeof what, "repetition %d: %s", ++turn, c->name);
    progress_text(what);
    if (c->tier != NULL) tril_force_isa(c->tier);
}

static void run(void *context)
{
    const struct contender *c = context;
    if (c->tier != NULL) {
        expect_ok("demo", tril_attend(&c->call, c->big->workspace, c->big->bytes));
        return;
    }
#ifdef TRIL_HAVE_OPENBLAS
    const struct big *b = c->big;
    baseline_attend_openblas(Q_HEADS, KV_HEADS, DIM, TOKENS, b->q, b->k, b->v, b->out, b->scratch);
#endif
}

/* The first `heads` query heads and `tokens` tokens of the layer. */
static void shrink(struct contender *c, int heads, int tokens)
{
    const struct big *b = c->big;
    const int group = Q_HEADS / KV_HEADS;
    c->heads = heads;
    c->tokens = tokens;
    c->seq = (tril_seq){.q_len = tokens, .kv_len = tokens};
    c->call = (tril_attention){
        .struct_size = sizeof c->call,
        .q_heads = heads,
        .kv_heads = heads < group ? 1 : heads / group,
        .qk_dim = DIM,
        .v_dim = DIM,
        .q = tensor_of(b->q, TOKENS, Q_HEADS, DIM),
        .k = tensor_of(b->k, TOKENS, KV_HEADS, DIM),
        .v = tensor_of(b->v, TOKENS, KV_HEADS, DIM),
        .out = out_of(b->out, TOKENS, Q_HEADS, DIM),
        .seqs = &c->seq,
        .n_seqs = 1,
    };
}

static void grow_workspace(struct big *b, const struct contender *c)
{
    size_t bytes;
    tril_force_isa(c->tier);
    expect_ok("demo", tril_workspace(&c->call, 1, &bytes));
    if (bytes <= b->bytes) return;
    free(b->workspace);
    b->workspace = need(bytes, 1);
    b->bytes = bytes;
}

/* The whole layer where it takes seconds; for a slow tier one head, and, under an emulator, fewer tokens. */
static void fit(struct contender *c)
{
    shrink(c, 1, 256);
    grow_workspace(c->big, c);
    run(c);
    const double begin = seconds();
    run(c);
    const double rate = flops(1, 256) / (seconds() - begin);
    int heads = Q_HEADS, tokens = TOKENS;
    if (flops(heads, tokens) / rate > 4) heads = 1;
    while (tokens > 256 && flops(heads, tokens) / rate > 4)
        tokens /= 2;
    shrink(c, heads, tokens);
    grow_workspace(c->big, c);
}

/* Times contenders in turn, so that what slows the machine slows all of them. */
static void measure(struct contender *const *c, int n, int wanted, double seconds_at_most)
{
    static struct gate gate;
    static double values[2][GATE_ROUNDS];
    struct gate_contender g[GATE_CONTENDERS] = {{0}};
    for (int i = 0; i < n; i++)
        g[i] = (struct gate_contender){show_turn, run, c[i], PROBE_F32};
    if (n == 0) return;
    gate_measure(&gate, g, n, wanted, seconds_at_most);
    const bool quiet = gate.counted > 0;
    for (int i = 0; i < n; i++) {
        c[i]->samples = quiet ? gate.counted : gate.rounds;
        c[i]->quiet = quiet;
        for (int j = 0; j < c[i]->samples; j++) {
            const struct gate_sample *s = &gate.sample[i][j];
            values[0][j] = s->seconds;
            values[1][j] = 1e-9 * flops(c[i]->heads, c[i]->tokens) / s->seconds / s->peak;
        }
        c[i]->seconds = gate_spread_of(values[0], c[i]->samples);
        c[i]->of_peak = gate_spread_of(values[1], c[i]->samples);
    }
}

static double gflops(const struct contender *c)
{
    return 1e-9 * flops(c->heads, c->tokens) / c->seconds.median;
}

static void print_table(const struct contender *c, int n)
{
    bool loud = false;
    printf("%-10s  %5s  %6s  %9s  %8s  %7s  %-15s  %s\n", "", "heads", "tokens", "time", "GFLOP/s", "of peak",
           "(least to most)", "repetitions");
    for (int i = 0; i < n; i++) {
        printf("%-10s  %5d  %6d  %7.1fms  %8.1f  %7.3f  (%.3f to %.3f)  %6d%s\n", c[i].name, c[i].heads, c[i].tokens,
               1e3 * c[i].seconds.median, gflops(&c[i]), c[i].of_peak.median, c[i].of_peak.min, c[i].of_peak.max,
               c[i].samples, c[i].quiet ? "" : " *");
        loud = loud || !c[i].quiet;
    }
    for (int i = 0; i < n; i++) {
        if (c[i].heads < Q_HEADS || c[i].tokens < TOKENS)
            printf("%s is too slow for the whole layer: %d head%s, %d tokens\n", c[i].name, c[i].heads,
                   c[i].heads == 1 ? "" : "s", c[i].tokens);
    }
    if (loud) printf("* the machine was never quiet: all repetitions counted, so take the figures with care\n");
    const struct contender *last = &c[n - 1];
    if (last->tier == NULL && n > 1 && c[n - 2].heads == Q_HEADS)
        printf("%s is %.2f times as fast as OpenBLAS\n", c[n - 2].name, last->seconds.median / c[n - 2].seconds.median);
}

static void large_layer(void)
{
    struct big big = big_new();
    struct contender all[GATE_CONTENDERS] = {{0}}, *fast[GATE_CONTENDERS] = {0};
    int n = 0, n_fast = 0, usable;
    printf("\nA layer of an 8-billion-parameter model: %d query heads over %d K/V heads of %d, %d tokens: %.1f GFLOP\n",
           Q_HEADS, KV_HEADS, DIM, TOKENS, 1e-9 * flops(Q_HEADS, TOKENS));
    for (int i = 0; tril_isa_list(i, &usable) != NULL && n < MOST_TIERS; i++) {
        const char *tier = tril_isa_list(i, NULL);
        if (!usable || !tier_serves(tier, TRIL_MATH_F32)) continue;
        all[n] = (struct contender){.big = &big, .name = tier, .tier = tier};
        fit(&all[n++]);
    }
#ifdef TRIL_HAVE_OPENBLAS
    all[n++] = (struct contender){.big = &big, .name = "OpenBLAS", .heads = Q_HEADS, .tokens = TOKENS};
    big.scratch = need(baseline_scratch_floats(Q_HEADS, KV_HEADS, DIM, TOKENS), sizeof(float));
#endif
    for (int i = 0; i < n; i++) {
        struct contender *c = &all[i];
        if (c->heads == Q_HEADS && c->tokens == TOKENS)
            fast[n_fast++] = c;
        else
            measure(&c, 1, 2, 15);
    }
    measure(fast, n_fast, REPETITIONS, 45);
    progress_end();
    tril_force_isa(NULL);
    printf("one thread; the peak is this core's FMA probe on %s units, %.1f GFLOP/s at best; flops are the lower\n"
           "triangle's alone; medians\n\n",
           probe_name(PROBE_F32), gate_best_probe(PROBE_F32));
    print_table(all, n);
#ifdef TRIL_HAVE_OPENBLAS
    printf("OpenBLAS: row blocks of 128 by sgemm with its %s kernels, a vectorised softmax between\n", baseline_core());
#else
    printf("OpenBLAS was not found when the tool was built: no baseline\n");
#endif
    big_free(&big);
}

/* --- the command -------------------------------------------------------------------------------------------------- */

int cmd_demo(int argc, char **argv)
{
    static const struct option longs[] = {{"data", required_argument, NULL, DATA},
                                          {"out", required_argument, NULL, OUT},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *data = "data", *out = ".";
    for (int c; (c = next_option(argc, argv, "", longs, help)) != -1;) {
        if (c == DATA) data = optarg;
        if (c == OUT) out = optarg;
    }
    const int status = real_input(data, out);
    fflush(stdout);
    large_layer();
    return status;
}
