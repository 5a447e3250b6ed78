#include "interchange/stored_type.h"

#include "kernel/cpu/bf16.h"

#include <string.h>

static const struct {
    const char *word, *name;
    int64_t n_byte;
} table[MT_N_STORED_TYPE] = {
    [MT_STORED_F32] = {"F32", "float32", 4},
    [MT_STORED_BF16] = {"BF16", "bfloat16", 2},
    [MT_STORED_F16] = {"F16", "float16", 2},
};

const char *mt_stored_type_word(enum mt_stored_type type)
{
    return table[type].word;
}

const char *mt_stored_type_name(enum mt_stored_type type)
{
    return table[type].name;
}

enum mt_stored_type mt_stored_type_of_word(const char *word)
{
    int type = 0;
    while (type < MT_N_STORED_TYPE && strcmp(table[type].word, word) != 0) {
        ++type;
    }
    return (enum mt_stored_type)type;
}

enum mt_stored_type mt_stored_type_of_name(const char *name)
{
    int type = 0;
    while (type < MT_N_STORED_TYPE && strcmp(table[type].name, name) != 0) {
        ++type;
    }
    return (enum mt_stored_type)type;
}

int64_t mt_stored_type_bytes(enum mt_stored_type type)
{
    return table[type].n_byte;
}

/* float16: sign, 5 bits of exponent (bias 15), 10 of mantissa; float32 has 8 (bias 127) and 23. */
static uint32_t bits_of_half(uint32_t half)
{
    const uint32_t sign = (half & 0x8000U) << 16;
    const uint32_t exponent = (half >> 10) & 0x1fU;
    uint32_t mantissa = half & 0x3ffU;
    if (exponent == 0x1fU) {
        return sign | 0x7f800000U | (mantissa << 13);
    }
    if (exponent > 0) {
        return sign | ((exponent + 112U) << 23) | (mantissa << 13);
    }
    if (mantissa == 0) {
        return sign;
    }
    uint32_t power = 113U; /* subnormal: shifted until its first bit is the implied one */
    while ((mantissa & 0x400U) == 0) {
        mantissa <<= 1;
        --power;
    }
    return sign | (power << 23) | ((mantissa & 0x3ffU) << 13);
}

/* value / 2^shift to nearest, ties to even; shift in [1, 31]. */
static uint32_t round_shift(uint32_t value, uint32_t shift)
{
    const uint32_t half = 1U << (shift - 1);
    const uint32_t odd = (value >> shift) & 1U;
    return (value + half - 1U + odd) >> shift;
}

static uint32_t half_of_bits(uint32_t bits)
{
    const uint32_t sign = (bits >> 16) & 0x8000U;
    const uint32_t magnitude = bits & 0x7fffffffU;
    if (magnitude > 0x7f800000U) {
        return sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU); /* a NaN stays one */
    }
    if (magnitude >= 0x477ff000U) {
        return sign | 0x7c00U; /* 65520 and more round to infinity */
    }
    if (magnitude >= 0x38800000U) {
        return sign | round_shift(magnitude - 0x38000000U, 13);
    }
    if (magnitude < 0x33000000U) {
        return sign; /* below 2^-25, half of the smallest */
    }
    const uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
    return sign | round_shift(mantissa, 126U - (magnitude >> 23));
}

void mt_stored_type_widen(enum mt_stored_type type, float *data, int64_t n)
{
    if (type == MT_STORED_F32) {
        return;
    }
    /* Each is read before anything is written behind it. */
    const char *packed = (const char *)data + n * (int64_t)sizeof(uint16_t);
    for (int64_t i = 0; i < n; ++i) {
        uint16_t half = 0;
        memcpy(&half, packed + i * (int64_t)sizeof(half), sizeof(half));
        const uint32_t bits = type == MT_STORED_BF16 ? (uint32_t)half << 16 : bits_of_half(half);
        memcpy(&data[i], &bits, sizeof(bits));
    }
}

bool mt_stored_type_narrow(enum mt_stored_type type, float *value, int64_t n)
{
    const uint32_t infinite = type == MT_STORED_BF16 ? 0x7f80U : 0x7c00U;
    bool is_kept = true;
    for (int64_t i = 0; i < n && type != MT_STORED_F32; ++i) {
        uint32_t bits = 0;
        memcpy(&bits, &value[i], sizeof(bits));
        const uint32_t rounded =
            type == MT_STORED_BF16 ? mt_bf16_bits(value[i]) : half_of_bits(bits);
        const uint16_t half = (uint16_t)rounded;
        is_kept =
            is_kept && ((rounded & 0x7fffU) != infinite || (bits & 0x7fffffffU) == 0x7f800000U);
        memcpy((char *)value + i * (int64_t)sizeof(half), &half, sizeof(half));
    }
    return is_kept;
}
