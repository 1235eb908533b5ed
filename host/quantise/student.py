"""The quantised student: a graph of DPU layers with power-of-two fake quantisers.

    student = Student(network, input_shape=(1, 28, 28), bits=Bits(weights=4, activations=4))
    calibrate(student, images)                 # host/quantise/calibrate.py
    logits = student(images)                   # train it like any module
    student.eval()                             # now it computes what the DPU will

Every activation belongs to a group with one fix point (quantisers.py). All
thresholds, of weights and of groups, are one vector `log2_t`.

While `norm_frozen` is False a training pass normalises with batch statistics
around the convolution with folded, quantised weights; frozen, and always in
evaluation, the norms are folded and the biases quantised as they are deployed.
Fake quantised numbers are integers times powers of two, so float32 computes the
integer result exactly as long as no sum passes 2^24; in evaluation, layers that
could pass it are computed in float64. So evaluation gives the very logits that
the DPU gives (host/quantise/to_xmodel.py says for which bit widths it is a DPU).
Autocast to fewer bits ends at the student's inputs.

Bits below 8 narrow the range within the DPU's int8; values behind a ReLU use
[0, 2^b - 1] then. At 8 bits the range is int8's own, [0, 127] behind a ReLU.
The DPU itself saturates at int8 only: narrower weights cost nothing there,
narrower activations need ops that clip (again host/quantise/to_xmodel.py).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.images.input_form import InputForm
from tutelage.core.text import counted
from tutelage.host.quantise.fake import quantise
from tutelage.host.quantise.fix_points import BIAS_RANGE, FixPoints, Settlement
from tutelage.host.quantise.forward import Forward
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.layers.convolution import Conv, Deployed
from tutelage.host.quantise.parameters import AllParameters
from tutelage.host.quantise.quantisers import Bits, Quantiser, place_quantisers
from tutelage.host.quantise.trace import trace
from tutelage.host.quantise.walker import InputShape, UnsupportedOp

log = logging.getLogger(__name__)

FARTHEST_EXPONENT = 32
"""Thresholds count as 2^-32 to 2^32, so that float32 holds whatever training makes of them."""

Observer = Callable[[str, Tensor], None]
"""Called with the name of a quantiser and each tensor that would be rounded by it."""

Tap = Callable[[str, Tensor], None]
"""Called with the name of a layer and its value, rounded."""


class Student(nn.Module):
    """A network of DPU layers with trained quantisers.

    Parameters
    ----------
    network : any nn.Module that trace() takes, trained in float
    input_shape : (C, H, W) of one image; a sequence of them for a network of several inputs
    bits : bit widths
    input_fix_point : fix point of 8-bit images, never trained: 7 for (v - 128) / 128,
        `tutelage.core.images.input_form.best_fix_point` for other forms. Images of b bits cover the
        same range with input_fix_point - (8 - b). None: calibrate() takes it from its images; 7
        until then
    replace : activations to exchange for what the DPU has, see trace()

    Attributes
    ----------
    widened : of the layers that came with a ReLU6, those that int8's limit clips instead
    log2_t : the logarithms of all thresholds, groups of activations first, then weights
    activation_of, weight_of : quantisers by layer
    norm_frozen : batch norms are folded by their running statistics in training too
    form : how pictures become its images, None where that is not known; no part of its state
    observer : called with what would be rounded; while it is set, nothing is rounded
    tap : called with the value of each layer, such as for distilling features
    real_steps : in training, steps are not rounded to powers of two: step = t / 2^m
    activation : what makes confidences of the logits, on the CPU: "softmax", or "sigmoid" where
        the network ends with one
    activations : what the network ends with, for each of its outputs: "softmax", "sigmoid" or ""
    replaced : what was exchanged for what: "silu=hardswish"
    inputs, outputs : names of the layers that are the network's, in its order

    Raises
    ------
    UnsupportedOp, ValueError : see trace()
    """

    widened: Tensor

    def __init__(
        self,
        network: nn.Module,
        input_shape: InputShape,
        bits: Bits | None = None,
        input_fix_point: int | None = None,
        replace: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.bits = bits or Bits()
        self.input_shape = input_shape
        self.input_is_given = input_fix_point is not None
        layers = trace(network, input_shape, replace)
        self.activations = layers.activations
        self.activation = next(filter(None, layers.activations), "softmax")
        self.replaced = layers.replaced
        self.layers = nn.ModuleDict(layers)
        self.inputs = tuple(name for name, layer in layers.items() if not layer.inputs)
        places = {place: name for name, layer in layers.items() for place in layer.output_places}
        self.outputs = tuple(places[place] for place in sorted(places))
        self.norm_frozen = False
        self.form: InputForm | None = None
        self.observer: Observer | None = None
        self.tap: Tap | None = None
        self.real_steps = False
        self.activation_of, self.weight_of = place_quantisers(layers, self.bits)
        self._settlement = Settlement(layers, self.activation_of, self.weight_of)
        self._last_use = _last_use(layers)
        self.all_parameters = AllParameters(self)
        self._clipped = [name for name, layer in layers.items() if layer.nonlinear == "RELU6"]
        if self._clipped:
            self.register_buffer("widened", torch.zeros(len(self._clipped), dtype=torch.bool))
        # A threshold of 1 everywhere until calibrate().
        self.log2_t = nn.Parameter(torch.zeros(len(self.quantisers)))
        self.set_input_fix_point(7 if input_fix_point is None else input_fix_point)
        self._fix_points: tuple[tuple[int, ...], FixPoints] | None = None

    # -- structure -------------------------------------------------------------------

    def layer(self, name: str) -> Layer:
        """Return a layer by its name."""
        layer = self.layers[name]
        assert isinstance(layer, Layer)
        return layer

    def convs(self) -> Iterator[tuple[str, Conv]]:
        """Yield the layers with weights, with their names."""
        for name, layer in self.layers.items():
            if isinstance(layer, Conv):
                yield name, layer

    @property
    def quantisers(self) -> list[Quantiser]:
        """All of them, in the order of `log2_t`."""
        return self._settlement.quantisers

    @property
    def images(self) -> Quantiser:
        """The first input's quantiser, whose fix point is given or measured and not trained."""
        return self.activation_of[self.inputs[0]]

    @property
    def input_quantisers(self) -> tuple[Quantiser, ...]:
        """Those of all inputs, without repetition where some are joined."""
        return tuple(dict.fromkeys(self.activation_of[name] for name in self.inputs))

    @property
    def output(self) -> str:
        """The layer with the network's one output.

        Raises
        ------
        UnsupportedOp : the network has several
        """
        if len(self.outputs) != 1:
            raise UnsupportedOp(
                f"the network has {len(self.outputs)} outputs ({', '.join(self.outputs)}): return "
                "the logits alone, or train it in a loop of your own"
            )
        return self.outputs[0]

    def has_fused_relu(self, layer: Layer) -> bool:
        """Return whether the clip at 0 of a layer's quantiser is its ReLU."""
        return layer.nonlinear == "RELU" and not self.activation_of[layer.name].signed

    def check_classifier(self) -> None:
        """Refuse a network that training and export have no use for.

        Raises
        ------
        UnsupportedOp : it has several inputs or outputs, or returns no logits
        """
        if len(self.inputs) != 1:
            raise UnsupportedOp(
                f"the network has {len(self.inputs)} inputs: give it one image, or train it in a "
                "loop of your own"
            )
        shape = self.layer(self.output).shape
        if len(shape) != 1 and shape[1:] != (1, 1):
            raise UnsupportedOp(
                f"the network returns a map {shape}: return logits (N, classes), or train it in a "
                "loop of your own"
            )

    # -- what training sets -----------------------------------------------------------

    @torch.no_grad()
    def set_input_fix_point(self, fix_point: int, quantiser: Quantiser | None = None) -> None:
        """Set the fix point of 8-bit images, and with it that of images of fewer bits.

        Parameters
        ----------
        quantiser : of one input; without it those of all inputs are set
        """
        for given in self.input_quantisers if quantiser is None else (quantiser,):
            lost = 8 - given.bits
            self.log2_t[given.index] = given.magnitude - (fix_point - lost)

    def widen(self, names: Collection[str]) -> None:
        """Let int8's limit clip these layers instead of a ReLU6 (RELU8, see nonlinear.py)."""
        self.widened.copy_(torch.tensor([name in names for name in self._clipped]))
        self._name_clips()

    def _name_clips(self) -> None:
        for name, widened in zip(self._clipped, self.widened.tolist(), strict=True):
            self.layer(name).nonlinear = "RELU8" if widened else "RELU6"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self._clipped:  # earlier versions had ReLU6 only
            state_dict.setdefault(f"{prefix}widened", torch.zeros_like(self.widened))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self._clipped:
            self._name_clips()

    def freeze_norms(self, frozen: bool) -> None:
        """Let batch norms use (and keep) their running statistics, as they are deployed."""
        self.norm_frozen = frozen

    def thresholds(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are logarithms of thresholds, by name."""
        return {"log2_t": self.log2_t}

    @torch.no_grad()
    def round_steps(self) -> None:
        """Set each threshold to the nearest power of two, half-way between two flips."""
        given = [quantiser.index for quantiser in self.input_quantisers]
        rounded = self.log2_t.round() - 0.5
        rounded[given] = self.log2_t[given]
        self.log2_t.copy_(rounded)

    # -- the pass ---------------------------------------------------------------------

    def points(self) -> FixPoints:
        """Return the fix points of a pass now: in training with real steps, fractional ones."""
        if not (self.training and self.real_steps):
            return self.fix_points()
        return self._settlement.unsettled(self.log2_t.tolist())

    def fix_points(self) -> FixPoints:
        """Return the thresholds' fix points, moved where the DPU's shifts demand it."""
        far = FARTHEST_EXPONENT
        ceilings = tuple(max(-far, min(math.ceil(t), far)) for t in self.log2_t.tolist())
        if self._fix_points is None or self._fix_points[0] != ceilings:
            points = self._settlement.settle(ceilings)
            before = self._fix_points[1].notes if self._fix_points else ()
            for note in points.notes:
                if note not in before:
                    log.info("%s", note)
            self._fix_points = ceilings, points
        return self._fix_points[1]

    def forward(self, *images: Tensor) -> Any:
        """Images [N, C, H, W] -> logits [N, classes] (of a map: [N, C, H, W]).

        A network of several inputs takes as many; one of several outputs returns them as a tuple,
        in the order in which they are in the network's dictionaries and tuples.

        Raises
        ------
        TypeError : another number of inputs, or pixels that are not normalised (uint8)
        ValueError : images of another size than the student was made for
        """
        self._check_inputs(images)
        device = images[0].device.type
        if torch.is_autocast_enabled(device):  # fewer bits than float32 do not hold the sums
            with torch.autocast(device, enabled=False):
                return self.forward(*(image.float() for image in images))
        forward = Forward(self)
        given = dict(zip(self.inputs, images, strict=True))
        values: dict[str, Tensor] = {}
        for name in self.layers:
            layer = self.layer(name)
            args = [values[source] for source in layer.inputs] or [given[name]]
            values[name] = forward.rounded_result(layer, layer.compute(forward, *args))
            if self.tap is not None:
                self.tap(name, values[name])
            for source in self._last_use.get(name, ()):
                del values[source]
        found = tuple(values[name] for name in self.outputs)
        return found[0] if len(found) == 1 else found

    def _check_inputs(self, images: tuple[Tensor, ...]) -> None:
        if len(images) != len(self.inputs):
            raise TypeError(
                f"the network takes {counted(len(self.inputs), 'input')}, not {len(images)}"
            )
        for image, name in zip(images, self.inputs, strict=True):
            wanted = self.layer(name).shape
            if not image.is_floating_point():
                raise TypeError(
                    f"images are {str(image.dtype).removeprefix('torch.')}: give float tensors, "
                    "normalised as the network's images were"
                )
            rows = image.shape[1:] if image.ndim != 3 else (image.shape[1], 1, image.shape[2])
            if rows != wanted:  # a sequence is a map of one row
                raise ValueError(
                    f"images are {_size(image.shape)} (NxCxHxW), this student was made for "
                    f"Nx{_size(wanted)}: resize them, or quantise the network for their size"
                )

    # -- what is deployed ------------------------------------------------------------------

    @torch.no_grad()
    def integers(self) -> dict[str, Deployed]:
        """Return the int8 weights, biases and fix points of every layer with weights."""
        points = self.fix_points()
        deployed: dict[str, Deployed] = {}
        for name, layer in self.convs():
            weight, bias = layer.folded()
            point = points.weights[name]
            bias_point = points.bias(layer, float(bias.abs().max()))
            deployed[name] = Deployed(
                weights=_int8(self.weight_of[name].quantise(weight, point), point),
                weights_fix_point=point,
                bias=_int8(quantise(bias, bias_point, *BIAS_RANGE), bias_point),
                bias_fix_point=bias_point,
            )
        return deployed


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _int8(values: Tensor, fix_point: int) -> Tensor:
    return (values * 2.0**fix_point).to(torch.int8)


def _last_use(layers: Mapping[str, Layer]) -> dict[str, list[str]]:
    """By layer: the values that nothing reads after it, so that they can go."""
    last = {source: name for name, layer in layers.items() for source in layer.inputs
            if not layers[source].output_places}  # fmt: skip
    freed: dict[str, list[str]] = {}
    for source, name in last.items():
        freed.setdefault(name, []).append(source)
    return freed
