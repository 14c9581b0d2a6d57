#include "picture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "heatmap.h"
#include "tool.h"

enum { USUAL_TOKENS = 96 };

struct window window_settle(struct window w, const struct operands *x, const struct tokens *labels,
                            const char *text_path)
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

/* Rows first_row ... window.end - 1 of the head's A, each with all its columns. */
static float *rows_of(const struct operands *x, float scale, int64_t head, int64_t first_row, int64_t end)
{
    const int64_t before = x->keys - x->queries, rows = end - first_row, row = end * (int64_t)sizeof(float);
    const int64_t kv_head = head / (x->q_heads / x->kv_heads);
    float *a = need((size_t)(rows * end), sizeof(float));
    tril_attention call = call_of(x, scale);
    call.q_heads = call.kv_heads = 1;
    const int64_t skipped = head * call.q.head_stride + (first_row - before) * call.q.token_stride;
    call.q.data = (const char *)call.q.data + skipped;
    call.q.bytes -= skipped;
    call.k.data = (const char *)call.k.data + kv_head * call.k.head_stride;
    call.k.bytes -= kv_head * call.k.head_stride;
    const tril_seq seq = {.q_len = rows, .kv_len = end};
    const tril_weights_out dense = {
        .struct_size = sizeof dense, .data = a, .bytes = rows * row, .head_stride = rows * row, .row_stride = row};
    call.seqs = &seq;
    call.n_seqs = 1;
    size_t bytes;
    void *workspace = workspace_for(&call, &bytes);
    expect_ok("the picture", tril_weights(&call, &dense, workspace, bytes));
    free(workspace);
    return a;
}

void picture_write(const struct operands *x, float scale, int64_t head, struct window w, const struct tokens *labels,
                   const char *title, struct output *to)
{
    char subtitle[256];
    const int64_t before = x->keys - x->queries, first_row = w.first > before ? w.first : before;
    const int64_t columns = w.end - w.first;
    float *a = rows_of(x, scale, head, first_row, w.end);
    for (int64_t i = 0; i < w.end - first_row; i++) /* the window's columns, moved together */
        memmove(a + i * columns, a + i * w.end + w.first, (size_t)columns * sizeof(float));
    snprintf(subtitle, sizeof subtitle,
             "query head %" PRId64 " of %d, tokens %" PRId64 " to %" PRId64 " of %" PRId64 "%s", head, x->q_heads,
             w.first, w.end - 1, x->keys, w.first > 0 ? "; earlier keys are not shown" : "; each row sums to 1");
    const struct heatmap map = {
        .title = title,
        .subtitle = subtitle,
        .first = w.first,
        .columns = columns,
        .first_row = first_row,
        .weights = a,
        .labels = labels->n > 0 ? labels->label + w.first : NULL,
        .special = labels->n > 0 ? labels->special + w.first : NULL,
    };
    heatmap_write(&map, to);
    free(a);
}
