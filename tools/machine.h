/* What the tool tells about the machine it runs on; nothing of it decides anything. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stddef.h>

/* The processor's own name, or the best that the system knows. */
void machine_name(char *to, size_t room);

/* "L1d 32 KiB, L2 1 MiB, L3 32 MiB", or "unknown". */
void machine_caches(char *to, size_t room);

/* The features that the tiers ask for, "avx2 fma" and the like: those that are found, and those that are not. */
void machine_features(char *found, char *missing, size_t room);

/* Which vector state the operating system says that it keeps: XCR0, or hwcaps. */
void machine_os_state(char *to, size_t room);

#endif
