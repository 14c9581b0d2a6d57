/* tril attend: .npy files in, one out. */
#include <stdio.h>
#include <stdlib.h>

#include "operands.h"
#include "options.h"
#include "progress.h"
#include "tool.h"

static const char help[] =
    "usage: tril attend -q Q.npy -k K.npy -v V.npy -o OUT.npy [OPTION]...\n\n"
    "Computes O = softmax(scale Q K^T + causal mask) V. Q, K, V are NumPy arrays [token][head][dim] of '<f4' or '<f2'\n"
    "in C order; several query heads may share a K/V head. With fewer queries than keys the queries are the last\n"
    "tokens. OUT is '<f4', [token][query head][V's dim].\n\n"
    "  -q, -k, -v FILE   queries, keys, values\n"
    "  -o FILE           the result; written whole or not at all\n"
    "  --scale X         of the scores; default 1/sqrt(dim)\n"
    "  --isa TIER        use exactly this tier; tril info lists them\n"
    "  -h, --help        this text\n";

enum { SCALE = 256, ISA };

struct attend_options {
    const char *q, *k, *v, *o;
    float scale;
};

static struct attend_options parse(int argc, char **argv)
{
    static const struct option longs[] = {{"scale", required_argument, NULL, SCALE},
                                          {"isa", required_argument, NULL, ISA},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct attend_options x = {.scale = 0};
    for (int c; (c = next_option(argc, argv, "q:k:v:o:", longs, help)) != -1;) {
        switch (c) {
        case 'q': x.q = optarg; break;
        case 'k': x.k = optarg; break;
        case 'v': x.v = optarg; break;
        case 'o': x.o = optarg; break;
        case SCALE: x.scale = scale_option(optarg); break;
        case ISA: isa_option(optarg); break;
        }
    }
    if (x.q == NULL || x.k == NULL || x.v == NULL || x.o == NULL)
        die("attend: -%c is missing; give -q, -k, -v and -o, see tril attend --help",
            x.q == NULL ? 'q' : (x.k == NULL ? 'k' : (x.v == NULL ? 'v' : 'o')));
    return x;
}

/* The whole prompt in pieces, so that progress can be shown: a row's bits do not depend on its piece. */
static void attend_in_pieces(tril_attention *call, int64_t queries, int64_t keys)
{
    const int64_t piece = 192; /* at least one task's rows on every tier */
    tril_seq seq = {.q_len = queries < piece ? queries : piece, .kv_len = keys};
    size_t bytes;
    call->seqs = &seq;
    call->n_seqs = 1;
    void *workspace = workspace_for(call, &bytes);
    for (int64_t first = 0; first < queries; first += piece) {
        const int64_t here = queries - first < piece ? queries - first : piece;
        progress("attend", (double)first * (double)first, (double)queries * (double)queries);
        seq = (tril_seq){.q_first = first, .q_len = here, .kv_len = keys - queries + first + here};
        expect_ok("attend", tril_attend(call, workspace, bytes));
    }
    progress_end();
    free(workspace);
}

int cmd_attend(int argc, char **argv)
{
    const struct attend_options options = parse(argc, argv);
    struct operands x = operands_read(options.q, options.k, options.v);
    struct output *to = output_open(options.o); /* before the work: a wrong path should not cost it */
    const int64_t shape[3] = {x.queries, x.q_heads, x.v_dim};
    const int64_t elements = shape[0] * shape[1] * shape[2];
    float *out = need((size_t)elements, sizeof(float));

    tril_attention call = call_of(&x, options.scale);
    call.out = out_of(out, x.queries, x.q_heads, x.v_dim);
    attend_in_pieces(&call, x.queries, x.keys);
    npy_write_header(to, 3, shape);
    npy_write_floats(to, out, elements);
    outputs_commit();
    free(out);
    operands_free(&x);
    return DONE;
}
