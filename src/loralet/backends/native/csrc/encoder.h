/* A post-norm encoder (Devlin et al. 2019) for several sets of adapted weights at once, in one precision (see matrix.h): the forward pass, and the gradients
   of the adapted weights. The twin in torch is loralet.models.encoder.

   Rows lie one after another without padding. They are worked off in chunks of whole rows, each through all layers, so that what one step of a layer writes is
   still in the cache when the next reads it. What comes before the first adapted linear map is the same for every set and computed once. */

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
