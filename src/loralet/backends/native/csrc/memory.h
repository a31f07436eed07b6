/* Memory of the kernels. Every allocation can fail; every caller returns the failure as a status. */
#ifndef LORALET_MEMORY_H
#define LORALET_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "api.h"

/* A block aligned to a cache line, or null. */
void *allocate(int64_t bytes);
void release(void *block);

/* The calling thread's workspace of at least `bytes`, or null. The next call invalidates its contents. It is reused by
   later kernels, because allocating it at every step costs a tenth of the step. It is freed when the thread ends. */
void *thread_workspace(int64_t bytes);

/* Record a failed allocation inside a parallel region, which no thread may leave early. */
static inline void note_failure(int *status) { __atomic_store_n(status, OUT_OF_MEMORY, __ATOMIC_RELAXED); }

/* Splits a block into consecutive pieces. Without a base, only the size is computed. A per-adapter value has one piece
   per adapter; without a backward pass, all adapters reuse one piece. */
typedef struct {
  char *base;
  int64_t size, adapters, adapter;
  int backward;
} Arena;

static inline void *take(Arena *arena, int64_t bytes, int per_adapter, int wanted) {
  if (!wanted) return NULL;
  int64_t piece = (bytes + 63) / 64 * 64, copies = per_adapter && arena->backward ? arena->adapters : 1;
  int64_t at = arena->size + (copies > 1 ? arena->adapter * piece : 0);
  arena->size += copies * piece;
  return arena->base ? arena->base + at : NULL;
}

#endif
