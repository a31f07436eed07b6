/* Dropout masks, a pure function of counters; loralet.adapters.dropout computes the same bits.

   Masks are not stored: the backward pass computes them again. A mask does not depend on the other adapters of a pack,
   or on how a batch is split. */
#ifndef LORALET_MASK_H
#define LORALET_MASK_H

#include "api.h"
#include "vectors.h"

/* lowbias32 (Wellons 2018), a 32-bit hash. */
static inline uvec scramble(uvec x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

/* The factors of LANES features: 0, or 1 / (1 - probability).
   index: number of the linear layer, over all layers. place: token number x width + feature. */
static inline vec mask_at(const Mask *m, int64_t index, int64_t place) {
  uvec lane;
  for (int i = 0; i < LANES; i++) lane[i] = (uint32_t)place + (uint32_t)i;
  uvec drawn = scramble(scramble(lane ^ m->keys[0]) + (m->keys[1] + 0x9e3779b9u * (uint32_t)index));
  return (vec)((uvec)(drawn >= m->threshold) & (uvec)splat(m->factor));
}

#endif
