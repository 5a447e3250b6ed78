/* Memory by home, and the order of what happens to it (docs/decisions/0016-gpu.md).
 *
 * Arrays that operations compute on live in the device's memory; what decides how much work there
 * is lives on the host. On the CPU both are one: an array and its copy on the other side may be the
 * same memory, and then nothing is copied. On a GPU all copies join the one order of the device's
 * work, and only mt_device_wait waits for it. */
#ifndef MT_DEVICE_MEMORY_H
#define MT_DEVICE_MEMORY_H

#include "base/memory.h"
#include "device/device.h"

/* Whether the host reads and writes the device's memory as its own. */
bool mt_device_is_host(const struct mt_device *device);

/* 64-byte aligned, zeroed; `what` is a literal for messages. Not inside a step. MT_ERR_RESOURCE
 * with the bytes that are wanted and free. */
enum mt_status mt_device_allocate(struct mt_device *device, int64_t n_bytes, const char *what,
                                  void **out);
void mt_device_free(struct mt_device *device, void *memory); /* NULL allowed */
/* [count] items of type T, checked product. */
#define MT_DEVICE_ALLOCATE(device, pointer, count, what)                             \
    mt_device_allocate_items((device), (int64_t)sizeof(*(pointer)), (count), (what), \
                             (void **)&(pointer))
enum mt_status mt_device_allocate_items(struct mt_device *device, int64_t item_bytes, int64_t count,
                                        const char *what, void **out);
/* An arena of base/memory.h in the device's memory. */
enum mt_status mt_device_arena_init(struct mt_device *device, struct mt_arena *arena,
                                    int64_t capacity_bytes, const char *what);
void mt_device_arena_clear(struct mt_device *device, struct mt_arena *arena);

/* What operations need for themselves on up to n rows of up to `width` elements, each dimension the
 * largest of any call. Not inside a step. */
enum mt_status mt_device_reserve(struct mt_device *device, int64_t n, int64_t width);

/* Host to device: `from` may change when the call has returned. */
void mt_device_upload(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
/* Device to host: `to` has its values after the next wait. */
void mt_device_download(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
/* Where the host writes what it will upload to, or reads what it downloads from, `memory`: there
 * itself if it can, else in `room`. */
void *mt_device_room(const struct mt_device *device, void *memory, void *room);
/* Host arrays as the next operation's arguments: the operation has been enqueued before more than
 * a few others are lent. NULL is NULL. */
const void *mt_device_lend(struct mt_device *device, const void *from, int64_t n_bytes);
/* Within the device. */
void mt_device_copy(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
void mt_device_fill_zero(struct mt_device *device, void *memory, int64_t n_bytes);
/* Everything so far is over, downloads have arrived; the first error since the beginning. */
enum mt_status mt_device_wait(struct mt_device *device);

/* Beside the order, where the host wants to know something early (docs/decisions/0016-gpu.md).
 *
 *     order   ... | fetch_begin             what follows ...                | join
 *     fetched      \__ copies __ host waits for these alone                  /
 *     aside         \__ aside_begin ... operations ... aside_end ___________/
 *
 * What is fetched comes after everything before fetch_begin and beside what follows; `to` has its
 * values after mt_device_fetch_wait, which waits for nothing else. */
void mt_device_fetch_begin(struct mt_device *device);
void mt_device_fetch(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
enum mt_status mt_device_fetch_wait(struct mt_device *device);
/* Operations between begin and end come after everything before begin, run beside what follows end
 * and are over for what follows join. They lend, upload and download nothing, and have scratch of
 * their own: what is reserved between begin and end. On the CPU operations run when they are
 * called, here too. */
void mt_device_aside_begin(struct mt_device *device);
void mt_device_aside_end(struct mt_device *device);
void mt_device_aside_join(struct mt_device *device);

/* Waits so far, of both kinds, of a device that is not the host: for tests. */
int64_t mt_device_n_wait(const struct mt_device *device);

/* Bytes that this process can still allocate there. */
int64_t mt_device_available_bytes(const struct mt_device *device);

#endif
