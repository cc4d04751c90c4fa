"""Few variants of a kernel serve images of many sizes: each is compiled where it is first met."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from benchmarks.compiled import _compile_kernels
from tests.compiled.specialisations import SIZES, specialisations

VARIANTS = {
    "_confusion_matrix_cells_fwd_kernel": 1,
    "_confusion_matrix_decided_fwd_kernel": 2,
    "_max_pool2d_bwd_kernel": 1,
    "_max_pool2d_fwd_kernel": 1,
    "_sum_partials_kernel": 2,
    "_upsample_add_features_bwd_kernel": 5,
    "_upsample_argmax_cells_fwd_kernel": 1,
    "_upsample_argmax_confidence_fwd_kernel": 5,
    "_upsample_argmax_decided_fwd_kernel": 5,
    "_upsample_argmax_points_fwd_kernel": 3,
    "_upsample_cross_entropy_cells_kernel": 1,
    "_upsample_cross_entropy_finish_kernel": 5,
    "_upsample_cross_entropy_total_kernel": 2,
    "_upsample_dense_fwd_kernel": 8,
    "_upsample_dense_grad_weight_kernel": 5,
    "_upsample_dense_grad_x_kernel": 5,
    "_upsample_depthwise_fwd_kernel": 3,
    "_upsample_depthwise_grad_weight_kernel": 3,
    "_upsample_gather_grad_x_kernel": 3,
}


def test_few_variants_serve_many_sizes() -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _compile_kernels) as pool:
        found = pool.submit(specialisations).result()
    assert len(SIZES) == 205
    assert found == VARIANTS
