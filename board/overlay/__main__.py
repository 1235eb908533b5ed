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
from tutelage.board.overlay.site import OverlayError, OverlayUsageError, site_of
from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.text import shown
from tutelage.core.toml_file import TomlError

DONE, FAILED, WRONG_USE = 0, 1, 2


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
    try:
        site = site_of(options.board, options.folder, root)
        model = ModelFile(options.model, options.plugin) if options.model else None
        if options.command == "check":
            return DONE if check(site, model, options.fix) else FAILED
        load(site, model, options.fix)
        return DONE
    except (OverlayError, TomlError) as error:
        return _complain(str(error), FAILED)
    except OverlayUsageError as error:
        return _complain(str(error), WRONG_USE)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILED)


def _complain(text: str, status: int) -> int:
    print(f"overlay: {shown(text)}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
