"""Loading of a trained network's weights from the file formats of PyTorch users.

    load(network, Path("resnet18.pth"))
    load(network, Path("checkpoint.pt"), part="model_ema", skip=["fc."])

Names and shapes are compared with the network's to find which table of the file has the weights,
and the prefix of its names: `module.` from DataParallel, `model.` from Lightning, `_orig_mod.` from
torch.compile, or any other.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.core.text import counted, shown
from tutelage.host.train.checkpoint import CheckpointError
from tutelage.host.train.weights_file import Table, read_tables

log = logging.getLogger(__name__)

_SHOWN = 5
"""Most names of each kind in a message."""

_FEW_MODULES = 3
"""Most modules with tensors that do not fit for which a message suggests `skip`."""

_COMPILED = "_orig_mod"
"""Word that torch.compile adds to names, before each compiled module."""

_COUNTER = "num_batches_tracked"
"""Counter of batch norms, which older files lack and no computation uses."""

_THRESHOLDS = "log2_t"
"""Parameter that only quantised students have."""


@dataclass(frozen=True)
class Fit:
    """Comparison of a network with the tensors of one table, one prefix of their names removed.

    Attributes
    ----------
    name : of the table and the prefix, in the form of `part`
    tensors : by the network's names
    missing, unexpected : names that only the network has, and that only the table has
    misshapen, mistyped : name -> description of the difference in shape, or in the kind of number
    is_own : whether the table is of a checkpoint of this project
    """

    name: str
    tensors: Mapping[str, Tensor]
    missing: Sequence[str]
    unexpected: Sequence[str]
    misshapen: Mapping[str, str]
    mistyped: Mapping[str, str]
    is_own: bool

    @property
    def faults(self) -> int:
        """Number of the network's tensors that the table cannot provide."""
        return len(self.missing) + len(self.misshapen) + len(self.mistyped)

    def other_rows(self, wanted: Mapping[str, Tensor]) -> tuple[int, int] | None:
        """Return the number of outputs of the last layer in the file, and in the network.

        None if they differ in more than the outputs of one layer.

        Parameters
        ----------
        wanted : the network's tensors
        """
        layers = {name.rpartition(".")[0] for name in self.misshapen}
        shapes = [(self.tensors[name].shape, wanted[name].shape) for name in self.misshapen]
        counts = {(there[0], here[0]) for there, here in shapes if len(there) and len(here)}
        same_inputs = all(there[1:] == here[1:] for there, here in shapes)
        only = self.faults == len(self.misshapen) and not self.unexpected
        return counts.pop() if only and same_inputs and len(layers) == len(counts) == 1 else None

    @property
    def is_whole(self) -> bool:
        """Whether the table has all of the network's tensors and no others."""
        return not self.faults and not self.unexpected


class MisfitError(CheckpointError):
    """The weights are those of another network.

    Attributes
    ----------
    path : of the weights
    fit : comparison of the table that fits best
    """

    def __init__(self, path: Path, fit: Fit) -> None:
        super().__init__(f"{path}: not the weights of this network: {_mismatch(fit)}")
        self.path, self.fit = path, fit


def load(network: nn.Module, path: Path, part: str = "", skip: Sequence[str] = ()) -> None:
    """Load the weights in a file into `network`.

    Parameters
    ----------
    part : table within the file, such as "model_ema" or "teacher", or a prefix of its names; "":
        the first that fits the network
    skip : prefixes of names, such as "fc."; tensors of the network with such a name keep their
        values, and those of the file are ignored

    Raises
    ------
    CheckpointError
        The file cannot be used, or its tensors do not fit the network.
    """
    state = network.state_dict()
    wanted = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    tables = read_tables(path)
    _check_skip(skip, wanted, tables)
    fits = [fit for table in tables for fit in _fits(table, wanted, skip)]
    chosen = [fit for fit in fits if part in ("", fit.name) or fit.name.startswith(f"{part}.")]
    if not chosen:
        places = ", ".join(shown(fit.name, 60) for fit in fits[:8] if fit.name)
        raise CheckpointError(
            f"{path}: " + (f"no part {part!r}; choose from {places}" if part else "has no tensors")
        )
    best = min(chosen, key=lambda fit: (fit.faults, len(fit.unexpected)))
    if not best.is_whole:
        raise MisfitError(path, best)
    _mention_others(path, best, chosen)
    _check_finite(path, best.tensors)
    network.load_state_dict(dict(best.tensors), strict=False)


def _check_skip(skip: Iterable[str], wanted: Iterable[str], tables: Iterable[Table]) -> None:
    names = [f".{name}" for table in tables for name in table.tensors]
    for start in skip:
        of_file = any(f".{start}" in name for name in names)
        if not of_file and not any(name.startswith(start) for name in wanted):
            raise CheckpointError(
                f"skip {start!r}: no tensor's name begins with it; the network has "
                f"{_some(list(wanted))}"
            )


def _mention_others(path: Path, best: Fit, fits: Iterable[Fit]) -> None:
    others = [fit.name for fit in fits if fit.is_whole and fit is not best]
    if others and not best.is_own:
        log.warning(
            "%s: loading %r; %s would fit as well: to load it, give part = %r",
            path, shown(best.name), ", ".join(shown(repr(name)) for name in others[:_SHOWN]),
            shown(others[0]),
        )  # fmt: skip


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {shown(name)} has values that are not finite")


# -- names --------------------------------------------------------------------------------------


def _fits(table: Table, wanted: Mapping[str, Tensor], skip: Sequence[str]) -> Iterator[Fit]:
    """Yield the fit of a table for each prefix of its names by which the most tensors fit.

    In a table with `model.conv.weight` and `ema.conv.weight` these are "model." and "ema.".
    """
    own = _common_start(wanted)
    short = {name[len(own) :]: name for name in wanted}
    tensors = dict(table.tensors)
    if not any(_COMPILED in name.split(".") for name in wanted):
        tensors = {_without_compiled(name): tensor for name, tensor in tensors.items()}
    hits = _hits_by_prefix(tensors, short, wanted)
    most = max(hits.values(), default=0)
    prefixes = [prefix for prefix, count in hits.items() if count == most] or [own]
    for prefix in [own] if own in prefixes else prefixes:
        yield _fit(table, tensors, prefix, short, wanted, skip)


def _hits_by_prefix(
    tensors: Mapping[str, Tensor], short: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> dict[str, int]:
    """Return how many tensors fit the network for each prefix of its names."""
    hits: dict[str, int] = {}
    for name, tensor in tensors.items():
        for prefix in _prefixes(name):
            full = short.get(name[len(prefix) :])
            if full is not None and tensor.shape == wanted[full].shape:
                hits[prefix] = hits.get(prefix, 0) + 1
    return hits


def _prefixes(name: str) -> Iterator[str]:
    """Yield "", and every beginning of a name that ends with a dot."""
    yield ""
    for place, character in enumerate(name):
        if character == ".":
            yield name[: place + 1]


def _common_start(names: Collection[str]) -> str:
    """Return the longest prefix of all names, such as "net." of a wrapper; usually ""."""
    found = ""
    for prefix in _prefixes(next(iter(names), "")):
        if all(name.startswith(prefix) for name in names):
            found = prefix
    return found


def _without_compiled(name: str) -> str:
    return ".".join(word for word in name.split(".") if word != _COMPILED)


def _fit(
    table: Table, tensors: Mapping[str, Tensor], prefix: str, short: Mapping[str, str],
    wanted: Mapping[str, Tensor], skip: Sequence[str],
) -> Fit:  # fmt: skip
    skipped = tuple(skip)
    found: dict[str, Tensor] = {}
    unexpected, outside = [], []
    for name, tensor in tensors.items():
        rest = name[len(prefix) :] if name.startswith(prefix) else None
        full = None if rest is None else short.get(rest)
        if full is not None:
            found[full] = tensor
        elif name.rpartition(".")[2] == _COUNTER or name.startswith(skipped):
            continue
        elif rest is not None:
            if not rest.startswith(skipped):
                unexpected.append(name)
        else:
            outside.append(name)
    found = {name: tensor for name, tensor in found.items() if not name.startswith(skipped)}
    missing = [
        name for name in wanted
        if name not in found and name.rpartition(".")[2] != _COUNTER
        and not name.startswith(skipped)
    ]  # fmt: skip
    misshapen = {
        name: f"{_shape(tensor)} in the file, {_shape(wanted[name])} in the network"
        for name, tensor in found.items()
        if tensor.shape != wanted[name].shape
    }
    mistyped = {
        name: f"{_type(tensor)} in the file, {_type(wanted[name])} in the network"
        for name, tensor in found.items()
        if name not in misshapen and not _is_of_kind(tensor, wanted[name], name)
    }
    # Tensors with another prefix belong to other modules, unless the network lacks some.
    unexpected += outside if missing or misshapen else []
    name = ".".join(word for word in (table.place, prefix.rstrip(".")) if word)
    return Fit(name, found, missing, unexpected, misshapen, mistyped, table.is_own)


# -- messages -----------------------------------------------------------------------------------


def _mismatch(fit: Fit) -> str:
    if _THRESHOLDS in fit.unexpected:
        return "they are of a quantised student; give those of the float run that it started from"
    total = len(fit.tensors) + len(fit.missing)
    found = [
        f"{len(fit.missing)} of {counted(total, 'tensor')} missing ({_some(fit.missing)})",
        f"{len(fit.misshapen)} of another shape ({_differences(fit.misshapen)})",
        f"{len(fit.mistyped)} of another type ({_differences(fit.mistyped)})",
        f"{len(fit.unexpected)} unexpected ({_some(fit.unexpected)})",
    ]
    counts = map(len, (fit.missing, fit.misshapen, fit.mistyped, fit.unexpected))
    text = "; ".join(words for words, count in zip(found, counts, strict=True) if count)
    return f"{text}; {_advice(fit)}"


def _advice(fit: Fit) -> str:
    if fit.mistyped:
        return "give the weights of the float network, not of a quantised one"
    wrong = [*fit.misshapen, *fit.missing, *fit.unexpected]
    modules = sorted({name.rpartition(".")[0] for name in wrong})
    if len(modules) <= _FEW_MODULES and len(fit.tensors) > len(fit.misshapen):
        starts = ", ".join(f'"{shown(module, 60)}."' for module in modules)
        return f"skip = [{starts}] leaves these out"
    return "give the network that was trained, with its options"


def _differences(found: Mapping[str, str]) -> str:
    return _some([f"{name}: {what}" for name, what in found.items()])


def _some(names: Sequence[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(shown(name, 120) for name in names[:_SHOWN]) + more


def _is_of_kind(tensor: Tensor, wanted: Tensor, name: str) -> bool:
    """Whether a tensor can be copied into `wanted` without losing part of its values."""
    if tensor.is_complex() != wanted.is_complex():
        return False
    is_counter = name.rpartition(".")[2] == _COUNTER  # a float in some files
    return is_counter or tensor.is_floating_point() == wanted.is_floating_point()


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one value"
