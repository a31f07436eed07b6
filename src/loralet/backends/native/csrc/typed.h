/* Declarations of the encoder and attention kernels, for each element type. */
#ifndef LORALET_TYPED_H
#define LORALET_TYPED_H

#include "api.h"

#define DECLARE_TYPED(type)                                                                     \
  int pack_weights_##type(const WeightPacking *packings, int64_t count, int64_t threads);       \
  int encoder_bytes_##type(const Encoder *encoder, int64_t *bytes);                             \
  int encoder_forward_##type(const Encoder *encoder, void *out, void *activations);             \
  int encoder_backward_##type(const Encoder *encoder, const void *grad_out, void *activations); \
  int attention_forward_##type(const Attention *attention);                                     \
  int attention_backward_##type(const Attention *attention);                                    \
  int product_##type(const Product *product);

DECLARE_TYPED(fp32)
DECLARE_TYPED(bf16)

#undef DECLARE_TYPED

#endif
