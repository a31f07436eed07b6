/* The branch of an adapter (Hu et al. 2021, section 4.1, as PEFT computes it): y += scale B A (mask x). With dropout,
   B A cannot be merged into the weights; on wide layers, merging costs more than the branch. */
#ifndef LORALET_BRANCH_H
#define LORALET_BRANCH_H

#include "api.h"
#include "branch_layout.h"
#include "mask.h"
#include "workspace.h"

/* One layer of one chunk for one adapter. `part`: partial sum of the gradients. `cls`: the rows are first tokens. */
typedef struct {
  const Encoder *encoder;
  const Chunk *chunk;
  int64_t layer, adapter, part;
  int cls;
} Task;

/* The index in the batch of the token of a row; and the token's number for dropout. */
static inline int64_t token_of(const Task *t, int64_t row) {
  return t->cls ? t->encoder->offsets[t->chunk->row + row] : t->chunk->token + row;
}
static inline int64_t token_number(const Task *t, int64_t row) {
  int64_t token = token_of(t, row);
  return t->encoder->token_numbers ? t->encoder->token_numbers[token] : token;
}

/* The adapter's branch on a linear layer, or null if it has none. */
static inline const Branch *branch_of(const Task *t, int which) {
  const Branch *all = t->encoder->layer[t->layer].branch[which];
  return all && all[t->adapter].rank ? all + t->adapter : NULL;
}

/* mask x, for rows from `row` on: x itself without dropout, else `out`. */
static inline const element *masked(const Task *t, const Branch *z, int which, int64_t row, int64_t rows, int64_t d,
                                    const element *x, element *out) {
  if (!z->mask.threshold) return x;
  const int64_t index = t->layer * LINEARS + which;
  for (int64_t r = 0; r < rows; r++) {
    int64_t place = token_number(t, row + r) * d;
    for (int64_t j = 0; j < d; j += LANES)
      store(out + r * d + j, load(x + r * d + j) * mask_at(&z->mask, index, place + j));
  }
  return out;
}

/* sums [rows, o] += scale B A (mask x). A (mask x) is stored in `low`, [m, rank]. */
static inline void branch_forward(const Task *t, int which, int64_t row, int64_t rows, int64_t d, int64_t o,
                                  const element *x, element *low, float *sums, const Workspace *w) {
  const Branch *z = branch_of(t, which);
  if (!z) return;
  int64_t rank = z->rank;
  BranchWeights packed = branch_weights(z, d, o);
  matmul_rows(rows, masked(t, z, which, row, rows, d, x, w->masked), d, packed.down, w->head, rank, 0);
  low += row * rank;
  store_rows(rows, rank, w->head, low, rank);
  matmul_rows(rows, low, rank, packed.up, sums, o, 1);
}

/* Gradients of A and B from the gradient of the layer's output, dy [m, o]. Writes the gradient of x A^T to w->dlow. */
static inline void branch_backward(const Task *t, int which, int64_t m, int64_t o, int64_t d, const element *dy,
                                   const element *x, const element *low, const Workspace *w) {
  const Branch *z = branch_of(t, which);
  if (!z) return;
  int64_t rank = z->rank;
  Packed up_back = branch_weights(z, d, o).up_back;
  float *grad = z->grad + t->part * branch_grad_size(z, d, o);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    matmul_rows(rows, dy + i * o, o, up_back, w->head, rank, 0);
    store_rows(rows, rank, w->head, w->dlow + i * rank, rank);
  }
  add_weight_gradient(m, rank, w->dlow, rank, d, masked(t, z, which, 0, m, d, x, w->masked), d, grad, w);
  add_weight_gradient(m, rank, low, rank, o, dy, o, grad + rank * d, w);
}

/* to += mask (A^T dlow), for `rows` rows from `row` on. `to` is [rows, d]; if `scattered`, it is [tokens, d], and each
   row is added to its token of the chunk. */
static inline void branch_input_gradient(const Task *t, int which, int64_t row, int64_t rows, int64_t d, int64_t o,
                                         float *to, int scattered, const Workspace *w) {
  const Branch *z = branch_of(t, which);
  if (!z) return;
  Packed down_back = branch_weights(z, d, o).down_back;
  const int64_t index = t->layer * LINEARS + which;
  for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
    int64_t some = smaller(BLOCK_ROWS, rows - i);
    const element *dlow = w->dlow + (row + i) * z->rank;
    matmul_rows(some, dlow, z->rank, down_back, w->branch, d, 0);
    for (int64_t r = 0; r < some; r++) {
      int64_t place = token_number(t, row + i + r) * d;
      float *out = to + (scattered ? token_of(t, row + i + r) - t->chunk->token : i + r) * d;
      for (int64_t j = 0; j < d; j += LANES) {
        vec grad = load_fp32(w->branch + r * d + j);
        if (z->mask.threshold) grad *= mask_at(&z->mask, index, place + j);
        store_fp32(out + j, load_fp32(out + j) + grad);
      }
    }
  }
}

#endif
