/* Vectors of floats and the few functions of them that the kernels share. Plain C with GCC/Clang vector types, so that any processor can build it;
   the compiler is told to use the one at hand. bf16 instructions are taken where there are some. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#define COLUMNS 4 /* vectors of a block of a product: 6 x 4 sums, 4 of one operand and 1 of the other fill 29 of 32 registers */
#else
#define LANES 8
#define COLUMNS 2 /* 6 x 2 + 2 + 1 of 16 registers */
#endif
#define ROWS 6

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int32_t wide __attribute__((vector_size(4 * LANES)));
typedef uint32_t uwide __attribute__((vector_size(4 * LANES)));
typedef float fwide __attribute__((vector_size(4 * LANES)));

#ifdef __AVX512F__
#include <immintrin.h>
#endif

static inline int64_t round_up(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
static inline fwide splat(float f) { return (fwide){} + f; }
static inline fwide pick(wide mask, fwide yes, fwide no) { return (fwide)((mask & (wide)yes) | (~mask & (wide)no)); }
#ifdef __AVX512F__
static inline fwide largest(fwide a, fwide b) { return (fwide)_mm512_max_ps((__m512)a, (__m512)b); } /* b where one is not a number */
static inline float sum(fwide v) { return _mm512_reduce_add_ps((__m512)v); }
#else
static inline fwide largest(fwide a, fwide b) { return pick(a > b, a, b); }
static inline float sum(fwide v) {
  float s = 0;
  for (int i = 0; i < LANES; i++) s += v[i];
  return s;
}
#endif

/* bf16 is the upper half of an fp32; rounding is to nearest, ties to even. */
static inline fwide widen(hvec h) { return (fwide)(__builtin_convertvector(h, uwide) << 16); }
static inline hvec narrow(fwide f) {
#ifdef __AVX512BF16__
  return (hvec)_mm512_cvtneps_pbh((__m512)f);
#else
  uwide u = (uwide)f;
  return __builtin_convertvector((u + 0x7fffu + ((u >> 16) & 1u)) >> 16, hvec);
#endif
}

/* sums + the two products of each lane's pair of bf16 */
static inline fwide dot_pairs(fwide sums, uwide a, uwide b) {
#ifdef __AVX512BF16__
  return (fwide)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
  sums += (fwide)(a << 16) * (fwide)(b << 16);
  return sums + (fwide)(a & 0xffff0000u) * (fwide)(b & 0xffff0000u);
#endif
}

/* The largest of `count` numbers, a multiple of LANES; one that is not a number may be passed over, and shows in the sum of the exponentials instead. */
static inline float maximum(const float *p, int64_t count) {
  fwide best = (fwide) * (const vec *)p;
  for (int64_t i = LANES; i < count; i += LANES) best = largest((fwide) * (const vec *)(p + i), best);
  float found = best[0];
  for (int i = 1; i < LANES; i++) found = best[i] > found ? best[i] : found;
  return found;
}

/* e^x to about one unit in the last place for x from -87 to 88: x = n ln 2 + r, a degree-6 Taylor polynomial in r (|r| <= ln 2 / 2), then n into the exponent.
   To add 1.5 x 2^23 rounds to a whole number and leaves it in the low bits. */
static inline fwide exponential(fwide x) {
  x = largest(splat(-87.0f), x);
  fwide shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;
  fwide r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  fwide p = splat(1.0f / 720);
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * (fwide)(((uwide)shifted + (127u - 0x4b400000u)) << 23);
}

/* x P(x) and its derivative P(x) + x p(x), P and p the normal distribution and its density (GELU, Hendrycks and Gimpel 2016). The error function is
   Abramowitz and Stegun's 7.1.26, to 1.5e-7; its e^-z^2 with z = |x| / sqrt 2 is the density's too. */
static inline fwide gelu(fwide x, fwide *slope) {
  uwide sign = (uwide)x & 0x80000000u;
  fwide z = (fwide)((uwide)x ^ sign) * 0.70710678f;
  fwide bell = exponential(-z * z);
  fwide t = 1.0f / (1.0f + 0.3275911f * z);
  fwide p = splat(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  fwide within = 0.5f - 0.5f * p * t * bell; /* the share of the distribution between 0 and |x| */
  fwide below = 0.5f + (fwide)((uwide)within ^ sign);
  *slope = below + x * bell * 0.39894228f;
  return x * below;
}
