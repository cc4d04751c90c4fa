"""How a network's input was prepared in training, and how to fold one convention into another's weights."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnkern.data.preprocess import Preprocess, preset

_SAME = 1e-6  # grey levels


def disagreements(weights: Preprocess, images: Preprocess) -> list[str]:
    """How the convention of some weights differs from that in which images are prepared, in words; empty if not."""
    found = []
    if len(weights.mean) != len(images.mean):
        return [f"{len(weights.mean)} and {len(images.mean)} channels"]
    if weights.order != images.order:
        found.append(f"channels in the order {weights.order} and {images.order}")
    ranges = [[preset.scale * std for std in _in_rgb(preset, preset.std)] for preset in (weights, images)]
    if _differ(*ranges):
        levels = " and ".join(_numbers(values) for values in ranges)
        found.append(f"one unit of input (R, G, B) is {levels} grey levels")
    means = [_mean_in_pixels(preset) for preset in (weights, images)]
    if _differ(*means):
        found.append(f"mean (R, G, B) {_numbers(means[0])} and {_numbers(means[1])}")
    return found


def agreed(source: str, stated: str | None, given: str | None) -> str | None:
    """The preset of some weights: the one `given` by the user, else the one `stated` by their file, else None.

    Raises:
        ValueError: `given` is no preset, or the two contradict each other; the message says in what.
    """
    if given is not None and stated is not None:
        conflict = disagreements(preset(stated), preset(given))
        if conflict:
            raise ValueError(
                f"{source}: the file states its input as {stated!r}, preprocess is {given!r}: {'; '.join(conflict)}"
            )
    return preset(given).name if given is not None else stated


def fold_first_layer(
    weight: Tensor, bias: Tensor, source: Preprocess, target: Preprocess, *, padded: bool = True
) -> tuple[Tensor, Tensor]:
    """A first layer trained on images prepared as `source`, for images prepared as `target`.

    Its output on `target(image)` is that of the old one on `source(image)`: exactly in real arithmetic, here computed
    in fp64 and rounded once. Order, scale and standard deviation go into the weight alone, so zero padding, which
    stands for the mean, keeps its meaning. A difference of the means goes into the bias; that is right only where the
    layer has no padding, since a padding of zeros would stand for another colour than in training.

    Args:
        weight: (out, 3, kh, kw), floating point, channels in the order of `source`.
        bias: (out,).
        padded: whether the layer pads its input, as the first layers of all FCNs do.

    Returns:
        weight and bias in the dtypes that came, channels in the order of `target`.

    Raises:
        ValueError: the weight does not have three input channels, or the means differ and the layer is padded.
    """
    if weight.dim() != 4 or weight.shape[1] != 3:
        raise ValueError(f"weight must have shape (out, 3, kh, kw), got {tuple(weight.shape)}")
    old, new = (torch.tensor(_mean_in_pixels(preset), dtype=torch.float64) for preset in (source, target))
    unit, shown = (
        torch.tensor([preset.scale * std for std in _in_rgb(preset, preset.std)], dtype=torch.float64)
        for preset in (source, target)
    )
    differs = _differ(old.tolist(), new.tolist())
    if differs and padded:
        raise ValueError(
            f"mean mismatch: the weights want images minus (R, G, B) {_numbers(old.tolist())}, {target.name!r} "
            f"subtracts {_numbers(new.tolist())}; no first layer with zero padding makes up for that"
        )
    rgb = _channels(weight.double(), source)
    if differs:
        bias = (bias.double() + (rgb.sum((2, 3)) * ((new - old) / unit)).sum(1)).to(bias.dtype)
    folded = rgb * (shown / unit)[:, None, None]
    return _channels(folded, target).to(weight.dtype).contiguous(), bias


def _channels(weight: Tensor, preset: Preprocess) -> Tensor:
    """Channels from the preset's order to R, G, B, or back."""
    return weight if preset.order == "rgb" else weight.flip(1)


def _in_rgb(preset: Preprocess, values: tuple[float, ...]) -> list[float]:
    """Those of the colours, of six channels of each three; depth behind them is prepared alike in all presets."""
    threes = [(order, values[3 * place :][:3]) for place, order in enumerate(preset.order.split("+"))]
    return [value for order, three in threes for value in (three if order == "rgb" else three[::-1])]


def _mean_in_pixels(preset: Preprocess) -> list[float]:
    """R, G, B in grey levels, 0 to 255."""
    return [value * preset.scale for value in _in_rgb(preset, preset.mean)]


def _differ(first: list[float], second: list[float]) -> bool:
    return any(abs(a - b) > _SAME for a, b in zip(first, second, strict=True))


def _numbers(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
