/* Attention of one head of one row, in one precision (see matrix.h). It works on rows as the linear maps leave them, heads side by side in the width, so
   nothing is transposed in memory, and it stops at the row's own length, so padding costs nothing. */

/* What one head needs beside its operands, for rows of up to `tokens` tokens. */
static int64_t NAME(head_scratch)(int64_t tokens, int64_t size) {
  int64_t padded = round_up(tokens);
  return 4 * (padded * padded + 3 * padded * size + padded * padded + padded * padded);
}

/* out [m, size] = softmax(q k^T / sqrt(size)) v for m queries and n keys; the rows of q, k, v and out are `row` elements apart. The probabilities are
   left in p, [m, n rounded up to LANES]. */
static void NAME(head_forward)(int64_t m, int64_t n, int64_t size, int64_t row, const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, ELEMENT *p,
                               ELEMENT *out, float *scratch) {
  int64_t padded = round_up(n);
  float *scores = scratch, *result = scores + m * padded;
  UNIT *operand = (UNIT *)(result + m * size);
  float scale = 1.0f / sqrtf((float)size);
  NAME(transpose)(n, size, k, row, operand, padded);
  NAME(multiply)(m, padded, size / PAIR, (const UNIT *)q, row / PAIR, 1, operand, padded, scores, padded, 0);
  for (int64_t i = 0; i < m; i++) {
    float *s = scores + i * padded;
    for (int64_t j = n; j < padded; j++) s[j] = -1e30f; /* e^-87 after the exponential: nothing beside the largest score's 1 */
    float most = maximum(s, padded);
    fwide total = splat(0);
    for (int64_t j = 0; j < padded; j += LANES) {
      fwide e = exponential(((fwide) * (vec *)(s + j) - most) * scale);
      *(vec *)(s + j) = (vec)e;
      total += e;
    }
    float factor = 1.0f / sum(total);
    for (int64_t j = n; j < padded; j++) s[j] = 0;
    for (int64_t j = 0; j < padded; j += LANES) NAME(store)(p + i * padded + j, (fwide) * (vec *)(s + j) * factor);
  }
  NAME(interleave)(n, size, v, row, operand, size);
  NAME(multiply)(m, size, UNITS(n), (const UNIT *)p, padded / PAIR, 1, operand, size, result, size, 0);
  for (int64_t i = 0; i < m; i++)
    for (int64_t e = 0; e < size; e += LANES) NAME(store)(out + i * row + e, (fwide) * (vec *)(result + i * size + e));
}

static void NAME(write_rows)(int64_t rows, int64_t size, const float *in, ELEMENT *out, int64_t row) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t e = 0; e < size; e += LANES) NAME(store)(out + i * row + e, (fwide) * (const vec *)(in + i * size + e));
}

/* Gradients of q, k and v from that of out; a null one is not wanted. */
static void NAME(head_backward)(int64_t m, int64_t n, int64_t size, int64_t row, const ELEMENT *q, const ELEMENT *k, const ELEMENT *v, const ELEMENT *p,
                                const ELEMENT *grad, ELEMENT *grad_q, ELEMENT *grad_k, ELEMENT *grad_v, float *scratch) {
  int64_t padded = round_up(n);
  float *scores = scratch, *result = scores + m * padded, scale = 1.0f / sqrtf((float)size);
  UNIT *left = (UNIT *)(result + padded * size), *right = left + padded * padded;
  ELEMENT *ds = (ELEMENT *)(right + padded * size);
  if (grad_v) {
    NAME(interleave)(m, padded, p, padded, left, padded);
    NAME(interleave)(m, size, grad, row, right, size);
    NAME(multiply)(n, size, UNITS(m), left, 1, padded, right, size, result, size, 0);
    NAME(write_rows)(n, size, result, grad_v, row);
  }
  if (!grad_q && !grad_k) return;
  NAME(transpose)(n, size, v, row, right, padded);
  NAME(multiply)(m, padded, size / PAIR, (const UNIT *)grad, row / PAIR, 1, right, padded, scores, padded, 0);
  for (int64_t i = 0; i < m; i++) {
    const float *s = scores + i * padded;
    const ELEMENT *own = p + i * padded;
    fwide dot = splat(0);
    for (int64_t j = 0; j < padded; j += LANES) dot += (fwide) * (const vec *)(s + j) * NAME(load)(own + j);
    float mean = sum(dot);
    for (int64_t j = 0; j < padded; j += LANES)
      NAME(store)(ds + i * padded + j, NAME(load)(own + j) * ((fwide) * (const vec *)(s + j) - mean) * scale);
  }
  if (grad_q) {
    NAME(interleave)(n, size, k, row, right, size);
    NAME(multiply)(m, size, UNITS(n), (const UNIT *)ds, padded / PAIR, 1, right, size, result, size, 0);
    NAME(write_rows)(m, size, result, grad_q, row);
  }
  if (grad_k) {
    NAME(interleave)(m, padded, ds, padded, left, padded);
    NAME(interleave)(m, size, q, row, right, size);
    NAME(multiply)(n, size, UNITS(m), left, 1, padded, right, size, result, size, 0);
    NAME(write_rows)(n, size, result, grad_k, row);
  }
}

/* The same for every set, row and head of tensors [sets, rows, tokens, width]; one either has a set axis of its own (`_own` = 1) or is shared by all sets. */
#define OF(x, own, tokens) ((x) + (((own) ? set : 0) * rows + r) * (tokens) * width + head * size)

void NAME(attention_forward)(const ELEMENT *q, int64_t q_own, const ELEMENT *k, int64_t k_own, const ELEMENT *v, int64_t v_own, const int64_t *lengths,
                             ELEMENT *out, ELEMENT *kept, int64_t sets, int64_t rows, int64_t reads, int64_t tokens, int64_t heads, int64_t size,
                             int64_t threads) {
  int64_t width = heads * size, square = reads * round_up(tokens);
#pragma omp parallel num_threads(threads)
  {
    float *scratch = malloc(NAME(head_scratch)(tokens, size) + sizeof(ELEMENT) * square);
    ELEMENT *own = (ELEMENT *)((char *)scratch + NAME(head_scratch)(tokens, size));
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < sets * rows * heads; item++) {
      int64_t head = item % heads, r = item / heads % rows, set = item / heads / rows;
      int64_t n = lengths[r], m = reads < n ? reads : n;
      ELEMENT *to = OF(out, 1, reads);
      NAME(head_forward)(m, n, size, width, OF(q, q_own, reads), OF(k, k_own, tokens), OF(v, v_own, tokens), kept ? kept + item * square : own, to, scratch);
      for (int64_t i = m; i < reads; i++) memset(to + i * width, 0, sizeof(ELEMENT) * size);
    }
    free(scratch);
  }
}

/* Gradients of q, k and v from that of out; a null one is not wanted. A tensor shared by several sets has no gradient here. */
void NAME(attention_backward)(const ELEMENT *q, int64_t q_own, const ELEMENT *k, int64_t k_own, const ELEMENT *v, int64_t v_own, const int64_t *lengths,
                              const ELEMENT *kept, const ELEMENT *grad, ELEMENT *grad_q, ELEMENT *grad_k, ELEMENT *grad_v, int64_t sets, int64_t rows,
                              int64_t reads, int64_t tokens, int64_t heads, int64_t size, int64_t threads) {
  int64_t width = heads * size, square = reads * round_up(tokens);
#pragma omp parallel num_threads(threads)
  {
    float *scratch = malloc(NAME(head_scratch)(tokens, size));
#pragma omp for schedule(dynamic, 4)
    for (int64_t item = 0; item < sets * rows * heads; item++) {
      int64_t head = item % heads, r = item / heads % rows, set = item / heads / rows;
      int64_t n = lengths[r], m = reads < n ? reads : n;
      ELEMENT *to[] = {grad_q ? OF(grad_q, 1, reads) : 0, grad_k ? OF(grad_k, 1, tokens) : 0, grad_v ? OF(grad_v, 1, tokens) : 0};
      NAME(head_backward)(m, n, size, width, OF(q, q_own, reads), OF(k, k_own, tokens), OF(v, v_own, tokens), kept + item * square, OF(grad, 1, reads),
                          to[0], to[1], to[2], scratch);
      for (int x = 0; x < 3; x++)
        for (int64_t i = x ? n : m; to[x] && i < (x ? tokens : reads); i++) memset(to[x] + i * width, 0, sizeof(ELEMENT) * size);
    }
    free(scratch);
  }
}
#undef OF
