/* Attention of a row's first token alone, in one precision (see matrix.h): what the last layer needs where the head reads the first token. Keys and
   values of the other tokens are never formed. With one query a head, scores are q (W x) = (W^T q) x up to a number that the softmax takes out again,
   and the context is W (sum of p x) + bias: both products with W are of one row a text in place of one a token. The sums over tokens cost a few vectors
   each. */

/* Rows of a chunk's first tokens: what was reached for, [heads, rows, d], the probabilities, fp32 [heads, tokens], what was mixed, [heads, rows, d]. */
typedef struct {
  ELEMENT *reach, *mixed;
  float *probabilities;
} NAME(First);

/* out [head, rows, d] = the head's part of x [rows, d] times the head's rows of W, for every head: `w` is the backward units of W. */
static void NAME(spread)(const Encoder *e, int64_t rows, const ELEMENT *x, const UNIT *w, ELEMENT *out, float *sums) {
  int64_t d = e->width, size = d / e->heads;
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
      int64_t some = rows - i < BLOCK_ROWS ? rows - i : BLOCK_ROWS;
      NAME(multiply)(some, d, size / PAIR, (const UNIT *)(x + i * d + head * size), d / PAIR, 1, w + head * size / PAIR * d, d, sums, d, 0);
      NAME(write_rows)(some, d, sums, out + (head * rows + i) * d, d);
    }
}

/* out [rows, d] = each head's x [head, rows, d] times the transposed head's rows of W, plus bias (where not null): `w` is the forward units of W. */
static void NAME(gather_heads)(const Encoder *e, int64_t rows, const ELEMENT *x, const UNIT *w, const float *bias, ELEMENT *out, float *sums) {
  int64_t d = e->width, size = d / e->heads;
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
      int64_t some = rows - i < BLOCK_ROWS ? rows - i : BLOCK_ROWS;
      NAME(multiply)(some, size, d / PAIR, (const UNIT *)(x + (head * rows + i) * d), d / PAIR, 1, w + head * size, d, sums, size, 0);
      for (int64_t r = 0; r < some; r++)
        for (int64_t j = 0; j < size; j += LANES) {
          fwide v = (fwide) * (vec *)(sums + r * size + j);
          NAME(store)(out + (i + r) * d + head * size + j, bias ? v + (fwide) * (const vec *)(bias + head * size + j) : v);
        }
    }
}

/* a x */
static inline float NAME(inner_product)(int64_t d, const ELEMENT *a, const ELEMENT *x) {
  fwide total = splat(0);
  for (int64_t j = 0; j < d; j += LANES * PAIR) total = DOT(total, (WIDE) * (const WMEM *)(a + j), (WIDE) * (const WMEM *)(x + j));
  return sum(total);
}

/* out = sum over n tokens of factor x */
static void NAME(weighted_sum)(int64_t n, int64_t d, const float *factors, const ELEMENT *x, ELEMENT *out) {
  for (int64_t j = 0; j < d; j += LANES) {
    fwide total = splat(0);
    for (int64_t t = 0; t < n; t++) total += factors[t] * NAME(load)(x + t * d + j);
    NAME(store)(out + j, total);
  }
}

/* The context of first tokens, [rows, d], from their queries, [rows, d], and the tokens that go into the layer, x [tokens, d]: what every head reaches for
   is its query times its rows of the key map; the softmax of that along the tokens weighs them; the value map takes what comes of it. */
static void NAME(first_forward)(const Encoder *e, const Chunk *c, const ELEMENT *query, const ELEMENT *x, const UNIT *key_back, const UNIT *value,
                                const float *value_bias, const NAME(First) * k, ELEMENT *context, float *sums) {
  int64_t d = e->width;
  float scale = 1.0f / sqrtf((float)(d / e->heads));
  NAME(spread)(e, c->rows, query, key_back, k->reach, sums);
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t r = 0; r < c->rows; r++) {
      int64_t token = e->starts[c->row + r] - c->token, n = e->starts[c->row + r + 1] - e->starts[c->row + r];
      float *p = k->probabilities + head * c->tokens + token, most = -INFINITY, total = 0;
      const ELEMENT *reach = k->reach + (head * c->rows + r) * d;
      for (int64_t t = 0; t < n; t++) {
        p[t] = NAME(inner_product)(d, reach, x + (token + t) * d) * scale;
        most = p[t] > most ? p[t] : most;
      }
      for (int64_t t = 0; t < n; t++) total += p[t] = expf(p[t] - most);
      for (int64_t t = 0; t < n; t++) p[t] /= total;
      NAME(weighted_sum)(n, d, p, x + token * d, k->mixed + (head * c->rows + r) * d);
    }
  NAME(gather_heads)(e, c->rows, k->mixed, value, value_bias, context, sums);
}

/* From the gradient of the context, [rows, d]: that of the scores is `ds`, fp32 [heads, tokens]; `sought`, [heads, rows, d], is what it weighs the
   tokens to, from which the gradient of W follows; dq [rows, d] is that of the query; and to dx, fp32 [tokens, d] (where not null), what the tokens get
   from scores and context is written. `pushed` [heads, rows, d] is room. */
static void NAME(first_backward)(const Encoder *e, const Chunk *c, const ELEMENT *grad, const ELEMENT *x, const UNIT *key, const UNIT *value_back,
                                 const NAME(First) * k, ELEMENT *pushed, ELEMENT *sought, float *ds, ELEMENT *dq, float *dx, float *sums) {
  int64_t d = e->width;
  float scale = 1.0f / sqrtf((float)(d / e->heads));
  NAME(spread)(e, c->rows, grad, value_back, pushed, sums);
  for (int64_t head = 0; head < e->heads; head++)
    for (int64_t r = 0; r < c->rows; r++) {
      int64_t token = e->starts[c->row + r] - c->token, n = e->starts[c->row + r + 1] - e->starts[c->row + r], at = (head * c->rows + r) * d;
      const float *p = k->probabilities + head * c->tokens + token;
      float *s = ds + head * c->tokens + token, mean = 0;
      for (int64_t t = 0; t < n; t++) mean += p[t] * (s[t] = NAME(inner_product)(d, pushed + at, x + (token + t) * d));
      for (int64_t t = 0; t < n; t++) s[t] = p[t] * (s[t] - mean) * scale;
      NAME(weighted_sum)(n, d, s, x + token * d, sought + at);
      for (int64_t t = 0; dx && t < n; t++)
        for (int64_t j = 0; j < d; j += LANES) {
          fwide v = s[t] * NAME(load)(k->reach + at + j) + p[t] * NAME(load)(pushed + at + j);
          float *to = dx + (token + t) * d + j;
          *(vec *)to = (vec)(head ? (fwide) * (vec *)to + v : v);
        }
    }
  NAME(gather_heads)(e, c->rows, sought, key, 0, dq, sums);
}
