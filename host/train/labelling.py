"""Labels for images without labels: the predictions of the float network."""

from __future__ import annotations

from dataclasses import replace

from tutelage.host.train.config import Config, ConfigError
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.formats.format import numbered_classes
from tutelage.host.train.evaluation import evaluate
from tutelage.host.train.students import count_outputs, trained_network


def labels_of(config: Config) -> str:
    """Return the source of a run's labels: "data", or "float network"."""
    return "data" if config.data.is_labelled else "float network"


def labelled(config: Config, data: DataSet, is_learnt: bool) -> DataSet:
    """Return a data set of a run; if it has no labels, with those that the float network predicts.

    The accuracy of such a run is the share of images on which the quantised network agrees with the
    float network. Images that cannot be read have no prediction and are left out.

    Parameters
    ----------
    is_learnt : whether it is the training set; if nothing is trained, its labels remain -1

    Raises
    ------
    ConfigError
        The method trains the float network, which needs labels.
    NetworkError, CheckpointError
        See `trained_network`.
    """
    if data.is_labelled:
        return data
    if not config.quantises:
        raise ConfigError(
            f"[data] kind {config.data.kind!r} has no labels, which method {config.method} needs: "
            "give a data set with labels, or a method that quantises a trained network"
        )
    network = trained_network(config.student, data)
    outputs = count_outputs(network, config.student.network, data.shape)
    labels = data.labels
    if config.plan or not is_learnt:
        found = evaluate(network, data)
        labels = found.predicted
        if len(found) < len(data):
            data = data.subset(found.rows)
    return replace(data, classes=data.classes or numbered_classes(outputs), labels=labels)
