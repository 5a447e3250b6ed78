#include "emulation/gpu.h"

#include "kernel/cuda/cuda.h"

#include <cstdio>
#include <cstdlib>

static void require(cudaError_t error)
{
    if (error != cudaSuccess) {
        const char *text = emu_take_error();
        std::fprintf(stderr, "emulated device: %s\n",
                     text != nullptr ? text : cudaGetErrorString(error));
        std::exit(EXIT_FAILURE);
    }
}

struct mt_cuda *emu_gpu_open(void)
{
    const int64_t scratch_bytes = 1 << 20;
    struct mt_cuda *cuda = new struct mt_cuda;
    if (mt_cuda_init(cuda, MT_FLOAT32, scratch_bytes) != MT_OK) {
        require(cudaErrorNoDevice);
    }
    return cuda;
}

void emu_gpu_close(struct mt_cuda *cuda)
{
    mt_cuda_clear(cuda);
    delete cuda;
}

void *emu_gpu_allocate(int64_t n_bytes)
{
    void *memory = nullptr;
    if (n_bytes > 0) {
        require(cudaMalloc(&memory, size_t(n_bytes)));
    }
    return memory;
}

void emu_gpu_free(void *memory)
{
    require(cudaFree(memory));
}

void emu_gpu_put(void *to, const void *from, int64_t n_bytes)
{
    if (n_bytes > 0) {
        require(cudaMemcpy(to, from, size_t(n_bytes), cudaMemcpyHostToDevice));
    }
}

void emu_gpu_get(void *to, const void *from, int64_t n_bytes)
{
    if (n_bytes > 0) {
        require(cudaMemcpy(to, from, size_t(n_bytes), cudaMemcpyDeviceToHost));
    }
}

void *emu_gpu_allocate_pinned(int64_t n_bytes)
{
    void *memory = nullptr;
    require(cudaMallocHost(&memory, size_t(n_bytes)));
    return memory;
}

void emu_gpu_free_pinned(void *memory)
{
    require(cudaFreeHost(memory));
}

void emu_gpu_enqueue_upload(struct mt_cuda *cuda, void *to, const void *pinned, int64_t n_bytes)
{
    require(cudaMemcpyAsync(to, pinned, size_t(n_bytes), cudaMemcpyHostToDevice, cuda->stream));
}

void emu_gpu_enqueue_download(struct mt_cuda *cuda, void *pinned, const void *from, int64_t n_bytes)
{
    require(cudaMemcpyAsync(pinned, from, size_t(n_bytes), cudaMemcpyDeviceToHost, cuda->stream));
}

bool emu_gpu_is_idle(struct mt_cuda *cuda)
{
    return cudaStreamQuery(cuda->stream) == cudaSuccess;
}
