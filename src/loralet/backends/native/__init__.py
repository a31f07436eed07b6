"""The native backend: C kernels compiled for this machine."""
