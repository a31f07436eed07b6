/* Attention of first tokens only, for the last layer if the head reads only the first token.

   Keys and values are not computed. With one query per head, the scores are q (W x) = (W^T q) x, up to a constant that
   the softmax removes, and the context is W (sum of p x) + bias. So both products with W have one row per text instead
   of one per token, and the sums over tokens are cheap. */
#ifndef LORALET_CLS_ATTENTION_H
#define LORALET_CLS_ATTENTION_H

#include <math.h>

#include "workspace.h"

/* out [heads, rows, d]: each head's columns of x [rows, d] times its rows of W. `weights` is packed for backward. */
static inline void multiply_head_rows(const Encoder *e, int64_t rows, const element *x, Packed weights,
                                      element *out, float *sums) {
  int64_t d = e->width, size = d / e->heads;
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
      int64_t some = smaller(BLOCK_ROWS, rows - i);
      const unit *columns = as_units(x + i * d + head * size);
      matmul_packed(some, d, size / PAIR, columns, d / PAIR, 1, weights, head * size / PAIR, 0, sums, d, 0);
      store_rows(some, d, sums, out + (head * rows + i) * d, d);
    }
}

/* out [rows, d]: each head's x [head, rows, d] times its transposed rows of W, plus bias if that is not null. `weights`
   is packed for forward. */
static inline void multiply_head_columns(const Encoder *e, int64_t rows, const element *x, Packed weights,
                                         const float *bias, element *out, float *sums) {
  int64_t d = e->width, size = d / e->heads;
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
      int64_t some = smaller(BLOCK_ROWS, rows - i), at = head * size;
      const unit *head_rows = as_units(x + (head * rows + i) * d);
      matmul_packed(some, size, d / PAIR, head_rows, d / PAIR, 1, weights, 0, at, sums, size, 0);
      for (int64_t r = 0; r < some; r++)
        for (int64_t j = 0; j < size; j += LANES) {
          vec v = load_fp32(sums + r * size + j);
          store(out + (i + r) * d + at + j, bias ? v + load_fp32(bias + at + j) : v);
        }
    }
}

static inline float inner_product(int64_t d, const element *a, const element *x) {
  vec total = splat(0);
  for (int64_t j = 0; j < d / PAIR; j += LANES)
    total = multiply_add(total, load_units(as_units(a) + j), load_units(as_units(x) + j));
  return vector_sum(total);
}

/* out [d] = sum of factor x over n tokens */
static inline void weighted_sum(int64_t n, int64_t d, const float *factors, const element *x, element *out) {
  for (int64_t j = 0; j < d; j += LANES) {
    vec total = splat(0);
    for (int64_t t = 0; t < n; t++) total += factors[t] * load(x + t * d + j);
    store(out + j, total);
  }
}

/* The context of first tokens, [rows, d], from their queries, [rows, d], and the layer's input, x [tokens, d].
   `key_back` is packed for backward, `value` for forward. */
static inline void cls_attention(const Encoder *e, const Chunk *c, const element *query, const element *x,
                                 Packed key_back, Packed value, const float *value_bias,
                                 const ClsActivations *a, element *context, float *sums) {
  int64_t d = e->width;
  float scale = 1.0f / sqrtf((float)(d / e->heads));
  multiply_head_rows(e, c->rows, query, key_back, a->key_query, sums);
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t r = 0; r < c->rows; r++) {
      int64_t token = row_start(e, c, r), n = row_tokens(e, c, r), at = (head * c->rows + r) * d;
      float *p = a->probabilities + head * c->tokens + token, most = -INFINITY, total = 0;
      for (int64_t t = 0; t < n; t++) {
        p[t] = inner_product(d, a->key_query + at, x + (token + t) * d) * scale;
        most = p[t] > most ? p[t] : most;
      }
      for (int64_t t = 0; t < n; t++) total += p[t] = expf(p[t] - most);
      for (int64_t t = 0; t < n; t++) p[t] /= total;
      weighted_sum(n, d, p, x + token * d, a->mean_input + at);
    }
  multiply_head_columns(e, c->rows, a->mean_input, value, value_bias, context, sums);
}

/* Backward pass from the gradient of the context, grad [rows, d]. Writes the gradient of the query to dq [rows, d], and
   the gradient of the input to dx, fp32 [tokens, d] (if not null). w->value_grad [heads, rows, d] is the context's
   gradient times the value weights. w->key_grad [heads, rows, d] is the input weighted by the scores' gradients; the
   gradient of the key weights is computed from it. `key` is packed for forward, `value_back` for backward. */
static inline void cls_attention_backward(const Encoder *e, const Chunk *c, const element *grad, const element *x,
                                          Packed key, Packed value_back, const ClsActivations *a, element *dq,
                                          float *dx, const Workspace *w) {
  int64_t d = e->width;
  float scale = 1.0f / sqrtf((float)(d / e->heads));
  multiply_head_rows(e, c->rows, grad, value_back, w->value_grad, w->sums);
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t r = 0; r < c->rows; r++) {
      int64_t token = row_start(e, c, r), n = row_tokens(e, c, r), at = (head * c->rows + r) * d;
      const float *p = a->probabilities + head * c->tokens + token;
      float *s = w->cls_scores + head * c->tokens + token, mean = 0;
      for (int64_t t = 0; t < n; t++) mean += p[t] * (s[t] = inner_product(d, w->value_grad + at, x + (token + t) * d));
      for (int64_t t = 0; t < n; t++) s[t] = p[t] * (s[t] - mean) * scale;
      weighted_sum(n, d, s, x + token * d, w->key_grad + at);
      for (int64_t t = 0; dx && t < n; t++)
        for (int64_t j = 0; j < d; j += LANES) {
          vec v = s[t] * load(a->key_query + at + j) + p[t] * load(w->value_grad + at + j);
          float *to = dx + (token + t) * d + j;
          store_fp32(to, head ? load_fp32(to) + v : v);
        }
    }
  multiply_head_columns(e, c->rows, w->key_grad, key, NULL, dq, w->sums);
}

#endif
