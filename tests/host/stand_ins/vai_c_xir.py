"""A stand-in for AMD's vai_c_xir, which exists only in AMD's containers.

It takes AMD's options, writes its arguments to $STAND_IN_RECORD and compiles with the emulator's
compiler, then gives the result the name and fingerprint of a board's DPU. The result has no
instructions: it tests the call of the real compiler and the check of its result, not the output of
the real compiler. $STAND_IN selects a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.xmodel.graph import Graph

PRINTED = {
    "no-arch": 'F0101 arch_util.cpp:12] [UNILOG][FATAL] Cannot open file "arch.json": not found',
    "bad-option": "usage: vai_c_xir [-h] ...\nvai_c_xir: error: unrecognized arguments: -n model",
    "memory": "terminate called after throwing an instance of 'std::bad_alloc'",
    "op": "[UNILOG][FATAL] unsupported op type Mylayer\n*** Check failure stack trace: ***",
    "check": "F0101 pass.cpp:77] Check failed: fix_point != 0",
    "unknown": "first line\nsegment \x1b[31m seven\nlast line",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="vai_c_xir")
    for option in ("-x", "-a", "-o", "-n"):
        parser.add_argument(option, required=True)
    options = parser.parse_args()
    mode = os.environ.get("STAND_IN", "")
    print("* a stand-in of vai_c_xir, version 2.5.0-stand-in", flush=True)
    if mode in PRINTED:
        print(PRINTED[mode], file=sys.stderr)
        return 3
    if mode == "hang":
        child = subprocess.Popen(["/bin/sleep", "600"])
        Path(os.environ["STAND_IN_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
        (Path(options.o) / f"{options.n}.xmodel").write_bytes(b"half a res")
        time.sleep(600)
    if mode == "nothing":
        return 0
    write(Path(options.x), Path(options.o) / f"{options.n}.xmodel", mode)
    with Path(os.environ["STAND_IN_RECORD"]).open("a") as record:
        arch = json.loads(Path(options.a).read_text()) if Path(options.a).is_file() else None
        record.write(json.dumps({"argv": sys.argv[1:], "arch": arch}) + "\n")
    return 0


def write(source: Path, result: Path, mode: str) -> None:
    if mode == "garbage":
        result.write_bytes(b"no xmodel at all")
        return
    graph = compile_graph(Graph.deserialize(source))
    for part in graph.get_root_subgraph().toposort_child_subgraph():
        if part.get_attr("device") == "DPU":
            part.set_attr("dpu_name", "DPUCZDX8G_ISA1_B4096")
            number = 0x101000016010406 if mode == "other-dpu" else 0x101000016010407
            part.set_attr("dpu_fingerprint", number, "uint64_value")
    graph.serialize(result)


if __name__ == "__main__":
    sys.exit(main())
