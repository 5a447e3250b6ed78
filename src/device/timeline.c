#include "device/timeline.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/record.h"
#include "base/size.h"
#include "device/module.h"

/* Between two waits: a backward of 48 layers has some 400. What is beyond is not timed. */
enum { MAX_SPANS = (MT_DEVICE_MARKS - 1) / 2, LAST_MARK = MT_DEVICE_MARKS - 1 };

struct mt_timeline {
    int n_span;                /* since the last wait; span i lies between marks 2 i and 2 i + 1 */
    bool is_open;              /* more may join the last one */
    int64_t end_ns;            /* of what was collected: the device does one thing at a time */
    int64_t handle[MAX_SPANS]; /* of the recorder */
};

static void mark(struct mt_device *device, int which)
{
    device->module->device->mark(device, which);
}

static int64_t before_last_ns(const struct mt_device *device, int which)
{
    return device->module->device->between_ns(device, which, LAST_MARK);
}

enum mt_status mt_timeline_open(struct mt_device *device)
{
    return MT_ALLOCATE(device->timeline, 1, "timeline of the GPU");
}

void mt_timeline_close(struct mt_device *device)
{
    mt_memory_free(device->timeline);
    device->timeline = NULL;
}

void mt_timeline_break(struct mt_device *device)
{
    struct mt_timeline *t = device->timeline;
    if (t->is_open) {
        mark(device, 2 * t->n_span - 1);
    }
    t->is_open = false;
}

void mt_timeline_operation(struct mt_device *device)
{
    struct mt_timeline *t = device->timeline;
    const enum mt_phase phase = mt_span_phase();
    if (t->is_open && mt_record_device_is_at(t->handle[t->n_span - 1], phase)) {
        return;
    }
    mt_timeline_break(device);
    const bool has_room = phase != MT_N_PHASE && t->n_span < MAX_SPANS;
    const int64_t handle = has_room ? mt_record_device_begin(phase, 0, 0) : -1;
    if (handle >= 0) {
        mark(device, 2 * t->n_span);
        t->handle[t->n_span++] = handle;
        t->is_open = true;
    }
}

void mt_timeline_end(struct mt_device *device)
{
    mt_timeline_break(device);
    if (device->timeline->n_span > 0) {
        mark(device, LAST_MARK);
    }
}

void mt_timeline_collect(struct mt_device *device)
{
    struct mt_timeline *t = device->timeline;
    const int64_t now_ns = mt_clock_ns();
    for (int i = 0; i < t->n_span; i++) {
        const int64_t begin_ns = mt_max_i64(t->end_ns, now_ns - before_last_ns(device, 2 * i));
        t->end_ns = mt_max_i64(begin_ns, now_ns - before_last_ns(device, 2 * i + 1));
        mt_record_device_end(t->handle[i], begin_ns, t->end_ns);
    }
    t->n_span = 0;
}
