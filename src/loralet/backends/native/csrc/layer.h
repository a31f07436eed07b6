/* The forward pass of one layer of one chunk for one adapter. */
#ifndef LORALET_LAYER_H
#define LORALET_LAYER_H

#include "branch.h"
#include "cls_attention.h"

/* The packed weights of a linear layer with d inputs and o outputs. */
static inline Packed packed_weights(const Task *t, int which, int64_t d, int64_t o, int backward) {
  const Layer *l = &t->encoder->layer[t->layer];
  const unit *all = backward ? l->backward[which] : l->forward[which];
  if (l->merged[which]) all += t->adapter * (d / PAIR * o);
  return backward ? (Packed){all, o / PAIR, d} : (Packed){all, d / PAIR, o};
}

/* w->sums = x W^T for `rows` rows of x from `row` on, plus the adapter's branch. */
static inline void linear_product(const Task *t, int which, int64_t row, int64_t rows, int64_t d, int64_t o,
                                  const element *x, element *low, const Workspace *w) {
  matmul_rows(rows, x + row * d, d, packed_weights(t, which, d, o, 0), w->sums, o, 0);
  if (low) branch_forward(t, which, row, rows, d, o, x + row * d, low, w->sums, w);
}

/* out = x W^T + bias */
static inline void linear(const Task *t, int which, int64_t m, const element *x, element *out, element *low,
                          const Workspace *w) {
  const float *bias = t->encoder->layer[t->layer].bias[which];
  int64_t d = t->encoder->width;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    linear_product(t, which, i, rows, d, d, x, low, w);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < d; j += LANES)
        store(out + (i + r) * d + j, load_fp32(w->sums + r * d + j) + load_fp32(bias + j));
  }
}

/* out = gelu(x W^T + bias). The derivative is written to `grad` if that is not null. */
static inline void linear_gelu(const Task *t, int64_t m, const element *x, element *out, element *grad, element *low,
                               const Workspace *w) {
  const float *bias = t->encoder->layer[t->layer].bias[INTERMEDIATE];
  int64_t f = t->encoder->feed_forward;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    linear_product(t, INTERMEDIATE, i, rows, t->encoder->width, f, x, low, w);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < f; j += LANES) {
        vec derivative, y = gelu(load_fp32(w->sums + r * f + j) + load_fp32(bias + j), &derivative);
        store(out + (i + r) * f + j, y);
        if (grad) store(grad + (i + r) * f + j, derivative);
      }
  }
}

/* Layer norm (Ba et al. 2016) of one row z [o]. Writes the normalised row to `hat` (if not null) and the result to
   `out`. Returns the reciprocal standard deviation. */
static inline float norm_row(int64_t o, float epsilon, const float *z, vec total, const float *weight,
                             const float *bias, element *hat, element *out) {
  vec squares = splat(0);
  float mean = vector_sum(total) / o;
  for (int64_t j = 0; j < o; j += LANES) {
    vec v = load_fp32(z + j) - mean;
    squares += v * v;
  }
  float rstd = 1.0f / sqrtf(vector_sum(squares) / o + epsilon);
  for (int64_t j = 0; j < o; j += LANES) {
    vec v = (load_fp32(z + j) - mean) * rstd;
    if (hat) store(hat + j, v);
    store(out + j, v * load_fp32(weight + j) + load_fp32(bias + j));
  }
  return rstd;
}

/* out = LayerNorm(x W^T + bias + residual) */
static inline void linear_norm(const Task *t, int which, int64_t m, int64_t d, const element *x,
                               const element *residual, element *hat, element *out, float *rstd, element *low,
                               const Workspace *w) {
  const Encoder *e = t->encoder;
  const Layer *l = &e->layer[t->layer];
  int norm = which == OUTPUT ? OUTPUT_NORM : ATTENTION_NORM;
  int64_t o = e->width;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = smaller(BLOCK_ROWS, m - i);
    linear_product(t, which, i, rows, d, o, x, low, w);
    for (int64_t r = 0; r < rows; r++) {
      float *z = w->sums + r * o;
      int64_t at = (i + r) * o;
      vec total = splat(0);
      for (int64_t j = 0; j < o; j += LANES) {
        vec v = load_fp32(z + j) + load_fp32(l->bias[which] + j) + load(residual + at + j);
        store_fp32(z + j, v);
        total += v;
      }
      float found =
          norm_row(o, e->epsilon, z, total, l->norm_weight[norm], l->norm_bias[norm], hat ? hat + at : NULL, out + at);
      if (rstd) rstd[i + r] = found;
    }
  }
}

/* The states of the first tokens of a chunk. */
static inline void gather_cls_rows(const Encoder *e, const Chunk *c, const element *x, element *out) {
  for (int64_t r = 0; r < c->rows; r++)
    memcpy(out + r * e->width, x + row_start(e, c, r) * e->width, sizeof(element) * e->width);
}

/* The context of every row and head of a chunk. */
static inline void attend(const Task *t, const Activations *a, const Workspace *w) {
  const Encoder *e = t->encoder;
  const Chunk *c = t->chunk;
  int64_t size = e->width / e->heads, d = e->width;
  element *p = a->probabilities;
  for (int64_t r = 0; r < c->rows; r++) {
    int64_t token = row_start(e, c, r), n = row_tokens(e, c, r), m = t->cls ? 1 : n;
    for (int64_t head = 0; head < e->heads; head++, p += m * round_up(n)) {
      int64_t q = (t->cls ? r : token) * d + head * size, at = token * d + head * size;
      head_attention(m, n, size, d, a->query + q, a->key + at, a->value + at, p, a->context + q, w->head);
    }
  }
}

/* The input of a layer: the output of the layer below, or the embeddings. */
static inline const element *input_of(const Encoder *e, const Chunk *c, int64_t layer, int64_t adapter, char *base) {
  if (layer) return activations_of(e, c, layer - 1, adapter, base, NULL).out;
  return (const element *)e->input + c->token * e->width;
}

/* One layer for one adapter. Values that all adapters share are computed for the first adapter. */
static inline void layer_forward(const Encoder *e, const Chunk *c, int64_t layer, int64_t adapter, char *base,
                                 const Workspace *w) {
  const Layer *l = &e->layer[layer];
  Task all = {e, c, layer, adapter, 0, 0}, task = all, *t = &task;
  t->cls = is_cls_layer(e, layer);
  int keys = forms_keys(e, layer), first = !adapter;
  int64_t n = c->tokens, m = t->cls ? c->rows : n, d = e->width;
  const element *x = input_of(e, c, layer, adapter, base), *rows = t->cls ? w->cls_rows : x;
  Activations a = activations_of(e, c, layer, adapter, base, NULL);
  if (t->cls) gather_cls_rows(e, c, x, w->cls_rows);
  if (first || l->per_adapter[QUERY]) linear(t, QUERY, m, rows, a.query, a.low[QUERY], w);
  if (!keys && (first || l->per_adapter[CONTEXT]))
    cls_attention(e, c, a.query, x, packed_weights(t, KEY, d, d, 1), packed_weights(t, VALUE, d, d, 0),
                  l->bias[VALUE], &a.cls, a.context, w->sums);
  if (keys && (first || l->per_adapter[KEY])) linear(&all, KEY, n, x, a.key, a.low[KEY], w);
  if (keys && (first || l->per_adapter[VALUE])) linear(&all, VALUE, n, x, a.value, a.low[VALUE], w);
  if (keys && (first || l->per_adapter[CONTEXT])) attend(t, &a, w);
  if (first || l->per_adapter[ATTENDED])
    linear_norm(t, ATTENTION_OUTPUT, m, d, a.context, rows, a.attention_hat, a.attended, a.attention_rstd,
                a.low[ATTENTION_OUTPUT], w);
  if (first || l->per_adapter[INNER]) linear_gelu(t, m, a.attended, a.inner, a.gelu_grad, a.low[INTERMEDIATE], w);
  if (first || l->per_adapter[OUT])
    linear_norm(t, OUTPUT, m, e->feed_forward, a.inner, a.attended, a.output_hat, a.out, a.output_rstd, a.low[OUTPUT],
                w);
}

#endif
