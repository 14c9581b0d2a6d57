/* tril weights: the weight matrix as a .npy file, one head as a picture. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operands.h"
#include "options.h"
#include "picture.h"
#include "progress.h"
#include "reference.h"
#include "scoring.h"
#include "tokens.h"
#include "tool.h"

static const char help[] =
    "usage: tril weights -q Q.npy -k K.npy [-o A.npy] [--png FILE] [OPTION]...\n\n"
    "Computes A = softmax(scale Q K^T + causal mask). Q and K are NumPy arrays [token][head][dim] of '<f4' or '<f2' in "
    "C\n"
    "order; with fewer queries than keys the queries are the last tokens. A is '<f4', [query head][query][key], zero\n"
    "where a query does not see a key: above the diagonal, or as the options say.\n\n"
    "  -q, -k FILE       queries, keys\n"
    "  -o FILE           the weights of all heads\n"
    "  --packed          each head as a packed lower triangle, [query head][element]: the keys up to query 0's own, "
    "up\n"
    "                    to query 1's own, ... without a gap; within a prefix up to its end, with a tree all keys\n"
    "  --dtype f32|f16   of -o; f16 is '<f2', each weight rounded once more; default f32\n"
    "  --column-sums     instead of A, [query head][key]: for each key the sum of its weights\n"
    "  --last-rows N     these sums over the last N queries alone\n" SCORING_HELP
    "  --isa TIER        use exactly this tier; tril info lists them\n"
    "  --png FILE        one head as a heat map\n"
    "  --head H          which query head, from 0; default 0\n"
    "  --text FILE       the tokens along the axes, UTF-8, one per character; without it their numbers\n"
    "  --by-line         one token per line of the text instead\n"
    "  --range A:B       draw tokens A to B - 1, at most 256; default the first 96, or the last 96 where there are\n"
    "                    fewer queries than keys\n"
    "  -h, --help        this text\n";

enum { ISA = 256, PACKED, DTYPE, COLUMN_SUMS, LAST_ROWS, PNG, HEAD, TEXT, BY_LINE, RANGE };

struct weights_options {
    const char *q, *k, *o, *png, *text;
    struct scoring scoring;
    bool packed, column_sums, by_line, has_dtype, has_head, has_range;
    tril_dtype dtype;
    int64_t last_rows, head;
    struct range range;
};

static tril_dtype dtype_option(const char *text)
{
    if (strcmp(text, "f32") == 0) return TRIL_F32;
    if (strcmp(text, "f16") == 0) return TRIL_F16;
    if (strcmp(text, "bf16") == 0) die("--dtype bf16: .npy files have no such type; give f32 or f16");
    die("--dtype '%s': give f32 or f16", text);
}

/* Options that would do nothing beside, or without, others. */
static void check(const struct weights_options *x)
{
    if (x->q == NULL || x->k == NULL)
        die("weights: -%c is missing; give -q and -k, see tril weights --help", x->q == NULL ? 'q' : 'k');
    if (x->o == NULL && x->png == NULL) die("weights: no output; give -o or --png, see tril weights --help");
    if (x->o == NULL && (x->packed || x->has_dtype || x->column_sums))
        die("%s: there is no -o that it could shape; give -o",
            x->packed ? "--packed" : (x->has_dtype ? "--dtype" : "--column-sums"));
    if (x->column_sums && x->packed) die("--packed: column sums are one row for each head; leave it out");
    if (x->column_sums && x->dtype != TRIL_F32) die("--dtype f16: column sums are f32; leave it out");
    if (x->last_rows > 0 && !x->column_sums)
        die("--last-rows: there are no sums that it could limit; give --column-sums");
    if (x->png == NULL && (x->has_head || x->has_range || x->text != NULL))
        die("%s: there is no picture that it belongs to; give --png",
            x->has_head ? "--head" : (x->has_range ? "--range" : "--text"));
    if (x->by_line && x->text == NULL) die("--by-line: there is no text that it could cut; give --text");
}

static struct weights_options parse(int argc, char **argv)
{
    static const struct option longs[] = {SCORING_LONGS,
                                          {"isa", required_argument, NULL, ISA},
                                          {"packed", no_argument, NULL, PACKED},
                                          {"dtype", required_argument, NULL, DTYPE},
                                          {"column-sums", no_argument, NULL, COLUMN_SUMS},
                                          {"last-rows", required_argument, NULL, LAST_ROWS},
                                          {"png", required_argument, NULL, PNG},
                                          {"head", required_argument, NULL, HEAD},
                                          {"text", required_argument, NULL, TEXT},
                                          {"by-line", no_argument, NULL, BY_LINE},
                                          {"range", required_argument, NULL, RANGE},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct weights_options x = {.dtype = TRIL_F32};
    for (int c; (c = next_option(argc, argv, "q:k:o:", longs, help)) != -1;) {
        switch (c) {
        case 'q': x.q = optarg; break;
        case 'k': x.k = optarg; break;
        case 'o': x.o = optarg; break;
        case ISA: isa_option(optarg); break;
        case PACKED: x.packed = true; break;
        case DTYPE:
            x.dtype = dtype_option(optarg);
            x.has_dtype = true;
            break;
        case COLUMN_SUMS: x.column_sums = true; break;
        case LAST_ROWS: x.last_rows = integer_option("--last-rows", optarg, 1, INT32_MAX); break;
        case PNG: x.png = optarg; break;
        case HEAD:
            x.head = integer_option("--head", optarg, 0, 65535);
            x.has_head = true;
            break;
        case TEXT: x.text = optarg; break;
        case BY_LINE: x.by_line = true; break;
        case RANGE:
            range_option("--range", optarg, &x.range.first, &x.range.end);
            x.has_range = true;
            break;
        default: scoring_option(&x.scoring, c, optarg);
        }
    }
    check(&x);
    return x;
}

/* A call for the query heads that share K/V head h, on all of the sequence. */
static tril_attention group_call(const struct operands *x, const struct scoring *scoring, int64_t h,
                                 const tril_seq *seq)
{
    const int64_t group = x->q_heads / x->kv_heads;
    tril_attention call = call_of(x);
    scoring_ask(scoring, h * group, &call);
    call.q_heads = (int32_t)group;
    call.kv_heads = 1;
    call.q.data = (const char *)call.q.data + h * group * call.q.head_stride;
    call.q.bytes -= h * group * call.q.head_stride;
    call.k.data = (const char *)call.k.data + h * call.k.head_stride;
    call.k.bytes -= h * call.k.head_stride;
    call.seqs = seq;
    call.n_seqs = 1;
    return call;
}

/* Elements of a head's packed triangle in the rows before query `end`. */
static int64_t packed_elements(const struct operands *x, const struct scoring *scoring, int64_t end)
{
    const tril_seq seq = {.q_len = x->queries, .kv_len = x->keys, .prefix = scoring->prefix};
    const tril_attention call = group_call(x, scoring, 0, &seq);
    int64_t n = 0;
    for (int64_t i = 0; i < end; i++)
        n += reference_columns(&call, &seq, i);
    return n;
}

/* The query heads that share a K/V head, one such group after the other, each in pieces of queries, so that a group's
 * matrices are all that is held and progress can be shown. */
static void write_weights(const struct operands *x, const struct weights_options *o, struct output *to)
{
    const struct scoring *scoring = &o->scoring;
    const int64_t before = x->keys - x->queries, group = x->q_heads / x->kv_heads;
    const int64_t matrix = o->packed ? packed_elements(x, scoring, x->queries) : x->queries * x->keys;
    const int64_t shape[3] = {x->q_heads, o->packed ? matrix : x->queries, x->keys};
    const int64_t element = o->dtype == TRIL_F16 ? 2 : 4;
    const enum npy_dtypes type = o->dtype == TRIL_F16 ? NPY_F2 : NPY_F4;
    int64_t group_bytes;
    if (__builtin_mul_overflow(group * element, matrix, &group_bytes))
        die("the weights: %" PRId64 " matrices of %" PRId64 " elements are too many bytes; give fewer tokens", group,
            matrix);
    npy_write_header(to, type, o->packed ? 2 : 3, shape);

    for (int64_t h = 0; h < x->kv_heads; h++) {
        char *a = need((size_t)group_bytes, 1);
        tril_seq seq = {.q_len = scoring_piece(scoring, x, 0), .kv_len = x->keys, .prefix = scoring->prefix};
        const tril_attention call = group_call(x, scoring, h, &seq);
        size_t bytes;
        void *workspace = workspace_for(&call, &bytes);
        for (int64_t first = 0; first < x->queries; first += seq.q_len) {
            const int64_t at = o->packed ? element * packed_elements(x, scoring, first) : 0;
            const double share = (double)first / (double)x->queries;
            progress("weights", (double)h + share * share, (double)x->kv_heads);
            seq.q_first = first;
            seq.q_len = scoring_piece(scoring, x, first);
            seq.kv_len = before + first + seq.q_len;
            const tril_weights_out out = {
                .struct_size = sizeof out,
                .data = a + at,
                .bytes = group_bytes - at,
                .head_stride = matrix * element,
                .row_stride = o->packed ? 0 : x->keys * element,
                .form = o->packed ? TRIL_WEIGHTS_PACKED : TRIL_WEIGHTS_DENSE,
                .dtype = o->dtype,
            };
            expect_ok("weights", tril_weights(&call, &out, workspace, bytes));
        }
        npy_write_elements(to, type, a, group * matrix);
        free(workspace);
        free(a);
    }
    progress_end();
}

/* In one piece: the sums of pieces, added up, would be other bits. */
static void write_column_sums(const struct operands *x, const struct weights_options *o, struct output *to)
{
    const int64_t group = x->q_heads / x->kv_heads, row = x->keys * (int64_t)sizeof(float);
    const int64_t shape[2] = {x->q_heads, x->keys};
    const tril_seq seq = {.q_len = x->queries, .kv_len = x->keys, .prefix = o->scoring.prefix};
    npy_write_header(to, NPY_F4, 2, shape);
    for (int64_t h = 0; h < x->kv_heads; h++) {
        float *sums = need((size_t)(group * x->keys), sizeof(float));
        const tril_attention call = group_call(x, &o->scoring, h, &seq);
        const tril_weights_out out = {
            .struct_size = sizeof out,
            .data = sums,
            .bytes = group * row,
            .head_stride = row,
            .row_stride = row,
            .last_rows = o->last_rows,
            .form = TRIL_WEIGHTS_COLUMN_SUMS,
        };
        size_t bytes;
        void *workspace = workspace_for(&call, &bytes);
        progress("column sums", (double)h, (double)x->kv_heads);
        expect_ok("weights", tril_weights(&call, &out, workspace, bytes));
        npy_write_elements(to, NPY_F4, sums, group * x->keys);
        free(workspace);
        free(sums);
    }
    progress_end();
}

int cmd_weights(int argc, char **argv)
{
    struct weights_options options = parse(argc, argv);
    struct operands x = operands_read(options.q, options.k, NULL);
    struct tokens labels = {.n = 0};
    struct range range = options.range;
    scoring_read(&options.scoring, &x);
    if (options.png != NULL) {
        if (options.head >= x.q_heads)
            die("--head %lld: %s has %d heads; give 0 to %d", (long long)options.head, options.q, x.q_heads,
                x.q_heads - 1);
        if (options.text != NULL) {
            labels = tokens_read(options.text, options.by_line);
            if (labels.n == 0)
                die("%s: is empty; give one token per %s", options.text, options.by_line ? "line" : "character");
        }
        range = range_settle(range, &x, &labels, options.text);
    }
    struct output *to = options.o != NULL ? output_open(options.o) : NULL;
    struct output *png = options.png != NULL ? output_open(options.png) : NULL;
    if (to != NULL) (options.column_sums ? write_column_sums : write_weights)(&x, &options, to);
    if (png != NULL) picture_write(&x, &options.scoring, options.head, range, &labels, "Attention weights", png);
    outputs_commit();
    tokens_free(&labels);
    scoring_free(&options.scoring);
    operands_free(&x);
    return DONE;
}
