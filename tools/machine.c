#include "machine.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

static void append(char *to, size_t room, const char *separator, const char *what)
{
    const size_t used = strlen(to);
    if (used < room) snprintf(to + used, room - used, "%s%s", used > 0 ? separator : "", what);
}

/* The rest of the first line that begins with `key`, or the whole first line for an empty key. */
static int line_of(const char *path, const char *key, char *to, size_t room)
{
    char line[512];
    int found = 0;
    FILE *file = fopen(path, "r");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *rest = line + strlen(key);
        rest += strspn(rest, " \t:");
        line[strcspn(line, "\n")] = '\0';
        snprintf(to, room, "%s", rest);
        found = to[0] != '\0';
    }
    if (file != NULL) fclose(file);
    return found;
}

void machine_name(char *to, size_t room)
{
#if defined(__x86_64__) || defined(__i386__)
    uint32_t words[13] = {0};
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) >= 0x80000004u) {
        for (unsigned i = 0; i < 3; i++)
            __cpuid(0x80000002u + i, words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]);
        const char *name = (const char *)words;
        snprintf(to, room, "%s", name + strspn(name, " "));
        for (size_t n = strlen(to); n > 0 && to[n - 1] == ' '; n--)
            to[n - 1] = '\0';
        if (to[0] != '\0') return;
    }
#elif defined(__aarch64__)
    if (line_of("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1", "", to, room)) {
        const unsigned long midr = strtoul(to, NULL, 16);
        snprintf(to, room, "implementer 0x%02lx, part 0x%03lx (MIDR_EL1)", midr >> 24 & 0xff, midr >> 4 & 0xfff);
        return;
    }
#endif
    if (!line_of("/proc/cpuinfo", "model name", to, room)) snprintf(to, room, "unknown");
}

static void cache_text(char *to, size_t room, const char *level, const char *type, const char *size)
{
    char *unit;
    const unsigned long n = strtoul(size, &unit, 10);
    const char *letter = strcmp(level, "1") == 0 ? (strcmp(type, "Data") == 0 ? "d" : "") : "";
    if (*unit == 'K' && n >= 1024 && n % 1024 == 0)
        snprintf(to, room, "L%s%s %lu MiB", level, letter, n / 1024);
    else
        snprintf(to, room, "L%s%s %lu %ciB", level, letter, n, *unit != '\0' ? *unit : ' ');
}

void machine_caches(char *to, size_t room)
{
    to[0] = '\0';
    for (int i = 0; i < 8; i++) {
        static const char *const names[3] = {"level", "type", "size"};
        char path[128], value[3][64], text[256];
        int known = 1;
        for (int j = 0; j < 3 && known; j++) {
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", i, names[j]);
            known = line_of(path, "", value[j], sizeof value[j]);
        }
        if (!known || strcmp(value[1], "Instruction") == 0) continue;
        cache_text(text, sizeof text, value[0], value[1], value[2]);
        append(to, room, ", ", text);
    }
    if (to[0] == '\0') snprintf(to, room, "unknown");
}

struct feature {
    const char *name;
    int found;
};

static void sort_out(const struct feature *features, size_t n, char *found, char *missing, size_t room)
{
    found[0] = missing[0] = '\0';
    for (size_t i = 0; i < n; i++)
        append(features[i].found ? found : missing, room, " ", features[i].name);
}

#if defined(__x86_64__) || defined(__i386__)
void machine_features(char *found, char *missing, size_t room)
{
    struct tril_x86_state s;
    tril_x86_read(&s);
    const struct feature features[] = {
        {"osxsave", s.leaf1_ecx >> 27 & 1},  {"avx", s.leaf1_ecx >> 28 & 1},
        {"fma", s.leaf1_ecx >> 12 & 1},      {"f16c", s.leaf1_ecx >> 29 & 1},
        {"avx2", s.leaf7_ebx >> 5 & 1},      {"avx512f", s.leaf7_ebx >> 16 & 1},
        {"avx512dq", s.leaf7_ebx >> 17 & 1}, {"avx512bw", s.leaf7_ebx >> 30 & 1},
        {"avx512vl", s.leaf7_ebx >> 31 & 1}, {"avx512_bf16", s.leaf7_1_eax >> 5 & 1},
    };
    sort_out(features, sizeof(features) / sizeof(features[0]), found, missing, room);
}

void machine_os_state(char *to, size_t room)
{
    struct tril_x86_state s;
    tril_x86_read(&s);
    snprintf(to, room, "XCR0 0x%llx: ymm %s, zmm %s", (unsigned long long)s.xcr0,
             (s.xcr0 & 0x06) == 0x06 ? "kept" : "not kept", (s.xcr0 & 0xe6) == 0xe6 ? "kept" : "not kept");
}
#elif defined(__aarch64__)
void machine_features(char *found, char *missing, size_t room)
{
    const struct feature features[] = {{"asimd", (tril_cpu_features() & TRIL_CPU_NEON) != 0}};
    sort_out(features, sizeof(features) / sizeof(features[0]), found, missing, room);
}

void machine_os_state(char *to, size_t room)
{
#ifdef __linux__
    snprintf(to, room, "hwcaps 0x%lx", getauxval(AT_HWCAP));
#else
    snprintf(to, room, "no hwcaps on this system; NEON is taken for granted on AArch64");
#endif
}
#else
void machine_features(char *found, char *missing, size_t room)
{
    sort_out(NULL, 0, found, missing, room);
}

void machine_os_state(char *to, size_t room)
{
    snprintf(to, room, "not asked for: no tier of this build needs any");
}
#endif
