"""`QatProcessor`: training of a quantised network by a script for AMD's quantiser.

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

    The first images that pass calibrate it. Thresholds of inputs are none of the parameters.

    Parameters
    ----------
    student : not calibrated
    calibrated : it is calibrated after all
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
        """Return the result of images (N, C, H, W), in the network's own form."""
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
        """Return a copy of the student with the thresholds as they are trained."""
        student = copy.deepcopy(self.student)
        student.observer = None
        student.log2_t.copy_(self._thresholds())
        return student.eval()

    # -- AMD's names ----------------------------------------------------------------------------

    def quantizer_parameters(self) -> list[nn.Parameter]:
        """Return the logarithms of thresholds, of one value each."""
        return list(self.log_threshold)

    def non_quantizer_parameters(self) -> list[nn.Parameter]:
        """Return weights, biases and norms."""
        return [p for n, p in self.student.named_parameters() if n != "log2_t"]

    def freeze_bn_stats(self) -> None:
        """Fold batch norms by their running statistics, which stay."""
        self.student.freeze_norms(True)

    fuse_conv_bn = freeze_bn_stats

    def enable_quant(self) -> None:
        """Round, as at first."""
        self.student.observer = None

    def disable_quant(self) -> None:
        """Compute in float."""
        self.student.observer = lambda name, values: None

    def freeze_quant(self) -> None:
        """Leave the thresholds where they are."""
        self.log_threshold.requires_grad_(False)

    def enable_warmup(self) -> None:
        """Calibrate by the next images."""
        self.calibrated.fill_(False)

    def disable_warmup(self) -> None:
        """Do nothing: the images after the first do not calibrate."""


class QatProcessor:
    """AMD's `QatProcessor`.

    Parameters
    ----------
    model : the network, trained in float; on the device where it is trained on
    inputs : an input of the network (N, C, H, W), of any values
    bitwidth : 8

    Attributes
    ----------
    latest : the network that is deployed, None before `to_deployable` or `deployable_model`

    Raises
    ------
    QuantizerError
        An argument is not emulated.
    UnsupportedOp
        The network has an operation that the DPU does not have.
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
        """Return the network to train, always the same.

        Parameters
        ----------
        calib_dir : of a quant_info.json, whose thresholds training starts from
        allow_reused_module : of no effect; a module may be called several times
        """
        if self._trainable is None:
            student = self._student()
            if calib_dir:
                read_quant_info(Path(calib_dir), student)
            self._trainable = TrainableModel(student, self._outputs, bool(calib_dir))
        return self._trainable

    quant_model = trainable_model

    def to_deployable(self, trained_model: nn.Module, output_dir: str) -> QuantModel:
        """Return what is deployed of a trained network, after writing it to a directory.

        Raises
        ------
        QuantizerError
            It is not the network of `trainable_model`, or has seen no image.
        """
        trained = unwrapped(trained_model)
        if not isinstance(trained, TrainableModel):
            raise QuantizerError("to_deployable takes the network that trainable_model() returned")
        if not trained.calibrated:
            raise QuantizerError("the network has seen no image: train it, or load_state_dict")
        student = trained.deployed()
        write_quant_info(Path(output_dir), student, name_of(self._model), self._float_state, True)
        self.latest = QuantModel(student, self._outputs)
        return self.latest

    convert_to_deployable = to_deployable

    def deployable_model(self, src_dir: str, used_for_xmodel: bool = False) -> QuantModel:
        """Return what `to_deployable` wrote to a directory.

        Parameters
        ----------
        used_for_xmodel : on the CPU
        """
        student = self._student()
        read_quant_info(Path(src_dir), student)
        self.latest = QuantModel(student.cpu() if used_for_xmodel else student, self._outputs)
        return self.latest

    def export_xmodel(
        self, output_dir: str, deploy_check: bool = False, dynamic_batch: bool = False
    ) -> None:
        """Write `<class>_int.xmodel`, which `tutelage compile` takes; raises NotDeployable."""
        name = name_of(self._model)
        deployed_files.write_xmodel(self._deployed(), name, Path(output_dir), deploy_check)

    def export_onnx_model(
        self,
        output_dir: str,
        verbose: bool = False,
        dynamic_batch: bool = False,
        opset_version: int | None = None,
    ) -> None:
        """Write `<class>_int.onnx` with ONNX's own quantisation."""
        deployed_files.write_onnx(self._deployed(), name_of(self._model), Path(output_dir))

    def export_torch_script(self, output_dir: str, verbose: bool = False) -> None:
        """Write nothing and say so."""
        deployed_files.no_torch_script()

    def _deployed(self) -> Student:
        if self.latest is None:
            raise QuantizerError("call deployable_model() or to_deployable() first")
        return self.latest.student
