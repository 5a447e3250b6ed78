/* Standard output for progress: it never makes a run wait.
 *
 * A paused terminal (Ctrl-S), a pager, or an mpirun that is ending no longer take what is written;
 * a rank that waits for them makes all others wait in their next collective. So a line that nobody
 * takes within a moment is dropped here; run.log has every line. */
#ifndef MT_BASE_OUTLET_H
#define MT_BASE_OUTLET_H

#include <stddef.h>

/* Before the first write; again after standard output was replaced. */
void mt_outlet_open(void);

/* text [bytes], written whole, in part or not at all. */
void mt_outlet_write(const char *text, size_t bytes);

#endif
