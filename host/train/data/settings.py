"""Settings of [data] in a training run's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.host.train.data.data_set import check_normalisation
from tutelage.host.train.data.formats.format import DEFAULT_MEMORY
from tutelage.host.train.data.formats.registry import data_format
from tutelage.host.train.data.loading import check_colour, height_and_width


@dataclass(frozen=True)
class Data:
    """The data set of a run and how its images become the network's input.

    Attributes
    ----------
    kind : format of the data set: idx (MNIST's files), cifar10, cifar100, folder, images (without
        labels) or webdataset; see `tutelage.host.train.data.load`
    path : path of the data set; "" is Debian's Fashion-MNIST for idx, an error for the others
    size : pixels, or [height, width], to which pictures of folders and shards are resized after a
        centre crop to that aspect ratio; 0 keeps their size
    colour : "grey" converts pictures of folders and shards to one channel, both in training and in
        the application; "": RGB
    limit : use only this many images of the training set, 0 for all: the first ones, or, if they
        are sorted by class as in a folder, evenly spaced ones
    mean, std : normalisation of the input, for pixels in 0..1 as in torchvision, one value for each
        channel or one for all: [0.485, 0.456, 0.406] and [0.229, 0.224, 0.225] for networks trained
        on ImageNet. Without them the input is (v - 128) / 128, which int8 represents exactly
    validation : share of the training images of each class that is held out of training to evaluate
        the run on until its end; or a directory of such images (with class directories, or of
        shards). The test set is then used only at the end. 0: evaluate on the test set
    validation_seed : seed that chooses the held-out images, if `validation` is a share; -1: the
        seed of the run. Runs that are compared, and a teacher and its students, need the same one
    in_memory_mib : most MiB of pixels of a split to keep in memory; larger folders and shards are
        read from disk as needed
    workers : processes that read and augment images ahead of training, for each training process;
        0 for none, -1 for one per CPU, up to 8, if images are read from disk
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
        data_format(self.kind)  # raises ValueError if the kind is unknown
        height_and_width(self.size)
        check_colour(self.colour)
        for name, least in (
            ("limit", 0), ("in_memory_mib", 0), ("workers", -1), ("validation_seed", -1)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if isinstance(self.validation, float) and not 0 <= self.validation < 1:
            raise ValueError(
                f"validation is {self.validation:g}; it must be a share of the training images, "
                "0 or more and below 1, or a directory"
            )
        check_normalisation(self.mean, self.std)

    @property
    def validates(self) -> bool:
        """Whether the run has validation images."""
        return bool(self.validation)

    @property
    def is_labelled(self) -> bool:
        """Whether images of this kind have labels."""
        return data_format(self.kind).is_labelled
