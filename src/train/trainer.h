/* The trainer: a run from its first step to its last, in its run directory.
 *
 * Read step.c first: it is the whole idea in ten lines. */
#ifndef MT_TRAIN_TRAINER_H
#define MT_TRAIN_TRAINER_H

#include "config/config.h"

#include "base/status.h"

enum mt_resume { MT_RESUME_AUTO, MT_RESUME_NEVER, MT_RESUME_PATH };

struct mt_train_options {
    const struct mt_config *config;
    enum mt_resume resume;
    const char *resume_path; /* of MT_RESUME_PATH */
    const char *init_from;   /* checkpoint whose weights start the run, or NULL */
    const char *versions;    /* of program and libraries, for checkpoints */
};

/* Collective, agreed. MT_OK: done, also when there was nothing left to do. MT_STOPPED: stopped on
 * request, saved. The caller ends the job with the status. */
enum mt_status mt_train(const struct mt_train_options *options);

#endif
