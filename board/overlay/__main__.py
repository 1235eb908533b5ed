"""Load the DPU's overlay on the board, or check the requirements of a job.

    python -m tutelage.board.overlay check DIR [--model net.xmodel] [--fix]
    python -m tutelage.board.overlay load  DIR [--model net.xmodel] [--fix]   # as root

DIR has dpu.bit, dpu.hwh and dpu.xclbin, as written by `tutelage overlay`. `check` changes nothing
without --fix. Exit status: 0 no fault, 1 fault, 2 wrong use. Hazards that cannot be detected on the
board are printed and do not count as faults.
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


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tutelage.board.overlay",
        description="Load the DPU's overlay on the board, or check the requirements of a job.",
        epilog="Exit status: 0 no fault, 1 fault, 2 wrong use.",
    )
    parser.add_argument(
        "command",
        metavar="COMMAND",
        choices=("load", "check"),
        help='"load", as root: load the overlay; "check": check the requirements of a job',
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="directory with the overlay")
    parser.add_argument(
        "--board", default=DEFAULT_BOARD, help="profile of the board; default: %(default)s"
    )
    parser.add_argument("--model", type=Path, metavar="X.xmodel", help="check that it fits the DPU")
    parser.add_argument(
        "--plugin", type=Path, metavar="ops.py", help="Python file with the model's CPU ops"
    )
    parser.add_argument("--fix", action="store_true", help="repair vart.conf, and keep a backup")
    return parser


def main(arguments: Sequence[str] | None = None, root: Path = Path("/")) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    root : directory that replaces / in all system paths
    """
    options = command_line_parser().parse_args(arguments)

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
