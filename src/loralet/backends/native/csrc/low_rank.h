/* The low-rank update of adapted weights, scale B A (Hu et al. 2021, section 4.1). Always fp32. */
#ifndef LORALET_LOW_RANK_H
#define LORALET_LOW_RANK_H

#include "api.h"

/* out [d_out, d_in] = scale B A for one adapter */
void low_rank_product(const LowRank *low_rank, int64_t adapter, int64_t d_out, int64_t d_in, float *out);

#endif
