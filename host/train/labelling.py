"""Labels for images that have none: the classes that the float network sees in them."""

from __future__ import annotations

from dataclasses import replace

from tutelage.host.train.config import Config, ConfigError
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.formats.format import numbered_classes
from tutelage.host.train.evaluation import evaluate
from tutelage.host.train.students import count_outputs, trained_network


def labelled(config: Config, data: DataSet, is_learnt: bool) -> DataSet:
    """Return a data set of a run, with labels where it has none.

    The accuracy of a run is then how often the quantised network agrees with the float network.

    Parameters
    ----------
    is_learnt : the data set is the training's; where nothing is trained it keeps -1 for its labels

    Raises
    ------
    ConfigError
        The float network itself is to be trained with it.
    NetworkError, CheckpointError
        See `trained_network`.
    """
    if data.is_labelled:
        return data
    if not config.quantises:
        raise ConfigError(
            f"[data] kind {config.data.kind!r} has no labels, which method {config.method} needs"
        )
    network = trained_network(config.student, data)
    outputs = count_outputs(network, config.student.network, data.shape)
    labels = data.labels
    if config.plan or not is_learnt:
        labels = evaluate(network, data).predicted
    return replace(data, classes=data.classes or numbered_classes(outputs), labels=labels)
