"""The four metrics of the paper from a confusion matrix, by the authors' exact definitions (their score.py).

Beside them what a stride allows at best (`upper_bound`) and labels near boundaries alone (`trimap`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from fcnkern import functional as F
from fcnkern.resample import Resample, as_whole


@dataclass(frozen=True)
class Metrics:
    """Fractions in 0..1, fp64. With n_ij pixels of class i predicted as j, t_i = Σ_j n_ij, p_j = Σ_i n_ij:

    Attributes:
        pixel_accuracy: Σ n_ii / Σ t_i.
        mean_accuracy: mean of n_ii / t_i over the classes present in the truth.
        mean_iu: mean of the intersections over unions that exist.
        fw_iu: Σ t_i IU_i / Σ t_i over the classes present in the truth.
        per_class_iu: n_ii / (t_i + p_i - n_ii); NaN for a class in neither truth nor prediction, 0 for one that is
            predicted but never true.
        per_class_accuracy: n_ii / t_i; NaN for a class that is never true.
        present_mean_iu: mean IU over the classes present in the truth alone, as the paper reports it of SIFT Flow, of
            whose classes three never occur in the test set; its `score.py` forms `mean_iu`.

    Without any valid pixel every metric is NaN.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    fw_iu: float
    per_class_iu: tuple[float, ...]
    per_class_accuracy: tuple[float, ...]

    @property
    def present_mean_iu(self) -> float:
        rows = zip(self.per_class_iu, self.per_class_accuracy, strict=True)
        return _nanmean(np.array([iu for iu, accuracy in rows if not math.isnan(accuracy)]))


def from_confusion(matrix: Tensor | ArrayLike) -> Metrics:
    """Metrics of a C x C matrix of counts [truth, prediction] (torch or numpy, integer or floating).

    Raises:
        ValueError: not square, empty, or with negative or non-finite entries.
    """
    counts = np.asarray(matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"matrix must be a square C x C array with C >= 1, got shape {counts.shape}")
    if counts.dtype.kind not in "iuf":
        raise ValueError(f"matrix must hold real counts, got dtype {counts.dtype}")
    counts = counts.astype(np.float64)
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("matrix must hold finite counts >= 0")
    hits, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    accuracy = _divide(hits, truth)
    iu = _divide(hits, truth + predicted - hits)
    total = truth.sum()
    present = truth > 0
    return Metrics(
        pixel_accuracy=float(_divide(hits.sum(), total)),
        mean_accuracy=_nanmean(accuracy),
        mean_iu=_nanmean(iu),
        fw_iu=float(_divide((truth[present] * iu[present]).sum(), total)),
        per_class_iu=tuple(iu.tolist()),
        per_class_accuracy=tuple(accuracy.tolist()),
    )


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs over a data set.

    Accumulators of several processes merge by `+=`. `matrix` is the int64 C x C tensor, on the device of the last
    update.

    Raises:
        TypeError: `num_classes` is no whole number.
        ValueError: `num_classes` < 1.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        if as_whole("num_classes", num_classes) < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes!r}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        self.matrix = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, resample: Resample | None = None) -> None:
        """Add a batch.

        Args:
            prediction: label map N,H,W (integer); or, with `resample`, scores N,C,h,w, which are then upsampled,
                reduced to labels and counted in one pass.
            target: labels N,H,W; pixels equal to `ignore_index` are left out.

        Raises:
            TypeError, ValueError: as `fcnkern.functional.confusion_matrix`; nothing is counted then.
        """
        counts = F.confusion_matrix(
            prediction, target, self.num_classes, resample=resample, ignore_index=self.ignore_index
        )
        self.matrix = self.matrix.to(counts.device) + counts

    def compute(self) -> Metrics:
        """The metrics of everything counted so far."""
        return from_confusion(self.matrix)

    def __iadd__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        mine, theirs = (self.num_classes, self.ignore_index), (other.num_classes, other.ignore_index)
        if mine != theirs:
            raise ValueError(
                f"cannot merge confusion matrices of (num_classes, ignore_index) {mine} and {theirs}"
            )
        self.matrix = self.matrix + other.matrix.to(self.matrix.device)
        return self


def upper_bound(labels: Tensor, factor: int, num_classes: int, ignore_index: int = 255) -> Tensor:
    """What coarse scores of a stride can give at best (arXiv:1411.4038v2, appendix A).

    The scores of a cell of `factor` x `factor` pixels are the shares of the classes in it; they are upsampled
    bilinearly, as a network's are, and compared with the labels that they came from. The paper says of its own table
    no more than that the truth was downsampled and upsampled again.

    Args:
        labels: N,H,W, integer; H and W need not be multiples of `factor`.

    Returns:
        Confusion matrix C x C of counts [truth, best prediction], int64; those of several batches add up.

    Raises:
        ValueError: `factor` < 1, or a label that is neither in 0..C-1 nor `ignore_index`.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    count, height, width = labels.shape
    margin = (0, -width % factor, 0, -height % factor)
    padded = pad(labels.long(), margin, value=ignore_index)
    valid = padded != ignore_index
    if not ((padded >= 0) & (padded < num_classes))[valid].all():
        raise ValueError(f"labels must be in 0..{num_classes - 1} or {ignore_index}")
    h, w = padded.shape[1] // factor, padded.shape[2] // factor
    rows = torch.arange(padded.shape[1], device=labels.device)[:, None] // factor
    columns = torch.arange(padded.shape[2], device=labels.device) // factor
    images = torch.arange(count, device=labels.device)[:, None, None]
    places = ((images * num_classes + padded) * h + rows) * w + columns
    pixels = torch.bincount(places[valid], minlength=count * num_classes * h * w)
    shares = pixels.view(count, num_classes, h, w).float() / factor**2
    return F.confusion_matrix(shares, padded, resample=Resample.half_pixel(), ignore_index=ignore_index)


def blocks(matrix: Tensor, tasks: Mapping[str, int]) -> dict[str, Tensor]:
    """The confusion matrices of several tasks, by name, that lie along the diagonal of one.

    Args:
        matrix: C x C. tasks: numbers of classes by name, C in all.
    """
    sizes = list(tasks.values())
    rows = matrix.split(sizes)
    return {name: rows[place].split(sizes, 1)[place] for place, name in enumerate(tasks)}


def trimap(labels: Tensor, width: int, ignore_index: int = 255) -> Tensor:
    """Labels of the band along the boundaries alone, for scores near boundaries (Kohli et al. 2009).

    A pixel is in the band if one with another label is at most `width` rows and columns away. `ignore_index` counts
    as a label there, since PASCAL VOC's objects are bordered by it, but is itself never scored.

    Args:
        labels: N,H,W, integer.

    Returns:
        `labels` with `ignore_index` outside the band: a target for `ConfusionMatrix.update`.

    Raises:
        ValueError: `width` < 1.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1 pixel, got {width}")
    values = labels.float()
    band = _highest_around(values, width) != -_highest_around(-values, width)
    return torch.where(band, labels, ignore_index)


def _highest_around(values: Tensor, width: int) -> Tensor:
    """N,H,W -> the highest value of the window of 2 * width + 1 rows and columns about each pixel."""
    size = 2 * width + 1
    columns = max_pool2d(values[:, None], (size, 1), stride=1, padding=(width, 0))
    return max_pool2d(columns, (1, size), stride=1, padding=(0, width))[:, 0]


def _divide(numerator: np.ndarray | np.float64, denominator: np.ndarray | np.float64) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.true_divide(numerator, denominator)


def _nanmean(values: np.ndarray) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
