/* Matrix products, and the functions that pack operands.

   `matmul` and `matmul_packed` are the only entry points to the micro-kernels. The left operand is read unit by unit,
   with any strides; in tiles (tile_matmul.h), its units must be adjacent. The right operand is read row by row, in
   vectors of units: `matmul` takes plain rows, `matmul_packed` takes panels, in which consecutive reads are adjacent in
   memory. A row of the result does not depend on the other rows. */
#ifndef LORALET_MATMUL_H
#define LORALET_MATMUL_H

#include <string.h>

#include "element.h"
#include "tile_matmul.h"

#ifndef TILES

/* `rows` rows by `columns` vectors of a product over k units, in registers. Both are constants after inlining. */
CONSTANT_FOLDED void matmul_block(const int rows, const int columns, int64_t k, const unit *a, int64_t a_row,
                                  int64_t a_column, const unit *b, int64_t b_row, float *c, int64_t c_row, int add) {
  vec sums[MR][NR];
#pragma GCC unroll 6
  for (int x = 0; x < rows; x++)
#pragma GCC unroll 4
    for (int y = 0; y < columns; y++) sums[x][y] = add ? load_fp32(c + x * c_row + y * LANES) : splat(0);
  for (int64_t l = 0; l < k; l++) {
    const unit *row = b + l * b_row;
    unit_vec right[NR];
#pragma GCC unroll 4
    for (int y = 0; y < columns; y++) right[y] = load_units(row + y * LANES);
#pragma GCC unroll 6
    for (int x = 0; x < rows; x++) {
      unit_vec left = splat_unit(a[x * a_row + l * a_column]);
#pragma GCC unroll 4
      for (int y = 0; y < columns; y++) sums[x][y] = multiply_add(sums[x][y], left, right[y]);
    }
  }
#pragma GCC unroll 6
  for (int x = 0; x < rows; x++)
#pragma GCC unroll 4
    for (int y = 0; y < columns; y++) store_fp32(c + x * c_row + y * LANES, sums[x][y]);
}

/* All m rows of `columns` vectors of a product. */
CONSTANT_FOLDED void matmul_panel(const int columns, int64_t m, int64_t k, const unit *a, int64_t a_row,
                                  int64_t a_column, const unit *b, int64_t b_row, float *c, int64_t c_row, int add) {
  int64_t i = 0;
  for (; i + MR <= m; i += MR)
    matmul_block(MR, columns, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);
  a += i * a_row, c += i * c_row;
  switch (m - i) {
    case 5: matmul_block(5, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 4: matmul_block(4, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 3: matmul_block(3, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 2: matmul_block(2, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 1: matmul_block(1, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
  }
}

/* All m rows of 1 to NR vectors of a product. */
static inline void matmul_columns(int64_t columns, int64_t m, int64_t k, const unit *a, int64_t a_row, int64_t a_column,
                                  const unit *b, int64_t b_row, float *c, int64_t c_row, int add) {
  switch (columns) {
#if NR > 2
    case 4: matmul_panel(4, m, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 3: matmul_panel(3, m, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
#endif
    case 2: matmul_panel(2, m, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 1: matmul_panel(1, m, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
  }
}

#else

/* The left operand must be one whose units are adjacent. `pack_left` returns one. */
static inline void matmul_columns(int64_t columns, int64_t m, int64_t k, const unit *a, int64_t a_row, int64_t a_column,
                                  const unit *b, int64_t b_row, float *c, int64_t c_row, int add) {
  if (a_column != 1) __builtin_trap();
  tile_columns(columns, m, k, a, a_row, b, b_row, c, c_row, add);
}

#endif

/* C [m, n] = A [m, k units] B [k units, n], or C += A B if `add`. n is a multiple of LANES. `_row` and `_column` are
   the strides between rows and between units. */
static inline void matmul(int64_t m, int64_t n, int64_t k, const unit *a, int64_t a_row, int64_t a_column,
                          const unit *b, int64_t b_row, float *c, int64_t c_row, int add) {
  for (int64_t j = 0; j < n; j += PANEL)
    matmul_columns(smaller(PANEL, n - j) / LANES, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);
}

/* A right operand of `units` rows by `columns` in panels of PANEL columns; the last one may be narrower. Each panel is
   [units, its columns]. */
typedef struct {
  const unit *data;
  int64_t units, columns;
} Packed;

/* C [m, n] = A [m, k units] B (or +=), where B is the k rows of a packed operand from `unit_row` on and its n columns
   from `column` on. n and `column` are multiples of LANES. */
static inline void matmul_packed(int64_t m, int64_t n, int64_t k, const unit *a, int64_t a_row, int64_t a_column,
                                 Packed b, int64_t unit_row, int64_t column, float *c, int64_t c_row, int add) {
  for (int64_t j = column, end = column + n; j < end;) {
    int64_t panel = j / PANEL * PANEL, width = smaller(PANEL, b.columns - panel);
    int64_t some = smaller(panel + width, end) - j;
    const unit *at = b.data + panel * b.units + unit_row * width + (j - panel);
    matmul_columns(some / LANES, m, k, a, a_row, a_column, at, width, c + (j - column), c_row, add);
    j += some;
  }
}

/* C [m, columns of B] = A B (or +=) for contiguous rows of elements: the first columns of A [m, a_row], all of B. */
static inline void matmul_rows(int64_t m, const element *a, int64_t a_row, Packed b, float *c, int64_t c_row, int add) {
  matmul_packed(m, b.columns, b.units, as_units(a), a_row / PAIR, 1, b, 0, 0, c, c_row, add);
}

/* Pack rows of elements into plain rows of units: PAIR consecutive rows become one. A missing last row counts as
   zeros. */
static inline void interleave(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out,
                              int64_t out_row) {
#ifdef ELEMENT_BF16
  for (int64_t i = 0; i < rows; i += 2) {
    const element *even = in + i * in_row, *odd = even + in_row;
    unit *to = out + i / 2 * out_row;
    for (int64_t j = 0; j < columns; j += LANES) {
      uvec low = zero_extend(*(const half_memory *)(even + j));
      uvec high = i + 1 < rows ? zero_extend(*(const half_memory *)(odd + j)) : (uvec){0};
      *(uvec_memory *)(to + j) = (uvec_memory)(low | (high << 16));
    }
  }
#else
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * out_row, in + i * in_row, sizeof(unit) * columns);
#endif
}

/* A left operand: its strides between rows and between units. */
typedef struct {
  const unit *data;
  int64_t row, column;
} Left;

/* Units between the rows of `pack_left`, for matrices of up to `rows` rows. */
static inline int64_t left_row(int64_t rows) {
#ifdef TILES
  return round_up(units_of(rows));
#else
  return units_of(rows);
#endif
}

/* Pack the transpose of a matrix [rows, columns] as a left operand, [columns, left_row(rows)] units. */
static inline Left pack_left(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out) {
#ifdef TILES
  transpose_pairs(rows, columns, in, in_row, out, left_row(rows));
  return (Left){out, left_row(rows), 1};
#else
  interleave(rows, columns, in, in_row, out, columns);
  return (Left){out, 1, columns};
#endif
}

/* C [m, columns of B] = A B (or +=) for a left operand, from its first row on. */
static inline void matmul_left(int64_t m, Left a, Packed b, float *c, int64_t c_row, int add) {
  matmul_packed(m, b.columns, b.units, a.data, a.row, a.column, b, 0, 0, c, c_row, add);
}

/* Pack a matrix [rows, columns] into panels of a right operand: PAIR consecutive rows become one row of units. */
static inline Packed pack_rows(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out) {
  int64_t units = units_of(rows);
  for (int64_t j = 0; j < columns; j += PANEL) {
    int64_t width = smaller(PANEL, columns - j);
    interleave(rows, width, in + j, in_row, out + j * units, width);
  }
  return (Packed){out, units, columns};
}

/* Pack the transpose of a matrix [rows, columns] into panels of a right operand with `padded` columns, zero from column
   `rows` on. */
static inline Packed pack_transposed(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out,
                                     int64_t padded) {
  int64_t units = columns / PAIR;
  for (int64_t j = 0; j < padded; j += PANEL) {
    int64_t width = smaller(PANEL, padded - j), given = larger(0, smaller(width, rows - j));
    unit *panel = out + j * units;
    for (int64_t e = 0; e < units; e++) memset(panel + e * width + given, 0, sizeof(unit) * (width - given));
    for (int64_t i = 0; i < given; i++) {
      const unit *row = as_units(in + (j + i) * in_row);
      for (int64_t e = 0; e < units; e++) panel[e * width + i] = row[e];
    }
  }
  return (Packed){out, units, padded};
}

/* out [rows, columns] = in, converted from fp32 to the element type. The rows of out are `out_row` apart. */
static inline void store_rows(int64_t rows, int64_t columns, const float *in, element *out, int64_t out_row) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += LANES) store(out + i * out_row + j, load_fp32(in + i * columns + j));
}

#endif
