"""A stand-in board for deployments and measurements without a ZCU104.

    sudo .venv/bin/python -m tests.stand_in_board --folder /tmp/board

It runs until Ctrl-C and prints the options for make in another terminal. Its DPU is the emulation
at the pace predicted for a ZCU104, and its power rails are files with made-up watts, which rise
while the DPU works: its figures are not measurements of hardware, and the summary says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from tests.stand_in_board import StandInBoard, why_not
from tests.stand_in_board.deployable import make_wheel
from tests.stand_in_board.sensors import INA226_FORMS


def main() -> int:
    """Run a board until SIGINT or SIGTERM; return 0, or 1 if it cannot be created."""
    parser = argparse.ArgumentParser(prog="python -m tests.stand_in_board", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR",
                        help="new directory for keys, SSH configuration and wheels")  # fmt: skip
    parser.add_argument("--ina226", choices=INA226_FORMS, default=INA226_FORMS[0],
                        help="how Linux shows the 12V rail's monitor")  # fmt: skip
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    reason = why_not()
    if reason is None and folder.exists():
        reason = f"{folder} is there already"
    if reason is not None:
        print(f"no simulated board: {reason}", file=sys.stderr)
        return 1
    # Repeated signals, in any thread, must not leave a partial board behind.
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    try:
        make_wheel("psutil", wheels)  # the image lacks it, and the board reaches no package index
        with StandInBoard(folder, dpu="admitted emulation", ina226=options.ina226) as board:
            _give_to_caller(folder)
            arguments = (f"--ssh-config {board.ssh_config} --wheels {wheels} "
                         "--accept target --accept fingerprint")  # fmt: skip
            print(f"{board.host} is up, no hardware. In another terminal:\n"
                  f"    make deploy HOST={board.host} MODEL=models/mine ARGS='{arguments}'\n"
                  "Ctrl-C ends it.", flush=True)  # fmt: skip
            ended.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _give_to_caller(folder: Path) -> None:
    """Let the user who called sudo read the key; SSH refuses keys that others can read."""
    if "SUDO_UID" in os.environ:
        owner = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
        for path in (folder, folder / "board0", *(folder / "board0").glob("*"),
                     folder / "wheels"):  # fmt: skip
            if path.name not in ("disk", "seed", "seed.sys"):
                os.chown(path, *owner)


if __name__ == "__main__":
    sys.exit(main())
