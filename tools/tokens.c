#include "tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static char *read_whole(const char *path, size_t *n)
{
    size_t room = 1 << 16;
    char *text = need(room, 1);
    FILE *file = fopen(path, "rb");
    if (file == NULL) die("%s: cannot read: %s; give a text file", path, strerror(errno));
    for (*n = 0;;) {
        *n += fread(text + *n, 1, room - *n, file);
        if (*n < room) break;
        room *= 2;
        text = realloc(text, room);
        if (text == NULL) die("%s: no memory for %zu bytes of text; give a shorter one", path, room);
    }
    if (ferror(file)) die("%s: cannot read: %s; give a text file", path, strerror(errno));
    fclose(file);
    return text;
}

/* Bytes of the well-formed character at p (RFC 3629: no overlong form, no surrogate, at most U+10FFFF); 0: none. */
static size_t character(const unsigned char *p, size_t left)
{
    const unsigned lead = p[0];
    if (lead < 0x80) return 1;
    const size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || left < n) return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    if ((lead == 0xe0 && p[1] < 0xa0) || (lead == 0xed && p[1] > 0x9f)) return 0;
    if ((lead == 0xf0 && p[1] < 0x90) || (lead == 0xf4 && p[1] > 0x8f)) return 0;
    return n;
}

/* The number of the character of n bytes at p. */
static uint32_t code_of(const unsigned char *p, size_t n)
{
    uint32_t code = n == 1 ? p[0] : p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++)
        code = code << 6 | (p[i] & 0x3f);
    return code;
}

/* Controls, spaces, what only steers others, and numbers that are no character, at which a drawing would end. */
static bool is_invisible(uint32_t c)
{
    static const uint32_t ranges[][2] = {{0, 0x20},        {0x7f, 0xa0},     {0xad, 0xad},     {0x1680, 0x1680},
                                         {0x2000, 0x200f}, {0x2028, 0x202f}, {0x205f, 0x206f}, {0x3000, 0x3000},
                                         {0xfdd0, 0xfdef}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    }
    return (c & 0xfffe) == 0xfffe;
}

/* Writes one character at `to`, made visible; how many bytes that takes. *was: set to false where it was so before. */
static size_t put_visible(char *to, const char *from, size_t n, bool *was_invisible)
{
    const uint32_t c = code_of((const unsigned char *)from, n);
    const char *sign = c == ' ' ? "\u2423" : c == '\n' ? "\u21b5" : c == '\t' ? "\u21e5" : "\u00b7";
    if (is_invisible(c)) {
        from = sign;
        n = strlen(sign);
    } else {
        *was_invisible = false;
    }
    memcpy(to, from, n);
    return n;
}

/* One label; only a label of nothing but what is invisible is special. */
static void append_token(struct tokens *to, const char *from, size_t bytes)
{
    char *label = need(3 * bytes + 4, 1); /* zeroed */
    size_t used = 0;
    bool special = true;
    for (size_t i = 0; i < bytes;) {
        const size_t n = character((const unsigned char *)from + i, bytes - i);
        used += put_visible(label + used, from + i, n, &special);
        i += n;
    }
    to->label[to->n] = label;
    to->special[to->n++] = special;
}

struct tokens tokens_read(const char *path, bool by_line)
{
    size_t bytes;
    char *text = read_whole(path, &bytes);
    const size_t mark = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* how some editors begin UTF-8 */
    struct tokens to = {.n = 0, .label = need(bytes + 1, sizeof *to.label), .special = need(bytes + 1, sizeof(bool))};
    for (size_t i = mark, begin = mark; i < bytes;) {
        const size_t n = character((const unsigned char *)text + i, bytes - i);
        if (n == 0) die("%s: byte %zu is not UTF-8; give UTF-8 text", path, i);
        if (!by_line) {
            append_token(&to, text + i, n);
        } else if (text[i] == '\n' || i + n == bytes) {
            size_t length = i - begin + (text[i] == '\n' ? 0 : n);
            if (text[i] == '\n' && length > 0 && text[i - 1] == '\r') length--;
            append_token(&to, text + begin, length);
            begin = i + 1;
        }
        i += n;
    }
    free(text);
    return to;
}

void tokens_free(struct tokens *x)
{
    for (int64_t i = 0; i < x->n; i++)
        free(x->label[i]);
    free(x->label);
    free(x->special);
    *x = (struct tokens){.n = 0};
}
