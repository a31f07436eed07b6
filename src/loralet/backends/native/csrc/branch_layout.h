/* The memory layout of the packed matrices and the gradients of an adapter with dropout. */
#ifndef LORALET_BRANCH_LAYOUT_H
#define LORALET_BRANCH_LAYOUT_H

#include "api.h"
#include "element.h"

/* Right operands of products (see matmul.h): `down` [d_in units, rank] and `up` [rank units, d_out] for the forward
   pass, `down_back` [rank units, d_in] and `up_back` [d_out units, rank] for the backward pass. B is scaled. */
typedef struct {
  unit *down, *up, *down_back, *up_back;
} BranchWeights;

static inline BranchWeights branch_weights(const Dropout *z, int64_t d_in, int64_t d_out) {
  unit *packed = z->packed;
  int64_t a = z->rank * d_in / PAIR, b = z->rank * d_out / PAIR;
  return (BranchWeights){packed, packed + a, packed + a + b, packed + 2 * a + b};
}

static inline int64_t branch_grad_size(const Dropout *z, int64_t d_in, int64_t d_out) {
  return z->rank * (d_in + d_out);
}

#endif
