/* Attention over short rows: many tiny matrix products, which general libraries do one slow call at a time, and casts and transposes around them.

   Tensors are dense, fp32 or bf16 (`half` = 1); the arithmetic is always fp32. Plain C with GCC/Clang vector types, so that any processor
   can build it; the compiler is told to use the one at hand. Threads are OpenMP's, the same pool that torch uses.

   It works on rows as the linear maps leave them, [sets, rows, tokens, width], heads side by side in the width, so nothing is transposed
   in memory, and it stops at each row's own length, so padding costs nothing. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int32_t wide __attribute__((vector_size(4 * LANES)));
typedef uint32_t uwide __attribute__((vector_size(4 * LANES)));
typedef float fwide __attribute__((vector_size(4 * LANES)));

static inline int64_t round_up(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* bf16 is the upper half of an fp32; rounding is to nearest, ties to even. */
static inline fwide widen(hvec h) { return (fwide)(__builtin_convertvector(h, uwide) << 16); }
static inline hvec narrow(fwide f) {
  uwide u = (uwide)f;
  return __builtin_convertvector((u + 0x7fffu + ((u >> 16) & 1u)) >> 16, hvec);
}
static inline fwide load(const void *p, int64_t i, int half) {
  return half ? widen(*(const hvec *)((const uint16_t *)p + i)) : (fwide) * (const vec *)((const float *)p + i);
}
static inline void store(void *p, int64_t i, int half, fwide v) {
  if (half)
    *(hvec *)((uint16_t *)p + i) = narrow(v);
  else
    *(vec *)((float *)p + i) = (vec)v;
}
static inline fwide splat(float f) { return (fwide){} + f; }
static inline fwide pick(wide mask, fwide yes, fwide no) { return (fwide)((mask & (wide)yes) | (~mask & (wide)no)); }
static inline float sum(fwide v) {
  float s = 0;
  for (int i = 0; i < LANES; i++) s += v[i];
  return s;
}

/* The largest of `count` numbers, a multiple of 16; one that is not a number may be passed over, and shows in the sum of the exponentials instead. */
static inline float maximum(const float *p, int64_t count) {
  fwide best = (fwide) * (const vec *)p;
  for (int64_t i = LANES; i < count; i += LANES) {
    fwide v = (fwide) * (const vec *)(p + i);
    best = pick(v > best, v, best);
  }
  float largest = best[0];
  for (int i = 1; i < LANES; i++) largest = best[i] > largest ? best[i] : largest;
  return largest;
}

/* e^x to about one unit in the last place: x = n ln 2 + r, a degree-6 Taylor polynomial in r (|r| <= ln 2 / 2), then n into the exponent. */
static inline fwide exponential(fwide x) {
  x = pick(x < splat(-87.0f), splat(-87.0f), x);
  x = pick(x > splat(88.0f), splat(88.0f), x);
  fwide scaled = x * 1.44269504f;
  wide n = __builtin_convertvector(scaled + pick(scaled < splat(0), splat(-0.5f), splat(0.5f)), wide);
  fwide whole = __builtin_convertvector(n, fwide);
  fwide r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  fwide p = splat(1.0f / 720);
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * (fwide)((n + 127) << 23);
}

/* `rows` (a constant where this is inlined) rows of a product by 64 columns, kept in registers. */
static inline __attribute__((always_inline)) void block(int rows, int64_t k, const float *a, int64_t a_row, int64_t a_column, const float *b,
                                                        int64_t b_row, float *c, int64_t c_row) {
  fwide s[4][4];
  for (int x = 0; x < rows; x++)
    for (int y = 0; y < 4; y++) s[x][y] = splat(0);
  for (int64_t l = 0; l < k; l++) {
    const float *row = b + l * b_row;
    fwide b0 = (fwide) * (const vec *)row, b1 = (fwide) * (const vec *)(row + LANES);
    fwide b2 = (fwide) * (const vec *)(row + 2 * LANES), b3 = (fwide) * (const vec *)(row + 3 * LANES);
    for (int x = 0; x < rows; x++) {
      fwide factor = splat(a[x * a_row + l * a_column]);
      s[x][0] += factor * b0;
      s[x][1] += factor * b1;
      s[x][2] += factor * b2;
      s[x][3] += factor * b3;
    }
  }
  for (int x = 0; x < rows; x++)
    for (int y = 0; y < 4; y++) *(vec *)(c + x * c_row + y * LANES) = (vec)s[x][y];
}

/* C[m, n] = A[m, k] B[k, n]: A by any strides, B and C dense in their rows, n a multiple of 16. */
static void multiply(int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t b_row, float *c,
                     int64_t c_row) {
  int64_t j = 0;
  for (; j + 4 * LANES <= n; j += 4 * LANES) {
    int64_t i = 0;
    for (; i + 4 <= m; i += 4) block(4, k, a + i * a_row, a_row, a_column, b + j, b_row, c + i * c_row + j, c_row);
    if (m - i == 3) block(3, k, a + i * a_row, a_row, a_column, b + j, b_row, c + i * c_row + j, c_row);
    if (m - i == 2) block(2, k, a + i * a_row, a_row, a_column, b + j, b_row, c + i * c_row + j, c_row);
    if (m - i == 1) block(1, k, a + i * a_row, a_row, a_column, b + j, b_row, c + i * c_row + j, c_row);
  }
  for (; j < n; j += LANES) { /* what is left of the columns: four rows at a time, one vector wide */
    for (int64_t i = 0; i < m; i += 4) {
      int64_t rows = m - i < 4 ? m - i : 4;
      fwide s[4] = {splat(0), splat(0), splat(0), splat(0)};
      for (int64_t l = 0; l < k; l++) {
        fwide column = (fwide) * (const vec *)(b + l * b_row + j);
        for (int64_t x = 0; x < 4; x++) s[x] += a[(i + (x < rows ? x : 0)) * a_row + l * a_column] * column;
      }
      for (int64_t x = 0; x < rows; x++) *(vec *)(c + (i + x) * c_row + j) = (vec)s[x];
    }
  }
}

/* Row-by-row copies of one head between a tensor and fp32 scratch. */
static void read_head(const void *p, int64_t first, int64_t stride, int64_t tokens, int64_t width, int half, float factor, float *out) {
  for (int64_t i = 0; i < tokens; i++)
    for (int64_t e = 0; e < width; e += LANES) *(vec *)(out + i * width + e) = (vec)(load(p, first + i * stride + e, half) * factor);
}
static void write_head(void *p, int64_t first, int64_t stride, int64_t tokens, int64_t padded, int64_t width, int half, const float *in) {
  for (int64_t i = 0; i < padded; i++)
    for (int64_t e = 0; e < width; e += LANES)
      store(p, first + i * stride + e, half, i < tokens ? (fwide) * (const vec *)(in + i * width + e) : splat(0));
}
static void transpose(const float *in, int64_t rows, int64_t columns, float *out, int64_t out_row) {
  for (int64_t e = 0; e < columns; e++) memset(out + e * out_row + rows, 0, 4 * (out_row - rows));
  for (int64_t i = 0; i < rows; i++)
    for (int64_t e = 0; e < columns; e++) out[e * out_row + i] = in[i * columns + e];
}

/* A tensor either has a set axis of its own (`_own` = 1) or is shared by all sets. */
#define HEAD_OF(own, tokens) (((own) ? set : 0) * rows + row) * (tokens) * width + head * size

/* out = softmax(q k^T / sqrt(size)) v for every set, row and head. The probabilities, [sets, rows, heads, reads, tokens rounded up to 16], are kept
   for the backward pass where `kept` is not null. */
void attention_forward(const void *q, int64_t q_own, const void *k, int64_t k_own, const void *v, int64_t v_own, const int64_t *lengths, void *out,
                       float *kept, int64_t sets, int64_t rows, int64_t reads, int64_t tokens, int64_t heads, int64_t size, int half) {
  int64_t width = heads * size, long_row = round_up(tokens);
#pragma omp parallel
  {
    float *values = malloc(4 * (2 * tokens * size + reads * size + size * long_row + reads * long_row));
    float *queries = values + tokens * size, *keys = queries + reads * size, *keys_t = keys + tokens * size, *own = keys_t + size * long_row;
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < sets * rows * heads; item++) {
      int64_t head = item % heads, row = item / heads % rows, set = item / heads / rows;
      int64_t n = lengths[row], m = reads < n ? reads : n, padded = round_up(n);
      float *scores = kept ? kept + item * reads * long_row : own;
      read_head(q, HEAD_OF(q_own, reads), width, m, size, half, 1.0f / sqrtf((float)size), queries);
      read_head(k, HEAD_OF(k_own, tokens), width, n, size, half, 1.0f, keys);
      read_head(v, HEAD_OF(v_own, tokens), width, n, size, half, 1.0f, values);
      transpose(keys, n, size, keys_t, padded);
      multiply(m, padded, size, queries, size, 1, keys_t, padded, scores, long_row);
      for (int64_t i = 0; i < m; i++) {
        float *s = scores + i * long_row;
        for (int64_t j = n; j < padded; j++) s[j] = -1e30f; /* e^-87 after the exponential: nothing beside the largest score's 1 */
        float largest = maximum(s, padded);
        fwide total = splat(0);
        for (int64_t j = 0; j < padded; j += LANES) {
          fwide e = exponential((fwide) * (vec *)(s + j) - largest);
          *(vec *)(s + j) = (vec)e;
          total += e;
        }
        float factor = 1.0f / sum(total);
        for (int64_t j = 0; j < padded; j += LANES) *(vec *)(s + j) *= factor;
      }
      multiply(m, size, n, scores, long_row, 1, values, size, queries, size);
      write_head(out, (set * rows + row) * reads * width + head * size, width, m, reads, size, half, queries);
    }
    free(values);
  }
}

/* Gradients of q, k and v from that of out; a null one is not wanted. A tensor shared by several sets has no gradient here. */
void attention_backward(const void *q, int64_t q_own, const void *k, int64_t k_own, const void *v, int64_t v_own, const int64_t *lengths,
                        const float *kept, const void *grad, void *grad_q, void *grad_k, void *grad_v, int64_t sets, int64_t rows, int64_t reads,
                        int64_t tokens, int64_t heads, int64_t size, int half) {
  int64_t width = heads * size, long_row = round_up(tokens);
  float scale = 1.0f / sqrtf((float)size);
#pragma omp parallel
  {
    float *operand = malloc(4 * (2 * tokens * size + reads * size + size * long_row + reads * long_row));
    float *result = operand + tokens * size, *grads = result + tokens * size, *values_t = grads + reads * size, *scores = values_t + size * long_row;
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < sets * rows * heads; item++) {
      int64_t head = item % heads, row = item / heads % rows, set = item / heads / rows;
      int64_t n = lengths[row], m = reads < n ? reads : n, padded = round_up(n), first = (set * rows + row) * width;
      const float *p = kept + item * reads * long_row;
      read_head(grad, first * reads + head * size, width, m, size, half, 1.0f, grads);
      if (grad_v) {
        multiply(n, size, m, p, 1, long_row, grads, size, result, size);
        write_head(grad_v, first * tokens + head * size, width, n, tokens, size, half, result);
      }
      if (!grad_q && !grad_k) continue;
      read_head(v, HEAD_OF(v_own, tokens), width, n, size, half, 1.0f, operand);
      transpose(operand, n, size, values_t, padded);
      multiply(m, padded, size, grads, size, 1, values_t, padded, scores, long_row);
      for (int64_t i = 0; i < m; i++) {
        float *s = scores + i * long_row;
        const float *own = p + i * long_row;
        fwide dot = splat(0);
        for (int64_t j = 0; j < padded; j += LANES) dot += (fwide) * (vec *)(s + j) * (fwide) * (const vec *)(own + j);
        float mean = sum(dot);
        for (int64_t j = 0; j < padded; j += LANES)
          *(vec *)(s + j) = (vec)((fwide) * (const vec *)(own + j) * ((fwide) * (vec *)(s + j) - mean) * scale);
      }
      if (grad_q) {
        read_head(k, HEAD_OF(k_own, tokens), width, n, size, half, 1.0f, operand);
        multiply(m, size, n, scores, long_row, 1, operand, size, result, size);
        write_head(grad_q, first * reads + head * size, width, m, reads, size, half, result);
      }
      if (grad_k) {
        read_head(q, HEAD_OF(q_own, reads), width, m, size, half, 1.0f, operand);
        multiply(n, size, m, scores, 1, long_row, operand, size, result, size);
        write_head(grad_k, first * tokens + head * size, width, n, tokens, size, half, result);
      }
    }
    free(operand);
  }
}
