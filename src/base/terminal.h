/* Whether a person looks at an output of this run, and through how wide a window. */
#ifndef MT_BASE_TERMINAL_H
#define MT_BASE_TERMINAL_H

/* Columns of the terminal that shows what is written to descriptor `fd` (1 or 2); 0 when none does
 * or it cannot clear a line. mpirun gives its ranks a pseudo-terminal as standard output even when
 * its own goes into a file, so under mpirun its descriptor is asked, not ours. */
int mt_terminal_columns(int fd);

#endif
