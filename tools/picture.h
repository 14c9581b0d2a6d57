/* The weights of one head, over a range of tokens, as a picture. */
#ifndef PICTURE_H
#define PICTURE_H

#include "operands.h"
#include "output.h"
#include "scoring.h"
#include "tokens.h"

struct range {
    int64_t first, end; /* tokens on both axes; 0 and 0: as many as are legible */
};

/* Settles a range that was left open, and dies where tokens or the labels (n 0: none) do not reach it. text_path is
 * the labels' file, for the message. */
struct range range_settle(struct range wanted, const struct operands *x, const struct tokens *labels,
                          const char *text_path);

/* Computes the rows of query head `head` within the range and draws them. */
void picture_write(const struct operands *x, const struct scoring *scoring, int64_t head, struct range range,
                   const struct tokens *labels, const char *title, struct output *to);

#endif
