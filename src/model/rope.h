/* Frequencies of the rotary embedding, stretched as models for longer texts have them. */
#ifndef MT_MODEL_ROPE_H
#define MT_MODEL_ROPE_H

#include "config/config.h"

/* frequency [Dh/2]: turns by so many radians a position, each computed in double as Hugging Face
 * transformers 5.23 does in float (modeling_rope_utils.py):
 *
 *   none    theta^(-2i/Dh)
 *   linear  all divided by rope_factor (Chen et al. 2023)
 *   llama3  divided where it turns less than rope_turns[0] times in the original length, as it is
 *           where more than rope_turns[1] times, between by the number of turns
 *   yarn    the same, but between by i, from the whole i where it turns rope_turns[1] times to
 *           the one where rope_turns[0] (Peng et al. 2023, equations 18 to 23)
 *
 * rope_magnitude is not in it. */
void mt_rope_frequencies(const struct mt_config *config, double *frequency);

#endif
