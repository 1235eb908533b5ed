"""`QatProcessor`: quantisation-aware training by a script written for AMD's quantiser.

processor = QatProcessor(model, inputs)
network = processor.trainable_model()          # the script's own loop trains it
deployable = processor.to_deployable(network, "qat_result")
...
processor.deployable_model("qat_result", used_for_xmodel=True)
processor.export_xmodel("qat_result")          # qat_result/<class>_int.xmodel
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.host.quantise.ptq.post_training import post_training
from tutelage.host.quantise.student import Student
from tutelage.host.vai_q_pytorch import deployed_files
from tutelage.host.vai_q_pytorch.arguments import (
    QuantizerError,
    as_inputs,
    check_settings,
    make_student,
    name_of,
    unwrapped,
)
from tutelage.host.vai_q_pytorch.quant_info import read_quant_info, write_quant_info
from tutelage.host.vai_q_pytorch.quant_model import Outputs, QuantModel


class TrainableModel(nn.Module):
    """A student whose thresholds are parameters of one value each, as in AMD's networks.

    The first batch calibrates it. The thresholds of the network's inputs are not trained.

    Parameters
    ----------
    student : the quantised network
    outputs : shapes and type of the float network's result
    calibrated : whether the student is calibrated already
    """

    calibrated: Tensor

    def __init__(self, student: Student, outputs: Outputs, calibrated: bool) -> None:
        super().__init__()
        self.student, self.outputs = student, outputs
        student.log2_t.requires_grad_(False)
        self.register_buffer("calibrated", torch.tensor(calibrated))
        given = {quantiser.index for quantiser in student.input_quantisers}
        self._trained = [i for i in range(len(student.log2_t)) if i not in given]
        first = student.log2_t.detach()
        self.log_threshold = nn.ParameterList(
            nn.Parameter(first[i : i + 1].clone()) for i in self._trained
        )

    def forward(self, *inputs: Tensor) -> Any:
        """Return the network's result for images (N, C, H, W), with the float network's shapes."""
        if not self.calibrated:
            self._calibrate(tuple(x.detach() for x in inputs))
        thresholds = {"log2_t": self._thresholds()}
        return self.outputs.shaped(torch.func.functional_call(self.student, thresholds, inputs))

    def _thresholds(self) -> Tensor:
        parts: list[Tensor] = [*self.student.log2_t.split(1)]
        for index, threshold in zip(self._trained, self.log_threshold, strict=True):
            parts[index] = threshold
        return torch.cat(parts)

    @torch.no_grad()
    def _calibrate(self, inputs: tuple[Tensor, ...]) -> None:
        post_training(self.student, inputs)
        for index, threshold in zip(self._trained, self.log_threshold, strict=True):
            threshold.copy_(self.student.log2_t[index : index + 1])
        self.calibrated.fill_(True)

    @torch.no_grad()
    def deployed(self) -> Student:
        """Return a copy of the student with the trained thresholds, in evaluation mode."""
        student = copy.deepcopy(self.student)
        student.observer = None
        student.log2_t.copy_(self._thresholds())
        return student.eval()

    # -- AMD's names ----------------------------------------------------------------------------

    def quantizer_parameters(self) -> list[nn.Parameter]:
        """Return the base-2 logarithms of the thresholds, one parameter (1,) each."""
        return list(self.log_threshold)

    def non_quantizer_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of convolutions, dense layers and norms."""
        return [p for n, p in self.student.named_parameters() if n != "log2_t"]

    def freeze_bn_stats(self) -> None:
        """Fold batch norms with their running statistics, which are no longer updated."""
        self.student.freeze_norms(True)

    fuse_conv_bn = freeze_bn_stats

    def enable_quant(self) -> None:
        """Round weights and activations, which is the default."""
        self.student.observer = None

    def disable_quant(self) -> None:
        """Compute in float, without rounding."""
        self.student.observer = lambda name, values: None

    def freeze_quant(self) -> None:
        """Stop training the thresholds."""
        self.log_threshold.requires_grad_(False)

    def enable_warmup(self) -> None:
        """Calibrate again with the next batch."""
        self.calibrated.fill_(False)

    def disable_warmup(self) -> None:
        """Do nothing: only the first batch calibrates anyway."""


class QatProcessor:
    """AMD's `QatProcessor`.

    Parameters
    ----------
    model : the network, trained in float, on the device on which training continues
    inputs : an example input (N, C, H, W), or a tuple of several; only its shape matters
    bitwidth : 8

    Attributes
    ----------
    latest : the network to deploy; None before `to_deployable` or `deployable_model` is called

    Raises
    ------
    QuantizerError
        An argument is not emulated.
    UnsupportedOp
        The network contains an operation that the DPU does not support.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        bitwidth: int = 8,
        mix_bit: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        check_settings(bitwidth, dict(mix_bit=mix_bit))
        self._model = unwrapped(model)
        self._device = next(self._model.parameters()).device
        self._inputs = as_inputs(inputs, self._device)
        self._float_state = {n: v.clone() for n, v in self._student().state_dict().items()}
        self._outputs = Outputs.of(self._model, self._inputs)
        self._trainable: TrainableModel | None = None
        self.latest: QuantModel | None = None

    def _student(self) -> Student:
        return make_student(self._model, self._inputs, self._device)

    def trainable_model(
        self, calib_dir: str = "", allow_reused_module: bool = False
    ) -> TrainableModel:
        """Return the network to train; every call returns the same object.

        Parameters
        ----------
        calib_dir : directory of a quant_info.json, from whose thresholds training starts
        allow_reused_module : ignored; a module may always be called several times

        Raises
        ------
        QuantizerError
            The quant_info.json in `calib_dir` cannot be used.
        """
        if self._trainable is None:
            student = self._student()
            if calib_dir:
                read_quant_info(Path(calib_dir), student)
            self._trainable = TrainableModel(student, self._outputs, bool(calib_dir))
        return self._trainable

    quant_model = trainable_model

    def to_deployable(self, trained_model: nn.Module, output_dir: str) -> QuantModel:
        """Write the deployable form of a trained network to a directory, and return it.

        Raises
        ------
        QuantizerError
            `trained_model` does not come from `trainable_model`, or has seen no image.
        """
        trained = unwrapped(trained_model)
        if not isinstance(trained, TrainableModel):
            raise QuantizerError("to_deployable: pass the network that trainable_model() returned")
        if not trained.calibrated:
            raise QuantizerError(
                "the network has seen no image; train it, or call load_state_dict()"
            )
        student = trained.deployed()
        write_quant_info(Path(output_dir), student, name_of(self._model), self._float_state, True)
        self.latest = QuantModel(student, self._outputs)
        return self.latest

    convert_to_deployable = to_deployable

    def deployable_model(self, src_dir: str, used_for_xmodel: bool = False) -> QuantModel:
        """Return the network that `to_deployable` wrote to a directory.

        Parameters
        ----------
        src_dir : the directory
        used_for_xmodel : place the network on the CPU, as `export_xmodel` needs it

        Raises
        ------
        QuantizerError
            The files of the directory are missing, or belong to another network.
        """
        student = self._student()
        read_quant_info(Path(src_dir), student)
        self.latest = QuantModel(student.cpu() if used_for_xmodel else student, self._outputs)
        return self.latest

    def export_xmodel(
        self, output_dir: str, deploy_check: bool = False, dynamic_batch: bool = False
    ) -> None:
        """Write `<class>_int.xmodel`, the input of `tutelage compile`.

        Raises
        ------
        QuantizerError
            There is no network to deploy yet.
        NotDeployable
            The DPU cannot compute this network.
        """
        name = name_of(self._model)
        deployed_files.write_xmodel(self._deployed(), name, Path(output_dir), deploy_check)

    def export_onnx_model(
        self,
        output_dir: str,
        verbose: bool = False,
        dynamic_batch: bool = False,
        opset_version: int | None = None,
    ) -> None:
        """Write `<class>_int.onnx` with ONNX's own quantisation operators."""
        deployed_files.write_onnx(self._deployed(), name_of(self._model), Path(output_dir))

    def export_torch_script(self, output_dir: str, verbose: bool = False) -> None:
        """Print that no file is written."""
        deployed_files.no_torch_script()

    def _deployed(self) -> Student:
        if self.latest is None:
            raise QuantizerError("call deployable_model() or to_deployable() first")
        return self.latest.student
