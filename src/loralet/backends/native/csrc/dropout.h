/* Dropout on the input of an adapter (Hu et al. 2021, section 4.1, as PEFT has it), in one precision (see matrix.h): y += scale B A (mask x). Its product
   cannot be added to the weights, so it is computed apart, rank by rank.

   Masks are never kept: a number of the mask is a function of the adapter's keys, the map, the token's place in the batch and the feature, so that the backward
   pass draws it again, and no run's masks depend on the runs beside it or on how a batch is split. */

/* Where a product is computed: of which chunk, layer and set; `first`: its rows are first tokens. */
typedef struct {
  const Encoder *encoder;
  const Chunk *chunk;
  int64_t layer, set, part;
  int first;
} NAME(Place);

static const Dropout *NAME(dropout_of)(const NAME(Place) * p, int which) {
  const Dropout *all = p->encoder->layer[p->layer].dropout[which];
  return all && all[p->set].rank ? all + p->set : 0;
}

/* out = mask x, for rows from `row` on */
static void NAME(masked)(const NAME(Place) * p, const Dropout *z, int which, int64_t row, int64_t rows, int64_t d, const ELEMENT *x, ELEMENT *out) {
  for (int64_t r = 0; r < rows; r++) {
    int64_t token = token_of(p->encoder, p->chunk, p->first, row + r);
    for (int64_t j = 0; j < d; j += LANES)
      NAME(store)(out + r * d + j, NAME(load)(x + r * d + j) * mask_at(z, p->layer * MAPS + which, token * d + j));
  }
}

/* sums [rows, o] += scale B A (mask x); what A gives is kept in `low` [rows, rank]. */
static void NAME(dropout_forward)(const NAME(Place) * p, int which, int64_t row, int64_t rows, int64_t d, int64_t o, const ELEMENT *x, ELEMENT *low,
                                float *sums, const NAME(Scratch) * s) {
  const Dropout *z = NAME(dropout_of)(p, which);
  if (!z) return;
  NAME(masked)(p, z, which, row, rows, d, x, s->masked);
  NAME(multiply)(rows, z->rank, d / PAIR, (const UNIT *)s->masked, d / PAIR, 1, (const UNIT *)z->down, z->rank, s->head, z->rank, 0);
  low += row * z->rank;
  NAME(write_rows)(rows, z->rank, s->head, low, z->rank);
  NAME(multiply)(rows, o, z->rank / PAIR, (const UNIT *)low, z->rank / PAIR, 1, (const UNIT *)z->up, o, sums, o, 1);
}

/* Gradients of A and B of one map from that of its output, dy [m, o]; s->dlow becomes what goes on to the input. */
static void NAME(dropout_backward)(const NAME(Place) * p, int which, int64_t m, int64_t o, int64_t d, const ELEMENT *dy, const ELEMENT *x,
                                 const ELEMENT *low, const NAME(Scratch) * s) {
  const Dropout *z = NAME(dropout_of)(p, which);
  if (!z) return;
  int64_t rank = z->rank;
  for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
    int64_t rows = m - i < BLOCK_ROWS ? m - i : BLOCK_ROWS;
    NAME(multiply)(rows, rank, o / PAIR, (const UNIT *)(dy + i * o), o / PAIR, 1, (const UNIT *)z->up_back, rank, s->head, rank, 0);
    NAME(write_rows)(rows, rank, s->head, s->dlow + i * rank, rank);
  }
  NAME(masked)(p, z, which, 0, m, d, x, s->masked);
  NAME(weight_gradient)(m, o, o, rank, dy, low, z->grad_b + p->part * o * rank, s);
  NAME(weight_gradient)(m, rank, rank, d, s->dlow, s->masked, z->grad_a + p->part * rank * d, s);
}

/* to += mask (A^T dlow), for `rows` rows from `row` on: to [rows, d], or, where `scattered`, each to its token's row of the chunk. */
static void NAME(dropout_input)(const NAME(Place) * p, int which, int64_t row, int64_t rows, int64_t d, float *to, int scattered, const NAME(Scratch) * s) {
  const Dropout *z = NAME(dropout_of)(p, which);
  if (!z) return;
  for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
    int64_t some = rows - i < BLOCK_ROWS ? rows - i : BLOCK_ROWS;
    float *sums = s->back;
    NAME(multiply)(some, d, z->rank / PAIR, (const UNIT *)(s->dlow + (row + i) * z->rank), z->rank / PAIR, 1, (const UNIT *)z->down_back, d, sums, d, 0);
    for (int64_t r = 0; r < some; r++) {
      int64_t token = token_of(p->encoder, p->chunk, p->first, row + i + r), place = scattered ? token - p->chunk->token : i + r;
      for (int64_t j = 0; j < d; j += LANES)
        *(vec *)(to + place * d + j) += (vec)((fwide) * (vec *)(sums + r * d + j) * mask_at(z, p->layer * MAPS + which, token * d + j));
    }
  }
}
