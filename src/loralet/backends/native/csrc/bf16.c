/* The kernels in bf16. */
#define ELEMENT_BF16
#include "template.h"
