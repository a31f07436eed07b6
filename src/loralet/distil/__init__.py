"""A small encoder built from a larger one."""
