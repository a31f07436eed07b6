/* Vectors of fp32 values and common functions on them. GCC and Clang vector types run on any CPU; their width follows
   the instruction set given to the compiler. */
#ifndef LORALET_VECTORS_H
#define LORALET_VECTORS_H

#include <stdint.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* LANES: values per vector; 16 with tiles (tiles.h). MR rows by NR vectors of a product stay in registers (see
   matmul.h): the sums, NR vectors of the right operand and one vector of the left operand use 29 of 32 registers, or
   15 of 16. */
#define MR 6
#if defined __AVX512F__ || (defined ELEMENT_BF16 && defined LORALET_EMULATE_TILES)
#define LANES 16
#define NR 4
#elif defined __AVX2__
#define LANES 8
#define NR 2
#elif defined __aarch64__
#define LANES 4
#define NR 4
#else
#define LANES 4
#define NR 2
#endif

/* For functions whose constant arguments must be constants after inlining. */
#define CONSTANT_FOLDED static inline __attribute__((always_inline))

/* Columns of a panel of a packed right operand. */
#define PANEL (NR * LANES)

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
/* The same types in memory, with the alignment of a single value. */
typedef float vec_memory __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t uvec_memory __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t half_memory __attribute__((vector_size(2 * LANES), aligned(2)));

static inline int64_t round_up(int64_t n) { return (n + LANES - 1) / LANES * LANES; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static inline vec splat(float value) { return value - (vec){0}; }
static inline vec load_fp32(const float *p) { return (vec) * (const vec_memory *)p; }
static inline void store_fp32(float *p, vec v) { *(vec_memory *)p = (vec_memory)v; }

#ifdef __AVX512F__
static inline vec vector_max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); } /* b where one is NaN */
static inline float vector_sum(vec v) { return _mm512_reduce_add_ps((__m512)v); }
#else
static inline vec vector_max(vec a, vec b) {
  ivec above = a > b;
  return (vec)((above & (ivec)a) | (~above & (ivec)b));
}
static inline float vector_sum(vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++) sum += v[i];
  return sum;
}
#endif

/* 16 bits to 32. GCC 12 compiles the conversion of vectors through memory. */
static inline uvec zero_extend(half_memory h) {
#if defined __AVX512F__
  return (uvec)_mm512_cvtepu16_epi32((__m256i)h);
#elif defined __AVX2__ && LANES == 8
  return (uvec)_mm256_cvtepu16_epi32((__m128i)h);
#else
  return __builtin_convertvector(h, uvec);
#endif
}

/* bf16 is the upper half of an fp32; rounding is to nearest, ties to even. */
static inline vec widen(half_memory h) { return (vec)(zero_extend(h) << 16); }
static inline half_memory narrow(vec v) {
#ifdef __AVX512BF16__
  return (half_memory)_mm512_cvtneps_pbh((__m512)v);
#else
  uvec u = (uvec)v, nan = (uvec)(v != v), rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return __builtin_convertvector((nan & ((u >> 16) | 0x40u)) | (~nan & rounded), half_memory);
#endif
}

/* sums + both products of the bf16 pairs in each lane */
static inline vec dot_pairs(vec sums, uvec a, uvec b) {
#ifdef __AVX512BF16__
  return (vec)_mm512_dpbf16_ps((__m512)sums, (__m512bh)a, (__m512bh)b);
#else
  sums += (vec)(a << 16) * (vec)(b << 16);
  return sums + (vec)(a & 0xffff0000u) * (vec)(b & 0xffff0000u);
#endif
}

/* The maximum of `count` values, a multiple of LANES. It may miss NaN, which the sum of the exponentials propagates. */
static inline float maximum(const float *p, int64_t count) {
  vec best = load_fp32(p);
  for (int64_t i = LANES; i < count; i += LANES) best = vector_max(load_fp32(p + i), best);
  float found = best[0];
  for (int i = 1; i < LANES; i++) found = best[i] > found ? best[i] : found;
  return found;
}

/* e^x with an error of about one unit in the last place, for x from -87 to 88: x = n ln 2 + r, a Taylor polynomial of
   degree 6 in r (|r| <= ln 2 / 2), and n added to the exponent. Adding 1.5 x 2^23 rounds to an integer and leaves it
   in the low bits. */
static inline vec exponential(vec x) {
  x = vector_max(splat(-87.0f), x);
  vec shifted = x * 1.44269504f + 12582912.0f, whole = shifted - 12582912.0f;
  vec r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  vec p = splat(1.0f / 720);
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * (vec)(((uvec)shifted + (127u - 0x4b400000u)) << 23);
}

/* 1 - 2 / (e^2x + 1), computed with |x| to avoid overflow. NaN stays NaN. */
static inline vec hyperbolic_tangent(vec x) {
  uvec sign = (uvec)x & 0x80000000u;
  vec e = exponential(-2.0f * (vec)((uvec)x ^ sign));
  return (vec)((uvec)((1.0f - e) / (1.0f + e)) ^ sign);
}

/* GELU (Hendrycks and Gimpel 2016): x P(x) and its derivative P(x) + x p(x), where P and p are the normal distribution
   function and density. The error function is Abramowitz and Stegun 7.1.26, with an error below 1.5e-7. Its term e^-z^2
   with z = |x| / sqrt 2 is also used for the density. */
static inline vec gelu(vec x, vec *grad) {
  uvec sign = (uvec)x & 0x80000000u;
  vec z = (vec)((uvec)x ^ sign) * 0.70710678f;
  vec bell = exponential(-z * z);
  vec t = 1.0f / (1.0f + 0.3275911f * z);
  vec p = splat(1.061405429f);
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  vec within = 0.5f - 0.5f * p * t * bell; /* the probability between 0 and |x| */
  vec below = 0.5f + (vec)((uvec)within ^ sign);
  *grad = below + x * bell * 0.39894228f;
  return x * below;
}

#endif
