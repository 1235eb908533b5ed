"""Run the benchmarks, `make bench`, and compare them with those of the last release."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tests.benchmarks import kept
from tests.benchmarks.figures import leaves, measured
from tests.benchmarks.kept import Change, Kept
from tests.benchmarks.parts import (
    DEFAULT,
    PARTS,
    TOTAL_SECONDS,
    Progress,
    Run,
    run_parts,
)
from tutelage.core.digits import digits, fixed
from tutelage.core.errors import DONE, FAILED, INTERRUPTED
from tutelage.core.messages import run_command, run_program, say

PROGRAM = "make bench"
KEPT_RUNS = 3


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; all")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--full", dest="extent", action="store_const", const="full", default=DEFAULT,
                     help="measure longer, a quarter of an hour")  # fmt: skip
    how.add_argument("--short", dest="extent", action="store_const", const="short",
                     help="run each part once: the figures mean nothing")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--runs", type=int, default=0, help=f"default 1, {KEPT_RUNS} with --keep")
    parser.add_argument("--against", default="", metavar="NAME",
                        help="compare with this kept result, not the newest")  # fmt: skip
    parser.add_argument("--keep", default="", metavar="NAME",
                        help="keep medians and ranges in kept/NAME.json, as 0.2.0")  # fmt: skip
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in names:
            parser.error(f"no part {name!r}; there are {', '.join(names)}")
    if options.keep and (options.extent == "short" or not kept.NAME.fullmatch(options.keep)):
        parser.error("--keep NAME takes letters, digits, dots and dashes, and no --short")
    options.runs = options.runs or (KEPT_RUNS if options.keep else 1)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _options(arguments)
    return run_command(PROGRAM, lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    then = None if options.extent == "short" else kept.read(options.against)
    runs = _runs(options)
    figures, about = [run.figures for run in runs], kept.about()
    now = measured(figures)
    changes = kept.compare(now, about["machine"], then) if then else {}
    if options.json:
        print(json.dumps(_report(about, runs, then, changes), indent=2))
    else:
        print(*_table(figures, then, changes), sep="\n")
    if runs[-1].interrupted:
        say(PROGRAM, "interrupted; what was measured by then is above")
        return INTERRUPTED
    if any(run.failed for run in runs):
        return FAILED
    if options.keep:
        about = {"name": options.keep, "extent": options.extent, "runs": options.runs, **about}
        say(PROGRAM, f"kept in {kept.keep(Kept(about, now))}")
    return FAILED if options.parts and runs[0].left_out else DONE


def _runs(options: argparse.Namespace) -> list[Run]:
    parts = [part for part in PARTS if not options.parts or part.name in options.parts]
    hasty = options.extent == DEFAULT and not options.parts and options.runs == 1
    progress = Progress(parts * options.runs, options.extent)
    runs: list[Run] = []
    while len(runs) < options.runs and not (runs and runs[-1].interrupted):
        limit = TOTAL_SECONDS if hasty else math.inf
        runs.append(run_parts(parts, options.extent, limit, progress))
    return runs


def _report(
    about: dict[str, Any], runs: list[Run], then: Kept | None, changes: dict[str, Change]
) -> dict[str, Any]:
    report: dict[str, Any] = {"about": about, "runs": [asdict(run) for run in runs]}
    if then:
        rows = {name: asdict(change) for name, change in changes.items()}
        report["compared"] = {"with": then.about, "figures": rows}
    return report


def _table(
    runs: list[dict[str, Any]], then: Kept | None, changes: dict[str, Change]
) -> Iterator[str]:
    """Yield a line for each figure, with the kept one if they are comparable."""
    values, now = dict(leaf for run in runs for leaf in leaves(run)), measured(runs)
    longest = max(map(len, values), default=0)
    if then and changes:
        yield f"then: {then.title}"
        yield f"{'':{longest}}  {'now':>10}  {'then':>10}  {'change':>8}"
    for name, value in values.items():
        text = value if isinstance(value, str) else digits(now[name].value)
        line = f"{name:{longest}}  {text:>10}"
        if change := changes.get(name):
            percent = f"{fixed(100 * change.change, 1)} %"
            line += f"  {digits(change.then):>10}  {percent:>8}  {change.verdict}"
        yield line.rstrip()
    if changes:
        worse = [name for name, change in changes.items() if change.verdict == "worse"]
        yield f"{len(worse)} of {len(changes)} are worse by more than their spread"
        yield from (f"  {name}" for name in worse)


if __name__ == "__main__":
    sys.exit(run_program(main))
