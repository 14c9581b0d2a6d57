/* A head's weights as a picture: what queries see in colour, tokens along both axes, a labelled colour bar. */
#ifndef HEATMAP_H
#define HEATMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "output.h"

/* More tokens than this would not be legible. */
enum { HEATMAP_MOST_TOKENS = 256 };

struct heatmap {
    const char *title, *subtitle, *options; /* lines of text */
    int64_t first;                          /* the first token (position) on both axes */
    int64_t columns;                        /* tokens on the key axis: first ... first + columns - 1 */
    int64_t first_row;                      /* the first query's position; rows first_row ... first + columns - 1 */
    const float *weights;                   /* [row][columns] */
    const bool *sees;                       /* [row][columns]: only these weights count */
    char *const *labels;                    /* of the tokens from `first` on; null: their numbers */
    const bool *special;                    /* labels drawn fainter, or null */
};

/* Draws it as PNG. */
void heatmap_write(const struct heatmap *map, struct output *to);

#endif
