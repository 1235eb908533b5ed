"""A table of the networks of torchvision and timm that the DPU can run, as docs/networks.md.

    python -m tutelage.host.networks.survey [--results FILE] [NAME ...]

Each network has random weights and its default input size. It is accepted if its traced graph
computes the same values in float, a student can be made from it, and the student becomes a
quantised graph; activations that the DPU lacks are replaced. Results are kept in a file of JSON
lines, from which an interrupted run continues: networks of hundreds of millions of parameters take
minutes and gigabytes. `pip install .[zoo]` installs the packages.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from tutelage.core.errors import TutelageError
from tutelage.core.files import write_file
from tutelage.core.locations import CODE
from tutelage.host.networks.plain_cnns import TIMM_NETWORKS
from tutelage.host.networks.torchvision_import import import_torchvision
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised

REPLACE = {
    "silu": "hardswish", "gelu": "relu", "mish": "hardswish", "elu": "relu",
    "sigmoid": "hardsigmoid", "avgpool_exclude_pad": "avgpool", "reflectionpad": "zeropad",
}  # fmt: skip
"""Activations that the DPU lacks -> their replacements."""

_TRANSFORMERS = ("vit_", "swin_", "maxvit")
"""Prefixes of the names of torchvision's classifiers that are not convolutional networks."""

UNCHANGED, REPLACED, REFUSED = "unchanged", "with replacements", "refused"


@dataclass(frozen=True)
class Outcome:
    """The result of trying one network.

    Attributes
    ----------
    package, name : torchvision or timm, and the network's name there
    size : (C, H, W) of its images
    outcome : UNCHANGED, REPLACED or REFUSED
    exchanged : the replacements made, such as "silu=hardswish", for REPLACED
    reason : why the network is refused, for REFUSED
    layers : number of layers of the student
    seconds : duration of tracing and quantising
    """

    package: str
    name: str
    size: tuple[int, int, int]
    outcome: str
    exchanged: tuple[str, ...] = ()
    reason: str = ""
    layers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """A network to try.

    Attributes
    ----------
    package, name : torchvision or timm, and the network's name there
    make : creates the network; returns it and the (C, H, W) of its images
    """

    package: str
    name: str
    make: Callable[[], tuple[nn.Module, tuple[int, int, int]]]


def candidates() -> Iterator[Candidate]:
    """Yield torchvision's convolutional classifiers and one network of each plain timm family."""
    models = import_module(f"{import_torchvision().__name__}.models")
    for name in models.list_models(module=models):
        if not name.startswith(_TRANSFORMERS):
            yield Candidate("torchvision", name, partial(_of_torchvision, models, name))
    timm = import_module("timm")
    for name in TIMM_NETWORKS:
        yield Candidate("timm", name, partial(_of_timm, timm, name))


def _of_torchvision(models: object, name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    weights = models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    (size,) = weights.transforms().crop_size
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options), (3, size, size)  # type: ignore[attr-defined]


def _of_timm(timm: object, name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    network = timm.create_model(name, pretrained=False)  # type: ignore[attr-defined]
    return network, tuple(network.pretrained_cfg["input_size"])


def survey(candidate: Candidate) -> Outcome:
    """Create and quantise one network, and return the outcome."""
    torch.manual_seed(0)
    network, size = candidate.make()
    begin = time.perf_counter()
    try:
        student = Student(network, size, replace=REPLACE)
        to_quantised(student, "survey")
    except TutelageError as error:
        return Outcome(candidate.package, candidate.name, size, REFUSED, reason=str(error))
    outcome = REPLACED if student.replaced else UNCHANGED
    seconds = round(time.perf_counter() - begin, 1)
    return Outcome(
        candidate.package, candidate.name, size, outcome, student.replaced,
        layers=len(student.layers), seconds=seconds,
    )  # fmt: skip


# -- the table ------------------------------------------------------------------------------


def write_table(outcomes: list[Outcome], path: Path) -> None:
    """Write the outcomes to `path` as a page of Markdown."""
    write_file(path, "\n".join(_page(outcomes)) + "\n")


def _page(outcomes: list[Outcome]) -> Iterator[str]:
    yield "# Accepted networks"
    yield ""
    yield (
        "Written by `python -m tutelage.host.networks.survey`. Each network has random weights and "
        "its default input size. A network is accepted if its normalised graph computes the same "
        "values in float, a quantised student can be made from it, and the student becomes a "
        "quantised .xmodel. How well it then classifies is shown by training and by `export` only. "
        '"With replacements" lists the activations that were replaced because the DPU lacks them '
        "(`replace` in a run's `[student]`); such a student has to be fine-tuned."
    )
    for package in dict.fromkeys(outcome.package for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.package == package]
        yield ""
        yield f"## {package}"
        yield ""
        counts = {kind: sum(o.outcome == kind for o in mine) for kind in (UNCHANGED, REPLACED)}
        accepted = sum(counts.values())
        yield (
            f"{accepted} of {len(mine)} networks are accepted, {counts[UNCHANGED]} unchanged and "
            f"{counts[REPLACED]} with replacements."
        )
        yield ""
        yield "| network | input | outcome | |"
        yield "| --- | --- | --- | --- |"
        for outcome in mine:
            size = "x".join(map(str, outcome.size))
            note = ", ".join(outcome.exchanged) or _without_paths(outcome.reason)
            yield f"| {outcome.name} | {size} | {outcome.outcome} | {note} |"


def _without_paths(reason: str) -> str:
    """Return a refusal without the directory of a file, which differs between machines."""
    before, file, rest = reason.partition(' (File "')
    path, quote, rest = rest.partition('"')
    text = f"{before} ({Path(path).name}{rest}" if file and quote else reason
    return text.replace("|", "\\|")


def main() -> None:
    """Try the networks without a result yet, and write the table of all results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="prefixes of the names to try; all by default")
    parser.add_argument("--results", type=Path, default=Path("networks.jsonl"))
    parser.add_argument("--output", type=Path, default=CODE / "docs/networks.md")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    known: dict[tuple[str, str], Outcome] = {}
    if options.results.exists():
        for line in options.results.read_text(encoding="utf-8").splitlines():
            outcome = Outcome(**json.loads(line))
            known[outcome.package, outcome.name] = outcome
    listed = list(candidates())
    for candidate in listed:
        key = candidate.package, candidate.name
        if key in known or not candidate.name.startswith(tuple(options.names or [""])):
            continue
        known[key] = survey(candidate)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(known[key])) + "\n")
        print(candidate.name, known[key].outcome, known[key].reason, flush=True)
        gc.collect()
    found = [known[c.package, c.name] for c in listed if (c.package, c.name) in known]
    write_table(found, options.output)


if __name__ == "__main__":
    main()
