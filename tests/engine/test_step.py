"""One iteration: accumulation, averages, precision, compilation, auxiliary losses; each against plain PyTorch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fcnkern.data import Batch, open_dataset, preset
from fcnkern.engine import TrainSettings, confusion_over, load_checkpoint, load_trained, resume_run
from fcnkern.engine.device import choose_device, moved, place_for_training, training_layout
from fcnkern.engine.network import new_network
from fcnkern.engine.objective import Objective
from fcnkern.engine.trainer import Trainer
from fcnkern.models import FCN, create
from fcnkern.ops._checks import dense_format
from tests.engine._runs import TINY, Images, losses, tiny

ONE_SIZE = {"dropout": 0.0, "schedule": "constant", "clip": None, "width": 0.02}


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    # Without ignored pixels the mean of the batches' means is the mean over all pixels.
    labels = [np.random.default_rng(i).integers(0, 11, (24, 32)).astype(np.uint8) for i in range(6)]
    ends = {}
    for name, settings in {
        "large": {"batch_size": 6},
        "parts": {"batch_size": 2, "accumulate": 3},
        "once": {"batch_size": 2},
    }.items():
        ready = tiny(tmp_path / name, iterations=2, **ONE_SIZE, **settings)
        start = weights(ready).clone()
        Trainer(
            ready.settings, ready.model, Images(labels, classes=11), None, tmp_path / name, quiet=True
        ).run()
        ends[name] = weights(ready) - start
    torch.testing.assert_close(ends["parts"], ends["large"], rtol=1e-3, atol=1e-7)
    assert (ends["once"] - ends["large"]).norm() > 0.1 * ends["large"].norm()


def test_the_average_is_what_is_kept_scored_and_used(tmp_path: Path) -> None:
    decay, seen = 0.75, []
    trainer = tiny(tmp_path, ema=decay, iterations=5, val_split="val", lr=0.5)
    step = trainer._learner.step

    def spy(*args: object) -> object:
        result = step(*args)  # type: ignore[arg-type]
        seen.append(trainer.model.score_fr.bias.detach().clone())
        return result

    trainer._learner.step = spy  # type: ignore[method-assign, assignment]
    result = trainer.run()
    expected = seen[0]
    for value in seen[1:]:
        expected = decay * expected + (1 - decay) * value
    trained = load_trained(trainer.last).model
    torch.testing.assert_close(trained.score_fr.bias, expected)
    record = load_checkpoint(trainer.last)
    assert torch.equal(record["raw_state_dict"]["score_fr.bias"], seen[-1])
    assert record["state_dict"].keys() == record["raw_state_dict"].keys()
    matrix = confusion_over(trained, open_dataset(TINY["data"], "val"), preset(trained.preprocess))
    assert result.metrics is not None
    assert result.metrics.pixel_accuracy == pytest.approx((matrix.diag().sum() / matrix.sum()).item())


@pytest.mark.parametrize(
    ("precision", "more"),
    [("bf16", {}), ("fp16", {}), ("bf16", {"upsampling": "learned", "val_split": "val", "val_limit": 1})],
)
def test_sixteen_bits_learn_about_the_same(tmp_path: Path, precision: str, more: dict[str, Any]) -> None:
    for name in ("fp32", precision):
        tiny(tmp_path / name, precision=name, iterations=8, **ONE_SIZE, **more).run()
    full, half = (
        np.array([float(loss) for _, loss in losses(tmp_path / name)]) for name in ("fp32", precision)
    )
    assert full[-1] < full[0]
    np.testing.assert_allclose(half, full, rtol=0.03)
    assert not np.array_equal(half, full)


def test_an_overflow_of_fp16_leaves_the_step_out_and_halves_the_scale(tmp_path: Path) -> None:
    trainer = tiny(tmp_path, precision="fp16", iterations=1, momentum=0.0)
    trainer._learner._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = weights(trainer).clone()
    trainer.run()
    assert torch.equal(weights(trainer), before)
    assert load_checkpoint(trainer.last)["scaler"]["scale"] == 2.0**59


def test_compiled_networks_train_alike_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Dynamo without Inductor: what is traced is the same, and compiling takes a second.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    for compiled in (False, True):
        tiny(tmp_path / str(compiled), compile=compiled, arch="fcn8s", iterations=3, aux=0.5, ema=0.9).run()
    plain, traced = (load_checkpoint(tmp_path / str(c) / "last.pt")["state_dict"] for c in (False, True))
    assert list(plain) == list(traced)
    for name, value in plain.items():
        torch.testing.assert_close(traced[name], value, rtol=1e-4, atol=1e-6)


def alone(model: FCN, images: torch.Tensor, tap: str) -> torch.Tensor:
    """Full-resolution scores of one tap alone, by a transposed convolution.

    The sum of FCN-16s begins at pixel 5 of pool4 and its upsampling is cropped at 27, that of FCN-8s at 9 of pool3
    and at 31.
    """
    stride, crop = {"pool3": (8, 31 + 9 * 8), "pool4": (16, 27 + 5 * 16), "fc7": (32, 19)}[tap]
    name = "score_fr" if tap == "fc7" else f"score_{tap}"
    scale = dict(zip(model.taps, (*model._scales, 1.0), strict=True))[tap]
    features = model._features(model.body, images)[tap] * scale
    layer = create("fcn32s", model.n_class, width=0.01).upscore if stride == 32 else None
    kernel = torch.zeros(model.n_class, model.n_class, 2 * stride, 2 * stride)
    taps = 1 - (torch.arange(2 * stride) - stride + 0.5).abs() / stride
    kernel[range(model.n_class), range(model.n_class)] = taps[:, None] * taps[None, :]
    if layer is not None:
        torch.testing.assert_close(kernel, layer.weight)
    full = torch.nn.functional.conv_transpose2d(getattr(model, name)(features), kernel, stride=stride)
    return full[:, :, crop : crop + images.shape[2], crop : crop + images.shape[3]]


@pytest.mark.parametrize("arch", ["fcn8s", "fcn8s-atonce", "fcn16s"])
def test_auxiliary_losses_are_those_of_the_streams_alone(arch: str) -> None:
    model = create(arch, 5, width=0.02).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("score"):
                torch.nn.init.normal_(parameter, std=10.0)
    images, labels = torch.randn(2, 3, 40, 50), torch.randint(0, 5, (2, 40, 50)).to(torch.uint8)
    objective = Objective(model, class_weight=None, ignore_index=255, reduction="valid", auxiliary=0.25)
    total, main, _ = objective(images, labels, None)
    expected = torch.nn.functional.cross_entropy(model(images), labels.long())
    torch.testing.assert_close(main, expected.detach(), rtol=1e-4, atol=1e-5)
    for tap in model.taps:
        expected = expected + 0.25 * own_loss(model, images, labels, tap)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    total.backward()
    assert all(
        p.grad is not None and p.grad.any() for n, p in model.named_parameters() if n.startswith("score")
    )


def own_loss(model: FCN, images: torch.Tensor, labels: torch.Tensor, tap: str) -> torch.Tensor:
    """The cross-entropy of a tap's own scores, placed on the image by the released network of that tap."""
    return torch.nn.functional.cross_entropy(alone(model, images, tap), labels.long())


def test_auxiliary_losses_need_streams() -> None:
    model = new_network(TrainSettings(iterations=1, arch="fcn32s", width=0.01), 3)
    with pytest.raises(ValueError, match="aux needs a network of several streams"):
        Objective(model, class_weight=None, ignore_index=255, reduction="valid", auxiliary=1.0)


@pytest.mark.parametrize("arch", ["fcn8s_googlenet", "fcn16s_alexnet", "fcn8s_caffenet"])
def test_streams_of_every_body_cover_small_images(arch: str, tmp_path: Path) -> None:
    assert tiny(tmp_path, arch=arch, aux=1.0, iterations=2).run().iteration == 2


def test_devices_are_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"device cuda:64 does not exist: PyTorch finds \d+ CUDA"):
        choose_device("cuda:64")
    for name in ("gpu", "meta", "cuda:x"):
        with pytest.raises(ValueError, match=f"device must be auto, cpu, cuda or cuda:N, got '{name}'"):
            choose_device(name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_moves_between_gpu_and_cpu(tmp_path: Path) -> None:
    settings = {"val_split": "val", "sampling": 0.5, "cell": 4, "ema": 0.9, "accumulate": 2}
    trainer = tiny(tmp_path, device="cuda", iterations=3, precision="fp16", **settings)
    assert trainer.model.score_fr.weight.is_cuda
    trainer.run()
    assert load_trained(trainer.last).model.score_fr.weight.device.type == "cpu"
    assert resume_run(trainer.last, device="cpu", iterations=5, quiet=True).run().iteration == 5


@pytest.mark.parametrize(
    ("capability", "layout"),
    [
        ("AVX512", torch.channels_last),
        ("AVX2", torch.contiguous_format),
        ("DEFAULT", torch.contiguous_format),
    ],
)
def test_training_has_channels_last_but_on_a_cpu_without_avx512(
    capability: str, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    model = new_network(TrainSettings(iterations=1, arch="fcn32s", width=0.01), 3)
    place_for_training(model, torch.device("cpu"))
    batch = Batch(
        torch.zeros(2, 3, 32, 48), torch.zeros(2, 32, 48, dtype=torch.int64), ["a", "b"], [(32, 48)] * 2
    )
    weights = [p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    for tensor in (moved(batch, model).images, *weights):
        assert dense_format(tensor) == layout
    assert training_layout(torch.device("cuda")) == torch.channels_last
