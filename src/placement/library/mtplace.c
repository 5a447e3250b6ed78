/* The planner as a library: checks what strangers say, then asks a study. */
#include "mtplace.h"

#include "base/memory.h"
#include "base/size.h"
#include "placement/study.h"

#include <string.h>

enum { MAX_RANK = 1 << 16, MAX_LAYER = 1 << 12, MAX_EXPERT = 1 << 16 };
/* Parts of a row, and sums over sources, experts and steps must not overflow; products with costs
 * saturate. */
static const int64_t MAX_ROWS = (int64_t)1 << 40;

enum setting {
    SLOTS,
    OVERLAP,
    CALIBRATE,
    SPLIT,
    REMATERIALIZE,
    LOAD_WINDOW,
    RESHARD_INTERVAL,
    N_MICRO,
    ROW_BYTES,
    EXPERT_BYTES,
    ROW_PS,
    INSTANCE_PS,
    ATTENTION_PS,
    NODE_ALPHA_PS,
    NODE_KIB_PS,
    NETWORK_ALPHA_PS,
    NETWORK_KIB_PS,
    N_SETTING
};

#define MAX_PS    INT64_C(1000000000000000) /* 1000 s */
#define MAX_BYTES (INT64_C(1) << 44)
static const struct {
    const char *name;
    int64_t least, most, standard;
} settings[N_SETTING] = {
    [SLOTS] = {"slots", 0, MAX_EXPERT, 0},
    [OVERLAP] = {"overlap", -1, MAX_EXPERT, -1},
    [CALIBRATE] = {"calibrate", 0, 1, 1},
    [SPLIT] = {"split", MT_SPLIT_AUTO, MT_SPLIT_SETTLED, MT_SPLIT_AUTO},
    [REMATERIALIZE] = {"rematerialize", 0, 1, 1},
    [LOAD_WINDOW] = {"load_window", 1, 1 << 16, 5},
    [RESHARD_INTERVAL] = {"reshard_interval", 0, INT64_C(1) << 40, 100},
    [N_MICRO] = {"n_micro", 1, 1 << 16, 1},
    [ROW_BYTES] = {"row_bytes", 0, MAX_BYTES, 0},
    [EXPERT_BYTES] = {"expert_bytes", 0, MAX_BYTES, 0},
    [ROW_PS] = {"row_ps", 0, MAX_PS, 0},
    [INSTANCE_PS] = {"instance_ps", 0, MAX_PS, 0},
    [ATTENTION_PS] = {"attention_ps", 0, MAX_PS, 0},
    [NODE_ALPHA_PS] = {"node_alpha_ps", 0, MAX_PS, 0},
    [NODE_KIB_PS] = {"node_kib_ps", 0, MAX_PS, 0},
    [NETWORK_ALPHA_PS] = {"network_alpha_ps", 0, MAX_PS, 0},
    [NETWORK_KIB_PS] = {"network_kib_ps", 0, MAX_PS, 0},
};

/* As MT_TRY, for functions that return a plain code. */
#define MT_TRY_CALL(call)                     \
    do {                                      \
        const int mt_try_code_ = (int)(call); \
        if (mt_try_code_ != MTPLACE_OK) {     \
            return mt_try_code_;              \
        }                                     \
    } while (0)

/* What was planned last. */
enum stage { NOTHING, BEFORE_GATE, AFTER_GATE };

struct mtplace_planner {
    const struct mt_policy *policy;
    int n_rank, n_layer, n_expert;
    int64_t value[N_SETTING];
    int *node; /* [R] */
    /* from the first plan on */
    bool is_started;
    struct mt_cluster cluster;
    struct mt_study study;
    struct mt_arena scratch;
    int64_t *quota; /* [R, capacity of a placement] */
    struct mt_prediction prediction;
    enum stage stage;
    int layer; /* of the last plan */
};

int mtplace_api_version(void)
{
    return MTPLACE_API_VERSION;
}

const char *mtplace_version(void)
{
    return MT_VERSION;
}

const char *mtplace_error(void)
{
    return mt_error_last()->text;
}

int mtplace_n_policy(void)
{
    return mt_n_policy;
}

const char *mtplace_policy_name(int policy)
{
    return policy >= 0 && policy < mt_n_policy ? mt_policies[policy].name : NULL;
}

const char *mtplace_policy_description(int policy)
{
    return policy >= 0 && policy < mt_n_policy ? mt_policies[policy].description : NULL;
}

/* The first error wins within a call; each call starts anew. */
static int begin(const mtplace_planner *planner)
{
    mt_error_clear();
    if (planner == NULL) {
        return (int)MT_FAIL(MT_ERR_CONFIG, "the planner is NULL; expected one of mtplace_create");
    }
    return MTPLACE_OK;
}

/* How much of a stranger's name a message shows: it is one line, and has room for the rest. */
static int shown_bytes(const char *name)
{
    enum { MOST = 64 };
    const size_t n = strcspn(name, "\n");
    return n < MOST ? (int)n : MOST;
}

static enum mt_status check_sizes(const char *policy, int32_t n_rank, int32_t n_layer,
                                  int32_t n_expert)
{
    const char *name = policy != NULL ? policy : "NULL";
    if (mt_policy_find(name) == NULL) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "policy %.*s is not known; expected a name that mtplace_policy_name tells",
                       shown_bytes(name), name);
    }
    if (n_rank < 1 || n_rank > MAX_RANK || n_layer < 1 || n_layer > MAX_LAYER || n_expert < 1 ||
        n_expert > MAX_EXPERT) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "%d ranks, %d layers, %d experts; expected 1 to %d, %d and %d", (int)n_rank,
                       (int)n_layer, (int)n_expert, MAX_RANK, MAX_LAYER, MAX_EXPERT);
    }
    return MT_OK;
}

int mtplace_create(const char *policy, int32_t n_rank, int32_t n_layer, int32_t n_expert,
                   mtplace_planner **planner)
{
    struct mtplace_planner *made = NULL;
    mt_error_clear();
    if (planner == NULL) {
        return (int)MT_FAIL(MT_ERR_CONFIG, "no place for the planner; expected a pointer to it");
    }
    *planner = NULL;
    enum mt_status status = check_sizes(policy, n_rank, n_layer, n_expert);
    if (status == MT_OK) {
        status = MT_ALLOCATE(made, 1, "planner");
    }
    if (status != MT_OK) {
        return (int)status;
    }
    made->policy = mt_policy_find(policy);
    made->n_rank = n_rank;
    made->n_layer = n_layer;
    made->n_expert = n_expert;
    for (int i = 0; i < N_SETTING; ++i) {
        made->value[i] = settings[i].standard;
    }
    status = MT_ALLOCATE(made->node, n_rank, "nodes of a planner"); /* zeros: one node */
    if (status != MT_OK) {
        mtplace_destroy(made);
        return (int)status;
    }
    *planner = made;
    return MTPLACE_OK;
}

void mtplace_destroy(mtplace_planner *planner)
{
    if (planner == NULL) {
        return;
    }
    mt_study_clear(&planner->study);
    mt_arena_clear(&planner->scratch);
    mt_cluster_clear(&planner->cluster);
    mt_memory_free(planner->quota);
    mt_memory_free(planner->node);
    mt_memory_free(planner);
}

static enum mt_status check_not_started(const mtplace_planner *planner)
{
    if (planner->is_started) {
        return MT_FAIL(MT_ERR_CONFIG, "the planner has begun to plan; expected settings before the "
                                      "first plan; create another one");
    }
    return MT_OK;
}

int mtplace_set(mtplace_planner *planner, const char *name, int64_t value)
{
    const char *setting = name != NULL ? name : "NULL";
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_not_started(planner));
    for (int i = 0; i < N_SETTING; ++i) {
        if (strcmp(setting, settings[i].name) != 0) {
            continue;
        }
        if (value < settings[i].least || value > settings[i].most) {
            return (int)MT_FAIL(MT_ERR_CONFIG, "%s = %lld is out of range; expected %lld to %lld",
                                setting, (long long)value, (long long)settings[i].least,
                                (long long)settings[i].most);
        }
        planner->value[i] = value;
        return MTPLACE_OK;
    }
    return (int)MT_FAIL(MT_ERR_CONFIG, "no setting %.*s; expected one of those in mtplace.h",
                        shown_bytes(setting), setting);
}

int mtplace_set_nodes(mtplace_planner *planner, const int32_t *node)
{
    int n_node = 0;
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_not_started(planner));
    for (int rank = 0; node != NULL && rank < planner->n_rank; ++rank) {
        if (node[rank] < 0 || node[rank] > n_node) {
            return (int)MT_FAIL(MT_ERR_CONFIG,
                                "rank %d is in node %d after nodes below %d; expected nodes "
                                "numbered from 0 in order of their lowest ranks",
                                rank, (int)node[rank], n_node);
        }
        n_node += node[rank] == n_node ? 1 : 0;
    }
    if (node == NULL) {
        return (int)MT_FAIL(MT_ERR_CONFIG, "no nodes; expected one for each of %d ranks",
                            planner->n_rank);
    }
    for (int rank = 0; rank < planner->n_rank; ++rank) {
        planner->node[rank] = node[rank];
    }
    return MTPLACE_OK;
}

static void set_costs(mtplace_planner *planner)
{
    const int64_t *value = planner->value;
    planner->cluster.row_bytes = value[ROW_BYTES];
    planner->cluster.expert_bytes = value[EXPERT_BYTES];
    planner->cluster.costs = (struct mt_costs){
        .row_ps = value[ROW_PS],
        .instance_ps = value[INSTANCE_PS],
        .attention_ps = value[ATTENTION_PS],
        .alpha_ps = {0, value[NODE_ALPHA_PS], value[NETWORK_ALPHA_PS]},
        .kib_ps = {0, value[NODE_KIB_PS], value[NETWORK_KIB_PS]},
    };
}

static enum mt_status make_parts(mtplace_planner *planner)
{
    int64_t n_bytes = 0;
    const int64_t *value = planner->value;
    MT_TRY(mt_cluster_init(&planner->cluster, planner->n_rank, planner->node));
    set_costs(planner);
    const struct mt_study_options options = {.policy = planner->policy,
                                             .cluster = &planner->cluster,
                                             .n_layer = planner->n_layer,
                                             .n_expert = planner->n_expert,
                                             .n_micro = (int)value[N_MICRO],
                                             .slots = value[SLOTS],
                                             .overlap = (int)value[OVERLAP],
                                             .calibrate = value[CALIBRATE] != 0,
                                             .split = (enum mt_split_rule)value[SPLIT],
                                             .rematerialize = value[REMATERIALIZE] != 0,
                                             .load_window = (int)value[LOAD_WINDOW],
                                             .reshard_interval = value[RESHARD_INTERVAL]};
    if (!mt_study_scratch_bytes(&options, &n_bytes)) {
        return MT_FAIL(MT_ERR_RESOURCE, "%d ranks and %d experts are too many; expected fewer",
                       planner->n_rank, planner->n_expert);
    }
    MT_TRY(mt_study_init(&planner->study, &options));
    MT_TRY(mt_arena_init(&planner->scratch, n_bytes, "scratch of a planner"));
    return MT_ALLOCATE(planner->quota, (int64_t)planner->n_rank * planner->study.now.max_instance,
                       "split of a planner");
}

static enum mt_status start(mtplace_planner *planner)
{
    if (planner->is_started) {
        return MT_OK;
    }
    const enum mt_status status = make_parts(planner);
    planner->is_started = status == MT_OK;
    if (status != MT_OK) {
        mt_study_clear(&planner->study);
        mt_arena_clear(&planner->scratch);
        mt_cluster_clear(&planner->cluster);
    }
    return status;
}

static enum mt_status check_layer(const mtplace_planner *planner, int32_t layer)
{
    if (layer < 0 || layer >= planner->n_layer) {
        return MT_FAIL(MT_ERR_CONFIG, "layer %d is not there; expected 0 to %d", (int)layer,
                       planner->n_layer - 1);
    }
    return MT_OK;
}

int mtplace_plan_before(mtplace_planner *planner, int32_t layer)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_layer(planner, layer));
    MT_TRY_CALL(start(planner));
    mt_study_before_gate(&planner->study, layer, &planner->scratch);
    planner->layer = layer;
    planner->stage = BEFORE_GATE;
    return MTPLACE_OK;
}

static enum mt_status check_counts(const mtplace_planner *planner, const int64_t *counts)
{
    int64_t total = 0;
    const int64_t n = (int64_t)planner->n_rank * planner->n_expert;
    if (counts == NULL) {
        return MT_FAIL(MT_ERR_CONFIG, "no counts; expected %d x %d", planner->n_rank,
                       planner->n_expert);
    }
    for (int64_t i = 0; i < n; ++i) {
        if (counts[i] < 0 || counts[i] > MAX_ROWS - total) {
            return MT_FAIL(MT_ERR_CONFIG,
                           "rank %lld has %lld rows for expert %lld; expected counts >= 0, and at "
                           "most 2^40 in all",
                           (long long)(i / planner->n_expert), (long long)counts[i],
                           (long long)(i % planner->n_expert));
        }
        total += counts[i];
    }
    return MT_OK;
}

int mtplace_plan_after(mtplace_planner *planner, int32_t layer, const int64_t *counts)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_layer(planner, layer));
    if (planner->stage != BEFORE_GATE || planner->layer != layer) {
        return (int)MT_FAIL(MT_ERR_CONFIG,
                            "layer %d was not planned last before its gate; expected "
                            "mtplace_plan_before of it first",
                            (int)layer);
    }
    MT_TRY_CALL(check_counts(planner, counts));
    mt_study_after_gate(&planner->study, layer, counts, &planner->scratch, planner->quota,
                        &planner->prediction);
    planner->stage = AFTER_GATE;
    return MTPLACE_OK;
}

int mtplace_end_step(mtplace_planner *planner)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(start(planner));
    mt_study_end_step(&planner->study, &planner->scratch);
    planner->stage = NOTHING;
    return MTPLACE_OK;
}

int64_t mtplace_n_instance(const mtplace_planner *planner)
{
    return planner != NULL && planner->stage != NOTHING
               ? mt_placement_n_instance(&planner->study.now)
               : -1;
}

static enum mt_status check_stage(const mtplace_planner *planner, enum stage least)
{
    if (planner->stage < least) {
        return MT_FAIL(MT_ERR_CONFIG, "nothing is planned%s; expected mtplace_plan_%s first",
                       least == AFTER_GATE ? " with counts" : "",
                       least == AFTER_GATE ? "after" : "before");
    }
    return MT_OK;
}

int mtplace_get_placement(const mtplace_planner *planner, int32_t *expert, int32_t *rank,
                          uint8_t *is_late)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_stage(planner, BEFORE_GATE));
    const struct mt_placement *now = &planner->study.now;
    for (int e = 0; e < planner->n_expert; ++e) {
        for (int i = now->instance_start[e]; i < now->instance_start[e + 1]; ++i) {
            if (expert != NULL) {
                expert[i] = e;
            }
            if (rank != NULL) {
                rank[i] = now->rank[i];
            }
            if (is_late != NULL) {
                is_late[i] = now->is_late[i] ? 1 : 0;
            }
        }
    }
    return MTPLACE_OK;
}

int mtplace_get_quota(const mtplace_planner *planner, int64_t *quota)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_stage(planner, AFTER_GATE));
    const int64_t n = (int64_t)planner->n_rank * mt_placement_n_instance(&planner->study.now);
    if (quota == NULL) {
        return (int)MT_FAIL(MT_ERR_CONFIG, "no place for quotas; expected %lld of them",
                            (long long)n);
    }
    memcpy(quota, planner->quota, (size_t)n * sizeof(*quota));
    return MTPLACE_OK;
}

int mtplace_get_owners(const mtplace_planner *planner, int32_t layer, int32_t *owner)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_layer(planner, layer));
    if (owner == NULL || !planner->is_started) {
        return (int)MT_FAIL(MT_ERR_CONFIG, "%s; expected a place for %d owners after a first plan",
                            owner == NULL ? "no place for owners" : "nothing is planned",
                            planner->n_expert);
    }
    for (int e = 0; e < planner->n_expert; ++e) {
        owner[e] = planner->study.placement[layer].owner[e];
    }
    return MTPLACE_OK;
}

int mtplace_predict(const mtplace_planner *planner, struct mtplace_prediction *prediction,
                    size_t n_bytes)
{
    MT_TRY_CALL(begin(planner));
    MT_TRY_CALL(check_stage(planner, AFTER_GATE));
    const struct mt_prediction *from = &planner->prediction;
    const struct mtplace_prediction all = {
        .total_ps = from->total_ps,
        .compute_ps = from->compute_ps,
        .exchange_ps = from->exchange_ps,
        .copies_ps = from->copies_ps,
        .ideal_ps = from->ideal_ps,
        .n_copy = from->n_copy,
        .n_late = from->n_late,
    };
    if (prediction == NULL || n_bytes == 0 || n_bytes % sizeof(int64_t) != 0) {
        return (int)MT_FAIL(MT_ERR_CONFIG,
                            "no place for a prediction of %zu bytes; expected a struct "
                            "mtplace_prediction and its size",
                            n_bytes);
    }
    /* A caller of an older header gets the fields that it knows; of a newer one zeros beyond. */
    memset(prediction, 0, n_bytes);
    memcpy(prediction, &all, n_bytes < sizeof(all) ? n_bytes : sizeof(all));
    return MTPLACE_OK;
}
