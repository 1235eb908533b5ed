"""`torch_quantizer`: calibration and test runs of a script written for AMD's quantiser.

    quantizer = torch_quantizer("calib", model, (images,), output_dir="quantize_result")
    for images, _ in loader:
        quantizer.quant_model(images)
    quantizer.export_quant_config()            # quantize_result/quant_info.json

    quantizer = torch_quantizer("test", model, (images,), output_dir="quantize_result")
    accuracy(quantizer.quant_model)            # what the DPU computes, bit for bit
    quantizer.export_xmodel("quantize_result") # quantize_result/<class>_int.xmodel

The names of classes, methods and arguments are AMD's (vai_q_pytorch 3.5, apis.py and README).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tutelage.core.text import counted
from tutelage.host.quantise.ptq.post_training import PostTraining, post_training
from tutelage.host.quantise.student import Student
from tutelage.host.train import weights
from tutelage.host.train.checkpoint import CheckpointError
from tutelage.host.vai_q_pytorch import deployed_files
from tutelage.host.vai_q_pytorch.arguments import (
    QuantizerError,
    as_inputs,
    calibration_method,
    check_settings,
    make_student,
    name_of,
    note,
    unwrapped,
    usable,
)
from tutelage.host.vai_q_pytorch.calibration_images import KeptImages
from tutelage.host.vai_q_pytorch.fast_finetune import fast_finetune
from tutelage.host.vai_q_pytorch.qat import QatProcessor
from tutelage.host.vai_q_pytorch.quant_info import QUANT_INFO, read_quant_info, write_quant_info
from tutelage.host.vai_q_pytorch.quant_model import Outputs, QuantModel

CALIB, TEST = "calib", "test"
MODES = {CALIB: CALIB, TEST: TEST, 1: CALIB, 2: TEST}
"""Accepted values of `quant_mode`; the numbers are those of vai_q_pytorch 1.x."""

Run = Callable[..., Any]


class TorchQuantizer:
    """AMD's `torch_quantizer`.

    Parameters
    ----------
    quant_mode : "calib" or "test"; a test run reads the files that a calibration run wrote
    module : the network, trained in float; it is moved to `device` and not changed otherwise
    input_args : an example input (N, C, H, W), or a tuple of several; only its shape matters
    state_dict_file : a .pth file with the network's parameters
    output_dir : directory of quant_info.json
    bitwidth : 8
    device : the CPU is used if PyTorch has no GPU
    quant_config_file : settings as JSON, as for vai_q_pytorch; settings that the DPU does not
        support are refused
    target : any DPUCZDX8G; quantisation is the same for all of them

    Raises
    ------
    QuantizerError
        An argument is not emulated, or in test mode the calibration files cannot be used.
    UnsupportedOp
        The network contains an operation that the DPU does not support.
    """

    def __init__(
        self,
        quant_mode: str,
        module: torch.nn.Module,
        input_args: Any = None,
        state_dict_file: str | None = None,
        output_dir: str = "quantize_result",
        bitwidth: int | None = None,
        mix_bit: bool = False,
        device: torch.device | str = "cuda",
        lstm: bool = False,
        app_deploy: str = "CV",
        qat_proc: bool = False,
        custom_quant_ops: list[str] | None = None,
        quant_config_file: str | None = None,
        target: str | None = None,
    ) -> None:
        if quant_mode not in MODES:
            raise QuantizerError(f"quant_mode {quant_mode!r}: use 'calib' or 'test'")
        other = app_deploy if app_deploy != "CV" else None
        check_settings(bitwidth, dict(
            mix_bit=mix_bit, lstm=lstm, app_deploy=other, custom_quant_ops=custom_quant_ops
        ))  # fmt: skip
        self._method = calibration_method(quant_config_file)
        self._mode, self._folder = MODES[quant_mode], Path(output_dir)
        module = unwrapped(module)
        if state_dict_file:
            _load(module, Path(state_dict_file))
        self._qat = QatProcessor(module, input_args) if qat_proc else None
        if self._qat is not None:
            return
        place = usable(device)
        inputs = as_inputs(input_args, place)
        self._network, self._name = module.to(place), name_of(module)
        self._student = make_student(module, inputs, place)
        self._float_state = {n: v.clone() for n, v in self._student.state_dict().items()}
        self._model = QuantModel(self._student, Outputs.of(module, inputs))
        self._tuned, self._ready = False, self._mode == TEST
        if self._mode == TEST:
            self._tuned = read_quant_info(self._folder, self._student)
        else:
            self._model.kept, self._model.rounds = KeptImages(), False
        _LATEST[:] = [self]

    @property
    def quant_model(self) -> torch.nn.Module:
        """The network to run: in calibration it collects images, in test it computes as the DPU."""
        return self._qat.trainable_model() if self._qat else self._model

    @property
    def deploy_model(self) -> torch.nn.Module | None:
        """The network to deploy, with `qat_proc`; None without it."""
        return self._qat.latest if self._qat else None

    # -- calibration ------------------------------------------------------------------------

    def fast_finetune(self, run_fn: Run, run_args: Any) -> None:
        """Calibrate, then tune the weights without labels (see fast_finetune.py).

        Parameters
        ----------
        run_fn, run_args : a function that passes images through `quant_model`, and its arguments

        Raises
        ------
        QuantizerError
            The function passes no images, or this is a test run.
        """
        if self._mode != CALIB:
            raise QuantizerError(
                "fast_finetune needs quant_mode 'calib'; in a test run call load_ft_param()"
            )
        usual, self._model.kept = self._model.kept, KeptImages()
        try:
            run_fn(*run_args)
            images = self._images()
        finally:
            self._model.kept = usual
        post_training(self._student, images, PostTraining(self._method))
        training = self._network.training
        before, after = fast_finetune(self._student, self._network.eval(), images)
        self._network.train(training)
        self._tuned = True
        note(
            f"fast_finetune: {counted(len(images[0]), 'image')}; the relative squared error of the "
            f"outputs is {after:.3g} after and {before:.3g} before it"
        )

    def load_ft_param(self) -> None:
        """Check that the calibration run fine-tuned the weights.

        The constructor has already loaded them with quant_info.json.

        Raises
        ------
        QuantizerError
            The calibration run did not fine-tune.
        """
        if not self._tuned:
            raise QuantizerError(
                f"{self._folder / QUANT_INFO}: the weights were not fine-tuned; call "
                "fast_finetune() in the run with quant_mode 'calib'"
            )

    def export_quant_config(self) -> None:
        """Calibrate with the images collected, and write quant_info.json.

        Raises
        ------
        QuantizerError
            No image has passed through `quant_model`.
        """
        if self._mode == CALIB:
            if not self._tuned:  # its thresholds and weights belong together
                post_training(self._student, self._images(), PostTraining(self._method))
            self._model.rounds = self._ready = True
        write_quant_info(self._folder, self._student, self._name, self._float_state, self._tuned)

    def _images(self) -> tuple[torch.Tensor, ...]:
        kept = self._model.kept
        if not kept:
            raise QuantizerError(
                "no image has passed through quant_model; run it on some images first"
            )
        return kept.tensors()

    # -- all steps, with functions of the script ----------------------------------------------

    def quantize(self, run_fn: Run, run_args: Any, ft_run_args: Any = None) -> None:
        """Calibrate with a function of the script, after fine-tuning if `ft_run_args` is given.

        Parameters
        ----------
        run_fn : passes images through `quant_model`
        run_args, ft_run_args : its arguments for calibration and for fine-tuning

        Raises
        ------
        QuantizerError
            The function passes no images.
        """
        self._mode = CALIB
        self._model.kept, self._model.rounds = KeptImages(), False
        if ft_run_args is not None:
            self.fast_finetune(run_fn, ft_run_args)
        run_fn(*run_args)
        self.export_quant_config()

    def test(self, run_fn: Run, run_args: Any) -> None:
        """Run a function of the script on the quantised network, and print its result."""
        self._start_test()
        note(f"the quantised network: {run_fn(*run_args)}")

    def deploy(
        self, run_fn: Run, run_args: Any, fmt: str = "xmodel", dynamic_batch: bool = False
    ) -> None:
        """Run a function of the script, then write the network to the output directory.

        Parameters
        ----------
        fmt : "xmodel", "onnx" or "torch_script"

        Raises
        ------
        QuantizerError
            `fmt` is none of these, or the calibration files cannot be used.
        """
        self._start_test()
        run_fn(*run_args)
        writers: dict[str, Callable[[str], None]] = {
            "xmodel": self.export_xmodel,
            "onnx": self.export_onnx_model,
            "torch_script": self.export_torch_script,
        }
        if fmt not in writers:
            raise QuantizerError(f"fmt {fmt!r}: use one of {', '.join(writers)}")
        writers[fmt](str(self._folder))

    def _start_test(self) -> None:
        self._mode, self._model.kept = TEST, None
        if not self._ready:
            read_quant_info(self._folder, self._student)
        self._model.rounds = self._ready = True

    # -- files ----------------------------------------------------------------------------------

    def export_xmodel(
        self,
        output_dir: str = "quantize_result",
        deploy_check: bool = False,
        dynamic_batch: bool = False,
    ) -> None:
        """Write `<class>_int.xmodel`, the input of `tutelage compile`, which takes any batch size.

        Raises
        ------
        QuantizerError
            The network is not calibrated yet.
        NotDeployable
            The DPU cannot compute this network.
        """
        deployed_files.write_xmodel(self._deployable(), self._name, Path(output_dir), deploy_check)

    def export_onnx_model(
        self,
        output_dir: str = "quantize_result",
        verbose: bool = False,
        dynamic_batch: bool = False,
        opset_version: int | None = None,
        native_onnx: bool = True,
        dump_layers: bool = False,
        check_model: bool = False,
        opt_graph: bool = False,
    ) -> None:
        """Write `<class>_int.onnx` with ONNX's own quantisation operators, for any batch size.

        Raises
        ------
        QuantizerError
            The network is not calibrated yet.
        NotDeployable
            The DPU cannot compute this network.
        """
        if not native_onnx:
            note("native_onnx=False: AMD's own ONNX ops are not emulated; standard ops are written")
        deployed_files.write_onnx(self._deployable(), self._name, Path(output_dir))

    def export_torch_script(
        self, output_dir: str = "quantize_result", verbose: bool = False
    ) -> None:
        """Print that no file is written."""
        deployed_files.no_torch_script()

    export_traced_torch_script = export_torch_script

    def _deployable(self) -> Student:
        if not self._ready:
            raise QuantizerError(
                "the network is not calibrated yet; call export_quant_config(), or use "
                "quant_mode 'test'"
            )
        return self._student


_LATEST: list[TorchQuantizer] = []


def dump_xmodel(
    output_dir: str = "quantize_result", deploy_check: bool = False, app_deploy: str = "CV"
) -> None:
    """Write the .xmodel of the quantiser created last, as in vai_q_pytorch 1.2.

    Raises
    ------
    QuantizerError
        No quantiser has been created, or its network is not calibrated yet.
    """
    if not _LATEST:
        raise QuantizerError(
            "dump_xmodel: there is no torch_quantizer yet; create one with quant_mode 'test' first"
        )
    _LATEST[0].export_xmodel(output_dir, deploy_check)


def _load(module: torch.nn.Module, path: Path) -> None:
    """Load parameters from a file into a network, without executing anything in the file."""
    try:
        weights.load(module, path)
    except CheckpointError as error:
        raise QuantizerError(str(error)) from error
