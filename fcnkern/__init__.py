"""Kernels for dense prediction on PyTorch, and the fully convolutional networks built on them."""
