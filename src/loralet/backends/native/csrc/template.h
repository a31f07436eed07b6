/* All kernels that depend on the element type. fp32.c and bf16.c include this file. */
#ifndef LORALET_TEMPLATE_H
#define LORALET_TEMPLATE_H

#include "attention.h"
#include "encoder.h"
#include "pack_weights.h"
#include "product.h"
#include "typed.h"

#endif
