/* A matrix product alone, for tests. */
#ifndef LORALET_PRODUCT_H
#define LORALET_PRODUCT_H

#include "api.h"
#include "matmul.h"
#include "memory.h"

int TYPED(product)(const Product *p) {
  int64_t right = (int64_t)sizeof(unit) * units_of(p->k) * p->n;
  unit *workspace = thread_workspace(right + (int64_t)sizeof(unit) * left_row(p->k) * p->m);
  if (!workspace) return OUT_OF_MEMORY;
  Packed b = pack_rows(p->k, p->n, p->b, p->n, workspace);
  Left a = {p->a, p->k / PAIR, 1};
  if (p->transposed) a = pack_left(p->k, p->m, p->a, p->m, workspace + units_of(p->k) * p->n);
  tile_configure();
  matmul_left(p->m, a, b, p->out, p->n, (int)p->add);
  tile_release();
  return OK;
}

#endif
