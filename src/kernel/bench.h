/* `moetrain bench kernels`: what every hot operation reaches on this machine, against the measured
 * bound of one core (multiply-adds for products, copy bandwidth for the rest). */
#ifndef MT_KERNEL_BENCH_H
#define MT_KERNEL_BENCH_H

#include "device/device.h"

#include <stdio.h>

/* Prints the table to `out`, a few seconds long; `only`: operations with that in their name, NULL:
 * all. Shares are of one core's bound times the device's threads; what stays in a cache may
 * exceed 1. MT_ERR_RESOURCE when memory is short, MT_ERR_CONFIG when nothing is named so. */
enum mt_status mt_bench_kernels(struct mt_device *device, const char *only, FILE *out);

#endif
