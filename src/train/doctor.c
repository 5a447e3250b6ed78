/* The doctor's round: facts of all ranks, links, judgement, report. */
#include "train/doctor.h"

#include "base/clock.h"
#include "base/job.h"
#include "base/memory.h"
#include "base/size.h"
#include "train/costs.h"

#include <string.h>

/* More rounds than this take too long and too much memory: beyond 255 ranks a node, or nodes, each
 * meets as many of the others, evenly spread. */
enum { MAX_ROUND = 510 };
/* For all links together; 63 rounds of 64 ranks on 2 busy cores take about as long (2026-11). */
static const int64_t LINKS_NS = 10000000000;
static const double NS_PER_S = 1e9;

/* All that is held. */
struct doctor {
    const struct mt_doctor_options *options;
    struct mt_session session; /* without a store and a model */
    struct mt_session_place place;
    struct mt_machine machine;
    struct mt_doctor_facts mine;
    struct mt_doctor_facts *facts; /* [R] */
    struct mt_doctor_links links;
    struct mt_doctor_needs needs;
    struct mt_doctor_exam exam;
    struct mt_doctor_findings findings;
    int64_t start_ns;
};

static enum mt_status open_session(struct doctor *d)
{
    const struct mt_config *config = d->options->config;
    struct mt_session *session = &d->session;
    session->config = config;
    MT_TRY(mt_job_agree(
        mt_comm_init_mpi(&session->comm, mt_job_world(), (int)config->comm.ranks_per_node)));
    MT_TRY(mt_job_agree(mt_session_place(&session->comm, &d->place)));
    MT_TRY(mt_job_agree(
        mt_device_init(&session->device, config, session->comm.rank, &d->place.share)));
    MT_TRY(mt_session_open_gpu(session, &d->place));
    mt_device_close(&session->device, ""); /* it is there; what is examined is the host */
    return MT_OK;
}

static enum mt_status allocate(struct doctor *d)
{
    struct mt_comm *comm = &d->session.comm;
    const int n_rank = comm->topology.n_rank;
    MT_TRY(MT_ALLOCATE(d->links.round, MAX_ROUND, "links"));
    d->links.n_round = mt_doctor_rounds(&comm->topology, d->links.round, MAX_ROUND);
    const int64_t n_round = d->links.n_round;
    MT_TRY(MT_ALLOCATE(d->links.time_ps, 2 * (int64_t)n_rank * n_round, "links"));
    MT_TRY(MT_ALLOCATE(d->facts, n_rank, "facts of ranks"));
    MT_TRY(MT_ALLOCATE(d->exam.scratch, n_rank + n_round, "medians"));
    MT_TRY(MT_ALLOCATE(d->exam.odd, 3 * (int64_t)n_rank, "odd ranks"));
    return mt_comm_reserve_small(comm, mt_max_i64(MT_N_DOCTOR_FACT, 2 * n_round));
}

static int64_t micro_batch(const struct mt_config *config, int n_rank)
{
    return mt_min_i64(config->train.micro_batch_size,
                      mt_ceil_div(config->train.global_batch_size, n_rank));
}

/* A checkpoint has every parameter with both moments, in float32. */
static enum mt_status find_needs(struct doctor *d)
{
    enum { PARAMETER_BYTES = 3 * sizeof(float) };
    const struct mt_config *config = d->options->config;
    const int n_rank = d->session.comm.topology.n_rank;
    struct mt_memory_estimate estimate;
    struct mt_model_size size;
    d->needs = (struct mt_doctor_needs){
        .is_known = d->options->has_config,
        .is_paced = config->device.pace_gflops > 0.0 || config->device.pace_gbytes_per_s > 0.0 ||
                    config->device.n_slowdown > 0,
        .is_bfloat16 = config->device.dtype == MT_BFLOAT16,
        .run_dir = config->run.dir,
        .n_checkpoint = config->checkpoint.keep + 1 + (config->checkpoint.sparse_saves > 0 ? 2 : 0),
    };
    if (!d->needs.is_known) {
        return MT_OK;
    }
    MT_TRY(mt_session_estimate(config, n_rank, true, micro_batch(config, n_rank), &estimate));
    mt_model_size(config, &size);
    d->needs.rank_bytes = estimate.total + estimate.program;
    d->needs.checkpoint_bytes =
        config->checkpoint.interval > 0 ? size.n_parameter * PARAMETER_BYTES : 0;
    return MT_OK;
}

static enum mt_status exchange_facts(struct doctor *d)
{
    return mt_comm_gather_i64(&d->session.comm, (const int64_t *)(const void *)&d->mine,
                              MT_N_DOCTOR_FACT, (int64_t *)(void *)d->facts);
}

/* Links are judged, to be measured again, by who has cores of its own. */
static enum mt_status examine(struct doctor *d)
{
    struct mt_comm *comm = &d->session.comm;
    MT_TRY(mt_doctor_examine(&d->session, d->options, &d->place.share, &d->machine, &d->mine));
    MT_TRY(exchange_facts(d));
    MT_TRY(mt_doctor_measure_links(comm, &d->exam, mt_clock_ns() + LINKS_NS));
    MT_TRY(mt_doctor_examine_again(&d->session, &d->mine));
    return exchange_facts(d);
}

/* Rank 0 writes what all have measured. */
static enum mt_status write_costs(struct doctor *d)
{
    struct mt_session *session = &d->session;
    const struct mt_config *config = session->config;
    const int n_rank = session->comm.topology.n_rank;
    struct mt_costs costs;
    char origin[256];
    if (d->options->costs_folder == NULL) {
        return MT_OK;
    }
    MT_TRY(mt_costs_measure(session, micro_batch(config, n_rank), &costs));
    (void)snprintf(origin, sizeof(origin), "measured by moetrain doctor (R = %d, M = %d, B = %lld)",
                   n_rank, session->comm.topology.n_node, (long long)micro_batch(config, n_rank));
    return mt_job_agree(
        session->comm.rank == 0 ? mt_costs_write(d->options->costs_folder, &costs, origin) : MT_OK);
}

/* All ranks know the same, so all fail alike and one speaks. */
static enum mt_status verdict(const struct doctor *d)
{
    const int n_rank = d->session.comm.topology.n_rank;
    if (d->findings.n == 0) {
        return MT_OK;
    }
    return MT_FAIL(MT_ERR_RESOURCE, "doctor: %d finding%s on %d rank%s, the first: %s",
                   d->findings.n, d->findings.n == 1 ? "" : "s", n_rank, n_rank == 1 ? "" : "s",
                   d->findings.finding[0].text);
}

static enum mt_status report(struct doctor *d, FILE *out)
{
    const struct mt_doctor_report report = {
        .exam = &d->exam,
        .findings = &d->findings,
        .machine = &d->machine,
        .options = d->options,
        .time_s = (double)(mt_clock_ns() - d->start_ns) / NS_PER_S,
    };
    if (d->session.comm.rank == 0) {
        (d->options->as_json ? mt_doctor_json : mt_doctor_table)(&report, out);
    }
    return mt_job_agree(verdict(d));
}

static enum mt_status work(struct doctor *d, FILE *out)
{
    MT_TRY(open_session(d));
    MT_TRY(mt_job_agree(find_needs(d)));
    MT_TRY(mt_job_agree(allocate(d)));
    d->exam.topology = &d->session.comm.topology;
    d->exam.facts = d->facts;
    d->exam.links = &d->links;
    d->exam.needs = &d->needs;
    MT_TRY(examine(d));
    MT_TRY(write_costs(d));
    mt_doctor_judge(&d->exam, &d->findings);
    return report(d, out);
}

enum mt_status mt_doctor(const struct mt_doctor_options *options, FILE *out)
{
    struct doctor *d = NULL;
    MT_TRY(mt_job_agree(MT_ALLOCATE(d, 1, "doctor")));
    d->options = options;
    d->start_ns = mt_clock_ns();
    const enum mt_status status = work(d, out);
    mt_kernel_clear();
    mt_session_close(&d->session);
    mt_memory_free(d->exam.odd);
    mt_memory_free(d->exam.scratch);
    mt_memory_free(d->facts);
    mt_memory_free(d->links.time_ps);
    mt_memory_free(d->links.round);
    mt_memory_free(d);
    return status;
}
