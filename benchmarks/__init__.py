"""Speed and memory of the operations beside plain PyTorch, in one run: ``python -m benchmarks --help``."""
