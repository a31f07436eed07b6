"""A few kernels in C, compiled once on the machine they run on; without a compiler the same work is done by torch."""
