/* TensorBoard's event files, beside metrics.jsonl and with the same numbers: of a line every number
 * is a scalar, those in objects and lists by path ("phase_s/attention").
 *
 * A file is made of records: length, checksum of it, message, checksum of it. Each process writes a
 * file of its own, which begins by declaring void what earlier ones have of later steps. */
#ifndef MT_TRAIN_EVENTS_H
#define MT_TRAIN_EVENTS_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

struct mt_events;

/* Makes the folder and a file in it; step: the last one done before. MT_ERR_RESOURCE. */
enum mt_status mt_events_open(const char *folder, int64_t step, struct mt_events **out);
/* A line of metrics, with its step. NULL events: nothing is written. */
enum mt_status mt_events_write(struct mt_events *events, int64_t step, json_t *line);
void mt_events_close(struct mt_events *events); /* NULL allowed */

#endif
