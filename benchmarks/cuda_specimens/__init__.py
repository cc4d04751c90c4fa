"""The CUDA kernels whose work is counted: a module for each operation with a list ``SPECIMENS``.

The cases are those of `benchmarks.specimens`. Trips and shares are of the machine code for `TABLE_ARCH`.
"""
