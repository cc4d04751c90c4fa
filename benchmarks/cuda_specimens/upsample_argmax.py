"""Label maps of upsampled scores, at the shape of the Triton specimens."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.specimen import Case, CudaSpecimen
from benchmarks.specimens.confusion_matrix import _NEW_PAIRS
from benchmarks.specimens.upsample_argmax import _PIXELS, _POINTS, _UNDECIDED, CITY

PARTS = 129 / 17
"""Rows of cells of a tile: 129 in 17 bands, 8 at most."""
TILES = 8 * 17 * 8
_SURVIVING = 4
"""Classes that can win in an undecided cell, as in the Triton specimens."""
_SOME_UNDECIDED = 0.9
"""Share of the rows of 32 cells where one is not decided."""
_NINE_ROWS = (9 + 15 * 10 + 2) / 17
"""Times that a warp's 32 points cover a tile's: 8 rows of 34 points, 15 times 9 and once 1."""

TILE_TRIPS: dict[str, float | Sequence[float]] = {
    "first < items; first += blockDim.x": _NINE_ROWS / 8,
    "c + 3 * lanes < classes": 4,
    "; c < classes; c += lanes": 3,
    "if (score != score) break;": 0,
    "other < lanes": 0,
    "first < number; first += kTileThreads": ((16 * 9 + 2) / 17 / 8, _UNDECIDED * PARTS * 33 * 8 / 256),
    "part < table.parts; ++part": PARTS,
    "for (int c = 0; c < classes; ++c) {": 0,
    "first < classes; first += kClassChunk": 1,
    "i < number; i += peers.number": 3,
    "while (alive != 0)": _SURVIVING,
}
"""Of the loops that find the labels of a tile. Eight lanes share the classes of a cell: 3 each."""
_ONE_WARP = 1 / 8
"""Share of the warps of a block that have a thread whose index is small."""
TILE_SHARES = {
    "if (threadIdx.x == 0) {": _ONE_WARP,
    "if (part < table.parts) {": _ONE_WARP,
    "if (identity) area =": 0.0,
    "patterns[(y + 1 - table.first_part) * kTileColumns": 0.0,
    "if (found.best != found.best) found.label = first_nan": 0.0,
    "int first_nan(const char*": 0.0,
    "else exact_winners(": 0.0,
    "if (!same || code[0] >= kUndecidable) {": _SOME_UNDECIDED,
    "if (lane == 0 && undecided != 0) place = atomicAdd": _SOME_UNDECIDED,
    "if (plan.mode == TileMode::kAll) {": 0.0,
    "Place column_place(int unit) const {": 0.0,
    "if (!decides && table.count[at.part] == 0) continue;": 0.0,
}
_OTHER_TYPES = {
    f"case LabelType::{kind}: {use}": 0.0
    for kind in ("kI16", "kI32", "kI64")
    for use in ("store_patterns<", "return store_column<")
}
_OTHER_PIECES = {"if (stores.piece_bytes == 4)": 0.0, "store_pieces<Label, Label>(tile": 0.0}
_STORE = PARTS * 16 / 32 / 8

SPECIMENS = [
    CudaSpecimen(
        name="labels, C=19, uint8",
        kernel="upsample_argmax_fwd_kernel<float>",
        case=Case(CITY, unit="pixel", units=_PIXELS, bytes=19 * 4 * _POINTS + _PIXELS),
        blocks=TILES,
        shared=8192,
        trips={**TILE_TRIPS, "item < table.parts * kPieces": _STORE, "r < count; ++r, to += width": 4},
        shares={**TILE_SHARES, **_OTHER_TYPES, **_OTHER_PIECES},
        widths={"return store_pieces<Label, uint4>(tile": 128},
        triton=["argmax of the points, C=19", "decided cells, uint8", "undecided cells, C=19"],
    ),
    CudaSpecimen(
        name="confidence, C=19",
        kernel="upsample_argmax_confidence_fwd_kernel<float>",
        case=Case(
            CITY,
            unit="pixel-class",
            units=19 * _PIXELS,
            bytes=19 * 4 * _POINTS + 5 * _PIXELS,
            exponentials=19 * _PIXELS,
        ),
        blocks=8 * 129 * 16,
        trips={"c < classes; ++c": (19, 0)},
        shares={
            "if (broken) probabilities<true>(": 0.0,
            "if (r == 0 || label[r] != label[r - 1])": (1 + 7 * _NEW_PAIRS) / 8,
        },
        triton=["confidence, C=19"],
    ),
]
