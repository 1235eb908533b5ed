"""The student to compare, in the file formats of the platforms, and the images.

MODEL is a quantised run of `tutelage train`, or a model directory of `tutelage export` or
`compile`. All formats are made from the same quantised graph, so that they have the same layers and
the same rounded parameters. For a model directory without quantised.xmodel only the formats in it
are available.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from tutelage.core.errors import DpuError, TutelageError
from tutelage.core.files import sha256_of
from tutelage.core.images.image_files import IMAGE_SUFFIXES, broken_line, find_images, label_of
from tutelage.core.images.input_form import InputForm
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    ONNX,
    QUANTISED,
    check_files,
    distinct_labels,
    read_description,
)
from tutelage.core.text import counted
from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.peer_files import PeerSource, most_images, write_peer
from tutelage.host.bench.subject_files import (
    FLOAT32_FILE,
    INT8_FILE,
    INT8_WEIGHTS_FILE,
    TENSORRT_FILE,
    UNKNOWN,
    XMODEL_FILE,
    Images,
    write_form,
    write_images,
)
from tutelage.host.export.onnx_qdq import FLOAT32, FLOAT_BIAS, INT8, INT8_WEIGHTS, to_onnx
from tutelage.host.train.config import Config
from tutelage.host.train.data import DataError, DataSet
from tutelage.host.train.data.image_io import read_bgr

OWN_DATA = "dataset"
"""Value of `--images` for the test set of a run."""


_FORMS = {
    FLOAT32_FILE: FLOAT32, INT8_FILE: INT8, INT8_WEIGHTS_FILE: INT8_WEIGHTS,
    TENSORRT_FILE: FLOAT_BIAS,
}  # fmt: skip


class BenchUsageError(TutelageError):
    """The model, the images or an option cannot be used; the text is one line."""


@dataclass
class Subject:
    """A student to compare.

    Attributes
    ----------
    name, path : for the reader
    form : how an image becomes its input
    labels : class names
    checkpoint : SHA-256 of the student's checkpoint; "" if unknown
    graph : quantised graph; None without such a file
    compiled : graph compiled for the emulation or a board; None without one
    int8 : bytes of an ONNX file, for a model directory that has one
    data : test set of a run; None for a model directory
    notes : remarks for the reader
    peer : returns the float network and the images that calibrated the student; None if only the
        student is available
    made_up : whether its weights are random, so that classes are meaningless
    """

    name: str
    path: Path
    form: InputForm
    labels: tuple[str, ...]
    checkpoint: str
    graph: Graph | None
    compiled: Graph | None
    int8: bytes | None = None
    data: DataSet | None = None
    notes: list[str] = field(default_factory=list)
    peer: Callable[[], PeerSource] | None = None
    made_up: bool = False

    def write(self, folder: Path, images: Images, peers: bool = False) -> list[str]:
        """Write the files that the platforms' processes read (host/bench/subject_files.py).

        Parameters
        ----------
        peers : also write those that another quantiser starts from

        Returns
        -------
        remarks about these for the reader
        """
        write_form(folder, self.form)
        write_images(folder, images)
        for name, form in _FORMS.items():
            self._write_onnx(folder / name, form)
        graph = self.compiled or self.graph
        if graph is not None:
            graph.serialize(folder / XMODEL_FILE)
        if not peers:
            return []
        make = self.peer or (partial(self._own_peer, images) if self.graph else None)
        return write_peer(folder, make, self.path)

    def _own_peer(self, images: Images) -> PeerSource:
        """Return the student's float32 form and the compared images, for want of better ones."""
        assert self.graph is not None
        chosen = _chosen(
            len(images.pixels), most_images((self.form.channels, self.form.height, self.form.width))
        )
        inputs = FloatPreprocessor(self.form, False)([images.pixels[i] for i in chosen])
        return PeerSource(to_onnx(self.graph, FLOAT32), inputs, (
            "starts from the student's float32 form, whose parameters are rounded already, and is "
            "calibrated with the compared images: no others are available",
        ))  # fmt: skip

    def _write_onnx(self, path: Path, form: str) -> None:
        if self.int8 is not None and form == INT8:
            path.write_bytes(self.int8)
        elif self.graph is not None:
            path.write_bytes(to_onnx(self.graph, form))
        else:
            reason = f"{self.path} has no {QUANTISED} to make {path.name} from"
            path.with_name(f"{path.name}.absent").write_text(reason, encoding="utf-8")


def load_subject(model: Path, network: str = "") -> Subject:
    """Load the student of a run or a model directory.

    Parameters
    ----------
    network : see `tutelage.host.export.model_directory.read_state`

    Raises
    ------
    BenchUsageError, CheckpointError, ConfigError, DataError, DpuError, NotDeployable
        `model` is neither, or cannot be used.
    """
    if not model.exists():
        raise BenchUsageError(f"{model}: no such file or directory")
    if (model / DESCRIPTION).is_file():
        return _from_model_directory(model)
    if model.is_dir() and not list(model.glob("*.safetensors")):
        raise BenchUsageError(f"{model}: neither a run of `tutelage train` nor a model "
                              f"directory with {DESCRIPTION}")  # fmt: skip
    if model.is_dir() or model.suffix == ".safetensors":
        return _from_run(model, network)
    raise BenchUsageError(f"{model}: give the model's directory, which has {DESCRIPTION}")


def _from_run(source: Path, network: str) -> Subject:
    from tutelage.host.export.model_directory import load_student, read_state
    from tutelage.host.quantise.to_xmodel import NotDeployable, to_quantised
    from tutelage.host.train.loop import STUDENT
    from tutelage.host.train.run_data import load_split

    path = source / STUDENT if source.is_dir() else source
    config, state = read_state(path, network)
    test = load_split(config, "test")
    student = load_student(path, config, state, test).student
    try:
        graph = to_quantised(student, config.student.network.rpartition(":")[2].replace("-", "_"))
    except NotDeployable as error:
        raise BenchUsageError(f"{path}: {error}; or compare a model directory of `tutelage export "
                              "--clip`") from error  # fmt: skip
    name = f"{config.student.network} {config.method}"
    return Subject(name, source, test.form, test.classes, sha256_of(path), graph,
                   compiled(graph), None, test, peer=partial(_peer_of_run, config))  # fmt: skip


def _peer_of_run(config: Config) -> PeerSource:
    """Return the float network that a run started from and its student's calibration images."""
    from tutelage.host.train.data.reading import readable_inputs
    from tutelage.host.train.run_data import load_split
    from tutelage.host.train.students import trained_network

    if not config.student.weights:
        raise BenchUsageError("the run's configuration has no weights of a float network")
    train = load_split(config, "train").take(config.data.limit)
    network = trained_network(config.student, train)
    most = min(most_images(train.shape), config.quantisation.calibration_images)
    images = readable_inputs(train.take(most)).numpy()
    notes = [f"calibrated with {len(images)} of the student's calibration images"]
    if config.method != "ptq":
        notes.append(f"the student was then trained by {config.method}, this network was not")
    return PeerSource(network, images, tuple(notes))


def _from_model_directory(folder: Path) -> Subject:
    description = read_description(folder / DESCRIPTION)
    there = {name for name in (QUANTISED, ONNX, COMPILED) if (folder / name).exists()}
    sums = description.checksums.items()
    check_files(folder, {name: value for name, value in sums if name in there})
    provenance = description.provenance
    quantised, onnx, board = (folder / name for name in (QUANTISED, ONNX, COMPILED))
    graph = Graph.deserialize(quantised) if quantised.exists() else None
    int8 = onnx.read_bytes() if onnx.exists() else None
    if graph is None and int8 is None and not board.exists():
        raise BenchUsageError(f"{folder}: has none of {QUANTISED}, {ONNX} and {COMPILED}")
    dpu = Graph.deserialize(board) if board.exists() else graph and compiled(graph)
    name = str(provenance.get("name") or folder.resolve().name)
    labels = distinct_labels(description.labels)
    checkpoint = str(provenance.get("checkpoint_sha256", ""))
    found = Subject(name, folder, description.form, labels, checkpoint, graph, dpu, int8)
    found.notes += _clip_note(graph)
    return found


def _clip_note(graph: Graph | None) -> list[str]:
    """Return a note if the model has layers of `export --clip`, which only the DPU needs."""
    names = [op.get_name() for op in graph.get_ops()] if graph else []
    if not any(re.search(r"[/_]clip[123]\b", name) for name in names):
        return []
    return ["the model has layers that clip activations below 8 bits for the DPU (export --clip): "
            "every platform computes them, which slows down the others"]  # fmt: skip


def compiled(graph: Graph) -> Graph:
    """Return a quantised graph, compiled for the emulation; raise BenchUsageError if that fails."""
    try:
        return compile_graph(graph)
    except DpuError as error:
        raise BenchUsageError(f"{graph.get_name()}: {error}") from error


# -- images -----------------------------------------------------------------------------------


def load_images(subject: Subject, where: str, limit: int) -> Images:
    """Load the images that every platform classifies.

    Parameters
    ----------
    where : directory of images, which have the label of the outermost sub-directory that is named
        like a class; OWN_DATA for the test set of a run; "" for the test set of a run or `images/`
        of a model directory
    limit : most images to load, evenly spaced over all; 0 for all

    Raises
    ------
    BenchUsageError
        There are no images.
    """
    if where in ("", OWN_DATA) and subject.data is not None:
        return _of_data_set(subject.data, limit)
    if where == OWN_DATA:
        raise BenchUsageError(f"{subject.path}: a model directory has no data set: give a "
                              "directory of images with --images")  # fmt: skip
    folder = Path(where) if where else subject.path / "images"
    if not folder.is_dir():
        hint = "" if where else ": give a directory of images with --images"
        raise BenchUsageError(f"{folder}: no such directory{hint}")
    return _of_folder(folder, subject, limit)


def _chosen(count: int, limit: int) -> list[int]:
    """Return up to `limit` numbers of range(count), evenly spaced, so that all classes occur."""
    wanted = min(count, limit) if limit else count
    return [i * count // wanted for i in range(wanted)]


def _of_data_set(data: DataSet, limit: int) -> Images:
    chosen = _chosen(len(data), limit)
    pixels = data.pixels(chosen).permute(0, 2, 3, 1).numpy()
    # The layout of OpenCV and the application: BGR, grey images with three equal channels.
    bgr = np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels[..., ::-1]
    bgr = np.ascontiguousarray(bgr)
    return Images(
        list(bgr), data.labels[chosen].numpy(), f"test set, {counted(len(data), 'image')}"
    )


def _of_folder(folder: Path, subject: Subject, limit: int) -> Images:
    """Load the images below a folder; note skipped and broken files in the subject's notes."""
    try:
        found = find_images(folder)
    except OSError as error:
        raise BenchUsageError(f"{folder}: {error.strerror or error}") from error
    pixels, known, broken = [], [], []
    for index in _chosen(len(found.images), limit) if found.images else []:
        path = found.images[index]
        try:
            pixels.append(read_bgr(path))
        except DataError as error:
            broken.append(str(error))
            continue
        label = label_of(path.relative_to(folder).parts[:-1], subject.labels)
        known.append(UNKNOWN if label is None else subject.labels.index(label))
    notes = [line for line in (found.report(), broken_line(broken)) if line]
    if not pixels:
        reasons = "".join(f"; {line}" for line in notes)
        raise BenchUsageError(f"{folder}: has no images ({', '.join(IMAGE_SUFFIXES)}){reasons}")
    subject.notes += [f"{folder}: {line}" for line in notes]
    return Images(
        pixels, np.array(known, np.int64), f"{folder}, {counted(len(found.images), 'image')}"
    )
