/* The memory layout of the packed matrices and the gradients of a branch. */
#ifndef LORALET_BRANCH_LAYOUT_H
#define LORALET_BRANCH_LAYOUT_H

#include "api.h"
#include "matmul.h"

/* Right operands of products (see matmul.h): `down` [d_in units, rank] and `up` [rank units, d_out] for the forward
   pass, `down_back` [rank units, d_in] and `up_back` [d_out units, rank] for the backward pass. B is scaled. */
typedef struct {
  Packed down, up, down_back, up_back;
} BranchWeights;

static inline BranchWeights branch_weights(const Branch *z, int64_t d_in, int64_t d_out) {
  unit *packed = z->packed;
  int64_t rank = z->rank, a = rank * d_in / PAIR, b = rank * d_out / PAIR;
  return (BranchWeights){.down = {packed, d_in / PAIR, rank},
                         .up = {packed + a, rank / PAIR, d_out},
                         .down_back = {packed + a + b, rank / PAIR, d_in},
                         .up_back = {packed + 2 * a + b, d_out / PAIR, rank}};
}

static inline int64_t branch_grad_size(const Branch *z, int64_t d_in, int64_t d_out) {
  return z->rank * (d_in + d_out);
}

#endif
