"""Implementations of the operations; one sub-package per way of running them."""
