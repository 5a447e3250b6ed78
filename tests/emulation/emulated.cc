/* What the staging of tests asks of an emulated device. */
#include "emulation/emulator.h"
#include "emulation/staging.h"

void staging_set_order(int n_thread)
{
    emu_set_order(static_cast<enum emu_order>((n_thread - 1) % 3), 4711);
}

const char *staging_error(void)
{
    return emu_take_error();
}

/* New memory is unknown to the emulator as it is. */
void staging_forget(void *, size_t)
{
}

bool staging_is_left_out(const char *)
{
    return false;
}
