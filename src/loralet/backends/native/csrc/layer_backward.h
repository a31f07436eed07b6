/* The backward pass of one layer of one chunk for one adapter. */
#ifndef LORALET_LAYER_BACKWARD_H
#define LORALET_LAYER_BACKWARD_H

#include "layer.h"

/* grad += dy^T x for a linear layer whose input differs between heads: dy [n, d], x [heads, n, d]. */
static inline void add_heads_gradient(const Encoder *e, int64_t n, const element *dy, const element *x, float *grad,
                                      const Workspace *w) {
  int64_t d = e->width, size = d / e->heads;
  for (int64_t head = 0; head < e->heads; head++)
    add_weight_gradient(n, size, dy + head * size, d, d, x + head * n * d, d, grad + head * size * d, w);
}

/* dz = rstd (g - mean(g) - hat mean(g hat)) with g = dy weight, where dy is the gradient of a layer norm's output. */
static inline void norm_backward(int64_t rows, int64_t d, const float *dy, const element *hat, const float *rstd,
                                 const float *weight, element *dz) {
  for (int64_t r = 0; r < rows; r++) {
    const float *y = dy + r * d;
    const element *h = hat + r * d;
    vec total = splat(0), along = splat(0);
    for (int64_t j = 0; j < d; j += LANES) {
      vec g = load_fp32(y + j) * load_fp32(weight + j);
      total += g;
      along += g * load(h + j);
    }
    float mean = vector_sum(total) / d, slope = vector_sum(along) / d;
    for (int64_t j = 0; j < d; j += LANES) {
      vec g = load_fp32(y + j) * load_fp32(weight + j);
      store(dz + r * d + j, (g - mean - load(h + j) * slope) * rstd[r]);
    }
  }
}

/* The weight gradient of a linear layer for this adapter and part. */
static inline float *weight_gradient(const Task *t, int which, int64_t o, int64_t d) {
  const Encoder *e = t->encoder;
  return e->layer[t->layer].weight_grad[which] + (t->part * e->adapters + t->adapter) * o * d;
}

/* The gradient of a linear layer: of the adapter's branch if it has one, else of the packed weights. */
static inline void linear_gradient(const Task *t, int which, int64_t m, int64_t o, int64_t d, const element *dy,
                                   const element *x, const Activations *a, const Workspace *w) {
  if (branch_of(t, which))
    branch_backward(t, which, m, o, d, dy, x, a->low[which], w);
  else if (t->encoder->layer[t->layer].merged[which])
    add_weight_gradient(m, o, dy, o, d, x, d, weight_gradient(t, which, o, d), w);
}

/* Reads the gradient of the output norm's input [m d] from w->dz. If `below`, overwrites it with the gradient of the
   attention norm's input. */
static inline void feed_forward_backward(const Task *t, int64_t m, const Activations *a, int below,
                                         const Workspace *w) {
  const Encoder *e = t->encoder;
  int64_t d = e->width, f = e->feed_forward;
  Packed weights = packed_weights(t, OUTPUT, f, d, 1);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    matmul_rows(rows, w->dz + i * d, d, weights, w->sums, f, 0);
    branch_input_gradient(t, OUTPUT, i, rows, f, d, w->sums, 0, w);
    for (int64_t j = 0; j < rows * f; j += LANES)
      store(w->du + i * f + j, load_fp32(w->sums + j) * load(a->gelu_grad + i * f + j));
  }
  linear_gradient(t, INTERMEDIATE, m, f, d, w->du, a->attended, a, w);
  if (!below) return;
  const float *norm = e->layer[t->layer].norm_weight[ATTENTION_NORM];
  weights = packed_weights(t, INTERMEDIATE, d, f, 1);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    matmul_rows(rows, w->du + i * f, f, weights, w->sums, d, 0);
    branch_input_gradient(t, INTERMEDIATE, i, rows, d, f, w->sums, 0, w);
    for (int64_t j = 0; j < rows * d; j += LANES)
      store_fp32(w->sums + j, load_fp32(w->sums + j) + load(w->dz + i * d + j));
    norm_backward(rows, d, w->sums, a->attention_hat + i * d, a->attention_rstd + i, norm, w->dz + i * d);
  }
}

/* Gradients of the queries, keys and values of a chunk from the gradient of its context, `grad`. */
static inline void attend_backward(const Task *t, const Activations *a, const element *grad, int below,
                                   const Workspace *w) {
  const Encoder *e = t->encoder;
  const Chunk *c = t->chunk;
  const int64_t *adapted = e->layer[t->layer].adapted;
  element *dq = below || adapted[QUERY] ? w->dq : NULL, *dk = below || adapted[KEY] ? w->dk : NULL;
  element *dv = below || adapted[VALUE] ? w->dv : NULL;
  int64_t size = e->width / e->heads, d = e->width;
  const element *p = a->probabilities;
  for (int64_t r = 0; r < c->rows; r++) {
    int64_t token = row_start(e, c, r), n = row_tokens(e, c, r), m = t->cls ? 1 : n;
    for (int64_t head = 0; head < e->heads; head++, p += m * round_up(n)) {
      int64_t q = (t->cls ? r : token) * d + head * size, at = token * d + head * size;
      head_attention_backward(m, n, size, d, a->query + q, a->key + at, a->value + at, p, grad + q, dq ? dq + q : NULL,
                              dk ? dk + at : NULL, dv ? dv + at : NULL, w->head);
    }
  }
}

/* The gradient of a layer's input, w->dy [n d], from w->dz, the gradient of the residual sum, and from the gradients of
   queries, keys and values. If keys and values were not computed, w->dy already contains their contribution. */
static inline void input_gradient(const Task *t, int keys, const Workspace *w) {
  const Encoder *e = t->encoder;
  const Chunk *c = t->chunk;
  int64_t n = c->tokens, d = e->width;
  Packed query = packed_weights(t, QUERY, d, d, 1);
  if (keys) {
    matmul_rows(n, w->dk, d, packed_weights(t, KEY, d, d, 1), w->dy, d, 0);
    matmul_rows(n, w->dv, d, packed_weights(t, VALUE, d, d, 1), w->dy, d, 1);
  }
  if (!t->cls) {
    matmul_rows(n, w->dq, d, query, w->dy, d, 1);
    for (int64_t j = 0; j < n * d; j += LANES) store_fp32(w->dy + j, load_fp32(w->dy + j) + load(w->dz + j));
    return;
  }
  for (int64_t i = 0; i < c->rows; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, c->rows - i);
    matmul_rows(rows, w->dq + i * d, d, query, w->sums, d, 0);
    for (int64_t r = 0; r < rows; r++) {
      float *to = w->dy + row_start(e, c, i + r) * d;
      for (int64_t j = 0; j < d; j += LANES) {
        vec grad = load_fp32(w->sums + r * d + j) + load(w->dz + (i + r) * d + j);
        store_fp32(to + j, load_fp32(to + j) + grad);
      }
    }
  }
}

/* Backward pass of attention and its linear layers from w->dz, the gradient of the attention norm's input. Adds the
   gradients of the weights, and writes w->dy if `below`. */
static inline void attention_part_backward(const Task *t, int64_t m, const element *x, const Activations *a, int below,
                                           const Workspace *w) {
  const Encoder *e = t->encoder;
  const Layer *l = &e->layer[t->layer];
  Task all = *t;
  all.cls = 0;
  int keys = forms_keys(e, t->layer);
  int64_t n = t->chunk->tokens, d = e->width;
  Packed output = packed_weights(t, ATTENTION_OUTPUT, d, d, 1);
  element *context_grad = w->du; /* du is not needed any more */
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    matmul_rows(rows, w->dz + i * d, d, output, w->sums, d, 0);
    branch_input_gradient(t, ATTENTION_OUTPUT, i, rows, d, d, w->sums, 0, w);
    store_rows(rows, d, w->sums, context_grad + i * d, d);
  }
  if (t->cls) gather_cls_rows(e, t->chunk, x, w->cls_rows);
  if (keys) {
    attend_backward(t, a, context_grad, below, w);
  } else {
    cls_attention_backward(e, t->chunk, context_grad, x, packed_weights(t, KEY, d, d, 0),
                           packed_weights(t, VALUE, d, d, 1), &a->cls, w->dq, below ? w->dy : NULL, w);
    if (l->merged[KEY]) add_heads_gradient(e, m, a->query, w->key_grad, weight_gradient(t, KEY, d, d), w);
    if (l->merged[VALUE])
      add_heads_gradient(e, m, context_grad, a->cls.mean_input, weight_gradient(t, VALUE, d, d), w);
  }
  if (below) input_gradient(t, keys, w);
  linear_gradient(t, QUERY, m, d, d, w->dq, t->cls ? w->cls_rows : x, a, w);
  if (below) branch_input_gradient(t, QUERY, 0, m, d, d, w->dy, t->cls, w);
  if (!keys) return;
  linear_gradient(&all, KEY, n, d, d, w->dk, x, a, w);
  if (below) branch_input_gradient(&all, KEY, 0, n, d, d, w->dy, 0, w);
  linear_gradient(&all, VALUE, n, d, d, w->dv, x, a, w);
  if (below) branch_input_gradient(&all, VALUE, 0, n, d, d, w->dy, 0, w);
}

/* One layer for one adapter. Reads the gradient of the output from w->dy, and overwrites it with the gradient of the
   input if a lower layer has an adapter. The gradients of the weights are added to those of `part`. */
static inline void layer_backward(const Encoder *e, const Chunk *c, int64_t layer, int64_t adapter, int64_t part,
                                  char *base, const Workspace *w) {
  const Layer *l = &e->layer[layer];
  Task task = {e, c, layer, adapter, part, is_cls_layer(e, layer)}, *t = &task;
  int below = layer > e->lowest_adapted;
  int attention = below || l->adapted[QUERY] || l->adapted[KEY] || l->adapted[VALUE];
  int attended = attention || l->adapted[ATTENTION_OUTPUT];
  int64_t m = t->cls ? c->rows : c->tokens, d = e->width;
  Activations a = activations_of(e, c, layer, adapter, base, NULL);
  norm_backward(m, d, w->dy, a.output_hat, a.output_rstd, l->norm_weight[OUTPUT_NORM], w->dz);
  linear_gradient(t, OUTPUT, m, d, e->feed_forward, w->dz, a.inner, &a, w);
  if (!attended && !l->adapted[INTERMEDIATE]) return;
  feed_forward_backward(t, m, &a, attended, w);
  if (!attended) return;
  linear_gradient(t, ATTENTION_OUTPUT, m, d, d, w->dz, a.context, &a, w);
  if (attention) attention_part_backward(t, m, input_of(e, c, layer, adapter, base), &a, below, w);
}

#endif
