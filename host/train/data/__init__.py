"""Image classification data sets for training: uint8 in memory, or read from disk as needed.

    train = load("idx", None, "train")                           # Fashion-MNIST as Debian ships it
    test = load("cifar10", Path("cifar-10-binary.tar.gz"), "test")
    mine = load("folder", Path("photos"), "train", size=[96, 128])
    large = load("webdataset", Path("imagenet"), "train", size=224)    # streamed

Every file is untrusted: nothing is unpickled or extracted, sizes are checked before memory is
allocated, and every fault raises DataError, one line that names the file. Each format of data sets
is a module of `tutelage.host.train.data.formats`.
"""

from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.loading import SPLITS, load

__all__ = ["SPLITS", "DataError", "DataSet", "load"]
