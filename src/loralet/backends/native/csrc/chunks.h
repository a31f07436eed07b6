/* Chunks: groups of whole rows that pass through all layers together, so that values are still in the cache when the
   next operation reads them. Rows are concatenated without padding. */
#ifndef LORALET_CHUNKS_H
#define LORALET_CHUNKS_H

#include "api.h"
#include "vectors.h"

/* The first row and token of a chunk, and the number of its rows and tokens. `squares` and `padded` are the numbers of
   attention probabilities of one head, for all tokens and for first tokens only. */
typedef struct {
  int64_t row, rows, token, tokens, squares, padded;
} Chunk;

/* The number of chunks of a batch, the largest number of rows and tokens of a chunk, and the longest row. */
typedef struct {
  int64_t chunks, rows, tokens, longest;
} Extent;

static inline int64_t row_length(const Encoder *e, int64_t row) { return e->offsets[row + 1] - e->offsets[row]; }

/* The chunk that begins with this row: the rows that begin within the same block of `chunk_tokens` tokens. */
static inline Chunk chunk_at(const Encoder *e, int64_t row) {
  Chunk c = {.row = row, .token = e->offsets[row]};
  int64_t block = c.token / e->chunk_tokens;
  for (; row < e->rows && e->offsets[row] / e->chunk_tokens == block; row++) {
    int64_t length = row_length(e, row);
    c.rows++, c.tokens += length, c.squares += length * round_up(length), c.padded += round_up(length);
  }
  return c;
}

static inline Extent extent_of(const Encoder *e) {
  Extent x = {0};
  for (int64_t row = 0; row < e->rows; x.chunks++) {
    Chunk c = chunk_at(e, row);
    x.rows = larger(x.rows, c.rows), x.tokens = larger(x.tokens, c.tokens);
    row += c.rows;
  }
  for (int64_t row = 0; row < e->rows; row++) x.longest = larger(x.longest, row_length(e, row));
  return x;
}

/* A row of a chunk: the position of its first token in the chunk, and its number of tokens. */
static inline int64_t row_start(const Encoder *e, const Chunk *c, int64_t r) {
  return e->offsets[c->row + r] - c->token;
}
static inline int64_t row_tokens(const Encoder *e, const Chunk *c, int64_t r) { return row_length(e, c->row + r); }

#endif
