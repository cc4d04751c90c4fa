"""Every head on every body: the paper's counts, the same numbers as Caffe's layers one by one, any size, training."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as T

from fcnkern.data import open_dataset, preset
from fcnkern.models import FCN, CaffeNet, GoogLeNet, create, list_models
from fcnkern.models.layers import CaffeLRN
from fcnkern.models.registry import ALIASES
from tests.models import _caffe

HEADS = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}
BODIES = ("vgg16", "caffenet", "alexnet", "googlenet")
SMALL = 1 / 32
names = pytest.mark.parametrize("name", [f"{head}_{body}" for body in BODIES for head in HEADS])


def small(name: str, classes: int = 3, **arguments: str) -> FCN:
    torch.manual_seed(0)
    return create(name, classes, width=SMALL, **arguments)


@pytest.mark.parametrize(
    ("name", "parameters", "paper"),
    [
        ("fcn32s_vgg16", 134_346_581, "134M"),
        ("fcn32s_caffenet", 56_954_261, "57M"),
        ("fcn32s_googlenet", 5_995_077, "6M"),
        ("fcn32s_alexnet", 57_003_840 + 4096 * 21 + 21, "57M"),
    ],
)
def test_parameters_are_those_of_the_papers_table(name: str, parameters: int, paper: str) -> None:
    with torch.device("meta"):
        model = create(name)
    count = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert count == parameters
    assert f"{count / 1e6:.0f}M" == paper


def test_caffenet_has_caffes_names_and_shapes() -> None:
    with torch.device("meta"):
        state = CaffeNet().state_dict()
    shapes = {name.removesuffix(".weight"): tuple(v.shape) for name, v in state.items() if v.dim() > 1}
    assert shapes == {
        "conv1": (96, 3, 11, 11),
        "conv2": (256, 48, 5, 5),
        "conv3": (384, 256, 3, 3),
        "conv4": (384, 192, 3, 3),
        "conv5": (256, 192, 3, 3),
        "fc6": (4096, 256, 6, 6),
        "fc7": (4096, 4096, 1, 1),
    }


@pytest.mark.parametrize("size", [(31, 31), (95, 64), (130, 97)])
@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("body", ["caffenet", "alexnet", "googlenet"])
def test_forward_equals_caffes_layers_one_by_one(body: str, taps: int, size: tuple[int, int]) -> None:
    head = next(name for name, count in HEADS.items() if count == taps)
    model = small(f"{head}_{body}").eval()
    _caffe.randomize(model)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, plain = model(x), _caffe.forward(body, taps, model.state_dict(), x)
    assert ours.shape == plain.shape == (2, 3, *size)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5 * plain.abs().max().item())


@names
@pytest.mark.parametrize("size", [(1, 1), (7, 61)])
def test_any_size_gives_loss_gradients_and_labels(name: str, size: tuple[int, int]) -> None:
    model = small(name)
    _caffe.randomize(model)
    x, labels = torch.randn(1, 3, *size), torch.randint(0, 3, (1, *size))
    loss = model.loss(x, labels)
    loss.backward()
    reached = {n for n, p in model.named_parameters() if p.requires_grad and p.grad.abs().max() > 0}
    assert reached >= {f"{layer}.weight" for layer, _ in model.named_children() if layer.startswith("score_")}
    if size != (1, 1):
        assert next(name for name, _ in model.named_parameters()) in reached  # the first layer of the body
    model.eval()
    logits = model(x)
    torch.testing.assert_close(model.loss(x, labels), T.cross_entropy(logits, labels), rtol=1e-4, atol=1e-5)
    prediction = model.predict(x)
    assert prediction.shape == (1, *size)
    assert (prediction == logits.argmax(1)).float().mean() > 0.98


@names
def test_a_few_steps_lower_the_loss_on_a_scene(name: str) -> None:
    scene = open_dataset("scenes:count=1,size=40x56", "train")[0]
    model = small(name, len(open_dataset("scenes:count=1", "train").classes))
    model.set_dropout(0.0)
    image = preset("torchvision")(scene.image)[None]
    labels = torch.from_numpy(scene.label)[None]
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 0.02, momentum=0.9)
    first = model.loss(image, labels).item()
    assert first == pytest.approx(np.log(model.n_class), rel=1e-5)
    for _ in range(24):
        optimizer.zero_grad()
        loss = model.loss(image, labels)
        if loss.item() < 0.8 * first:
            return
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    pytest.fail(f"the loss went from {first} to {loss.item()} only")


@names
def test_state_copies_and_pickles_give_the_same_network(name: str) -> None:
    model = small(name).eval()
    _caffe.randomize(model)
    other = create(name, 3, width=SMALL).eval()
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        expected = model(x)
        for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), expected)


@pytest.mark.parametrize("body", BODIES)
def test_the_finer_network_starts_with_the_coarser_ones_predictions(body: str) -> None:
    coarse = small(f"fcn32s_{body}").eval()
    _caffe.randomize(coarse)
    x = torch.randn(1, 3, 100, 130, generator=torch.Generator().manual_seed(2))
    for head in ("fcn16s", "fcn8s"):
        fine = small(f"{head}_{body}").eval()
        report = fine.copy_params_from(coarse)
        finest = f"score_{fine.taps[0]}"
        assert set(report.kept) >= {finest, fine.final_layer}
        with torch.no_grad():
            expected, found = coarse.scores(x)[0], fine.scores(x)[0]
            upsampled = T.conv_transpose2d(
                expected, fine.get_parameter(f"{fine._step_layers[-1]}.weight"), stride=2
            )
            height, width = found.shape[2:]
            torch.testing.assert_close(found, upsampled[:, :, :height, :width], rtol=1e-5, atol=1e-5)
            expected, found = coarse(x), fine(x)
        assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.9
        if body != "vgg16":  # bilinear in two steps is bilinear where samples lie on pixels: odd kernels
            inner = slice(0, 60), slice(0, 90)  # beyond, a sum cropped at its end fades out earlier
            torch.testing.assert_close(found[0, 0][inner], expected[0, 0][inner], rtol=1e-5, atol=1e-4)
        _caffe.randomize(fine, seed=3)
        coarse = fine


def test_a_network_on_another_body_is_no_start() -> None:
    with pytest.raises(ValueError, match=r"FCN: .*; missing: body\.conv1\.7x7_s2\.weight, "):
        small("fcn16s_googlenet").copy_params_from(small("fcn32s_caffenet"))
    with pytest.raises(
        ValueError, match=r"FCN: .*; missing: score_pool2\.weight, score_pool2\.bias, upscore2\.weight; "
    ):
        small("fcn8s_caffenet").copy_params_from(small("fcn32s_caffenet"))


def test_learned_odd_upsampling_starts_as_the_fixed_one_and_learns() -> None:
    fixed, learned = small("fcn8s_caffenet").eval(), small("fcn8s_caffenet", upsampling="learned").eval()
    _caffe.randomize(fixed)
    learned.load_state_dict(fixed.state_dict())
    x, labels = torch.randn(1, 3, 20, 24), torch.randint(0, 3, (1, 20, 24))
    torch.testing.assert_close(learned(x), fixed(x), rtol=1e-5, atol=1e-5)
    loss = learned.loss(x, labels)
    torch.testing.assert_close(loss, fixed.loss(x, labels), rtol=1e-5, atol=1e-6)
    loss.backward()
    assert learned.upscore8.weight.grad.abs().max() > 0
    assert learned.upscore2.weight.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 4, 11])
def test_lrn_is_caffes(channels: int, dtype: torch.dtype) -> None:
    x = (30 * torch.randn(2, channels, 3, 5, generator=torch.Generator().manual_seed(0))).to(dtype)
    ours = CaffeLRN()(x)
    assert ours.dtype == dtype
    tolerance = {torch.float64: 1e-14, torch.float32: 5e-7, torch.bfloat16: 4e-3}[dtype]
    torch.testing.assert_close(ours.double(), _caffe.norm(x.double()), rtol=tolerance, atol=0)


def test_gradient_of_lrn() -> None:
    x = 30 * torch.randn(1, 7, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(CaffeLRN(), x.requires_grad_())


def test_the_body_says_how_images_are_prepared() -> None:
    assert [small(f"fcn32s_{body}").preprocess for body in BODIES] == [
        "torchvision",
        "caffe",
        "torchvision",
        "bvlc",
    ]
    model = small("fcn32s_googlenet")
    model.preprocess = "torchvision"
    assert model.body.preprocess == model.preprocess == "torchvision"
    assert GoogLeNet(SMALL).preprocess == "bvlc"


def test_names() -> None:
    assert set(list_models()) >= {f"{head}_{body}" for head in HEADS for body in BODIES}
    assert {name: f"{name}_vgg16" for name in ("fcn32s", "fcn16s", "fcn8s", "fcn8s-atonce")} == ALIASES
    assert type(create("fcn8s", width=SMALL)) is type(create("fcn8s_vgg16", width=SMALL))
    with pytest.raises(ValueError, match=r"network 'fcn4s_vgg16' is unknown, wanted one of fcn32s_vgg16, "):
        create("fcn4s_vgg16")


def test_googlenet_reproduces_caffes_activations(shared: object) -> None:
    """Weights under Caffe's names with "/" replaced by "."; the stored blobs hold every eighth channel or all."""
    weights = np.load(f"{shared}/weights/bvlc_googlenet_imagenet.npz")
    blobs = np.load(f"{shared}/weights/googlenet_caffe_activations.npz")
    body = GoogLeNet().eval()
    state = {name.replace("/", "."): torch.from_numpy(weights[name]) for name in weights.files}
    body.load_state_dict({name: value for name, value in state.items() if "loss3" not in name}, strict=True)
    found: dict[str, torch.Tensor] = {}
    for name, module in body.named_modules():
        module.register_forward_hook(lambda _m, _x, out, name=name: found.__setitem__(name, out))
    with torch.no_grad():
        body(torch.from_numpy(blobs["data"]))
    compared = [name for name in blobs.files if name not in ("data", "prob")]
    assert len(compared) == 10
    for name in compared:
        ours = found[name.removesuffix("/output").replace("/", ".")].relu().numpy()
        theirs = blobs[name]
        step = ours.shape[1] // theirs.shape[1]
        assert np.abs(ours[:, ::step] - theirs).max() < 2e-5 * np.abs(theirs).max(), name
