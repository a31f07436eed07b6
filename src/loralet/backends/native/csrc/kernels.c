/* The kernels, each in fp32 and in bf16. Threads are OpenMP's: the pool that torch uses, where both have the same runtime. */

#include <pthread.h>

#include "vectors.h"
#include "update.h"

#define BLOCK_ROWS 48    /* rows of a product whose sums are finished (bias, norm, ...) before the next are begun: they stay in the first two caches */

enum { QUERY, KEY, VALUE, ATTENTION_OUTPUT, INTERMEDIATE, OUTPUT, MAPS }; /* a layer's linear maps */
enum { CONTEXT = 3, ATTENDED, INNER, OUT, TENSORS };                      /* what it computes: QUERY, KEY and VALUE, and these */

/* Dropout on the input of one set's adapter on one map; rank 0 (a multiple of LANES else): it has none, and its product is part of the weights. */
typedef struct {
  const void *down, *up, *down_back, *up_back; /* from prepare_dropout */
  float *grad_a, *grad_b;                      /* [parts, rank, d] and [parts, o, rank] */
  int64_t rank;
  uint32_t key, second, threshold; /* of 2^32: a draw below the threshold drops */
  float kept;                      /* 1 / (1 - dropout) */
} Dropout;

/* One layer: weights from `prepare`, everything else fp32. */
typedef struct {
  const void *forward[MAPS], *backward[MAPS];
  const float *bias[MAPS];
  const float *norm[4]; /* weights of the attention's norm and of the output's, then their biases */
  float *grad[MAPS];
  int64_t adapted[MAPS]; /* whether the weights are a set's own */
  int64_t own[TENSORS];  /* whether what is computed is a set's own */
  const Dropout *dropout[MAPS]; /* [sets]; null where no adapter's input has dropout */
  int64_t formed;           /* keys and values are formed even where only first tokens are read */
} Layer;

typedef struct {
  int64_t layers, width, heads, feed_forward, sets, rows, threads;
  int64_t first;    /* the last layer computes only what the first token's state needs */
  int64_t backward; /* a backward pass follows */
  int64_t lowest;   /* the lowest layer with an adapted map */
  int64_t chunk;    /* tokens of a chunk, about */
  int64_t dropout_rank; /* the largest of an adapter with dropout */
  const int64_t *starts; /* [rows + 1] where each row's tokens begin */
  const int64_t *ids;    /* [tokens]; null where x is given */
  const void *words, *places, *embedding_norm; /* tables of the embeddings, types added to the places; weight and bias of their norm */
  void *x;               /* [tokens, width] what goes into the first layer */
  const Layer *layer;
  float epsilon;
} Encoder;

/* Rows that go through all layers together: the first row and token, how many, and the numbers in the probabilities of one head of all of them, of every
   token and of first tokens alone. */
typedef struct {
  int64_t row, rows, token, tokens, squares, padded;
} Chunk;

/* Chunk i holds the rows that begin in the i-th stretch of `chunk` tokens. */
static Chunk chunk_at(const Encoder *e, int64_t row) {
  Chunk c = {row, 0, e->starts[row], 0, 0, 0};
  for (int64_t stretch = c.token / e->chunk; row < e->rows && e->starts[row] / e->chunk == stretch; row++) {
    int64_t length = e->starts[row + 1] - e->starts[row];
    c.rows++, c.tokens += length, c.squares += length * round_up(length), c.padded += round_up(length);
  }
  return c;
}

/* The token in the batch that a row of a product belongs to. */
static inline int64_t token_of(const Encoder *e, const Chunk *c, int first, int64_t row) { return first ? e->starts[c->row + row] : c->token + row; }

/* The mask of LANES numbers from the `place`-th on: 0 or 1 / (1 - dropout). Twice Wellons's lowbias32, a hash whose bits are all but independent. */
static inline uwide scramble(uwide x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}
static inline fwide mask_at(const Dropout *z, int64_t map, int64_t place) {
  uwide lane;
  for (int i = 0; i < LANES; i++) lane[i] = (uint32_t)place + i;
  uwide drawn = scramble(scramble(lane ^ z->key) + (z->second + 0x9e3779b9u * (uint32_t)map));
  return (fwide)((uwide)(drawn >= z->threshold) & (uwide)splat(z->kept));
}

/* The masks of one map's input, [tokens, d]; for the tests. */
void mask_factors(const Dropout *z, int64_t map, int64_t tokens, int64_t d, float *out) {
  for (int64_t i = 0; i < tokens * d; i += LANES) *(vec *)(out + i) = (vec)mask_at(z, map, i);
}

/* The largest of a batch's chunks, and how many there are. */
typedef struct {
  int64_t chunks, rows, tokens, longest;
} Extent;

static Extent extent(const Encoder *e) {
  Extent x = {0};
  for (int64_t row = 0; row < e->rows; x.chunks++) {
    Chunk c = chunk_at(e, row);
    x.rows = c.rows > x.rows ? c.rows : x.rows;
    x.tokens = c.tokens > x.tokens ? c.tokens : x.tokens;
    row += c.rows;
  }
  for (int64_t row = 0; row < e->rows; row++) {
    int64_t length = e->starts[row + 1] - e->starts[row];
    x.longest = length > x.longest ? length : x.longest;
  }
  return x;
}

/* Memory of the calling thread, kept for its next call, as to ask the system for it at every step costs a tenth of the step, and freed when the thread ends. */
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static void make_thread_key(void) { pthread_key_create(&thread_key, free); }

static char *thread_memory(int64_t bytes) {
  static _Thread_local char *kept;
  static _Thread_local int64_t size;
  if (bytes > size) {
    pthread_once(&thread_once, make_thread_key);
    free(kept);
    kept = aligned_alloc(64, size = (bytes + 63) / 64 * 64);
    pthread_setspecific(thread_key, kept);
  }
  return kept;
}

/* Where things are in a chunk's piece of memory; `end` is its size so far. What all sets share (`own` 0) is there once. Without a backward pass, sets follow
   each other in the same place, and what only the backward pass needs has none. */
typedef struct {
  char *base;
  int64_t end, sets, set;
  int backward;
} Region;

static void *take(Region *r, int64_t bytes, int own, int wanted) {
  if (!wanted) return 0;
  int64_t one = (bytes + 63) / 64 * 64, copies = own && r->backward ? r->sets : 1;
  char *found = r->base + r->end + (copies > 1 ? r->set * one : 0);
  r->end += copies * one;
  return found;
}

/* A part's sums of the gradients, before its first chunk. */
static void clear_gradients(const Encoder *e, int64_t part) {
  for (int64_t i = 0; i < e->layers; i++)
    for (int which = 0; which < MAPS; which++) {
      int64_t size = e->sets * e->width * (which < INTERMEDIATE ? e->width : e->feed_forward);
      if (e->layer[i].adapted[which]) memset(e->layer[i].grad[which] + part * size, 0, 4 * size);
    }
}

#define HALF 0
#include "matrix.h"
#include "low_rank.h"
#include "head.h"
#include "prepare.h"
#include "attention.h"
#include "first.h"
#include "kept.h"
#include "dropout.h"
#include "layer.h"
#include "encoder.h"
#undef HALF
#undef NAME
#undef ELEMENT
#undef UNIT
#undef PAIR
#undef WIDE
#undef WMEM
#undef DOT
#undef UNITS
#define HALF 1
#include "matrix.h"
#include "prepare.h"
#include "attention.h"
#include "first.h"
#include "kept.h"
#include "dropout.h"
#include "layer.h"
#include "encoder.h"

/* Sizes of the structures, in the order in which Python has them. */
void structure_sizes(int64_t *out) {
  int64_t sizes[] = {sizeof(Layer), sizeof(Encoder), sizeof(LowRank), sizeof(Dropout), sizeof(Course), sizeof(Head)};
  memcpy(out, sizes, sizeof sizes);
}
