"""``fcnkern convert``: a file of weights to safetensors, under other names and for other input conventions."""

from __future__ import annotations

import argparse
from pathlib import Path

from fcnkern.data.preprocess import presets
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
    parser.add_argument("output", type=Path, metavar="OUT", help=".safetensors")
    parser.add_argument("--to", choices=NAMINGS, help="whose names to use (default: as they are)")
    parser.add_argument(
        "--arch", choices=tuple(ARCHITECTURES), help="the network (default: by names and shapes)"
    )
    parser.add_argument("--sha256", metavar="HEX", help="refuse the input if its SHA-256 is another")
    parser.add_argument(
        "--preprocess",
        choices=tuple(presets),
        help="how images were prepared in training (default: as IN states)",
    )
    parser.add_argument(
        "--fold", choices=tuple(presets), help="change the first layer for images prepared in this way"
    )


def _convert(options: argparse.Namespace) -> int:
    source = str(options.input)
    digest = sha256_of(options.input, expected=options.sha256)
    lines = [f"{source}: SHA-256 {digest}{', as wanted' if options.sha256 else ''}"]
    weights = read_weights(options.input)
    state, preprocess = weights.tensors, agreed(source, weights.preprocess, options.preprocess)
    if options.to or options.arch or options.fold:
        naming = options.to or identify(state, options.arch, source=source).naming
        conversion = convert(state, naming, architecture=options.arch, source=source)
        lines.append(str(conversion))
        if options.fold:
            if preprocess is None:
                raise ValueError(
                    f"{source} does not state how its images were prepared: say so by --preprocess"
                )
            conversion = fold_input(conversion, preprocess, options.fold)
            lines.append(f"first layer: folded from {preprocess} to {options.fold}")
            preprocess = options.fold
        state = conversion.state
    save(options.output, state, preprocess=preprocess)
    lines.append(f"input convention: {preprocess or 'unknown; --preprocess states it'}")
    lines.append(f"{options.output}: {len(state)} tensors, SHA-256 {sha256_of(options.output)}")
    print("\n".join(lines))
    return 0
