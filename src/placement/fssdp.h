/* What the files of the policy fssdp share. Internal to placement/. */
#ifndef MT_PLACEMENT_FSSDP_H
#define MT_PLACEMENT_FSSDP_H

#include "placement/draft.h"

/* Hecate's overlap degree t: experts whose copies travel under attention, at most E. overlap: as
 * configured; -1: from the costs. */
int mt_fssdp_overlap(const struct mt_cluster *cluster, int overlap, int n_expert);

#endif
