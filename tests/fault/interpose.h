/* Faults in the calls that change files: a layer between a program and libc.
 *
 * interpose.c replaces open, write, fsync, rename and the like, in a program that links it or under
 * LD_PRELOAD. Calls on paths below a prefix are counted, rank by rank; the call whose turn has come
 * kills the process, fails, or is cut short; and all of them can be recorded with their data, so
 * that a test can play any part of them again (crash_states.h). A listener in the process itself
 * hears of all of them, and of reads, which are left alone else.
 *
 * The orders are in a struct mt_fault, in a file that ranks and the one who gives orders map
 * together: $MT_FAULT names it (control.py writes it), or a test maps it by mt_fault_open. */
#ifndef MT_TEST_FAULT_INTERPOSE_H
#define MT_TEST_FAULT_INTERPOSE_H

#include <stdatomic.h>
#include <stdint.h>

enum { MT_FAULT_MAX_RANKS = 64, MT_FAULT_PATH_BYTES = 1024 };

enum mt_fault_call {
    MT_CALL_OPEN,
    MT_CALL_WRITE, /* write, pwrite, writev, pwritev */
    MT_CALL_TRUNCATE,
    MT_CALL_ALLOCATE,
    MT_CALL_SYNC, /* of a file or of a folder */
    MT_CALL_CLOSE,
    MT_CALL_RENAME,
    MT_CALL_LINK,
    MT_CALL_REMOVE, /* unlink, rmdir, remove */
    MT_CALL_MKDIR,
    MT_CALL_READ, /* only listeners hear of it */
    MT_N_CALL
};

/* Positive actions are the errno that the call fails with. */
enum mt_fault_action {
    MT_FAULT_KILL = -1,    /* SIGKILL instead of the call */
    MT_FAULT_TEAR = -2,    /* half of a write, then SIGKILL; other calls: as KILL */
    MT_FAULT_LIE = -4,     /* a listener's: the first byte of a write is another one on the disk */
    MT_FAULT_SHORT = -3,   /* half of a write, no error; other calls: nothing */
    MT_FAULT_SIGNAL = -100 /* minus a signal's number: the process gets it, the call is made */
};

/* control.py knows this layout. */
struct mt_fault {
    _Atomic int64_t at;       /* the first call that suffers, from 1; 0: none */
    _Atomic int64_t n_fault;  /* calls from there on that suffer; 0: none */
    _Atomic int64_t action;   /* enum mt_fault_action, or an errno */
    _Atomic int64_t rank;     /* that suffers; -1: all */
    _Atomic int64_t sequence; /* of recorded calls, over all ranks */
    _Atomic int64_t records;  /* not 0: calls are recorded in <control file>.<rank> */
    _Atomic int64_t n_call[MT_FAULT_MAX_RANKS]; /* seen since the last order */
    _Atomic int64_t n_hit;                      /* that suffered since then */
    char prefix[MT_FAULT_PATH_BYTES];           /* absolute; "": nothing is counted */
};

/* One call in a record; behind it path, path_to and data, without terminators. */
struct mt_fault_record {
    int64_t sequence;
    int64_t rank;
    int64_t call;      /* enum mt_fault_call */
    int64_t offset;    /* of a write; the size of a truncation */
    int64_t creates;   /* an open that makes the file */
    int64_t is_folder; /* a sync of a folder, a removal of one */
    int64_t path_bytes, path_to_bytes, n_byte;
};

/* Maps `file`, which is made if it is missing, as rank `rank`. NULL when that fails. The same file
 * must have been mapped by all ranks before orders are given. */
struct mt_fault *mt_fault_open(const char *file, int rank);

/* Somebody in this process who hears of every call before it is made, with its absolute path ("":
 * none), in the thread that makes it. It returns 0, an errno with which the call fails, or
 * MT_FAULT_LIE. NULL: nobody. */
typedef int (*mt_fault_listener_fn)(enum mt_fault_call call, const char *path);
void mt_fault_listen(mt_fault_listener_fn listener);

/* Orders, valid for all processes that map the file; counts begin again. */
void mt_fault_order(struct mt_fault *fault, int64_t rank, int64_t at, int64_t n_fault,
                    int64_t action);
void mt_fault_watch(struct mt_fault *fault, const char *prefix);

#endif
