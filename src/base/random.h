/* Counter-based random numbers: a value is a pure function of (key, counter), so that every rank
 * can make any part of any stream without asking another. Philox4x32-10 (Salmon et al., SC'11). */
#ifndef MT_BASE_RANDOM_H
#define MT_BASE_RANDOM_H

#include <stdint.h>

/* 128 random bits for (key, counter). */
void mt_random_block(uint64_t key, uint64_t counter_high, uint64_t counter_low, uint32_t out[4]);

/* 64 random bits for (key, stream, index). */
uint64_t mt_random_u64(uint64_t key, uint64_t stream, uint64_t index);

/* Uniform in [0, 1) with 53 bits. */
double mt_random_uniform(uint64_t key, uint64_t stream, uint64_t index);

/* Standard normal variate number `index` of the stream (Box-Muller on one block). */
double mt_random_normal(uint64_t key, uint64_t stream, uint64_t index);

/* out [n]: mean 0, deviation `std`, variates first .. first + n - 1 of the stream. Equal to n calls
 * of mt_random_normal in any partition. */
void mt_random_fill_normal(uint64_t key, uint64_t stream, uint64_t first, int64_t n, float std,
                           float *out);

/* A stream id from a name: 64-bit FNV-1a. */
uint64_t mt_random_stream(const char *name);

/* Element `index` of a seeded permutation of [0, n), without storing it: an eight-round Feistel
 * network with cycle walking. index in [0, n), n in [1, 2^62]. */
uint64_t mt_random_permute(uint64_t key, uint64_t stream, uint64_t index, uint64_t n);

#endif
