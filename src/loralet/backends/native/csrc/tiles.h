/* Tiles: registers of 16 rows of 16 units (AMX). TILES is defined if this translation unit has them.

   There are eight. They can be used between `tile_configure` and `tile_release`, on the same thread. Their numbers are
   literals, because the instructions contain them. Rows in memory are `row` units apart.

   LORALET_EMULATE_TILES implements them in C, to test the code that uses them on any CPU. */
#ifndef LORALET_TILES_H
#define LORALET_TILES_H

#include <string.h>

#include "element.h"

#if defined ELEMENT_BF16 && (defined LORALET_EMULATE_TILES || (defined __AMX_TILE__ && defined __AMX_BF16__))
#define TILES
#define TILE 16
#if LANES != TILE
#error "a row of a tile must be a vector"
#endif
#endif

#ifndef TILES

static inline void tile_configure(void) {}
static inline void tile_release(void) {}

#elif defined LORALET_EMULATE_TILES

/* As on a CPU, a tile that is used without configuration ends the process. */
static _Thread_local struct {
  unit_vec tiles[8][TILE];
  int configured;
} tile_state;

static inline unit_vec *tile_at(int tile) {
  if (!tile_state.configured) __builtin_trap();
  return tile_state.tiles[tile];
}

static inline void tile_zero(int tile) { memset(tile_at(tile), 0, sizeof tile_state.tiles[tile]); }
static inline void tile_load(int tile, const void *from, int64_t row) {
  unit_vec *to = tile_at(tile);
  for (int x = 0; x < TILE; x++) to[x] = load_units((const unit *)from + x * row);
}
static inline void tile_store(int tile, void *to, int64_t row) {
  const unit_vec *from = tile_at(tile);
  for (int x = 0; x < TILE; x++) *(uvec_memory *)((unit *)to + x * row) = (uvec_memory)from[x];
}

/* sums += A B. The order of summation is that of TDPBF16PS in Intel's manual. Subnormal numbers are not flushed. */
static inline void tile_dot(int sums, int a, int b) {
  unit_vec *to = tile_at(sums), *left = tile_at(a), *right = tile_at(b);
  for (int x = 0; x < TILE; x++) {
    vec low = splat(0), high = splat(0);
    for (int l = 0; l < TILE; l++) {
      unit_vec pair = splat_unit(left[x][l]);
      low += (vec)(pair << 16) * (vec)(right[l] << 16);
      high += (vec)(pair & 0xffff0000u) * (vec)(right[l] & 0xffff0000u);
    }
    to[x] = (unit_vec)((vec)to[x] + (low + high));
  }
}

static inline void tile_configure(void) {
  memset(&tile_state, 0, sizeof tile_state);
  tile_state.configured = 1;
}
static inline void tile_release(void) { tile_state.configured = 0; }

#else

#define tile_zero(tile) _tile_zero(tile)
#define tile_store(tile, to, row) _tile_stored(tile, to, 4 * (row))
#define tile_dot(sums, a, b) _tile_dpbf16ps(sums, a, b)

/* GCC does not know that the instruction reads memory. The empty statement completes earlier stores. */
#define tile_load(tile, from, row)          \
  do {                                      \
    __asm__ volatile("" ::: "memory");      \
    _tile_loadd(tile, from, 4 * (row));     \
  } while (0)

static inline void tile_configure(void) {
  static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } configuration = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&configuration);
}
static inline void tile_release(void) { _tile_release(); }

#endif

#endif
