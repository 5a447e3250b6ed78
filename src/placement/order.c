#include "placement/order.h"

#include <string.h>

/* Merges runs of doubling length. */
void mt_order_by(const int64_t *key, int sign, int n, int *order, int *spare)
{
    int *from = order;
    int *to = spare;
    for (int i = 0; i < n; ++i) {
        order[i] = i;
    }
    for (int width = 1; width < n; width *= 2) {
        for (int start = 0; start < n; start += 2 * width) {
            const int middle = start + width < n ? start + width : n;
            const int end = middle + width < n ? middle + width : n;
            int a = start;
            int b = middle;
            for (int at = start; at < end; ++at) {
                const bool is_a =
                    b >= end || (a < middle && sign * key[from[a]] <= sign * key[from[b]]);
                to[at] = is_a ? from[a++] : from[b++];
            }
        }
        int *swap = from;
        from = to;
        to = swap;
    }
    if (from != order) {
        memcpy(order, from, (size_t)n * sizeof(order[0]));
    }
}
