/* Memory of the kernels. Every request can fail, and every caller hands the failure on as a status. */
#ifndef LORALET_MEMORY_H
#define LORALET_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "api.h"

/* A block on a cache line, or null. */
void *allocate(int64_t bytes);
void release(void *block);

/* The calling thread's workspace, at least this large, or null; its contents are lost with the next call. It is kept
   for the next kernel, as asking the system at every step costs a tenth of the step, and freed when the thread ends. */
void *thread_workspace(int64_t bytes);

/* Note a failed request inside a parallel region, where no thread may leave early. */
static inline void note_failure(int *status) { __atomic_store_n(status, OUT_OF_MEMORY, __ATOMIC_RELAXED); }

/* Pieces of one block, one after another. Without a base only the size is found. A value that differs between adapters
   has one piece each; without a backward pass the adapters follow each other in the same piece. */
typedef struct {
  char *base;
  int64_t size, adapters, adapter;
  int backward;
} Arena;

static inline void *take(Arena *arena, int64_t bytes, int own, int wanted) {
  if (!wanted) return NULL;
  int64_t piece = (bytes + 63) / 64 * 64, copies = own && arena->backward ? arena->adapters : 1;
  int64_t at = arena->size + (copies > 1 ? arena->adapter * piece : 0);
  arena->size += copies * piece;
  return arena->base ? arena->base + at : NULL;
}

#endif
