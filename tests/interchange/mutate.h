/* Damage to a text, as a function of (seed, round): what the fuzz tests of this folder share. */
#ifndef MT_TEST_INTERCHANGE_MUTATE_H
#define MT_TEST_INTERCHANGE_MUTATE_H

#include <stddef.h>
#include <stdint.h>

/* text [*n], of so much room: up to three bytes changed, signs of JSON set, digits replaced,
 * stretches removed or repeated, the end cut off. */
void mutate(char *text, size_t *n, size_t room, uint64_t seed, uint64_t round);

#endif
