"""Labels for images that have none: the classes that the float network sees in them."""

from __future__ import annotations

from dataclasses import replace

from tutelage.host.train.config import Config, ConfigError
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.formats.format import numbered_classes
from tutelage.host.train.evaluation import predictions
from tutelage.host.train.students import count_outputs, trained_network


def labelled(config: Config, train: DataSet, test: DataSet) -> tuple[DataSet, DataSet]:
    """Return a run's data, with labels of the student's float network where there are none.

    The accuracy of a run is then how often the quantised network agrees with the float network.
    Images that nothing is trained with keep -1 for their label.

    Raises
    ------
    ConfigError
        The float network itself is to be trained with them.
    NetworkError, CheckpointError
        See `trained_network`.
    """
    if train.is_labelled:
        return train, test
    if not config.quantises:
        raise ConfigError(
            f"[data] kind {config.data.kind!r} has no labels, which method {config.method} needs"
        )
    network = trained_network(config.student, train)
    outputs = count_outputs(network, config.student.network, train.shape)
    classes = train.classes or numbered_classes(outputs)
    labels = predictions(network, train) if config.plan else train.labels
    return (
        replace(train, classes=classes, labels=labels),
        replace(test, classes=classes, labels=predictions(network, test)),
    )
