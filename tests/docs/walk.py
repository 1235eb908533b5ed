"""How each command of the documentation is run: replacements, options and required output.

A command that is in none of these tables is run as shown and must end with status 0.
"""

from __future__ import annotations

from dataclasses import dataclass

GATE = {
    "make setup": "make lint",
    "make lint": "make lint",
    "make test": "make test-all",
    "make test-all": "make test-all",
    "make coverage": "make test-all",  # a part of the same tests, counted
    "make test-board": "make test-board-versions",
    "make test-board-full": "make test-all",
}
"""Commands that the gate runs on a clean checkout, with the words by which .ci/run does."""

ELSEWHERE = {
    "make fuzz": "tests/fuzz",  # tests run each target's first examples
    "make load": "tests/dpu/test_load.py",
    "make bench": "tests/benchmarks/test_short.py",  # five minutes; the test runs its short form
    "python -m tests.benchmarks": "tests/benchmarks/test_short.py",
    "python -m tests.benchmarks.streaming": "tests/benchmarks/test_short.py",  # ten minutes
    "python -m tutelage.host.networks.survey": "tests/host/test_survey.py",  # 40 minutes
    "make study": "tests/host/test_study.py",  # an hour; the tests run a small study
    # Hours; the tests check its cells and run a small study.
    "tutelage study host/train/cifar10_study.toml --output results/cifar10": (
        "tests/host/test_study.py"
    ),
    "tutelage study host/densenetx.toml --output results/densenetx --jobs 1": (
        "tests/host/test_study.py"
    ),
    "tutelage study host/densenetx_cpu.toml --output results/densenetx_cpu --jobs 1": (
        "tests/host/test_study.py"
    ),
    # Needs a file that the recipe's reader has written.
    "python -m pytest tests/dpu/test_ops.py tests/dpu/test_exponential.py": (
        "tests/docs/test_recipes.py"
    ),
    "python -m tutelage.host.train.demo": "tests/host/test_train_demo.py",  # an hour
}
"""Commands that take too long here, or need more, with the tests that run them in a small form."""


@dataclass(frozen=True)
class Step:
    """The special treatment of a command.

    Attributes
    ----------
    shows : text that it must print
    status : its exit status
    puts_in : replacements in the command, such as a host's name
    more : options that only make it shorter than its defaults
    until : URL; Ctrl-C ends the command as soon as it answers
    board : whether it needs the stand-in board
    before : command that the reader has run before
    seconds : time limit, s
    absent : what this machine lacks, which explains `status`; "" if nothing
    """

    shows: str = ""
    status: int = 0
    puts_in: tuple[tuple[str, str], ...] = ()
    more: str = ""
    until: str = ""
    board: bool = False
    absent: str = ""
    before: str = ""
    seconds: float = 300


# The walk's own board run and comparison, the only ones, named by their time.
_RUN = (("results/zcu104/TIME", "$(ls -d {results}/zcu104/* | head -1)"),)
_COMPARISON = (("results/bench/TIME", "$(ls -d {results}/bench/* | head -1)"),)
_PAGE = "http://127.0.0.1:8080/"
_BOARD = "--ssh-config {board}/board0/ssh_config"
_NO_DOWNLOAD = f"{_BOARD} --wheels {{board}}/wheels --accept target --accept fingerprint"
_HOST = (("user@board", "board0"),)
_SECOND_MACHINE = (
    "(accelerate launch --num_machines 2 --num_processes 4 --machine_rank 1 --main_process_ip "
    "127.0.0.1 --main_process_port 29500 -m tutelage train qkd.toml --output runs/four "
    "> second.log 2>&1 &); accelerate launch"
)
_NFS = (("/nfs/", "./nfs-"),)  # this machine's disk
_OTHER_WORKER = (
    "tutelage study study.toml --output ./nfs-mine --storage journal:./nfs-mine.journal "
    "--lease 20 > worker.log 2>&1"
)
_WINDOWS = "--seconds 1.2 --warm-up 0.3 --idle 0.5 --cool-down 0.2 --threads 1,2 --accept disturbed"

_DEPLOY = "make deploy BOARD=zcu104 HOST=user@board MODEL=models/mine"
_MEASURE = "make measure BOARD=zcu104 HOST=user@board MODEL=models/mine"
_BENCH = "--seconds 0.2 --warm-up 0.1 --repetitions 2"
_TWO_PLATFORMS = "--platform onnxruntime-float32 --platform openvino-int8"
_EPOCHS = "--set training.epochs=3"

# Run with `make -n` only, since each installs its own packages (and the audit needs PyPI's
# advisories).
_DRY = (("make ", "make -n "),)
_NO_FILES = Step(status=1, absent="the overlay's files", shows="overlay")

STEPS = {
    "make audit": Step(puts_in=_DRY, shows="pip-audit --strict"),
    "make test-newest": Step(puts_in=_DRY, shows="--resolution highest"),
    "make test-oldest": Step(puts_in=_DRY, shows="--resolution lowest-direct"),
    "make demo": Step(shows="frames     300 in, 300 classified, 0 failed"),
    "python3 app/classify.py --camera --web": Step(until=_PAGE, shows="stopped on request"),
    "python3 app/classify.py --camera --web 0.0.0.0:8080": Step(until=_PAGE, shows="?token="),
    "python3 app/classify.py --source rtsp://cam.local/live --output seen.jsonl": Step(
        puts_in=(("rtsp://cam.local/live", "{rtsp}"),), more="--frames 20",
        shows="20 in, "),
    "tutelage check net.py:Net --input 3x32x32 --weights net.pth --images photos": Step(
        shows="net.py:Net on zcu104: accepted"),
    "tutelage diff a.xmodel b.xmodel": Step(shows="equal: "),
    "tutelage run board.xmodel --input in.npy --output out.npy --engine instructions": Step(
        shows="8 in "),
    "tutelage disasm board.xmodel --summary": Step(shows="CONV for LOAD"),
    "tutelage asm code.s -o code.bin": Step(shows="170 instructions, 3,364 bytes"),
    "tutelage shim your_board_script.py --its --own arguments": Step(
        puts_in=(("--its --own arguments", "net.xmodel in.npy out.npy"),), shows="done 8"),
    "tutelage train student.toml --output runs/student": Step(more=_EPOCHS),
    "tutelage train student.toml --output runs/teacher --set student.network=densenet-wide": Step(
        more=_EPOCHS),
    "tutelage train qkd.toml --output runs/w4a4 --set quantisation.weights=4 "
    "--set quantisation.activations=4": Step(more=_EPOCHS),
    "accelerate launch --cpu --num_processes 2 -m tutelage train qkd.toml --output runs/two": Step(
        more=_EPOCHS),
    "tensorboard --logdir runs": Step(until="http://localhost:6006/"),
    "accelerate launch --num_machines 2 --num_processes 4 --machine_rank 0 "
    "--main_process_ip 192.168.1.10 --main_process_port 29500 "
    "-m tutelage train qkd.toml --output runs/four": Step(
        puts_in=(("192.168.1.10", "127.0.0.1"), ("accelerate launch", _SECOND_MACHINE)),
        shows="runs/four"),
    "tutelage explore explore.toml --trials 500 -o out": Step(
        puts_in=(("500", "60"),), shows="Optuna sampled some of 36 combinations"),
    "tutelage explore explore.toml --latency 2 --capacity accuracy --trials 40 --epochs 3 "
    "-o out": Step(puts_in=(("40", "2"), ("epochs 3", "epochs 1")), shows="DenseNets trained"),
    "tutelage study study.toml --output /nfs/mine --storage journal:/nfs/mine.journal": Step(
        before="sed -i 's/epochs = 6/epochs = 3/' study.toml",
        puts_in=(*_NFS, ("tutelage study", f"({_OTHER_WORKER} &); tutelage study")),
        more="--lease 20", shows="| qkd |", seconds=600),
    "tutelage explore explore.toml --latency 2 --capacity accuracy --trials 40 --epochs 3 "
    "--storage journal:/nfs/explore.journal -o found": Step(
        puts_in=(*_NFS, ("40", "2"), ("epochs 3", "epochs 1")), shows="DenseNets trained"),
    "tutelage compile models/mine": Step(shows="compiled for ZCU104 by Tutelage's own"),
    "tutelage compile models/mine --target zcu104": Step(shows="compiled for ZCU104"),
    "tutelage compile models/mine --explain --banks banks.svg": Step(
        shows="results never reach the DDR"),
    "tutelage compile models/mine --compiler vai_c_xir --dry-run": Step(
        status=2, absent="AMD's compiler", shows="xilinx/vitis-ai"),
    "tutelage compile app/demo": Step(shows="compiled for ZCU104"),
    "make overlay BOARD=zcu104 FROM=$HOME/Downloads": Step(
        status=2, absent="AMD's files", shows="Downloads"),
    "tutelage export models/fashion-densenet -o DIR": Step(status=2, absent="Fashion-MNIST"),
    "tutelage export models/cifar10-densenet -o DIR": Step(
        status=2, absent="CIFAR-10 as JPEG files", shows="cifar10_jpeg"),
    "make overlay BOARD=zcu104": Step(status=2, absent="AMD's address", shows="overlay"),
    "tutelage overlay zcu104 --output DIR --url https://mirror.example/": Step(
        status=1, absent="that mirror", shows="mirror.example"),
    "python3 -m tutelage.board.overlay load overlays/zcu104/files --fix": _NO_FILES,
    "python3 -m tutelage.board.overlay check overlays/zcu104/files --model net.xmodel": _NO_FILES,
    "python -m tutelage.board.overlay check DIR --model net.xmodel": _NO_FILES,
    "python -m tutelage.board.overlay load DIR --model net.xmodel": _NO_FILES,
    "make overlay-rebuild BOARD=zcu104 DPU_PYNQ=/path/to/DPU-PYNQ": Step(
        status=2, absent="Vitis", shows="DPU-PYNQ"),
    _DEPLOY: Step(board=True, puts_in=_HOST, more=f"ARGS='{_NO_DOWNLOAD}'", shows="deployed"),
    "make rollback HOST=user@board": Step(
        before=f"make deploy HOST=board0 MODEL=app/demo ARGS='{_NO_DOWNLOAD}'",
        board=True, puts_in=_HOST, more=f"ARGS='{_BOARD}'", shows="board0"),
    _MEASURE: Step(board=True, puts_in=_HOST, more=f"ARGS='{_NO_DOWNLOAD} {_WINDOWS}'", shows="±"),
    "make deploy BOARD=zcu104 HOST=user@board MODEL=models/ptq": Step(
        board=True, puts_in=_HOST, more=f"ARGS='{_NO_DOWNLOAD}'", shows="deployed"),
    "make measure BOARD=zcu104 HOST=user@board MODEL=models/ptq": Step(
        board=True, puts_in=_HOST, more=f"ARGS='{_NO_DOWNLOAD} {_WINDOWS}'", shows="±"),
    "make measure HOST=user@board ARGS=--attach": Step(
        board=True, puts_in=(*_HOST, ("ARGS=--attach", f"ARGS='--attach {_BOARD}'")), shows="±"),
    "python -m tutelage.app.measure --output results/here --realtime zcu104": Step(
        more=_WINDOWS, shows="±"),
    "tutelage bench models/mine --images photos": Step(more=_BENCH),
    "tutelage bench app/demo": Step(more=_BENCH),
    "tutelage bench densenet-121 --input 3x224x224": Step(
        more=f"{_BENCH} --platform openvino-float32", puts_in=(("3x224x224", "3x64x64"),)),
    "tutelage bench models/mine --images photos --dpu results/zcu104/TIME "
    "--watts openvino-int8=31.5": Step(
        board=True, more=f"{_BENCH} {_TWO_PLATFORMS}", puts_in=_RUN),
    "tutelage report --run results/zcu104/TIME --bench results/bench/TIME "
    "--model net.xmodel": Step(
        board=True, puts_in=(*_RUN, *_COMPARISON)),
    "sudo .venv/bin/python -m tests.stand_in_board --folder /tmp/board": Step(
        board=True, status=1, shows="is there already",  # the fixture `board` has started it
        puts_in=(("sudo ", ""), ("/tmp/board", "{board}"))),
}  # fmt: skip


@dataclass(frozen=True)
class Output:
    """The command that prints a page's block, and whether its numbers depend on the machine."""

    command: str
    numbers_differ: bool = False


SHOWN = {
    "runs on": Output("make demo", numbers_differ=True),
    "# type kernel output fix": Output("tutelage inspect net.xmodel"),
    "# type kernel output MACs": Output("tutelage predict densenet-121 --input 3x224x224"),
    "growth blocks": Output("tutelage explore --latency 0.6 -o out"),
    "models/mine: quantised.xmodel,": Output(
        "tutelage export runs/qkd -o models/mine", numbers_differ=True
    ),
}
"""Blocks of output by their first words."""

NO_OUTPUT = (
    "import numpy as np",
    "student = tutelage.quantise(network, loader",  # tests/host/test_quantised_network.py does it
    "from tutelage.dpu.runtime import shim",
    "acc = sum(q_in * q_w)",
    "v = (sum of",
    "acc = sum of x",
    "sum v =",
)
"""Blocks that are none: code, formulas, and the list of directories."""
