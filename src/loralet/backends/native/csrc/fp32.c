/* The kernels in fp32. */
#include "template.h"
