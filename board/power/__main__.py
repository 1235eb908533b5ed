"""Power for processes that do not import this package: `python -m tutelage.board.power rapl`.

The first line on standard output gives source, reason and total_rail; the source is "none" if
nothing can be measured. Each line {"start": s, "end": s, "frames": n} on standard input is answered
with `Power.report` of that window, as JSON. Times are monotonic, and comparable between processes
on Linux.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.board.power import PowerError, open_power
from tutelage.board.power.sampler import SYSFS
from tutelage.board.power.sources.registry import source_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until standard input ends; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tutelage.board.power", allow_abbrev=False)
    parser.add_argument("source", choices=("auto", *source_names(), "none"))
    parser.add_argument("--sysfs", type=Path, default=SYSFS, help="mount point of sysfs")
    options = parser.parse_args(arguments)
    try:
        power = open_power(options.source, sysfs=options.sysfs)
    except PowerError as error:
        _say({"source": "none", "reason": str(error), "total_rail": None})
        return 0
    power.start()
    _say({"source": power.source, "reason": power.reason, "total_rail": power.total_rail})
    for line in sys.stdin:
        window = json.loads(line)
        _say(power.report(window["start"], window["end"], window["frames"]))
    power.close()
    return 0


def _say(figures: object) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    sys.exit(main())
