/* tril attend: .npy files in, one out. */
#include <stdio.h>
#include <stdlib.h>

#include "operands.h"
#include "options.h"
#include "progress.h"
#include "scoring.h"
#include "tool.h"

static const char help[] =
    "usage: tril attend -q Q.npy -k K.npy -v V.npy -o OUT.npy [OPTION]...\n\n"
    "Computes O = softmax(scale Q K^T + causal mask) V. Q, K, V are NumPy arrays [token][head][dim] of '<f4' or '<f2'\n"
    "in C order; several query heads may share a K/V head. With fewer queries than keys the queries are the last\n"
    "tokens. OUT is '<f4', [token][query head][V's dim].\n\n"
    "  -q, -k, -v FILE   queries, keys, values\n"
    "  -o FILE           the result; written whole or not at all\n" SCORING_HELP
    "  --isa TIER        use exactly this tier; tril info lists them\n"
    "  -h, --help        this text\n";

enum { ISA = 256 };

struct attend_options {
    const char *q, *k, *v, *o;
    struct scoring scoring;
};

static struct attend_options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        SCORING_LONGS, {"isa", required_argument, NULL, ISA}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    struct attend_options x = {.q = NULL};
    for (int c; (c = next_option(argc, argv, "q:k:v:o:", longs, help)) != -1;) {
        switch (c) {
        case 'q': x.q = optarg; break;
        case 'k': x.k = optarg; break;
        case 'v': x.v = optarg; break;
        case 'o': x.o = optarg; break;
        case ISA: isa_option(optarg); break;
        default: scoring_option(&x.scoring, c, optarg);
        }
    }
    if (x.q == NULL || x.k == NULL || x.v == NULL || x.o == NULL)
        die("attend: -%c is missing; give -q, -k, -v and -o, see tril attend --help",
            x.q == NULL ? 'q' : (x.k == NULL ? 'k' : (x.v == NULL ? 'v' : 'o')));
    return x;
}

static void attend_in_pieces(const struct operands *x, const struct scoring *scoring, tril_attention *call)
{
    const int64_t before = x->keys - x->queries;
    const double all = (double)x->queries * (double)x->queries;
    tril_seq seq = {.q_len = scoring_piece(scoring, x, 0), .kv_len = x->keys, .prefix = scoring->prefix};
    size_t bytes;
    call->seqs = &seq;
    call->n_seqs = 1;
    void *workspace = workspace_for(call, &bytes);
    for (int64_t first = 0; first < x->queries; first += seq.q_len) {
        progress("attend", (double)first * (double)first, all);
        seq.q_first = first;
        seq.q_len = scoring_piece(scoring, x, first);
        seq.kv_len = before + first + seq.q_len;
        expect_ok("attend", tril_attend(call, workspace, bytes));
    }
    progress_end();
    free(workspace);
}

int cmd_attend(int argc, char **argv)
{
    struct attend_options options = parse(argc, argv);
    struct operands x = operands_read(options.q, options.k, options.v);
    scoring_read(&options.scoring, &x);
    struct output *to = output_open(options.o); /* before the work: a wrong path should not cost it */
    const int64_t shape[3] = {x.queries, x.q_heads, x.v_dim};
    const int64_t elements = shape[0] * shape[1] * shape[2];
    float *out = need((size_t)elements, sizeof(float));

    tril_attention call = call_of(&x);
    scoring_ask(&options.scoring, 0, &call);
    call.out = out_of(out, x.queries, x.q_heads, x.v_dim);
    attend_in_pieces(&x, &options.scoring, &call);
    npy_write_header(to, NPY_F4, 3, shape);
    npy_write_elements(to, NPY_F4, out, elements);
    outputs_commit();
    free(out);
    scoring_free(&options.scoring);
    operands_free(&x);
    return DONE;
}
