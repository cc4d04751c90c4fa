"""Triton kernels for GPU tensors (and, under Triton's interpreter, for CPU tensors)."""
