"""A student's graph as a Brevitas model for quantisation-aware training.

Brevitas (AMD, https://github.com/Xilinx/brevitas, BSD-3) 0.13 with power-of-two scales:

- weights: `Int8WeightPerTensorFixedPoint` at the layer's bits b, with the scale
  2^ceil(log2 max|w|) / 2^(b-1) recomputed in each pass ("backpropagated statistics");
- activations: `Uint8ActPerTensorFixedPoint` after a ReLU, else `Int8ActPerTensorFixedPoint`, with
  a learned log2 threshold that starts from the 99.999th percentile of the first passes;
- biases of layers without a norm: `Int8BiasPerTensorFixedPointInternalScaling`, 8 bits;
- images: a constant scale, as in Brevitas' `bnn_pynq/models/CNV.py` ("for Q1.7 input format").

All are standard quantisers of `brevitas/quant/fixed_point.py` with the defaults of `quant/base.py`.
Of Brevitas 0.13's own QAT examples, only CNV has a power-of-two scale, at its input.

The graph, the groups that share a threshold and the bit widths come from `Student`, so both round
the same values to the same number of levels. Brevitas differs in these respects: batch norms stay
in float and are not folded, so weights are rounded before their norm, and shifts need not be legal
for the DPU; weights have a narrow range (-7 to 7 at 4 bits); their scales are not learned; and
halves are rounded to even.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.host.quantise.layers.convolution import Conv
from tutelage.host.quantise.nonlinear import apply_nonlinear
from tutelage.host.quantise.quantisers import Bits, Quantiser
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.walker import UnsupportedOp

COLLECT_STEPS = 300  # Brevitas' default (quant/base.py, ParamFromRuntimePercentileScaling)


def brevitas_student(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    weight_bits: int,
    activation_bits: int,
    first_bits: int = 8,
    last_bits: int = 8,
    collect_steps: int = COLLECT_STEPS,
    input_fix_point: int = 7,
    replace: Mapping[str, str] | None = None,
    joined_bits: int = 8,
) -> nn.Module:
    """Return the Brevitas model of a network trained in float, for images [N, *input_shape].

    Weights and norms are copied; the network is not changed.

    Parameters
    ----------
    network : the float network
    input_shape : (C, H, W) of one image
    weight_bits, activation_bits : 2 to 8, for all layers but the first and the last
    first_bits : bits of the first layer's weights and of the images
    last_bits : bits of the last layer's weights, input and output
    joined_bits : bits of the inputs of a concat; 0: activation_bits
    collect_steps : training passes after which the activations' scales become parameters;
        before that each pass uses its own statistics, not rounded to powers of two
    input_fix_point : of 8-bit images; 7 for images in [-1, 1)
    replace : see tutelage.host.quantise.trace.trace

    Raises
    ------
    ImportError : Brevitas is not installed
    UnsupportedOp : see tutelage.host.quantise.trace.trace
    ValueError : a bit width is not 2 to 8
    """
    bits = Bits(weight_bits, activation_bits, first_bits, last_bits, joined_bits)
    student = Student(network, input_shape, bits, input_fix_point, replace)
    student.check_classifier()
    return BrevitasStudent(student, collect_steps)


class BrevitasStudent(nn.Module):
    """The graph and float weights of a student with Brevitas' quantisers.

    `state_dict` contains tensors only, and the complete state. Brevitas itself saves neither the
    statistics of the first passes nor their number, and no scale before the first pass; a run
    resumed from such a state would diverge, or fail to load. Loading keeps the parameter objects,
    which an existing optimiser refers to.

    Parameters
    ----------
    student : the student, whose weights are copied
    collect_steps : see `brevitas_student`

    Attributes
    ----------
    convs : layer name -> QuantConv2d
    norms : layer name -> BatchNorm2d
    activations : group name -> QuantReLU or QuantIdentity; concatenated activations are one group
    group_of : layer name -> group name
    """

    def __init__(self, student: Student, collect_steps: int = COLLECT_STEPS) -> None:
        super().__init__()
        self.group_of = {name: q.name for name, q in student.activation_of.items()}
        self.convs, self.norms, self.plain = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.activations = nn.ModuleDict()
        self.steps: list[tuple[str, tuple[str, ...], str]] = []  # layer, inputs, nonlinear
        self.picking: set[str] = set()  # layers that only move values, so do not round
        for name, conv in student.convs():
            self.convs[name] = _quant_conv(conv, student.weight_of[name].bits)
            if conv.norm is not None:
                self.norms[name] = conv.norm
        for name in student.layers:
            layer = student.layer(name)
            if not layer.has_weights:
                self.plain[name] = layer
            if layer.ties_fix_points:
                self.picking.add(name)
            nonlinear = "NONE" if student.has_fused_relu(layer) else layer.nonlinear
            self.steps.append((name, layer.inputs, nonlinear))
        for quantiser in dict.fromkeys(student.activation_of.values()):
            rounding = [name for name in quantiser.members if name not in self.picking]
            # Brevitas counts calls, and a group's quantiser is called once for each member.
            calls = collect_steps * len(rounding)
            self.activations[quantiser.name] = (
                _image_quantiser(student)
                if quantiser is student.images
                else _activation_quantiser(quantiser, calls)
            )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, classes] of images [N, C, H, W]."""
        values: dict[str, Tensor] = {}
        for name, inputs, nonlinear in self.steps:
            args = [values[source] for source in inputs] or [images]
            if name in self.convs:
                y = self.convs[name](args[0])
                y = self.norms[name](y) if name in self.norms else y
            else:
                y = self.plain[name](*args)
            if name not in self.picking:
                y = self.activations[self.group_of[name]](apply_nonlinear(nonlinear, y))
            values[name] = y
        return y

    # -- training -------------------------------------------------------------------------

    def freeze_norms(self, frozen: bool) -> None:
        """Freeze the running statistics of batch norms, and use them, until the next `train`."""
        for norm in self.norms.values() if frozen else ():
            norm.eval()

    def thresholds(self) -> dict[str, nn.Parameter]:
        """Return the parameters that are base-2 logarithms of thresholds, by name."""
        return {n: p for n, p in self.named_parameters() if n.endswith("scaling_impl.value")}

    # -- state ----------------------------------------------------------------------------

    def _collectors(self) -> Iterator[tuple[str, Any]]:
        """Yield scales initialised by statistics: (name, ParameterFromRuntimeStatsScaling)."""
        kind = _brevitas("core.scaling").ParameterFromRuntimeStatsScaling
        for name, module in self.named_modules():
            if isinstance(module, kind):
                yield name, module

    def state_dict(self, *args: Any, prefix: str = "", **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the usual state, and the `value`, `buffer` and `counter` of each scale."""
        state: dict[str, Any] = super().state_dict(*args, prefix=prefix, **options)
        for name, scale in self._collectors():
            # Brevitas omits these, or writes the logarithm of the buffer as the value.
            state[f"{prefix}{name}.value"] = scale.value.detach()
            state[f"{prefix}{name}.buffer"] = scale.buffer
            state[f"{prefix}{name}.counter"] = torch.tensor(scale.counter)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state as any module does; `strict` applies to the statistics too.

        Raises
        ------
        RuntimeError : with `strict`, tensors are missing or unexpected; or a shape does not match
        """
        given = dict(state_dict)
        names = [name for name, _ in self._collectors()]
        absent = [
            f"{n}.{k}" for n in names for k in ("buffer", "counter") if f"{n}.{k}" not in given
        ]
        if absent and strict:
            raise RuntimeError(f"the state of a BrevitasStudent lacks {', '.join(absent)}")
        statistics = {
            n: (given.pop(f"{n}.buffer", None), given.pop(f"{n}.counter", None)) for n in names
        }
        with _parameters_kept():
            keys_left = super().load_state_dict(given, strict, assign)
        for name, scale in self._collectors():
            buffer, counter = statistics[name]
            if buffer is not None and counter is not None:
                scale.buffer.copy_(buffer)
                scale.counter = int(counter)
        return keys_left


def _quant_conv(layer: Conv, bits: int) -> nn.Module:
    fixed_point = _brevitas("quant.fixed_point")
    if type(layer) is not Conv or layer.padding is None:
        raise UnsupportedOp(
            f"{layer.name}: the Brevitas peer supports only convolutions with equal padding on "
            "opposite sides, and dense layers over small maps; use the quantiser `tqt`"
        )
    outputs, inputs = layer.weight.shape[:2]
    conv: nn.Module = _brevitas("nn").QuantConv2d(
        inputs * layer.groups,
        outputs,
        layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
        weight_quant=fixed_point.Int8WeightPerTensorFixedPoint,
        weight_bit_width=bits,
        # The norm cancels a bias before it, and the norm's own offset is not rounded either.
        bias_quant=fixed_point.Int8BiasPerTensorFixedPointInternalScaling
        if layer.norm is None and layer.bias is not None
        else None,
    )
    with torch.no_grad():
        conv.get_parameter("weight").copy_(layer.weight)
        if layer.bias is not None:
            conv.get_parameter("bias").copy_(layer.bias)
    return conv


def _activation_quantiser(quantiser: Quantiser, collect_calls: int) -> nn.Module:
    qnn, fixed_point = _brevitas("nn"), _brevitas("quant.fixed_point")
    options = dict(collect_stats_steps=collect_calls)
    module: nn.Module
    if quantiser.signed:
        module = qnn.QuantIdentity(
            act_quant=fixed_point.Int8ActPerTensorFixedPoint, bit_width=quantiser.bits, **options
        )
    else:  # `magnitude`: [0, 127] at 8 bits, the range of int8 after a ReLU
        module = qnn.QuantReLU(
            act_quant=fixed_point.Uint8ActPerTensorFixedPoint,
            bit_width=quantiser.magnitude,
            **options,
        )
    return module


def _image_quantiser(student: Student) -> nn.Module:
    largest = 2.0 ** float(student.log2_t.detach()[student.images.index])
    module: nn.Module = _brevitas("nn").QuantIdentity(
        act_quant=_brevitas("quant.fixed_point").Int8ActPerTensorFixedPointMinMaxInit,
        scaling_impl_type=_brevitas("inject.enum").ScalingImplType.CONST,
        bit_width=student.images.bits,
        min_val=-largest,
        max_val=largest,
    )
    return module


@contextmanager
def _parameters_kept() -> Iterator[None]:
    """Keep Brevitas from replacing its scales on loading, as an optimiser refers to them."""
    config: Any = _brevitas("config")
    before = config.REINIT_ON_STATE_DICT_LOAD
    config.REINIT_ON_STATE_DICT_LOAD = False
    try:
        yield
    finally:
        config.REINIT_ON_STATE_DICT_LOAD = before


def _brevitas(module: str) -> ModuleType:
    """Return a module of Brevitas, which is an optional package needed for comparison only."""
    try:
        return importlib.import_module(f"brevitas.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "brevitas":
            raise  # let the error of a broken dependency through
        raise ImportError("brevitas is not installed: pip install brevitas") from error
