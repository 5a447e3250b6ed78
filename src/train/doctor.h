/* `moetrain doctor`: every rank's machine, links and libraries, before a long run.
 *
 *   doctor_facts.c    what one rank measures and knows of itself
 *   doctor_rounds.c   who measures a link with whom, and when       pure
 *   doctor_links.c    carries the rounds out
 *   doctor_judge.c    which rank, link or library is odd            pure
 *   doctor_report.c   the table, or one JSON object
 *
 * All ranks hold all facts and judge alike; rank 0 prints. */
#ifndef MT_TRAIN_DOCTOR_H
#define MT_TRAIN_DOCTOR_H

#include "comm/comm.h"
#include "config/config.h"
#include "device/machine.h"
#include "placement/cluster.h"
#include "train/session.h"

#include <stdio.h>

/* ---- what is known of a rank ---- */

/* Texts that are to be the same on all ranks. */
enum mt_doctor_word {
    MT_WORD_REVISION,
    MT_WORD_MPI,
    MT_WORD_ONEDNN,
    MT_WORD_HDF5,
    MT_WORD_HWLOC,
    MT_WORD_ISA,
    MT_WORD_OMP_NUM_THREADS, /* from here on variables of the environment; "": not set */
    MT_WORD_OPENBLAS_CORETYPE,
    MT_WORD_ONEDNN_MAX_CPU_ISA,
    MT_WORD_MT_ISA,
    MT_WORD_SINGLE_COPY,
    MT_WORD_HUGE_PAGES, /* always, madvise or never; "": the system does not say */
    MT_N_DOCTOR_WORD
};
enum { MT_N_DOCTOR_VERSION = MT_WORD_ISA, MT_DOCTOR_WORD_BYTES = 48, MT_DOCTOR_HOST_BYTES = 64 };
/* "MPI", "OMP_NUM_THREADS", .. */
const char *mt_doctor_word_name(enum mt_doctor_word word);

/* Plain data of 8-byte units, so that ranks exchange it as an array. */
struct mt_doctor_facts {
    char host[MT_DOCTOR_HOST_BYTES];
    char word[MT_N_DOCTOR_WORD][MT_DOCTOR_WORD_BYTES];
    int64_t machine;          /* lowest rank on the same machine */
    double gflops;            /* matrix products in the run's type, all threads */
    double gflops_float32;    /* the same in float32, where the run's type is another; else 0 */
    double gflops_again;      /* as gflops, after everything else */
    double peak_gflops;       /* multiply-adds in registers, all threads */
    double cpu_share;         /* of a thread's time its core was its own, in products; 0: paced */
    double copy_gbytes_per_s; /* of one core while every rank copies; 0: not measured */
    int64_t wall_ns;          /* wall clock less that of rank 0 */
    int64_t core_first, core_last, n_core; /* granted, as struct mt_core_set */
    int64_t quota;                         /* CPUs of time for the machine; 0: no limit */
    int64_t n_thread;
    int64_t is_alone;        /* no other rank computes on its cores */
    int64_t memory_bytes;    /* available on its machine */
    int64_t disk_bytes;      /* free where the run directory is or will be; -1: unknown */
    int64_t is_writable;     /* the run directory, or the folder that it will be made in */
    int64_t can_single_copy; /* the kernel lets ranks of a machine read from each other */
    int64_t n_package, n_numa, n_machine_core, n_gpu, n_nic; /* as struct mt_machine */
    uint64_t numa_mask;                                      /* memory nodes of its cores */
    int64_t gpu_numa; /* of the GPU with its index on the machine; -1: none, or all alike */
};
enum { MT_N_DOCTOR_FACT = (int)(sizeof(struct mt_doctor_facts) / sizeof(int64_t)) };

/* What the run of a configuration will want. */
struct mt_doctor_needs {
    bool is_known;
    int64_t rank_bytes;       /* as `moetrain plan` counts, with the program */
    int64_t checkpoint_bytes; /* one checkpoint; 0: none are saved */
    int64_t n_checkpoint;     /* kept, and the one being written */
    bool is_paced;            /* rates are the configuration's, not the cores' */
    bool is_bfloat16;
    const char *run_dir;
};

/* ---- links ---- */

/* In a round disjoint pairs measure together, as they would in an exchange. */
struct mt_doctor_round {
    enum mt_level level; /* NODE, NETWORK */
    int turn;            /* of the round robin of local ranks, or of nodes */
    int shift;           /* NETWORK: which ranks of a larger node meet those of a smaller one */
};
/* Rounds until every pair of a node, and every pair of nodes on every rank, has met; at most
 * max_round are filled in, spread evenly over both levels. */
int mt_doctor_rounds(const struct mt_topology *topology, struct mt_doctor_round *round,
                     int max_round);
/* Who `rank` meets; -1: nobody. Mutual. */
int mt_doctor_partner(const struct mt_topology *topology, const struct mt_doctor_round *round,
                      int rank);

struct mt_doctor_links {
    int n_round;
    struct mt_doctor_round *round; /* [n_round] */
    int64_t *time_ps;              /* [R, n_round, 2]: a message of 8 bytes, of 256 KiB; 0: none */
};

/* ---- judging ---- */

struct mt_doctor_exam {
    const struct mt_topology *topology;
    const struct mt_doctor_facts *facts; /* [R] */
    const struct mt_doctor_links *links;
    const struct mt_doctor_needs *needs;
    double *scratch; /* [R + n_round] for medians */
    int *odd;        /* [3 R] for lists of ranks */
};

enum { MT_DOCTOR_MAX_FINDINGS = 64, MT_DOCTOR_TEXT_BYTES = 512, MT_DOCTOR_MAX_NAMED = 8 };
struct mt_doctor_finding {
    const char *what; /* "products", "link", "library", ..: a word for programs */
    int n_rank;       /* odd ranks; the first of them are named */
    int rank[MT_DOCTOR_MAX_NAMED];
    char text[MT_DOCTOR_TEXT_BYTES]; /* what was measured; what was expected; what to do */
};
struct mt_doctor_findings {
    int n; /* found; those beyond MT_DOCTOR_MAX_FINDINGS are counted, not kept */
    struct mt_doctor_finding finding[MT_DOCTOR_MAX_FINDINGS];
};

/* Pure; every rank finds the same, in the same order. */
void mt_doctor_judge(const struct mt_doctor_exam *exam, struct mt_doctor_findings *findings);

/* Links of one level: number measured, the value that a healthy one has (of rates and latencies,
 * the median over ranks of each rank's median), and the worst pair. */
struct mt_doctor_level {
    int n_link, n_pair; /* measured; that meet in the rounds */
    double gbytes_per_s, latency_us;
    double worst_gbytes_per_s, worst_latency_us;
    int slowest[2], latest[2];
};
void mt_doctor_level(const struct mt_doctor_exam *exam, enum mt_level level,
                     struct mt_doctor_level *out);
/* The round has a link that is odd: worth another measurement. level [NETWORK + 1] */
bool mt_doctor_round_is_odd(const struct mt_doctor_exam *exam, const struct mt_doctor_level *level,
                            int round);

/* ---- within the doctor ---- */

/* What judges share. Adds one, naming rank [n_rank]; returns its text, to be filled. */
struct mt_doctor_finding *mt_doctor_add(struct mt_doctor_findings *findings, const char *what,
                                        const int *rank, int n_rank);
/* "rank 3 (node17)", "ranks 1, 2 and 5". text [bytes] */
void mt_doctor_name(const struct mt_doctor_exam *exam, const struct mt_doctor_finding *finding,
                    char *text, size_t bytes);
/* The better of two middle values, so that of two ranks the worse one is odd. Sorts value [n >= 1].
 */
double mt_doctor_median(double *value, int n, bool is_rate);
void mt_doctor_judge_links(const struct mt_doctor_exam *exam, struct mt_doctor_findings *findings);
void mt_doctor_judge_host(const struct mt_doctor_exam *exam, struct mt_doctor_findings *findings);

/* Collective: fills exam->links->time_ps of the rounds given; of exam the topology, scratch and
 * whose cores are shared are needed, too. Rounds that would begin after `deadline_ns` of
 * mt_clock_ns are left out, on all ranks alike. */
enum mt_status mt_doctor_measure_links(struct mt_comm *comm, const struct mt_doctor_exam *exam,
                                       int64_t deadline_ns);

struct mt_doctor_options {
    const struct mt_config *config;
    bool has_config; /* of the user, not the default one */
    bool as_json;
    const char *costs_folder; /* NULL, or where to write costs.json */
    char version[MT_N_DOCTOR_VERSION][MT_DOCTOR_WORD_BYTES]; /* of libraries */
};

/* What rank 0 prints. */
struct mt_doctor_report {
    const struct mt_doctor_exam *exam;
    const struct mt_doctor_findings *findings;
    const struct mt_machine *machine; /* of rank 0 */
    const struct mt_doctor_options *options;
    double time_s;
};
void mt_doctor_table(const struct mt_doctor_report *report, FILE *out);
void mt_doctor_json(const struct mt_doctor_report *report, FILE *out);

/* Collective: this rank's facts, without the second look at products, and its machine. `share`: as
 * the device was initialised with. */
enum mt_status mt_doctor_examine(struct mt_session *session,
                                 const struct mt_doctor_options *options,
                                 const struct mt_core_share *share, struct mt_machine *machine,
                                 struct mt_doctor_facts *facts);
/* Collective: the second look, after everything else. */
enum mt_status mt_doctor_examine_again(struct mt_session *session, struct mt_doctor_facts *facts);

/* Collective, agreed. MT_ERR_RESOURCE when something is odd. */
enum mt_status mt_doctor(const struct mt_doctor_options *options, FILE *out);

#endif
