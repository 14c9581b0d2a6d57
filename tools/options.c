#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"
#include "tril.h"

/* With a long option that getopt does not take. */
static const char *what_is_wrong(const char *given, const struct option *longs)
{
    const char *name = given + (strncmp(given, "--", 2) == 0 ? 2 : 0);
    const size_t n = strcspn(name, "=");
    int begin = 0;
    for (; longs->name != NULL; longs++) {
        if (strncmp(longs->name, name, n) != 0) continue;
        if (strlen(longs->name) == n) return "no argument is taken by";
        begin++;
    }
    return begin == 0 ? "unknown" : begin == 1 ? "no argument is taken by" : "several begin like";
}

int next_option(int argc, char **argv, const char *shorts, const struct option *longs, const char *help)
{
    char with_help[64];
    snprintf(with_help, sizeof with_help, ":h%s", shorts); /* ':' tells a missing argument from an unknown option */
    opterr = 0;
    const int was = optind > 0 ? optind : 1;
    const int c = getopt_long(argc, argv, with_help, longs, NULL);
    if (c == 'h') {
        fputs(help, stdout);
        if (fflush(stdout) != 0) die("standard output: cannot write: %s", strerror(errno));
        exit(DONE);
    }
    if (c == ':') die("%s: option '%s' needs an argument; see tril %s --help", argv[0], argv[optind - 1], argv[0]);
    if (c == '?') {
        const char *given = argv[optind > was ? optind - 1 : was];
        if (optopt > 0 && optopt < 128 && optopt != 'h' && strchr(shorts, optopt) == NULL)
            die("%s: unknown option '-%c'; see tril %s --help", argv[0], optopt, argv[0]);
        die("%s: %s option '%s'; see tril %s --help", argv[0], what_is_wrong(given, longs), given, argv[0]);
    }
    if (c < 0 && optind < argc)
        die("%s: unexpected argument '%s'; every argument belongs to an option, see tril %s --help", argv[0],
            argv[optind], argv[0]);
    return c;
}

int64_t integer_option(const char *option, const char *text, int64_t min, int64_t max)
{
    char *end;
    errno = 0;
    const long long n = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < min || n > max)
        die("%s '%s': give a whole number from %lld to %lld", option, text, (long long)min, (long long)max);
    return n;
}

float scale_option(const char *text)
{
    char *end;
    const float x = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(x) || x == 0.0f)
        die("--scale '%s': give a finite number other than 0, or leave it out for 1/sqrt(dim)", text);
    return x;
}

float positive_option(const char *option, const char *text)
{
    char *end;
    const float x = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(x) || x <= 0.0f)
        die("%s '%s': give a finite number above 0, or leave it out", option, text);
    return x;
}

void range_option(const char *option, const char *text, int64_t *first, int64_t *end)
{
    char *colon, *last;
    errno = 0;
    const long long a = strtoll(text, &colon, 10);
    if (colon != text && *colon == ':' && colon[1] != '\0') {
        const long long b = strtoll(colon + 1, &last, 10);
        if (*last == '\0' && errno == 0 && a >= 0 && b > a) {
            *first = a;
            *end = b;
            return;
        }
    }
    die("%s '%s': give A:B, tokens A to B - 1 counted from 0, with A < B", option, text);
}

void isa_option(const char *text)
{
    char names[256] = "";
    int usable;
    if (tril_force_isa(text) == TRIL_OK) return;
    for (int i = 0; tril_isa_list(i, &usable) != NULL; i++) {
        const char *name = tril_isa_list(i, &usable);
        const size_t used = strlen(names);
        if (usable) snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", name);
    }
    die("--isa '%s': not a tier that this build and this machine have; give one of %s", text, names);
}
