"""The loss over cells, at the shapes of its Triton specimens."""

from __future__ import annotations

from benchmarks.specimen import CudaSpecimen
from benchmarks.specimens.upsample_cross_entropy import SHAPES, _case

_WARPS_PER_MULTIPROCESSOR = 11
_NEW_LABEL = 0.5
"""Share of the steps along a row of labels at which one of 32 cells meets a new class: 15 % of the cells have two."""
_CLASSES_SEEN = 4
"""Classes in the cells of one warp."""

SHARES = {
    "void tell(": 0.0,
    "++x_, left_ = p_.cell;": 0.0,
    "return word_ <= p_.limits": 0.0,
    "word_ = philox4x32(": 0.0,
    "const float loss = p.hard_losses[place]": 0.0,
    "return loss > p.cuts[0]": 0.0,
    "factors[(v * K + r) * kWarp] = target_factor": 0.0,
    "if (p.pixel_weight != nullptr) {": 0.0,
    ": label_at(p.target, offset + r": 0.0,
    "if (kind == p.classes) {": 0.0,
    "if (kind != run_kind) {": _NEW_LABEL,
    "if (p.losses != nullptr) store_": 0.0,
    "for (int i = 0; i < K * K; ++i) {": 0.0,
    "total.loss += add_steep_cells": 0.0,
    "targets_of(p, column_again(), row, begin, y));": 0.0,
    "if (pixels.smoothing > 0.0f) {": 0.0,
    "if (pixels.smoothing > 0.0f) sums_of_labels.take(classes);": 0.0,
    "const float* at = reinterpret_cast<const float*>(words_)": 0.0,
    "return {at[0], at[plane_]": 0.0,
    "if (!gentle) return exp2_fast(x) - 1.0f;": 0.0,
}


def _cells(name: str, slots: int, zeroing: tuple[float, ...], maxima: tuple[float, ...]) -> CudaSpecimen:
    n, classes, h, w, factor = SHAPES[name]
    strips = -(-n * (w + 1) // 32)
    band = -(-(h + 1) // (132 * _WARPS_PER_MULTIPROCESSOR // strips))
    bands = -(-(h + 1) // band)
    return CudaSpecimen(
        name=f"loss and gradient, {name}, uint8 labels",
        kernel=f"upsample_cross_entropy_cells_kernel<float, {slots}>",
        case=_case(SHAPES[name]),
        blocks=strips * bands,
        shared=(classes + 2) * 32 * 4,
        trips={
            "own_words[i] = 0": zeroing,
            "offset += stride) {": maxima,
            "for (int row = begin": (h + 1) / bands,
            "v < cell.height": h * factor / (h + 1),
            "r < cell.width": factor,
            "offset += scores.stride) {": classes,
            "targets.next_class()) {": classes,
            "k < (weighted_ ? 4 : 1)": 0,  # of the loops that clear four or more words at a time
            "other < parts": 0,
            "i < K * K": 0,
            "c < pixels.classes": 0,
        },
        shares=SHARES | {"k < (weighted_ ? 4 : 1)": _CLASSES_SEEN / classes},
        triton=[f"loss and gradient, {name}, uint8 labels"],
    )


SPECIMENS = [_cells("city ×8", 8, (1, 1), (4, 3, 4)), _cells("ade ×4", 4, (2, 9), (37, 2, 37))]
