"""Batches of images: read, cropped and augmented, in this process or in worker processes.

    with Reader((train, test), augmentation, workers=4) as reader:
        for batch in reader(requests):
            ...

Random parameters come with the request, so that a batch does not depend on which process reads it.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tutelage.core.errors import one_line
from tutelage.core.images.image_files import broken_line
from tutelage.core.text import shown
from tutelage.host.train.data.augmentation import Augmentation
from tutelage.host.train.data.data_set import DataSet, normalise
from tutelage.host.train.data.stored_images import (
    DataError,
    PictureError,
    StoredImages,
    Window,
    fit_part,
)

MOST_WORKERS = 8
"""Most worker processes of one training process, if the configuration does not set their number."""

_DEATH_S = 5.0
"""Most seconds from the closed socket of a dying process to its end, on a busy machine."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Request for a batch.

    Attributes
    ----------
    part : index of the data set
    rows : int64 (N,), indices of its images
    drawn : parameters of their augmentation; None for unchanged images
    mix_seed : seed of the mixing that follows; the batch returns it
    """

    part: int
    rows: Tensor
    drawn: dict[str, Tensor] | None = None
    mix_seed: int = 0


@dataclass(frozen=True)
class Batch:
    """A batch of images in the order of its request.

    Attributes
    ----------
    images : uint8 (N, C, H, W)
    labels : int64 (N,)
    rows : int64 (N,), indices of these images in the data set
    broken : a message for each picture that cannot be read and is left out
    mix_seed : of the request
    error : why the batch could not be read; "" if it was
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    broken: tuple[str, ...] = ()
    mix_seed: int = 0
    error: str = ""


class Reader:
    """Reader of batches of several data sets, ahead of time if it has worker processes.

    Parameters
    ----------
    sets : the data sets; requests give their index
    augmentation : applied for requests that have parameters
    workers : number of worker processes; 0 reads in the calling process
    """

    def __init__(
        self, sets: Sequence[DataSet], augmentation: Augmentation | None = None, workers: int = 0
    ) -> None:
        self._source = _Source(tuple(sets), augmentation or Augmentation())
        self._workers = workers
        self._known_broken: set[str] = set()
        self._asked = _Asked()
        self._processes: set[multiprocessing.process.BaseProcess] = set()
        self._loader: DataLoader[Batch] | None = None
        self._is_reading = False

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next request starts new ones."""
        self._loader = None
        self._processes.clear()

    def __call__(self, requests: Iterable[Request]) -> Iterator[Batch]:
        """Yield the batches of the requests in their order.

        Pictures that cannot be read are left out, with a warning the first time.

        Raises
        ------
        DataError
            No picture of a batch can be read, a picture has another size than the first and no
            size was given, or a worker died.
        RuntimeError
            The workers are still reading for other requests.
        """
        here = map(self._source.__getitem__, requests)
        for batch in self._by_workers(requests) if self._workers else here:
            if batch.error:
                raise DataError(batch.error)
            new = [text for text in batch.broken if text not in self._known_broken]
            if new:
                self._known_broken.update(new)
                _LOG.warning("%s", shown(broken_line(new)))
            yield batch

    def _by_workers(self, requests: Iterable[Request]) -> Iterator[Batch]:
        if self._is_reading:  # the DataLoader would take the batches of both from one iterator
            raise RuntimeError("the workers of this Reader are still reading for other requests")
        self._asked.requests, self._is_reading = requests, True
        try:
            batches = self._started()
            while (batch := next(batches, None)) is not None:
                yield batch
        except (RuntimeError, OSError, EOFError) as error:  # the latter two from its socket
            if not self._has_lost_worker():
                raise
            raise DataError(
                f"one of {self._workers} processes that read images died, perhaps for lack of "
                f"memory or of space in /dev/shm: {one_line(error)}: set [data] workers to fewer, "
                "or to 0 to read in the training process"
            ) from error
        finally:
            self._is_reading = False

    def _started(self) -> Iterator[Batch]:
        """Return the batches of the current requests; start the workers if there are none."""
        if self._loader is not None:
            return iter(self._loader)
        self._loader = DataLoader(
            self._source,
            batch_size=None,
            sampler=self._asked,
            num_workers=self._workers,
            collate_fn=_as_it_is,
            worker_init_fn=_begin_worker,
            persistent_workers=True,
            generator=torch.Generator(),  # leaves the state of PyTorch's global one unchanged
        )
        others = set(multiprocessing.active_children())
        handler = signal.getsignal(signal.SIGCHLD)
        batches = iter(self._loader)
        if threading.current_thread() is threading.main_thread():
            # PyTorch's handler raises an exception wherever this thread is when a worker dies, for
            # instance while it talks to another worker. Without it, next() finds the dead worker.
            signal.signal(signal.SIGCHLD, handler)
        self._processes = set(multiprocessing.active_children()) - others
        return batches

    def _has_lost_worker(self) -> bool:
        """Return whether a worker process died.

        It closes its sockets first, so that it may still be alive when reading from them fails.
        """
        ended = connection.wait([process.sentinel for process in self._processes], _DEATH_S)
        dying = [process for process in self._processes if process.sentinel in ended]
        for process in dying:
            process.join(_DEATH_S)
        return any(process.exitcode for process in dying)


class _Asked:
    """Current requests, in the form of a DataLoader's sampler."""

    requests: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.requests)


class _Source(Dataset[Batch]):
    """Map from requests to their batches."""

    def __init__(self, sets: tuple[DataSet, ...], augmentation: Augmentation) -> None:
        self._sets, self._augmentation = sets, augmentation

    def __getitem__(self, request: Request) -> Batch:
        try:
            return self._batch(request)
        except DataError as error:  # not raised: a DataLoader would add a traceback to its text
            nothing = torch.empty(0)
            return Batch(nothing, nothing, nothing, error=str(error))

    def _batch(self, request: Request) -> Batch:
        data, drawn = self._sets[request.part], request.drawn
        aspect = data.shape[2] / data.shape[1]
        windows = self._augmentation.windows(drawn, aspect) if drawn else None
        broken: list[str] = []
        if windows is None and not data.is_streamed:
            images, rows = data.pixels(request.rows), request.rows
        else:
            images, kept = _read(data, request.rows.tolist(), windows, broken)
            rows = request.rows[kept]
            drawn = drawn and {name: values[kept] for name, values in drawn.items()}
        if drawn is not None:
            images = self._augmentation.apply(images, drawn)
        return Batch(images, data.labels[rows], rows, tuple(broken), request.mix_seed)


def _read(
    data: DataSet, rows: list[int], windows: list[Window] | None, broken: list[str]
) -> tuple[Tensor, list[int]]:
    """Return images, uint8 (N, C, H, W), and their positions in `rows`.

    The messages of pictures that cannot be read are appended to `broken`.
    """
    found, kept = [], []
    for place, row in enumerate(rows):
        window = windows[place] if windows else None
        try:
            found.append(_one(data, row, window))
        except PictureError as error:
            broken.append(str(error))
        else:
            kept.append(place)
    if not found:
        raise DataError(f"{broken[0]}; no image of this batch can be read ({len(rows)} tried)")
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2), kept


def _one(data: DataSet, row: int, window: Window | None) -> np.ndarray:
    """Return one image, uint8 (H, W, C)."""
    if isinstance(data.store, StoredImages):
        return data.store.read(row, window)
    pixels = data.store[row].permute(1, 2, 0).numpy()
    # OpenCV's layout: BGR, grey pictures with three equal channels.
    bgr = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., ::-1]
    return fit_part(np.ascontiguousarray(bgr), data.form, window)


def readable_inputs(data: DataSet) -> Tensor:
    """Return the network's inputs, float32 (N, C, H, W), of the images that can be read.

    Raises
    ------
    DataError
        No image can be read.
    """
    (batch,) = Reader((data,))([Request(0, torch.arange(len(data)))])
    return normalise(batch.images, data.form)


def worker_count(wanted: int, sets: Sequence[DataSet], processes: int) -> int:
    """Return the number of worker processes of one training process.

    Parameters
    ----------
    wanted : number in the configuration; -1: if a data set is streamed, this process's share of the
        CPUs, up to `MOST_WORKERS`, else 0
    sets : the run's data sets
    processes : number of training processes on this machine
    """
    if wanted >= 0:
        return wanted
    if not any(data.is_streamed for data in sets):
        return 0
    return min(MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // processes))


def _begin_worker(number: int) -> None:
    # OpenCV's threads do not survive a fork, and those of several workers would compete for CPUs.
    cv2.setNumThreads(0)


def _as_it_is(batch: Any) -> Any:
    return batch
