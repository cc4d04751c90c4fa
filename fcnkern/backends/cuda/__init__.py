"""CUDA C++ kernels of fcnkern._C_cuda for CUDA tensors (in tests, compiled for the host, for CPU tensors)."""
