"""The version, in one place: packaging, the compiled part and ``fcnkern.__version__`` read it here."""

__version__ = "0.1.0"
