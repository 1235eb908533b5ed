"""The networks: their sizes, names and shapes, and that the student of each computes the same."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.errors import WRONG_USE

torch = pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")

from torch import Tensor, nn  # noqa: E402

from tutelage.host.networks import PRESETS, NetworkError, create, create_with  # noqa: E402
from tutelage.host.networks.densenet import STEMS, DenseNet  # noqa: E402
from tutelage.host.networks.mobilenet import PAPER, MobileNetV2  # noqa: E402
from tutelage.host.networks.resnet import ResNet  # noqa: E402
from tutelage.host.quantise.layers.concat import Concat  # noqa: E402
from tutelage.host.quantise.layers.convolution import Conv  # noqa: E402
from tutelage.host.quantise.layers.pooling import MaxPool  # noqa: E402
from tutelage.host.quantise.student import Student  # noqa: E402

SMALL: dict[str, Any] = dict(growth_rate=4, block_config=(2, 2), in_channels=1)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _seasoned(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Give norms nontrivial values: statistics of random images, random gains and offsets."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(4):
            network.train()(torch.randn(32, *shape))
    return network.eval()


def _dense_parameters(growth: int, depths: tuple[int, ...], kernel: int, images: int) -> int:
    """Weights of a DenseNet-BC in the paper's order, counted by its own definition."""
    channels = 2 * growth
    total = images * channels * kernel**2 + 2 * channels
    for index, depth in enumerate(depths):
        for _ in range(depth):
            total += 2 * channels + channels * 4 * growth  # norm, 1x1
            total += 2 * 4 * growth + 4 * growth * growth * 9  # norm, 3x3
            channels += growth
        if index < len(depths) - 1:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + channels * 10 + 10


def test_densenet_has_the_papers_parameters() -> None:
    """0.8 million at k = 12 and depth 100 (the paper's table 2)."""
    paper = DenseNet(growth_rate=12, block_config=(16, 16, 16), order="pre")
    assert _parameters(paper) == _dense_parameters(12, (16, 16, 16), 3, 3) == 769_210
    large = create("densenet-121", order="pre", init_features=64, num_classes=1000)
    assert _parameters(large) == 7_978_856  # torchvision's figure


def test_densenetx_has_three_blocks_of_sixteen() -> None:
    network = create("densenetx")
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 1 + 3 * 16 * 2 + 2  # depth 100 with the classifier

    # It differs from the paper's order only by the sizes of the norms.
    def kernels(of: nn.Module) -> int:
        return sum(p.numel() for p in of.parameters() if p.ndim > 1)

    assert kernels(network) == kernels(DenseNet(12, (16, 16, 16), order="pre"))


@pytest.mark.parametrize("order", ["pre", "post"])
def test_densenet_tensors_have_torchvisions_names(order: str) -> None:
    names = set(create("densenet-tiny", order=order).state_dict())
    layer = "features.denseblock1.denselayer1"
    assert {
        "features.conv0.weight", "features.norm0.running_var",
        f"{layer}.norm1.weight", f"{layer}.conv1.weight", f"{layer}.norm2.bias",
        f"{layer}.conv2.weight", "features.denseblock2.denselayer2.conv2.weight",
        "features.transition1.norm.weight", "features.transition1.conv.weight",
        "classifier.weight", "classifier.bias",
    } <= names  # fmt: skip
    assert ("features.norm5.weight" in names) == (order == "pre")


def test_pre_activation_densenet_takes_torchvisions_tensors() -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    theirs = torchvision.models.densenet121(num_classes=10).state_dict()
    ours = create("densenet-121", order="pre").state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


@pytest.mark.parametrize(
    ("name", "size", "last_map"),
    [
        ("densenet", 28, 7), ("densenet-tiny", 28, 3), ("densenet-small", 28, 3),
        ("densenet-small", 32, 4), ("densenet-121", 224, 7), ("densenet-wide", 32, 4),
        ("resnet-8", 28, 7), ("resnet-20", 32, 8), ("mobilenet-small", 28, 4),
        ("mobilenet-v2", 64, 2),
    ],
)  # fmt: skip
def test_shapes(name: str, size: int, last_map: int) -> None:
    network = create(name, in_channels=1, num_classes=7).eval()
    maps: list[Tensor] = []
    pool = network.get_submodule("pool")
    pool.register_forward_hook(lambda module, inputs, output: maps.append(inputs[0]))
    with torch.no_grad():
        assert network(torch.zeros(2, 1, size, size)).shape == (2, 7)
    assert maps[0].shape[2:] == (last_map, last_map)


def test_every_small_preset_can_be_a_student() -> None:
    with torch.device("meta"):
        names = [name for name in PRESETS if _parameters(create(name)) < 3_000_000]
    assert len(names) == 9  # not DenseNet-121, -169 and -201, which take long
    for name in names:
        size = 28 if name != "mobilenet-v2" else 64
        student = Student(create(name), (3, size, size))
        assert not any(isinstance(module, nn.Dropout) for module in student.modules())


@pytest.mark.parametrize("stem", STEMS)
def test_stems(stem: str) -> None:
    student = Student(DenseNet(stem=stem, **SMALL), (1, 32, 32))
    convs = [layer for _, layer in student.convs()]
    kernel, stride, pool = STEMS[stem]
    assert convs[0].kernel == (kernel, kernel) and convs[0].stride == (stride, stride)
    pools = [layer for layer in student.layers.values() if isinstance(layer, MaxPool)]
    assert len(pools) == pool


def test_compression_bottleneck_and_features() -> None:
    network = DenseNet(6, (3, 3), compression=0.25, bottleneck=2, init_features=10, in_channels=1)
    state = network.state_dict()
    assert state["features.denseblock1.denselayer3.conv1.weight"].shape == (12, 22, 1, 1)
    assert state["features.transition1.conv.weight"].shape == (7, 28, 1, 1)
    assert state["classifier.weight"].shape == (10, 7 + 18)


CHECKED: list[tuple[str, dict[str, Any]]] = [
    ("densenet-small", dict(order="post")),
    ("densenet-small", dict(order="pre", dropout=0.2)),
    ("resnet-8", {}),
    ("mobilenet-small", {}),
]


@pytest.mark.parametrize(("name", "options"), CHECKED)
def test_a_student_without_rounding_is_its_network(name: str, options: dict[str, Any]) -> None:
    """Evaluation, and training with frozen norms, only fold the norms.

    The last maps are 4x4 or 8x8, whose reciprocals are exact on the DPU.
    """
    torch.manual_seed(3)
    network = _seasoned(create(name, in_channels=1, **options), (1, 32, 32))
    images = torch.randn(16, 1, 32, 32)
    student = Student(network, (1, 32, 32))
    student.observer = lambda quantiser, values: None
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(student.eval()(images), expected, rtol=1e-3, atol=1e-4)
        student.train()
        student.norm_frozen = True
        torch.testing.assert_close(student(images), expected, rtol=1e-3, atol=1e-4)


def test_a_student_in_training_normalises_as_its_network() -> None:
    """Without rounding, logits from batch statistics and the new running statistics are equal."""
    torch.manual_seed(4)
    network = _seasoned(create("densenet-small", in_channels=1), (1, 32, 32))
    student = Student(network, (1, 32, 32)).train()
    student.observer = lambda quantiser, values: None
    images = torch.randn(16, 1, 32, 32)
    with torch.no_grad():
        logits = network.train()(images)
        torch.testing.assert_close(student(images), logits, rtol=1e-3, atol=1e-4)
        network.eval()
        torch.testing.assert_close(student.eval()(images), network(images), rtol=1e-3, atol=1e-3)


def test_pre_activation_norms_become_depthwise(caplog: pytest.LogCaptureFixture) -> None:
    network = create("densenet-small", in_channels=1, order="pre")
    with caplog.at_level(logging.WARNING):
        student = Student(network, (1, 28, 28))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    lonely = [name for name, layer in student.convs() if layer.depthwise]
    # One for each dense layer, transition and the last block; the inner ones fold.
    assert len(warnings) == len(lonely) == 9 + 2 + 1
    assert warnings[0].startswith("features.denseblock1.denselayer1.norm1 (File ")
    assert "no convolution before this batch norm" in warnings[0]
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        post = Student(create("densenet-small", in_channels=1), (1, 28, 28))
    assert not caplog.records and not any(layer.depthwise for _, layer in post.convs())


def test_post_activation_is_cheaper_than_pre() -> None:
    """Convolutions, concats and pools only, and fewer of them."""
    pre, post = (
        Student(create("densenet-small", in_channels=1, order=o), (1, 28, 28))
        for o in ("pre", "post")
    )
    assert len(post.layers) < len(pre.layers)
    assert len([x for x in post.layers.values() if isinstance(x, Conv)]) == 1 + 9 * 2 + 2 + 1


def test_dropout_is_for_training_only() -> None:
    torch.manual_seed(0)
    network = DenseNet(dropout=0.5, **SMALL)
    images = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        assert not torch.equal(network.train()(images), network(images))
        assert torch.equal(network.eval()(images), network(images))
    student = Student(network.train(), (1, 28, 28))
    assert len([x for x in student.layers.values() if isinstance(x, Concat)]) == 4


def test_mobilenet_is_the_papers() -> None:
    assert _parameters(MobileNetV2(num_classes=1000)) == 3_504_872  # torchvision's figure
    assert len(PAPER) == 7
    assert _parameters(MobileNetV2(width=0.5)) < _parameters(MobileNetV2()) / 2


def test_resnet_20_is_the_papers() -> None:
    """0.27 million; 1x1 shortcuts where the shape changes."""
    assert 270_000 < _parameters(ResNet()) < 275_000


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("densnet", {}, "did you mean 'densenet'"),
        ("x", {}, "the presets are densenet"),
        ("densenet", dict(stem="huge"), "stem 'huge' is not one of small"),
        ("densenet", dict(order="mixed"), "order 'mixed' is neither"),
        ("resnet-8", dict(growth_rate=3), "growth_rate"),
        ("no.such.module:f", {}, "cannot be imported"),
        (
            "tutelage.host.networks.resnet:NoNet",
            {},
            "tutelage.host.networks.resnet has no function 'NoNet'",
        ),
        ("no/such/net.py:make", {}, "no/such/net.py: no such file"),
        ("tests/conftest.py:make", {}, "tests/conftest.py has no function 'make'"),
        ("README.md:make", {}, "cannot be imported"),
    ],
)
def test_names_and_options_that_are_wrong(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(NetworkError, match=text) as caught:
        create(name, **options)
    assert caught.value.status == WRONG_USE and isinstance(caught.value, ValueError)


def test_a_users_function_by_name() -> None:
    network = create("tutelage.host.networks.resnet:ResNet", depths=(1,), widths=(8,))
    assert isinstance(network, ResNet)


NET = """\
from dataclasses import dataclass
from torch import nn
from beside import WIDTH

@dataclass
class Spec:
    width: int = WIDTH

def make(num_classes=10, in_channels=3, width=Spec().width):
    layers = [nn.Conv2d(in_channels, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
"""


@pytest.mark.parametrize("relative", [True, False])
def test_a_function_of_a_users_file(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my: nets"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "beside.py").write_text("WIDTH = 6\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    monkeypatch.chdir(folder.parent)
    place = "my: nets/net.py" if relative else folder / "net.py"
    network = create(f"{place}:make", num_classes=4, in_channels=1)
    assert isinstance(network, nn.Sequential)
    assert network[0].weight.shape == (6, 1, 3, 3) and network[-1].out_features == 4
    assert type(create(f"{place}:Spec")) is type(create(f"{place}:Spec"))  # run once
    with pytest.raises(NetworkError, match=r"make.*unexpected keyword argument 'depth'"):
        create(f"{place}:make", depth=3)
    with pytest.raises(NetworkError, match=r"net.py has no function 'mak'"):
        create(f"{place}:mak")


OWN = """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self, channels=3, classes=4):
        super().__init__(nn.Conv2d(channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, classes))

def plain(): return Net()
def named(num_classes=4): return Net(3, num_classes)
def both(in_channels, num_classes): return Net(in_channels, num_classes)
def anything(**options): return Net(options.get("in_channels", 3), options.get("num_classes", 4))
def passed_on(*, weights=None, **kwargs): return _strict(**kwargs)
def _strict(num_classes=4): return Net(3, num_classes)
def nothing(): pass
def fails(): raise RuntimeError("no\\ngood")
"""


@pytest.mark.parametrize(
    "function, channels, classes",
    [
        ("plain", 3, 4), ("Net", 3, 4), ("named", 3, 7), ("both", 1, 7), ("anything", 1, 7),
        ("passed_on", 3, 7),
    ],
)  # fmt: skip
def test_a_function_gets_its_parameters(
    function: str, channels: int, classes: int, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    offered = {"in_channels": 1, "num_classes": 7}
    network: Any = create_with(f"{tmp_path / 'own.py'}:{function}", {}, offered)
    assert (network[0].in_channels, network[-1].out_features) == (channels, classes)


def test_errors_of_a_functions_own_code(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    for function, options, words in (
        ("fails", {}, "RuntimeError: no good"),
        ("passed_on", {"depth": 3}, "unexpected keyword argument 'depth'"),
        ("both", {"in_channels": 2}, "missing 1 required positional argument: 'num_classes'"),
    ):
        with pytest.raises(NetworkError, match=words):
            create(f"{tmp_path / 'own.py'}:{function}", **options)


@pytest.mark.parametrize(
    "text, words",
    [
        ("def make(:\n", r"SyntaxError: invalid syntax \(wrong.py, line 1\)"),
        ("import no_such_module_at_all\n", "No module named 'no_such_module_at_all'"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
    ],
)
def test_a_users_file_that_fails(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(text)
    for _ in range(2):
        with pytest.raises(NetworkError, match=rf"wrong.py:make' cannot be imported: .*{words}"):
            create(f"{tmp_path / 'wrong.py'}:make")


def test_a_transition_that_keeps_no_channel_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"compression 0\.4 keeps none of 2 channels"):
        create("densenet", growth_rate=1, block_config=(1, 1), compression=0.4, init_features=1)
