"""Networks for other programs: as a `torch.export` program and as ONNX, for images of every size.

Both hold standard operations only (`fcnkern.models.portable`), so that neither needs this package to run.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as tracing
from torch.nn.utils import convert_conv2d_weight_memory_format

from fcnkern._files import write_atomically
from fcnkern.data import channels_of
from fcnkern.engine.network import Trained, load_trained
from fcnkern.models import MultiTask, Segmenter
from fcnkern.models.layers import BilinearDeconv2d, CaffeLRN

OPSET = 18
EXAMPLE = (64, 96)
SUFFIXES = (".onnx", ".pt2")
_SIZES = {0: "batch", 2: "height", 3: "width"}


class _Exported(nn.Module):
    """What is exported: images N,I,H,W -> label map N,H,W, or logits N,C,H,W; those of each head in turn."""

    def __init__(self, model: Segmenter | MultiTask, logits: bool) -> None:
        super().__init__()
        self.model, self.logits = model, logits
        classes = max(model.heads.values()) if isinstance(model, MultiTask) else model.n_class
        self.out_dtype = torch.uint8 if classes <= 256 else torch.int16

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        model = self.model
        out = model(images) if self.logits else model.predict(images, out_dtype=self.out_dtype)
        return tuple(out.values()) if isinstance(out, dict) else out


def _outputs(model: Segmenter | MultiTask, logits: bool) -> list[str]:
    """What the outputs are called."""
    heads = [f"_{name}" for name in model.heads] if isinstance(model, MultiTask) else [""]
    return [("logits" if logits else "labels") + head for head in heads]


class _LRN(nn.Module):
    """`CaffeLRN` as ONNX's operator, which is defined alike; in standard operations each is 18 nodes."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map, of x's shape and type."""
        normalised = torch.onnx.ops.symbolic(
            "LRN",
            [x.float()],
            {"size": CaffeLRN.channels, "alpha": CaffeLRN.alpha, "beta": CaffeLRN.beta, "bias": 1.0},
            dtype=torch.float32,
            shape=x.shape,
        )
        return normalised.to(x.dtype)


def to_program(
    model: Segmenter | MultiTask,
    *,
    logits: bool = False,
    example_size: tuple[int, int] = EXAMPLE,
    min_size: int = 1,
) -> ExportedProgram:
    """The network as an exported program for every N >= 1 and H, W >= `min_size`; `torch.export.save` writes it.

    `torch.export.export` itself, with dynamic shapes, pins sizes at which a feature map has one row or column; here
    they are no special case.

    Args:
        model: in evaluation mode, on any device.
        logits: whether the program returns logits N,C,H,W instead of labels N,H,W: uint8, or int16 for more than
            256 classes. Of several heads it returns a tuple, in their order.
        example_size: height and width of the image it is traced with; the result does not depend on it.
        min_size: smallest height and width; more than 1 for a body of your own that treats small images otherwise.

    Raises:
        ValueError: the network is in training mode, or its body asks for sizes in a way that the program cannot
            follow; the message says for which sizes it could.
    """
    if model.training:
        raise ValueError("model must be in evaluation mode, or dropout would be exported: call model.eval()")
    # With channels-last weights PyTorch's tracer asks for layouts, and so for sizes.
    model = convert_conv2d_weight_memory_format(deepcopy(model), torch.contiguous_format)
    for layer in model.modules():
        if isinstance(layer, BilinearDeconv2d):
            layer.refresh()  # tracing does not look whether it was changed
    parameter = next(model.parameters())
    example = parameter.new_zeros(2, model._in_channels, *example_size)
    sizes = {axis: Dim(name, min=min_size if axis else 1) for axis, name in _SIZES.items()}
    try:
        with tracing.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(_Exported(model, logits), (example,), dynamic_shapes=(sizes,))
    except UserError as error:
        raise ValueError(f"model cannot be exported for every size: {error}") from error


def to_onnx(
    model: Segmenter | MultiTask,
    path: str | Path,
    *,
    logits: bool = False,
    opset: int = OPSET,
    example_size: tuple[int, int] = EXAMPLE,
    min_size: int = 1,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes the network as ONNX: input `images` N,I,H,W, output `labels` N,H,W or `logits` N,C,H,W, any N, H, W.

    Of several heads the outputs are `labels_semantic`, `labels_geometric` and so on. I is 3, 1 for depth and 4 for
    colour with depth: images are prepared as `model.preprocess` says; the file states it in its metadata. Only
    operators of ONNX's own domain are used, and no pooling that rounds up: runtimes disagree on it. The file is
    checked and written atomically, with the weights inside.

    Args:
        opset: version of ONNX's operators, at least 18.
        metadata: further entries.
        model, logits, example_size, min_size: as in `to_program`, which also says what is raised.

    Raises:
        RuntimeError: the packages onnx and onnxscript are missing.
        ValueError: an opset below 18, or a network of more than 2 GB.
    """
    if opset < OPSET:
        raise ValueError(f"opset must be at least {OPSET}, got {opset}")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise RuntimeError(f"ONNX export needs {' and '.join(missing)}: pip install 'fcnkern[onnx]'")
    import onnx

    model = deepcopy(model)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, CaffeLRN):
            model.set_submodule(name, _LRN())
    program = to_program(model, logits=logits, example_size=example_size, min_size=min_size)
    with _without_advice():
        exported = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=_outputs(model, logits),
            opset_version=opset,
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    _name_sizes(proto.graph)
    onnx.helper.set_model_props(proto, {"preprocess": model.preprocess, **(metadata or {})})
    onnx.checker.check_model(proto)
    write_atomically(Path(path), lambda file: file.write(proto.SerializeToString()))


def _name_sizes(graph: Any) -> None:
    """Call the sizes of input and outputs by `_SIZES`, instead of by the tracer's symbols."""
    del graph.value_info[:]
    given = [each.dim_param for each in graph.input[0].type.tensor_type.shape.dim]
    names = {symbol: _SIZES[axis] for axis, symbol in enumerate(given) if axis in _SIZES}
    for value in (graph.input[0], *graph.output):
        for each in value.type.tensor_type.shape.dim:
            if each.dim_param:
                each.dim_param = names[each.dim_param]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps quiet what PyTorch's exporter says about packages and calls that are not the caller's."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def add_export(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fcnkern export``."""
    parser.set_defaults(run=_export)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE", help="written by fcnkern train"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".onnx, or .pt2 for torch.export.load"
    )
    parser.add_argument("--logits", action="store_true", help="logits N,C,H,W instead of labels N,H,W")
    parser.add_argument("--opset", type=int, default=OPSET, metavar="N", help=f"of ONNX (default {OPSET})")


def _export(options: argparse.Namespace) -> int:
    if options.out.suffix not in SUFFIXES:
        raise ValueError(f"out must end in {' or '.join(SUFFIXES)}, got {options.out}")
    trained = load_trained(options.checkpoint)
    model = MultiTask(trained.model, trained.tasks) if trained.tasks else trained.model
    entries = _metadata(trained)
    if options.out.suffix == ".onnx":
        to_onnx(model, options.out, logits=options.logits, opset=options.opset, metadata=entries)
    else:
        program = to_program(model, logits=options.logits)
        extra = {"preprocess": model.preprocess, **entries}
        write_atomically(options.out, lambda file: torch.export.save(program, file, extra_files=extra))
    channels = channels_of(model.preprocess)
    print(
        f"{options.out}: {', '.join(_outputs(model, options.logits))} of images N,{channels},H,W of any size, "
        f"prepared as {model.preprocess!r}"
    )
    return 0


def _metadata(trained: Trained) -> dict[str, str]:
    colours = ["#" + "".join(f"{level:02x}" for level in colour) for colour in trained.palette.tolist()]
    entries = {"classes": "\n".join(trained.classes), "palette": "\n".join(colours)}
    if trained.tasks:
        entries["tasks"] = "\n".join(f"{name} {count}" for name, count in trained.tasks.items())
    return entries
