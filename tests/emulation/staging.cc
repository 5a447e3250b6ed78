#include "emulation/staging.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" {
#include <cmocka.h>
}

/* For the largest rows of the tests. */
static const int64_t scratch_bytes = INT64_C(64) << 20;

/* $MT_TEST_APART_FLOPS: products of so many multiplications and additions go apart, which are small
 * enough for tests to have both ways at once. */
static void choose_ways(struct mt_cuda *cuda)
{
    const char *flops = std::getenv("MT_TEST_APART_FLOPS");
    if (flops != nullptr) {
        cuda->ways.apart_tiles = 0;
        cuda->ways.apart_flops = std::strtoll(flops, nullptr, 10);
    }
}

struct mt_cuda *emu_context(const struct mt_device *device)
{
    static struct mt_cuda contexts[2];
    static bool is_open[2];
    const int dtype = device->dtype == MT_BFLOAT16 ? 1 : 0;
    if (!is_open[dtype] && mt_cuda_init(&contexts[dtype], device->dtype, scratch_bytes) != MT_OK) {
        fail_msg("%s", mt_error_last()->text);
    }
    if (!is_open[dtype]) {
        choose_ways(&contexts[dtype]);
    }
    is_open[dtype] = true;
    staging_set_order(device->n_thread);
    return &contexts[dtype];
}

static void require(cudaError_t error)
{
    const char *text = staging_error();
    if (error != cudaSuccess || text != nullptr) {
        fail_msg("the device: %s", text != nullptr ? text : cudaGetErrorString(error));
    }
}

void call::finish()
{
    if (mt_cuda_wait(cuda) != MT_OK) {
        require(cudaSuccess);
        fail_msg("%s", mt_error_last()->text);
    }
    for (const array &a : arrays) {
        if (a.is_result) {
            require(cudaMemcpy(a.host, a.device, a.bytes, cudaMemcpyDeviceToHost));
        }
    }
    /* Freeing waits for every stream: it would hide that a result was waited for by none. */
    for (const array &a : arrays) {
        require(cudaFree(a.device));
    }
    arrays.clear();
}

void *call::place(void *host, size_t bytes, bool is_argument, bool is_result)
{
    void *device = nullptr;
    if (host == nullptr) {
        return nullptr;
    }
    for (const array &a : arrays) {
        if (a.host == host && a.bytes == bytes && a.is_result && bytes > 0) {
            return a.device; /* one array under two names */
        }
    }
    require(cudaMalloc(&device, bytes));
    if (is_argument) {
        require(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    } else {
        staging_forget(device, bytes);
    }
    arrays.push_back({host, device, bytes, is_result});
    return device;
}
