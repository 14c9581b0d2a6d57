/* Numbers from a seed, the same on every machine: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
 * generators", 2014). */
#ifndef RANDOM_H
#define RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_bits(struct random *r)
{
    uint64_t x = r->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* 0 ... n - 1 */
static inline int random_below(struct random *r, int n)
{
    return (int)(random_bits(r) >> 33) % n;
}

/* About normal, mean 0, deviation 1: the sum of four 16-bit uniforms. */
static inline float random_normal(struct random *r)
{
    const uint64_t x = random_bits(r);
    const int sum = (int)(x & 0xffff) + (int)(x >> 16 & 0xffff) + (int)(x >> 32 & 0xffff) + (int)(x >> 48);
    return (float)(sum - 131070) * 2.6429e-5f;
}

#endif
