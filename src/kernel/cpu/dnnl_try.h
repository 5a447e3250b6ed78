/* Calls of oneDNN within functions that return enum mt_status. */
#ifndef MT_KERNEL_CPU_DNNL_TRY_H
#define MT_KERNEL_CPU_DNNL_TRY_H

#include "base/status.h"

#include <dnnl.h>
#include <dnnl_debug.h>

#define MT_TRY_DNNL(call)                                                                       \
    do {                                                                                        \
        const dnnl_status_t dnnl_status_ = (call);                                              \
        if (dnnl_status_ != dnnl_success) {                                                     \
            return MT_FAIL(MT_ERR_INTERNAL,                                                     \
                           "oneDNN refused " #call ": %s; expected success; check the library", \
                           dnnl_status2str(dnnl_status_));                                      \
        }                                                                                       \
    } while (0)

#endif
