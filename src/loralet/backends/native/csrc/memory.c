#include "memory.h"

#include <pthread.h>
#include <stdlib.h>

static int64_t allocations_left = -1; /* until one fails, for tests; below 0: none fails */
static int64_t live;

int fail_allocation_after(int64_t allocations) {
  __atomic_store_n(&allocations_left, allocations, __ATOMIC_RELAXED);
  return OK;
}

int live_allocations(int64_t *count) {
  *count = __atomic_load_n(&live, __ATOMIC_RELAXED);
  return OK;
}

/* Whether this allocation must fail. */
static int must_fail(void) {
  if (__atomic_load_n(&allocations_left, __ATOMIC_RELAXED) < 0) return 0;
  return __atomic_fetch_sub(&allocations_left, 1, __ATOMIC_RELAXED) == 0;
}

static void *aligned_block(int64_t bytes) {
  void *block = NULL;
  return posix_memalign(&block, 64, (size_t)(bytes > 0 ? bytes : 1)) ? NULL : block;
}

void *allocate(int64_t bytes) {
  void *block = must_fail() ? NULL : aligned_block(bytes);
  if (block) __atomic_fetch_add(&live, 1, __ATOMIC_RELAXED);
  return block;
}

void release(void *block) {
  if (block) __atomic_fetch_sub(&live, 1, __ATOMIC_RELAXED);
  free(block);
}

static pthread_key_t workspace_key; /* frees a thread's workspace when the thread ends */
static int key_status;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static void make_key(void) { key_status = pthread_key_create(&workspace_key, free); }

void *thread_workspace(int64_t bytes) {
  static _Thread_local void *block;
  static _Thread_local int64_t size;
  if (must_fail()) return NULL;
  if (bytes > size) {
    pthread_once(&key_once, make_key);
    if (key_status) return NULL;
    free(block);
    block = aligned_block(bytes), size = block ? bytes : 0;
    if (pthread_setspecific(workspace_key, block)) free(block), block = NULL, size = 0;
  }
  return block;
}
