/* Seeded damage to files, for tests that nothing but an answer comes of it: bits, bytes, stretches
 * removed, repeated or cut off, numbers and words replaced by awkward ones. */
#ifndef MT_TESTS_SUPPORT_MUTATE_H
#define MT_TESTS_SUPPORT_MUTATE_H

#include <stdint.h>
#include <stdlib.h>

/* What a fuzzed reader may add to the resident set; a sanitizer keeps freed memory. */
#ifdef __SANITIZE_ADDRESS__
#define MT_TEST_FUZZ_BYTES ((int64_t)1 << 30)
#else
#define MT_TEST_FUZZ_BYTES ((int64_t)16 << 20)
#endif

enum mt_mutate_kind {
    MT_MUTATE_BINARY, /* numbers are little-endian, of 1, 4 or 8 bytes */
    MT_MUTATE_TEXT    /* numbers are decimal, words those of JSON */
};

/* data [room] holds *n bytes, at least one, and becomes what round `round` of `seed` makes of them:
 * one to four changes. */
void mt_mutate(enum mt_mutate_kind kind, uint64_t seed, uint64_t round, unsigned char *data,
               size_t *n, size_t room);

#endif
