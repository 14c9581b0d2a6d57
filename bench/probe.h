/* The machine's peaks, measured where they are needed: a burst of f32 fma that lives in registers alone, and a read of
 * memory that does nothing else; where the machine multiplies pairs of bf16, a burst of that as well.
 *
 * A neighbour on the same physical core halves every figure without warning. So a measurement is quoted as a share of
 * a probe taken just before and just after it, and a repetition whose probes are slow is not counted. */
#ifndef TRIL_BENCH_PROBE_H
#define TRIL_BENCH_PROBE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a burst multiplies. */
enum probe_kind { PROBE_F32, PROBE_BF16, PROBE_KINDS };

/* The peak of this core now, in GFLOP/s (a fused multiply-add is two operations, a pair of bf16 four), over a burst of
 * about 0.1 ms with the widest units that this machine can run; 0 where it has none. */
double probe_gflops(enum probe_kind kind);

/* Which units those are: "avx512", "avx2", "sse", "neon" or "c"; for bf16 "avx512bf16", or null where there is none.
 * Static. */
const char *probe_name(enum probe_kind kind);

/* The f32 peak of a tier's own vectors ("avx2", ...) as a share of the widest units' here: 1 where they are those, or
 * where nothing else is known. 15 bursts of each take turns, 3 ms; the share is that of the best ones. */
double probe_share(const char *tier);

/* Reads `bytes` bytes once, in ascending order, as fast as this machine's widest loads can: the memory's peak. `bytes`
 * is rounded down to a multiple of 512. Results go nowhere. */
void probe_read(const void *data, size_t bytes);

/* Seconds on a clock that never goes back. */
double probe_seconds(void);

#ifdef __cplusplus
}
#endif
#endif
