"""Warning before a run about a network that the DPU will not support."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import nn

from tutelage.core.text import shown
from tutelage.host.check.fit import obstacle, obstacle_of
from tutelage.host.quantise.student import Student

log = logging.getLogger(__name__)


def warn_of_obstacle(
    network: nn.Module, input_shape: tuple[int, int, int], replace: Mapping[str, str]
) -> None:
    """Warn if `tutelage export` will refuse a network, before time is spent on training it.

    Parameters
    ----------
    network : a float network, or a student
    input_shape : (C, H, W) of its images
    replace : activations that will be exchanged, see `tutelage.host.quantise.trace.trace`
    """
    try:
        if isinstance(network, Student):
            found = obstacle_of(network)
        else:
            found = obstacle(network, input_shape, replace)
    except Exception:  # a failure of the check must not stop the training
        log.debug("the network could not be checked", exc_info=True)
        return
    if found:
        log.warning(
            "the DPU does not support this network: %s (`tutelage check` lists all reasons)",
            shown(found),
        )
