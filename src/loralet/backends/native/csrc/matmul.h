/* Matrix products, and two functions that pack the right operand.

   `matmul` is the only entry point to the micro-kernels. The left operand is read unit by unit, with any strides. The
   right operand is stored in rows of units: `interleave` packs a matrix, `transpose` packs a transposed matrix. A row
   of the result does not depend on the other rows. */
#ifndef LORALET_MATMUL_H
#define LORALET_MATMUL_H

#include <string.h>

#include "element.h"

#define CONSTANT_FOLDED static inline __attribute__((always_inline))

/* `rows` rows by `columns` vectors of a product over k units, in registers. Both are constants after inlining. */
CONSTANT_FOLDED void matmul_tile(const int rows, const int columns, int64_t k, const unit *a, int64_t a_row,
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
    matmul_tile(MR, columns, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);
  a += i * a_row, c += i * c_row;
  switch (m - i) {
    case 5: matmul_tile(5, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 4: matmul_tile(4, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 3: matmul_tile(3, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 2: matmul_tile(2, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 1: matmul_tile(1, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
  }
}

/* C [m, n] = A [m, k units] B [k units, n], or C += A B if `add`. n is a multiple of LANES. `_row` and `_column` are
   the strides between rows and between units. */
static inline void matmul(int64_t m, int64_t n, int64_t k, const unit *a, int64_t a_row, int64_t a_column,
                          const unit *b, int64_t b_row, float *c, int64_t c_row, int add) {
  int64_t j = 0;
  for (; j + NR * LANES <= n; j += NR * LANES)
    matmul_panel(NR, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);
  for (; j < n; j += LANES) matmul_panel(1, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);
}

/* C [m, n] = A B (or +=) for contiguous rows of elements: the first k columns of A [m, a_row], and B [k / pair, n] in
   units. */
static inline void matmul_rows(int64_t m, int64_t n, int64_t k, const element *a, int64_t a_row, const unit *b,
                               int64_t b_row, float *c, int64_t c_row, int add) {
  matmul(m, n, units_of(k), as_units(a), a_row / PAIR, 1, b, b_row, c, c_row, add);
}

/* Pack rows of elements into rows of units: PAIR consecutive rows become one. A missing last row counts as zeros. */
static inline void interleave(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out,
                              int64_t out_row) {
#ifdef ELEMENT_BF16
  for (int64_t i = 0; i < rows; i += 2) {
    const element *even = in + i * in_row, *odd = even + in_row;
    unit *to = out + i / 2 * out_row;
    for (int64_t j = 0; j < columns; j += LANES) {
      uvec low = __builtin_convertvector(*(const half_memory *)(even + j), uvec);
      uvec high = i + 1 < rows ? __builtin_convertvector(*(const half_memory *)(odd + j), uvec) : (uvec){0};
      *(uvec_memory *)(to + j) = (uvec_memory)(low | (high << 16));
    }
  }
#else
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * out_row, in + i * in_row, sizeof(unit) * columns);
#endif
}

/* Pack the transpose of a matrix [rows, columns] into rows of units. `out` is [columns / PAIR, out_row], zero from
   column `rows` on. */
static inline void transpose(int64_t rows, int64_t columns, const element *in, int64_t in_row, unit *out,
                             int64_t out_row) {
  int64_t units = columns / PAIR;
  for (int64_t e = 0; e < units; e++) memset(out + e * out_row + rows, 0, sizeof(unit) * (out_row - rows));
  for (int64_t i = 0; i < rows; i++) {
    const unit *row = as_units(in + i * in_row);
    for (int64_t e = 0; e < units; e++) out[e * out_row + i] = row[e];
  }
}

/* out [rows, columns] = in, converted from fp32 to the element type. The rows of out are `out_row` apart. */
static inline void store_rows(int64_t rows, int64_t columns, const float *in, element *out, int64_t out_row) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j += LANES) store(out + i * out_row + j, load_fp32(in + i * columns + j));
}

#endif
