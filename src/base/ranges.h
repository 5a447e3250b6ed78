/* Spans as ranges that NVIDIA's profilers show beside the GPU's work, where the program is built
 * with -DMT_NVTX=ON; nothing otherwise. */
#ifndef MT_BASE_RANGES_H
#define MT_BASE_RANGES_H

/* Ranges nest on the thread that opens them. */
void mt_range_push(const char *name);
void mt_range_pop(void);

#endif
