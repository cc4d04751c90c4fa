"""Each operation in a few lines of plain PyTorch: the definition of correctness, on any device."""
