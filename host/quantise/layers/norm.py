"""Batch norms, which join the convolution before them, or else a new depthwise one."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutelage.host.networks.norm import SyncedBatchNorm2d
from tutelage.host.quantise.layers.convolution import AnyNorm, Conv, add_identity
from tutelage.host.quantise.walker import Walker, meta_shape, traces


@traces(nn.BatchNorm2d, nn.BatchNorm1d, nn.SyncBatchNorm, SyncedBatchNorm2d)
def norm(walk: Walker, node: fx.Node) -> None:
    """Join a batch norm to the convolution before it, or to a new depthwise convolution."""
    given = walk.module_of(node)
    assert isinstance(given, _BatchNorm)
    kind = type(given).__name__
    if given.running_mean is None or given.running_var is None:
        raise walk.error(node, f"{kind} without statistics", "set track_running_stats=True")
    before = walk.layers[walk.source(node)]
    if len(meta_shape(node)) not in (2, 4) or before.shape[0] != given.num_features:
        what = f"{kind} over a value of shape {meta_shape(node)}"
        raise walk.error(node, what, "place it after a convolution or a linear layer")
    foldable = isinstance(before, Conv) and before.norm is None and before.nonlinear == "NONE"
    if foldable and walk.is_only_reader(node):
        walk.alias(node)
    else:
        what = "no convolution before this batch norm to fold it into"
        advice = "it becomes a 1x1 depthwise convolution, which costs time (write conv-BN-ReLU)"
        walk.warn(node, what, advice)
        before = add_identity(walk, node, given.num_features)
    assert isinstance(before, Conv)
    before.norm = walk.made.setdefault((given, "norm"), _copy(given))


def _copy(given: _BatchNorm) -> AnyNorm:
    """Return a BatchNorm2d with the same parameters and statistics."""
    copied = nn.BatchNorm2d(given.num_features, given.eps, given.momentum, given.affine)
    copied.load_state_dict(given.state_dict())
    for name, parameter in given.named_parameters():
        copied.get_parameter(name).requires_grad_(parameter.requires_grad)
    return copied
