/* The emulated GPU as one of a machine, for programs that load it as a module. The environment says
 * what the machine is like:
 *
 *   MT_EMU_GPUS    GPUs of this machine (8); 0: the driver finds none
 *   MT_EMU_MIB     memory of each (65536)
 *   MT_EMU_ORDER   forward, reverse, or a number: the seed of random orders (forward)
 *   MT_EMU_PACE    what a kernel, a copy or a product takes by the device's clock, ns (0: what it
 *                  takes the emulator); the host finds it over no earlier
 *   MT_EMU_SLOW    "1 3.5": on GPU 1 it takes 3.5 times as long
 *
 * Also what the runtime says of itself: its limits and its words. */
#include "emulation/machine.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <chrono>

#include <unistd.h>

static size_t taken;

static size_t number_of(const char *name, size_t otherwise)
{
    const char *text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

static int chosen_device;

int64_t emu_device_pace_ns()
{
    static const double pace_ns = double(number_of("MT_EMU_PACE", 0));
    static const char *slow = std::getenv("MT_EMU_SLOW");
    int device = -1;
    double factor = 1.0;
    if (slow == nullptr || std::sscanf(slow, "%d %lf", &device, &factor) != 2 ||
        device != chosen_device) {
        factor = 1.0;
    }
    return int64_t(pace_ns * factor);
}

int64_t emu_host_now_ns()
{
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

bool emu_is_past(int64_t when_ns)
{
    if (emu_device_pace_ns() == 0 || emu_host_now_ns() >= when_ns) {
        return true;
    }
    usleep(20);
    return false;
}

static size_t all_bytes()
{
    static const size_t bytes = number_of("MT_EMU_MIB", 65536) << 20;
    return bytes;
}

bool emu_device_takes(size_t bytes)
{
    if (bytes > all_bytes() - taken) {
        return false;
    }
    taken += bytes;
    return true;
}

void emu_device_gives(size_t bytes)
{
    taken -= bytes;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    const size_t n = number_of("MT_EMU_GPUS", 8);
    if (n == 0) {
        return cudaErrorNoDevice; /* and *count as it was */
    }
    *count = static_cast<int>(n);
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    const char *order = std::getenv("MT_EMU_ORDER");
    if (device < 0 || static_cast<size_t>(device) >= number_of("MT_EMU_GPUS", 8)) {
        return cudaErrorInvalidValue;
    }
    chosen_device = device;
    if (order != nullptr && std::strcmp(order, "reverse") == 0) {
        emu_set_order(EMU_REVERSE, 1);
    } else if (order != nullptr && std::strcmp(order, "forward") != 0) {
        emu_set_order(EMU_RANDOM, number_of("MT_EMU_ORDER", 1));
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    (void)device;
    std::snprintf(properties->name, sizeof(properties->name), "emulated");
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    *total = all_bytes();
    *free = all_bytes() - taken;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *most)
{
    *least = 0;
    *most = -5;
    return cudaSuccess;
}

/* The order of streams is the emulator's in any case. */
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    (void)priority;
    return cudaStreamCreateWithFlags(stream, flags);
}

const char *cudaGetErrorString(cudaError_t error)
{
    const char *text = emu_error_text();
    if (error == cudaErrorLaunchFailure && text != nullptr) {
        return text;
    }
    return error == cudaSuccess ? "no error" : "an error of the emulated device";
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value)
{
    (void)function;
    (void)attribute;
    return value <= EMU_SHARED_BYTES ? cudaSuccess : cudaErrorInvalidValue;
}
