/* The classification head for several adapters at once, always in fp32. The features are tanh(W h + b) of each row's
   first token (the pooler of Devlin et al. 2019) or the mean of its tokens' states. Dropout and a linear classifier
   follow. The caller computes the loss between the two passes. */
#include "mask.h"
#include "matmul.h"
#include "memory.h"

/* features [rows, width] = the mean of each row's states */
static void mean_features(const Head *h, const float *states, float *features) {
  int64_t d = h->width;
  for (int64_t r = 0; r < h->rows; r++)
    for (int64_t j = 0; j < d; j += LANES) {
      vec total = splat(0);
      for (int64_t t = h->offsets[r]; t < h->offsets[r + 1]; t++) total += load(states + t * d + j);
      store(features + r * d + j, total / (float)(h->offsets[r + 1] - h->offsets[r]));
    }
}

/* features [rows, width] = tanh(W h + b); `columns` [width, width] is workspace. */
static void pooler_features(const Head *h, int64_t adapter, const float *states, float *columns, float *features) {
  const float *bias = h->pooler_bias + adapter * h->pooler_stride;
  int64_t d = h->width;
  const float *weight = h->pooler_weight + adapter * h->pooler_stride;
  matmul_rows(h->rows, states, d, pack_transposed(d, d, weight, d, columns, d), features, d, 0);
  for (int64_t r = 0; r < h->rows; r++)
    for (int64_t j = 0; j < d; j += LANES)
      store(features + r * d + j, hyperbolic_tangent(load(features + r * d + j) + load(bias + j)));
}

/* out [width] = mask x for one row */
static void mask_row(const Head *h, int64_t adapter, int64_t row, const float *x, float *out) {
  int64_t place = (h->row_numbers ? h->row_numbers[row] : row) * h->width;
  for (int64_t j = 0; j < h->width; j += LANES)
    store(out + j, load(x + j) * mask_at(h->dropout + adapter, h->dropout_index, place + j));
}

static int adapter_forward(const Head *h, int64_t adapter) {
  int64_t d = h->width;
  const float *states = h->states + adapter * h->state_stride;
  const float *weight = h->classifier_weight + adapter * h->parameter_stride;
  const float *bias = h->classifier_bias + adapter * h->parameter_stride;
  float *features = h->features + adapter * h->rows * d, *logits = h->logits + adapter * h->rows * h->outputs;
  float *masked = thread_workspace((int64_t)sizeof(float) * (d + d * d));
  if (!masked) return OUT_OF_MEMORY;
  if (h->offsets)
    mean_features(h, states, features);
  else
    pooler_features(h, adapter, states, masked + d, features);
  for (int64_t r = 0; r < h->rows; r++) {
    const float *x = features + r * d;
    if (h->dropout) mask_row(h, adapter, r, x, masked), x = masked;
    for (int64_t c = 0; c < h->outputs; c++) {
      vec product = splat(0);
      for (int64_t j = 0; j < d; j += LANES) product += load(x + j) * load(weight + c * d + j);
      logits[r * h->outputs + c] = vector_sum(product) + bias[c];
    }
  }
  return OK;
}

/* Gradients of the states and of a trained pooler, from the gradient of the features [rows, width], which is
   overwritten. */
static void features_backward(const Head *h, int64_t adapter, float *grad) {
  int64_t d = h->width;
  const float *states = h->states + adapter * h->state_stride, *features = h->features + adapter * h->rows * d;
  float *out = h->grad_states ? h->grad_states + adapter * h->state_stride : NULL;
  if (h->offsets) {
    for (int64_t r = 0; out && r < h->rows; r++)
      for (int64_t t = h->offsets[r]; t < h->offsets[r + 1]; t++)
        for (int64_t j = 0; j < d; j += LANES)
          store(out + t * d + j, load(grad + r * d + j) / (float)(h->offsets[r + 1] - h->offsets[r]));
    return;
  }
  for (int64_t i = 0; i < h->rows * d; i += LANES) {
    vec f = load(features + i);
    store(grad + i, load(grad + i) * (1.0f - f * f));
  }
  if (h->grad_pooler_weight) {
    float *bias = h->grad_pooler_bias + adapter * h->parameter_stride;
    float *weight = h->grad_pooler_weight + adapter * h->parameter_stride;
    matmul(d, d, h->rows, grad, 1, d, states, d, weight, d, 0);
    memset(bias, 0, sizeof(float) * d);
    for (int64_t i = 0; i < h->rows * d; i += LANES) store(bias + i % d, load(bias + i % d) + load(grad + i));
  }
  if (out) matmul(h->rows, d, d, grad, d, 1, h->pooler_weight + adapter * h->pooler_stride, d, out, d, 0);
}

static int adapter_backward(const Head *h, int64_t adapter) {
  int64_t d = h->width;
  const float *weight = h->classifier_weight + adapter * h->parameter_stride;
  const float *grad_logits = h->grad_logits + adapter * h->rows * h->outputs;
  float *grad_weight = h->grad_classifier_weight + adapter * h->parameter_stride;
  float *grad_bias = h->grad_classifier_bias + adapter * h->parameter_stride;
  float *masked = thread_workspace((int64_t)sizeof(float) * (d + h->rows * d)), *grad = masked + d;
  if (!masked) return OUT_OF_MEMORY;
  memset(grad_weight, 0, sizeof(float) * h->outputs * d);
  memset(grad_bias, 0, sizeof(float) * h->outputs);
  memset(grad, 0, sizeof(float) * h->rows * d);
  for (int64_t r = 0; r < h->rows; r++) {
    const float *x = h->features + (adapter * h->rows + r) * d;
    float *grad_row = grad + r * d;
    if (h->dropout) mask_row(h, adapter, r, x, masked), x = masked;
    for (int64_t c = 0; c < h->outputs; c++) {
      float g = grad_logits[r * h->outputs + c];
      grad_bias[c] += g;
      for (int64_t j = 0; j < d; j += LANES) {
        store(grad_weight + c * d + j, load(grad_weight + c * d + j) + g * load(x + j));
        store(grad_row + j, load(grad_row + j) + g * load(weight + c * d + j));
      }
    }
    if (h->dropout) mask_row(h, adapter, r, grad_row, grad_row);
  }
  features_backward(h, adapter, grad);
  return OK;
}

int head_forward(const Head *h) {
  int status = OK;
#pragma omp parallel for num_threads((int)h->threads) if (h->adapters > 1)
  for (int64_t adapter = 0; adapter < h->adapters; adapter++)
    if (adapter_forward(h, adapter)) note_failure(&status);
  return status;
}

int head_backward(const Head *h) {
  int status = OK;
#pragma omp parallel for num_threads((int)h->threads) if (h->adapters > 1)
  for (int64_t adapter = 0; adapter < h->adapters; adapter++)
    if (adapter_backward(h, adapter)) note_failure(&status);
  return status;
}
