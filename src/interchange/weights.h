/* The weights of a checkpoint, tensor by tensor as its configuration describes the model: in one
 * process, whatever ranks wrote them. */
#ifndef MT_INTERCHANGE_WEIGHTS_H
#define MT_INTERCHANGE_WEIGHTS_H

#include "checkpoint/elements.h"
#include "config/config.h"
#include "model/model.h"

struct mt_weights {
    const char *path; /* the caller's */
    struct mt_manifest manifest;
    struct mt_config *config;
    struct mt_model_tensors tensors;
    const struct mt_manifest_tensor **origin; /* [n_tensor of the model] in the manifest */
    struct mt_element_reader reader;
};

/* Verified first. MT_ERR_INPUT also when a tensor is missing that the configuration asks for. The
 * struct stays where it is until it is closed, also after an error. */
enum mt_status mt_weights_open(struct mt_weights *weights, const char *path);
void mt_weights_close(struct mt_weights *weights); /* of a zeroed one, too */

/* value [n]: elements [first, first + n) of a tensor of the model, as float32. */
enum mt_status mt_weights_read(struct mt_weights *weights, int tensor, int64_t first, int64_t n,
                               float *value);

/* manifest: of a new checkpoint of a model's weights at step 0, each in one piece of one shard. */
enum mt_status mt_weights_plan(const struct mt_config *config, const struct mt_tensor_table *table,
                               enum mt_dtype dtype, struct mt_manifest *manifest);

/* The configuration that will stand beside the checkpoint `to` can be written: MT_ERR_CONFIG when
 * the file is there, or its folder is not, or it is `to`. */
enum mt_status mt_weights_check_new_file(const char *path, const char *to);
/* The configuration at `path` goes again when what it was written for failed; returns status. */
enum mt_status mt_weights_keep_file(const char *path, enum mt_status status);
/* A path as a comment of a configuration shows it: other bytes than ASCII are question marks, since
 * a line end would begin a key. text [MT_PATH_BYTES]; returned. */
const char *mt_weights_show_path(const char *path, char text[MT_PATH_BYTES]);

#endif
