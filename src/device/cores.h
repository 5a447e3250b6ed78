/* How many cores this process may use. */
#ifndef MT_DEVICE_CORES_H
#define MT_DEVICE_CORES_H

/* Cores for one of `local_size` (>= 1) ranks of this machine, >= 1: an even share of what the
 * container or batch system grants, and no more than this rank is bound to. */
int mt_cores_share(int local_size);

/* The share from what is known: cores granted to all ranks together, cores this rank is bound to,
 * and CPUs' worth of time that the control group grants (0 = no limit). */
int mt_cores_divide(int n_granted, int n_bound, int n_quota, int local_size);

#endif
