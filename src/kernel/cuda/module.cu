/* The one symbol of libmoetrain_cuda.so, and the program's functions that its other files call. */
#include "kernel/cuda/device.h"

#include <stdarg.h>
#include <stdio.h>

static const struct mt_module_host *program;

extern "C" {

enum mt_status mt_error_set(enum mt_status code, const char *file, int line, const char *format,
                            ...)
{
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return program->error_set(code, file, line, "%s", text);
}

void mt_assert_failed(const char *condition, const char *file, int line, const char *function)
{
    program->assert_failed(condition, file, line, function);
}

#ifdef MT_HAS_NCCL
extern const struct mt_nccl_table mt_nccl_functions; /* comm/transport_nccl.h */
static const struct mt_nccl_table *const nccl_table = &mt_nccl_functions;
#else
static const struct mt_nccl_table *const nccl_table = NULL;
#endif

__attribute__((visibility("default"))) const struct mt_module *
mt_module_entry(const struct mt_module_host *host);

const struct mt_module *mt_module_entry(const struct mt_module_host *host)
{
    static const struct mt_module module = {
        MT_MODULE_VERSION,     MT_VERSION, (int64_t)sizeof(struct mt_device), &mt_cuda_device_table,
        &mt_cuda_kernel_table, nccl_table};
    program = host;
    return &module;
}
}
