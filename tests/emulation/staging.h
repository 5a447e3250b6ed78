/* Arguments of one operation on their way to a GPU, emulated or not, and back: array by array,
 * exactly as large as kernel.h says. What is only written is not copied to the device before: an
 * element that the operation leaves out is found as one that nobody wrote. */
#ifndef MT_EMULATION_STAGING_H
#define MT_EMULATION_STAGING_H

#include <hwloc.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <vector>

extern "C" {
#include "kernel/table.h"
}
#include "kernel/cuda/cuda.h"

/* Of this device's type. Its number of threads sets the order of GPU threads, blocks and streams
 * where they are emulated: 1 forward, 2 reverse, 3 random. */
struct mt_cuda *emu_context(const struct mt_device *device);

/* What an emulated device and a real one do differently: emulated.cc, ../cuda/hardware.cc. */
void staging_set_order(int n_thread);
/* Text of an error that the runtime does not know; NULL: none. */
const char *staging_error(void);
/* Device memory that the operation is to write: what it leaves out shows. */
void staging_forget(void *memory, size_t bytes);
/* Whether this test of tests/kernel/ asks for what this device does not promise. */
bool staging_is_left_out(const char *test);

/* Each file's part of the table. */
void emu_fill_products(struct mt_kernel_table *table);
void emu_fill_layers(struct mt_kernel_table *table);
void emu_fill_experts(struct mt_kernel_table *table);
void emu_fill_rows(struct mt_kernel_table *table);

/* The arguments of one call. */
class call
{
  public:
    explicit call(const struct mt_device *device) : cuda(emu_context(device))
    {
    }
    struct mt_cuda *const cuda;

    template <typename T> const T *in(const T *host, int64_t n)
    {
        return both(const_cast<T *>(host), n, true, false);
    }
    template <typename T> T *out(T *host, int64_t n)
    {
        return both(host, n, false, true);
    }
    template <typename T> T *inout(T *host, int64_t n)
    {
        return both(host, n, true, true);
    }
    void *scratch(int64_t bytes)
    {
        return both(static_cast<char *>(nullptr) + 1, bytes, false, false);
    }
    struct mt_weight weight(const struct mt_weight *host, bool is_written)
    {
        struct mt_weight copy = *host;
        const int64_t n = host->n_out * host->n_in * (cuda->dtype == MT_BFLOAT16 ? 2 : 4);
        copy.forward_pack =
            both(static_cast<char *>(host->forward_pack), n, !is_written, is_written);
        copy.backward_pack = copy.forward_pack;
        return copy;
    }
    /* Waits and copies back; the test fails with the emulator's words. */
    void finish();

  private:
    struct array {
        void *host, *device;
        size_t bytes;
        bool is_result;
    };
    std::vector<array> arrays;

    void *place(void *host, size_t bytes, bool is_argument, bool is_result);
    template <typename T> T *both(T *host, int64_t n, bool is_argument, bool is_result)
    {
        return static_cast<T *>(place(host, size_t(n) * sizeof(T), is_argument, is_result));
    }
};

/* Weights of groups with device packs, as a list of pointers. */
struct weight_list {
    std::vector<struct mt_weight> weights;
    std::vector<const struct mt_weight *> pointers;

    weight_list(call *c, const struct mt_weight *const *host, int n)
    {
        for (int i = 0; i < n; i++) {
            weights.push_back(c->weight(host[i], false));
        }
        for (const struct mt_weight &weight : weights) {
            pointers.push_back(&weight);
        }
    }
};

struct gradient_list {
    std::vector<float *> pointers;

    gradient_list(call *c, float *const *host, int n, int64_t size)
    {
        for (int i = 0; i < n; i++) {
            pointers.push_back(c->inout(host[i], size));
        }
    }
};

inline int64_t first_row(struct mt_groups groups)
{
    return groups.offset[0];
}

inline int64_t n_row(struct mt_groups groups)
{
    return groups.offset[groups.n_group] - groups.offset[0];
}

#endif
