/* Exported functions with one kernel per element type: each calls the kernel of the requested type. */
#include "api.h"
#include "mask.h"
#include "typed.h"

#define OF_TYPE(name, wanted, ...) ((wanted) == BF16 ? name##_bf16(__VA_ARGS__) : name##_fp32(__VA_ARGS__))

int pack_weights(const WeightPacking *packings, int64_t count, int64_t threads) {
  return OF_TYPE(pack_weights, packings->type, packings, count, threads);
}
int encoder_bytes(const Encoder *e, int64_t *bytes) { return OF_TYPE(encoder_bytes, e->type, e, bytes); }
int encoder_forward(const Encoder *e, void *out, void *activations) {
  return OF_TYPE(encoder_forward, e->type, e, out, activations);
}
int encoder_backward(const Encoder *e, const void *grad_out, void *activations) {
  return OF_TYPE(encoder_backward, e->type, e, grad_out, activations);
}
int attention_forward(const Attention *a) { return OF_TYPE(attention_forward, a->type, a); }
int attention_backward(const Attention *a) { return OF_TYPE(attention_backward, a->type, a); }
int product(const Product *p) { return OF_TYPE(product, p->type, p); }

int narrow_values(const float *in, int64_t count, uint16_t *out) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) *(half_memory *)(out + i) = narrow(load_fp32(in + i));
  for (; i < count; i++) out[i] = narrow(splat(in[i]))[0];
  return OK;
}

int widen_values(const uint16_t *in, int64_t count, float *out) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) store_fp32(out + i, widen(*(const half_memory *)(in + i)));
  for (; i < count; i++) out[i] = widen((half_memory){0} + in[i])[0];
  return OK;
}

/* out [tokens, width]: the factors of a linear layer's input, from token number `first_token` on. For tests. */
int dropout_factors(const Mask *mask, int64_t index, int64_t first_token, int64_t tokens, int64_t width, float *out) {
  const int64_t place = first_token * width;
  for (int64_t i = 0; i < tokens * width; i += LANES) store_fp32(out + i, mask_at(mask, index, place + i));
  return OK;
}
