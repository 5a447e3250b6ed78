/* Elements of tensors in files of other programs: float32, bfloat16, float16, little-endian. */
#ifndef MT_INTERCHANGE_STORED_TYPE_H
#define MT_INTERCHANGE_STORED_TYPE_H

#include <stdbool.h>
#include <stdint.h>

enum mt_stored_type { MT_STORED_F32, MT_STORED_BF16, MT_STORED_F16, MT_N_STORED_TYPE };

/* "F32" as safetensors has it, "float32" as people have it. */
const char *mt_stored_type_word(enum mt_stored_type type);
const char *mt_stored_type_name(enum mt_stored_type type);
/* MT_N_STORED_TYPE: there is none of this word, or of this name. */
enum mt_stored_type mt_stored_type_of_word(const char *word);
enum mt_stored_type mt_stored_type_of_name(const char *name);
int64_t mt_stored_type_bytes(enum mt_stored_type type);

/* data [n] floats, whose last n mt_stored_type_bytes() bytes are elements: made floats in place.
 * Exact. */
void mt_stored_type_widen(enum mt_stored_type type, float *data, int64_t n);
/* value [n] floats, made elements in place from the front: to nearest, ties to even. False when a
 * finite one is too large for the type: float16 ends at 65504. */
bool mt_stored_type_narrow(enum mt_stored_type type, float *value, int64_t n);

#endif
