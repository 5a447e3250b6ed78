/* Settling against the linear program's optimum (GLPK, of tests only), up to 64 ranks. */
#include "support/test.h"

#include "placement/scene.h"
#include "placement/settle.h"

#include <glpk.h>
#include <math.h>

enum { N_SEED = 250 };

/* One row a rank (its load - largest <= 0), one row an expert (its quotas = its total). Columns:
 * one an instance, and last the largest load, which is minimised. */
static void make_rows(glp_prob *problem, const struct mt_scene *scene)
{
    const struct mt_placement *placement = &scene->placement;
    const int n_instance = mt_placement_n_instance(placement);
    (void)glp_add_rows(problem, placement->n_rank + placement->n_expert);
    (void)glp_add_cols(problem, n_instance + 1);
    for (int rank = 0; rank < placement->n_rank; ++rank) {
        glp_set_row_bnds(problem, 1 + rank, GLP_UP, 0.0, 0.0);
    }
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        const double n_row = (double)scene->total[expert];
        glp_set_row_bnds(problem, 1 + placement->n_rank + expert, GLP_FX, n_row, n_row);
    }
}

static double optimum(const struct mt_scene *scene)
{
    const struct mt_placement *placement = &scene->placement;
    const int n_instance = mt_placement_n_instance(placement);
    int row[1 + 64] = {0};
    double value[1 + 64] = {0.0};
    glp_prob *problem = glp_create_prob();
    glp_set_obj_dir(problem, GLP_MIN);
    make_rows(problem, scene);
    for (int expert = 0; expert < placement->n_expert; ++expert) {
        for (int i = placement->instance_start[expert]; i < placement->instance_start[expert + 1];
             ++i) {
            row[1] = 1 + placement->rank[i];
            row[2] = 1 + placement->n_rank + expert;
            value[1] = value[2] = 1.0;
            glp_set_col_bnds(problem, 1 + i, GLP_LO, 0.0, 0.0);
            glp_set_mat_col(problem, 1 + i, 2, row, value);
        }
    }
    for (int rank = 0; rank < placement->n_rank; ++rank) {
        row[1 + rank] = 1 + rank;
        value[1 + rank] = -1.0;
    }
    glp_set_col_bnds(problem, 1 + n_instance, GLP_LO, 0.0, 0.0);
    glp_set_obj_coef(problem, 1 + n_instance, 1.0);
    glp_set_mat_col(problem, 1 + n_instance, placement->n_rank, row, value);
    assert_int_equal(glp_simplex(problem, NULL), 0);
    assert_int_equal(glp_get_status(problem), GLP_OPT);
    const double largest = glp_get_obj_val(problem);
    glp_delete_prob(problem);
    return largest;
}

static void the_largest_load_is_the_linear_programs_rounded_up(void **state)
{
    MT_UNUSED(state);
    struct mt_scene scene;
    (void)glp_term_out(GLP_OFF);
    for (uint64_t seed = 0; seed < N_SEED; ++seed) {
        mt_scene_make(&scene, 90000 + seed, 64, seed % 2 == 0 ? 30 : 80, (int)(seed % 3));
        const double largest =
            (double)mt_settle(&scene.placement, scene.total, &scene.scratch, scene.instance_quota);
        const double best = optimum(&scene);
        assert_true(largest >= best * (1.0 - 1e-9));
        assert_true(largest < best * (1.0 + 1e-9) + 1.0);
        mt_scene_clear(&scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_load_is_the_linear_programs_rounded_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
