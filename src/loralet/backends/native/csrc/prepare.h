/* One linear map's weights ready for products: `forward` for x W^T, [sets, d units, o], and `backward` for y W, [sets, o units, d] (left out where null). To
   the weight [o, d] is added scale B A (see low_rank.h) where `low` is not null. */
void NAME(prepare)(const ELEMENT *weight, const LowRank *low, int64_t sets, int64_t o, int64_t d, UNIT *forward, UNIT *backward, int64_t threads) {
#pragma omp parallel for num_threads(threads) if (sets > 1)
  for (int64_t set = 0; set < sets; set++) {
    const ELEMENT *own = weight;
    if (low) {
      float *delta = (float *)thread_memory((4 + sizeof(ELEMENT)) * o * d);
      ELEMENT *summed = (ELEMENT *)(delta + o * d);
      low_rank_product(low, set, o, d, delta);
      for (int64_t i = 0; i < o * d; i += LANES) NAME(store)(summed + i, NAME(load)(weight + i) + (fwide) * (const vec *)(delta + i));
      own = summed;
    }
    NAME(transpose)(o, d, own, d, forward + set * (d / PAIR) * o, o);
    if (backward) NAME(interleave)(o, d, own, d, backward + set * (o / PAIR) * d, d);
  }
}

/* The matrices of one adapter with dropout ready for products: A [rank, d], B [o, rank] of `low`, ranks padded with zeros to `padded`, a multiple of
   LANES. `down` [d units, padded] and `up` [padded units, o] are for the forward pass, `down_back` [padded units, d] and `up_back` [o units, padded] for
   the backward pass; B is scaled. */
void NAME(prepare_dropout)(const LowRank *low, int64_t set, float scale, int64_t padded, int64_t o, int64_t d, UNIT *down, UNIT *up, UNIT *down_back,
                         UNIT *up_back) {
  const float *a = low->a + set * low->a_set, *b = low->b + set * low->b_set;
  int64_t wide = o > d ? o : d;
  ELEMENT *own = (ELEMENT *)thread_memory(sizeof(ELEMENT) * padded * wide + 4 * padded);
  float *row = (float *)(own + padded * wide);
  memset(own, 0, sizeof(ELEMENT) * padded * d);
  for (int64_t r = 0; r < low->rank; r++)
    for (int64_t j = 0; j < d; j += LANES) NAME(store)(own + r * d + j, (fwide) * (const vec *)(a + r * d + j));
  NAME(transpose)(padded, d, own, d, down, padded);
  NAME(interleave)(padded, d, own, d, down_back, d);
  for (int64_t i = 0; i < o; i++) {
    memset(row, 0, 4 * padded);
    for (int64_t r = 0; r < low->rank; r++) row[r] = b[i * low->rank + r] * scale;
    for (int64_t r = 0; r < padded; r += LANES) NAME(store)(own + i * padded + r, (fwide) * (vec *)(row + r));
  }
  NAME(transpose)(o, padded, own, padded, up, o);
  NAME(interleave)(o, padded, own, padded, up_back, padded);
}
