/* The element type of a translation unit: bf16 if ELEMENT_BF16 is defined, else fp32. Sums are always fp32.

   A `unit` is 32 bits along the summation axis of a product: one fp32, or a pair of bf16. */
#ifndef LORALET_ELEMENT_H
#define LORALET_ELEMENT_H

#include "vectors.h"

#ifdef ELEMENT_BF16

#define TYPED(name) name##_bf16
#define PAIR 2
typedef uint16_t element;
typedef uint32_t unit;
typedef uvec unit_vec;
static inline vec load(const element *p) { return widen(*(const half_memory *)p); }
static inline void store(element *p, vec v) { *(half_memory *)p = narrow(v); }
static inline unit_vec load_units(const unit *p) { return (unit_vec) * (const uvec_memory *)p; }
static inline void store_units(unit *p, unit_vec v) { *(uvec_memory *)p = (uvec_memory)v; }
static inline unit_vec splat_unit(unit value) { return (unit_vec){0} + value; }
static inline vec multiply_add(vec sums, unit_vec a, unit_vec b) { return dot_pairs(sums, a, b); }

#else

#define TYPED(name) name##_fp32
#define PAIR 1
typedef float element;
typedef float unit;
typedef vec unit_vec;
static inline vec load(const element *p) { return load_fp32(p); }
static inline void store(element *p, vec v) { store_fp32(p, v); }
static inline unit_vec load_units(const unit *p) { return load_fp32(p); }
static inline unit_vec splat_unit(unit value) { return splat(value); }
static inline vec multiply_add(vec sums, unit_vec a, unit_vec b) { return sums + a * b; }

#endif

static inline int64_t units_of(int64_t elements) { return (elements + PAIR - 1) / PAIR; }
static inline const unit *as_units(const element *p) { return (const unit *)p; }

#endif
