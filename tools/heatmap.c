/* Colour follows the logarithm: real heads put 0.9 on one token and 0.001 on a hundred others, and both are worth
 * seeing. The colours run at even steps of lightness in Oklab (Ottosson, "A perceptual color space for image
 * processing", 2020), light for small weights, so that a grey print keeps their order. */
#include "heatmap.h"

#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

#define DECADES    4 /* 1 down to 1e-4; below, the lightest colour */
#define MARGIN     28.0
#define HEADER     74.0 /* title, subtitle */
#define BAR_WIDTH  264.0
#define BAR_HEIGHT 14.0
#define BAR_AREA   64.0
#define MOST_LABEL 150.0 /* a longer label is cut */

struct layout {
    double cell, font;
    double x, y; /* the matrix' upper left corner */
    double width, height;
    double picture_width, picture_height;
    int64_t rows, step; /* a position is numbered every `step` tokens */
    bool upright;       /* column labels stand as they are, not turned */
    double label;       /* width of the widest */
};

/* --- colour ----------------------------------------------------------------------------------------------------- */

struct colour {
    double r, g, b;
};

static double gamma_of(double x)
{
    if (x <= 0.0) return 0.0;
    if (x >= 1.0) return 1.0;
    return x <= 0.0031308 ? 12.92 * x : 1.055 * pow(x, 1.0 / 2.4) - 0.055;
}

static struct colour of_oklab(double lightness, double chroma, double hue)
{
    const double a = chroma * cos(hue * 3.14159265358979 / 180), b = chroma * sin(hue * 3.14159265358979 / 180);
    const double l = pow(lightness + 0.3963377774 * a + 0.2158037573 * b, 3);
    const double m = pow(lightness - 0.1055613458 * a - 0.0638541728 * b, 3);
    const double s = pow(lightness - 0.0894841775 * a - 1.2914855480 * b, 3);
    return (struct colour){gamma_of(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
                           gamma_of(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
                           gamma_of(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s)};
}

/* 0: pale yellow; 1: dark violet. */
static struct colour ramp(double x)
{
    const double lightness = 0.955 - 0.71 * x;
    const double chroma = 0.03 + 0.068 * sin(3.14159265358979 * pow(x, 0.9)) + 0.04 * pow(x, 6); /* within sRGB */
    return of_oklab(lightness, chroma, 100 + 200 * x);
}

static struct colour colour_of(float weight)
{
    if (weight != weight) return (struct colour){0.85, 0.0, 0.1}; /* NaN: red, which the ramp does not have */
    if (weight <= 0) return ramp(0);
    const double x = 1 + log10((double)weight) / DECADES;
    return ramp(x < 0 ? 0 : (x > 1 ? 1 : x));
}

/* --- text ------------------------------------------------------------------------------------------------------- */

static void set_font(cairo_t *c, const char *family, bool bold, double size)
{
    cairo_select_font_face(c, family, CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c, size);
}

static double text_width(cairo_t *c, const char *text)
{
    cairo_text_extents_t extents;
    cairo_text_extents(c, text, &extents);
    return extents.x_advance;
}

/* Text whose box is `align` (0 left, 0.5 middle, 1 right) of x, its letters centred on y. */
static void put_text(cairo_t *c, double x, double y, double align, const char *text)
{
    cairo_font_extents_t font;
    cairo_font_extents(c, &font);
    cairo_move_to(c, x - align * text_width(c, text), y + (font.ascent - font.descent) / 2);
    cairo_show_text(c, text);
}

/* The label, cut to MOST_LABEL with an ellipsis. */
static const char *fitted(cairo_t *c, const char *label, char *to, size_t room)
{
    if (text_width(c, label) <= MOST_LABEL && strlen(label) < room) return label;
    snprintf(to, room - 4, "%s", label);
    for (size_t n = strlen(to); n > 0;) {
        do
            n--;
        while (n > 0 && ((unsigned char)to[n] & 0xc0) == 0x80);
        strcpy(to + n, "\u2026");
        if (text_width(c, to) <= MOST_LABEL) break;
    }
    return to;
}

static const char *label_of(cairo_t *c, const struct heatmap *map, int64_t column, char *to, size_t room)
{
    if (map->labels != NULL) return fitted(c, map->labels[column], to, room);
    snprintf(to, room, "%lld", (long long)(map->first + column));
    return to;
}

static void ink(cairo_t *c, bool faint)
{
    const double grey = faint ? 0.62 : 0.1;
    cairo_set_source_rgb(c, grey, grey, grey);
}

/* --- the parts -------------------------------------------------------------------------------------------------- */

/* Whether a query sees a token after its own. */
static bool any_above(const struct heatmap *map, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = map->first_row - map->first + i + 1; j < map->columns; j++) {
            if (map->sees[i * map->columns + j]) return true;
        }
    }
    return false;
}

static struct layout lay_out(cairo_t *c, const struct heatmap *map)
{
    struct layout l = {.rows = map->first + map->columns - map->first_row, .upright = map->labels != NULL};
    l.cell = floor(1250.0 / (double)map->columns);
    l.cell = l.cell > 26 ? 26 : (l.cell < 10 ? 10 : l.cell);
    l.font = l.cell > 20 ? 15 : l.cell * 0.86;
    l.step = 10;

    char cut[256];
    set_font(c, "monospace", false, l.font);
    for (int64_t i = 0; i < map->columns; i++) {
        const double width = text_width(c, label_of(c, map, i, cut, sizeof cut));
        if (width > l.label) l.label = width;
    }
    if (l.label > l.cell) l.upright = false;
    l.width = l.cell * (double)map->columns;
    l.height = l.cell * (double)l.rows;
    const bool numbers = map->labels != NULL;
    const double beside = l.label + 12 + (numbers ? 34 : 0),
                 below = (l.upright ? l.font : l.label) + 12 + (numbers ? 18 : 0);
    /* The colour bar stands in the upper triangle where that is empty and has room for it. */
    const bool room = l.rows == map->columns && !any_above(map, l.rows) && l.width > BAR_WIDTH + 3 * BAR_AREA;
    l.x = MARGIN + 22 + beside;
    l.y = MARGIN + HEADER + (room ? 0 : BAR_AREA);
    l.picture_width = l.x + l.width + MARGIN;
    if (l.picture_width < 2 * MARGIN + BAR_WIDTH + 200) l.picture_width = 2 * MARGIN + BAR_WIDTH + 200;
    set_font(c, "sans-serif", false, 13);
    l.picture_width = fmax(l.picture_width, 2 * MARGIN + text_width(c, map->subtitle));
    l.picture_width = fmax(l.picture_width, 2 * MARGIN + text_width(c, map->options));
    l.picture_height = l.y + l.height + below + 22 + MARGIN;
    return l;
}

/* Whether row i's query sees column j; nothing is seen beyond the matrix. */
static bool sees(const struct heatmap *map, const struct layout *l, int64_t i, int64_t j)
{
    return i >= 0 && j >= 0 && i < l->rows && j < map->columns && map->sees[i * map->columns + j];
}

static void draw_line(cairo_t *c, double x, double y, double right, double down)
{
    cairo_move_to(c, x, y);
    cairo_line_to(c, x + right, y + down);
}

static void draw_cells(cairo_t *c, const struct heatmap *map, const struct layout *l)
{
    cairo_set_antialias(c, CAIRO_ANTIALIAS_NONE); /* cells lie on whole pixels and touch */
    for (int64_t i = 0; i < l->rows; i++) {
        for (int64_t j = 0; j < map->columns; j++) {
            if (!sees(map, l, i, j)) continue;
            const struct colour k = colour_of(map->weights[i * map->columns + j]);
            cairo_set_source_rgb(c, k.r, k.g, k.b);
            cairo_rectangle(c, l->x + (double)j * l->cell, l->y + (double)i * l->cell, l->cell, l->cell);
            cairo_fill(c);
        }
    }
    cairo_set_antialias(c, CAIRO_ANTIALIAS_DEFAULT);
    cairo_set_line_width(c, 1);
    cairo_set_source_rgb(c, 0.55, 0.55, 0.55);
    cairo_set_line_cap(c, CAIRO_LINE_CAP_SQUARE);
    for (int64_t i = 0; i <= l->rows; i++) { /* where what is seen ends, on the outer side */
        for (int64_t j = 0; j <= map->columns; j++) {
            const bool here = sees(map, l, i, j);
            const double x = l->x + (double)j * l->cell, y = l->y + (double)i * l->cell;
            if (here != sees(map, l, i, j - 1)) draw_line(c, x + (here ? -0.5 : 0.5), y, 0, l->cell);
            if (here != sees(map, l, i - 1, j)) draw_line(c, x, y + (here ? -0.5 : 0.5), l->cell, 0);
        }
    }
    cairo_stroke(c);
}

static void draw_label(cairo_t *c, const struct heatmap *map, const struct layout *l, int64_t column, bool below)
{
    char cut[256];
    set_font(c, "monospace", false, l->font);
    const char *label = label_of(c, map, column, cut, sizeof cut);
    ink(c, map->special != NULL && map->special[column]);
    if (!below) {
        const double row = (double)(map->first + column - map->first_row);
        put_text(c, l->x - 6, l->y + (row + 0.5) * l->cell, 1, label);
        return;
    }
    const double x = l->x + ((double)column + 0.5) * l->cell, y = l->y + l->height + 6;
    if (l->upright) {
        put_text(c, x, y + l->font / 2, 0.5, label);
        return;
    }
    cairo_save(c);
    cairo_translate(c, x, y);
    cairo_rotate(c, -3.14159265358979 / 2);
    put_text(c, 0, 0, 1, label);
    cairo_restore(c);
}

/* A position's number, outside its label. */
static void draw_number(cairo_t *c, const struct heatmap *map, const struct layout *l, int64_t column, bool below)
{
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)(map->first + column));
    set_font(c, "sans-serif", false, 10);
    cairo_set_source_rgb(c, 0.45, 0.45, 0.45);
    const double row = (double)(map->first + column - map->first_row);
    if (below)
        put_text(c, l->x + ((double)column + 0.5) * l->cell, l->y + l->height + (l->upright ? l->font : l->label) + 20,
                 0.5, number);
    else
        put_text(c, l->x - l->label - 14, l->y + (row + 0.5) * l->cell, 1, number);
}

static void draw_axes(cairo_t *c, const struct heatmap *map, const struct layout *l)
{
    for (int64_t j = 0; j < map->columns; j++) {
        const bool has_row = map->first + j >= map->first_row, numbered = (map->first + j) % l->step == 0;
        draw_label(c, map, l, j, true);
        if (has_row) draw_label(c, map, l, j, false);
        if (map->labels == NULL || !numbered) continue;
        draw_number(c, map, l, j, true);
        if (has_row) draw_number(c, map, l, j, false);
    }
    set_font(c, "sans-serif", false, 13);
    ink(c, false);
    put_text(c, l->x + l->width / 2, l->picture_height - MARGIN + 2, 0.5, "key: the token that is looked at");
    cairo_save(c);
    cairo_translate(c, MARGIN, l->y + l->height / 2);
    cairo_rotate(c, -3.14159265358979 / 2);
    put_text(c, 0, 0, 0.5, l->height > 220 ? "query: the token that looks" : "query");
    cairo_restore(c);
}

static void draw_bar(cairo_t *c, const struct layout *l)
{
    const double x = l->picture_width - MARGIN - BAR_WIDTH - 16, y = MARGIN + HEADER + 6;
    set_font(c, "sans-serif", false, 12);
    cairo_set_antialias(c, CAIRO_ANTIALIAS_NONE);
    for (int i = 0; i < (int)BAR_WIDTH; i++) {
        const struct colour k = ramp((i + 0.5) / BAR_WIDTH);
        cairo_set_source_rgb(c, k.r, k.g, k.b);
        cairo_rectangle(c, x + i, y, 1, BAR_HEIGHT);
        cairo_fill(c);
    }
    cairo_set_antialias(c, CAIRO_ANTIALIAS_DEFAULT);
    cairo_set_line_width(c, 1);
    cairo_set_source_rgb(c, 0.55, 0.55, 0.55);
    cairo_rectangle(c, x - 0.5, y - 0.5, BAR_WIDTH + 1, BAR_HEIGHT + 1);
    cairo_stroke(c);
    static const char *const ticks[DECADES + 1] = {"\u2264 0.0001", "0.001", "0.01", "0.1", "1"};
    for (int i = 0; i <= DECADES; i++) {
        const double at = x + BAR_WIDTH * i / DECADES;
        cairo_set_source_rgb(c, 0.55, 0.55, 0.55);
        cairo_move_to(c, at, y + BAR_HEIGHT);
        cairo_line_to(c, at, y + BAR_HEIGHT + 4);
        cairo_stroke(c);
        ink(c, false);
        put_text(c, at, y + BAR_HEIGHT + 13, 0.5, ticks[i]);
    }
    put_text(c, x + BAR_WIDTH / 2, y - 11, 0.5, "weight (logarithmic)");
    cairo_set_source_rgb(c, 0.55, 0.55, 0.55);
    cairo_rectangle(c, x - 36.5, y - 0.5, BAR_HEIGHT + 1, BAR_HEIGHT + 1);
    cairo_stroke(c);
    ink(c, false);
    put_text(c, x - 44, y + BAR_HEIGHT / 2, 1, "not seen");
}

static bool any_nan(const struct heatmap *map, const struct layout *l)
{
    for (int64_t i = 0; i < l->rows; i++) {
        for (int64_t j = 0; j < map->columns; j++) {
            const float w = map->weights[i * map->columns + j];
            if (sees(map, l, i, j) && w != w) return true;
        }
    }
    return false;
}

static cairo_status_t write_piece(void *to, const unsigned char *data, unsigned bytes)
{
    output_write(to, data, bytes);
    return CAIRO_STATUS_SUCCESS;
}

void heatmap_write(const struct heatmap *map, struct output *to)
{
    cairo_surface_t *probe = cairo_image_surface_create(CAIRO_FORMAT_RGB24, 1, 1);
    cairo_t *c = cairo_create(probe);
    const struct layout l = lay_out(c, map);
    cairo_destroy(c);
    cairo_surface_destroy(probe);

    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(l.picture_width), (int)ceil(l.picture_height));
    c = cairo_create(surface);
    cairo_set_source_rgb(c, 1, 1, 1);
    cairo_paint(c);
    draw_cells(c, map, &l);
    draw_axes(c, map, &l);
    draw_bar(c, &l);
    ink(c, false);
    set_font(c, "sans-serif", true, 19);
    put_text(c, MARGIN, MARGIN + 8, 0, map->title);
    set_font(c, "sans-serif", false, 13);
    cairo_set_source_rgb(c, 0.35, 0.35, 0.35);
    put_text(c, MARGIN, MARGIN + 32, 0, map->subtitle);
    put_text(c, MARGIN, MARGIN + 52, 0, map->options);
    if (any_nan(map, &l)) {
        cairo_set_source_rgb(c, 0.85, 0.0, 0.1);
        put_text(c, l.picture_width - MARGIN, MARGIN + 8, 1, "red: NaN");
    }
    /* Once it is bad nothing more has been drawn: behind a text that is not UTF-8, say. */
    cairo_status_t status = cairo_status(c);
    cairo_destroy(c);
    if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_write_to_png_stream(surface, write_piece, to);
    if (status != CAIRO_STATUS_SUCCESS)
        die("%s: the picture cannot be drawn: %s", output_path(to), cairo_status_to_string(status));
    cairo_surface_destroy(surface);
}
