#include "base/ranges.h"

#include "base/status.h"

#if defined(MT_NVTX)
#include <nvtx3/nvToolsExt.h>

void mt_range_push(const char *name)
{
    (void)nvtxRangePushA(name);
}

void mt_range_pop(void)
{
    (void)nvtxRangePop();
}
#else
void mt_range_push(const char *name)
{
    MT_UNUSED(name);
}

void mt_range_pop(void)
{
}
#endif
