/* Gradient clipping and AdamW for every adapter, in two passes over its parameters. The torch backend is the
   reference. */
#include <math.h>
#include <stddef.h>

#include "api.h"
#include "vectors.h"

static float norm(const float *x, int64_t size) {
  vec squares = splat(0);
  float rest = 0;
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) squares += load_fp32(x + i) * load_fp32(x + i);
  for (; i < size; i++) rest += x[i] * x[i];
  return sqrtf(vector_sum(squares) + rest);
}

/* `factors`: factors of one adapter's learning rate, or null. */
static inline void adamw_row(const AdamW *a, int64_t adapter, float shrink, const float *factors) {
  const float *g = a->gradient + adapter * a->size, *decay = a->decay, rate = a->lr[adapter];
  const float beta2 = (float)a->beta2, rest1 = (float)(1 - a->beta1), rest2 = (float)(1 - a->beta2);
  float *p = a->parameters + adapter * a->size, *m = a->first + adapter * a->size, *v = a->second + adapter * a->size;
  for (int64_t i = 0; i < a->size; i++) {
    float x = g[i] * shrink, lr = factors ? rate * factors[i] : rate;
    m[i] += rest1 * (x - m[i]);
    v[i] = beta2 * v[i] + rest2 * x * x;
    p[i] = p[i] * (1 - lr * decay[i]) - lr / a->correction1 * m[i] / (sqrtf(v[i]) / a->correction2 + a->epsilon);
  }
}

int adamw(const AdamW *a) {
#pragma omp parallel for num_threads((int)a->threads) if (a->adapters > 1)
  for (int64_t adapter = 0; adapter < a->adapters; adapter++) {
    float size = norm(a->gradient + adapter * a->size, a->size);
    if (!isfinite(size)) a->finite[adapter] = 0;
    if (!a->finite[adapter]) continue;
    float shrink = a->clip > 0 && size + 1e-6f > a->clip ? a->clip / (size + 1e-6f) : 1.0f;
    if (a->lr_factors)
      adamw_row(a, adapter, shrink, a->lr_factors + adapter * a->size);
    else
      adamw_row(a, adapter, shrink, NULL);
  }
  return OK;
}
