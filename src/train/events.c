#include "train/events.h"

#include "base/clock.h"
#include "base/memory.h"
#include "config/config.h"

#include <errno.h>
#include <event.pb-c.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { LENGTH_BYTES = 8, CHECKSUM_BYTES = 4, TAG_BYTES = 512, MAX_DEPTH = 3 };

struct tag {
    char text[TAG_BYTES];
};

struct mt_events {
    FILE *file;
    char path[MT_PATH_BYTES + 128];
    int64_t n_scalar, capacity;
    struct tag *tag;                   /* [capacity], n_scalar of them in the line being written */
    MtEvent__Summary__Value *scalar;   /* the same */
    MtEvent__Summary__Value **pointer; /* the same, as protobuf-c wants them */
    uint8_t *record;
    int64_t record_capacity;
};

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4), a bit at a time: records are a few KiB a step. */
static uint32_t checksum(const uint8_t *data, size_t n)
{
    static const uint32_t polynomial = 0x82F63B78U;
    uint32_t crc = 0xFFFFFFFFU;
    for (size_t i = 0; i < n; ++i) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ (polynomial & (0U - (crc & 1U)));
        }
    }
    return ~crc;
}

/* Rotated and shifted, so that checksums of data that holds checksums mean something. */
static void put_checksum(uint8_t *out, const uint8_t *data, size_t n)
{
    const uint32_t crc = checksum(data, n);
    const uint32_t masked = ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
    memcpy(out, &masked, CHECKSUM_BYTES);
}

static enum mt_status write_record(struct mt_events *events, const MtEvent__Event *event)
{
    const uint64_t n = mt_event__event__get_packed_size(event);
    const size_t n_record = LENGTH_BYTES + CHECKSUM_BYTES + n + CHECKSUM_BYTES;
    MT_TRY(MT_MAKE_ROOM(events->record, 0, &events->record_capacity, (int64_t)n_record,
                        "event record"));
    uint8_t *const message = events->record + LENGTH_BYTES + CHECKSUM_BYTES;
    memcpy(events->record, &n, LENGTH_BYTES);
    put_checksum(events->record + LENGTH_BYTES, events->record, LENGTH_BYTES);
    (void)mt_event__event__pack(event, message);
    put_checksum(message + n, message, n);
    if (fwrite(events->record, 1, n_record, events->file) != n_record ||
        fflush(events->file) != 0) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "cannot write %s: the disk may be full; expected space for one record a "
                       "step; free some and start again: the last checkpoint is kept",
                       events->path);
    }
    return MT_OK;
}

/* All lists grow together, so that a line like the one before it needs no memory. */
static enum mt_status grow(struct mt_events *events)
{
    const int64_t n = events->n_scalar;
    int64_t tags = events->capacity;
    int64_t pointers = events->capacity;
    MT_TRY(MT_MAKE_ROOM(events->tag, n, &tags, 1, "event tags"));
    MT_TRY(mt_memory_make_room((int64_t)sizeof(void *), n, 1, "events", &pointers,
                               (void **)&events->pointer));
    return MT_MAKE_ROOM(events->scalar, n, &events->capacity, 1, "events");
}

/* A number as a scalar; anything else is none. */
static enum mt_status add_number(struct mt_events *events, const char *tag, const json_t *value)
{
    if (!json_is_number(value)) {
        return MT_OK;
    }
    MT_TRY(events->n_scalar == events->capacity ? grow(events) : MT_OK);
    MtEvent__Summary__Value *scalar = &events->scalar[events->n_scalar];
    (void)snprintf(events->tag[events->n_scalar++].text, TAG_BYTES, "%s", tag);
    mt_event__summary__value__init(scalar);
    scalar->value_case = MT_EVENT__SUMMARY__VALUE__VALUE_SIMPLE_VALUE;
    scalar->simple_value = (float)json_number_value(value);
    return MT_OK;
}

/* "prefix/key"; keys are names of phases, sets and sources, which have at most MT_NAME_BYTES. */
static void join(char tag[TAG_BYTES], const char *prefix, const char *key)
{
    const int n = snprintf(tag, TAG_BYTES, "%s%s%s", prefix, prefix[0] == '\0' ? "" : "/", key);
    MT_ASSERT(n > 0 && n < TAG_BYTES);
}

/* The numbers of a list; what lists of objects say (decisions of a policy) is no curve. */
static enum mt_status add_list(struct mt_events *events, const char *tag, const json_t *list)
{
    enum mt_status status = MT_OK;
    char below[TAG_BYTES];
    char number[32];
    for (size_t i = 0; i < json_array_size(list) && status == MT_OK; ++i) {
        (void)snprintf(number, sizeof(number), "%03zu", i);
        join(below, tag, number);
        status = add_number(events, below, json_array_get(list, i));
    }
    return status;
}

/* Numbers of an object, of its lists and of the objects in it, as deep as metrics go. */
static enum mt_status add_object(struct mt_events *events, const char *prefix, json_t *object,
                                 int depth)
{
    enum mt_status status = MT_OK;
    char tag[TAG_BYTES];
    for (void *at = json_object_iter(object); at != NULL && status == MT_OK;
         at = json_object_iter_next(object, at)) {
        json_t *value = json_object_iter_value(at);
        join(tag, prefix, json_object_iter_key(at));
        if (json_is_object(value) && depth < MAX_DEPTH) {
            status = add_object(events, tag, value, depth + 1);
        } else if (json_is_array(value)) {
            status = add_list(events, tag, value);
        } else if (strcmp(tag, "step") != 0) {
            status = add_number(events, tag, value);
        }
    }
    return status;
}

enum mt_status mt_events_write(struct mt_events *events, int64_t step, json_t *line)
{
    MtEvent__Summary summary = MT_EVENT__SUMMARY__INIT;
    MtEvent__Event event = MT_EVENT__EVENT__INIT;
    if (events == NULL) {
        return MT_OK;
    }
    events->n_scalar = 0;
    MT_TRY(add_object(events, "", line, 0));
    for (int64_t i = 0; i < events->n_scalar; ++i) { /* lists may have moved as they grew */
        events->scalar[i].tag = events->tag[i].text;
        events->pointer[i] = &events->scalar[i];
    }
    summary.n_value = (size_t)events->n_scalar;
    summary.value = events->pointer;
    event.wall_time = mt_clock_epoch_s();
    event.step = step;
    event.what_case = MT_EVENT__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    return write_record(events, &event);
}

/* What the file is, and from which step on it counts. */
static enum mt_status write_head(struct mt_events *events, int64_t step)
{
    char version[] = "brain.Event:2";
    MtEvent__SessionLog start = MT_EVENT__SESSION_LOG__INIT;
    MtEvent__Event event = MT_EVENT__EVENT__INIT;
    event.wall_time = mt_clock_epoch_s();
    event.what_case = MT_EVENT__EVENT__WHAT_FILE_VERSION;
    event.file_version = version;
    MT_TRY(write_record(events, &event));
    if (step == 0) {
        return MT_OK;
    }
    start.status = MT_EVENT__SESSION_LOG__STATUS__START;
    event.step = step + 1;
    event.what_case = MT_EVENT__EVENT__WHAT_SESSION_LOG;
    event.session_log = &start;
    return write_record(events, &event);
}

static enum mt_status open_file(struct mt_events *events, const char *folder)
{
    (void)snprintf(events->path, sizeof(events->path), "%s/events.out.tfevents.%.6f.moetrain",
                   folder, mt_clock_epoch_s());
    if (mkdir(folder, 0777) == 0 || errno == EEXIST) {
        events->file = fopen(events->path, "wb");
    }
    return events->file != NULL
               ? MT_OK
               : MT_FAIL(MT_ERR_RESOURCE,
                         "cannot write %s: %s; expected a writable run directory; choose another "
                         "with --run-dir, or leave run.tensorboard out",
                         events->path, strerror(errno));
}

enum mt_status mt_events_open(const char *folder, int64_t step, struct mt_events **out)
{
    struct mt_events *events = NULL;
    *out = NULL;
    MT_TRY(MT_ALLOCATE(events, 1, "event file"));
    enum mt_status status = open_file(events, folder);
    status = status == MT_OK ? write_head(events, step) : status;
    if (status != MT_OK) {
        mt_events_close(events);
        return status;
    }
    *out = events;
    return MT_OK;
}

void mt_events_close(struct mt_events *events)
{
    if (events == NULL) {
        return;
    }
    if (events->file != NULL) {
        (void)fclose(events->file);
    }
    mt_memory_free(events->tag);
    mt_memory_free(events->scalar);
    mt_memory_free(events->pointer);
    mt_memory_free(events->record);
    mt_memory_free(events);
}
