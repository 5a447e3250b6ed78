#include "config/report.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Longest origin or override that is shown, and what the closing count line needs. */
enum { SHOWN_BYTES = 300, TAIL_BYTES = 80 };

static bool is_before(struct mt_text_place a, struct mt_text_place b)
{
    if (a.layer != b.layer) {
        return a.layer < b.layer;
    }
    return a.line != b.line ? a.line < b.line : a.column < b.column;
}

static void make_printable(char *text)
{
    for (char *c = text; *c != '\0'; c++) {
        const unsigned char code = (unsigned char)*c;
        if (code < 0x20 || code == 0x7F) {
            *c = '?';
        }
    }
}

void mt_report_add(struct mt_report *report, struct mt_text_place place, const char *format, ...)
{
    report->n_found++;
    int at = report->n_kept;
    while (at > 0 && is_before(place, report->mistake[at - 1].place)) {
        at--;
    }
    if (at == MT_MAX_MISTAKES) {
        return;
    }
    if (report->n_kept < MT_MAX_MISTAKES) {
        report->n_kept++;
    }
    memmove(&report->mistake[at + 1], &report->mistake[at],
            (size_t)(report->n_kept - 1 - at) * sizeof(report->mistake[0]));
    struct mt_mistake *mistake = &report->mistake[at];
    mistake->place = place;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(mistake->text, sizeof(mistake->text), format, arguments);
    va_end(arguments);
    make_printable(mistake->text);
}

static void describe_place(const struct mt_report *report, struct mt_text_place place, char *text,
                           size_t bytes)
{
    const char *name = report->origin;
    const char *before = "";
    if (place.layer > 0) {
        name = report->overrides[place.layer - 1];
        before = "--set ";
    }
    const char *cut = strlen(name) > SHOWN_BYTES ? "..." : "";
    if (place.layer > 0 || place.line == 0) {
        (void)snprintf(text, bytes, "%s%.*s%s", before, SHOWN_BYTES, name, cut);
    } else {
        (void)snprintf(text, bytes, "%.*s%s:%d:%d", SHOWN_BYTES, name, cut, place.line,
                       place.column);
    }
    make_printable(text);
}

enum mt_status mt_report_status(const struct mt_report *report)
{
    if (report->n_found == 0) {
        return MT_OK;
    }
    char *text = NULL;
    MT_TRY(MT_ALLOCATE(text, MT_ERROR_TEXT_BYTES, "configuration mistakes"));
    const size_t room = MT_ERROR_TEXT_BYTES - TAIL_BYTES;
    size_t used = 0;
    int n_listed = 0;
    for (int i = 0; i < report->n_kept; i++) {
        char place[SHOWN_BYTES + 64];
        describe_place(report, report->mistake[i].place, place, sizeof(place));
        const int wrote = snprintf(text + used, room - used, "%s%s: %s", i == 0 ? "" : "\n", place,
                                   report->mistake[i].text);
        if (wrote < 0 || (size_t)wrote >= room - used) {
            text[used] = '\0';
            break;
        }
        used += (size_t)wrote;
        n_listed++;
    }
    if (n_listed < report->n_found) {
        (void)snprintf(text + used, MT_ERROR_TEXT_BYTES - used,
                       "\n... and %" PRId64 " more mistakes; correct these first",
                       report->n_found - n_listed);
    }
    const enum mt_status status = MT_FAIL(MT_ERR_CONFIG, "%s", text);
    mt_memory_free(text);
    return status;
}
