/* A post-norm encoder (Devlin et al. 2019) for several sets of adapted weights at once, in one precision (see matrix.h): the forward pass, and the gradients
   of the adapted weights. The twin in torch is loralet.nn.encoder.

   Rows lie one after another without padding. They are worked off in chunks of whole rows, each through all layers, so that what one step of a layer writes is
   still in the cache when the next reads it. What comes before the first adapted linear map is the same for every set and computed once. */

/* What a layer keeps of one chunk and set for the backward pass. */
typedef struct {
  ELEMENT *query, *key, *value, *probabilities, *context; /* [m d] [n d] [n d] [heads of m x n each] [m d] */
  ELEMENT *attention_hat, *attended, *slope, *inner, *output_hat, *out; /* [m d] [m d] [m f] [m f] [m d] [m d] */
  float *attention_scale, *output_scale; /* [m] reciprocal standard deviations */
  NAME(First) first;                     /* in place of key, value and probabilities, where only first tokens are read */
} NAME(Kept);

static NAME(Kept) NAME(kept)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, char *base, int64_t *end) {
  Region r = {base, 0, e->sets, set, e->backward};
  NAME(Kept) k = {0};
  for (int64_t i = 0; i <= layer; i++) {
    const Layer *l = &e->layer[i];
    int first = e->first && i == e->layers - 1, b = e->backward;
    int64_t m = first ? c->rows : c->tokens, d = sizeof(ELEMENT) * e->width, f = sizeof(ELEMENT) * e->feed_forward;
    k = (NAME(Kept)){
        .query = take(&r, m * d, l->own[QUERY], 1),
        .key = take(&r, c->tokens * d, l->own[KEY], !first),
        .value = take(&r, c->tokens * d, l->own[VALUE], !first),
        .probabilities = take(&r, sizeof(ELEMENT) * c->squares * e->heads, l->own[CONTEXT], !first),
        .first = {.reach = take(&r, e->heads * m * d, l->own[CONTEXT], first),
                  .mixed = take(&r, e->heads * m * d, l->own[CONTEXT], first),
                  .probabilities = take(&r, 4 * e->heads * c->tokens, l->own[CONTEXT], first)},
        .context = take(&r, m * d, l->own[CONTEXT], 1),
        .attention_hat = take(&r, m * d, l->own[ATTENDED], b),
        .attended = take(&r, m * d, l->own[ATTENDED], 1),
        .attention_scale = take(&r, 4 * m, l->own[ATTENDED], b),
        .slope = take(&r, m * f, l->own[INNER], b),
        .inner = take(&r, m * f, l->own[INNER], 1),
        .output_hat = take(&r, m * d, l->own[OUT], b),
        .output_scale = take(&r, 4 * m, l->own[OUT], b),
        .out = take(&r, m * d, l->own[OUT], 1),
    };
  }
  if (end) *end = r.end;
  return k;
}

static int64_t NAME(chunk_bytes)(const Encoder *e, const Chunk *c) {
  int64_t end;
  NAME(kept)(e, c, e->layers - 1, 0, 0, &end);
  return end;
}

/* Bytes that the chunks of a batch need between forward and backward, chunk after chunk. */
int64_t NAME(encoder_bytes)(const Encoder *e) {
  int64_t all = 0;
  for (int64_t row = 0; row < e->rows;) {
    Chunk c = chunk_at(e, row);
    all += NAME(chunk_bytes)(e, &c), row += c.rows;
  }
  return all;
}

/* Word, position and type embeddings of a chunk's tokens, summed and normalised, into their place in x. */
static void NAME(embed)(const Encoder *e, const Chunk *c) {
  const ELEMENT *words = e->words, *places = e->places, *norm = e->embedding_norm, *shift = norm + e->width;
  int64_t d = e->width;
  for (int64_t r = 0; r < c->rows; r++)
    for (int64_t t = e->starts[c->row + r]; t < e->starts[c->row + r + 1]; t++) {
      const ELEMENT *word = words + e->ids[t] * d, *place = places + (t - e->starts[c->row + r]) * d;
      ELEMENT *out = (ELEMENT *)e->x + t * d;
      fwide total = splat(0), squares = splat(0);
      for (int64_t j = 0; j < d; j += LANES) total += NAME(load)(word + j) + NAME(load)(place + j);
      float mean = sum(total) / d;
      for (int64_t j = 0; j < d; j += LANES) {
        fwide v = NAME(load)(word + j) + NAME(load)(place + j) - mean;
        squares += v * v;
      }
      float factor = 1.0f / sqrtf(sum(squares) / d + e->epsilon);
      for (int64_t j = 0; j < d; j += LANES)
        NAME(store)(out + j, (NAME(load)(word + j) + NAME(load)(place + j) - mean) * factor * NAME(load)(norm + j) + NAME(load)(shift + j));
    }
}

static const UNIT *NAME(weight)(const Layer *l, int which, int64_t set, int64_t units, int back) {
  const UNIT *all = (const UNIT *)(back ? l->backward[which] : l->forward[which]);
  return all + (l->adapted[which] ? set * units : 0);
}

/* out = x W^T + bias */
static void NAME(linear)(const Layer *l, int which, int64_t set, int64_t m, int64_t d, int64_t o, const ELEMENT *x, ELEMENT *out, float *scratch) {
  const UNIT *w = NAME(weight)(l, which, set, d / PAIR * o, 0);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, o, d / PAIR, (const UNIT *)(x + i * d), d / PAIR, 1, w, o, scratch, o, 0);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < o; j += LANES)
        NAME(store)(out + (i + r) * o + j, (fwide) * (vec *)(scratch + r * o + j) + (fwide) * (const vec *)(l->bias[which] + j));
  }
}

/* out = gelu(x W^T + bias); the derivative goes to `slope` where it is wanted. */
static void NAME(linear_gelu)(const Layer *l, int64_t set, int64_t m, int64_t d, int64_t f, const ELEMENT *x, ELEMENT *out, ELEMENT *slope, float *scratch) {
  const UNIT *w = NAME(weight)(l, INTERMEDIATE, set, d / PAIR * f, 0);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, f, d / PAIR, (const UNIT *)(x + i * d), d / PAIR, 1, w, f, scratch, f, 0);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t j = 0; j < f; j += LANES) {
        fwide derivative, y = gelu((fwide) * (vec *)(scratch + r * f + j) + (fwide) * (const vec *)(l->bias[INTERMEDIATE] + j), &derivative);
        NAME(store)(out + (i + r) * f + j, y);
        if (slope) NAME(store)(slope + (i + r) * f + j, derivative);
      }
  }
}

/* out = LayerNorm(x W^T + bias + beside) (Ba et al. 2016): weight and bias of the norm are norm[0] and norm[1]. */
static void NAME(linear_norm)(const Encoder *e, const Layer *l, int which, int64_t set, int64_t m, int64_t d, const ELEMENT *x, const ELEMENT *beside,
                              ELEMENT *hat, ELEMENT *out, float *scale, float *scratch) {
  const UNIT *w = NAME(weight)(l, which, set, d / PAIR * e->width, 0);
  const float *norm = l->norm[which == OUTPUT], *shift = l->norm[2 + (which == OUTPUT)];
  int64_t o = e->width;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, o, d / PAIR, (const UNIT *)(x + i * d), d / PAIR, 1, w, o, scratch, o, 0);
    for (int64_t r = 0; r < rows; r++) {
      float *z = scratch + r * o;
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

/* Scratch of one thread: sums of a block of a product, one head of attention, gradients on their way, units of two operands, rows of first tokens. */
typedef struct {
  float *sums, *head, *dy, *ds;
  ELEMENT *first, *dz, *du, *dq, *dk, *dv, *pushed, *sought;
  UNIT *left, *right;
} NAME(Scratch);
static NAME(Scratch) NAME(scratch_of)(const Encoder *e, const Extent *x) {
  int64_t d = e->width, f = e->feed_forward, wide = f > d ? f : d, row = sizeof(ELEMENT) * d, units = sizeof(UNIT) * UNITS(x->tokens) * wide;
  Region r = {.end = 0};
  NAME(Scratch) s = {0};
  for (int pass = 0; pass < 2; pass++) { /* first the size, then the places */
    r.base = pass ? thread_memory(r.end) : 0;
    r.end = 0;
    s = (NAME(Scratch)){
        .sums = take(&r, 4 * BLOCK_ROWS * wide, 0, 1),
        .head = take(&r, NAME(head_scratch)(x->longest, d / e->heads), 0, 1),
        .dy = take(&r, 4 * x->tokens * d, 0, 1),
        .ds = take(&r, 4 * x->tokens * e->heads, 0, 1),
        .first = take(&r, x->rows * row, 0, 1),
        .dz = take(&r, x->tokens * row, 0, 1),
        .du = take(&r, x->tokens * sizeof(ELEMENT) * wide, 0, 1),
        .dq = take(&r, x->tokens * row, 0, 1),
        .dk = take(&r, x->tokens * row, 0, 1),
        .dv = take(&r, x->tokens * row, 0, 1),
        .pushed = take(&r, e->heads * x->rows * row, 0, 1),
        .sought = take(&r, e->heads * x->rows * row, 0, 1),
        .left = take(&r, units, 0, 1),
        .right = take(&r, units, 0, 1),
    };
  }
  return s;
}

/* Attention of every row and head of a chunk, or, from the gradient of its context, the gradients of queries, keys and values. */
static void NAME(attend)(const Encoder *e, const Chunk *c, const NAME(Kept) * k, const ELEMENT *grad, const NAME(Scratch) * s, int need_q, int need_k,
                         int need_v) {
  int64_t size = e->width / e->heads, d = e->width;
  ELEMENT *p = k->probabilities;
  for (int64_t r = 0; r < c->rows; r++) {
    int64_t token = e->starts[c->row + r] - c->token, n = e->starts[c->row + r + 1] - e->starts[c->row + r];
    for (int64_t head = 0; head < e->heads; head++, p += n * round_up(n)) {
      int64_t at = token * d + head * size;
      if (grad)
        NAME(head_backward)(n, n, size, d, k->query + at, k->key + at, k->value + at, p, grad + at, need_q ? s->dq + at : 0, need_k ? s->dk + at : 0,
                            need_v ? s->dv + at : 0, s->head);
      else
        NAME(head_forward)(n, n, size, d, k->query + at, k->key + at, k->value + at, p, k->context + at, s->head);
    }
  }
}

static const ELEMENT *NAME(input_of)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, char *base) {
  return layer ? NAME(kept)(e, c, layer - 1, set, base, 0).out : (const ELEMENT *)e->x + c->token * e->width;
}

/* One layer of one chunk for one set; what is shared by all sets is computed for the first. */
static void NAME(layer_forward)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, char *base, const NAME(Scratch) *s) {
  const Layer *l = &e->layer[layer];
  int first = e->first && layer == e->layers - 1;
  int64_t n = c->tokens, m = first ? c->rows : n, d = e->width, f = e->feed_forward;
  const ELEMENT *x = NAME(input_of)(e, c, layer, set, base), *rows = first ? s->first : x;
  NAME(Kept) k = NAME(kept)(e, c, layer, set, base, 0);
  if (first) NAME(gather_first)(e, c, x, s->first);
  if (!set || l->own[QUERY]) NAME(linear)(l, QUERY, set, m, d, d, rows, k.query, s->sums);
  if (first && (!set || l->own[CONTEXT]))
    NAME(first_forward)(e, c, k.query, x, NAME(weight)(l, KEY, set, d / PAIR * d, 1), NAME(weight)(l, VALUE, set, d / PAIR * d, 0), l->bias[VALUE], &k.first,
                        k.context, s->sums);
  if (!first && (!set || l->own[KEY])) NAME(linear)(l, KEY, set, n, d, d, x, k.key, s->sums);
  if (!first && (!set || l->own[VALUE])) NAME(linear)(l, VALUE, set, n, d, d, x, k.value, s->sums);
  if (!first && (!set || l->own[CONTEXT])) NAME(attend)(e, c, &k, 0, s, 0, 0, 0);
  if (!set || l->own[ATTENDED])
    NAME(linear_norm)(e, l, ATTENTION_OUTPUT, set, m, d, k.context, rows, k.attention_hat, k.attended, k.attention_scale, s->sums);
  if (!set || l->own[INNER]) NAME(linear_gelu)(l, set, m, d, f, k.attended, k.inner, k.slope, s->sums);
  if (!set || l->own[OUT]) NAME(linear_norm)(e, l, OUTPUT, set, m, f, k.inner, k.attended, k.output_hat, k.out, k.output_scale, s->sums);
}

/* The last states of all chunks: `out` is [sets, first ? rows : tokens, width]. With a backward pass to come, `memory` is what encoder_bytes says. */
void NAME(encoder_forward)(const Encoder *e, ELEMENT *out, char *memory) {
  Extent x = extent(e);
  struct { int64_t row, at; } *list = malloc(sizeof *list * x.chunks);
  for (int64_t i = 0, row = 0, at = 0; i < x.chunks; i++) {
    Chunk c = chunk_at(e, row);
    list[i].row = row, list[i].at = at, row += c.rows, at += NAME(chunk_bytes)(e, &c);
  }
#pragma omp parallel num_threads(e->threads)
  {
    NAME(Scratch) s = NAME(scratch_of)(e, &x);
    char *own = 0;
    int64_t size = 0;
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < x.chunks; i++) {
      Chunk c = chunk_at(e, list[i].row);
      int64_t bytes = NAME(chunk_bytes)(e, &c);
      if (!e->backward && bytes > size) free(own), own = aligned_alloc(64, size = bytes);
      char *base = e->backward ? memory + list[i].at : own;
      int64_t m = e->first ? c.rows : c.tokens, place = e->first ? c.row : c.token, all = e->first ? e->rows : e->starts[e->rows];
      if (e->ids) NAME(embed)(e, &c);
      for (int64_t set = 0; set < e->sets; set++) {
        for (int64_t layer = 0; layer < e->layers; layer++) NAME(layer_forward)(e, &c, layer, set, base, &s);
        memcpy(out + (set * all + place) * e->width, NAME(kept)(e, &c, e->layers - 1, set, base, 0).out, sizeof(ELEMENT) * m * e->width);
      }
    }
    free(own);
  }
  free(list);
}

/* grad [o, d] += dy^T x; the rows of dy are `row` elements apart. */
static void NAME(weight_gradient)(int64_t n, int64_t o, int64_t row, int64_t d, const ELEMENT *dy, const ELEMENT *x, float *grad, const NAME(Scratch) * s) {
  NAME(interleave)(n, o, dy, row, s->left, o);
  NAME(interleave)(n, d, x, d, s->right, d);
  NAME(multiply)(o, d, UNITS(n), s->left, 1, o, s->right, d, grad, d, 1);
}

/* The same for a map whose heads each read rows of their own: dy [n, d], x [heads, n, d]. */
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

/* From the gradient of a layer's feed-forward sum, s->dz [m d], that of its attention's sum, in the same place. */
static void NAME(feed_forward_backward)(const Encoder *e, const Layer *l, int64_t set, int64_t m, const NAME(Kept) *k, int below, const NAME(Scratch) *s) {
  int64_t d = e->width, f = e->feed_forward;
  const UNIT *w = NAME(weight)(l, OUTPUT, set, d / PAIR * f, 1);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, f, d / PAIR, (const UNIT *)(s->dz + i * d), d / PAIR, 1, w, f, s->sums, f, 0);
    for (int64_t j = 0; j < rows * f; j += LANES)
      NAME(store)(s->du + i * f + j, (fwide) * (vec *)(s->sums + j) * NAME(load)(k->slope + i * f + j));
  }
  if (!below) return;
  w = NAME(weight)(l, INTERMEDIATE, set, f / PAIR * d, 1);
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, d, f / PAIR, (const UNIT *)(s->du + i * f), f / PAIR, 1, w, d, s->sums, d, 0);
    for (int64_t j = 0; j < rows * d; j += LANES) *(vec *)(s->sums + j) += (vec)NAME(load)(s->dz + i * d + j);
    NAME(norm_backward)(rows, d, s->sums, k->attention_hat + i * d, k->attention_scale + i, l->norm[0], s->dz + i * d);
  }
}

/* The gradient of a layer's input, s->dy [n d]: from its sum, s->dz, and from queries, keys and values; of first tokens alone, what keys and values give is
   there already. */
static void NAME(input_gradient)(const Encoder *e, const Chunk *c, const Layer *l, int64_t set, int first, const NAME(Scratch) * s) {
  int64_t n = c->tokens, d = e->width, units = d / PAIR * d;
  const UNIT *w = NAME(weight)(l, QUERY, set, units, 1);
  if (first) {
    for (int64_t i = 0; i < c->rows; i += BLOCK_ROWS) {
      int64_t rows = c->rows - i < BLOCK_ROWS ? c->rows - i : BLOCK_ROWS;
      NAME(multiply)(rows, d, d / PAIR, (const UNIT *)(s->dq + i * d), d / PAIR, 1, w, d, s->sums, d, 0);
      for (int64_t r = 0; r < rows; r++) {
        float *to = s->dy + (e->starts[c->row + i + r] - c->token) * d;
        for (int64_t j = 0; j < d; j += LANES) *(vec *)(to + j) += *(vec *)(s->sums + r * d + j) + (vec)NAME(load)(s->dz + (i + r) * d + j);
      }
    }
    return;
  }
  NAME(multiply)(n, d, d / PAIR, (const UNIT *)s->dk, d / PAIR, 1, NAME(weight)(l, KEY, set, units, 1), d, s->dy, d, 0);
  NAME(multiply)(n, d, d / PAIR, (const UNIT *)s->dv, d / PAIR, 1, NAME(weight)(l, VALUE, set, units, 1), d, s->dy, d, 1);
  NAME(multiply)(n, d, d / PAIR, (const UNIT *)s->dq, d / PAIR, 1, w, d, s->dy, d, 1);
  for (int64_t j = 0; j < n * d; j += LANES) *(vec *)(s->dy + j) += (vec)NAME(load)(s->dz + j);
}

/* One layer of one chunk for one set, from s->dy, the gradient of its output, to s->dy, that of its input (where a lower layer is adapted). The gradients of
   adapted weights are added to those of `part`. */
static void NAME(layer_backward)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, int64_t part, char *base, const NAME(Scratch) *s) {
  const Layer *l = &e->layer[layer];
  int first = e->first && layer == e->layers - 1, below = layer > e->lowest;
  int64_t n = c->tokens, m = first ? c->rows : n, d = e->width, f = e->feed_forward, place = part * e->sets + set;
  NAME(Kept) k = NAME(kept)(e, c, layer, set, base, 0);
  int need_q = below || l->adapted[QUERY], need_k = below || l->adapted[KEY], need_v = below || l->adapted[VALUE];
  int attention = need_q || need_k || need_v, sum_ = attention || l->adapted[ATTENTION_OUTPUT];
  NAME(norm_backward)(m, d, s->dy, k.output_hat, k.output_scale, l->norm[1], s->dz);
  if (l->adapted[OUTPUT]) NAME(weight_gradient)(m, d, d, f, s->dz, k.inner, l->grad[OUTPUT] + place * d * f, s);
  if (!sum_ && !l->adapted[INTERMEDIATE]) return;
  NAME(feed_forward_backward)(e, l, set, m, &k, sum_, s);
  if (l->adapted[INTERMEDIATE]) NAME(weight_gradient)(m, f, f, d, s->du, k.attended, l->grad[INTERMEDIATE] + place * f * d, s);
  if (l->adapted[ATTENTION_OUTPUT]) NAME(weight_gradient)(m, d, d, d, s->dz, k.context, l->grad[ATTENTION_OUTPUT] + place * d * d, s);
  if (!attention) return;
  /* The gradient of the context takes the place of du: both are not needed at once. */
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, d, d / PAIR, (const UNIT *)(s->dz + i * d), d / PAIR, 1, NAME(weight)(l, ATTENTION_OUTPUT, set, d / PAIR * d, 1), d, s->sums, d, 0);
    NAME(write_rows)(rows, d, s->sums, s->du + i * d, d);
  }
  const ELEMENT *x = NAME(input_of)(e, c, layer, set, base), *rows = first ? s->first : x;
  if (first) {
    NAME(first_backward)(e, c, s->du, x, NAME(weight)(l, KEY, set, d / PAIR * d, 0), NAME(weight)(l, VALUE, set, d / PAIR * d, 1), &k.first, s->pushed,
                         s->sought, s->ds, s->dq, below ? s->dy : 0, s->sums);
    NAME(gather_first)(e, c, x, s->first);
    if (l->adapted[KEY]) NAME(heads_gradient)(e, m, k.query, s->sought, l->grad[KEY] + place * d * d, s);
    if (l->adapted[VALUE]) NAME(heads_gradient)(e, m, s->du, k.first.mixed, l->grad[VALUE] + place * d * d, s);
  } else {
    NAME(attend)(e, c, &k, s->du, s, need_q, need_k, need_v);
    if (l->adapted[KEY]) NAME(weight_gradient)(n, d, d, d, s->dk, x, l->grad[KEY] + place * d * d, s);
    if (l->adapted[VALUE]) NAME(weight_gradient)(n, d, d, d, s->dv, x, l->grad[VALUE] + place * d * d, s);
  }
  if (l->adapted[QUERY]) NAME(weight_gradient)(m, d, d, d, s->dq, rows, l->grad[QUERY] + place * d * d, s);
  if (below) NAME(input_gradient)(e, c, l, set, first, s);
}

/* The gradients of the adapted weights, summed into layer[i].grad [parts, sets, o, d], from that of the last states. Chunk i belongs to part i % parts, so that
   the order of the sums does not depend on the number of threads. */
void NAME(encoder_backward)(const Encoder *e, const ELEMENT *grad, char *memory, int64_t parts) {
  int64_t all = e->first ? e->rows : e->starts[e->rows];
  Extent x = extent(e);
#pragma omp parallel for schedule(static, 1) num_threads(e->threads)
  for (int64_t part = 0; part < parts; part++) {
    NAME(Scratch) s = NAME(scratch_of)(e, &x);
    clear_gradients(e, part);
    int64_t i = 0, at = 0;
    for (int64_t row = 0; row < e->rows; i++) {
      Chunk c = chunk_at(e, row);
      int64_t m = e->first ? c.rows : c.tokens, place = e->first ? c.row : c.token;
      for (int64_t set = 0; set < e->sets && i % parts == part; set++) {
        const ELEMENT *own = grad + (set * all + place) * e->width;
        for (int64_t j = 0; j < m * e->width; j += LANES) *(vec *)(s.dy + j) = (vec)NAME(load)(own + j);
        for (int64_t layer = e->layers - 1; layer >= e->lowest; layer--) NAME(layer_backward)(e, &c, layer, set, part, memory + at, &s);
      }
      at += NAME(chunk_bytes)(e, &c), row += c.rows;
    }
  }
}
