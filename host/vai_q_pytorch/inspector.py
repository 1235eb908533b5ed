"""`Inspector`: report which layers of a network a DPU computes, before quantising it.

    Inspector("DPUCZDX8G_ISA1_B4096").inspect(model, (images,), output_dir="inspect")

prints the layers left to the CPU, and writes inspect/inspect_<target>.txt with every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tutelage.core.board_profile import board_names, load_profile
from tutelage.core.errors import DpuError
from tutelage.core.fingerprint import array_named, dpu_name, is_own
from tutelage.core.text import shown
from tutelage.dpu.compiler.board.graph import compile_for_board
from tutelage.dpu.inspect.describe import describe_graph
from tutelage.dpu.inspect.draw import svg
from tutelage.dpu.inspect.layers import layers_of
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile.target import CompileUsageError, load_target
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.to_xmodel import NotDeployable, to_quantised
from tutelage.host.quantise.walker import UnsupportedOp
from tutelage.host.vai_q_pytorch.arguments import (
    QuantizerError,
    as_inputs,
    make_student,
    name_of,
    note,
    unwrapped,
    usable,
)

IMAGE_FORMATS = ("svg", "png")


class Inspector:
    """AMD's `Inspector`.

    Parameters
    ----------
    name_or_fingerprint : name or fingerprint of a DPUCZDX8G, such as "DPUCZDX8G_ISA1_B4096" or
        "0x101000016010407", or a board, such as "zcu104"

    Raises
    ------
    QuantizerError
        The target is unknown, or a DPU of another family.
    """

    def __init__(self, name_or_fingerprint: str) -> None:
        self._target = name_or_fingerprint
        self._fingerprint = _fingerprint(name_or_fingerprint)

    def inspect(
        self,
        module: nn.Module,
        input_args: Any,
        device: torch.device | str = "cuda",
        output_dir: str = "quantize_result",
        verbose_level: int = 1,
        image_format: str | None = None,
    ) -> None:
        """Print the layers that the DPU does not compute, and write a report.

        A network that cannot be quantised at all is reported too, with the place in its code and
        the remedy.

        Parameters
        ----------
        module, input_args, device : as for `torch_quantizer`
        output_dir : directory of the report inspect_<target>.txt
        verbose_level : 0 prints nothing, 1 the layers left to the CPU, 2 every layer
        image_format : "svg" or "png" to draw the network too; both write an SVG file

        Raises
        ------
        QuantizerError
            An argument has an unsupported type or value.
        """
        if image_format not in (None, *IMAGE_FORMATS):
            raise QuantizerError(f"image_format {image_format!r}: use 'svg' or 'png'")
        module = unwrapped(module)
        place = usable(device)
        inputs = as_inputs(input_args, place)
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / f"inspect_{self._target}.txt"
        try:
            found = self._look(module.to(place), inputs, place)
        except (UnsupportedOp, NotDeployable) as error:
            report.write_text(f"target: {self._target}\nrefused: {error}\n", encoding="utf-8")
            note(f"{name_of(module)} cannot be quantised: {error}")
            return
        report.write_text("\n".join(found.lines(self._target)) + "\n", encoding="utf-8")
        for line in found.summary(verbose_level):
            print(shown(line))
        note(f"wrote {report}: every layer")
        if image_format is not None:
            path = report.with_suffix(".svg")
            path.write_text(svg(describe_graph(report, found.graph)), encoding="utf-8")
            note(f"wrote {path}: the network" + (", as SVG" if image_format != "svg" else ""))

    def _look(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], device: torch.device
    ) -> Findings:
        student = make_student(module, inputs, device)
        calibrate(student, inputs)
        graph = to_quantised(student.cpu(), name_of(module))
        try:
            on_cpu = compile_for_board(graph, self._fingerprint).on_cpu
        except DpuError as error:  # the DPU takes no op of it
            on_cpu = {layer.name: str(error) for layer in layers_of(graph)}
        return Findings(graph, on_cpu)


@dataclass(frozen=True)
class Findings:
    """Where the layers of a network run.

    Attributes
    ----------
    graph : the quantised network
    on_cpu : op name -> the reason why it is left to the CPU
    """

    graph: Graph
    on_cpu: dict[str, str]

    def summary(self, verbose_level: int) -> list[str]:
        """Return the lines for the terminal."""
        if verbose_level <= 0:
            return []
        if verbose_level > 1:
            return [*self._rows(), ""]
        if not self.on_cpu:
            return ["All layers run on the DPU."]
        return ["On the CPU:", *(f"  {name}: {reason}" for name, reason in self.on_cpu.items())]

    def lines(self, target: str) -> list[str]:
        """Return the lines of the report."""
        return [
            f"target: {target}",
            f"network: {self.graph.get_name()}",
            "",
            *self.summary(1),
            "",
            *self._rows(),
        ]

    def _rows(self) -> list[str]:
        """Return a line for each layer: device, type, shape of the output, name."""
        rows = []
        for layer in layers_of(self.graph):
            device = "CPU" if layer.name in self.on_cpu else "DPU"
            shape = "x".join(map(str, layer.dims))
            rows.append(f"{device}  {layer.kind:20} {shape:16} {layer.name}")
        return rows


def _fingerprint(target: str) -> int:
    """Return the fingerprint of a DPU given by its name, its fingerprint or its board."""
    try:
        if target.startswith("0x") or target in board_names():
            found = load_target(target).fingerprint
            if not is_own(found):
                raise QuantizerError(f"{dpu_name(found)} is not emulated; {_KNOWN}")
            return found
        size = array_named(target).name
    except CompileUsageError as error:
        raise QuantizerError(str(error)) from error
    except DpuError as error:
        raise QuantizerError(f"target {target!r} is not emulated; {_KNOWN}") from error
    for board in board_names():
        profile = load_profile(board)
        if profile.dpu_name.endswith(f"_{size}") and profile.fingerprints:
            return next(iter(profile.fingerprints))
    raise QuantizerError(
        f"the fingerprint of {target} is not known; give the number in its arch.json"
    )


_KNOWN = 'give a DPUCZDX8G such as "DPUCZDX8G_ISA1_B4096", its fingerprint, or a board'
