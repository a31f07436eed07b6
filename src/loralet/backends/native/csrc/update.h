/* Clipping and AdamW (Loshchilov and Hutter 2019, algorithm 2) for every adapter in two passes over its numbers; the twin in torch is loralet.training.optimizer. */

typedef struct {
  float clip, beta1, beta2, epsilon, correction1, correction2; /* corrections: 1 - beta^step of the first moment, the root of that of the second */
} Course;

/* One step of `sets` rows of `count` numbers, in place. A row that is not `sound` when it comes in, or whose gradient's norm is not finite, is left as it is,
   and is marked so. */
void adamw(const Course *c, float *parameters, const float *gradient, float *first, float *second, const float *lr, const float *decay, int64_t sets,
           int64_t count, uint8_t *sound, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (sets > 1)
  for (int64_t set = 0; set < sets; set++) {
    const float *g = gradient + set * count;
    float *p = parameters + set * count, *m = first + set * count, *v = second + set * count, rate = lr[set];
    fwide squares = splat(0);
    float rest = 0;
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) {
      fwide x = (fwide) * (const vec *)(g + i);
      squares += x * x;
    }
    for (; i < count; i++) rest += g[i] * g[i];
    float norm = sqrtf(sum(squares) + rest);
    if (!sound[set] || !isfinite(norm)) {
      sound[set] = 0;
      continue;
    }
    float shrink = c->clip > 0 && norm + 1e-6f > c->clip ? c->clip / (norm + 1e-6f) : 1.0f;
    for (i = 0; i < count; i++) {
      float x = g[i] * shrink;
      m[i] += (1 - c->beta1) * (x - m[i]);
      v[i] = c->beta2 * v[i] + (1 - c->beta2) * x * x;
      p[i] = p[i] * (1 - rate * decay[i]) - rate / c->correction1 * m[i] / (sqrtf(v[i]) / c->correction2 + c->epsilon);
    }
  }
}
