/* Products of matrices in one precision. Included twice: HALF 0 for fp32, HALF 1 for bf16; the sums are always fp32.

   A `unit` is what one 32-bit lane holds along the axis that is summed over: one fp32, or a pair of bf16. A product's left side is read unit by unit, by any
   strides; its right side is rows of units, which `interleave` makes from rows of elements and `transpose` from the rows of a transposed matrix. */

#if HALF
#define NAME(x) x##_bf16
#define ELEMENT uint16_t
#define UNIT uint32_t
#define PAIR 2
#define WIDE uwide
#define WMEM uvec
#define DOT(sums, a, b) dot_pairs(sums, a, b)
#else
#define NAME(x) x##_fp32
#define ELEMENT float
#define UNIT float
#define PAIR 1
#define WIDE fwide
#define WMEM vec
#define DOT(sums, a, b) ((sums) + (a) * (b))
#endif
#define UNITS(n) (((n) + PAIR - 1) / PAIR)

static inline fwide NAME(load)(const ELEMENT *p) {
#if HALF
  return widen(*(const hvec *)p);
#else
  return (fwide) * (const vec *)p;
#endif
}
static inline void NAME(store)(ELEMENT *p, fwide v) {
#if HALF
  *(hvec *)p = narrow(v);
#else
  *(vec *)p = (vec)v;
#endif
}

/* `rows` rows by `columns` vectors of a product (constants where this is inlined), kept in registers. */
static inline __attribute__((always_inline)) void NAME(block)(const int rows, const int columns, int64_t k, const UNIT *a, int64_t a_row,
                                                              int64_t a_column, const UNIT *b, int64_t b_row, float *c, int64_t c_row, int add) {
  fwide s[ROWS][COLUMNS];
#pragma GCC unroll 6
  for (int x = 0; x < rows; x++)
#pragma GCC unroll 4
    for (int y = 0; y < columns; y++) s[x][y] = add ? (fwide) * (const vec *)(c + x * c_row + y * LANES) : splat(0);
  for (int64_t l = 0; l < k; l++) {
    const UNIT *row = b + l * b_row;
    WIDE w[COLUMNS];
#pragma GCC unroll 4
    for (int y = 0; y < columns; y++) w[y] = (WIDE) * (const WMEM *)(row + y * LANES);
#pragma GCC unroll 6
    for (int x = 0; x < rows; x++) {
      WIDE factor = (WIDE){} + a[x * a_row + l * a_column];
#pragma GCC unroll 4
      for (int y = 0; y < columns; y++) s[x][y] = DOT(s[x][y], factor, w[y]);
    }
  }
#pragma GCC unroll 6
  for (int x = 0; x < rows; x++)
#pragma GCC unroll 4
    for (int y = 0; y < columns; y++) *(vec *)(c + x * c_row + y * LANES) = (vec)s[x][y];
}

static inline __attribute__((always_inline)) void NAME(panel)(const int columns, int64_t m, int64_t k, const UNIT *a, int64_t a_row, int64_t a_column,
                                                              const UNIT *b, int64_t b_row, float *c, int64_t c_row, int add) {
  int64_t i = 0;
  for (; i + ROWS <= m; i += ROWS) NAME(block)(ROWS, columns, k, a + i * a_row, a_row, a_column, b, b_row, c + i * c_row, c_row, add);
  a += i * a_row, c += i * c_row;
  switch (m - i) {
    case 5: NAME(block)(5, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 4: NAME(block)(4, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 3: NAME(block)(3, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 2: NAME(block)(2, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
    case 1: NAME(block)(1, columns, k, a, a_row, a_column, b, b_row, c, c_row, add); break;
  }
}

/* C[m, n] = A[m, k units] B[k units, n], or C += ... where `add`; n a multiple of LANES. A row's result does not depend on the rows beside it. */
static void NAME(multiply)(int64_t m, int64_t n, int64_t k, const UNIT *a, int64_t a_row, int64_t a_column, const UNIT *b, int64_t b_row, float *c,
                           int64_t c_row, int add) {
  int64_t j = 0;
  for (; j + COLUMNS * LANES <= n; j += COLUMNS * LANES) NAME(panel)(COLUMNS, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);
  for (; j < n; j += LANES) NAME(panel)(1, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, add);
}

/* Rows of units from rows of elements: each PAIR of neighbouring rows becomes one. A missing last row counts as zeros. */
static void NAME(interleave)(int64_t rows, int64_t columns, const ELEMENT *in, int64_t in_row, UNIT *out, int64_t out_row) {
#if HALF
  for (int64_t i = 0; i < rows; i += 2) {
    const uint16_t *even = in + i * in_row, *odd = even + in_row;
    uint32_t *to = out + i / 2 * out_row;
    for (int64_t j = 0; j < columns; j += LANES) {
      uwide low = __builtin_convertvector(*(const hvec *)(even + j), uwide);
      uwide high = i + 1 < rows ? __builtin_convertvector(*(const hvec *)(odd + j), uwide) : (uwide){};
      *(uvec *)(to + j) = (uvec)(low | (high << 16));
    }
  }
#else
  for (int64_t i = 0; i < rows; i++) memcpy(out + i * out_row, in + i * in_row, 4 * columns);
#endif
}

/* Rows of units from the rows of a transposed matrix [rows, columns elements]; `out` is [columns / PAIR, out_row], zero from `rows` on. */
static void NAME(transpose)(int64_t rows, int64_t columns, const ELEMENT *in, int64_t in_row, UNIT *out, int64_t out_row) {
  int64_t units = columns / PAIR;
  for (int64_t e = 0; e < units; e++) memset(out + e * out_row + rows, 0, 4 * (out_row - rows));
  for (int64_t i = 0; i < rows; i++) {
    const UNIT *row = (const UNIT *)(in + i * in_row);
    for (int64_t e = 0; e < units; e++) out[e * out_row + i] = row[e];
  }
}
