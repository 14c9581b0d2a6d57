#include "progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char shown[128];

void progress_text(const char *what)
{
    static int terminal = -1;
    if (terminal < 0) terminal = isatty(STDERR_FILENO);
    if (!terminal || strcmp(what, shown) == 0) return;
    snprintf(shown, sizeof shown, "%s", what);
    fprintf(stderr, "\r\033[K%s", shown);
    fflush(stderr);
}

void progress(const char *what, double done, double total)
{
    char line[sizeof shown];
    snprintf(line, sizeof line, "%.100s  %3.0f %%", what, total > 0 ? 100 * done / total : 100.0);
    progress_text(line);
}

void progress_end(void)
{
    if (shown[0] == '\0') return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    shown[0] = '\0';
}
