"""Label maps in MATLAB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fcnkern.data.sample import DataError


def need_scipy() -> Any:
    """`scipy.io`. Raises: RuntimeError telling how to install it."""
    try:
        import scipy.io
    except ImportError as error:
        raise RuntimeError("MATLAB files (.mat) need scipy: pip install 'fcnkern[mat]'") from error
    return scipy.io


def read_mat(path: str | Path, *keys: str) -> np.ndarray:
    """A label map of integers (H, W): the variable `keys[0]`, in it the struct's field `keys[1]`, and so on.

    Raises: FileNotFoundError; DataError if the file is damaged, lacks the variable, or it is no integer matrix;
    RuntimeError without scipy.
    """
    loader, path = need_scipy(), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"label {path} is missing")
    try:
        value: Any = loader.loadmat(path, variable_names=keys[:1])
    except NotImplementedError as error:
        raise DataError(
            f"label {path} is HDF5 (MATLAB 7.3), wanted MATLAB 5 to 7.2: save it with -v7"
        ) from error
    except Exception as error:
        # A damaged file may fail anywhere in scipy's parser: ValueError, TypeError, OSError, zlib.error, ...
        raise DataError(f"label {path} is truncated or not a MATLAB file: {error}") from error
    for key in keys:
        value = _member(value, key, path)
    label = np.asarray(value)
    whole = None
    if label.ndim == 2 and label.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):  # NaN, infinity and numbers out of range differ afterwards
            whole = label.astype(np.int32)
    if whole is None or (whole != label).any():
        raise DataError(
            f"label {path}: {'.'.join(keys)} is {label.dtype} of shape {label.shape}, wanted a matrix of integers "
            "of 32 bits"
        )
    return whole


def _member(value: Any, key: str, path: Path) -> Any:
    """A variable of the file, or a field of a 1 x 1 struct."""
    is_struct = isinstance(value, np.ndarray) and value.dtype.names is not None and value.size == 1
    names = (
        list(value.dtype.names)
        if is_struct
        else [k for k in value if k[:2] != "__"]
        if isinstance(value, dict)
        else []
    )
    if key not in names:
        raise DataError(f"label {path} has no {key}, it holds {', '.join(names) or 'nothing that fits'}")
    return value.reshape(-1)[0][key] if is_struct else value[key]
