/* The structures and functions shared by Python and the kernels. Python parses this file with cffi and skips the lines
   that begin with #.

   Axes: k adapters, b rows (texts), n tokens of all rows, concatenated. Strides are numbers of values. */
#ifndef LORALET_API_H
#define LORALET_API_H

#include <stdint.h>

#pragma GCC visibility push(default)

/* The status that every function returns. After OUT_OF_MEMORY the outputs are undefined, and nothing has leaked. */
enum { OK, OUT_OF_MEMORY };

/* Types of weights and activations. Sums, norms, heads and the gradients of adapters are always fp32. */
enum { FP32, BF16 };

/* The linear layers of an encoder layer; its layer norms; its values: QUERY, KEY, VALUE and the third list. */
enum { QUERY, KEY, VALUE, ATTENTION_OUTPUT, INTERMEDIATE, OUTPUT, LINEARS };
enum { ATTENTION_NORM, OUTPUT_NORM, NORMS };
enum { CONTEXT = 3, ATTENDED, INNER, OUT, VALUES };

/* The LoRA matrices of one linear layer: A [k, rank, d_in] and B [k, d_out, rank]. */
typedef struct {
  const float *a, *b;
  const float *scale; /* [k]; 0: the adapter is not on this layer */
  int64_t a_stride, b_stride, rank;
} LowRank;

/* Parameters of an adapter's dropout masks in one step; see loralet.adapters.dropout. */
typedef struct {
  uint32_t keys[2];
  uint32_t threshold; /* a feature is dropped if its 32 random bits are below this */
  float factor;       /* factor of the other features: 1 / (1 - probability) */
} Mask;

/* One adapter on one linear layer that is computed separately from the frozen product, as scale B A (mask x). */
typedef struct {
  int64_t rank; /* rounded up to a multiple of 16; 0: there is no branch, the packed weights include the adapter */
  Mask mask;    /* threshold 0: no dropout */
  void *packed; /* [2 rank (d_in + d_out)] the packed matrices, see branch_layout.h */
  float *grad;  /* [parts, rank (d_in + d_out)] the gradients of A [rank, d_in], then of the transposed B */
} Branch;

/* The weights of one linear layer, to be packed. */
typedef struct {
  int64_t type, adapters, d_out, d_in;
  const void *weight;      /* frozen, [d_out, d_in] */
  const LowRank *low_rank; /* null: only the frozen weight */
  const Branch *branch;    /* [k]; null: no adapter has a branch here */
  void *forward;           /* for y = x W^T: [k, d_in / pair, d_out] units in panels; null: not wanted */
  void *backward;          /* for dx = dy W: [k, d_out / pair, d_in] units in panels; null: not wanted */
} WeightPacking;

/* One encoder layer. */
typedef struct {
  const void *forward[LINEARS], *backward[LINEARS]; /* packed weights */
  const float *bias[LINEARS];
  const float *norm_weight[NORMS], *norm_bias[NORMS];
  float *weight_grad[LINEARS];   /* [parts, k, d_out, d_in]; null: not merged */
  const Branch *branch[LINEARS]; /* [k]; null: no adapter has a branch here */
  int64_t adapted[LINEARS];      /* an adapter is on this linear layer */
  int64_t merged[LINEARS];       /* adapters are merged into the packed weights, which have the axis k */
  int64_t per_adapter[VALUES];   /* the value differs between adapters; other values are computed once */
  int64_t keys_needed;           /* key or value has a branch, so cls_attention cannot be used */
} Layer;

typedef struct {
  int64_t type;
  int64_t layers, width, heads, feed_forward, positions;
  float epsilon;
  int64_t adapters, rows, parts, threads;
  int64_t chunk_tokens;         /* approximate number of tokens per chunk */
  int64_t cls_only;             /* the last layer computes only what the first tokens' states need */
  int64_t backward;             /* a backward pass follows */
  int64_t lowest_adapted;       /* the lowest layer with an adapter */
  int64_t branch_rank;          /* the largest rank of a branch */
  const int64_t *offsets;       /* [b + 1] where each row begins */
  const int64_t *ids;           /* [n]; null: `input` holds the embeddings */
  const int64_t *types;         /* [n] token types; null: all 0 */
  const int64_t *token_numbers; /* [n] token numbers for dropout; null: 0, 1, ... */
  const void *word_embeddings;
  const void *position_embeddings; /* [types, positions, width], the type embeddings added */
  const void *embedding_norm;      /* [2, width] weight and bias */
  void *input;                     /* [n, width] input of the first layer */
  const Layer *layer;              /* [layers] */
} Encoder;

/* The gradients of A and B from those of one linear layer's packed weights or branches. */
typedef struct {
  int64_t adapters, d_out, d_in, parts;
  const LowRank *low_rank;
  const Branch *branch;   /* [k] or null */
  float *weight_grad;     /* [parts, k, d_out, d_in]; overwritten; null: no adapter is merged */
  float *grad_a, *grad_b; /* as A and B */
  int64_t grad_a_stride, grad_b_stride;
} LowRankGradients;

/* Attention over tensors [k, b, t, width]. `_per_adapter` is 0 if all adapters share a tensor; its axis k is then 1. */
typedef struct {
  int64_t type, adapters, rows, queries, tokens, heads, head_size, threads;
  int64_t query_per_adapter, key_per_adapter, value_per_adapter;
  const void *query, *key, *value;
  const int64_t *lengths; /* [b] number of tokens of each row, without padding */
  void *out;              /* [k, b, queries, width] */
  void *probabilities;    /* [k, b, heads, queries, tokens rounded up to a multiple of 16]; null: not wanted */
  const void *grad_out;
  void *grad_query, *grad_key, *grad_value; /* null: not wanted */
} Attention;

/* Features, dropout, classifier. The features are tanh(W h + b) of each row's first token, or the mean over its
   tokens. */
typedef struct {
  int64_t adapters, rows, width, outputs, threads;
  int64_t state_stride;     /* between the adapters' states; 0: they share the states */
  int64_t pooler_stride;    /* between the adapters' poolers; 0: the pooler is frozen */
  int64_t parameter_stride; /* between the adapters' classifiers, and between all gradients of parameters */
  const int64_t *offsets;   /* [b + 1] where each row's states begin, for the mean; null: pooler, one state per row */
  const float *pooler_weight, *pooler_bias;         /* [width, width], [width] */
  const float *classifier_weight, *classifier_bias; /* [outputs, width], [outputs] */
  const Mask *dropout;                              /* [k]; null: none */
  int64_t dropout_index;                            /* number of the head in a mask */
  const int64_t *row_numbers;                       /* [b] row numbers for dropout; null: 0, 1, ... */
  const float *states;
  float *features; /* [k, b, width], before dropout; written forward, read backward */
  float *logits;   /* [k, b, outputs] */
  const float *grad_logits;
  float *grad_states;                           /* as the states; null: not wanted */
  float *grad_pooler_weight, *grad_pooler_bias; /* null where the pooler is frozen */
  float *grad_classifier_weight, *grad_classifier_bias;
} Head;

/* One step of AdamW (Loshchilov and Hutter 2019, algorithm 2) on k rows of `size` parameters. Clipping is per row. */
typedef struct {
  int64_t adapters, size, threads;
  double beta1, beta2;
  float clip, epsilon, correction1, correction2;
  float *parameters;
  const float *gradient;
  float *first, *second;   /* moments */
  const float *lr;         /* [k] */
  const float *lr_factors; /* [k, size]; null: all 1 */
  const float *decay;      /* [size] */
  uint8_t *finite;         /* [k]; cleared if the norm of the gradient is not finite; 0: the row is not changed */
} AdamW;

/* A matrix product: out [m, n] = a b (or +=) for a [m, k], or [k, m] if `transposed`, and b [k, n]. In bf16,
   k is even unless `transposed`. n is a multiple of 16, and so is m if `transposed`. */
typedef struct {
  int64_t type, m, n, k, transposed, add;
  const void *a, *b;
  float *out;
} Product;

/* All packings have the same type and number of adapters. Without `low_rank` that number is 1. */
int pack_weights(const WeightPacking *packings, int64_t count, int64_t threads);
int encoder_bytes(const Encoder *encoder, int64_t *bytes);
int encoder_forward(const Encoder *encoder, void *out, void *activations);
int encoder_backward(const Encoder *encoder, const void *grad_out, void *activations);
/* All gradients have the same number of adapters. */
int low_rank_gradients(const LowRankGradients *gradients, int64_t count, int64_t threads);
int attention_forward(const Attention *attention);
int attention_backward(const Attention *attention);
int head_forward(const Head *head);
int head_backward(const Head *head);
int adamw(const AdamW *step);
/* fp32 to bf16, rounded to nearest, and back. */
int narrow_values(const float *in, int64_t count, uint16_t *out);
int widen_values(const uint16_t *in, int64_t count, float *out);

/* Ask the operating system for the right to use tiles; needed once per process, before any other kernel. `allowed` is 1
   if they can be used, or if these kernels use none. */
int allow_tiles(int64_t *allowed);

int product(const Product *product);

/* For tests. */
int dropout_factors(const Mask *mask, int64_t index, int64_t first_token, int64_t tokens, int64_t width, float *out);
int fail_allocation_after(int64_t allocations); /* one fails after this many successful ones; below 0: none fails */
int live_allocations(int64_t *count);           /* unreleased blocks, without the threads' workspaces */

#pragma GCC visibility pop

#endif
