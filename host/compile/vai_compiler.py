"""AMD's compiler vai_c_xir: how to find it, call it, and explain its errors.

It is distributed only in AMD's containers. No image is pulled here: if none is present, the error
has the command to pull one. The compiler is run without a shell, in a container without network
access, and writes into a scratch directory, not into the directory of the result.
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

from tutelage.core.errors import signal_text
from tutelage.core.model_package import COMPILED
from tutelage.core.text import shown
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile.target import CompileError, CompileUsageError, Target

PROGRAM = "vai_c_xir"
ENGINES = ("docker", "podman")
NET_NAME = COMPILED.removesuffix(".xmodel")  # the compiler adds the suffix
ARCH_FILE = "arch.json"

_PROBE_SECONDS = 60  # docker's daemon may have to start first
_GRACE_SECONDS = 5  # between SIGTERM to a compiler and SIGKILL
_TAIL_LINES = 15


@dataclass(frozen=True)
class Compiler:
    """The compiler: a program, or an image and the container engine that runs it."""

    program: str = ""
    engine: str = ""
    image: str = ""

    @property
    def text(self) -> str:
        """Name of the compiler for the reader."""
        return f"{PROGRAM} in {self.image}" if self.image else self.program


@dataclass(frozen=True)
class CompilerJob:
    """One call of the compiler.

    Attributes
    ----------
    source : the quantised .xmodel
    scratch : directory for the compiler's output
    arch : target file of the caller; None for that of the target
    name : of the container, by which it can be ended
    """

    source: Path
    scratch: Path
    arch: Path | None = None
    name: str = f"tutelage-compile-{os.getpid()}"

    @property
    def result(self) -> Path:
        """File that the compiler writes."""
        return self.scratch / COMPILED


def find_compiler(
    target: Target, program: Path | None = None, image: str | None = None
) -> Compiler:
    """Find the compiler: the caller's, else on PATH, else in an image of docker or podman.

    Parameters
    ----------
    program : path of the compiler
    image : container image with the compiler

    Raises
    ------
    CompileUsageError
        There is none; the text says how to get it.
    """
    if program is not None and image is not None:
        raise CompileUsageError("--compiler and --image cannot be used together")
    if program is not None:
        found = shutil.which(str(program.absolute()))
        if found is None:
            raise CompileUsageError(f"{program}: not an executable program")
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
        why = f"{troubles[0]}; fix this, then: {pull}"
    else:
        why = f"no {PROGRAM} on PATH and no image {' or '.join(images)}; pull it: {pull}"
    raise CompileUsageError(why)


def _trouble_with(engine: str, image: str) -> str | None:
    """Return None if the engine has the image, "" if it has not, else why that is not known."""
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
    return f"{name}: {shown(text.splitlines()[-1]) if text else 'fails without a message'}"


# -- the call ---------------------------------------------------------------------------------


def command_line(compiler: Compiler, target: Target, job: CompilerJob) -> list[str]:
    """Return the command as a list; its paths are absolute, so that none looks like an option."""
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
    """Return options by which rootless podman keeps our user id, and SELinux allows the mounts."""
    if Path(engine).name != "podman":
        return []
    return ["--userns", "keep-id", "--security-opt", "label=disable"]


def _mount(source: Path, target: str, *more: str) -> str:
    """Return a bind mount in the engines' notation, a line of CSV, so that commas are quoted."""
    line = io.StringIO()
    csv.writer(line).writerow(["type=bind", f"source={source}", f"target={target}", *more])
    return line.getvalue().strip()


def _uses_installed_arch(compiler: Compiler, target: Target, job: CompilerJob) -> bool:
    return job.arch is None and (bool(compiler.image) or Path(target.arch).is_file())


def write_arch(compiler: Compiler, target: Target, job: CompilerJob) -> None:
    """Write the target file to the scratch directory, unless that of the installation is used.

    It is the caller's, or else one with the DPU's fingerprint only, which the compiler accepts as
    well (UG1414, "Compiling with an XIR-based Toolchain").
    """
    if job.arch is not None:
        shutil.copyfile(job.arch, job.scratch / ARCH_FILE)
    elif not _uses_installed_arch(compiler, target, job):
        arch = {"fingerprint": f"{next(iter(target.fingerprints)):#x}"}
        (job.scratch / ARCH_FILE).write_text(json.dumps(arch) + "\n", encoding="utf-8")


def run_compiler(
    compiler: Compiler, command: list[str], job: CompilerJob, log: Path, limit: float
) -> None:
    """Run the command; the compiler and its children have ended when this function returns.

    Parameters
    ----------
    log : file for the compiler's output
    limit : time limit, s; 0 for none

    Raises
    ------
    CompileError
        The compiler cannot be run, failed, took too long or wrote no result.
    """
    # In a separate session, Ctrl-C does not reach it, and its children can be ended with it.
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
            hint = "give more with --timeout, or 0 for no limit"
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
    """Handle SIGTERM like Ctrl-C, so that the compiler does not outlive this process."""
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
    """End a compiler that is still running: a container by its name, processes as a group."""
    if process.poll() is None and compiler.image:
        # The container would continue to run without the engine's client.
        kill = [compiler.engine, "kill", container]
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(kill, capture_output=True, timeout=_PROBE_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


# -- errors -----------------------------------------------------------------------------------

# Patterns of the output of the compiler and the engines -> meaning and remedy. The first that
# matches counts: an unsupported op also ends in "Check failed".
_EXPLANATIONS = (
    (r"executable file not found|EnvironmentLocationNotFound|Could not find conda environment"
     r"|OCI runtime.*no such file",
     "this image does not have the compiler where AMD's PyTorch images do; give one of these by "
     "--image"),
    (r"No such image|image not known|Unable to find image",
     "the image no longer exists; pull it again, or give another with --image"),
    (r"arch\.json.*(No such file|does not exist|not found|cannot open|Failed to open)"
     r"|(No such file|not exist|not found|annot open|ailed to open)\S*.*arch\.json",
     "the compiler did not find its target file arch.json; give the board's with --arch FILE"),
    (r"unrecognized argument|no such option|nrecogni[sz]ed option|invalid option|unknown option",
     "this compiler lacks an option that those of Vitis AI 2.5 and 3.0 have; use one of these"),
    (r"bad_alloc|out of memory|Cannot allocate memory|MemoryError",
     "the compiler ran out of memory; close other programs or compile on a larger machine"),
    (r"unsupported op(erator)?\b|\bop(erator)?\b.{0,60}\bnot supported|unregistered op"
     r"|XIR_UNREGISTERED|UNREGISTERED_OP",
     "the model has an op that the compiler does not support; `tutelage inspect` lists its ops, "
     "AMD's UG1414 those of the DPU"),
    (r"(invalid|unknown|unsupported) (dpu )?(fingerprint|target|arch)"
     r"|fingerprint.{0,40}\b(invalid|unknown|not (found|supported|registered))",
     "the compiler does not support this DPU; give the arch.json of its release with --arch FILE"),
    (r"Permission denied|Read-only file system|No space left",
     "the compiler could not write its result; check permissions and free space of the output"),
    (r"Check failed",
     "a check inside the compiler failed, usually because of a shape or a fix point of the model; "
     "`tutelage inspect` lists them"),
)  # fmt: skip


# Version of the compiler; its log may have those of other programs as well.
_VERSION = r"(?:vai_c_xir|xcompiler|vitis.?ai|compiler)\b.*\bversion\W{0,3}(v?\d[\w.\-+]*)"


def _explain(text: str, status: int) -> str:
    for pattern, meaning in _EXPLANATIONS:
        if re.search(pattern, text, re.IGNORECASE):
            return meaning
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "the compiler was killed, probably for lack of memory; compile on a larger machine"
    if status < 0:
        how = f"the compiler crashed with {signal_text(-status)}"
        return f"{how}; its last lines may show why"
    return f"{PROGRAM} failed with status {status}; its last lines may show why"


def read_log(log: Path) -> str:
    """Return the compiler's output; "" without a log."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def last_lines(log: Path) -> list[str]:
    """Return the last lines of the log for a terminal."""
    return [shown(line.rstrip()) for line in read_log(log).splitlines()[-_TAIL_LINES:]]


def version(log: Path, graph: Graph) -> str:
    """Return the compiler's version from its output, or else from its result; "" if unknown."""
    for line in read_log(log).splitlines():
        found = re.search(_VERSION, line, re.IGNORECASE)
        if found:
            return found[1]
    return version_in(graph)


def version_in(graph: Graph) -> str:
    """Return the compiler's version from the attribute `libs_info` of its result; "" if unknown.

    The attribute (seen in files of Vitis AI 2.5) maps "xcompiler.2.5.0" to a commit, and the
    libraries that it uses, which are written with a colon, to theirs.
    """
    known = graph.get_attr("libs_info") if graph.has_attr("libs_info") else {}
    names = [str(name) for name in known] if isinstance(known, dict) else []
    return next((shown(name) for name in sorted(names) if ":" not in name), "")
