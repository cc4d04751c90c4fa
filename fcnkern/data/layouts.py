"""Data sets that lie in a folder: CamVid in both its packagings, and a generic layout for your own images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fcnkern.data.colours import read_colour_names, read_colours
from fcnkern.data.files import FileDataset, Pair, read_label
from fcnkern.data.labels import plain
from fcnkern.data.lists import contents, existing, lists_in, read_lines
from fcnkern.data.palette import CAMVID_CLASSES, CAMVID_PALETTE, voc_palette
from fcnkern.data.sample import IGNORE, DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
SEGNET_VOID = 11
PUBLISHED = {"train": 367, "val": 101, "test": 233}
STILLS, VOID = "701_StillsRaw_full", "Void"


def camvid(path: str | Path, split: str = "train") -> FileDataset:
    """CamVid; which packaging it is shows from the folders. The first two have SegNet's 11 classes.

    - SegNet's original (`path` may also be the folder that holds `CamVid`): train/, trainannot/, ... and
      train.txt with an image and a label a line, of which the last two parts of each path count; 11 is void.
    - images/STEM.jpg, labels/STEM.png and train.txt with a stem a line, as `folder` reads them.
    - the original: 701_StillsRaw_full/STEM.png, LabeledApproved_full/STEM_L.png in colours, label_colors.txt, which
      names 32 colours; Void is no class, so that 31 are left. It has no splits: ``all`` is every frame, others need
      a list of stems, such as train.txt, beside the folders.

    Raises: FileNotFoundError, DataError naming what is missing or malformed.
    """
    root = existing(path)
    if (root / "CamVid").is_dir():
        root = root / "CamVid"
    if (root / "images").is_dir():
        pairs = _pairs_by_stem(root, _split_list(root, split))
    elif (root / STILLS).is_dir():
        return _original_camvid(root, split)
    elif (root / "trainannot").is_dir() or (root / f"{split}annot").is_dir():
        pairs = _pairs_by_line(root, _split_list(root, split))
    else:
        raise FileNotFoundError(
            f"{root} has neither images/ and labels/ nor SegNet's train/ and trainannot/ nor {STILLS}/; "
            f"it holds {contents(root)}"
        )
    return FileDataset(
        f"camvid-{split}",
        list(CAMVID_CLASSES),
        CAMVID_PALETTE.copy(),
        pairs,
        plain(11, SEGNET_VOID),
        published=PUBLISHED.get(split),
    )


def _original_camvid(root: Path, split: str) -> FileDataset:
    colours = read_colour_names(root / "label_colors.txt")
    if VOID not in colours:
        raise DataError(f"{root / 'label_colors.txt'} names no colour {VOID}, it has {', '.join(colours)}")
    names = [name for name in colours if name != VOID]
    values = tuple(colours[name] for name in (*names, VOID))
    frames = sorted(p.stem for p in (root / STILLS).glob("*.png")) if split == "all" else None
    stems = read_lines(_split_list(root, split)) if frames is None else frames
    return FileDataset(
        f"camvid-{split}",
        names,
        np.array(values[:-1], np.uint8),
        [Pair(s, root / STILLS / f"{s}.png", root / "LabeledApproved_full" / f"{s}_L.png") for s in stems],
        plain(len(names), len(names)),
        load_label=partial(read_colours, colours=values),
    )


def folder(path: str | Path, split: str = "train") -> FileDataset:
    """Images and labels of your own::

        PATH/images/STEM.jpg      or .png, .bmp, .ppm, .tif, .webp; sizes may differ
        PATH/labels/STEM.png      class indices (grey or palette, 8 or 16 bit), 255 = ignore, the image's size
        PATH/train.txt val.txt …  the splits: a stem a line, subfolders allowed; # starts a comment
        PATH/list.txt             instead: one list, which is also the split "train"
        PATH/classes.txt          optional: line k names class k
        PATH/palette.txt          optional: line k is the colour of class k, "R G B"

    Without classes.txt every label is read once to find the highest class. Without palette.txt the
    colours are VOC's.

    Raises: FileNotFoundError, DataError naming what is missing or malformed.
    """
    root = existing(path)
    for part in ("images", "labels"):
        if not (root / part).is_dir():
            raise FileNotFoundError(f"{root} has no folder {part}/; it holds {contents(root)}")
    chosen = _split_list(root, split)
    pairs = _pairs_by_stem(root, chosen)
    classes = _class_names(root)
    return FileDataset(f"{root.name}-{split}", classes, _palette(root, len(classes)), pairs)


def listed_splits(path: str | Path) -> list[str]:
    """The splits that `camvid` and `folder` find lists of."""
    root = existing(path)
    root = root / "CamVid" if (root / "CamVid").is_dir() else root
    return [*lists_in(root), *(["all"] if (root / STILLS).is_dir() else [])]


def _split_list(root: Path, split: str) -> Path:
    lists = lists_in(root)
    if split in lists:
        return lists[split]
    if split == "train" and "list" in lists:
        return lists["list"]
    there = ", ".join(p.name for p in lists.values()) or "no list at all"
    raise FileNotFoundError(f"{root} has no list {split}.txt for the split {split!r}; there is {there}")


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """In order, also those in folders that are links, but where a link leads back up."""
    here = (*above, folder.resolve())
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            yield path
        elif path.resolve() not in here:
            yield from _files_below(path, here)


def _by_stem(top: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in _files_below(top):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            stem = file.relative_to(top).with_suffix("").as_posix()
            if stem in found:
                raise DataError(f"{file} and {found[stem]} have one stem, wanted one file for {stem!r}")
            found[stem] = file
    return found


def _pairs_by_stem(root: Path, listing: Path) -> list[Pair]:
    images, labels = _by_stem(root / "images"), _by_stem(root / "labels")
    lines = read_lines(listing)
    stems = [line.rsplit(".", 1)[0] if line.lower().endswith(IMAGE_SUFFIXES) else line for line in lines]
    # One that is missing keeps its place in the list: reading it names it, as in every other layout.
    return [
        Pair(
            stem,
            images.get(stem, root / "images" / f"{stem}.*"),
            labels.get(stem, root / "labels" / f"{stem}.*"),
        )
        for stem in stems
    ]


def _pairs_by_line(root: Path, listing: Path) -> list[Pair]:
    pairs = []
    for line in read_lines(listing):
        parts = line.split()
        if len(parts) != 2:
            raise DataError(
                f"{listing} has the line {line!r}, wanted an image and a label separated by a space"
            )
        image, label = (root.joinpath(*p.replace("\\", "/").split("/")[-2:]) for p in parts)
        pairs.append(Pair(image.stem, image, label))
    return pairs


def _class_names(root: Path) -> list[str]:
    listing = root / "classes.txt"
    if listing.is_file():
        names = read_lines(listing)
        if len(names) > IGNORE:
            raise DataError(
                f"{listing} names {len(names)} classes, wanted at most {IGNORE}: {IGNORE} is ignored"
            )
        return names
    highest = -1
    for file in _by_stem(root / "labels").values():
        label = read_label(file)
        highest = max(highest, int(np.max(label, where=label != IGNORE, initial=0)))
    if highest < 0:
        raise DataError(f"{root / 'labels'} holds no label map, wanted {', '.join(IMAGE_SUFFIXES)}")
    if highest == 0:
        raise DataError(
            f"{root / 'labels'} holds no label but 0 and {IGNORE}, which is ignored: of two classes the second is "
            "stored as 1; a data set of one class has a classes.txt"
        )
    return [f"class_{k}" for k in range(highest + 1)]


def _palette(root: Path, count: int) -> np.ndarray:
    path = root / "palette.txt"
    if not path.is_file():
        return voc_palette(count)
    lines = read_lines(path)
    if len(lines) != count:
        raise DataError(f"{path} has {len(lines)} colours, wanted {count}, one a class")
    try:
        colours = np.array([[int(v) for v in line.replace(",", " ").split()] for line in lines])
    except ValueError as error:
        raise DataError(f"{path}: {error}; wanted three numbers R G B a line") from error
    if colours.shape != (count, 3) or colours.min() < 0 or colours.max() > 255:
        raise DataError(f"{path} has other than three numbers in 0..255 in each line")
    return colours.astype(np.uint8)
