/* Matrix products in tiles, for left operands whose units are adjacent. matmul.h calls `tile_columns`.

   A tile of the result is a sum over steps of 16 units. If the last step or the last row of tiles is not full, its
   operands are copied to buffers and padded with zeros. So a row of the result depends neither on its position nor on
   the number of rows. */
#ifndef LORALET_TILE_MATMUL_H
#define LORALET_TILE_MATMUL_H

#include "tiles.h"


#ifdef TILES

/* The first `units` (at most LANES) units, then zeros. */
static inline unit_vec load_some_units(const unit *p, int64_t units) {
#ifdef __AVX512F__
  return (unit_vec)_mm512_maskz_loadu_epi32((__mmask16)((1u << units) - 1), p);
#else
  unit_vec v = {0};
  for (int64_t i = 0; i < units; i++) v[i] = p[i];
  return v;
#endif
}

/* Copy `units` (at most TILE) units of each row to rows of a tile, padded with zeros. */
static inline void copy_units(int64_t rows, int64_t units, const unit *in, int64_t in_row, unit *out) {
  for (int64_t x = 0; x < rows; x++) store_units(out + x * TILE, load_some_units(in + x * in_row, units));
}

/* Copy rows of `columns` vectors to rows of a panel, and add rows of zeros up to TILE. */
static inline void copy_rows(int64_t rows, int64_t columns, const void *in, int64_t in_row, void *out) {
  for (int64_t x = 0; x < TILE; x++)
    for (int64_t y = 0; y < columns * LANES; y += LANES)
      store_units((unit *)out + x * PANEL + y,
                  x < rows ? load_units((const unit *)in + x * in_row + y) : (unit_vec){0});
}

/* An operand of a product. Whole steps are read from `data`. The last units, padded, are in `rest`: rows of TILE units
   of a left operand, or of PANEL units of a right operand. */
typedef struct {
  const unit *data;
  int64_t row;
  const unit *rest;
} Operand;

/* Tiles 0 to 3 hold the sums: two rows of up to 2 tiles, or one row of up to 4. */
#define THIRD(rows, c, c_row) ((rows) > 1 ? (c) + TILE * (c_row) : (c) + 2 * TILE)
#define HAS_THIRD(rows, columns) ((rows) > 1 || (columns) > 2)
#define HAS_FOURTH(rows, columns) ((rows) * (columns) > 3)

CONSTANT_FOLDED void start_sums(const int rows, const int columns, const float *c, int64_t c_row, int add) {
  if (!add) {
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    return;
  }
  tile_load(0, c, c_row);
  if (columns > 1) tile_load(1, c + TILE, c_row);
  if (HAS_THIRD(rows, columns)) tile_load(2, THIRD(rows, c, c_row), c_row);
  if (HAS_FOURTH(rows, columns)) tile_load(3, THIRD(rows, c, c_row) + TILE, c_row);
}

CONSTANT_FOLDED void store_sums(const int rows, const int columns, float *c, int64_t c_row) {
  tile_store(0, c, c_row);
  if (columns > 1) tile_store(1, c + TILE, c_row);
  if (HAS_THIRD(rows, columns)) tile_store(2, THIRD(rows, c, c_row), c_row);
  if (HAS_FOURTH(rows, columns)) tile_store(3, THIRD(rows, c, c_row) + TILE, c_row);
}

/* Add the product over one step. */
CONSTANT_FOLDED void tile_step(const int rows, const int columns, const unit *a, int64_t a_row, const unit *b,
                               int64_t b_row) {
  tile_load(4, a, a_row);
  tile_load(6, b, b_row);
  tile_dot(0, 4, 6);
  if (columns > 1) {
    tile_load(7, b + TILE, b_row);
    tile_dot(1, 4, 7);
  }
  if (rows > 1) {
    tile_load(5, a + TILE * a_row, a_row);
    tile_dot(2, 5, 6);
    if (columns > 1) tile_dot(3, 5, 7);
    return;
  }
  if (columns > 2) {
    tile_load(5, b + 2 * TILE, b_row);
    tile_dot(2, 4, 5);
  }
  if (columns > 3) {
    tile_load(6, b + 3 * TILE, b_row);
    tile_dot(3, 4, 6);
  }
}

/* `rows` by `columns` tiles of the result. */
CONSTANT_FOLDED void tile_block(const int rows, const int columns, int64_t k, Operand a, Operand b, float *c,
                                int64_t c_row, int add) {
  start_sums(rows, columns, c, c_row, add);
  for (int64_t l = 0; l + TILE <= k; l += TILE)
    tile_step(rows, columns, a.data + l, a.row, b.data + l * b.row, b.row);
  if (k % TILE) tile_step(rows, columns, a.rest, TILE, b.rest, PANEL);
  store_sums(rows, columns, c, c_row);
}

/* The last rows of the result, which do not fill a tile. The other rows of its tiles are not used. */
CONSTANT_FOLDED void padded_block(const int columns, int64_t rows, int64_t k, Operand a, Operand b, float *c,
                                  int64_t c_row, int add) {
  unit left[TILE * TILE] = {0};
  float sums[TILE * PANEL];
  if (add) copy_rows(rows, columns, c, c_row, sums);
  start_sums(1, columns, sums, PANEL, add);
  for (int64_t l = 0; l + TILE <= k; l += TILE) {
    copy_units(rows, TILE, a.data + l, a.row, left);
    tile_step(1, columns, left, TILE, b.data + l * b.row, b.row);
  }
  if (k % TILE) tile_step(1, columns, a.rest, TILE, b.rest, PANEL);
  store_sums(1, columns, sums, PANEL);
  for (int64_t x = 0; x < rows; x++) memcpy(c + x * c_row, sums + x * PANEL, sizeof(float) * LANES * columns);
}

/* Up to TILE rows of the result. */
CONSTANT_FOLDED void tile_row(const int columns, int64_t rows, int64_t k, Operand a, Operand b, float *c, int64_t c_row,
                              int add) {
  if (rows == TILE)
    tile_block(1, columns, k, a, b, c, c_row, add);
  else
    padded_block(columns, rows, k, a, b, c, c_row, add);
}

/* Two rows of tiles of the result. */
CONSTANT_FOLDED void two_tile_rows(int64_t columns, int64_t k, Operand a, Operand b, float *c, int64_t c_row, int add) {
  for (; columns > 1; columns -= 2, b.data += 2 * TILE, b.rest += 2 * TILE, c += 2 * TILE)
    tile_block(2, 2, k, a, b, c, c_row, add);
  if (columns) tile_block(2, 1, k, a, b, c, c_row, add);
}

/* All m rows of 1 to NR vectors of a product. */
static inline void tile_columns(int64_t columns, int64_t m, int64_t k, const unit *a, int64_t a_row, const unit *b,
                                int64_t b_row, float *c, int64_t c_row, int add) {
  unit left_rest[2 * TILE * TILE], right_rest[TILE * PANEL];
  int64_t rest = k % TILE, whole = k - rest;
  Operand right = {b, b_row, right_rest};
  if (rest) {
    memset(left_rest, 0, sizeof left_rest);
    copy_rows(rest, columns, b + whole * b_row, b_row, right_rest);
  }
  for (int64_t i = 0, rows; i < m; i += rows) {
    rows = m - i < 2 * TILE ? smaller(TILE, m - i) : 2 * TILE;
    Operand left = {a + i * a_row, a_row, left_rest};
    float *to = c + i * c_row;
    if (rest) copy_units(rows, rest, left.data + whole, a_row, left_rest);
    if (rows > TILE) {
      two_tile_rows(columns, k, left, right, to, c_row, add);
      continue;
    }
    switch (columns) {
      case 4: tile_row(4, rows, k, left, right, to, c_row, add); break;
      case 3: tile_row(3, rows, k, left, right, to, c_row, add); break;
      case 2: tile_row(2, rows, k, left, right, to, c_row, add); break;
      case 1: tile_row(1, rows, k, left, right, to, c_row, add); break;
    }
  }
}

/* The pairs of adjacent elements of two rows. Null: zeros. */
static inline unit_vec pair_rows(const element *even, const element *odd) {
  if (!even) return (unit_vec){0};
  uvec low = zero_extend(*(const half_memory *)even);
  return odd ? low | zero_extend(*(const half_memory *)odd) << 16 : low;
}

/* Transpose TILE rows of TILE units. */
static inline void transpose_tile(unit_vec rows[TILE]) {
#ifdef __AVX512F__
  /* Interleaving rows i and i + 8 rotates the eight bits of a unit's row and column by one. */
  const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  for (int round = 0; round < 4; round++) {
    unit_vec next[TILE];
    for (int i = 0; i < TILE / 2; i++) {
      __m512i first = (__m512i)rows[i], second = (__m512i)rows[i + TILE / 2];
      next[2 * i] = (unit_vec)_mm512_permutex2var_epi32(first, low, second);
      next[2 * i + 1] = (unit_vec)_mm512_permutex2var_epi32(first, high, second);
    }
    memcpy(rows, next, sizeof next);
  }
#else
  for (int i = 0; i < TILE; i++)
    for (int j = 0; j < i; j++) {
      unit swapped = rows[i][j];
      rows[i][j] = rows[j][i], rows[j][i] = swapped;
    }
#endif
}

/* out [columns, out_row units] = the transpose of a matrix [rows, columns], with zeros up to out_row. `columns` and
   out_row are multiples of TILE. */
static inline void transpose_pairs(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out,
                                   int64_t out_row) {
  for (int64_t j = 0; j < columns; j += TILE)
    for (int64_t u = 0; u < out_row; u += TILE) {
      unit_vec tile[TILE];
      const element *at = in + 2 * u * in_row + j;
      for (int64_t x = 0, left = rows - 2 * u; x < TILE; x++, left -= 2, at += 2 * in_row)
        tile[x] = pair_rows(left > 0 ? at : NULL, left > 1 ? at + in_row : NULL);
      transpose_tile(tile);
      for (int64_t x = 0; x < TILE; x++) store_units(out + (j + x) * out_row + u, tile[x]);
    }
}

#endif

#endif
