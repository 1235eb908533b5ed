"""Image classification data sets for training: read without torchvision, kept in memory as uint8.

    train = load("idx", None, "train")                           # Fashion-MNIST as Debian ships it
    test = load("cifar10", Path("cifar-10-binary.tar.gz"), "test")
    mine = load("folder", Path("photos"), "train", size=96)

Every file is untrusted: nothing is unpickled or extracted, sizes are checked before memory is
taken, and whatever is wrong raises DataError, one line that names the file. A format of data sets
is a file of `tutelage.host.train.data.formats`.
"""

from tutelage.host.train.data.data_set import DataError, DataSet
from tutelage.host.train.data.loading import SPLITS, load

__all__ = ["SPLITS", "DataError", "DataSet", "load"]
