"""The .caffemodel reader: genuine files, files of every kind written here, damaged and hostile ones."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcnkern.weights import load
from fcnkern.weights.caffe import MAX_BLOBS, MAX_LAYERS, CaffeNetwork, read_caffemodel
from fcnkern.weights.protobuf import WireError
from tests.weights import _caffemodel as write

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3, 2, 2)).astype(np.float32)
BIAS = RNG.standard_normal(4).astype(np.float32)
MATRIX = RNG.standard_normal((1, 6)).astype(np.float32)


Read = Callable[[bytes], CaffeNetwork]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(content: bytes) -> CaffeNetwork:
        (tmp_path / "net.caffemodel").write_bytes(content)
        return read_caffemodel(tmp_path / "net.caffemodel")

    return read


# -------------------------------------------------------------------- genuine files


def prototxt_layers(path: Path) -> list[tuple[str, str, dict[str, int]]]:
    """(name, type, whole-number settings) of the layers of a prototxt, in order."""
    layers = []
    content = re.sub(r"#.*", "", path.read_text())
    for block in re.split(r"^layer\s*{", content, flags=re.M)[1:]:
        name, kind = (re.search(rf'\b{key}:\s*"([^"]+)"', block)[1] for key in ("name", "type"))
        layers.append(
            (name, kind, {key: int(value) for key, value in re.findall(r"(\w+):\s*(\d+)\s", block)})
        )
    return layers


def expected_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes that follow from a prototxt of a chain with branches at its end."""
    side = int(re.findall(r"input_dim:\s*(\d+)", path.read_text())[-1])
    channels, shapes, matrix = 3, {}, False
    for name, kind, numbers in prototxt_layers(path):
        if kind == "Pooling":
            side = -(-(side - numbers["kernel_size"]) // numbers["stride"]) + 1
        elif kind == "PReLU":
            shapes[f"{name}.weight"] = (channels,)
        elif kind in ("Convolution", "InnerProduct"):
            out, kernel = numbers["num_output"], numbers.get("kernel_size")
            inputs = channels if matrix or kernel else channels * side * side
            shapes[f"{name}.weight"] = (out, inputs, kernel, kernel) if kernel else (out, inputs)
            shapes[f"{name}.bias"] = (out,)
            if "-" not in name:  # conv6-1, conv6-2, ... are branches
                channels, matrix = out, kernel is None
                side = side - kernel + 1 if kernel else 1
    return shapes


# The landmarks' branch of the second network is trained, and left out of its prototxt for use.
TRAINED_ONLY = {"mtcnn_det2": {"conv5-3.weight": (10, 128), "conv5-3.bias": (10,)}}


@pytest.mark.parametrize("name", ["mtcnn_det1", "mtcnn_det2", "mtcnn_det3"])
def test_genuine_files_have_the_names_types_and_shapes_of_their_prototxt(shared: Path, name: str) -> None:
    folder = shared / "weights" / "caffemodel_samples"
    if not folder.is_dir():
        pytest.skip("needs shared/weights/caffemodel_samples")
    network = read_caffemodel(folder / f"{name}.caffemodel")
    wanted = expected_shapes(folder / f"{name}.prototxt")
    assert len(wanted) > 10
    shapes = {key: tuple(value.shape) for key, value in load(folder / f"{name}.caffemodel").items()}
    assert shapes == wanted | TRAINED_ONLY.get(name, {})
    types = {layer.name: layer.type for layer in network.layers}
    for layer, kind, _ in prototxt_layers(folder / f"{name}.prototxt"):
        if kind not in ("Softmax", "Dropout"):  # the test network differs from the trained one in these
            assert types[layer] == kind
    for key, value in network.state().items():
        assert value.dtype == torch.float32
        assert torch.isfinite(value).all()
        assert 1e-4 < value.abs().mean() < 10, key


# -------------------------------------------------------------------- files of every kind


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_both_shapes_both_widths(
    read: Read, version: int, dtype: type, old: bool, packed: bool
) -> None:
    blobs = [[write.blob(x.astype(dtype), old=old, packed=packed) for x in pair]
             for pair in ((WEIGHT, BIAS), (MATRIX, BIAS[:1]), (BIAS,))]  # fmt: skip
    if version == 1:
        kinds = (write.CONVOLUTION, write.INNER_PRODUCT, 77)
        layers = [write.v1(*layer) for layer in zip(("conv/a", "fc", "odd"), kinds, blobs, strict=True)]
        types = ("Convolution", "InnerProduct", "V1 type 77", "Dropout")
        layers.append(write.v1("drop", write.DROPOUT))
    else:
        types = ("Convolution", "InnerProduct", "PReLU", "Dropout")
        layers = [write.v2(*layer) for layer in zip(("conv/a", "fc", "odd"), types, blobs, strict=False)]
        layers.append(write.v2("drop", "Dropout"))
    network = read(write.network(*layers, name="größe"))
    assert network.name == "größe"
    assert tuple(layer.name for layer in network.layers) == ("conv/a", "fc", "odd", "drop")
    assert tuple(layer.type for layer in network.layers) == types
    wanted = {
        "conv/a.weight": WEIGHT,
        "conv/a.bias": BIAS,
        "fc.weight": MATRIX,
        "fc.bias": BIAS[:1],
        "odd.weight": BIAS,
    }
    state = network.state()
    assert list(state) == list(wanted)
    for key, value in wanted.items():
        torch.testing.assert_close(state[key], torch.from_numpy(value.astype(dtype)), rtol=0, atol=0)


def test_a_long_unpacked_blob_in_pieces_of_both_kinds(read: Read) -> None:
    values = RNG.standard_normal(150_000).astype(np.float32)
    pieces = [
        write.numbers(part, packed=index % 2 == 1)
        for index, part in enumerate(np.split(values, [7, 9, 140_000]))
    ]
    content = b"".join([write.integer(40, 7), *pieces[:2], write.shape((300, 500)), *pieces[2:]])
    state = read(write.network(write.v2("fc", "InnerProduct", [content]))).state()
    assert np.array_equal(state["fc.weight"].numpy(), values.reshape(300, 500))


def test_shapes_of_unusual_kinds(read: Read) -> None:
    scalar = write.numbers(BIAS[:1]) + write.message(7)
    without_any = write.numbers(BIAS[:1])
    split = (
        write.message(7, write.integer(1, 2)) + write.numbers(BIAS) + write.message(7, write.integer(1, 2))
    )
    double = write.blob(BIAS.astype(np.float64)) + write.numbers(BIAS[:2])
    state = read(write.network(write.v2("a", "Scale", [scalar, without_any, split, double]))).state()
    assert [tuple(value.shape) for value in state.values()] == [(), (), (2, 2), (4,)]
    assert list(state) == ["a.weight", "a.bias", "a.blob2", "a.blob3"]
    assert state["a.blob3"].dtype == torch.float64


def test_a_legacy_blob_with_axes_its_layer_does_not_have_keeps_them(read: Read) -> None:
    odd = write.blob(WEIGHT, old=True)
    state = read(write.network(write.v1("fc", write.INNER_PRODUCT, [odd, odd]))).state()
    assert state["fc.weight"].shape == state["fc.bias"].shape == WEIGHT.shape


def test_of_two_layers_with_one_name_and_of_two_names_the_last_counts(read: Read) -> None:
    first, second = (write.v2("a", "PReLU", [write.blob(BIAS * k)]) for k in (1, 2))
    renamed = write.message(100, write.text(1, "b"), write.text(1, "c"), write.message(7, write.blob(BIAS)))
    state = read(write.network(first, second, renamed)).state()
    assert np.array_equal(state["a.weight"].numpy(), BIAS * 2)
    assert set(state) == {"a.weight", "c.weight"}


# -------------------------------------------------------------------- damaged and hostile files


def small_files() -> dict[str, bytes]:
    pair = [write.blob(WEIGHT[:1, :1]), write.blob(BIAS[:1])]
    olds = [write.blob(WEIGHT[:1, :1], old=True, packed=False), write.blob(BIAS[:1], old=True)]
    return {
        "v2": write.network(write.v2("conv", "Convolution", pair), write.v2("relu", "ReLU")),
        "v1": write.network(write.v1("conv", write.CONVOLUTION, olds), write.v1("drop", write.DROPOUT)),
    }


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_file_cut_at_any_byte_is_an_error_or_the_layers_before_the_cut(read: Read, version: str) -> None:
    content = small_files()[version]
    whole = read(content)
    complete, places = 0, []
    for cut in range(len(content)):
        try:
            network = read(content[:cut])
        except WireError as error:
            places.append(str(error))
        else:
            complete += 1
            assert [layer.name for layer in network.layers] == [layer.name for layer in whole.layers[:1]]
            assert set(network.state()) == set(whole.state())
    assert [place for place in places if not re.match(r"byte \d+, \S", place)] == []
    assert complete == 1  # only the cut between the two layers cannot be noticed


LAYER = write.tag(100, 2)
CASES = {
    "empty": (b"", r"byte 0, network: no layers"),
    "text": (b'name: "net"\nlayer {\n}\n', r"byte 0, network, field \d+"),
    "a page": (b"<!DOCTYPE html>\n<html>", r"byte \d+, network, field 7: wire type 4"),
    "longer than the file": (
        LAYER + write.varint(2**40) + b"abc",
        r"byte 0, network, field 100: 1099511627776 bytes declared where 3 are left",
    ),
    "beyond its message": (
        write.message(100, write.tag(7, 2) + write.varint(9) + b"ab"),
        r"byte 3, layer\[0\], field 7: 9 bytes declared where 2 are left",
    ),
    "a number past the end": (
        write.message(100, write.message(7, write.tag(5, 5) + b"ab")),
        r"layer\[0\]\.blobs\[0\], field 5: 4 bytes declared where 2 are left",
    ),
    "field zero": (b"\x00\x01", r"byte 0, network, field 0: there is no such"),
    "a tag too large": (write.varint(2**33) + b"\x01", r"there is no such field number"),
    "a group": (b"\x0b\x0c", r"byte 0, network, field 1: wire type 3"),
    "an endless varint": (b"\x08" + b"\xff" * 11, r"byte 1, network, field 1: a varint of more than ten"),
    "a varint cut short": (b"\x08\xff\xff", r"byte 1, network, field 1: ends in a varint"),
    "a name of numbers": (write.integer(1, 5), r"byte 0, network\.name: wire type 0, expected 2"),
    "a name that is no text": (write.message(1, b"\xff\xfe"), r"byte 0, network\.name: not UTF-8"),
    "a name of a megabyte": (write.message(1, b"a" * 1_000_000), r"network\.name: a name of 1000000 bytes"),
    "a layer of numbers": (write.integer(100, 5), r"byte 0, layer\[0\]: wire type 0"),
    "a V1 type as text": (
        write.message(2, write.text(5, "x")),
        r"layers\[0\]\.type: wire type 2, expected 0",
    ),
    "V0": (write.message(2, write.message(1, write.text(1, "conv"))), r"byte 2, layers\[0\]: a V0 layer"),
}
BLOBS = {
    "too few numbers": (write.numbers(BIAS) + write.shape((5,)), r"shape \(5,\) of 5 numbers, but 4 are stored"),
    "too many numbers": (write.numbers(BIAS) + write.shape((3,)), r"shape \(3,\) of 3 numbers, but 4"),
    "no numbers": (write.shape((2**31 - 1, 2**31 - 1)), r"4611686014132420609 numbers, but 0 are stored"),
    "legacy sides alone": (write.integer(2, 3), r"shape \(0, 3, 0, 0\) of 0 numbers, but 0"),
    "nothing": (b"", r"shape \(\) of 1 numbers, but 0"),
    "a negative side": (write.shape((-1, -4)), r"\.shape: a side of -1, expected 1 to"),
    "a side of zero": (write.shape((0, 4)), r"\.shape: a side of 0"),
    "a side too large": (write.shape((2**31,)), r"\.shape: a side of 2147483648"),
    "a negative legacy side": (write.integer(2, -7), r"\.channels: a side of -7"),
    "many axes": (write.shape([1] * 33), r"\.shape: more than 32 axes"),
    "many axes in pieces": (write.shape([1]) * 40, r"\.shape: more than 32 axes"),
    "half a number": (write.message(5, b"abcde"), r"\.data: 5 bytes, not a multiple of 4"),
    "half a double": (write.message(8, b"abcde"), r"\.double_data: 5 bytes, not a multiple of 8"),
    "doubles as data": (write.tag(5, 1) + bytes(8), r"\.data: wire type 1, expected 5"),
    "a shape of numbers": (write.integer(7, 4), r"\.shape: wire type 0, expected 2"),
    "a side as text": (write.message(7, write.tag(1, 5) + bytes(4)), r"\.shape\.dim: wire type 5, expected 0 or 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_files_name_byte_and_field(read: Read, name: str) -> None:
    content, message = CASES[name]
    with pytest.raises(ValueError, match=message):
        read(content)


@pytest.mark.parametrize("name", BLOBS)
def test_bad_blobs_name_byte_and_field(read: Read, name: str) -> None:
    content, message = BLOBS[name]
    with pytest.raises(ValueError, match=r"^byte \d+, layer\[0\]\.blobs\[0\].*" + message):
        read(write.message(100, write.text(1, "a"), write.message(7, content)))


def test_absurd_counts_are_refused(read: Read) -> None:
    with pytest.raises(ValueError, match=rf"network: more than {MAX_LAYERS} layers"):
        read(write.message(100) * (MAX_LAYERS + 1))
    one = write.message(7, write.numbers(BIAS[:1]))
    with pytest.raises(ValueError, match=rf"more than {MAX_BLOBS} blobs"):
        read(write.message(100, one * (MAX_BLOBS + 1)))


@pytest.mark.parametrize("packed", [True, False])
def test_the_peak_of_memory_is_that_of_the_tensors(tmp_path: Path, packed: bool) -> None:
    path, count = tmp_path / "large.caffemodel", 1 << 21
    content = write.network(
        write.v2("fc", "PReLU", [write.blob(np.arange(count, dtype="f4"), packed=packed)])
    )
    path.write_bytes(content)
    bomb = tmp_path / "bomb.caffemodel"
    bomb.write_bytes(content[:100_000])
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="bytes declared where"):
            read_caffemodel(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1e6
        (value,) = read_caffemodel(path).layers[0].blobs
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert value[1_234_567] == 1_234_567
    assert peak < 4 * count + 2e6


# -------------------------------------------------------------------- anything at all


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "any.caffemodel"


def read_or_refuse(path: Path, content: bytes) -> None:
    """Either a network whose tensors are no larger than the file, or an error with an offset inside the file."""
    path.write_bytes(content)
    try:
        network = read_caffemodel(path)
    except WireError as error:
        message = str(error)
    else:
        message = ""
        assert network.layers
        stored = sum(blob.numel() * blob.element_size() for layer in network.layers for blob in layer.blobs)
        assert stored <= len(content)
    place = re.match(r"byte (\d+), \S", message)
    assert message == "" or (place is not None and int(place[1]) <= len(content)), message


@settings(max_examples=300, deadline=None)
@given(content=st.binary(max_size=200))
@example(content=b"\xa2\x06\x02\x3a\x00")
def test_any_bytes(scratch: Path, content: bytes) -> None:
    read_or_refuse(scratch, content)


@st.composite
def fields(draw: st.DrawFn, depth: int = 4) -> bytes:
    """Fields with numbers that mean something, nested as in a network, with values of any kind."""
    number = draw(st.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, 100]))
    kind = draw(st.sampled_from(["message", "integer", "bytes", "fixed32", "fixed64"]))
    if kind == "integer":
        return write.integer(number, draw(st.one_of(st.integers(0, 9), st.integers(-(2**63), 2**64 - 1))))
    if kind == "fixed32":
        return write.tag(number, 5) + draw(st.binary(min_size=4, max_size=4))
    if kind == "fixed64":
        return write.tag(number, 1) + draw(st.binary(min_size=8, max_size=8))
    if kind == "bytes" or depth == 0:
        return write.message(number, draw(st.binary(max_size=16)))
    return write.message(number, *draw(st.lists(fields(depth=depth - 1), max_size=5)))


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(fields(), max_size=5))
def test_any_fields(scratch: Path, parts: list[bytes]) -> None:
    read_or_refuse(scratch, b"".join(parts))


@settings(max_examples=300, deadline=None)
@given(
    version=st.sampled_from(["v1", "v2"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_any_damage(scratch: Path, version: str, edits: list[tuple[float, int]]) -> None:
    content = bytearray(small_files()[version])
    for where, byte in edits:
        content[int(where * len(content))] = byte
    read_or_refuse(scratch, bytes(content))
