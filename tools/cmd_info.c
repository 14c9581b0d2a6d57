/* tril info: what this machine is, which tiers there are, and why one was chosen. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "options.h"
#include "tiers.h"
#include "tool.h"
#include "tril.h"

#if defined(__x86_64__)
#define BUILT_FOR "x86-64"
#elif defined(__i386__)
#define BUILT_FOR "x86"
#elif defined(__aarch64__)
#define BUILT_FOR "AArch64"
#elif defined(__riscv)
#define BUILT_FOR "RISC-V"
#else
#define BUILT_FOR "another architecture"
#endif

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "an unknown compiler"
#endif

static const char help[] = "usage: tril info\n\n"
                           "Prints the processor, the features and the state of the operating system that the tiers\n"
                           "(instruction sets) ask for, the tiers of this build, the one in use and why, by which\n"
                           "means it multiplies in each math mode, the caches, the version and the compiler.\n\n"
                           "  -h, --help   this text\n";

static void line(const char *what, const char *text)
{
    printf("%-10s %s\n", what, text);
}

/* Why it is this tier: the constructor's rule, told again from what is known outside. */
static void print_reason(void)
{
    const char *ceiling = getenv("TRIL_ISA"), *best = "";
    int usable, known = 0;
    for (int i = 0; tril_isa_list(i, &usable) != NULL; i++) {
        if (usable) best = tril_isa_list(i, NULL);
        if (ceiling != NULL && strcmp(ceiling, tril_isa_list(i, NULL)) == 0) known = 1;
    }
    printf("%-10s %s, ", "in use", tril_isa());
    if (ceiling == NULL)
        printf("the best usable tier; TRIL_ISA is not set\n");
    else if (!known)
        printf("the best usable tier; TRIL_ISA='%s' is ignored, no tier of this build has that name\n", ceiling);
    else if (strcmp(tril_isa(), best) != 0)
        printf("the best usable tier up to the ceiling TRIL_ISA=%s; without it %s\n", ceiling, best);
    else
        printf("the best usable tier; the ceiling TRIL_ISA=%s changes nothing\n", ceiling);
}

/* How calls of a math mode are served; `by` names the instruction, for who has it. */
static void print_math(const char *what, tril_math math, const char *by)
{
    const char *serving = tier_serving(tril_isa(), math);
    const bool self = tier_serves(tril_isa(), math), portable = strcmp(serving, tril_isa_list(0, NULL)) == 0;
    const char *how = tier_by_instruction(tril_isa(), math) ? by : portable ? "in portable C" : "emulated";
    printf("%-10s %s%s%s\n", what, how, self ? "" : ", left to the tier ", self ? "" : serving);
}

int cmd_info(int argc, char **argv)
{
    static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    char text[512], missing[512];
    while (next_option(argc, argv, "", longs, help) != -1) {
    }

    const uint32_t v = tril_version();
    snprintf(text, sizeof text, "tril %u.%u.%u for " BUILT_FOR ", built by %s", v >> 16, v >> 8 & 0xff, v & 0xff,
             COMPILER);
    line("version", text);
    machine_name(text, sizeof text);
    line("processor", text);
    machine_caches(text, sizeof text);
    line("caches", text);
    machine_features(text, missing, sizeof text);
    line("features", text[0] != '\0' ? text : "none that a tier asks for");
    if (missing[0] != '\0') line("missing", missing);
    machine_os_state(text, sizeof text);
    line("OS state", text);

    int usable;
    for (int i = 0; tril_isa_list(i, &usable) != NULL; i++)
        printf("%-10s %-10s %s\n", i == 0 ? "tiers" : "", tril_isa_list(i, NULL),
               usable ? "usable" : "built, but this machine cannot run it");
    print_reason();
    print_math("math F32", TRIL_MATH_F32, "by the fma instruction");
    print_math("math BF16", TRIL_MATH_BF16, "by an instruction for pairs of bf16");
    return DONE;
}
