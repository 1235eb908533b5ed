"""The quantisers of a student: bit widths, ranges, and groups of values that share a threshold.

Every activation belongs to a group with one fix point. A layer that only selects or moves values
puts its inputs and its output into one group; so does a concat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.layers.base import Layer, is_signed


@dataclass(frozen=True)
class Bits:
    """Bit widths of a student, each 2 to 8; `joined` may be 0.

    Attributes
    ----------
    weights, activations : of all layers but the first and the last
    first : of the first layer's weights, and of the images
    last : of the last layer's weights, input and output
    joined : of the inputs of a concat; 0: as `activations`. The DPU stores 8 bits of any
        activation, so fewer save nothing there

    Raises
    ------
    ValueError
        A bit width is not 2 to 8.
    """

    weights: int = 8
    activations: int = 8
    first: int = 8
    last: int = 8
    joined: int = 8

    def __post_init__(self) -> None:
        for name, bits in vars(self).items():
            if not 2 <= bits <= 8 and (name, bits) != ("joined", 0):
                raise ValueError(f"bits.{name} is {bits}; the DPU's int8 allows 2 to 8 bits")

    @property
    def label(self) -> str:
        """Text for a model's description: "W4A4", or "W4A4, joined 4"."""
        own, joined = f"W{self.weights}A{self.activations}", self.joined or self.activations
        return own if joined == 8 else f"{own}, joined {joined}"


@dataclass(frozen=True)
class Quantiser:
    """A threshold and the range of integers that it allows.

    Attributes
    ----------
    name : the first of its members, or "<layer>/weight"
    index : its position in `log2_t`
    bits, signed : the range of integers
    members : the layers whose outputs (or weights) it rounds
    """

    name: str
    index: int
    bits: int
    signed: bool
    members: tuple[str, ...]

    @property
    def magnitude(self) -> int:
        """Number of bits of the largest integer, which is 2^magnitude - 1."""
        return self.bits - 1 if self.signed or self.bits == 8 else self.bits

    @property
    def highest(self) -> int:
        return 2**self.magnitude - 1

    @property
    def lowest(self) -> int:
        return -(2**self.magnitude) if self.signed else 0

    def quantise(self, x: Tensor, fix_point: int) -> Tensor:
        return quantise(x, fix_point, self.lowest, self.highest)


Layers = Mapping[str, Layer]


def place_quantisers(
    layers: Layers, bits: Bits
) -> tuple[dict[str, Quantiser], dict[str, Quantiser]]:
    """Return layer name -> quantiser, for the activations and for the weights.

    Indices are given in the order of the layers, first to activations, then to weights.
    """
    groups = _groups(layers)
    first, last = _first_with_weights(layers), _last_with_weights(layers)
    activation_of: dict[str, Quantiser] = {}
    for index, members in enumerate(groups):
        signed = any(is_signed(layers, name) for name in members)
        width = _activation_bits(layers, members, last, bits)
        quantiser = Quantiser(members[0], index, width, signed, members)
        activation_of.update(dict.fromkeys(members, quantiser))
    weight_of: dict[str, Quantiser] = {}
    weighted = [name for name, layer in layers.items() if layer.has_weights]
    for index, name in enumerate(weighted, start=len(groups)):
        width = bits.last if name in last else bits.first if name in first else bits.weights
        weight_of[name] = Quantiser(f"{name}/weight", index, width, True, (name,))
    return activation_of, weight_of


def _activation_bits(layers: Layers, members: tuple[str, ...], last: set[str], bits: Bits) -> int:
    readers = {
        reader
        for reader, layer in layers.items()
        if reader not in members and any(name in members for name in layer.inputs)
    }
    if any(not layers[name].inputs for name in members):  # the images
        return bits.first
    if any(layers[name].needs_int8 for name in members):
        return 8
    if last & set(members) or (readers and readers <= last):
        return bits.last
    if bits.joined and any(layers[name].joins for name in members):
        return bits.joined
    return bits.activations


def _groups(layers: Layers) -> list[tuple[str, ...]]:
    """Return the groups of layers whose outputs share a fix point, in the order of the layers."""
    root = {name: name for name in layers}

    def find(name: str) -> str:
        while root[name] != name:
            name = root[name]
        return name

    for name, layer in layers.items():
        for source in layer.inputs if layer.ties_fix_points else ():
            root[find(name)] = find(source)
    groups: dict[str, list[str]] = {}
    for name in layers:
        groups.setdefault(find(name), []).append(name)
    return [tuple(members) for members in groups.values()]


def _first_with_weights(layers: Layers) -> set[str]:
    """Return the layers with weights that read the images, directly or through others without."""
    raw: set[str] = set()
    for name, layer in layers.items():
        if not layer.has_weights and set(layer.inputs) <= raw:
            raw.add(name)
    return {n for n, layer in layers.items() if layer.has_weights and set(layer.inputs) & raw}


def _last_with_weights(layers: Layers) -> set[str]:
    """Return the layers with weights whose result reaches an output through none with weights."""
    reached = {name for name, layer in layers.items() if layer.output_places}
    for name in reversed([*layers]):
        if name in reached and not layers[name].has_weights:
            reached |= set(layers[name].inputs)
    return {name for name in reached if layers[name].has_weights}
