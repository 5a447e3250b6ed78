#include "device/memory.h"

#include "base/clock.h"
#include "base/size.h"
#include "base/watchdog.h"
#include "device/module.h"
#include "device/timeline.h"

#include <string.h>

/* NULL: the host itself. */
static const struct mt_device_table *table_of(const struct mt_device *device)
{
    return device->module == NULL ? NULL : device->module->device;
}

bool mt_device_is_host(const struct mt_device *device)
{
    return table_of(device) == NULL;
}

static enum mt_status allocate(struct mt_device *device, int64_t n_bytes, const char *what,
                               bool is_zeroed, void **out)
{
    const struct mt_device_table *table = table_of(device);
    if (table == NULL) {
        return mt_memory_allocate(n_bytes, what, out);
    }
    MT_TRY(table->allocate(device, n_bytes, what, out));
    if (is_zeroed && n_bytes > 0) {
        table->fill_zero(device, *out, n_bytes);
    }
    return MT_OK;
}

enum mt_status mt_device_allocate(struct mt_device *device, int64_t n_bytes, const char *what,
                                  void **out)
{
    return allocate(device, n_bytes, what, true, out);
}

void mt_device_free(struct mt_device *device, void *memory)
{
    if (memory == NULL) {
        return;
    }
    if (mt_device_is_host(device)) {
        mt_memory_free(memory);
    } else {
        table_of(device)->free(device, memory);
    }
}

enum mt_status mt_device_allocate_items(struct mt_device *device, int64_t item_bytes, int64_t count,
                                        const char *what, void **out)
{
    int64_t n_bytes = 0;
    if (mt_device_is_host(device)) {
        return mt_memory_allocate_items(item_bytes, count, what, out);
    }
    if (!mt_size_multiply(item_bytes, count, &n_bytes)) {
        return MT_FAIL(MT_ERR_RESOURCE,
                       "%s: %lld items of %lld bytes exceed 63 bits; expected what a GPU can hold; "
                       "lower the sizes in [model], [moe] and train.micro_batch_size",
                       what, (long long)count, (long long)item_bytes);
    }
    return mt_device_allocate(device, n_bytes, what, out);
}

enum mt_status mt_device_arena_init(struct mt_device *device, struct mt_arena *arena,
                                    int64_t capacity_bytes, const char *what)
{
    void *base = NULL;
    if (mt_device_is_host(device)) {
        return mt_arena_init(arena, capacity_bytes, what);
    }
    MT_TRY(allocate(device, capacity_bytes, what, false, &base));
    *arena = (struct mt_arena){.base = base, .capacity_bytes = capacity_bytes};
    return MT_OK;
}

void mt_device_arena_clear(struct mt_device *device, struct mt_arena *arena)
{
    if (mt_device_is_host(device)) {
        mt_arena_clear(arena);
        return;
    }
    mt_device_free(device, arena->base);
    memset(arena, 0, sizeof(*arena));
}

enum mt_status mt_device_reserve(struct mt_device *device, int64_t n, int64_t width)
{
    return mt_device_is_host(device) ? MT_OK : table_of(device)->reserve(device, n, width);
}

typedef void (*copy_fn)(struct mt_device *, void *, const void *, int64_t);

static void copy_by(struct mt_device *device, copy_fn copy, void *to, const void *from,
                    int64_t n_bytes)
{
    MT_ASSERT(n_bytes >= 0);
    if (to != from && n_bytes > 0) {
        mt_timeline_operation(device, MT_WORK_OTHER);
        copy(device, to, from, n_bytes);
    }
}

static void copy_on_host(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    MT_UNUSED(device);
    memcpy(to, from, (size_t)n_bytes);
}

void mt_device_upload(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    const struct mt_device_table *table = table_of(device);
    copy_by(device, table == NULL ? copy_on_host : table->upload, to, from, n_bytes);
}

void mt_device_download(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    const struct mt_device_table *table = table_of(device);
    copy_by(device, table == NULL ? copy_on_host : table->download, to, from, n_bytes);
}

void *mt_device_room(const struct mt_device *device, void *memory, void *room)
{
    return mt_device_is_host(device) ? memory : room;
}

const void *mt_device_lend(struct mt_device *device, const void *from, int64_t n_bytes)
{
    const struct mt_device_table *table = table_of(device);
    return table == NULL || from == NULL || n_bytes == 0 ? from
                                                         : table->lend(device, from, n_bytes);
}

void mt_device_copy(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    const struct mt_device_table *table = table_of(device);
    copy_by(device, table == NULL ? copy_on_host : table->copy, to, from, n_bytes);
}

void mt_device_fill_zero(struct mt_device *device, void *memory, int64_t n_bytes)
{
    MT_ASSERT(n_bytes >= 0);
    if (mt_device_is_host(device)) {
        memset(memory, 0, (size_t)n_bytes);
    } else if (n_bytes > 0) {
        mt_timeline_operation(device, MT_WORK_OTHER);
        table_of(device)->fill_zero(device, memory, n_bytes);
    }
}

/* Looks until everything is over: *least_ns: it was not then, *most_ns: it was. */
static void look(const struct mt_device *device, int64_t *least_ns, int64_t *most_ns)
{
    int64_t now_ns = *least_ns;
    while (!table_of(device)->is_over(device)) {
        *least_ns = now_ns;
        if (device->idle != NULL) {
            (void)device->idle(device->idle_context); /* notices when a peer is gone */
        }
        now_ns = mt_clock_ns();
    }
    *most_ns = mt_clock_ns();
}

enum mt_status mt_device_wait(struct mt_device *device)
{
    int64_t least_ns = 0;
    int64_t most_ns = 0;
    if (mt_device_is_host(device)) {
        return MT_OK;
    }
    ++device->n_wait;
    least_ns = mt_clock_ns();
    mt_timeline_end(device);
    mt_job_watch_begin("the GPU's work", 0); /* a collective in it may never end */
    look(device, &least_ns, &most_ns);
    const enum mt_status status = table_of(device)->wait(device);
    mt_job_watch_end();
    MT_TRY(status);
    mt_timeline_collect(device, least_ns, most_ns);
    return MT_OK;
}

void mt_device_fetch_begin(struct mt_device *device)
{
    if (!mt_device_is_host(device)) {
        table_of(device)->fetch_begin(device);
    }
}

void mt_device_fetch(struct mt_device *device, void *to, const void *from, int64_t n_bytes)
{
    const struct mt_device_table *table = table_of(device);
    copy_by(device, table == NULL ? copy_on_host : table->fetch, to, from, n_bytes);
}

enum mt_status mt_device_fetch_wait(struct mt_device *device)
{
    if (mt_device_is_host(device)) {
        return MT_OK;
    }
    ++device->n_wait;
    mt_timeline_break(device); /* what the host enqueues when it knows may come late */
    mt_job_watch_begin("what the GPU tells", 0);
    const enum mt_status status = table_of(device)->fetch_wait(device);
    mt_job_watch_end();
    return status;
}

void mt_device_aside_begin(struct mt_device *device)
{
    if (!mt_device_is_host(device)) {
        mt_timeline_break(device);
        table_of(device)->aside_begin(device);
    }
}

void mt_device_aside_end(struct mt_device *device)
{
    if (!mt_device_is_host(device)) {
        mt_timeline_break(device);
        table_of(device)->aside_end(device);
    }
}

void mt_device_aside_join(struct mt_device *device)
{
    if (!mt_device_is_host(device)) {
        table_of(device)->aside_join(device);
    }
}

int64_t mt_device_n_wait(const struct mt_device *device)
{
    return device->n_wait;
}

int64_t mt_device_available_bytes(const struct mt_device *device)
{
    return mt_device_is_host(device) ? mt_memory_available_bytes()
                                     : table_of(device)->available_bytes(device);
}
