"""Scores to confusion matrix on a test set, beside upsampling, argmax and bincount."""

from __future__ import annotations

import torch

from benchmarks.rivals import masked_bincount
from benchmarks.stock_head import StockFCN
from benchmarks.timing import interleaved
from benchmarks.training_step import our_network
from fcnkern.data import collate, open_dataset, preset
from fcnkern.functional import confusion_matrix

SECONDS = 10.0


@torch.no_grad()
def measure_evaluation(data: str, limit: int) -> dict[str, float | str]:
    """Milliseconds an image from the scores of an FCN-8s on GoogLeNet to the matrix, ours and stock.

    Raises:
        AssertionError: the matrices differ in more than one pixel in a thousand, which ties allow.
    """
    dataset = open_dataset(data, "test")
    classes, count = len(dataset.classes), min(limit, len(dataset))
    model = our_network("googlenet", 1.0, classes).eval()
    network = StockFCN(model).eval()
    prepared = []
    for index in range(count):
        batch = collate([dataset[index * len(dataset) // count]], preset(model.preprocess))
        scores, resample = model.scores(batch.images)
        prepared.append((scores, resample, batch.labels.long()))

    def ours() -> torch.Tensor:
        matrices = [
            confusion_matrix(scores, labels, resample=resample) for scores, resample, labels in prepared
        ]
        return torch.stack(matrices).sum(0)

    def stock() -> torch.Tensor:
        matrices = []
        for scores, _, labels in prepared:
            predicted = network.upsample(scores, labels.shape[1:]).argmax(1)
            matrices.append(masked_bincount(predicted, labels, classes))
        return torch.stack(matrices).sum(0)

    mine, theirs = ours(), stock()
    differ = int((mine - theirs).abs().sum()) // 2
    assert differ <= int(theirs.sum()) // 1000, f"{differ} pixels are counted differently"
    times = interleaved({"ours": ours, "stock": stock}, SECONDS)
    each = {name: found.median / count for name, found in times.items()}
    return {
        "data": dataset.name,
        "images": count,
        "ours_ms": each["ours"],
        "stock_ms": each["stock"],
        "ratio": each["stock"] / each["ours"],
    }
