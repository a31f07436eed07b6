#include "low_rank.h"

#include "branch_layout.h"
#include "matmul.h"
#include "memory.h"

void low_rank_product(const LowRank *l, int64_t adapter, int64_t d_out, int64_t d_in, float *out) {
  const float *a = l->a + adapter * l->a_stride, *b = l->b + adapter * l->b_stride;
  matmul(d_out, d_in, l->rank, b, l->rank, 1, a, d_in, out, d_in, 0);
  for (int64_t i = 0; i < d_out * d_in; i += LANES) store(out + i, load(out + i) * l->scale[adapter]);
}

/* Gradients of A and B of one merged adapter, from the sum of its partial weight gradients. */
static int from_weight_gradient(const LowRankGradients *g, int64_t adapter, float *grad_a, float *grad_b) {
  const LowRank *l = g->low_rank;
  int64_t rank = l->rank, padded = round_up(rank), o = g->d_out, d = g->d_in;
  const float *a = l->a + adapter * l->a_stride, *b = l->b + adapter * l->b_stride, scale = l->scale[adapter];
  float *grad = g->weight_grad + adapter * o * d;
  float *columns = thread_workspace((int64_t)sizeof(float) * (d + o) * padded), *sums = columns + d * padded;
  if (!columns) return OUT_OF_MEMORY;
  for (int64_t part = 1; part < g->parts; part++) {
    const float *other = grad + part * g->adapters * o * d;
    for (int64_t i = 0; i < o * d; i += LANES) store(grad + i, load(grad + i) + load(other + i));
  }
  matmul(rank, d, o, b, 1, rank, grad, d, grad_a, d, 0);
  for (int64_t i = 0; i < rank * d; i += LANES) store(grad_a + i, load(grad_a + i) * scale);
  matmul_rows(o, grad, d, pack_transposed(rank, d, a, d, columns, padded), sums, padded, 0);
  for (int64_t i = 0; i < o; i++)
    for (int64_t r = 0; r < rank; r++) grad_b[i * rank + r] = sums[i * padded + r] * scale;
  return OK;
}

/* Gradients of A and B of one branch: sum the parts, and truncate or pad them to the pack's rank. */
static void from_branch(const LowRankGradients *g, const Branch *z, float scale, float *grad_a, float *grad_b) {
  int64_t rank = g->low_rank->rank, given = smaller(rank, z->rank), o = g->d_out, d = g->d_in;
  int64_t stride = branch_grad_size(z, d, o);
  const float *a = z->grad, *b = a + z->rank * d;
  for (int64_t i = 0; i < given * d; i++) {
    float sum = a[i];
    for (int64_t part = 1; part < g->parts; part++) sum += a[part * stride + i];
    grad_a[i] = sum;
  }
  memset(grad_b, 0, sizeof(float) * rank * o);
  for (int64_t r = 0; r < given; r++)
    for (int64_t i = 0; i < o; i++) {
      float sum = b[r * o + i];
      for (int64_t part = 1; part < g->parts; part++) sum += b[part * stride + r * o + i];
      grad_b[i * rank + r] = sum * scale;
    }
  memset(grad_a + given * d, 0, sizeof(float) * (rank - given) * d);
}

/* The gradients of an adapter that is not on the linear layer. */
static void no_gradient(const LowRankGradients *g, float *grad_a, float *grad_b) {
  memset(grad_a, 0, sizeof(float) * g->low_rank->rank * g->d_in);
  memset(grad_b, 0, sizeof(float) * g->low_rank->rank * g->d_out);
}

/* One task per linear layer and adapter. */
int low_rank_gradients(const LowRankGradients *gradients, int64_t count, int64_t threads) {
  int status = OK;
  int64_t adapters = gradients->adapters;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)threads) if (count * adapters > 1)
  for (int64_t task = 0; task < count * adapters; task++) {
    const LowRankGradients *g = gradients + task / adapters;
    int64_t adapter = task % adapters;
    float *grad_a = g->grad_a + adapter * g->grad_a_stride, *grad_b = g->grad_b + adapter * g->grad_b_stride;
    const Branch *z = g->branch && g->branch[adapter].rank ? g->branch + adapter : NULL;
    if (z)
      from_branch(g, z, g->low_rank->scale[adapter], grad_a, grad_b);
    else if (!g->weight_grad)
      no_gradient(g, grad_a, grad_b);
    else if (from_weight_gradient(g, adapter, grad_a, grad_b))
      note_failure(&status);
  }
  return status;
}
