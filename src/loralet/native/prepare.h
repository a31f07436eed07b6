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
