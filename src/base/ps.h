/* Picoseconds that saturate: whatever the counts, a sum of times stays a time. */
#ifndef MT_BASE_PS_H
#define MT_BASE_PS_H

#include <stdint.h>

/* 13 days; two of them add without overflow. */
static const int64_t MT_PS_MOST = (int64_t)1 << 60;

static inline int64_t mt_ps_add(int64_t a, int64_t b)
{
    return a + b < MT_PS_MOST ? a + b : MT_PS_MOST;
}

/* a, b >= 0 */
static inline int64_t mt_ps_times(int64_t a, int64_t b)
{
    int64_t product = 0;
    return !__builtin_mul_overflow(a, b, &product) && product < MT_PS_MOST ? product : MT_PS_MOST;
}

/* alpha + bytes beta */
static inline int64_t mt_ps_carry(int64_t alpha_ps, int64_t kib_ps, int64_t n_bytes)
{
    enum { KIB = 1024 };
    const int64_t whole = mt_ps_times(n_bytes / KIB, kib_ps);
    const int64_t rest = mt_ps_times(n_bytes % KIB, kib_ps) / KIB;
    return mt_ps_add(alpha_ps, mt_ps_add(whole, rest));
}

/* n_message messages through one port, which takes alpha_ps for each: while it does, bytes of the
 * next ones come in. So the longer of the two, and a message's share of the shorter. */
static inline int64_t mt_ps_port(int64_t n_message, int64_t alpha_ps, int64_t kib_ps,
                                 int64_t n_bytes)
{
    const int64_t alphas_ps = mt_ps_times(n_message, alpha_ps);
    const int64_t bytes_ps = mt_ps_carry(0, kib_ps, n_bytes);
    if (n_message == 0) {
        return 0;
    }
    return alphas_ps < bytes_ps ? mt_ps_add(bytes_ps, alphas_ps / n_message)
                                : mt_ps_add(alphas_ps, bytes_ps / n_message);
}

/* What 1024 bytes take on the links of a node of n_member ranks to other nodes, all of its ranks
 * together. Known is what they take a rank when all of its node send (kib_ps) and when it does so
 * alone (alone_kib_ps; 0: not known, then as with the others), where nodes usually have n_usual
 * ranks. So n_usual alone / kib links serve a node of the usual size: 1 where its ranks share one,
 * as many as ranks where each has its own. A node of one rank has one; in between and beyond, in
 * proportion. */
static inline int64_t mt_ps_link_kib(int64_t kib_ps, int64_t alone_kib_ps, int64_t n_usual,
                                     int64_t n_member)
{
    static const int64_t ONE = 1 << 8; /* a rank's share, in units; ranks below 2^20 */
    static const int64_t UNIT = 1 << 20;
    const int64_t alone_ps = alone_kib_ps > 0 ? alone_kib_ps : kib_ps;
    if (alone_ps == 0 || n_usual <= 1) {
        return alone_ps;
    }
    int64_t n_sharing = mt_ps_times(kib_ps, ONE) / alone_ps; /* ranks a link */
    n_sharing = n_sharing < ONE ? ONE : n_sharing;
    n_sharing = n_sharing > ONE * n_usual ? ONE * n_usual : n_sharing;
    const int64_t one_link = n_sharing * (n_usual - 1);
    const int64_t n_link = one_link + (n_member - 1) * (ONE * n_usual - n_sharing);
    return mt_ps_times(alone_ps, mt_ps_times(one_link, UNIT) / n_link) / UNIT;
}

#endif
