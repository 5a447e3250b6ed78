/* When a device that is not the host did its work, by its own clock: what phases, metrics, reports
 * and findings are made of where a GPU computes (base/device_time.h, base/record.h).
 *
 *   main stream    [ops of a phase|  [ops    |  |begin          |end~~~~~~~[ops        | |  wait
 *   marks          0              1  2       3  ready           need       4           5 last
 *   plan's stream                                 --------------------done
 *
 * Operations that are enqueued in a row at one place (phase, layer, micro-batch) are one piece,
 * until the phase ends. A plan of communication has arrived when the main stream has come to its
 * begin, and holds the main stream up from `need`, its end, until `done`. Marks go into the order
 * of the work with the work, none is waited for, and nothing is allocated: all that is known to be
 * over is read after the wait that comes anyway. When all marks are taken work is untimed.
 *
 * The host's clock. The last mark before a wait is found over by looking again and again: it was
 * when a look found so, and was not when the look before began. That interval, and the one before
 * moved on by the device's clock, give or take 100 ppm and 1 us, overlap: the overlap is when the
 * mark was, its middle what is reckoned with. So times are right to half of it (which
 * mt_record_device_error is told): half of the shortest look of late, a few us; opening begins with
 * the shortest of 20. Where the two do not overlap (a machine that was asleep) the new one is
 * taken. What a piece lasts has the resolution of events, 0.5 us. */
#ifndef MT_DEVICE_TIMELINE_H
#define MT_DEVICE_TIMELINE_H

#include "device/device.h"

enum mt_status mt_timeline_open(struct mt_device *device);
void mt_timeline_close(struct mt_device *device);

/* An operation is about to be enqueued; nothing happens where there is no timeline. */
void mt_timeline_operation(struct mt_device *device, enum mt_work work);
/* What comes next goes to another stream, or comes after a wait of the host. Pieces of both streams
 * are one row in the order of the calls: what runs beside an earlier one counts from that one's
 * end. */
void mt_timeline_break(struct mt_device *device);

/* A plan that the device runs beside its operations, begun here; `record`: of the recorder. *over:
 * the plan's own mark, an event for whoever enqueues the plan to record behind it, and to have what
 * comes after the plan wait for. -1: it is not timed. */
int mt_timeline_plan_begin(struct mt_device *device, int64_t record, void **over);
/* What is enqueued from now on comes after the plan. */
void mt_timeline_plan_end(struct mt_device *device, int plan);

/* Around a wait for the device: nothing more comes; everything is over, which was found between
 * two readings of the clock. */
void mt_timeline_end(struct mt_device *device);
void mt_timeline_collect(struct mt_device *device, int64_t least_ns, int64_t most_ns);

#endif
