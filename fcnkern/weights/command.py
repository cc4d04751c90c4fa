"""``fcnkern convert``: a file of weights to safetensors, under other names and for other input conventions, or a
released model of the authors to a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from fcnkern.data.preprocess import presets
from fcnkern.engine.network import save_trained
from fcnkern.engine.released import RELEASED, load_released
from fcnkern.weights.conventions import agreed
from fcnkern.weights.convert import convert, fold_input, identify
from fcnkern.weights.files import read_weights, save, sha256_of
from fcnkern.weights.key_maps import ARCHITECTURES, NAMINGS


def add_convert(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``fcnkern convert``."""
    parser.set_defaults(run=_convert)
    parser.add_argument(
        "input", type=Path, metavar="IN", help=".caffemodel, .npz, .safetensors, .pt, .pth, .tar"
    )
    parser.add_argument("output", type=Path, metavar="OUT", help=".safetensors; with --released .pt")
    parser.add_argument(
        "--released",
        choices=tuple(RELEASED),
        metavar="NAME",
        help="IN is this model of fcn.berkeleyvision.org: write a checkpoint for eval, predict, export and train "
        f"--init-from; one of {', '.join(RELEASED)}",
    )
    parser.add_argument("--to", choices=NAMINGS, help="whose names to use (default: as they are)")
    parser.add_argument(
        "--arch", choices=tuple(ARCHITECTURES), help="the network (default: by names and shapes)"
    )
    parser.add_argument("--sha256", metavar="HEX", help="refuse the input if its SHA-256 is another")
    parser.add_argument(
        "--preprocess",
        metavar="NAME",
        help="how images were prepared in training: caffe, nyud-rgbd, nyud+nyud-hha (default: as IN states)",
    )
    parser.add_argument(
        "--fold", choices=tuple(presets), help="change the first layer for images prepared in this way"
    )


def _convert(options: argparse.Namespace) -> int:
    digest = sha256_of(options.input, expected=options.sha256)
    done = _renamed(options) if options.released is None else _checkpoint(options)
    print(f"{options.input}: SHA-256 {digest}{', as wanted' if options.sha256 else ''}")
    print("\n".join(done))
    print(f"{options.output}: SHA-256 {sha256_of(options.output)}")
    return 0


def _checkpoint(options: argparse.Namespace) -> list[str]:
    """Writes a checkpoint of a released model; what there is to tell."""
    given = [
        f"--{name}" for name in ("to", "arch", "preprocess", "fold") if getattr(options, name) is not None
    ]
    if given:
        raise ValueError(f"--released says all of the network and its images, without {', '.join(given)}")
    if options.output.suffix != ".pt":
        raise ValueError(f"{options.output}: checkpoints are written as .pt, got {options.output.suffix!r}")
    trained = load_released(options.released, options.input)
    save_trained(options.output, trained)
    tasks = "".join(f", {task} {count}" for task, count in trained.tasks.items())
    return [
        f"{options.released}: {trained.settings.arch}, {len(trained.classes)} classes{tasks}",
        f"input convention: {trained.model.preprocess}",
    ]


def _renamed(options: argparse.Namespace) -> list[str]:
    """Writes weights under the names and for the images that are wanted; what there is to tell."""
    source = str(options.input)
    weights = read_weights(options.input)
    state, tasks = weights.tensors, weights.tasks
    preprocess = agreed(source, weights.preprocess, options.preprocess)
    lines = []
    if options.to or options.arch or options.fold:
        naming = options.to or identify(state, options.arch, source=source).naming
        conversion = convert(state, naming, architecture=options.arch, tasks=tasks, source=source)
        lines.append(str(conversion))
        if options.fold:
            if preprocess is None:
                raise ValueError(
                    f"{source} does not state how its images were prepared: say so by --preprocess"
                )
            conversion = fold_input(conversion, preprocess, options.fold)
            lines.append(f"first layer: folded from {preprocess} to {options.fold}")
            preprocess = options.fold
        state, tasks = conversion.state, conversion.tasks
    save(options.output, state, preprocess=preprocess, tasks=tasks)
    convention = preprocess or "unknown; --preprocess states it"
    return [*lines, f"input convention: {convention}", f"{len(state)} tensors"]
