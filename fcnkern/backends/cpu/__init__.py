"""C++ kernels of fcnkern._C for CPU tensors."""
