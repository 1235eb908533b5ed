"""Load the DPU's overlay on the board, or look at what must be right before a job runs.

    python -m tutelage.board.overlay check DIR [--model net.xmodel] [--fix]  # only --fix changes it
    python -m tutelage.board.overlay load  DIR [--model net.xmodel] [--fix]   # as root

DIR has dpu.bit, dpu.hwh and dpu.xclbin, as `tutelage overlay` leaves them. Exit status:
0 all is well, 1 something is wrong, 2 wrong use. Hazards that cannot be read off the board are
printed and do not count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.board.overlay.commands import check, load
from tutelage.board.overlay.model_fit import ModelFile
from tutelage.board.overlay.site import site_of
from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.errors import DONE, FAILED
from tutelage.core.messages import run_command


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tutelage.board.overlay",
        description="Load the DPU's overlay on the board, or check what a job needs.",
        epilog="Exit status: 0 all is well, 1 something is wrong, 2 wrong use.",
    )
    parser.add_argument("command", choices=("load", "check"))
    parser.add_argument("folder", metavar="DIR", type=Path, help="directory with dpu.bit and so on")
    parser.add_argument("--board", default=DEFAULT_BOARD, help="default: %(default)s")
    parser.add_argument("--model", type=Path, metavar="X.xmodel", help="check that it fits the DPU")
    parser.add_argument(
        "--plugin", type=Path, metavar="ops.py", help="the model's own CPU operators"
    )
    parser.add_argument("--fix", action="store_true", help="repair vart.conf, with a backup")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, root: Path = Path("/")) -> int:
    """Run the command line; `root` stands for / in all paths of the system."""
    options = _arguments(arguments)

    def work() -> int:
        site = site_of(options.board, options.folder, root)
        model = ModelFile(options.model, options.plugin) if options.model else None
        if options.command == "check":
            return DONE if check(site, model, options.fix) else FAILED
        load(site, model, options.fix)
        return DONE

    return run_command("overlay", work)


if __name__ == "__main__":
    sys.exit(main())
