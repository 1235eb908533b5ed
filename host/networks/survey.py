"""Which networks of torchvision and timm become DPU networks: a table, written to docs/networks.md.

    python -m tutelage.host.networks.survey [--results FILE] [NAME ...]

Every network has random weights and its own input size. It is accepted where its trace computes
what it does (in float), a student is made of it and that becomes a quantised graph; activations
that the DPU lacks are exchanged. Results are kept by name in a file of JSON lines, so that a run
that was interrupted goes on; networks of hundreds of millions of parameters take minutes and
gigabytes. The packages come with `pip install .[zoo]`.
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
"""What the DPU lacks, and what is taken for it."""

_TRANSFORMERS = ("vit_", "swin_", "maxvit")
"""Beginnings of the names of torchvision's classifiers that are no convolutional networks."""

AS_IT_IS, REPLACED, REFUSED = "as it is", "with replace", "refused"


@dataclass(frozen=True)
class Outcome:
    """What became of a network.

    Attributes
    ----------
    package, name : torchvision or timm, and the network's name there
    size : (C, H, W) of its images
    outcome : AS_IT_IS, REPLACED or REFUSED
    exchanged : "silu=hardswish" and its like, for REPLACED
    reason : the refusal
    layers : of the student
    seconds : of tracing and quantising
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
    """A network that is to be tried."""

    package: str
    name: str
    make: Callable[[], tuple[nn.Module, tuple[int, int, int]]]


def candidates() -> Iterator[Candidate]:
    """Yield the convolutional classifiers of torchvision and one of each plain family of timm."""
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
    """Try one network."""
    torch.manual_seed(0)
    network, size = candidate.make()
    begin = time.perf_counter()
    try:
        student = Student(network, size, replace=REPLACE)
        to_quantised(student, "survey")
    except TutelageError as error:
        return Outcome(candidate.package, candidate.name, size, REFUSED, reason=str(error))
    outcome = REPLACED if student.replaced else AS_IT_IS
    seconds = round(time.perf_counter() - begin, 1)
    return Outcome(
        candidate.package, candidate.name, size, outcome, student.replaced,
        layers=len(student.layers), seconds=seconds,
    )  # fmt: skip


# -- the table ------------------------------------------------------------------------------


def write_table(outcomes: list[Outcome], path: Path) -> None:
    """Write the outcomes as Markdown."""
    write_file(path, "\n".join(_page(outcomes)) + "\n")


def _page(outcomes: list[Outcome]) -> Iterator[str]:
    yield "# Networks that are accepted"
    yield ""
    yield (
        "Written by `python -m tutelage.host.networks.survey`. Each network has random weights and "
        "images of its own size. Accepted means: the normalised graph computes in float what the "
        "network does, a quantised student is made of it, and that becomes a quantised .xmodel. "
        "How well it then classifies is another question, which training and `export` answer. "
        '"With replace" names what is exchanged (`replace` in a run\'s `[student]`), because the '
        "DPU has no such function; the student has to be fine-tuned then."
    )
    for package in dict.fromkeys(outcome.package for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.package == package]
        yield ""
        yield f"## {package}"
        yield ""
        counts = {kind: sum(o.outcome == kind for o in mine) for kind in (AS_IT_IS, REPLACED)}
        accepted = sum(counts.values())
        yield (
            f"{accepted} of {len(mine)} networks are accepted, {counts[AS_IT_IS]} as they are and "
            f"{counts[REPLACED]} with replace."
        )
        yield ""
        yield "| network | input | outcome | |"
        yield "| --- | --- | --- | --- |"
        for outcome in mine:
            size = "x".join(map(str, outcome.size))
            note = ", ".join(outcome.exchanged) or _without_paths(outcome.reason)
            yield f"| {outcome.name} | {size} | {outcome.outcome} | {note} |"


def _without_paths(reason: str) -> str:
    """A refusal without the place of a file, which differs from machine to machine."""
    before, file, rest = reason.partition(' (File "')
    path, quote, rest = rest.partition('"')
    text = f"{before} ({Path(path).name}{rest}" if file and quote else reason
    return text.replace("|", "\\|")


def main() -> None:
    """Try what was not tried before, and write the table of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="beginnings of names; all by default")
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
