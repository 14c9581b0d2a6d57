/* What models ask for beside q.k: a scale, which keys a query sees, and what becomes of its scores. The same options of
 * attend and of weights. */
#ifndef SCORING_H
#define SCORING_H

#include <stdbool.h>
#include <stdint.h>

#include "operands.h"

struct scoring {
    float scale, softcap; /* 0: not asked for, as all below */
    int64_t window, sink_tokens, prefix;
    const char *alibi, *sink_logits, *tree; /* files, "auto" for ALiBi's own slopes, or null */

    /* by scoring_read() */
    float *slopes, *logits;         /* [q_heads], or null */
    uint64_t *bits;                 /* the tree's, or null */
    int64_t row_stride, rows_bytes; /* of bits */
};

enum {
    SCORING_SCALE = 512, /* beyond what commands number their own options from */
    SCORING_SOFTCAP,
    SCORING_WINDOW,
    SCORING_SINK_TOKENS,
    SCORING_SINK_LOGITS,
    SCORING_ALIBI,
    SCORING_PREFIX,
    SCORING_TREE
};

/* clang-format off */
#define SCORING_LONGS                                                                                                  \
    {"scale", required_argument, NULL, SCORING_SCALE},                                                                 \
    {"softcap", required_argument, NULL, SCORING_SOFTCAP},                                                             \
    {"window", required_argument, NULL, SCORING_WINDOW},                                                               \
    {"sink-tokens", required_argument, NULL, SCORING_SINK_TOKENS},                                                     \
    {"sink-logits", required_argument, NULL, SCORING_SINK_LOGITS},                                                     \
    {"alibi", required_argument, NULL, SCORING_ALIBI},                                                                 \
    {"prefix", required_argument, NULL, SCORING_PREFIX},                                                               \
    {"tree", required_argument, NULL, SCORING_TREE}
/* clang-format on */

#define SCORING_HELP                                                                                                   \
    "  --scale X         of the scores; default 1/sqrt(dim)\n"                                                         \
    "  --softcap X       a score s becomes X tanh(s / X)\n"                                                            \
    "  --alibi FILE|auto [query head]: slopes; a score grows by slope * (key's - query's position). auto: those of\n"  \
    "                    the ALiBi paper for this number of heads\n"                                                   \
    "  --window N        a query sees its last N positions, its own included, and no others\n"                         \
    "  --sink-tokens N   but also the first N positions\n"                                                             \
    "  --sink-logits FILE\n"                                                                                           \
    "                    [query head]: e to this power joins the sum that a row's weights are divided by\n"            \
    "  --prefix N        the first N positions see each other both ways\n"                                             \
    "  --tree FILE       [query][query], 0 or 1, '|b1', '|u1' or '<f4': whether a query sees a query's token, in\n"    \
    "                    place of the causal rule among them\n"

/* Takes option c where it is one of these. */
bool scoring_option(struct scoring *s, int c, const char *text);

/* Reads the files, and checks everything against the operands. */
void scoring_read(struct scoring *s, const struct operands *x);
void scoring_free(struct scoring *s);

/* The call's fields for query heads from `head` on. A sequence has its prefix in a field of its own. */
void scoring_ask(const struct scoring *s, int64_t head, tril_attention *call);

/* The whole prompt goes through the library in pieces, so that progress can be shown: a row's bits do not depend on its
 * piece. How many queries the one has that begins with query `first`: what see each other both ways stay together. The
 * first piece is the largest. */
int64_t scoring_piece(const struct scoring *s, const struct operands *x, int64_t first);

#endif
