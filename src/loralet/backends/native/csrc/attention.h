/* Attention of one head of one row (Vaswani et al. 2017, section 3.2).

   It reads rows in the layout of the linear layers, with the heads next to each other, so nothing is transposed in
   memory. It stops at the length of the row, so padding costs nothing. */
#ifndef LORALET_ATTENTION_H
#define LORALET_ATTENTION_H

#include <math.h>

#include "api.h"
#include "matmul.h"
#include "memory.h"

/* Bytes of workspace for one head, for rows of up to `tokens` tokens. */
static inline int64_t head_bytes(int64_t tokens, int64_t size) {
  int64_t padded = round_up(tokens);
  return 4 * (3 * padded * padded + 3 * padded * size);
}

/* Probabilities p of one row of scores [n], padded to `padded`. The scores are overwritten. */
static inline void softmax(int64_t n, int64_t padded, float scale, float *scores, element *p) {
  for (int64_t j = n; j < padded; j++) scores[j] = -1e30f; /* e^-87 after the exponential; the largest is 1 */
  float most = maximum(scores, padded);
  vec total = splat(0);
  for (int64_t j = 0; j < padded; j += LANES) {
    vec e = exponential((load_fp32(scores + j) - most) * scale);
    store_fp32(scores + j, e);
    total += e;
  }
  float factor = 1.0f / vector_sum(total);
  for (int64_t j = n; j < padded; j++) scores[j] = 0;
  for (int64_t j = 0; j < padded; j += LANES) store(p + j, load_fp32(scores + j) * factor);
}

/* out [m, size] = softmax(q k^T / sqrt(size)) v for m queries and n keys. The rows of q, k, v and out are `row`
   elements apart. The probabilities are written to p, [m, n rounded up to LANES]. */
static inline void head_attention(int64_t m, int64_t n, int64_t size, int64_t row, const element *q, const element *k,
                                  const element *v, element *p, element *out, float *workspace) {
  int64_t padded = round_up(n);
  float *scores = workspace, *result = scores + m * padded, scale = 1.0f / sqrtf((float)size);
  unit *packed = (unit *)(result + m * size);
  matmul_rows(m, q, row, pack_transposed(n, size, k, row, packed, padded), scores, padded, 0);
  for (int64_t i = 0; i < m; i++) softmax(n, padded, scale, scores + i * padded, p + i * padded);
  matmul_rows(m, p, padded, pack_rows(n, size, v, row, packed), result, size, 0);
  store_rows(m, size, result, out, row);
}

/* One row of scaled score gradients ds from the gradient of the probabilities, `dp`. */
static inline void softmax_backward(int64_t padded, float scale, const float *dp, const element *p, element *ds) {
  vec dot = splat(0);
  for (int64_t j = 0; j < padded; j += LANES) dot += load_fp32(dp + j) * load(p + j);
  float mean = vector_sum(dot);
  for (int64_t j = 0; j < padded; j += LANES) store(ds + j, load(p + j) * (load_fp32(dp + j) - mean) * scale);
}

/* out [n, size] = p^T x for p [m, padded] and x [m, size]. */
static inline void transposed_product(int64_t m, int64_t n, int64_t size, int64_t row, const element *p, int64_t padded,
                                      const element *x, element *out, unit *left, unit *right, float *result) {
  Left transposed = pack_left(m, padded, p, padded, left);
  matmul_left(n, transposed, pack_rows(m, size, x, row, right), result, size, 0);
  store_rows(n, size, result, out, row);
}

/* Gradients of q, k and v from the gradient of out. Null gradients are not computed. */
static inline void head_attention_backward(int64_t m, int64_t n, int64_t size, int64_t row, const element *q,
                                           const element *k, const element *v, const element *p, const element *grad,
                                           element *grad_q, element *grad_k, element *grad_v, float *workspace) {
  int64_t padded = round_up(n);
  float *scores = workspace, *result = scores + m * padded, scale = 1.0f / sqrtf((float)size);
  unit *left = (unit *)(result + padded * size), *right = left + padded * padded;
  element *ds = (element *)(right + padded * size);
  if (grad_v) transposed_product(m, n, size, row, p, padded, grad, grad_v, left, right, result);
  if (!grad_q && !grad_k) return;
  matmul_rows(m, grad, row, pack_transposed(n, size, v, row, right, padded), scores, padded, 0);
  for (int64_t i = 0; i < m; i++) softmax_backward(padded, scale, scores + i * padded, p + i * padded, ds + i * padded);
  if (grad_q) {
    matmul_rows(m, ds, padded, pack_rows(n, size, k, row, right), result, size, 0);
    store_rows(m, size, result, grad_q, row);
  }
  if (grad_k) transposed_product(m, n, size, row, ds, padded, q, grad_k, left, right, result);
}

/* Item number `item` of all adapters, rows and heads of an Attention. */
typedef struct {
  int64_t adapter, row, head, m, n;
} HeadItem;

static inline HeadItem head_item(const Attention *a, int64_t item) {
  HeadItem h = {item / a->heads / a->rows, item / a->heads % a->rows, item % a->heads, 0, 0};
  h.n = a->lengths[h.row], h.m = smaller(a->queries, h.n);
  return h;
}

/* The head's part of a tensor [adapters or 1, rows, tokens, width], or null if the tensor is null. */
static inline element *head_part(const Attention *a, const HeadItem *h, const void *tensor, int64_t per_adapter,
                                 int64_t tokens) {
  if (!tensor) return NULL;
  int64_t row = (per_adapter ? h->adapter : 0) * a->rows + h->row;
  return (element *)tensor + row * tokens * a->heads * a->head_size + h->head * a->head_size;
}

/* Set rows `from` to `to` (exclusive) of a head's part to zero. */
static inline void clear_head_rows(const Attention *a, element *part, int64_t from, int64_t to) {
  for (int64_t i = from; part && i < to; i++)
    memset(part + i * a->heads * a->head_size, 0, sizeof(element) * a->head_size);
}

int TYPED(attention_forward)(const Attention *a) {
  int64_t width = a->heads * a->head_size, square = a->queries * round_up(a->tokens);
  int64_t bytes = head_bytes(a->tokens, a->head_size);
  int status = OK;
#pragma omp parallel num_threads((int)a->threads)
  {
    tile_configure();
    char *workspace = thread_workspace(bytes + (int64_t)sizeof(element) * square);
    if (!workspace) note_failure(&status);
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < a->adapters * a->rows * a->heads; item++) {
      if (!workspace) continue;
      HeadItem h = head_item(a, item);
      element *out = head_part(a, &h, a->out, 1, a->queries);
      element *p = a->probabilities ? (element *)a->probabilities + item * square : (element *)(workspace + bytes);
      head_attention(h.m, h.n, a->head_size, width, head_part(a, &h, a->query, a->query_per_adapter, a->queries),
                     head_part(a, &h, a->key, a->key_per_adapter, a->tokens),
                     head_part(a, &h, a->value, a->value_per_adapter, a->tokens), p, out, (float *)workspace);
      clear_head_rows(a, out, h.m, a->queries);
    }
    tile_release();
  }
  return status;
}

/* Gradients are computed only for per-adapter tensors. */
int TYPED(attention_backward)(const Attention *a) {
  int64_t width = a->heads * a->head_size, square = a->queries * round_up(a->tokens);
  int status = OK;
#pragma omp parallel num_threads((int)a->threads)
  {
    tile_configure();
    float *workspace = thread_workspace(head_bytes(a->tokens, a->head_size));
    if (!workspace) note_failure(&status);
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < a->adapters * a->rows * a->heads; item++) {
      if (!workspace) continue;
      HeadItem h = head_item(a, item);
      element *grad_q = head_part(a, &h, a->grad_query, 1, a->queries);
      element *grad_k = head_part(a, &h, a->grad_key, 1, a->tokens);
      element *grad_v = head_part(a, &h, a->grad_value, 1, a->tokens);
      head_attention_backward(h.m, h.n, a->head_size, width,
                              head_part(a, &h, a->query, a->query_per_adapter, a->queries),
                              head_part(a, &h, a->key, a->key_per_adapter, a->tokens),
                              head_part(a, &h, a->value, a->value_per_adapter, a->tokens),
                              (const element *)a->probabilities + item * square,
                              head_part(a, &h, a->grad_out, 1, a->queries), grad_q, grad_k, grad_v, workspace);
      clear_head_rows(a, grad_q, h.m, a->queries);
      clear_head_rows(a, grad_k, h.n, a->tokens);
      clear_head_rows(a, grad_v, h.n, a->tokens);
    }
    tile_release();
  }
  return status;
}

#endif
