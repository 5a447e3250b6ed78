/* moetrain checkpoint convert CHECKPOINT NEW */
#include "cli/cli.h"

#include "checkpoint/checkpoint.h"

#include <string.h>

static enum mt_status read_options(const struct mt_arguments *arguments,
                                   struct mt_convert_options *options)
{
    const char *dtype = mt_argument(arguments, "--dtype");
    const bool is_half = dtype != NULL && strcmp(dtype, "bfloat16") == 0;
    options->weights_only = mt_argument(arguments, "--weights-only") != NULL;
    options->dtype = is_half ? MT_BFLOAT16 : MT_FLOAT32;
    if (dtype != NULL && !is_half && strcmp(dtype, "float32") != 0) {
        return MT_FAIL(MT_ERR_CONFIG, "--dtype %s: expected float32 or bfloat16", dtype);
    }
    if (is_half && !options->weights_only) {
        return MT_FAIL(MT_ERR_CONFIG,
                       "--dtype bfloat16 would round the optimizer's state, from which nothing "
                       "can be trained; expected --weights-only beside it");
    }
    return MT_OK;
}

enum mt_status mt_command_checkpoint_convert(const struct mt_arguments *arguments)
{
    struct mt_convert_options options;
    MT_TRY(read_options(arguments, &options));
    MT_TRY(mt_checkpoint_convert(arguments->positional[0], arguments->positional[1], &options));
    (void)printf("%s: %s of %s in one shard\n", arguments->positional[1],
                 options.dtype == MT_BFLOAT16 ? "the weights in bfloat16"
                 : options.weights_only       ? "the weights"
                                              : "everything",
                 arguments->positional[0]);
    return MT_OK;
}
