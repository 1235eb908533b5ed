"""Replace operations by ones that the DPU has, at the user's request: `{"silu": "hardswish"}`."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import fx, nn

from tutelage.core.fixed_point import LEAKY_SLOPE, is_leaky_slope
from tutelage.core.text import counted
from tutelage.host.quantise.graph.copies import frozen
from tutelage.host.quantise.graph.graph import Graph
from tutelage.host.quantise.graph.passes.graph_pass import GraphPass

log = logging.getLogger(__name__)

Shape = tuple[int, ...]
_Make = Callable[[nn.Module, Shape, Shape], nn.Module | None]
"""Makes the replacement of a module, given the shapes before and after it; None: leave it."""

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "silu": nn.SiLU, "swish": nn.SiLU, "gelu": nn.GELU, "mish": nn.Mish, "elu": nn.ELU,
    "selu": nn.SELU, "celu": nn.CELU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh,
    "hardswish": nn.Hardswish, "hardsigmoid": nn.Hardsigmoid, "leakyrelu": nn.LeakyReLU,
    "prelu": nn.PReLU, "softplus": nn.Softplus,
}  # fmt: skip

_FOR_ACTIVATIONS: dict[str, _Make] = {
    "relu": lambda *_: nn.ReLU(),
    "relu6": lambda *_: nn.ReLU6(),
    "leakyrelu": lambda *_: nn.LeakyReLU(LEAKY_SLOPE),
    "hardswish": lambda *_: nn.Hardswish(),
    "hardsigmoid": lambda *_: nn.Hardsigmoid(),
}


def _counting_pool(pool: nn.Module, *_: Shape) -> nn.Module:
    assert isinstance(pool, nn.AvgPool2d)
    return nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)


def _zero_pad(pad: nn.Module, *_: Shape) -> nn.Module:
    assert isinstance(pad, nn.ReflectionPad2d | nn.ReplicationPad2d)
    return nn.ZeroPad2d(pad.padding)


def _nearest(given: nn.Module, before: Shape, after: Shape) -> nn.Module | None:
    assert isinstance(given, nn.Upsample)
    return nn.Upsample(after[2:], mode="nearest") if given.mode == "bilinear" else None


def _transposed(given: nn.Module, before: Shape, after: Shape) -> nn.Module | None:
    """Return the transposed convolution of a bilinear upsampling, which has a darker border.

    Its kernel is a triangle two input pixels wide (Long et al. 2015, arXiv:1411.4038).
    """
    assert isinstance(given, nn.Upsample)
    channels, *sizes = before[1:]
    if given.mode != "bilinear" or any(
        new % old for new, old in zip(after[2:], sizes, strict=True)
    ):
        return None
    down, across = (new // old for new, old in zip(after[2:], sizes, strict=True))
    rows, columns = (_triangle(step) for step in (down, across))
    new = nn.ConvTranspose2d(
        channels, channels, (len(rows), len(columns)), (down, across), (down // 2, across // 2),
        groups=channels, bias=False,
    )  # fmt: skip
    new.weight = frozen(torch.outer(rows, columns).expand(channels, 1, -1, -1))
    return new


def _triangle(step: int) -> torch.Tensor:
    """Return the weights of a pixel in its surroundings, with `step` output pixels for each."""
    size = 2 * step - step % 2
    return 1 - (torch.arange(size) - (size - 1) / 2).abs() / step


_OTHERS: dict[tuple[str, str], tuple[type[nn.Module], _Make]] = {
    ("avgpool_exclude_pad", "avgpool"): (nn.AvgPool2d, _counting_pool),
    ("reflectionpad", "zeropad"): (nn.ReflectionPad2d, _zero_pad),
    ("replicationpad", "zeropad"): (nn.ReplicationPad2d, _zero_pad),
    ("bilinear", "nearest"): (nn.Upsample, _nearest),
    ("bilinear", "transposed"): (nn.Upsample, _transposed),
}
"""(name, name of the replacement) -> the class to replace, and the function that makes it."""


def check_replacements(replace: Mapping[str, str]) -> None:
    """Check the names of replacements.

    Parameters
    ----------
    replace : name of an operation -> name of its replacement

    Raises
    ------
    ValueError
        A pair of names is not known.
    """
    for old, new in ((old, str(new)) for old, new in replace.items()):
        if (old, new) in _OTHERS or (old in _ACTIVATIONS and new in _FOR_ACTIVATIONS):
            continue
        others = ", ".join(f"{a}={b}" for a, b in _OTHERS)
        raise ValueError(
            f"replace {old}={new} is not known; replace one of {', '.join(_ACTIVATIONS)} by one of "
            f"{', '.join(_FOR_ACTIVATIONS)}, or use {others}"
        )


def _rewrite(graph: Graph, node: fx.Node) -> bool:
    module = graph.module_of(node)
    for old, new in graph.replacements.items():
        cls, make = _OTHERS.get((old, new)) or (_ACTIVATIONS[old], _FOR_ACTIVATIONS[new])
        exact = cls is not nn.Upsample  # PyTorch derives nn.UpsamplingBilinear2d from it
        fits = type(module) is cls if exact else isinstance(module, cls)
        if module is None or not fits or not _needs_it(module):
            continue
        made = make(module, graph.shape(graph.source(node)), graph.shape(node))
        same = type(made) is cls and not isinstance(made, nn.LeakyReLU | nn.AvgPool2d | nn.Upsample)
        if made is None or same:
            continue
        graph.replaced.append((str(node.target), old, new))
        graph.replace(node, made)
        return True
    return False


def _needs_it(module: nn.Module) -> bool:
    """Return whether the DPU lacks a module that would be replaced, given its arguments."""
    if isinstance(module, nn.LeakyReLU):
        return not is_leaky_slope(module.negative_slope)
    if isinstance(module, nn.AvgPool2d):
        return not module.count_include_pad and module.padding not in (0, (0, 0))
    return True


def report_replacements(replaced: list[tuple[str, str, str]]) -> None:
    """Log a warning for each kind of replacement made, since the network has to be fine-tuned."""
    for (old, new), count in Counter((old, new) for _, old, new in replaced).items():
        places = [place for place, *names in replaced if names == [old, new]]
        more = f" and {count - 5} more" if count > 5 else ""
        log.warning(
            "replaced %s by %s in %s (%s%s); fine-tune the student, since it computes another "
            "function than the trained network",
            old, new, counted(count, "place"), ", ".join(places[:5]), more,
        )  # fmt: skip


REPLACEMENTS = GraphPass("replacements", _rewrite)
