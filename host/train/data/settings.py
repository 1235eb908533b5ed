"""[data] of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.host.train.data.data_set import check_normalisation
from tutelage.host.train.data.formats.format import DEFAULT_MEMORY
from tutelage.host.train.data.formats.registry import data_format
from tutelage.host.train.data.loading import check_colour, height_and_width


@dataclass(frozen=True)
class Data:
    """What is learnt from.

    Attributes
    ----------
    kind, path, size : see tutelage.host.train.data.load
    colour : "grey" makes pictures of folders and shards grey, of one channel, and so does the
        application then; "rgb", which they are by default, does not
    limit : take so many images of the training set only, 0 all: the first ones, or where they are
        sorted by class, as a folder's are, evenly spread
    mean, std : of the input, of pixels in 0..1 as torchvision has them, for each channel or one for
        all: [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225] for networks trained on ImageNet.
        Without them the input is (v - 128) / 128, which int8 holds exactly
    validation : share of the training images, of each class alike, that nothing is learnt from and
        that the run is judged by meanwhile; or a directory of such images (of class directories, or
        of shards). The test set is then met at the end only. 0: judge by the test set
    validation_seed : says which images those are, where they are a share; -1: the run's own seed.
        Runs that are compared, or of which one teaches the other, need the same
    in_memory_mib : most MiB of pixels of a split that are kept in memory; larger folders and
        shards are read from the disk as they are needed
    workers : processes that read and augment ahead of the training, for each training process; 0
        for none, -1 for as many as there are CPUs, 8 at most, where images come from the disk
    """

    kind: str = "idx"
    path: str = ""
    size: int | list[int] = 0
    colour: str = ""
    limit: int = 0
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    validation: float | str = 0.0
    validation_seed: int = -1
    in_memory_mib: int = DEFAULT_MEMORY >> 20
    workers: int = -1

    def __post_init__(self) -> None:
        data_format(self.kind)  # ValueError where there is none of that name
        height_and_width(self.size)
        check_colour(self.colour)
        for name, least in (
            ("limit", 0), ("in_memory_mib", 0), ("workers", -1), ("validation_seed", -1)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if isinstance(self.validation, float) and not 0 <= self.validation < 1:
            raise ValueError(
                f"validation is {self.validation:g}; it is a share of the training images below 1, "
                "or a directory"
            )
        check_normalisation(self.mean, self.std)

    @property
    def validates(self) -> bool:
        """Whether there are images for validation."""
        return bool(self.validation)
