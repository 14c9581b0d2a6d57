#include "picture.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heatmap.h"
#include "reference.h"
#include "tool.h"

enum { USUAL_TOKENS = 96 };

struct range range_settle(struct range w, const struct operands *x, const struct tokens *labels, const char *text_path)
{
    const int64_t before = x->keys - x->queries; /* tokens without a query */
    if (x->queries == 0) die("%s: no query to draw; give at least one token", x->q.path);
    if (w.end == 0) {
        w.first = before == 0 ? 0 : (x->keys > USUAL_TOKENS ? x->keys - USUAL_TOKENS : 0);
        w.end = x->keys - w.first > USUAL_TOKENS ? w.first + USUAL_TOKENS : x->keys;
    }
    if (w.end > x->keys)
        die("--range %" PRId64 ":%" PRId64 ": %s has %" PRId64 " tokens; give at most %" PRId64 ":%" PRId64, w.first,
            w.end, x->k.path, x->keys, w.first < x->keys ? w.first : 0, x->keys);
    if (w.end <= before)
        die("--range %" PRId64 ":%" PRId64 ": the queries of %s begin at token %" PRId64 "; give a range beyond it",
            w.first, w.end, x->q.path, before);
    if (w.end - w.first > HEATMAP_MOST_TOKENS)
        die("--range %" PRId64 ":%" PRId64 ": more tokens than are legible; give at most %d", w.first, w.end,
            HEATMAP_MOST_TOKENS);
    if (labels->n > 0 && labels->n < w.end)
        die("%s: %" PRId64 " tokens of text, but the picture shows tokens %" PRId64 " to %" PRId64
            "; give a text of at least %" PRId64,
            text_path, labels->n, w.first, w.end - 1, w.end);
    return w;
}

/* What is drawn of A: the rows from first_row on, the columns of the range. */
struct part {
    int64_t first_row, rows, columns;
    float *weights; /* [row][columns], as is the next */
    bool *sees;
    bool all; /* the rows see no key outside the range */
};

/* The sequence that the rows are computed in: as short as it may be. A tree belongs to the whole of it, and the end of
 * a prefix is seen from its beginning. */
static tril_seq sequence_of(const struct operands *x, const struct scoring *scoring, int64_t first_row, int64_t end)
{
    const int64_t before = x->keys - x->queries;
    tril_seq seq = {.kv_len = end, .prefix = scoring->prefix};
    if (scoring->bits != NULL) {
        first_row = before;
        seq.kv_len = x->keys;
    } else if (scoring->prefix > end) {
        seq.kv_len = scoring->prefix;
    }
    seq.q_len = seq.kv_len - first_row;
    return seq;
}

static struct part part_of(const struct operands *x, const struct scoring *scoring, int64_t head, struct range range)
{
    const int64_t before = x->keys - x->queries, kv_head = head / (x->q_heads / x->kv_heads);
    struct part p = {.first_row = range.first > before ? range.first : before, .all = true};
    p.rows = range.end - p.first_row;
    p.columns = range.end - range.first;
    p.weights = need((size_t)(p.rows * p.columns), sizeof(float));
    p.sees = need((size_t)(p.rows * p.columns), sizeof(bool));

    const tril_seq seq = sequence_of(x, scoring, p.first_row, range.end);
    const int64_t first_query = seq.kv_len - seq.q_len, row = seq.kv_len * (int64_t)sizeof(float);
    float *a = need((size_t)(seq.q_len * seq.kv_len), sizeof(float));
    tril_attention call = call_of(x);
    scoring_ask(scoring, head, &call);
    call.q_heads = call.kv_heads = 1;
    const int64_t skipped = head * call.q.head_stride + (first_query - before) * call.q.token_stride;
    call.q.data = (const char *)call.q.data + skipped;
    call.q.bytes -= skipped;
    call.k.data = (const char *)call.k.data + kv_head * call.k.head_stride;
    call.k.bytes -= kv_head * call.k.head_stride;
    call.seqs = &seq;
    call.n_seqs = 1;
    const tril_weights_out dense = {.struct_size = sizeof dense,
                                    .data = a,
                                    .bytes = seq.q_len * row,
                                    .head_stride = seq.q_len * row,
                                    .row_stride = row};
    size_t bytes;
    void *workspace = workspace_for(&call, &bytes);
    expect_ok("the picture", tril_weights(&call, &dense, workspace, bytes));
    free(workspace);
    for (int64_t i = 0; i < p.rows; i++) {
        const int64_t query = p.first_row - first_query + i;
        for (int64_t j = 0; j < seq.kv_len; j++) {
            const bool sees = reference_sees(&call, &seq, query, j);
            if (j < range.first || j >= range.end) {
                p.all = p.all && !sees;
                continue;
            }
            p.weights[i * p.columns + j - range.first] = a[query * seq.kv_len + j];
            p.sees[i * p.columns + j - range.first] = sees;
        }
    }
    free(a);
    return p;
}

/* One more option, and its value where it has one. */
static void append(char *to, size_t room, const char *format, ...)
{
    const size_t used = strlen(to);
    va_list arguments;
    va_start(arguments, format);
    if (used > 0) snprintf(to + used, room - used, ", ");
    vsnprintf(to + strlen(to), room - strlen(to), format, arguments);
    va_end(arguments);
}

/* What was asked for, in words; the text of a picture without any of it is empty. */
static void options_text(const struct scoring *s, char *to, size_t room)
{
    to[0] = '\0';
    if (s->softcap > 0) append(to, room, "softcap %g", (double)s->softcap);
    if (s->slopes != NULL) append(to, room, "ALiBi");
    if (s->window > 0) append(to, room, "window of %" PRId64, s->window);
    if (s->sink_tokens > 0)
        append(to, room, "%" PRId64 " sink token%s", s->sink_tokens, s->sink_tokens == 1 ? "" : "s");
    if (s->logits != NULL) append(to, room, "sink logits");
    if (s->prefix > 0) append(to, room, "prefix of %" PRId64, s->prefix);
    if (s->bits != NULL) append(to, room, "tree");
}

void picture_write(const struct operands *x, const struct scoring *scoring, int64_t head, struct range range,
                   const struct tokens *labels, const char *title, struct output *to)
{
    char subtitle[256], options[256];
    const struct part p = part_of(x, scoring, head, range);
    snprintf(subtitle, sizeof subtitle,
             "query head %" PRId64 " of %d, tokens %" PRId64 " to %" PRId64 " of %" PRId64 "%s", head, x->q_heads,
             range.first, range.end - 1, x->keys,
             !p.all                    ? "; other keys are not shown"
             : scoring->logits != NULL ? "; each row and its sink sum to 1"
                                       : "; each row sums to 1");
    options_text(scoring, options, sizeof options);
    const struct heatmap map = {
        .title = title,
        .subtitle = subtitle,
        .options = options,
        .first = range.first,
        .columns = p.columns,
        .first_row = p.first_row,
        .weights = p.weights,
        .sees = p.sees,
        .labels = labels->n > 0 ? labels->label + range.first : NULL,
        .special = labels->n > 0 ? labels->special + range.first : NULL,
    };
    heatmap_write(&map, to);
    free(p.weights);
    free(p.sees);
}
