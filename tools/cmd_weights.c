/* tril weights: the weight matrix as a .npy file, one head as a picture. */
#include <stdio.h>
#include <stdlib.h>

#include "operands.h"
#include "options.h"
#include "picture.h"
#include "progress.h"
#include "tokens.h"
#include "tool.h"

static const char help[] =
    "usage: tril weights -q Q.npy -k K.npy [-o A.npy] [--png FILE] [OPTION]...\n\n"
    "Computes A = softmax(scale Q K^T + causal mask). Q and K are NumPy arrays [token][head][dim] of '<f4' or '<f2' in "
    "C\n"
    "order; with fewer queries than keys the queries are the last tokens. A is '<f4', [query head][query][key], zero\n"
    "above the diagonal.\n\n"
    "  -q, -k FILE       queries, keys\n"
    "  -o FILE           the weights of all heads\n"
    "  --packed          each head as a packed lower triangle, [query head][element]: the visible keys of query 0,\n"
    "                    of query 1, ... without a gap\n"
    "  --scale X         of the scores; default 1/sqrt(dim)\n"
    "  --isa TIER        use exactly this tier; tril info lists them\n"
    "  --png FILE        one head as a heat map\n"
    "  --head H          which query head, from 0; default 0\n"
    "  --text FILE       the tokens along the axes, UTF-8, one per character; without it their numbers\n"
    "  --by-line         one token per line of the text instead\n"
    "  --range A:B       draw tokens A to B - 1, at most 256; default the first 96, or the last 96 where there are\n"
    "                    fewer queries than keys\n"
    "  -h, --help        this text\n";

enum { SCALE = 256, ISA, PACKED, PNG, HEAD, TEXT, BY_LINE, RANGE };

struct weights_options {
    const char *q, *k, *o, *png, *text;
    float scale;
    bool packed, by_line, has_head, has_range;
    int64_t head;
    struct window window;
};

static struct weights_options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"scale", required_argument, NULL, SCALE}, {"isa", required_argument, NULL, ISA},
        {"packed", no_argument, NULL, PACKED},     {"png", required_argument, NULL, PNG},
        {"head", required_argument, NULL, HEAD},   {"text", required_argument, NULL, TEXT},
        {"by-line", no_argument, NULL, BY_LINE},   {"range", required_argument, NULL, RANGE},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    struct weights_options x = {.scale = 0};
    for (int c; (c = next_option(argc, argv, "q:k:o:", longs, help)) != -1;) {
        switch (c) {
        case 'q': x.q = optarg; break;
        case 'k': x.k = optarg; break;
        case 'o': x.o = optarg; break;
        case SCALE: x.scale = scale_option(optarg); break;
        case ISA: isa_option(optarg); break;
        case PACKED: x.packed = true; break;
        case PNG: x.png = optarg; break;
        case HEAD:
            x.head = integer_option("--head", optarg, 0, 65535);
            x.has_head = true;
            break;
        case TEXT: x.text = optarg; break;
        case BY_LINE: x.by_line = true; break;
        case RANGE:
            range_option("--range", optarg, &x.window.first, &x.window.end);
            x.has_range = true;
            break;
        }
    }
    if (x.q == NULL || x.k == NULL)
        die("weights: -%c is missing; give -q and -k, see tril weights --help", x.q == NULL ? 'q' : 'k');
    if (x.o == NULL && x.png == NULL) die("weights: no output; give -o or --png, see tril weights --help");
    if (x.packed && x.o == NULL) die("--packed: there is no -o that it could shape; give -o");
    if (x.png == NULL && (x.has_head || x.has_range || x.text != NULL))
        die("%s: there is no picture that it belongs to; give --png",
            x.has_head ? "--head" : (x.has_range ? "--range" : "--text"));
    if (x.by_line && x.text == NULL) die("--by-line: there is no text that it could cut; give --text");
    return x;
}

/* The query heads that share a K/V head, one such group after the other, each in pieces of queries, so that a group's
 * matrices are all that is held and progress can be shown. */
static void write_weights(const struct operands *x, float scale, bool packed, struct output *to)
{
    const int64_t piece = 192, before = x->keys - x->queries, group = x->q_heads / x->kv_heads;
    const int64_t triangle = x->queries * before + x->queries * (x->queries + 1) / 2;
    const int64_t matrix = packed ? triangle : x->queries * x->keys;
    const int64_t shape[3] = {x->q_heads, packed ? matrix : x->queries, x->keys};
    npy_write_header(to, packed ? 2 : 3, shape);

    for (int64_t h = 0; h < x->kv_heads; h++) {
        float *a = need((size_t)(group * matrix), sizeof(float));
        tril_attention call = call_of(x, scale);
        call.q_heads = (int32_t)group;
        call.kv_heads = 1;
        call.q.data = (const char *)call.q.data + h * group * call.q.head_stride;
        call.q.bytes -= h * group * call.q.head_stride;
        call.k.data = (const char *)call.k.data + h * call.k.head_stride;
        call.k.bytes -= h * call.k.head_stride;
        tril_seq seq = {.q_len = x->queries < piece ? x->queries : piece, .kv_len = x->keys};
        call.seqs = &seq;
        call.n_seqs = 1;
        size_t bytes;
        void *workspace = workspace_for(&call, &bytes);
        for (int64_t first = 0; first < x->queries; first += piece) {
            const int64_t here = x->queries - first < piece ? x->queries - first : piece;
            const int64_t at = packed ? first * before + first * (first + 1) / 2 : 0;
            const double share = (double)first / (double)x->queries;
            progress("weights", (double)h + share * share, (double)x->kv_heads);
            seq = (tril_seq){.q_first = first, .q_len = here, .kv_len = before + first + here};
            const tril_weights_out out = {
                .struct_size = sizeof out,
                .data = a + at,
                .bytes = (group * matrix - at) * (int64_t)sizeof(float),
                .head_stride = matrix * (int64_t)sizeof(float),
                .row_stride = packed ? 0 : x->keys * (int64_t)sizeof(float),
                .form = packed ? TRIL_WEIGHTS_PACKED : TRIL_WEIGHTS_DENSE,
            };
            expect_ok("weights", tril_weights(&call, &out, workspace, bytes));
        }
        npy_write_floats(to, a, group * matrix);
        free(workspace);
        free(a);
    }
    progress_end();
}

int cmd_weights(int argc, char **argv)
{
    const struct weights_options options = parse(argc, argv);
    struct operands x = operands_read(options.q, options.k, NULL);
    struct tokens labels = {.n = 0};
    struct window window = options.window;
    if (options.png != NULL) {
        if (options.head >= x.q_heads)
            die("--head %lld: %s has %d heads; give 0 to %d", (long long)options.head, options.q, x.q_heads,
                x.q_heads - 1);
        if (options.text != NULL) {
            labels = tokens_read(options.text, options.by_line);
            if (labels.n == 0)
                die("%s: is empty; give one token per %s", options.text, options.by_line ? "line" : "character");
        }
        window = window_settle(window, &x, &labels, options.text);
    }
    struct output *to = options.o != NULL ? output_open(options.o) : NULL;
    struct output *png = options.png != NULL ? output_open(options.png) : NULL;
    if (to != NULL) write_weights(&x, options.scale, options.packed, to);
    if (png != NULL) picture_write(&x, options.scale, options.head, window, &labels, "Attention weights", png);
    outputs_commit();
    tokens_free(&labels);
    operands_free(&x);
    return DONE;
}
