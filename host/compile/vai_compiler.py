"""AMD's compiler vai_c_xir: where it is, how it is called, and what its complaints mean.

It comes with AMD's containers only. Nothing here pulls an image: where none is present, the error
tells the command. The compiler never sees a shell, the network (in a container), or the directory
that its result will lie in: it writes into a scratch directory.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.model_package import COMPILED
from tutelage.core.text import shown
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile.target import CompileError, CompileUsageError, Target

PROGRAM = "vai_c_xir"
ENGINES = ("docker", "podman")
NET_NAME = COMPILED.removesuffix(".xmodel")  # the compiler adds the suffix
ARCH_FILE = "arch.json"

_PROBE_SECONDS = 60  # docker's daemon may have to wake up
_GRACE_SECONDS = 5  # between asking a compiler to end and killing it
_TAIL_LINES = 15


@dataclass(frozen=True)
class Compiler:
    """Where the compiler was found: a program, or an image with the engine that runs it."""

    program: str = ""
    engine: str = ""
    image: str = ""

    @property
    def text(self) -> str:
        """For the reader."""
        return f"{PROGRAM} in {self.image}" if self.image else self.program


@dataclass(frozen=True)
class CompilerJob:
    """One call.

    Attributes
    ----------
    source : the quantised .xmodel
    scratch : directory for what the compiler writes
    arch : the caller's own target file; None for the target's
    name : of the container, to end it by
    """

    source: Path
    scratch: Path
    arch: Path | None = None
    name: str = f"tutelage-compile-{os.getpid()}"

    @property
    def result(self) -> Path:
        """What the compiler writes."""
        return self.scratch / COMPILED


def find_compiler(
    target: Target, program: Path | None = None, image: str | None = None
) -> Compiler:
    """The compiler named by the caller, else on PATH, else in an image that docker or podman has.

    Raises
    ------
    CompileUsageError
        There is none; the text says how to come by one.
    """
    if program is not None and image is not None:
        raise CompileUsageError("--compiler and --image exclude each other")
    if program is not None:
        found = shutil.which(str(program.absolute()))
        if found is None:
            raise CompileUsageError(f"{program}: no program that can be run")
        return Compiler(program=found)
    on_path = None if image else shutil.which(PROGRAM)
    if on_path:
        return Compiler(program=str(Path(on_path).absolute()))
    return _find_image([image] if image else list(target.images))


def _find_image(images: list[str]) -> Compiler:
    engines = [path for path in map(shutil.which, ENGINES) if path]
    troubles = []
    for engine in engines:
        for image in images:
            trouble = _trouble_with(engine, image)
            if trouble is None:
                return Compiler(engine=engine, image=image)
            troubles += [trouble] if trouble else []
    pull = f"{Path(engines[0]).name if engines else 'docker'} pull {images[0]}"
    if not engines:
        why = f"neither {PROGRAM} nor docker nor podman is on PATH; install docker, then: {pull}"
    elif troubles:
        why = f"{troubles[0]}; see to that, then: {pull}"
    else:
        why = f"no {PROGRAM} on PATH and no image {' or '.join(images)} here; get one: {pull}"
    raise CompileUsageError(why)


def _trouble_with(engine: str, image: str) -> str | None:
    """None where the engine has the image, "" where it has not, else why it cannot tell."""
    name = Path(engine).name
    command = [engine, "image", "inspect", "--format", "{{.Id}}", "--", image]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"{name} does not answer"
    except OSError as error:
        return f"{name} cannot be run: {error.strerror or error}"
    if not done.returncode:
        return None
    text = done.stderr.decode(errors="replace").strip()
    if re.search(r"no such image|image not known|not found|no such object", text, re.IGNORECASE):
        return ""
    return f"{name}: {shown(text.splitlines()[-1]) if text else 'fails without a word'}"


# -- the call ---------------------------------------------------------------------------------


def command_line(compiler: Compiler, target: Target, job: CompilerJob) -> list[str]:
    """The command as a list; every path in it is absolute, so that none looks like an option."""
    source, scratch = job.source.resolve(), job.scratch.absolute()
    if not compiler.image:
        arch = target.arch if _uses_installed_arch(compiler, target, job) else scratch / ARCH_FILE
        return [compiler.program, *_options(source, arch, scratch)]
    inside = target.arch if job.arch is None else f"/output/{ARCH_FILE}"
    program, *first = target.command
    return [
        compiler.engine, "run", "--rm", "--pull", "never", "--name", job.name,
        "--network", "none", "--user", f"{os.getuid()}:{os.getgid()}", "--env", "HOME=/tmp",
        *_podman_options(compiler.engine),
        "--mount", _mount(source.parent, "/model", "readonly"),
        "--mount", _mount(scratch, "/output"),
        "--workdir", "/output", "--entrypoint", program, compiler.image,
        *first, *_options(f"/model/{source.name}", inside, "/output"),
    ]  # fmt: skip


def _options(source: str | Path, arch: str | Path, output: str | Path) -> list[str]:
    return ["-x", str(source), "-a", str(arch), "-o", str(output), "-n", NET_NAME]


def _podman_options(engine: str) -> list[str]:
    """Without root, podman maps users: ours must be ours inside; SELinux keeps mounts shut."""
    if Path(engine).name != "podman":
        return []
    return ["--userns", "keep-id", "--security-opt", "label=disable"]


def _mount(source: Path, target: str, *more: str) -> str:
    """A bind mount as the engines read it: a line of CSV, so that commas in paths are quoted."""
    line = io.StringIO()
    csv.writer(line).writerow(["type=bind", f"source={source}", f"target={target}", *more])
    return line.getvalue().strip()


def _uses_installed_arch(compiler: Compiler, target: Target, job: CompilerJob) -> bool:
    return job.arch is None and (bool(compiler.image) or Path(target.arch).is_file())


def write_arch(compiler: Compiler, target: Target, job: CompilerJob) -> None:
    """Put the target file into the scratch directory, unless the installation's own is used.

    Where there is neither that nor one of the caller's, the DPU's fingerprint stands for it, which
    the compiler takes as well (UG1414, "Compiling with an XIR-based Toolchain").
    """
    if job.arch is not None:
        shutil.copyfile(job.arch, job.scratch / ARCH_FILE)
    elif not _uses_installed_arch(compiler, target, job):
        arch = {"fingerprint": f"{next(iter(target.fingerprints)):#x}"}
        (job.scratch / ARCH_FILE).write_text(json.dumps(arch) + "\n", encoding="utf-8")


def run_compiler(
    compiler: Compiler, command: list[str], job: CompilerJob, log: Path, limit: float
) -> None:
    """Run the command, with everything it says in `log`; `limit` in seconds, 0 for none.

    Whatever ends this function, the compiler and its children have ended before.

    Raises
    ------
    CompileError
        It cannot be run, failed, took too long or wrote no result.
    """
    # A session of its own: Ctrl-C reaches us alone, and its children can be ended with it.
    with log.open("wb") as file, _terminated_as_interrupt():
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise CompileError(f"{command[0]}: cannot be run: {error.strerror or error}") from error
        try:
            status = process.wait(limit or None)
        except subprocess.TimeoutExpired:
            hint = "give it more with --timeout, 0 for no limit"
            raise CompileError(
                f"{PROGRAM} took more than {limit:g} s; {hint}; log: {log}"
            ) from None
        finally:
            _end(process, compiler, job.name)
    if status:
        raise CompileError(f"{_explain(read_log(log), status)}; log: {log}")
    if not job.result.is_file():
        raise CompileError(f"{PROGRAM} ended without an error but wrote no file; log: {log}")


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM ends us as Ctrl-C does, so that the compiler does not outlive us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[bytes], compiler: Compiler, container: str) -> None:
    """End a compiler that still runs: the container by its name, the processes as a group."""
    if process.poll() is None and compiler.image:
        # The engine's client is not the container: it goes on without its client.
        kill = [compiler.engine, "kill", container]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(kill, capture_output=True, timeout=_PROBE_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


# -- what it says -----------------------------------------------------------------------------

# What the compiler and the engines print -> what it means and what helps. The first that is found
# counts: an unsupported op also ends in "Check failed".
_EXPLANATIONS = (
    (r"executable file not found|EnvironmentLocationNotFound|Could not find conda environment"
     r"|OCI runtime.*no such file",
     "this image does not have the compiler where AMD's PyTorch images do; give one of these with "
     "--image"),
    (r"No such image|image not known|Unable to find image",
     "the image is gone; pull it again, or give another with --image"),
    (r"arch\.json.*(No such file|does not exist|not found|cannot open|Failed to open)"
     r"|(No such file|not exist|not found|annot open|ailed to open)\S*.*arch\.json",
     "the compiler did not find its target file arch.json; give the board's with --arch FILE"),
    (r"unrecognized argument|no such option|nrecogni[sz]ed option|invalid option|unknown option",
     "this compiler does not know an option that Vitis AI 2.5 and 3.0 have; take one of these"),
    (r"bad_alloc|out of memory|Cannot allocate memory|MemoryError",
     "the compiler ran out of memory; close other programs or compile on a larger machine"),
    (r"unsupported op(erator)?\b|\bop(erator)?\b.{0,60}\bnot supported|unregistered op"
     r"|XIR_UNREGISTERED|UNREGISTERED_OP",
     "the model has an op that the compiler does not know; `tutelage inspect` lists its ops, "
     "AMD's UG1414 those of the DPU"),
    (r"(invalid|unknown|unsupported) (dpu )?(fingerprint|target|arch)"
     r"|fingerprint.{0,40}\b(invalid|unknown|not (found|supported|registered))",
     "the compiler does not know this DPU; give the arch.json of its own release with --arch FILE"),
    (r"Permission denied|Read-only file system|No space left",
     "the compiler could not write its result; look at the output's rights and free space"),
    (r"Check failed",
     "a check inside the compiler failed, mostly over a shape or a fix point of the model; "
     "`tutelage inspect` lists them"),
)  # fmt: skip


# Of the compiler itself: its log may name the versions of other programs as well.
_VERSION = r"(?:vai_c_xir|xcompiler|vitis.?ai|compiler)\b.*\bversion\W{0,3}(v?\d[\w.\-+]*)"


def _explain(text: str, status: int) -> str:
    for pattern, meaning in _EXPLANATIONS:
        if re.search(pattern, text, re.IGNORECASE):
            return meaning
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "the compiler was killed, mostly because memory ran out; compile on a larger machine"
    if status < 0:
        return (
            f"the compiler crashed with {signal.Signals(-status).name}; its last lines may show why"
        )
    return f"{PROGRAM} failed with status {status}; its last lines may show why"


def read_log(log: Path) -> str:
    """What the compiler said; "" where there is no log."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def last_lines(log: Path) -> list[str]:
    """The end of the log for a terminal."""
    return [shown(line.rstrip()) for line in read_log(log).splitlines()[-_TAIL_LINES:]]


def version(log: Path, graph: Graph) -> str:
    """The compiler's version as it printed it, else as its result has it; or ""."""
    for line in read_log(log).splitlines():
        found = re.search(_VERSION, line, re.IGNORECASE)
        if found:
            return found[1]
    return version_in(graph)


def version_in(graph: Graph) -> str:
    """The compiler's version as the attribute `libs_info` of its result has it; or "".

    The attribute (seen in files of Vitis AI 2.5) maps "xcompiler.2.5.0" to a commit, and the
    libraries beneath it, written with a colon, to theirs.
    """
    known = graph.get_attr("libs_info") if graph.has_attr("libs_info") else {}
    names = [str(name) for name in known] if isinstance(known, dict) else []
    return next((shown(name) for name in sorted(names) if ":" not in name), "")
