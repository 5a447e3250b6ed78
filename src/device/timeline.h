/* When a device that is not the host did its work, by its own clock: spans of the recorder's track
 * `device` (base/record.h), one for what is enqueued in a row at one place (phase, layer,
 * micro-batch). Marks go into the device's order of work with the work, and are read after the next
 * wait, when all are over: so nothing waits for them. The host's clock at the end of that wait is
 * the last mark's time, to the few microseconds that noticing the end takes. */
#ifndef MT_DEVICE_TIMELINE_H
#define MT_DEVICE_TIMELINE_H

#include "device/device.h"

enum mt_status mt_timeline_open(struct mt_device *device);
void mt_timeline_close(struct mt_device *device);

/* An operation is about to be enqueued. */
void mt_timeline_operation(struct mt_device *device);
/* What comes next goes to another stream. Spans of both are one row in the order of the calls: what
 * runs beside an earlier one counts from that one's end. */
void mt_timeline_break(struct mt_device *device);
/* Around a wait for the device: nothing more comes; everything is over. */
void mt_timeline_end(struct mt_device *device);
void mt_timeline_collect(struct mt_device *device);

#endif
