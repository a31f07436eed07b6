/* A post-norm encoder (Devlin et al. 2019) for several adapters at once: the forward pass, and the gradients of the
   adapted weights. The torch backend is the reference.

   Each chunk passes through all layers before the next chunk. Values before the first adapted linear layer are the same
   for all adapters and computed once. */
#ifndef LORALET_ENCODER_H
#define LORALET_ENCODER_H

#include "layer_backward.h"

/* Sum and normalise the word, position and type embeddings of a chunk's tokens, and write them to the input. */
static inline void embed(const Encoder *e, const Chunk *c) {
  const element *words = e->word_embeddings, *positions = e->position_embeddings;
  const element *weight = e->embedding_norm, *bias = weight + e->width;
  int64_t d = e->width;
  for (int64_t r = 0; r < c->rows; r++) {
    int64_t begin = e->offsets[c->row + r], end = e->offsets[c->row + r + 1];
    for (int64_t t = begin; t < end; t++) {
      int64_t type = e->types ? e->types[t] : 0;
      const element *word = words + e->ids[t] * d, *position = positions + (type * e->positions + t - begin) * d;
      element *out = (element *)e->input + t * d;
      vec total = splat(0), squares = splat(0);
      for (int64_t j = 0; j < d; j += LANES) total += load(word + j) + load(position + j);
      float mean = vector_sum(total) / d;
      for (int64_t j = 0; j < d; j += LANES) {
        vec v = load(word + j) + load(position + j) - mean;
        squares += v * v;
      }
      float rstd = 1.0f / sqrtf(vector_sum(squares) / d + e->epsilon);
      for (int64_t j = 0; j < d; j += LANES)
        store(out + j, (load(word + j) + load(position + j) - mean) * rstd * load(weight + j) + load(bias + j));
    }
  }
}

/* The first row of a chunk, and the position of its activations in the batch's block. */
typedef struct {
  int64_t row, at;
} ChunkStart;

/* The start of every chunk, or null if there is no memory. Writes the size of the largest activations to `most`. */
static inline ChunkStart *chunk_starts(const Encoder *e, const Extent *x, int64_t *most) {
  ChunkStart *starts = allocate((int64_t)sizeof(ChunkStart) * x->chunks);
  *most = 0;
  for (int64_t i = 0, row = 0, at = 0; starts && i < x->chunks; i++) {
    Chunk c = chunk_at(e, row);
    int64_t bytes = chunk_bytes(e, &c);
    starts[i] = (ChunkStart){row, at};
    row += c.rows, at += bytes, *most = larger(*most, bytes);
  }
  return starts;
}

/* The rows of a chunk in the last states: their number, the first one, and the number of rows of the batch. */
typedef struct {
  int64_t count, first, all;
} StateRows;

static inline StateRows state_rows(const Encoder *e, const Chunk *c) {
  if (e->cls_only) return (StateRows){c->rows, c->row, e->rows};
  return (StateRows){c->tokens, c->token, e->offsets[e->rows]};
}

/* All layers of one chunk for all adapters. */
static inline void chunk_forward(const Encoder *e, const Chunk *c, char *base, element *out, const Workspace *w) {
  StateRows rows = state_rows(e, c);
  if (e->ids) embed(e, c);
  for (int64_t adapter = 0; adapter < e->adapters; adapter++) {
    for (int64_t layer = 0; layer < e->layers; layer++) layer_forward(e, c, layer, adapter, base, w);
    const element *last = activations_of(e, c, e->layers - 1, adapter, base, NULL).out;
    memcpy(out + (adapter * rows.all + rows.first) * e->width, last, sizeof(element) * rows.count * e->width);
  }
}

/* The last states of a batch: `out` is [k, cls_only ? b : n, width]. If a backward pass follows, `activations` has the
   size given by encoder_bytes; otherwise it is not used. */
int TYPED(encoder_forward)(const Encoder *e, void *out, void *activations) {
  Extent x = extent_of(e);
  int64_t most;
  ChunkStart *starts = chunk_starts(e, &x, &most);
  if (!starts) return OUT_OF_MEMORY;
  int status = OK;
#pragma omp parallel num_threads((int)e->threads)
  {
    Workspace w = make_workspace(e, &x, e->backward ? 0 : most);
    if (!w.sums) note_failure(&status);
    tile_configure();
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < x.chunks; i++) {
      if (!w.sums) continue;
      Chunk c = chunk_at(e, starts[i].row);
      chunk_forward(e, &c, e->backward ? (char *)activations + starts[i].at : w.chunk, out, &w);
    }
    tile_release();
  }
  release(starts);
  return status;
}

/* Set one part's gradient sums to zero: those of packed weights, or of branches. */
static inline void clear_gradients(const Encoder *e, int64_t part) {
  for (int64_t i = 0; i < e->layers; i++)
    for (int which = 0; which < LINEARS; which++) {
      const Layer *l = &e->layer[i];
      int64_t d_in = which == OUTPUT ? e->feed_forward : e->width,
              d_out = which == INTERMEDIATE ? e->feed_forward : e->width;
      for (int64_t adapter = 0; l->adapted[which] && adapter < e->adapters; adapter++) {
        const Branch *z = l->branch[which] && l->branch[which][adapter].rank ? l->branch[which] + adapter : NULL;
        int64_t size = z ? branch_grad_size(z, d_in, d_out) : d_in * d_out;
        if (z)
          memset(z->grad + part * size, 0, sizeof(float) * size);
        else if (l->merged[which])
          memset(l->weight_grad[which] + (part * e->adapters + adapter) * size, 0, sizeof(float) * size);
      }
    }
}

/* One part of the gradients, from the chunks i with i % parts == part. */
static inline void part_backward(const Encoder *e, int64_t part, const element *grad_out, char *activations,
                                 const Workspace *w) {
  clear_gradients(e, part);
  for (int64_t row = 0, i = 0, at = 0; row < e->rows; i++) {
    Chunk c = chunk_at(e, row);
    StateRows rows = state_rows(e, &c);
    for (int64_t adapter = 0; adapter < e->adapters && i % e->parts == part; adapter++) {
      const element *grad = grad_out + (adapter * rows.all + rows.first) * e->width;
      for (int64_t j = 0; j < rows.count * e->width; j += LANES) store_fp32(w->dy + j, load(grad + j));
      for (int64_t layer = e->layers - 1; layer >= e->lowest_adapted; layer--)
        layer_backward(e, &c, layer, adapter, part, activations + at, w);
    }
    at += chunk_bytes(e, &c), row += c.rows;
  }
}

/* Gradients of the adapted weights from the gradient of the last states, which has their shape. The parts do not depend
   on the number of threads, so the order of summation does not. */
int TYPED(encoder_backward)(const Encoder *e, const void *grad_out, void *activations) {
  Extent x = extent_of(e);
  int status = OK;
#pragma omp parallel num_threads((int)e->threads)
  {
    tile_configure();
#pragma omp for schedule(static, 1)
    for (int64_t part = 0; part < e->parts; part++) {
      Workspace w = make_workspace(e, &x, 0);
      if (w.sums)
        part_backward(e, part, grad_out, activations, &w);
      else
        note_failure(&status);
    }
    tile_release();
  }
  return status;
}

#endif
