"""The quantised student: a graph of DPU layers with power-of-two fake quantisers.

    student = Student(network, input_shape=(1, 28, 28), bits=Bits(weights=4, activations=4))
    calibrate(student, images)                 # host/quantise/calibrate.py
    logits = student(images)                   # train it like any module
    student.eval()                             # from now on it computes as the DPU will

Every activation belongs to a group with one fix point (quantisers.py). The
thresholds of all groups and weights are one vector, `log2_t`.

While `norm_frozen` is False, a training pass normalises with batch statistics
around convolutions with folded, quantised weights. If it is True, and always in
evaluation mode, the norms are folded and the biases quantised as deployed.
Fake-quantised numbers are integers times powers of two, so float32 computes the
integer result exactly if no sum exceeds 2^24; in evaluation mode, layers that
could exceed it are computed in float64. Thus the logits in evaluation mode equal
those of the DPU (for the bit widths given in host/quantise/to_xmodel.py). Within
a student, autocast to fewer bits is disabled.

With fewer than 8 bits the range is a part of the DPU's int8; after a ReLU it is
[0, 2^b - 1]. With 8 bits it is that of int8, and [0, 127] after a ReLU. The DPU
saturates at int8 only, so narrower weights cost no time, but narrower activations
need additional ops that clip (see host/quantise/to_xmodel.py).
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
"""Thresholds are limited to 2^-32 to 2^32, so that float32 can represent all values."""

Observer = Callable[[str, Tensor], None]
"""Called with the name of a quantiser and each tensor that would be rounded by it."""

Tap = Callable[[str, Tensor], None]
"""Called with the name of each layer and its rounded value."""


class Student(nn.Module):
    """A network of DPU layers with quantisers that can be trained.

    Parameters
    ----------
    network : any nn.Module that trace() supports, trained in float
    input_shape : (C, H, W) of one image; a sequence of them for a network with several inputs
    bits : bit widths; None: 8 everywhere
    input_fix_point : fix point of 8-bit images, which is not trained: 7 for (v - 128) / 128, that
        of `tutelage.core.images.input_form.best_fix_point` for other forms. Images of b bits cover
        the same range with input_fix_point - (8 - b). None: 7 until calibrate() chooses it
    replace : activations to replace by ones that the DPU has, see trace()

    Attributes
    ----------
    widened : bool for each layer that was traced with a ReLU6: whether int8's limit clips it
        instead (RELU8)
    log2_t : base-2 logarithms of all thresholds, groups of activations first, then weights
    activation_of, weight_of : layer name -> quantiser
    norm_frozen : whether batch norms are folded with their running statistics in training too
    form : how pictures become its images; None if not known; not part of the state_dict
    observer : called with the values to be rounded; while it is set, nothing is rounded
    tap : called with the value of each layer, for example to distil features
    real_steps : whether in training steps are t / 2^m, not rounded to powers of two
    activation : the function that the CPU applies to the logits for confidences: "sigmoid" if the
        network ends with one, else "softmax"
    activations : the function that each output ends with: "softmax", "sigmoid" or ""
    replaced : the replacements made, such as "silu=hardswish"
    inputs, outputs : names of the layers that are the network's inputs and outputs, in its order

    Raises
    ------
    UnsupportedOp, ValueError
        See trace().
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
        """All quantisers, in the order of `log2_t`."""
        return self._settlement.quantisers

    @property
    def images(self) -> Quantiser:
        """The quantiser of the first input; its fix point is given or calibrated, never trained."""
        return self.activation_of[self.inputs[0]]

    @property
    def input_quantisers(self) -> tuple[Quantiser, ...]:
        """The quantisers of all inputs, without duplicates if inputs share one."""
        return tuple(dict.fromkeys(self.activation_of[name] for name in self.inputs))

    @property
    def output(self) -> str:
        """Name of the layer that is the network's only output.

        Raises
        ------
        UnsupportedOp : the network has several outputs
        """
        if len(self.outputs) != 1:
            raise UnsupportedOp(
                f"the network has {len(self.outputs)} outputs ({', '.join(self.outputs)}); return "
                "the logits only, or train it in your own loop"
            )
        return self.outputs[0]

    def has_fused_relu(self, layer: Layer) -> bool:
        """Return whether the clip at 0 of a layer's quantiser is its ReLU."""
        return layer.nonlinear == "RELU" and not self.activation_of[layer.name].signed

    def check_classifier(self) -> None:
        """Check that the network is a classifier that can be trained and exported.

        Raises
        ------
        UnsupportedOp : it has several inputs or outputs, or does not return logits
        """
        if len(self.inputs) != 1:
            raise UnsupportedOp(
                f"the network has {len(self.inputs)} inputs; give it one image, or train it in "
                "your own loop"
            )
        shape = self.layer(self.output).shape
        if len(shape) != 1 and shape[1:] != (1, 1):
            raise UnsupportedOp(
                f"the network returns a map {shape}; return logits (N, classes), or train it in "
                "your own loop"
            )

    # -- what training sets -----------------------------------------------------------

    @torch.no_grad()
    def set_input_fix_point(self, fix_point: int, quantiser: Quantiser | None = None) -> None:
        """Set the fix point of 8-bit images, from which that of images of fewer bits follows.

        Parameters
        ----------
        fix_point : at 8 bits
        quantiser : of one input; None: all inputs are set
        """
        for given in self.input_quantisers if quantiser is None else (quantiser,):
            lost = 8 - given.bits
            self.log2_t[given.index] = given.magnitude - (fix_point - lost)

    def widen(self, names: Collection[str]) -> None:
        """Let the limit of int8 clip the named layers, not a ReLU6 (RELU8, see nonlinear.py).

        Other layers that were traced with a ReLU6 get it back.
        """
        self.widened.copy_(torch.tensor([name in names for name in self._clipped]))
        self._name_clips()

    def _name_clips(self) -> None:
        for name, widened in zip(self._clipped, self.widened.tolist(), strict=True):
            self.layer(name).nonlinear = "RELU8" if widened else "RELU6"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        if self._clipped:  # states saved by earlier versions do not have it
            state_dict.setdefault(f"{prefix}widened", torch.zeros_like(self.widened))
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self._clipped:
            self._name_clips()

    def freeze_norms(self, frozen: bool) -> None:
        """If `frozen`, use the batch norms' running statistics in training, without updates."""
        self.norm_frozen = frozen

    def thresholds(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are base-2 logarithms of thresholds, by name."""
        return {"log2_t": self.log2_t}

    @torch.no_grad()
    def round_steps(self) -> None:
        """Round each threshold to a power of two, with log2_t half-way between two integers."""
        self.log2_t.ceil_().sub_(self._middle())

    def _middle(self) -> Tensor:
        """Return the distance from log2_t to ceil(log2_t) when it is half-way between integers."""
        middle = torch.full_like(self.log2_t, 0.5)
        middle[[quantiser.index for quantiser in self.input_quantisers]] = 0  # integers already
        return middle

    # -- the pass ---------------------------------------------------------------------

    def points(self) -> FixPoints:
        """Return the fix points for a forward pass; fractional in training with `real_steps`."""
        if not (self.training and self.real_steps):
            return self.fix_points()
        # Steps that are rounded are 2^ceil(log2_t), on average half an octave above 2^log2_t.
        return self._settlement.unsettled((self.log2_t + self._middle()).tolist())

    def fix_points(self) -> FixPoints:
        """Return the fix points of the thresholds, moved where the DPU's shifts require it."""
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
        """Return the logits [N, classes] (or maps [N, C, H, W]) of images [N, C, H, W].

        A network with several inputs takes one tensor for each. With several outputs the result is
        a tuple, in the order of the network's own dictionaries and tuples.

        Raises
        ------
        TypeError
            The number of inputs is wrong, or images are not floating-point (such as uint8).
        ValueError
            Images have another size than the student was created for.
        """
        self._check_inputs(images)
        device = images[0].device.type
        if torch.is_autocast_enabled(device):  # the sums need float32
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
                    f"images are {str(image.dtype).removeprefix('torch.')}; pass float tensors, "
                    "normalised as in the network's training"
                )
            # A sequence counts as a map of one row.
            rows = image.shape[1:] if image.ndim != 3 else (image.shape[1], 1, image.shape[2])
            if rows != wanted:
                raise ValueError(
                    f"images are {_size(image.shape)} (NxCxHxW), but this student was made for "
                    f"Nx{_size(wanted)}; resize them, or quantise the network for their size"
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
    """Return layer name -> values that no later layer reads, which can be freed after it."""
    last = {source: name for name, layer in layers.items() for source in layer.inputs
            if not layers[source].output_places}  # fmt: skip
    freed: dict[str, list[str]] = {}
    for source, name in last.items():
        freed.setdefault(name, []).append(source)
    return freed
