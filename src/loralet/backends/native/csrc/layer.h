/* One layer of one chunk for one set of weights, forward and backward, in one precision (see matrix.h). */

static const UNIT *NAME(weight)(const NAME(Place) * p, int which, int64_t units, int back) {
  const Layer *l = &p->encoder->layer[p->layer];
  const UNIT *all = (const UNIT *)(back ? l->backward[which] : l->forward[which]);
  return all + (l->adapted[which] ? p->set * units : 0);
}

/* Rows of x W^T into s->sums, for rows of `x` from `row` on, with what an adapter with dropout adds. */
static void NAME(product)(const NAME(Place) * p, int which, int64_t row, int64_t rows, int64_t d, int64_t o, const ELEMENT *x, ELEMENT *low,
                          const NAME(Scratch) * s) {
  const UNIT *w = NAME(weight)(p, which, d / PAIR * o, 0);
  NAME(multiply)(rows, o, d / PAIR, (const UNIT *)(x + row * d), d / PAIR, 1, w, o, s->sums, o, 0);
  if (low) NAME(dropout_forward)(p, which, row, rows, d, o, x + row * d, low, s->sums, s);
}

/* out = x W^T + bias */
static void NAME(linear)(const NAME(Place) * p, int which, int64_t m, const ELEMENT *x, ELEMENT *out, ELEMENT *low, const NAME(Scratch) * s) {
  const float *bias = p->encoder->layer[p->layer].bias[which];
  int64_t d = p->encoder->width;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(product)(p, which, i, rows, d, d, x, low, s);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < d; j += LANES)
        NAME(store)(out + (i + r) * d + j, (fwide) * (vec *)(s->sums + r * d + j) + (fwide) * (const vec *)(bias + j));
  }
}

/* out = gelu(x W^T + bias); the derivative goes to `slope` where it is wanted. */
static void NAME(linear_gelu)(const NAME(Place) * p, int64_t m, const ELEMENT *x, ELEMENT *out, ELEMENT *slope, ELEMENT *low, const NAME(Scratch) * s) {
  const float *bias = p->encoder->layer[p->layer].bias[INTERMEDIATE];
  int64_t f = p->encoder->feed_forward;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(product)(p, INTERMEDIATE, i, rows, p->encoder->width, f, x, low, s);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < f; j += LANES) {
        fwide derivative, y = gelu((fwide) * (vec *)(s->sums + r * f + j) + (fwide) * (const vec *)(bias + j), &derivative);
        NAME(store)(out + (i + r) * f + j, y);
        if (slope) NAME(store)(slope + (i + r) * f + j, derivative);
      }
  }
}

/* out = LayerNorm(x W^T + bias + beside) (Ba et al. 2016): weight and bias of the norm are norm[0] and norm[2] after attention, norm[1] and norm[3] else. */
static void NAME(linear_norm)(const NAME(Place) * p, int which, int64_t m, int64_t d, const ELEMENT *x, const ELEMENT *beside, ELEMENT *hat, ELEMENT *out,
                              float *scale, ELEMENT *low, const NAME(Scratch) * s) {
  const Encoder *e = p->encoder;
  const Layer *l = &e->layer[p->layer];
  const float *norm = l->norm[which == OUTPUT], *shift = l->norm[2 + (which == OUTPUT)];
  int64_t o = e->width;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(product)(p, which, i, rows, d, o, x, low, s);
    for (int64_t r = 0; r < rows; r++) {
      float *z = s->sums + r * o;
      fwide total = splat(0), squares = splat(0);
      for (int64_t j = 0; j < o; j += LANES) {
        fwide v = (fwide) * (vec *)(z + j) + (fwide) * (const vec *)(l->bias[which] + j) + NAME(load)(beside + (i + r) * o + j);
        *(vec *)(z + j) = (vec)v;
        total += v;
      }
      float mean = sum(total) / o;
      for (int64_t j = 0; j < o; j += LANES) {
        fwide v = (fwide) * (vec *)(z + j) - mean;
        squares += v * v;
      }
      float factor = 1.0f / sqrtf(sum(squares) / o + e->epsilon);
      if (scale) scale[i + r] = factor;
      for (int64_t j = 0; j < o; j += LANES) {
        fwide v = ((fwide) * (vec *)(z + j) - mean) * factor;
        if (hat) NAME(store)(hat + (i + r) * o + j, v);
        NAME(store)(out + (i + r) * o + j, v * (fwide) * (const vec *)(norm + j) + (fwide) * (const vec *)(shift + j));
      }
    }
  }
}

/* The first token's row of every row of a chunk. */
static void NAME(gather_first)(const Encoder *e, const Chunk *c, const ELEMENT *x, ELEMENT *out) {
  for (int64_t r = 0; r < c->rows; r++)
    memcpy(out + r * e->width, x + (e->starts[c->row + r] - c->token) * e->width, sizeof(ELEMENT) * e->width);
}

/* Attention of every row and head of a chunk, or, from the gradient of its context, the gradients of queries, keys and values. */
static void NAME(attend)(const NAME(Place) * p, const NAME(Kept) * k, const ELEMENT *grad, const NAME(Scratch) * s, int need_q, int need_k, int need_v) {
  const Encoder *e = p->encoder;
  const Chunk *c = p->chunk;
  int64_t size = e->width / e->heads, d = e->width;
  ELEMENT *kept = k->probabilities;
  for (int64_t r = 0; r < c->rows; r++) {
    int64_t token = e->starts[c->row + r] - c->token, n = e->starts[c->row + r + 1] - e->starts[c->row + r];
    int64_t m = p->first ? 1 : n, query = p->first ? r : token;
    for (int64_t head = 0; head < e->heads; head++, kept += m * round_up(n)) {
      int64_t q = query * d + head * size, at = token * d + head * size;
      if (grad)
        NAME(head_backward)(m, n, size, d, k->query + q, k->key + at, k->value + at, kept, grad + q, need_q ? s->dq + q : 0, need_k ? s->dk + at : 0,
                            need_v ? s->dv + at : 0, s->head);
      else
        NAME(head_forward)(m, n, size, d, k->query + q, k->key + at, k->value + at, kept, k->context + q, s->head);
    }
  }
}

static const ELEMENT *NAME(input_of)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, char *base) {
  return layer ? NAME(kept)(e, c, layer - 1, set, base, 0).out : (const ELEMENT *)e->x + c->token * e->width;
}

/* One layer of one chunk for one set; what is shared by all sets is computed for the first. */
static void NAME(layer_forward)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, char *base, const NAME(Scratch) * s) {
  const Layer *l = &e->layer[layer];
  NAME(Place) all = {e, c, layer, set, 0, 0}, place = all, *p = &place;
  p->first = e->first && layer == e->layers - 1;
  int formed = !p->first || l->formed;
  int64_t n = c->tokens, m = p->first ? c->rows : n, d = e->width, units = d / PAIR * d;
  const ELEMENT *x = NAME(input_of)(e, c, layer, set, base), *rows = p->first ? s->first : x;
  NAME(Kept) k = NAME(kept)(e, c, layer, set, base, 0);
  if (p->first) NAME(gather_first)(e, c, x, s->first);
  if (!set || l->own[QUERY]) NAME(linear)(p, QUERY, m, rows, k.query, k.low[QUERY], s);
  if (!formed && (!set || l->own[CONTEXT]))
    NAME(first_forward)(e, c, k.query, x, NAME(weight)(p, KEY, units, 1), NAME(weight)(p, VALUE, units, 0), l->bias[VALUE], &k.first, k.context, s->sums);
  if (formed && (!set || l->own[KEY])) NAME(linear)(&all, KEY, n, x, k.key, k.low[KEY], s);
  if (formed && (!set || l->own[VALUE])) NAME(linear)(&all, VALUE, n, x, k.value, k.low[VALUE], s);
  if (formed && (!set || l->own[CONTEXT])) NAME(attend)(p, &k, 0, s, 0, 0, 0);
  if (!set || l->own[ATTENDED])
    NAME(linear_norm)(p, ATTENTION_OUTPUT, m, d, k.context, rows, k.attention_hat, k.attended, k.attention_scale, k.low[ATTENTION_OUTPUT], s);
  if (!set || l->own[INNER]) NAME(linear_gelu)(p, m, k.attended, k.inner, k.slope, k.low[INTERMEDIATE], s);
  if (!set || l->own[OUT])
    NAME(linear_norm)(p, OUTPUT, m, e->feed_forward, k.inner, k.attended, k.output_hat, k.out, k.output_scale, k.low[OUTPUT], s);
}

/* grad += dy^T x for a map whose heads each read rows of their own: dy [n, d], x [heads, n, d]. */
static void NAME(heads_gradient)(const Encoder *e, int64_t n, const ELEMENT *dy, const ELEMENT *x, float *grad, const NAME(Scratch) * s) {
  int64_t d = e->width, size = d / e->heads;
  for (int64_t head = 0; head < e->heads; head++) NAME(weight_gradient)(n, size, d, d, dy + head * size, x + head * n * d, grad + head * size * d, s);
}

/* dz from the gradient of LayerNorm's output: scale (g - mean(g) - hat mean(g hat)), g = dy weight. */
static void NAME(norm_backward)(int64_t rows, int64_t d, const float *dy, const ELEMENT *hat, const float *scale, const float *weight, ELEMENT *dz) {
  for (int64_t r = 0; r < rows; r++) {
    const float *y = dy + r * d;
    const ELEMENT *h = hat + r * d;
    fwide total = splat(0), along = splat(0);
    for (int64_t j = 0; j < d; j += LANES) {
      fwide g = (fwide) * (const vec *)(y + j) * (fwide) * (const vec *)(weight + j);
      total += g;
      along += g * NAME(load)(h + j);
    }
    float mean = sum(total) / d, slope = sum(along) / d;
    for (int64_t j = 0; j < d; j += LANES) {
      fwide g = (fwide) * (const vec *)(y + j) * (fwide) * (const vec *)(weight + j);
      NAME(store)(dz + r * d + j, (g - mean - NAME(load)(h + j) * slope) * scale[r]);
    }
  }
}

/* The gradient of one map's weights: of its own adapter's matrices where its input has dropout, else of the sum of weight and product. */
static void NAME(map_gradient)(const NAME(Place) * p, int which, int64_t m, int64_t o, int64_t d, const ELEMENT *dy, const ELEMENT *x, const NAME(Kept) * k,
                               const NAME(Scratch) * s) {
  const Layer *l = &p->encoder->layer[p->layer];
  if (NAME(dropout_of)(p, which))
    NAME(dropout_backward)(p, which, m, o, d, dy, x, k->low[which], s);
  else if (l->adapted[which])
    NAME(weight_gradient)(m, o, o, d, dy, x, l->grad[which] + (p->part * p->encoder->sets + p->set) * o * d, s);
}

/* From the gradient of a layer's feed-forward sum, s->dz [m d], that of its attention's sum, in the same place (where `below`). */
static void NAME(feed_forward_backward)(const NAME(Place) * p, int64_t m, const NAME(Kept) * k, int below, const NAME(Scratch) * s) {
  const Encoder *e = p->encoder;
  int64_t d = e->width, f = e->feed_forward;
  const UNIT *w = NAME(weight)(p, OUTPUT, d / PAIR * f, 1);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, f, d / PAIR, (const UNIT *)(s->dz + i * d), d / PAIR, 1, w, f, s->sums, f, 0);
    NAME(dropout_input)(p, OUTPUT, i, rows, f, s->sums, 0, s);
    for (int64_t j = 0; j < rows * f; j += LANES)
      NAME(store)(s->du + i * f + j, (fwide) * (vec *)(s->sums + j) * NAME(load)(k->slope + i * f + j));
  }
  NAME(map_gradient)(p, INTERMEDIATE, m, f, d, s->du, k->attended, k, s);
  if (!below) return;
  w = NAME(weight)(p, INTERMEDIATE, f / PAIR * d, 1);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, d, f / PAIR, (const UNIT *)(s->du + i * f), f / PAIR, 1, w, d, s->sums, d, 0);
    NAME(dropout_input)(p, INTERMEDIATE, i, rows, d, s->sums, 0, s);
    for (int64_t j = 0; j < rows * d; j += LANES) *(vec *)(s->sums + j) += (vec)NAME(load)(s->dz + i * d + j);
    NAME(norm_backward)(rows, d, s->sums, k->attention_hat + i * d, k->attention_scale + i, e->layer[p->layer].norm[0], s->dz + i * d);
  }
}

/* The gradient of a layer's input, s->dy [n d]: from its sum, s->dz, and from queries, keys and values; where keys and values were not formed, what they
   give is there already. */
static void NAME(input_gradient)(const NAME(Place) * p, int formed, const NAME(Scratch) * s) {
  const Encoder *e = p->encoder;
  const Chunk *c = p->chunk;
  int64_t n = c->tokens, d = e->width, units = d / PAIR * d;
  const UNIT *w = NAME(weight)(p, QUERY, units, 1);
  if (formed) {
    NAME(multiply)(n, d, d / PAIR, (const UNIT *)s->dk, d / PAIR, 1, NAME(weight)(p, KEY, units, 1), d, s->dy, d, 0);
    NAME(multiply)(n, d, d / PAIR, (const UNIT *)s->dv, d / PAIR, 1, NAME(weight)(p, VALUE, units, 1), d, s->dy, d, 1);
  }
  if (!p->first) {
    NAME(multiply)(n, d, d / PAIR, (const UNIT *)s->dq, d / PAIR, 1, w, d, s->dy, d, 1);
    for (int64_t j = 0; j < n * d; j += LANES) *(vec *)(s->dy + j) += (vec)NAME(load)(s->dz + j);
    return;
  }
  for (int64_t i = 0; i < c->rows; i += BLOCK_ROWS) {
    int64_t rows = c->rows - i < BLOCK_ROWS ? c->rows - i : BLOCK_ROWS;
    NAME(multiply)(rows, d, d / PAIR, (const UNIT *)(s->dq + i * d), d / PAIR, 1, w, d, s->sums, d, 0);
    for (int64_t r = 0; r < rows; r++) {
      float *to = s->dy + (token_of(e, c, 1, i + r) - c->token) * d;
      for (int64_t j = 0; j < d; j += LANES) *(vec *)(to + j) += *(vec *)(s->sums + r * d + j) + (vec)NAME(load)(s->dz + (i + r) * d + j);
    }
  }
}

/* Attention and its maps: from s->dz, the gradient of the attention's sum, to the gradients of those maps' weights, and to s->dy where `below`. */
static void NAME(attention_part_backward)(const NAME(Place) * p, int64_t m, const ELEMENT *x, const NAME(Kept) * k, int below, const NAME(Scratch) * s) {
  const Encoder *e = p->encoder;
  const Layer *l = &e->layer[p->layer];
  NAME(Place) all = *p;
  all.first = 0;
  int formed = !p->first || l->formed;
  int64_t n = p->chunk->tokens, d = e->width, units = d / PAIR * d, place = (p->part * e->sets + p->set) * d * d;
  /* The gradient of the context takes the place of du: both are not needed at once. */
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, d, d / PAIR, (const UNIT *)(s->dz + i * d), d / PAIR, 1, NAME(weight)(p, ATTENTION_OUTPUT, units, 1), d, s->sums, d, 0);
    NAME(dropout_input)(p, ATTENTION_OUTPUT, i, rows, d, s->sums, 0, s);
    NAME(write_rows)(rows, d, s->sums, s->du + i * d, d);
  }
  if (p->first) NAME(gather_first)(e, p->chunk, x, s->first);
  if (formed) {
    NAME(attend)(p, k, s->du, s, below || l->adapted[QUERY], below || l->adapted[KEY], below || l->adapted[VALUE]);
  } else {
    NAME(first_backward)(e, p->chunk, s->du, x, NAME(weight)(p, KEY, units, 0), NAME(weight)(p, VALUE, units, 1), &k->first, s->pushed, s->sought, s->ds,
                         s->dq, below ? s->dy : 0, s->sums);
    if (l->adapted[KEY]) NAME(heads_gradient)(e, m, k->query, s->sought, l->grad[KEY] + place, s);
    if (l->adapted[VALUE]) NAME(heads_gradient)(e, m, s->du, k->first.mixed, l->grad[VALUE] + place, s);
  }
  if (below) NAME(input_gradient)(p, formed, s);
  NAME(map_gradient)(p, QUERY, m, d, d, s->dq, p->first ? s->first : x, k, s);
  if (below) NAME(dropout_input)(p, QUERY, 0, m, d, s->dy, p->first, s);
  if (!formed) return;
  NAME(map_gradient)(&all, KEY, n, d, d, s->dk, x, k, s);
  if (below) NAME(dropout_input)(&all, KEY, 0, n, d, s->dy, 0, s);
  NAME(map_gradient)(&all, VALUE, n, d, d, s->dv, x, k, s);
  if (below) NAME(dropout_input)(&all, VALUE, 0, n, d, s->dy, 0, s);
}

/* One layer of one chunk for one set, from s->dy, the gradient of its output, to s->dy, that of its input (where a lower layer is adapted). The gradients of
   adapted weights are added to those of `part`. */
static void NAME(layer_backward)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, int64_t part, char *base, const NAME(Scratch) * s) {
  const Layer *l = &e->layer[layer];
  NAME(Place) place = {e, c, layer, set, part, e->first && layer == e->layers - 1}, *p = &place;
  int below = layer > e->lowest, attention = below || l->adapted[QUERY] || l->adapted[KEY] || l->adapted[VALUE];
  int to_sum = attention || l->adapted[ATTENTION_OUTPUT];
  int64_t m = p->first ? c->rows : c->tokens, d = e->width;
  NAME(Kept) k = NAME(kept)(e, c, layer, set, base, 0);
  NAME(norm_backward)(m, d, s->dy, k.output_hat, k.output_scale, l->norm[1], s->dz);
  NAME(map_gradient)(p, OUTPUT, m, d, e->feed_forward, s->dz, k.inner, &k, s);
  if (!to_sum && !l->adapted[INTERMEDIATE]) return;
  NAME(feed_forward_backward)(p, m, &k, to_sum, s);
  if (!to_sum) return;
  NAME(map_gradient)(p, ATTENTION_OUTPUT, m, d, d, s->dz, k.context, &k, s);
  if (attention) NAME(attention_part_backward)(p, m, NAME(input_of)(e, c, layer, set, base), &k, below, s);
}
