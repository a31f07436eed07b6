/* A head on the encoder's states and its loss, with all gradients, for several sets at once; always fp32. The features are tanh(W h + b) of each row's first
   token (the pooler of Devlin et al. 2019) or the mean of its tokens' states; dropout, a linear classifier and the cross-entropy follow. The twins in torch
   are in loralet.models.head. */

typedef struct {
  int64_t sets, rows, width, classes, threads;
  int64_t state_set;   /* numbers from one set's states to the next; 0: all read the same */
  int64_t pooler_set;  /* the same of the pooler; 0: it is frozen */
  int64_t trained_set; /* of the classifier, and of every gradient of trained numbers */
  const int64_t *starts; /* [rows + 1] where each row's states begin, for the mean; null: one state a row, for the pooler */
  const float *pooler, *pooler_bias, *classifier, *classifier_bias; /* [width, width], [width], [classes, width], [classes] */
  const float *factors;  /* [sets, rows, width] of dropout; null: none */
  const int64_t *labels; /* [rows] */
  const float *states;
  float *losses;                                                                     /* [sets] mean over the rows */
  float *grad_states;                                                                /* like the states; null: not wanted */
  float *grad_pooler, *grad_pooler_bias, *grad_classifier, *grad_classifier_bias; /* of the sum over the sets; the pooler's null where it is frozen */
} Head;

/* 1 - 2 / (e^2x + 1), by way of |x| so that the exponential cannot overflow; what is not a number stays so. */
static inline fwide hyperbolic_tangent(fwide x) {
  uwide sign = (uwide)x & 0x80000000u;
  fwide e = exponential(-2.0f * (fwide)((uwide)x ^ sign));
  return (fwide)((uwide)((1.0f - e) / (1.0f + e)) ^ sign);
}

/* features [rows, width] of one set; `columns` [width, width] is room */
static void head_features(const Head *h, int64_t set, const float *states, float *columns, float *features) {
  int64_t d = h->width;
  if (h->starts) {
    for (int64_t r = 0; r < h->rows; r++)
      for (int64_t j = 0; j < d; j += LANES) {
        fwide total = splat(0);
        for (int64_t t = h->starts[r]; t < h->starts[r + 1]; t++) total += (fwide) * (const vec *)(states + t * d + j);
        *(vec *)(features + r * d + j) = (vec)(total / (float)(h->starts[r + 1] - h->starts[r]));
      }
    return;
  }
  const float *bias = h->pooler_bias + set * h->pooler_set;
  transpose_fp32(d, d, h->pooler + set * h->pooler_set, d, columns, d);
  multiply_fp32(h->rows, d, d, states, d, 1, columns, d, features, d, 0);
  for (int64_t r = 0; r < h->rows; r++)
    for (int64_t j = 0; j < d; j += LANES) {
      vec *at = (vec *)(features + r * d + j);
      *at = (vec)hyperbolic_tangent((fwide)*at + (fwide) * (const vec *)(bias + j));
    }
}

/* One row's loss, and in `scores` [classes] what it gives each logit: (softmax - one for the label) / rows. */
static float head_loss(const Head *h, int64_t set, int64_t row, const float *kept, float *scores) {
  int64_t d = h->width;
  const float *w = h->classifier + set * h->trained_set, *bias = h->classifier_bias + set * h->trained_set;
  float most = -INFINITY, total = 0;
  for (int64_t c = 0; c < h->classes; c++) {
    fwide product = splat(0);
    for (int64_t j = 0; j < d; j += LANES) product += (fwide) * (const vec *)(kept + j) * (fwide) * (const vec *)(w + c * d + j);
    scores[c] = sum(product) + bias[c];
    most = scores[c] > most ? scores[c] : most;
  }
  float label = scores[h->labels[row]] - most;
  for (int64_t c = 0; c < h->classes; c++) total += scores[c] = expf(scores[c] - most);
  for (int64_t c = 0; c < h->classes; c++) scores[c] = (scores[c] / total - (c == h->labels[row])) / h->rows;
  return logf(total) - label;
}

/* From the gradient of the features, [rows, width], which is overwritten: that of the states, and of a pooler that is trained. */
static void head_back(const Head *h, int64_t set, const float *states, const float *features, float *grad) {
  int64_t d = h->width;
  float *out = h->grad_states ? h->grad_states + set * h->state_set : 0;
  if (h->starts) {
    for (int64_t r = 0; r < h->rows; r++)
      for (int64_t t = h->starts[r]; out && t < h->starts[r + 1]; t++)
        for (int64_t j = 0; j < d; j += LANES)
          *(vec *)(out + t * d + j) = (vec)((fwide) * (const vec *)(grad + r * d + j) / (float)(h->starts[r + 1] - h->starts[r]));
    return;
  }
  for (int64_t i = 0; i < h->rows * d; i += LANES) {
    fwide f = (fwide) * (const vec *)(features + i);
    *(vec *)(grad + i) *= (vec)(1.0f - f * f);
  }
  if (h->grad_pooler) {
    float *bias = h->grad_pooler_bias + set * h->trained_set;
    multiply_fp32(d, d, h->rows, grad, 1, d, states, d, h->grad_pooler + set * h->trained_set, d, 0);
    memset(bias, 0, 4 * d);
    for (int64_t i = 0; i < h->rows * d; i += LANES) *(vec *)(bias + i % d) += *(const vec *)(grad + i);
  }
  if (out) multiply_fp32(h->rows, d, d, grad, d, 1, h->pooler + set * h->pooler_set, d, out, d, 0);
}

/* Every set's mean loss, and the gradients of their sum. */
void head_pass(const Head *h) {
  int64_t d = h->width, all = h->rows * d;
#pragma omp parallel for num_threads(h->threads) if (h->sets > 1)
  for (int64_t set = 0; set < h->sets; set++) {
    float *columns = (float *)thread_memory(4 * (d * d + 3 * all + h->classes));
    float *features = columns + d * d, *kept = features + all, *grad = kept + all, *scores = grad + all;
    const float *states = h->states + set * h->state_set, *w = h->classifier + set * h->trained_set, *factors = h->factors ? h->factors + set * all : 0;
    float *grad_w = h->grad_classifier + set * h->trained_set, *grad_bias = h->grad_classifier_bias + set * h->trained_set;
    head_features(h, set, states, columns, features);
    for (int64_t i = 0; i < all; i += LANES) *(vec *)(kept + i) = *(vec *)(features + i) * (factors ? *(const vec *)(factors + i) : (vec)splat(1));
    memset(grad_w, 0, 4 * h->classes * d), memset(grad_bias, 0, 4 * h->classes), memset(grad, 0, 4 * all);
    h->losses[set] = 0;
    for (int64_t r = 0; r < h->rows; r++) {
      h->losses[set] += head_loss(h, set, r, kept + r * d, scores) / h->rows;
      for (int64_t c = 0; c < h->classes; c++) {
        grad_bias[c] += scores[c];
        for (int64_t j = 0; j < d; j += LANES) {
          *(vec *)(grad_w + c * d + j) += scores[c] * *(vec *)(kept + r * d + j);
          *(vec *)(grad + r * d + j) += scores[c] * *(const vec *)(w + c * d + j);
        }
      }
    }
    for (int64_t i = 0; factors && i < all; i += LANES) *(vec *)(grad + i) *= *(const vec *)(factors + i);
    head_back(h, set, states, features, grad);
  }
}
