"""The loss over cells, at the shapes of its Triton specimens."""

from __future__ import annotations

from benchmarks.specimen import CudaSpecimen
from benchmarks.specimens.upsample_cross_entropy import SHAPES, _case

_WARPS_PER_MULTIPROCESSOR = 11
_CLASSES_OF_CELL = 2.5
"""Classes in the cell of a warp that has most: 15 % of the cells have two, every second warp a cell with three."""
_ALL_COUNT = 0.6
"""Share of the warps without an ignored label and without a cell at the border of the image."""
_CLASSES_SEEN = 4
"""Classes in the cells of one warp."""

SHARES = {
    "void tell(": 0.0,
    "void gather(": 0.0,
    "if (factors == nullptr && __all_sync(": _ALL_COUNT,
    "if (factors == nullptr) {": 1 - _ALL_COUNT,
    "gather(bytes, p, cell, offset, wrong);": 0.0,
    "if (p.losses != nullptr) store_": 0.0,
    "for (int i = 0; i < K * K; ++i) {": 0.0,
    "total.loss += add_steep_cells": 0.0,
    "targets_of<Offset>(p, column_again(), row, begin, y));": 0.0,
    "else add_exponentials<K, false>(sums, score);": 0.0,
    "else m = moments<K, false>(sums, score);": 0.0,
}


def _cells(name: str, slots: int, maxima: tuple[float, ...]) -> CudaSpecimen:
    n, classes, h, w, _ = SHAPES[name]
    strips = -(-n * (w + 1) // 32)
    band = -(-(h + 1) // (132 * _WARPS_PER_MULTIPROCESSOR // strips))
    bands = -(-(h + 1) // band)
    return CudaSpecimen(
        name=f"loss and gradient, {name}, uint8 labels",
        kernel=f"upsample_cross_entropy_cells_kernel<float, {slots}, true>",
        case=_case(SHAPES[name]),
        blocks=strips * bands,
        shared=(classes + 2) * 32 * 4,
        trips={
            "own_words[i] = 0": classes + 2,
            "offset += stride) {": maxima,
            "for (int row = begin": (h + 1) / bands,
            "bytes.next(label)": _CLASSES_OF_CELL,
            "i < LabelBytes<K>::kWords": 0,
            "cell.width : 0); ++r": 0,
            "offset += scores.stride) {": classes,
            "targets.next_class()) {": classes,
            "other < parts": 0,
            "i < K * K": 0,
            "c < pixels.classes": 0,
        },
        shares=SHARES | {"if (smooth || sums_of_class.has(0)) {": _CLASSES_SEEN / classes},
        triton=[f"loss and gradient, {name}, uint8 labels"],
    )


SPECIMENS = [_cells("city ×8", 8, (4, 3, 4)), _cells("ade ×4", 4, (37, 2, 37))]
