/* The GPU as a module: libmoetrain_cuda.so, which is loaded when a GPU is wanted and there is one
 * (docs/decisions/0016-gpu.md). The program links no CUDA library, and starts as fast as without.
 *
 * The module shows one function, mt_module_entry, which returns tables of functions; what they
 * need of the program it is given. Both sides are built of the same headers, or do not go together:
 * version and sizes are compared before anything is called. */
#ifndef MT_DEVICE_MODULE_H
#define MT_DEVICE_MODULE_H

#include "device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever an argument or the meaning of a function changes. */
enum { MT_MODULE_VERSION = 3 };

enum { MT_DEVICE_MARKS = 8192 };

/* Memory and order of a device whose memory is not the host's. All work, copies too, is one stream
 * in the order of the calls, but for what device/memory.h says goes beside it; only the two waits
 * wait, and errors on the way come out of them. */
struct mt_device_table {
    /* Takes GPU number `local` of this machine, whose ranks are n_local, and sets device->context.
     * MT_ERR_RESOURCE: there are fewer GPUs. */
    enum mt_status (*open)(struct mt_device *device, int local, int n_local);
    void (*close)(struct mt_device *device); /* everything allocated has been freed */
    /* Not zeroed. MT_ERR_RESOURCE with bytes wanted and free. Never inside a step. */
    enum mt_status (*allocate)(struct mt_device *device, int64_t n_bytes, const char *what,
                               void **out);
    void (*free)(struct mt_device *device, void *memory);
    /* For operations on up to n rows of up to `width` elements. Never inside a step. */
    enum mt_status (*reserve)(struct mt_device *device, int64_t n, int64_t width);
    /* `from` may change when the call has returned, `to` has its values after the next wait. */
    void (*upload)(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
    void (*download)(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
    /* A copy of `from` for the operations that follow, until as much as the ring of such copies
     * holds has been lent again: at least 16 arrays of the words of all rows reserved. */
    const void *(*lend)(struct mt_device *device, const void *from, int64_t n_bytes);
    void (*copy)(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
    void (*fill_zero)(struct mt_device *device, void *memory, int64_t n_bytes);
    /* A look: whether everything is over, or never will be. */
    bool (*is_over)(const struct mt_device *device);
    /* Everything is over. The first error since opening. */
    enum mt_status (*wait)(struct mt_device *device);
    /* Where the work so far ends, 0 <= which < MT_DEVICE_MARKS; may be set anew when it is over. */
    void (*mark)(const struct mt_device *device, int which);
    /* The mark as an event of CUDA, for whoever sets it in another stream. */
    void *(*event)(const struct mt_device *device, int which);
    /* From one mark to another, when both are over, on the device's clock. */
    int64_t (*between_ns)(const struct mt_device *device, int from, int to);
    int64_t (*available_bytes)(const struct mt_device *device);
    void (*describe)(const struct mt_device *device, char *text, size_t bytes);
    /* As in device/memory.h. */
    void (*fetch_begin)(struct mt_device *device);
    void (*fetch)(struct mt_device *device, void *to, const void *from, int64_t n_bytes);
    enum mt_status (*fetch_wait)(struct mt_device *device);
    void (*aside_begin)(struct mt_device *device);
    void (*aside_end)(struct mt_device *device);
    void (*aside_join)(struct mt_device *device);
};

struct mt_kernel_table; /* kernel/table.h */
struct mt_nccl_table;   /* comm/transport_nccl.h */

struct mt_module {
    int version;          /* MT_MODULE_VERSION */
    const char *program;  /* MT_VERSION */
    int64_t device_bytes; /* sizeof(struct mt_device) */
    const struct mt_device_table *device;
    const struct mt_kernel_table *kernel;
    const struct mt_nccl_table *nccl; /* NULL: built without NCCL */
};

/* What the module calls in the program. */
struct mt_module_host {
    enum mt_status (*error_set)(enum mt_status code, const char *file, int line, const char *format,
                                ...) __attribute__((format(printf, 4, 5)));
    void (*assert_failed)(const char *condition, const char *file, int line, const char *function)
        __attribute__((noreturn));
};

/* "mt_module_entry". `host` outlives the module. */
typedef const struct mt_module *(*mt_module_entry_fn)(const struct mt_module_host *host);

/* The module, once loaded always there. MT_ERR_RESOURCE: no module, no driver, or one that is not
 * of this program. $MT_CUDA_MODULE names another file, which brings its own driver. */
enum mt_status mt_module_load(const struct mt_module **out);

#ifdef __cplusplus
}
#endif

#endif
