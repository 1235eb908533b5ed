"""`tutelage compile`, with stand-ins for AMD's compiler and for docker and podman.

AMD's compiler itself was never run by these tests: it exists in AMD's containers only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="host/ needs PyTorch, which is not installed")
pytest.importorskip("accelerate", reason="host/ needs accelerate, which is not installed")

from tests.dpu.dense_forms import DENSE_FORMS, dense_network
from tutelage.__main__ import main
from tutelage.app.model import load_classifier
from tutelage.core.fingerprint import dpu_parts
from tutelage.core.toml_file import to_toml
from tutelage.dpu.compiler.emulation import compile_graph
from tutelage.dpu.compiler.quantised import QuantisedModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.ops.reference import load_plugins
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile import check as checks
from tutelage.host.compile import vai_compiler
from tutelage.host.compile.check import check_compiled, check_source
from tutelage.host.compile.target import CompileError, CompileUsageError, load_target
from tutelage.host.train.config import read_toml

STAND_INS = Path(__file__).with_name("stand_ins")
ZCU104 = load_target("zcu104")
IMAGE = next(iter(ZCU104.images))
LABELS = [f"label {i}" for i in range(10)]

AMD = ("--compiler", "vai_c_xir")
"""Options that take AMD's compiler, or what stands in for it."""

Run = Callable[..., tuple[int, str, str]]


def _network(seed: int = 0, point: int = 3) -> QuantisedModel:
    rng = np.random.default_rng(seed)

    def integers(*shape: int) -> Any:
        return rng.integers(-30, 30, shape, dtype=np.int8)

    model = QuantisedModel("net")
    image = model.input("image", (1, 8, 8, 3), 5)
    first = model.conv2d(
        "first", image, integers(8, 3, 3, 3), 7, integers(8), 8, 4, pad=(1, 1, 1, 1),
        nonlinear="RELU",
    )  # fmt: skip
    second = model.conv2d(
        "second", first, integers(8, 3, 3, 8), 7, integers(8), 8, 4, pad=(1, 1, 1, 1),
        nonlinear="RELU",
    )  # fmt: skip
    pooled = model.avg_pool("pool", model.concat("both", [first, second]), (8, 8), (1, 1), 4)
    dense = model.conv2d("dense", pooled, integers(10, 1, 1, 16), 7, integers(10), 8, point)
    model.output(model.reshape("flat", dense, (1, 10)))
    return model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory before compilation, with an awkward name."""
    folder = tmp_path / "- my, model"
    folder.mkdir()
    _network().save(folder / "quantised.xmodel")
    checksum = hashlib.sha256((folder / "quantised.xmodel").read_bytes()).hexdigest()
    description = {
        "input": {"width": 8, "height": 8, "colour": "rgb", "scale": [1e-05]},
        "output": {"labels": LABELS},
        "provenance": {"dataset": 'a "test" ü'},
        "checksums": {"quantised.xmodel": checksum},
    }
    (folder / "model.toml").write_text(to_toml(description), encoding="utf-8")
    return folder


@pytest.fixture
def path_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH, with nothing in it; stand-ins write to record.jsonl beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("STAND_IN_RECORD", str(tmp_path / "record.jsonl"))
    monkeypatch.setenv("STAND_IN_PIDS", str(tmp_path / "pids"))
    monkeypatch.delenv("STAND_IN", raising=False)
    return folder


def _install(folder: Path, name: str, repo_root: Path, script: str = "vai_c_xir") -> Path:
    """Put a stand-in that this Python runs into a directory."""
    text = (STAND_INS / f"{script}.py").read_text()
    text = text.replace(
        "import json\n", f"import sys; sys.path.insert(0, {str(repo_root)!r})\nimport json\n", 1
    )
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_path(path_dir: Path, repo_root: Path) -> Path:
    """The stand-in for vai_c_xir, on PATH."""
    return _install(path_dir, "vai_c_xir", repo_root)


@pytest.fixture
def engines(
    path_dir: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Installer of stand-ins for container engines with one of AMD's images."""

    def install(*names: str, images: str = IMAGE) -> None:
        _install(path_dir, "vai_c_xir_inside", repo_root)
        for name in names:
            _install(path_dir, name, repo_root, "engine")
        monkeypatch.setenv("STAND_IN_IMAGES", images)

    return install


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line: exit status, standard output and standard error."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        status = main(["compile", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return call


def _record(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- the ways to a compiler -------------------------------------------------------------------


def test_a_compiler_on_path(model: Path, on_path: Path, run: Run, tmp_path: Path) -> None:
    status, out, error = run(*AMD, "--json", "--", model)
    assert status == 0, error
    figures = json.loads(out)
    assert figures["target"] == "ZCU104" and figures["fingerprint"] == "0x101000016010407"
    assert figures["version"] == "2.5.0-stand-in"
    assert "the same outputs on the emulation for 8 random images" in figures["checks"]
    assert _names(model) == {"quantised.xmodel", "model.toml", "model.xmodel", "compile.log"}
    (call,) = _record(tmp_path)
    options = dict(zip(call["argv"][::2], call["argv"][1::2], strict=True))
    assert options["-x"] == str(model / "quantised.xmodel") and options["-n"] == "model"
    assert call["arch"] == {"fingerprint": "0x101000016010407"}
    log, command = error.splitlines()
    assert log == f"log: {model / 'compile.log'}"
    assert command.startswith("running ") and shlex.split(command)[1] == str(on_path)


def test_the_result_is_a_model_directory(model: Path, on_path: Path, run: Run) -> None:
    assert run(*AMD, "--", model)[0] == 0
    classifier = load_classifier(model)  # checks the checksums
    assert classifier.labels == tuple(LABELS) and classifier.form.scale == (1e-05,) * 3
    assert classifier.provenance["dataset"] == 'a "test" ü'
    origin = classifier.provenance["compile"]
    assert origin["compiler"] == str(on_path) and origin["fingerprint"] == "0x101000016010407"
    assert set(read_toml(model / "model.toml")["checksums"]) == {"quantised.xmodel", "model.xmodel"}
    assert run(*AMD, "--", model)[0] == 0  # once more, over the first result


def test_another_output_has_no_checksums_of_missing_files(
    model: Path, on_path: Path, run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "a b" / "-out"
    assert run(*AMD, "--output", output, "--", model)[0] == 0
    assert _names(output) == {"model.toml", "model.xmodel", "compile.log"}
    assert load_classifier(output).labels == tuple(LABELS)
    assert _names(model) == {"quantised.xmodel", "model.toml"}


def test_a_bare_file_gets_no_description(model: Path, on_path: Path, run: Run) -> None:
    bare = model.parent / "-bare file.xmodel"
    (model / "quantised.xmodel").rename(bare)
    output = model.parent / "out"
    assert run(*AMD, "-o", output, "--", bare)[0] == 0
    assert _names(output) == {"model.xmodel", "compile.log"}
    status, _, error = run("-o", model, "--", bare)
    assert status == 2 and "model.toml describes another model" in error


def test_the_installed_arch_is_taken_where_there_is_one(tmp_path: Path) -> None:
    arch = tmp_path / "arch.json"
    target = dataclasses.replace(ZCU104, arch=str(arch))
    compiler, job = (
        vai_compiler.Compiler(program="/c"),
        vai_compiler.CompilerJob(tmp_path, tmp_path / "s"),
    )
    assert vai_compiler.command_line(compiler, target, job)[4] == str(job.scratch / "arch.json")
    arch.write_text("{}")
    assert vai_compiler.command_line(compiler, target, job)[4] == str(arch)


def test_an_own_compiler_and_an_own_arch(
    model: Path, path_dir: Path, run: Run, tmp_path: Path, repo_root: Path
) -> None:
    program = _install(tmp_path, "my compiler", repo_root)
    arch = tmp_path / "-arch.json"
    arch.write_text('{"mine": 1}')
    assert run("--compiler", program, "--arch", arch, "--", model)[0] == 0
    assert _record(tmp_path)[0]["arch"] == {"mine": 1}


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_compiler_in_a_container(
    model: Path, engines: Callable[..., None], run: Run, tmp_path: Path, engine: str
) -> None:
    engines(engine)
    status, out, error = run(*AMD, "--target", "zcu104", "--json", "--", model)
    assert status == 0, error
    assert json.loads(out)["compiler"] == f"vai_c_xir in {IMAGE}"
    inspect, call, inside = _record(tmp_path)
    assert inspect["argv"][:2] == ["image", "inspect"] and call["engine"] == engine
    at = call["argv"].index(IMAGE)
    assert call["argv"][at + 1 : at + 6] == list(ZCU104.command[1:])
    assert ("keep-id" in call["argv"]) == (engine == "podman")
    options = call["argv"][call["argv"].index("vai_c_xir") + 1 :]
    assert options == ["-x", "/model/quantised.xmodel", "-a", ZCU104.arch,
                       "-o", "/output", "-n", "model"]  # fmt: skip
    assert inside["argv"][1] == str(model / "quantised.xmodel")


def test_podman_is_asked_where_docker_has_no_image(
    model: Path, engines: Callable[..., None], run: Run, tmp_path: Path, path_dir: Path
) -> None:
    engines("podman", images="mine:1")
    docker = path_dir / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    arch = tmp_path / "arch.json"
    arch.write_text("{}")
    assert run("--image", "mine:1", "--arch", arch, "--", model)[0] == 0
    call = _record(tmp_path)[-2]
    assert call["engine"] == "podman" and "/output/arch.json" in call["argv"]


@pytest.mark.parametrize(
    "names, images, words",
    [
        ((), "", "neither vai_c_xir nor docker nor podman is on PATH"),
        (("docker",), "other:1", f"pull it: docker pull {IMAGE}"),
        (("podman",), "other:1", f"pull it: podman pull {IMAGE}"),
        (("docker",), "no daemon", "Cannot connect to the Docker daemon"),
    ],
)
def test_no_compiler(
    model: Path, engines: Callable[..., None], run: Run, names: tuple[str, ...], images: str,
    words: str,
) -> None:  # fmt: skip
    engines(*names, images=images)
    status, out, error = run(*AMD, "--target", "zcu104", "--", model)
    assert status == 2 and words in error and error.count("\n") == 1 and not out
    assert _names(model) == {"quantised.xmodel", "model.toml"}


def test_a_board_needs_no_compiler_of_amds(model: Path, path_dir: Path, run: Run) -> None:
    status, out, error = run("--json", "--explain", "--", model)
    assert status == 0 and not error
    figures = json.loads(out)
    assert figures["target"] == "ZCU104" and figures["fingerprint"] == "0x101000016010407"
    assert (
        "the same outputs from the DPU's instructions, executed for one of them"
        in (figures["checks"])
    )
    assert any("no file of this compiler has run on a real DPU" in c for c in figures["checks"])
    (layers,) = figures["subgraphs"]
    assert [layer["name"] for layer in layers][:2] == ["net__first", "net__second"]
    assert sum(layer["array_cycles"] for layer in layers) > 0 and not figures["on_cpu"]
    classifier = load_classifier(model)
    assert classifier.network.target == "ZCU104, Vitis AI 2.x"
    assert classifier.provenance["compile"]["compiler"].startswith("Tutelage's own compiler")
    (part,) = dpu_parts(Graph.deserialize(model / "model.xmodel"))
    assert part.get_attr("dpu_fingerprint") == 0x101000016010407


def test_own_code_gives_the_outputs_of_the_quantised_file(model: Path, run: Run) -> None:
    assert run("--", model)[0] == 0
    image = np.random.default_rng(3).integers(-128, 128, (1, 8, 8, 3), np.int8) / np.float32(32)
    outputs = [
        load_engine(model / name, engine).run(image)
        for name, engine in (
            ("quantised.xmodel", "reference"), ("model.xmodel", "fast"),
            ("model.xmodel", "instructions"),
        )
    ]  # fmt: skip
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


@pytest.mark.parametrize(
    "target, fingerprint",
    [("kv260", 0x101000016010407), ("zcu102", 0x101000016010407),
     ("ultra96v2", 0x101000016010404), ("0x101000056010407", 0x101000056010407),
     ("0x101000016010400", 0x101000016010400)],
)  # fmt: skip
def test_targets(model: Path, run: Run, target: str, fingerprint: int) -> None:
    status, _, error = run("--target", target, "--", model)
    assert status == 0, error
    (part,) = dpu_parts(Graph.deserialize(model / "model.xmodel"))
    assert part.get_attr("dpu_fingerprint") == fingerprint


def test_a_board_whose_fingerprint_is_not_known() -> None:
    target = dataclasses.replace(ZCU104, fingerprints={})
    with pytest.raises(CompileUsageError, match="is not known: give the number with --target"):
        target.fingerprint  # noqa: B018 - it raises


def test_a_dpu_of_another_kind_is_refused(model: Path, run: Run) -> None:
    status, _, error = run("--target", "0x603000b56011861", "--", model)
    assert status == 1 and "VCK190" in error and error.count("\n") == 1


def test_an_arch_file_is_a_target(model: Path, run: Run, tmp_path: Path) -> None:
    arch = tmp_path / "arch.json"
    arch.write_text('{"fingerprint": "0x101000016010405"}')
    assert run("--arch", arch, "--", model)[0] == 0
    (part,) = dpu_parts(Graph.deserialize(model / "model.xmodel"))
    assert part.get_attr("dpu_name") == "DPUCZDX8G_ISA1_B2304"
    arch.write_text('{"target": "x"}')
    status, _, error = run("--arch", arch, "--", model)
    assert status == 2 and "not an arch.json with a fingerprint" in error


def test_ops_without_dpu_code_go_to_the_cpu(path_dir: Path, run: Run, tmp_path: Path) -> None:
    network = QuantisedModel("net")
    image = network.input("image", (1, 40, 2, 3), 5)
    wide = network.conv2d("wide", image, np.ones((600, 1, 1, 3), np.int8), 6, None, 0, 4)
    tall = network.conv2d("tall", wide, np.ones((2, 16, 2, 600), np.int8), 6, None, 0, 4)
    network.output(network.conv2d("last", tall, np.ones((3, 1, 1, 2), np.int8), 6, None, 0, 4))
    network.save(tmp_path / "q.xmodel")
    status, out, error = run("--target", "0x101000016010400", "-o", tmp_path / "out", "--",
                             tmp_path / "q.xmodel")  # fmt: skip
    assert status == 0, error
    assert "  on the CPU: net__tall: a kernel of 16 rows" in out
    assert len(dpu_parts(Graph.deserialize(tmp_path / "out" / "model.xmodel"))) == 2


def test_the_banks_over_time_are_drawn(model: Path, run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "banks.svg"
    status, out, _ = run("--explain", "--banks", picture, "--", model)
    assert status == 0 and "results never reach the DDR" in out
    text = picture.read_text()
    assert text.startswith("<?xml") and "rows of net__dense" in text and text.count("<rect") > 4


def test_a_dry_run_prints_the_command_and_does_nothing(
    model: Path, on_path: Path, run: Run, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    status, out, error = run(*AMD, "--dry-run", "-o", output, "--", model)
    assert status == 0 and not error
    command = shlex.split(out)
    assert command[:3] == [str(on_path), "-x", str(model / "quantised.xmodel")]
    assert not output.exists() and not (tmp_path / "record.jsonl").exists()
    assert run("--dry-run", "--target", "emulator", "--", model)[0] == 0


# -- wrong use --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["none.xmodel"], "none.xmodel: no such file"),
        (["."], "quantised.xmodel: no such file: `tutelage export` writes it"),
        (["{model}", "--target", "kv999"], "no target 'kv999'; known are kv260, "),
        (["{model}", "--target", "0xzz"], "not a hexadecimal number"),
        (
            ["{model}", "--target", "ultra96v2", "--compiler", "vai_c_xir"],
            "has no target for AMD's compiler",
        ),
        (["{model}", "--compiler", "none"], "none: not an executable program"),
        (["{model}", "--compiler", "a", "--image", "b"], "cannot be used together"),
        (["{model}", "--arch", "none.json"], "none.json: no such file"),
        (["{model}", "--target", "emulator", "--image", "b"], "--image is for a board"),
        (["{model}/model.toml"], "not an .xmodel"),
        (["{model}", "-o", "{model}/model.toml"], "model.toml: not a directory"),
    ],
)
def test_wrong_use(
    model: Path, on_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], words: str,
) -> None:  # fmt: skip
    plain = model.rename(model.parent / "plain")
    monkeypatch.chdir(model.parent)
    status, out, error = run(*(text.format(model=plain) for text in arguments))
    assert status == 2 and words in error and error.count("\n") == 1 and not out
    assert _names(plain) == {"quantised.xmodel", "model.toml"}


def test_files_that_are_not_to_be_compiled(
    model: Path, on_path: Path, run: Run, demo_model: Path
) -> None:
    path = model / "quantised.xmodel"
    status, _, error = run("-o", model.parent / "out", demo_model)
    assert status == 2 and "already compiled, for DPUCZDX8G_ISA1_B4096" in error
    _network(1).save(path)
    status, _, error = run("--", model)
    assert status == 2 and "quantised.xmodel: SHA-256 is " in error and "model.toml says" in error
    shutil.move(path, model / "model.xmodel")
    (model / "model.toml").unlink()
    status, _, error = run("--", model / "model.xmodel")
    assert status == 2 and "the result would overwrite it" in error


def test_an_output_that_cannot_be_written(
    model: Path, on_path: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    status, _, error = run("-o", tmp_path / "file" / "out", "--", model)
    assert status == 1 and "Not a directory: give another --output" in error
    status, _, error = run("-o", "/proc/none", "--target", "emulator", "--", model)
    assert status == 1 and "/proc/none" in error and error.count("\n") == 1


# -- failures of the compiler -----------------------------------------------------------------


@pytest.mark.parametrize(
    "mode, words",
    [
        ("no-arch", "arch.json; give the board's with --arch"),
        ("bad-option", "lacks an option"),
        ("memory", "ran out of memory"),
        ("op", "has an op that the compiler does not support"),
        ("check", "a check inside the compiler failed"),
        ("unknown", "failed with status 3; its last lines may show why"),
        ("nothing", "ended without an error but wrote no file"),
        ("garbage", "the compiler wrote no usable file"),
        ("other-dpu", "with the fingerprint 0x101000016010406, not for the ZCU104"),
    ],
)
def test_failures_are_explained_and_leave_the_old_files(
    model: Path, on_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, mode: str, words: str
) -> None:
    (model / "model.xmodel").write_bytes(b"an older result")
    before = (model / "model.toml").read_bytes()
    monkeypatch.setenv("STAND_IN", mode)
    status, out, error = run(*AMD, "--", model)
    assert status == 1 and not out
    last = error.splitlines()[-1]
    assert last.startswith("tutelage: ") and words in last, error
    assert _names(model) == {"quantised.xmodel", "model.toml", "model.xmodel", "compile.log"}
    assert (model / "model.xmodel").read_bytes() == b"an older result"
    assert (model / "model.toml").read_bytes() == before
    if mode == "unknown":
        assert f"log: {model / 'compile.log'}" in last
        assert "  last line\n" in error and "\x1b" not in error
        assert "\x1b" in (model / "compile.log").read_text()


def _gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _assert_ended(pids: Path) -> None:
    deadline = time.monotonic() + 10
    numbers = [int(number) for number in pids.read_text().split()]
    while not all(map(_gone, numbers)):
        assert time.monotonic() < deadline, "the compiler outlived its caller"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_compiler_that_hangs_is_ended_with_its_children(
    model: Path, on_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STAND_IN", "hang")
    status, _, error = run(*AMD, "--timeout", "5", "--", model)
    assert status == 1 and "vai_c_xir took more than 5 s; give more with --timeout" in error
    _assert_ended(tmp_path / "pids")
    assert _names(model) == {"quantised.xmodel", "model.toml", "compile.log"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("engine", ["", "docker"])
def test_ctrl_c_ends_the_compiler(
    model: Path, path_dir: Path, engines: Callable[..., None], repo_root: Path, tmp_path: Path,
    number: signal.Signals, engine: str,
) -> None:  # fmt: skip
    if engine:
        engines(engine)
    else:
        _install(path_dir, "vai_c_xir", repo_root)
    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage", "compile", *AMD, "--", str(model)],
        cwd=repo_root, env={**os.environ, "STAND_IN": "hang"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 1 and error.endswith("tutelage: interrupted\n")
    assert "Traceback" not in error
    if engine:
        call, kill = (entry["argv"] for entry in _record(tmp_path)[-2:])
        assert kill == ["kill", call[call.index("--name") + 1]]
        compiler, child = map(int, (tmp_path / "pids").read_text().split())
        assert _gone(compiler)
        os.kill(child, signal.SIGKILL)  # inside a real container it ends with it
    else:
        _assert_ended(tmp_path / "pids")
    assert _names(model) == {"quantised.xmodel", "model.toml", "compile.log"}


# In the form of AMD's compiler's report of success; made by hand.
_USUAL_LOG = """\
**************************************************
* VITIS_AI Compilation - Xilinx Inc.
**************************************************
[UNILOG][INFO] Compile mode: dpu
[UNILOG][INFO] Debug mode: function
[UNILOG][INFO] Target architecture: DPUCZDX8G_ISA1_B4096
[UNILOG][INFO] Graph name: net, with op num: 441
[UNILOG][INFO] Begin to compile...
"""


@pytest.mark.parametrize(
    "end, status, words",
    [
        ("", 1, "vai_c_xir failed with status 1"),
        ("", -11, "crashed with SIGSEGV"),
        ("", -35, "crashed with signal 35"),  # most real-time signals have no name
        ("", 137, "lack of memory"),
        ("exec: conda: executable file not found in $PATH", 127, "does not have the compiler"),
        ("No such file or directory: '/opt/x/arch.json'", 1, "give the board's with --arch FILE"),
        ("[FATAL] Unregistered operator! Mylayer", 1, "an op that the compiler does not support"),
        ("the fingerprint 0x1 is not registered", 1, "does not support this DPU"),
        ("OSError: No space left on device", 1, "check permissions and free space"),
    ],
)
def test_only_known_errors_are_explained(end: str, status: int, words: str) -> None:
    assert words in vai_compiler._explain(_USUAL_LOG + end, status)


# -- the check of the result ------------------------------------------------------------------


def _for_board(network: QuantisedModel) -> Graph:
    """A compiled form that claims to be for the ZCU104."""
    graph = compile_graph(network.finish())
    for part in dpu_parts(graph):
        part.set_attr("dpu_name", ZCU104.dpu_name)
        part.set_attr("dpu_fingerprint", 0x101000056010407, "uint64_value")
    return graph


def test_a_correct_result_is_reported_as_facts() -> None:
    facts = check_compiled(_for_board(_network()), _network().finish(), ZCU104)
    assert facts == [
        "one DPU subgraph",
        "for DPUCZDX8G_ISA1_B4096, 0x101000056010407: ZCU104, Vitis AI 3.0",
        "fix points as quantised: input 5; output 3",
        "6 parameters (978 bytes) equal byte for byte",
        "the same outputs on the emulation for 8 random images",
    ]


def test_a_result_for_the_emulator_is_not_for_the_board() -> None:
    quantised = _network().finish()
    compiled = compile_graph(quantised)
    with pytest.raises(CompileError, match="for TUTELAGE_EMULATOR, not for the ZCU104"):
        check_compiled(compiled, quantised, ZCU104)
    assert len(check_compiled(compiled, quantised, load_target("emulator"))) == 5


def test_two_dpu_subgraphs_name_the_op_between_them() -> None:
    network = _network()
    image = network.input("other", (1, 8, 8, 3), 5)
    kernel = np.ones((4, 3, 3, 3), np.int8)
    first = network.conv2d("left", image, kernel, 6, None, 0, 4)
    odd = network.graph.create_op("odd", "sigmoid", {}, {"input": [first]})
    back = network._fixed(odd, 6)
    network.output(network.conv2d("right", back, np.ones((2, 1, 1, 4), np.int8), 6, None, 0, 4))
    with pytest.raises(CompileError, match=r"DPU subgraphs instead of one; .*odd \(sigmoid\): "):
        check_compiled(_for_board(network), network.finish(), ZCU104)


def test_other_fix_points_parameters_and_outputs_are_refused() -> None:
    quantised = _network().finish()
    with pytest.raises(
        CompileError, match=r"output fix points are \[2\], those of the quantised file"
    ):
        check_compiled(_for_board(_network(point=2)), quantised, ZCU104)
    with pytest.raises(CompileError, match=r"6 of 6 parameters differ .* net__first_weight_fix"):
        check_compiled(_for_board(_network(seed=1)), quantised, ZCU104)
    graph = _for_board(_network())
    for op in graph.get_ops():
        if op.get_type() == "conv2d-fix":
            op.set_attr("nonlinear", "NONE")
    with pytest.raises(CompileError, match=r"differ from the quantised file's for \d of 8 random"):
        check_compiled(graph, quantised, ZCU104)


def test_one_changed_weight_is_found() -> None:
    graph = _for_board(_network())
    (part,) = dpu_parts(graph)
    data = bytearray(part.get_attr("reg_id_to_parameter_value")["REG_0"])
    data[17] ^= 1
    part.set_attr("reg_id_to_parameter_value", {"REG_0": bytes(data)})
    with pytest.raises(CompileError, match="1 of 6 parameters differ"):
        check_compiled(graph, _network().finish(), ZCU104)


def test_amds_own_pair_of_files(shared_dir: Path, repo_root: Path) -> None:
    """AMD compiled one from the other: parameters, fix points and the recorded input agree."""
    folder = shared_dir / "models"
    source = folder / "pointpillars_quantized.xmodel"
    compiled, quantised = (
        Graph.deserialize(path) for path in (folder / "pointpillars_zcu104_vai25.xmodel", source)
    )
    plugins = load_plugins(repo_root / "tests" / "dpu" / "plugins.py")
    models = [load_engine(graph, "reference", plugins) for graph in (compiled, quantised)]
    assert checks._same_parameters(*models) == "46 parameters (395,016 bytes) equal byte for byte"
    assert checks._same_fix_points(compiled, quantised).endswith("output 6, 3, 4")
    assert check_source(compiled, source) is not None
    with pytest.raises(CompileError, match="compiled from another file"):
        check_source(compiled, repo_root / "README.md")
    with pytest.raises(CompileError, match=r"has 2 DPU subgraphs .*PPScatterV2"):
        check_compiled(compiled, quantised, ZCU104)
    assert vai_compiler.version(repo_root / "none", compiled) == "xcompiler.2.5.0"


@pytest.mark.parametrize("form", DENSE_FORMS)
def test_dense_matrices_may_be_turned(form: str) -> None:
    """AMD's compiler turns a dense layer's matrix into a convolution's kernel, in HWC order."""
    compiled, emulator = compile_graph(dense_network("conv2d")), load_target("emulator")
    facts = check_compiled(compiled, dense_network(form), emulator)
    assert "3 parameters (133 bytes) equal byte for byte" in facts
    with pytest.raises(CompileError, match=r"1 of 3 parameters differ .* the first m_fix"):
        check_compiled(compiled, dense_network(form, flip=2), emulator)


@pytest.mark.parametrize("name, dpu", [("vck190", "DPUCVDX8G"), ("u50", "DPUCAHX8H")])
def test_a_result_for_another_dpu_is_refused(shared_dir: Path, name: str, dpu: str) -> None:
    corpus = shared_dir / "models" / "corpus"
    compiled = Graph.deserialize(corpus / f"mnist_cnn_{name}.xmodel")
    quantised = Graph.deserialize(corpus / "mnist_cnn_quantised.xmodel")
    for target in ("zcu104", "emulator"):
        with pytest.raises(
            CompileError, match=rf"^the result is for {dpu}\b.*, not for the "
        ) as stop:
            check_compiled(compiled, quantised, load_target(target))
        assert "\n" not in str(stop.value)


def test_a_source_that_is_not_sorted_is_reported(
    shared_dir: Path, tmp_path: Path, run: Run
) -> None:
    """AMD's XIR crashes on it; written files are sorted."""
    source = shared_dir / "models" / "corpus" / "reversed_ops.xmodel"
    status, out, error = run("--target", "emulator", "-o", tmp_path / "out", "--", source)
    assert status == 0, error
    assert f"{source}: its ops are not in topological order" in out + error
    assert Graph.deserialize(tmp_path / "out" / "model.xmodel").is_sorted


def test_an_unused_input_is_allowed() -> None:
    model = QuantisedModel("net")
    model.input("unread", (1, 2, 2, 1), 3)
    weights = np.ones((2, 1, 1, 3), np.int8)
    model.output(model.conv2d("conv", model.input("read", (1, 4, 4, 3), 5), weights, 4, None, 0, 4))
    graph = model.finish()
    facts = check_compiled(compile_graph(graph), graph, load_target("emulator"))
    assert facts[-1].startswith("the same outputs")


def test_the_named_commands_work_verbatim(
    model: Path, run: Run, repo_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Follow the messages from an uncompiled model, in a folder with spaces, to its classes."""
    from tutelage.app.classify import main as classify

    images = str(repo_root / "app" / "demo" / "images")
    arguments = ["--source", images, "--frames", "1", "--labels", str(model / "none")]
    assert classify(["--model", str(model / "quantised.xmodel"), *arguments]) == 2
    named = shlex.split(capsys.readouterr().err.rpartition("compile it first: ")[2])
    assert named == [*"tutelage compile".split(), str(model / "quantised.xmodel"),
                     "--target", "zcu104"]  # fmt: skip
    status, out, error = run("--target", "emulator", "--", named[2])
    assert status == 0, error
    named = shlex.split(out.rpartition("  next: ")[2])
    assert named == ["python3", "app/classify.py", "--model", str(model), "--source", "IMAGES"]
    assert classify([*named[2:4], *arguments[:4]]) == 0


def test_a_bare_result_is_named_as_a_file(model: Path, run: Run, tmp_path: Path) -> None:
    (model / "model.toml").unlink()
    status, out, error = run("--target", "emulator", "-o", tmp_path / "out", "--", model)
    assert status == 0, error
    assert f"  next: python3 app/classify.py --model {tmp_path / 'out' / 'model.xmodel'} " in out
