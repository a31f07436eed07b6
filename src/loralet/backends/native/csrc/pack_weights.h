/* Packed weights: right operands of products, in the layout of matmul.h. */
#ifndef LORALET_PACK_WEIGHTS_H
#define LORALET_PACK_WEIGHTS_H

#include "api.h"
#include "branch_layout.h"
#include "low_rank.h"
#include "matmul.h"
#include "memory.h"

/* Pack the weights of one adapter: W + scale B A, or only W if the adapter has a branch. */
static inline int pack_adapter(const WeightPacking *p, int64_t adapter) {
  int64_t o = p->d_out, d = p->d_in;
  const element *weight = p->weight;
  if (p->low_rank && !(p->branch && p->branch[adapter].rank)) {
    float *delta = thread_workspace((int64_t)(sizeof(float) + sizeof(element)) * o * d);
    if (!delta) return OUT_OF_MEMORY;
    element *sum = (element *)(delta + o * d);
    low_rank_product(p->low_rank, adapter, o, d, delta);
    for (int64_t i = 0; i < o * d; i += LANES) store(sum + i, load(weight + i) + load_fp32(delta + i));
    weight = sum;
  }
  if (p->forward) pack_transposed(o, d, weight, d, (unit *)p->forward + adapter * (d / PAIR) * o, o);
  if (p->backward) pack_rows(o, d, weight, d, (unit *)p->backward + adapter * (o / PAIR) * d);
  return OK;
}

/* Pack the matrices of one branch, A [rank, d_in] and B [d_out, rank]. Ranks are padded with zeros. */
static inline int pack_branch(const WeightPacking *p, int64_t adapter) {
  const LowRank *l = p->low_rank;
  const Branch *z = p->branch + adapter;
  const float *a = l->a + adapter * l->a_stride, *b = l->b + adapter * l->b_stride;
  int64_t o = p->d_out, d = p->d_in, rank = z->rank, given = smaller(rank, l->rank);
  int64_t elements = (int64_t)sizeof(element) * rank * larger(o, d);
  BranchWeights packed = branch_weights(z, d, o);
  char *workspace = thread_workspace(elements + (int64_t)sizeof(float) * rank);
  if (!workspace) return OUT_OF_MEMORY;
  element *matrix = (element *)workspace;
  float *row = (float *)(workspace + elements);
  memset(matrix, 0, sizeof(element) * rank * d);
  store_rows(given, d, a, matrix, d);
  pack_transposed(rank, d, matrix, d, (unit *)packed.down.data, rank);
  pack_rows(rank, d, matrix, d, (unit *)packed.down_back.data);
  for (int64_t i = 0; i < o; i++) {
    for (int64_t r = 0; r < rank; r++) row[r] = r < given ? b[i * l->rank + r] * l->scale[adapter] : 0;
    store_rows(1, rank, row, matrix + i * rank, rank);
  }
  pack_transposed(o, rank, matrix, rank, (unit *)packed.up.data, o);
  pack_rows(o, rank, matrix, rank, (unit *)packed.up_back.data);
  return OK;
}

/* One task per linear layer and adapter. Frozen layers are packed once. */
int TYPED(pack_weights)(const WeightPacking *packings, int64_t count, int64_t threads) {
  int status = OK;
  int64_t adapters = packings->adapters;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)threads) if (count * adapters > 1)
  for (int64_t task = 0; task < count * adapters; task++) {
    const WeightPacking *p = packings + task / adapters;
    int64_t adapter = task % adapters;
    int failed = p->forward || p->backward ? pack_adapter(p, adapter) : OK;
    if (!failed && p->branch && p->branch[adapter].rank) failed = pack_branch(p, adapter);
    if (failed) note_failure(&status);
  }
  return status;
}

#endif
