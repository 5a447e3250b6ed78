#include "base/size.h"

#include "base/status.h"

#include <limits.h>

/* Negative operands are refused too: they come from sizes that nobody checked. */
bool mt_size_multiply(int64_t a, int64_t b, int64_t *product)
{
    if (a < 0 || b < 0 || (a != 0 && b > INT64_MAX / a)) {
        return false;
    }
    *product = a * b;
    return true;
}

bool mt_size_add(int64_t a, int64_t b, int64_t *sum)
{
    if (a < 0 || b < 0 || b > INT64_MAX - a) {
        return false;
    }
    *sum = a + b;
    return true;
}

int mt_size_to_int(int64_t n)
{
    MT_ASSERT(n >= 0 && n <= INT_MAX);
    return (int)n;
}
