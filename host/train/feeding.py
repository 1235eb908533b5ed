"""Batches of one training process, for training and for evaluation.

All random numbers depend on (seed, epoch, step): a process that has a slice of a global batch draws
for the whole batch and takes its slice of the numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tutelage.host.train.config import Config
from tutelage.host.train.data.batching import epoch_batches
from tutelage.host.train.data.data_set import normalise
from tutelage.host.train.data.mixing import mix
from tutelage.host.train.data.reading import Reader, Request, worker_count
from tutelage.host.train.evaluation import Evaluation, evaluate
from tutelage.host.train.run_data import RunData
from tutelage.host.train.seeds import seed_of

_TRAIN, _TEST, _VALIDATION = range(3)


class Fed(NamedTuple):
    """A batch on the device of the process.

    Attributes
    ----------
    images : the network's inputs (N, C, H, W)
    labels : int64 (N,), or float32 (N, classes) for mixed images
    rows : int64 (N,), indices of the images in the training set, on the CPU
    """

    images: Tensor
    labels: Tensor
    rows: Tensor


class Feed:
    """Source of the batches of one process of a run.

    Parameters
    ----------
    config : of the run
    sets : data sets of the run
    accelerator : gives the index of this process, the number of processes and the device
    """

    def __init__(self, config: Config, sets: RunData, accelerator: Accelerator) -> None:
        self._config, self._sets, self._accelerator = config, sets, accelerator
        config.augmentation.transforms()  # reports a missing package before anything runs
        there = [data for data in sets if data is not None]
        # Launchers set LOCAL_WORLD_SIZE to the number of processes on this machine.
        here = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
        workers = worker_count(config.data.workers, there, here)
        self._reader = Reader(there, config.augmentation, workers)

    @property
    def steps(self) -> int:
        """Number of batches of an epoch."""
        return len(self._sets.train) // self._config.training.batch_size

    @property
    def count(self) -> int:
        """Number of training images."""
        return len(self._sets.train)

    def in_order(self) -> Iterator[Fed]:
        """Yield all training images, not augmented, in their order.

        Raises
        ------
        DataError
            No image of a batch can be read.
        """
        rows = torch.arange(self.count).split(self._config.training.batch_size)
        for batch in self._reader(Request(_TRAIN, some) for some in rows):
            images = batch.images.contiguous(memory_format=torch.channels_last)
            images = normalise(images.to(self._accelerator.device), self._sets.train.form)
            yield Fed(images, batch.labels, batch.rows)

    def batches(self, epoch: int) -> Iterator[Fed]:
        """Yield this process's slices of an epoch's global batches, on its device.

        Raises
        ------
        DataError
            No image of a batch can be read.
        """
        data, augmentation = self._sets.train, self._config.augmentation
        for batch in self._reader(self._requests(epoch)):
            images = normalise(batch.images.to(self._accelerator.device), data.form)
            labels = batch.labels.to(self._accelerator.device)
            if augmentation.mixes:
                images, labels = mix(
                    images, labels, len(data.classes), batch.mix_seed,
                    augmentation.mixup, augmentation.cutmix,
                )  # fmt: skip
            yield Fed(images, labels, batch.rows)

    def _requests(self, epoch: int) -> Iterator[Request]:
        config, mixes = self._config, self._config.augmentation.mixes
        order = epoch_batches(self._sets.train, config.training.batch_size, config.seed, epoch)
        generator = torch.Generator().manual_seed(seed_of(config.seed, epoch, "augmentation"))
        for rows in order:
            drawn = config.augmentation.draw(len(rows), generator)
            mix_seed = int(torch.randint(2**31, (1,), generator=generator)) if mixes else 0
            mine = self._slice(len(rows), mixes)
            drawn = {name: values[mine] for name, values in drawn.items()}
            yield Request(_TRAIN, rows[mine], drawn, mix_seed)

    def _slice(self, count: int, with_neighbour: bool) -> Tensor:
        """Return the positions of this process's images in a global batch.

        Parameters
        ----------
        with_neighbour : put the image before them in front, for mixing
        """
        share = count // self._accelerator.num_processes
        start = share * self._accelerator.process_index
        return torch.arange(start - with_neighbour, start + share) % count

    def close(self) -> None:
        """End the worker processes."""
        self._reader.close()

    def evaluate(self, network: nn.Module) -> Evaluation:
        """Evaluate a network on the test set."""
        return self._evaluate(network, _TEST)

    def validate(self, network: nn.Module) -> Evaluation:
        """Evaluate a network on the validation images, or on the test set if there are none."""
        return self._evaluate(network, _VALIDATION if self._sets.validation else _TEST)

    def _evaluate(self, network: nn.Module, part: int) -> Evaluation:
        data = self._sets[part]
        assert data is not None
        return evaluate(network, data, self._accelerator.device, self._reader, part)
