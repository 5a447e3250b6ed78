/* State of a run that is no tensor: numbers that whoever plans or counts keeps, the same on every
 * rank. moe/, data/ and train/ have such arrays; checkpoint/ copies them in and out. */
#ifndef MT_STORE_STATE_ARRAY_H
#define MT_STORE_STATE_ARRAY_H

#include <stdint.h>

struct mt_state_array {
    const char *name; /* dataset /state/<name> */
    int64_t *values;  /* [n] the owner's, valid while it lives */
    int64_t n;
};

#endif
