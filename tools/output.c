#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

struct output {
    FILE *file;
    char *path;      /* as the user gave it */
    char *target;    /* behind symbolic links */
    char *temporary; /* null: written in place, or renamed already */
};

enum { MOST = 4 };
static struct output outputs[MOST];
static volatile sig_atomic_t opened;

static void remove_unfinished(void)
{
    for (int i = 0; i < opened; i++) {
        if (outputs[i].temporary != NULL) unlink(outputs[i].temporary);
    }
}

static void on_signal(int number)
{
    remove_unfinished();
    signal(number, SIG_DFL);
    raise(number);
}

static void remove_at_end(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    atexit(remove_unfinished);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct sigaction was;
        if (sigaction(signals[i], NULL, &was) == 0 && was.sa_handler == SIG_IGN) continue; /* nohup */
        signal(signals[i], on_signal);
    }
}

static _Noreturn void die_writing(const struct output *to)
{
    die("%s: cannot write: %s; give a path that can be written", to->path, strerror(errno));
}

/* Where the file will be, whatever its path is; null with errno. */
static char *place_of(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash == NULL ? path : slash + 1;
    char *folder = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    char *real = folder == NULL ? NULL : realpath(folder, NULL), *place = NULL;
    if (real != NULL) {
        const size_t room = strlen(real) + strlen(base) + 2;
        place = need(room, 1);
        snprintf(place, room, "%s/%s", real, base);
    }
    const int error = errno;
    free(folder);
    free(real);
    errno = error;
    return place;
}

struct output *output_open(const char *path)
{
    if (path[0] == '\0') die("'': is no file; give one to write");
    if (opened == 0) remove_at_end();
    if (opened == MOST) die("%s: more than %d outputs", path, MOST);
    struct output *to = &outputs[opened];
    struct stat status;
    if (stat(path, &status) != 0 && lstat(path, &status) == 0)
        die("%s: is a link to what does not exist; give a file", path);
    const bool exists = stat(path, &status) == 0, regular = !exists || S_ISREG(status.st_mode);
    if ((exists && S_ISDIR(status.st_mode)) || path[strlen(path) - 1] == '/')
        die("%s: is a directory; give a file", path);
    to->path = strdup(path);
    to->target = !exists ? place_of(path) : regular ? realpath(path, NULL) : strdup(path); /* a pipe has no real path */
    if (to->path == NULL || to->target == NULL)
        die("%s: cannot write: %s; give a path that can be written", path, strerror(errno));
    if (exists && access(path, W_OK) != 0) die_writing(to);
    for (int i = 0; i < opened; i++) {
        if (strcmp(outputs[i].target, to->target) == 0) die("%s: is given for two outputs; give two files", path);
    }
    if (!regular) {
        to->file = fopen(to->target, "wb");
    } else {
        const size_t room = strlen(to->target) + 32;
        to->temporary = need(room, 1);
        snprintf(to->temporary, room, "%s.%ld.tmp", to->target, (long)getpid());
        const int fd = open(to->temporary, O_WRONLY | O_CREAT | O_EXCL, exists ? status.st_mode & 0777 : 0666);
        if (fd >= 0) {
            opened++; /* from here on it is removed if anything goes wrong */
            to->file = fdopen(fd, "wb");
            if (to->file == NULL) die_writing(to);
            if (exists) (void)!fchmod(fd, status.st_mode & 0777); /* as it was, whatever the mask is */
            return to;
        }
    }
    if (to->file == NULL) die_writing(to);
    opened++;
    return to;
}

void output_write(struct output *to, const void *data, size_t bytes)
{
    if (bytes > 0 && fwrite(data, 1, bytes, to->file) != bytes) die_writing(to);
}

const char *output_path(const struct output *to)
{
    return to->path;
}

void outputs_commit(void)
{
    for (int i = 0; i < opened; i++) {
        if (outputs[i].file == NULL) continue;
        FILE *file = outputs[i].file;
        outputs[i].file = NULL;
        const bool flushed = fflush(file) == 0 && !ferror(file);
        if (!flushed) die_writing(&outputs[i]);
        if (fclose(file) != 0) die_writing(&outputs[i]);
    }
    for (int i = 0; i < opened; i++) {
        if (outputs[i].temporary == NULL) continue;
        if (rename(outputs[i].temporary, outputs[i].target) != 0) die_writing(&outputs[i]);
        free(outputs[i].temporary);
        outputs[i].temporary = NULL;
    }
    for (int i = 0; i < opened; i++) {
        free(outputs[i].path);
        free(outputs[i].target);
        outputs[i] = (struct output){0};
    }
    opened = 0;
}
