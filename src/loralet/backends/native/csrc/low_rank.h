/* The low-rank part of adapted weights, scale B A (Hu et al. 2021, section 4.1), and its gradients; always fp32. */

/* A [sets, rank, d] and B [sets, o, rank]; from one set to the next it is `a_set` and `b_set` numbers. */
typedef struct {
  const float *a, *b, *scale;
  int64_t a_set, b_set, rank;
} LowRank;

/* out [o, d] = scale B A of one set */
static void low_rank_product(const LowRank *l, int64_t set, int64_t o, int64_t d, float *out) {
  multiply_fp32(o, d, l->rank, l->b + set * l->b_set, l->rank, 1, l->a + set * l->a_set, d, out, d, 0);
  for (int64_t i = 0; i < o * d; i += LANES) *(vec *)(out + i) *= l->scale[set];
}

/* Gradients of A [sets, rank, d] and B [sets, o, rank], `a_set` and `b_set` numbers from one set to the next, from that of the weights [parts, sets, o, d],
   whose parts are summed in place. */
void low_rank_gradients(const LowRank *l, float *grad, int64_t parts, int64_t sets, int64_t o, int64_t d, float *grad_a, int64_t a_set, float *grad_b,
                        int64_t b_set, int64_t threads) {
  int64_t rank = l->rank, padded = round_up(rank);
#pragma omp parallel for num_threads(threads) if (sets > 1)
  for (int64_t set = 0; set < sets; set++) {
    float *g = grad + set * o * d, *a = grad_a + set * a_set, *b = grad_b + set * b_set;
    float *columns = (float *)thread_memory(4 * (d * padded + o * padded)), *sums = columns + d * padded;
    for (int64_t part = 1; part < parts; part++)
      for (int64_t i = 0; i < o * d; i += LANES) *(vec *)(g + i) += *(const vec *)(g + part * sets * o * d + i);
    multiply_fp32(rank, d, o, l->b + set * l->b_set, 1, rank, g, d, a, d, 0);
    for (int64_t i = 0; i < rank * d; i += LANES) *(vec *)(a + i) *= l->scale[set];
    transpose_fp32(rank, d, l->a + set * l->a_set, d, columns, padded);
    multiply_fp32(o, padded, d, g, d, 1, columns, padded, sums, padded, 0);
    for (int64_t i = 0; i < o; i++)
      for (int64_t r = 0; r < rank; r++) b[i * rank + r] = sums[i * padded + r] * l->scale[set];
  }
}
