/* The layout of a chunk's activations and of a thread's workspace. */
#ifndef LORALET_WORKSPACE_H
#define LORALET_WORKSPACE_H

#include "api.h"
#include "attention.h"
#include "chunks.h"
#include "element.h"
#include "memory.h"

/* Rows of a product per block. A block is finished (bias, norm, ...) before the next one, so it stays in the cache. */
#define BLOCK_ROWS 48

/* Activations of cls_attention.h. */
typedef struct {
  element *key_query;   /* [heads, rows, d] each head's query times its rows of the key weights */
  element *mean_input;  /* [heads, rows, d] mean of the layer's input, weighted by the probabilities */
  float *probabilities; /* [heads, tokens] */
} ClsActivations;

/* Activations of one layer, chunk and adapter. m: tokens that the layer computes; n: all tokens; f: feed-forward
   width. */
typedef struct {
  element *query, *key, *value;        /* [m d] [n d] [n d] */
  element *probabilities;              /* for each row, for each head, [m, n rounded up] of that row */
  ClsActivations cls;                  /* replaces key, value and probabilities if those are not computed */
  element *context;                    /* [m d] */
  element *attention_hat, *attended;   /* [m d] normalised input of the attention norm; its output */
  element *gelu_grad, *inner;          /* [m f] */
  element *output_hat, *out;           /* [m d] */
  float *attention_rstd, *output_rstd; /* [m] reciprocal standard deviations */
  element *low[LINEARS];               /* [m or n, rank] x A^T of a branch */
} Activations;

static inline int is_cls_layer(const Encoder *e, int64_t layer) { return e->cls_only && layer == e->layers - 1; }
static inline int forms_keys(const Encoder *e, int64_t layer) {
  return !is_cls_layer(e, layer) || e->layer[layer].keys_needed;
}

/* The activations of one layer and adapter in the chunk's block. Writes the block's size up to this layer to `bytes` if
   that is not null. */
static inline Activations activations_of(const Encoder *e, const Chunk *c, int64_t layer, int64_t adapter, char *base,
                                         int64_t *bytes) {
  Arena arena = {.base = base, .adapters = e->adapters, .adapter = adapter, .backward = (int)e->backward}, *r = &arena;
  Activations a = {0};
  for (int64_t i = 0; i <= layer; i++) {
    const Layer *l = &e->layer[i];
    const int64_t *per_adapter = l->per_adapter;
    int cls = is_cls_layer(e, i), keys = forms_keys(e, i), b = (int)e->backward;
    int64_t m = cls ? c->rows : c->tokens, size = sizeof(element), d = size * e->width, f = size * e->feed_forward;
    int64_t squares = size * e->heads * (cls ? c->padded : c->squares);
    a.query = take(r, m * d, per_adapter[QUERY], 1);
    a.key = take(r, c->tokens * d, per_adapter[KEY], keys);
    a.value = take(r, c->tokens * d, per_adapter[VALUE], keys);
    a.probabilities = take(r, squares, per_adapter[CONTEXT], keys);
    a.cls.key_query = take(r, e->heads * m * d, per_adapter[CONTEXT], !keys);
    a.cls.mean_input = take(r, e->heads * m * d, per_adapter[CONTEXT], !keys);
    a.cls.probabilities = take(r, 4 * e->heads * c->tokens, per_adapter[CONTEXT], !keys);
    a.context = take(r, m * d, per_adapter[CONTEXT], 1);
    a.attention_hat = take(r, m * d, per_adapter[ATTENDED], b);
    a.attended = take(r, m * d, per_adapter[ATTENDED], 1);
    a.attention_rstd = take(r, 4 * m, per_adapter[ATTENDED], b);
    a.gelu_grad = take(r, m * f, per_adapter[INNER], b);
    a.inner = take(r, m * f, per_adapter[INNER], 1);
    a.output_hat = take(r, m * d, per_adapter[OUT], b);
    a.output_rstd = take(r, 4 * m, per_adapter[OUT], b);
    a.out = take(r, m * d, per_adapter[OUT], 1);
    for (int which = 0; which < LINEARS; which++) {
      int64_t rows = which == KEY || which == VALUE ? c->tokens : m;
      a.low[which] = take(r, size * rows * e->branch_rank, 1, l->branch[which] != NULL);
    }
  }
  if (bytes) *bytes = arena.size;
  return a;
}

/* Bytes of a chunk's activations. */
static inline int64_t chunk_bytes(const Encoder *e, const Chunk *c) {
  int64_t bytes = 0;
  activations_of(e, c, e->layers - 1, 0, NULL, &bytes);
  return bytes;
}

/* Bytes of the activations of all chunks, which are stored consecutively. */
int TYPED(encoder_bytes)(const Encoder *e, int64_t *bytes) {
  *bytes = 0;
  for (int64_t row = 0; row < e->rows;) {
    Chunk c = chunk_at(e, row);
    *bytes += chunk_bytes(e, &c), row += c.rows;
  }
  return OK;
}

/* The workspace of one thread. */
typedef struct {
  float *sums, *branch;            /* [BLOCK_ROWS, widest] block of a product; block of a branch */
  float *head;                     /* workspace of one attention head, or a block of a product with A */
  float *dy;                       /* [tokens d] gradient of a layer's output, then of its input */
  float *cls_scores;               /* [heads, tokens] gradient of the first tokens' scores */
  element *cls_rows;               /* [rows d] the first tokens' inputs */
  element *dz, *du, *dq, *dk, *dv; /* gradients of a norm's input, feed-forward values, query, key and value */
  element *value_grad, *key_grad;  /* [heads, rows, d] see cls_attention.h */
  element *masked, *dlow;          /* an input with dropout; the gradient of x A^T */
  unit *left, *right;              /* packed operands of a weight gradient */
  char *chunk;                     /* the activations of a chunk, if no backward pass follows */
} Workspace;

static inline Workspace workspace_layout(const Encoder *e, const Extent *x, int64_t chunk, Arena *r) {
  int64_t d = e->width, widest = larger(e->feed_forward, d), row = (int64_t)sizeof(element) * d;
  int64_t packed = (int64_t)sizeof(unit) * left_row(x->tokens) * larger(widest, e->branch_rank);
  int64_t heads = larger(head_bytes(x->longest, d / e->heads), 4 * BLOCK_ROWS * e->branch_rank);
  int branch = e->branch_rank != 0;
  Workspace w = {0};
  w.sums = take(r, 4 * BLOCK_ROWS * widest, 0, 1);
  w.branch = take(r, 4 * BLOCK_ROWS * widest, 0, branch);
  w.head = take(r, heads, 0, 1);
  w.dy = take(r, 4 * x->tokens * d, 0, 1);
  w.cls_scores = take(r, 4 * x->tokens * e->heads, 0, 1);
  w.cls_rows = take(r, x->rows * row, 0, 1);
  w.dz = take(r, x->tokens * row, 0, 1);
  w.du = take(r, x->tokens * (int64_t)sizeof(element) * widest, 0, 1);
  w.dq = take(r, x->tokens * row, 0, 1);
  w.dk = take(r, x->tokens * row, 0, 1);
  w.dv = take(r, x->tokens * row, 0, 1);
  w.value_grad = take(r, e->heads * x->rows * row, 0, 1);
  w.key_grad = take(r, e->heads * x->rows * row, 0, 1);
  w.masked = take(r, (int64_t)sizeof(element) * larger(x->tokens, BLOCK_ROWS) * widest, 0, branch);
  w.dlow = take(r, (int64_t)sizeof(element) * x->tokens * e->branch_rank, 0, branch);
  w.left = take(r, packed, 0, 1);
  w.right = take(r, packed, 0, 1);
  w.chunk = take(r, chunk, 0, 1);
  return w;
}

/* The calling thread's workspace, with `chunk` bytes for activations. `sums` is null if there is no memory. */
static inline Workspace make_workspace(const Encoder *e, const Extent *x, int64_t chunk) {
  Arena arena = {0};
  workspace_layout(e, x, chunk, &arena);
  arena.base = thread_workspace(arena.size), arena.size = 0;
  return workspace_layout(e, x, chunk, &arena);
}

/* grad [o, d] += dy^T x for dy [n, o] and x [n, d]. `_row` is the distance between rows. */
static inline void add_weight_gradient(int64_t n, int64_t o, const element *dy, int64_t dy_row, int64_t d,
                                       const element *x, int64_t x_row, float *grad, const Workspace *w) {
  Left left = pack_left(n, o, dy, dy_row, w->left);
  matmul_left(o, left, pack_rows(n, d, x, x_row, w->right), grad, d, 1);
}

#endif
