"""A stand-in for docker and podman that "has" the images of $STAND_IN_IMAGES.

`run` checks the options to stay offline and not to pull, then runs the stand-in for vai_c_xir
in a new session, as a daemon would, with mount points mapped back to real paths.
`kill NAME` ends that process. All arguments go to $STAND_IN_RECORD.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

PIDS = Path(os.environ["STAND_IN_RECORD"] + ".pids")


def main() -> int:
    arguments = sys.argv[1:]
    with Path(os.environ["STAND_IN_RECORD"]).open("a") as record:
        record.write(json.dumps({"engine": Path(sys.argv[0]).name, "argv": arguments}) + "\n")
    if arguments[0] == "image":
        return inspect(arguments[-1])
    if arguments[0] == "kill":
        os.kill(json.loads(PIDS.read_text())[arguments[1]], signal.SIGKILL)
        return 0
    return run(arguments[1:])


def inspect(image: str) -> int:
    if os.environ.get("STAND_IN_IMAGES") == "no daemon":
        print("Cannot connect to the Docker daemon at unix:///x.sock.", file=sys.stderr)
        return 1
    if image in os.environ.get("STAND_IN_IMAGES", "").split():
        return 0
    print(f"Error response from daemon: No such image: {image}", file=sys.stderr)
    return 1


def run(arguments: list[str]) -> int:
    options = dict(itertools.pairwise(arguments))
    assert options["--network"] == "none" and options["--pull"] == "never"
    assert options["--user"] == f"{os.getuid()}:{os.getgid()}"
    places = dict(mount(a) for o, a in itertools.pairwise(arguments) if o == "--mount")
    at = arguments.index("vai_c_xir")
    inside = [real(argument, places) for argument in arguments[at + 1 :]]
    compiler = Path(sys.argv[0]).with_name("vai_c_xir_inside")
    process = subprocess.Popen([str(compiler), *inside], start_new_session=True)
    PIDS.write_text(json.dumps({options["--name"]: process.pid}))
    return process.wait()


def mount(text: str) -> tuple[str, str]:
    fields = next(csv.reader([text]))
    named = dict(field.split("=", 1) for field in fields if "=" in field)
    assert named["type"] == "bind"
    assert ("readonly" in fields) == (named["target"] == "/model")
    return named["target"], named["source"]


def real(argument: str, places: dict[str, str]) -> str:
    for target, source in places.items():
        if argument == target or argument.startswith(f"{target}/"):
            return source + argument[len(target) :]
    return argument


if __name__ == "__main__":
    sys.exit(main())
