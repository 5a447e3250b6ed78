#include "device/module.h"
#include "kernel/table.h"

const struct mt_kernel_table *mt_kernel_table(const struct mt_device *device)
{
    MT_ASSERT(device != NULL);
    return device->module == NULL ? &mt_kernel_cpu : device->module->kernel;
}

const struct mt_kernel_table *mt_kernel_begin(struct mt_device *device, double flops, double bytes)
{
    return mt_kernel_begin_as(device, MT_WORK_OTHER, flops, bytes);
}

const struct mt_kernel_table *mt_kernel_begin_as(struct mt_device *device, enum mt_work work,
                                                 double flops, double bytes)
{
    const struct mt_kernel_table *table = mt_kernel_table(device);
    mt_device_operation_begin(device, work, flops, bytes);
    return table;
}
