/* What the files that make cases share. */
#ifndef MT_TEST_COMM_CASE_SPARSE_H
#define MT_TEST_COMM_CASE_SPARSE_H

#include "comm/cases.h"

void test_create_sparse_gather(struct test_case *test);
void test_create_sparse_reduce(struct test_case *test);

/* case_exchange.c */
void test_create_by_way_of_others(struct test_case *test);
void test_create_deduplicated(struct test_case *test);
void test_create_row_numbers(struct test_case *test);

/* to [n_bytes] = values of (stream, which, index). */
void test_fill(enum mt_element element, char *to, int64_t n_bytes, uint64_t stream, uint64_t which);
void test_add(enum mt_element element, char *to, const char *from, int64_t n_bytes);
void test_case_allocate(struct test_case *test, int64_t send_bytes, int64_t recv_bytes,
                        int64_t stage_bytes);
void test_case_freeze(struct test_case *test);
/* Bytes that `source` has for `target`, and where the payloads of a source come from. */
int64_t test_block_bytes(const struct test_case *test, int source, int target);
uint64_t test_stream_of(const struct test_case *test, int source);
/* The buffers of an all-to-all, filled; counts: bytes sent [R], received [R]. */
void test_fill_alltoallv(struct test_case *test, int64_t stage_bytes);

#endif
