/* Where one chunk's numbers are between forward and backward, and what a thread needs meanwhile, in one precision (see matrix.h). */

/* What a layer keeps of one chunk and set for the backward pass. */
typedef struct {
  ELEMENT *query, *key, *value, *probabilities, *context; /* [m d] [n d] [n d] [heads of m x n each] [m d] */
  ELEMENT *attention_hat, *attended, *slope, *inner, *output_hat, *out; /* [m d] [m d] [m f] [m f] [m d] [m d] */
  float *attention_scale, *output_scale; /* [m] reciprocal standard deviations */
  NAME(First) first;                     /* in place of key, value and probabilities, where those are not formed */
  ELEMENT *low[MAPS];                    /* [m rank] what A gives, where an adapter's input has dropout */
} NAME(Kept);

static NAME(Kept) NAME(kept)(const Encoder *e, const Chunk *c, int64_t layer, int64_t set, char *base, int64_t *end) {
  Region r = {base, 0, e->sets, set, e->backward};
  NAME(Kept) k = {0};
  for (int64_t i = 0; i <= layer; i++) {
    const Layer *l = &e->layer[i];
    int first = e->first && i == e->layers - 1, formed = !first || l->formed, b = e->backward;
    int64_t m = first ? c->rows : c->tokens, d = sizeof(ELEMENT) * e->width, f = sizeof(ELEMENT) * e->feed_forward;
    k = (NAME(Kept)){
        .query = take(&r, m * d, l->own[QUERY], 1),
        .key = take(&r, c->tokens * d, l->own[KEY], formed),
        .value = take(&r, c->tokens * d, l->own[VALUE], formed),
        .probabilities = take(&r, sizeof(ELEMENT) * (first ? c->padded : c->squares) * e->heads, l->own[CONTEXT], formed),
        .first = {.reach = take(&r, e->heads * m * d, l->own[CONTEXT], !formed),
                  .mixed = take(&r, e->heads * m * d, l->own[CONTEXT], !formed),
                  .probabilities = take(&r, 4 * e->heads * c->tokens, l->own[CONTEXT], !formed)},
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
    for (int which = 0; which < MAPS; which++) {
      int64_t rows = which == KEY || which == VALUE ? c->tokens : m;
      k.low[which] = take(&r, sizeof(ELEMENT) * rows * e->dropout_rank, 1, l->dropout[which] != 0);
    }
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

/* Scratch of one thread: sums of a block of a product (and of another), one head of attention, gradients on their way, rows of first tokens, what
   dropout leaves of an input, units of two operands. */
typedef struct {
  float *sums, *back, *head, *dy, *ds;
  ELEMENT *first, *dz, *du, *dq, *dk, *dv, *pushed, *sought, *masked, *dlow;
  UNIT *left, *right;
} NAME(Scratch);
static NAME(Scratch) NAME(scratch_of)(const Encoder *e, const Extent *x) {
  int64_t d = e->width, f = e->feed_forward, wide = f > d ? f : d, row = sizeof(ELEMENT) * d, dropped = e->dropout_rank != 0;
  int64_t widest = wide > e->dropout_rank ? wide : e->dropout_rank, units = sizeof(UNIT) * UNITS(x->tokens) * widest;
  int64_t one = NAME(head_scratch)(x->longest, d / e->heads), ranks = 4 * BLOCK_ROWS * e->dropout_rank;
  Region r = {.end = 0};
  NAME(Scratch) s = {0};
  for (int pass = 0; pass < 2; pass++) { /* first the size, then the places */
    r.base = pass ? thread_memory(r.end) : 0;
    r.end = 0;
    s = (NAME(Scratch)){
        .sums = take(&r, 4 * BLOCK_ROWS * wide, 0, 1),
        .back = take(&r, 4 * BLOCK_ROWS * wide, 0, dropped),
        .head = take(&r, one > ranks ? one : ranks, 0, 1),
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
        .masked = take(&r, sizeof(ELEMENT) * (x->tokens > BLOCK_ROWS ? x->tokens : BLOCK_ROWS) * wide, 0, dropped),
        .dlow = take(&r, sizeof(ELEMENT) * x->tokens * e->dropout_rank, 0, dropped),
        .left = take(&r, units, 0, 1),
        .right = take(&r, units, 0, 1),
    };
  }
  return s;
}

/* grad [o, d] += dy^T x; the rows of dy are `row` elements apart. */
static void NAME(weight_gradient)(int64_t n, int64_t o, int64_t row, int64_t d, const ELEMENT *dy, const ELEMENT *x, float *grad, const NAME(Scratch) * s) {
  NAME(interleave)(n, o, dy, row, s->left, o);
  NAME(interleave)(n, d, x, d, s->right, d);
  NAME(multiply)(o, d, UNITS(n), s->left, 1, o, s->right, d, grad, d, 1);
}
