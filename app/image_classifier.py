"""The model returned by `tutelage.load`, which classifies images one by one.

    net = tutelage.load("models/mine")
    result = net.classify("cat.png")
    print(result.label, result.confidence)

An image is processed as in the application (`tutelage.app.pipeline.lane`): with the same pixels,
runner and labels. The application runs several such lanes at once; this class is a single one.
"""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path

import numpy as np

from tutelage.app.model import load_classifier
from tutelage.app.pipeline.job import FrameJob, decode
from tutelage.app.pipeline.lane import Lane, RunnerError
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame, SourceError, shown_path
from tutelage.board.jobs import ModelRunner
from tutelage.board.model_parts import ModelError, TensorInfo
from tutelage.board.provider import find_provider
from tutelage.core.deployed_model import default_model
from tutelage.core.images.decoder import read_image

Image = str | os.PathLike[str] | np.ndarray | Frame


class ImageClassifier:
    """A model with its own runner. An instance serves one thread; load one for each thread.

    Parameters
    ----------
    model : model directory (model.xmodel beside model.toml) or compiled .xmodel; by default the
        deployed model on a board, else the demo's
    top : number of classes in a result, the best first
    plugin : Python file with functions op_<type>(inputs, attrs) for operators that run on the CPU
    engine : engine of the emulation: "fast", "reference" or, for a file with DPU code,
        "instructions". None selects the one that $TUTELAGE_ENGINE names, or else the fast one. All
        compute the same numbers

    Attributes
    ----------
    name : name of the model
    labels : one for each output
    input : name, dims (NHWC) and fix point of the input
    warnings : reasons why results may be wrong, one line each

    Raises
    ------
    ModelError
        The model cannot be loaded, or does not run here.
    ValueError
        `top` is less than 1.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        top: int = 5,
        plugin: str | os.PathLike[str] | None = None,
        engine: str | None = None,
    ) -> None:
        if top < 1:
            raise ValueError(f"top is {top}; it must be at least 1")
        path = default_model() if model is None else Path(model)
        classifier = load_classifier(path, None if plugin is None else Path(plugin))
        self.name, self.labels = classifier.name, classifier.labels
        self.input: TensorInfo = classifier.network.input
        self.warnings: list[str] = classifier.notes
        self._network = classifier.network
        self._lane: Lane | None = Lane(classifier, top)
        _make_runner(self._lane, engine)

    def classify(self, image: Image) -> Result:
        """Classify one image.

        Parameters
        ----------
        image : path of an image file; uint8 (height, width, 3) in BGR as OpenCV reads it; or a
            frame of a source (`tutelage.open`)

        Returns
        -------
        Result
            `top` has (label, confidence 0..1) of the best classes, best first. A frame that its
            source could not read gives a result with `error` and no classes

        Raises
        ------
        SourceError
            A file is missing, or is not a complete image.
        ValueError
            An array has another shape or type.
        ModelError
            The runner failed, or `close` was called.
        """
        lane, began = self._opened(), time.monotonic()
        job = FrameJob(_frame(image), began, began)
        decode(job, claim=lambda pixels: None)
        if job.frame.error is not None:
            return Result(job.frame, error=job.frame.error, milliseconds=job.milliseconds)
        try:
            lane.start(job)
            done = lane.finish_oldest()
        except RunnerError as error:
            raise ModelError(f"{self.name}: {error}") from error
        assert done is not None  # only other threads abandon a lane, and it has none
        result = done[1]
        if isinstance(result, RunnerError):
            raise ModelError(f"{self.name}: {result}") from result
        job.milliseconds["total"] = 1e3 * (time.monotonic() - began)
        result.milliseconds = job.milliseconds
        return result

    def run(self, values: np.ndarray) -> np.ndarray:
        """Run the network without image preprocessing.

        Parameters
        ----------
        values : input as int8, or as float, which is rounded to the input's fix point;
            (height, width, channels), or (N, height, width, channels) for N images one by one

        Returns
        -------
        np.ndarray
            float32 outputs, (classes,) or (N, classes)

        Raises
        ------
        ValueError
            The shape or type does not match the input.
        ModelError
            `close` was called.
        """
        self._opened()
        if np.ndim(values) < len(self.input.dims):
            return self._runner.run(values)
        outputs = [self._runner.run(image) for image in values]
        return np.stack(outputs) if outputs else np.zeros((0, len(self.labels)), np.float32)

    def close(self) -> None:
        """Release the runner. The object cannot be used afterwards."""
        self._lane = None
        self.__dict__.pop("_runner", None)

    def __enter__(self) -> ImageClassifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @cached_property
    def _runner(self) -> ModelRunner:
        return self._network.runner(1)

    def _opened(self) -> Lane:
        if self._lane is None:
            raise ModelError(f"{self.name}: is closed")
        return self._lane


def _make_runner(lane: Lane, engine: str | None) -> None:
    """Create a lane's runner, on the named engine of the emulation if there is one."""
    if engine is None:
        lane.make_runner()
        return
    provider = find_provider()
    if not provider.is_emulation:
        raise ModelError(f"engine {engine!r} is for the emulation; this machine has a DPU")
    provider.vart.set_engine(engine)
    try:
        lane.make_runner()
    finally:
        provider.vart.set_engine(None)


def _frame(image: Image) -> Frame:
    """Return an image as a frame.

    Raises
    ------
    SourceError, ValueError
        See `ImageClassifier.classify`.
    """
    if isinstance(image, Frame):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"image of {image.dtype} {list(image.shape)}; an array must be uint8 "
                             "(height, width, 3), BGR")  # fmt: skip
        return Frame(0, "", image)
    path = Path(image)
    try:
        return Frame(0, shown_path(path), read_image(path))
    except ValueError as error:
        raise SourceError(f"{shown_path(path)}: {error}") from error
