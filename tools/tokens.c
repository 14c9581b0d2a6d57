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

/* Appends one character, made visible; true where it had to be. */
static bool append_visible(char *to, const char *from, size_t n)
{
    const unsigned char c = (unsigned char)from[0];
    char *end = to + strlen(to);
    if (c == ' ') {
        strcpy(end, "\u2423");
    } else if (c == '\n') {
        strcpy(end, "\u21b5");
    } else if (c == '\t') {
        strcpy(end, "\u21e5");
    } else if (c < ' ' || c == 127) {
        strcpy(end, "\u00b7");
    } else {
        memcpy(end, from, n);
        end[n] = '\0';
        return false;
    }
    return true;
}

/* One label; only a label of nothing but what is invisible is special. */
static void append_token(struct tokens *to, const char *from, size_t bytes)
{
    char *label = need(3 * bytes + 4, 1);
    bool special = true;
    for (size_t i = 0; i < bytes;) {
        const size_t n = character((const unsigned char *)from + i, bytes - i);
        if (!append_visible(label, from + i, n)) special = false;
        i += n;
    }
    to->label[to->n] = label;
    to->special[to->n++] = special;
}

struct tokens tokens_read(const char *path, bool by_line)
{
    size_t bytes;
    char *text = read_whole(path, &bytes);
    struct tokens to = {.n = 0, .label = need(bytes + 1, sizeof *to.label), .special = need(bytes + 1, sizeof(bool))};
    for (size_t i = 0, begin = 0; i < bytes;) {
        const size_t n = character((const unsigned char *)text + i, bytes - i);
        if (n == 0) die("%s: byte %zu is not UTF-8; give UTF-8 text", path, i);
        if (!by_line) {
            append_token(&to, text + i, n);
        } else if (text[i] == '\n' || i + n == bytes) {
            append_token(&to, text + begin, i - begin + (text[i] == '\n' ? 0 : n));
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
