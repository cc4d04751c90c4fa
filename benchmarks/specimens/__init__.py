"""The compiled specimens: a module for each operation with a list ``SPECIMENS``."""
