#include "base/device_time.h"

#include "base/record.h"
#include "base/size.h"

/* The host's time between two waits for the device: some 20 pieces in a step of 8 micro-batches.
 * What is beyond counts as if the device had nothing to do. */
enum { MAX_KEPT = 256 };

struct piece {
    enum mt_phase phase;
    int64_t begin_ns, end_ns;
    bool is_wait;
};

static struct {
    void (*ends)(void *context); /* NULL: no device is open */
    void *context;
    bool is_busy; /* the device may have something to do */
    int first, n; /* of kept */
    struct piece kept[MAX_KEPT];
} host;

void mt_device_time_open(void (*ends)(void *context), void *context)
{
    mt_device_time_close();
    host.ends = ends;
    host.context = context;
}

void mt_device_time_close(void)
{
    host.ends = NULL;
    host.is_busy = false;
    host.first = 0;
    host.n = 0;
}

bool mt_device_time_is_on(void)
{
    return host.ends != NULL;
}

void mt_device_time_change_phase(void)
{
    if (host.ends != NULL) {
        host.ends(host.context);
    }
}

static void count(const struct piece *piece)
{
    const int64_t ns = piece->end_ns - piece->begin_ns;
    mt_span_count(piece->phase, -1, ns, piece->is_wait ? ns : 0);
}

/* Counts what the host did before begin_ns, and drops what it did from there to end_ns. */
static void pass(int64_t begin_ns, int64_t end_ns)
{
    while (host.first < host.n && host.kept[host.first].begin_ns < end_ns) {
        struct piece *piece = &host.kept[host.first];
        struct piece before = *piece;
        before.end_ns = mt_min_i64(piece->end_ns, begin_ns);
        if (before.end_ns > before.begin_ns) {
            count(&before);
        }
        if (piece->end_ns > end_ns) {
            piece->begin_ns = end_ns;
            return;
        }
        ++host.first;
    }
}

void mt_device_time_begin(void)
{
    host.is_busy = true;
}

void mt_device_time_add(const struct mt_device_piece *piece)
{
    const int64_t ns = piece->end_ns - piece->begin_ns;
    MT_ASSERT(ns >= 0);
    pass(piece->begin_ns, piece->end_ns);
    mt_span_count(piece->phase, piece->layer, ns, piece->is_wait ? ns : 0);
}

void mt_device_time_settle(void)
{
    pass(INT64_MAX, INT64_MAX);
    host.first = 0;
    host.n = 0;
    host.is_busy = false;
}

static bool extends_last(const struct piece *piece)
{
    const struct piece *last = &host.kept[host.n - 1];
    return host.n > host.first && last->end_ns == piece->begin_ns && last->phase == piece->phase &&
           last->is_wait == piece->is_wait;
}

void mt_device_time_host(enum mt_phase phase, int64_t begin_ns, int64_t end_ns, bool is_wait)
{
    const struct piece piece = {phase, begin_ns, end_ns, is_wait};
    if (!is_wait && !mt_phase_is_of_host(phase)) {
        return;
    }
    if (!host.is_busy || host.n == MAX_KEPT) {
        count(&piece);
    } else if (extends_last(&piece)) {
        host.kept[host.n - 1].end_ns = end_ns;
    } else {
        host.kept[host.n++] = piece;
    }
}
