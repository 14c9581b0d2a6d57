/* The weights of one head, over a window of tokens, as a picture. */
#ifndef PICTURE_H
#define PICTURE_H

#include "operands.h"
#include "output.h"
#include "tokens.h"

struct window {
    int64_t first, end; /* tokens on both axes; 0 and 0: as many as are legible */
};

/* Settles a window that was left open, and dies where tokens or the labels (n 0: none) do not reach it. text_path is
 * the labels' file, for the message. */
struct window window_settle(struct window wanted, const struct operands *x, const struct tokens *labels,
                            const char *text_path);

/* Computes the rows of query head `head` within the window and draws them. */
void picture_write(const struct operands *x, float scale, int64_t head, struct window window,
                   const struct tokens *labels, const char *title, struct output *to);

#endif
