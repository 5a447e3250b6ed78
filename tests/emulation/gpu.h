/* One emulated GPU for tests in C: a context, memory, and waiting as the program does it. */
#ifndef MT_EMULATION_GPU_H
#define MT_EMULATION_GPU_H

#include "emulation/emulator.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mt_cuda;

/* What the emulator or the runtime refuses in these ends the process, with its words. */
struct mt_cuda *emu_gpu_open(void);
void emu_gpu_close(struct mt_cuda *cuda);
/* n_bytes = 0: NULL. */
void *emu_gpu_allocate(int64_t n_bytes);
void emu_gpu_free(void *memory);
void emu_gpu_put(void *to, const void *from, int64_t n_bytes);
void emu_gpu_get(void *to, const void *from, int64_t n_bytes);
void *emu_gpu_allocate_pinned(int64_t n_bytes);
void emu_gpu_free_pinned(void *memory);
/* Work of the context's stream. */
void emu_gpu_enqueue_upload(struct mt_cuda *cuda, void *to, const void *pinned, int64_t n_bytes);
void emu_gpu_enqueue_download(struct mt_cuda *cuda, void *pinned, const void *from,
                              int64_t n_bytes);
/* Whether all of the context's stream is over; does one operation more if not. What the emulator
 * refuses on the way is the caller's to take. */
bool emu_gpu_is_idle(struct mt_cuda *cuda);

#ifdef __cplusplus
}
#endif

#endif
