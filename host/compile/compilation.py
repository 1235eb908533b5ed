"""Compilation of a quantised .xmodel for a board or the emulation, with checks of the result.

    tutelage compile runs/qkd/model       # model directory, see core/model_package.py
    tutelage compile net.xmodel -o out --target zcu104 --dry-run

For a board this project's compiler generates the DPU's instructions (dpu/compiler/board); AMD's
vai_c_xir is used on request. The result is written into a scratch directory inside the output
directory. Only if it passes host/compile/check.py, it is moved to `model.xmodel`; then its checksum
and origin are written to `model.toml`, if there is one. If anything fails, at any moment, the
existing files remain; `compile.log` has the output of AMD's compiler.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tutelage
from tutelage.core.board_profile import DEFAULT_BOARD
from tutelage.core.errors import DpuError, XmodelError
from tutelage.core.files import scratch_directory, sha256_of
from tutelage.core.fingerprint import describe, dpu_parts, fingerprint_of, fingerprints_of
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    QUANTISED,
    Description,
    check_files,
    read_description,
    write_description,
)
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.compile import vai_compiler as vai
from tutelage.host.compile.check import check_compiled, check_source
from tutelage.host.compile.target import (
    CompileError,
    CompileUsageError,
    Target,
    load_target,
)

if TYPE_CHECKING:
    from tutelage.dpu.compiler.board.graph import BoardModel

LOG = "compile.log"

OWN, AMD = "own", "vai_c_xir"
"""Values of `CompileOptions.compiler` other than the path of a program."""

EMULATOR_COMPILER = "Tutelage's own, dpu/compiler/emulation.py"

Say = Callable[[str], None]


@dataclass(frozen=True)
class CompileOptions:
    """Options of a compilation.

    Attributes
    ----------
    target : name of a board, "emulator" or a fingerprint; "" for the default board
    compiler : "" or `OWN`; `AMD` to find AMD's compiler; or the path of AMD's compiler
    image : container image with AMD's compiler, which is then used
    arch : arch.json of the target, instead of that of the board's profile
    limit : time limit of AMD's compiler, s; 0 for none
    """

    target: str = ""
    compiler: str = ""
    image: str | None = None
    arch: Path | None = None
    limit: float = 0.0


@dataclass(frozen=True)
class CompileSource:
    """The quantised file, and its model directory's description (None for a single file)."""

    path: Path
    description: Description | None


@dataclass(frozen=True)
class CompilePlan:
    """A compilation that has been checked, before anything is written.

    Attributes
    ----------
    source, graph : the quantised file and its content
    output : directory of the result
    target : the DPU, or the emulator
    compiler : AMD's compiler; None for this project's
    options : as the caller gave them
    """

    source: CompileSource
    graph: Graph
    output: Path
    target: Target
    compiler: vai.Compiler | None
    options: CompileOptions

    @property
    def log(self) -> Path:
        """File for the output of AMD's compiler."""
        return self.output / LOG

    @property
    def job(self) -> vai.CompilerJob:
        """Call of AMD's compiler."""
        scratch = self.output.absolute() / f".compile-{os.getpid()}"
        return vai.CompilerJob(self.source.path, scratch, self.options.arch)

    @property
    def command(self) -> list[str] | None:
        """Command as a list; None for this project's compiler, which runs in this process."""
        return vai.command_line(self.compiler, self.target, self.job) if self.compiler else None


def plan_compile(model: Path, output: Path | None, options: CompileOptions) -> CompilePlan:
    """Check the model and the options before anything is written.

    Parameters
    ----------
    model : quantised .xmodel, or a directory with quantised.xmodel
    output : directory of the result; None for that of the model
    options : target, compiler and more

    Raises
    ------
    CompileUsageError, DpuError
        The model, an option or model.toml cannot be used, or the compiler is missing.
    """
    source = find_source(model)
    graph = _read_quantised(source.path)
    output = source.path.parent if output is None else output
    _check_output(source, output)
    if options.arch is not None and not options.arch.is_file():
        raise CompileUsageError(f"{options.arch}: no such file")
    target, compiler = _find_target(options)
    return CompilePlan(source, graph, output, target, compiler, options)


UNTRIED = "no file of this compiler has run on a real DPU yet: on the board, deploy compares it"
"""Warning for the user about a result of this project's compiler."""


@dataclass(frozen=True)
class CompileResult:
    """Result of a compilation.

    Attributes
    ----------
    figures : for the reader and for JSON
    own : result of this project's compiler for boards; None for AMD's or the emulator
    """

    figures: dict[str, Any]
    own: BoardModel | None


def compile_model(plan: CompilePlan, say: Say) -> CompileResult:
    """Compile, check the result and move it into place.

    Parameters
    ----------
    say : called with each line of progress for the user

    Raises
    ------
    CompileError
        The compiler failed or its result is wrong; only the log was written.
    """
    own: BoardModel | None = None
    with _writing(plan.output), scratch_directory(plan.job.scratch) as scratch:
        if plan.compiler is not None:
            _run_amd(plan, plan.compiler, say)
        else:
            own = _run_own(plan)
        try:
            graph = Graph.deserialize(plan.job.result)
        except XmodelError as error:
            raise CompileError(f"the compiler wrote no usable file: {error}") from error
        checks = check_compiled(graph, plan.graph, plan.target, several=plan.compiler is None)
        note = check_source(graph, plan.source.path)
        origin = _origin(plan, graph)
        checksum = _install(plan, scratch, origin)
    figures = {"model": str(plan.output / COMPILED), "sha256": checksum, **origin}
    log = {"log": str(plan.log)} if plan.compiler else {}
    notes = [note] if note else []
    if own is not None:
        notes.append(UNTRIED)
    checked = {**figures, "checks": checks + notes, **log, "next": _next(plan)}
    return CompileResult(checked, own)


def _next(plan: CompilePlan) -> str:
    """Return a command that uses the result, by its model directory, or else by its file."""
    place = plan.output if plan.source.description is not None else plan.output / COMPILED
    model = shlex.quote(str(place))
    if plan.target.is_emulator:
        return f"python3 app/classify.py --model {model} --source IMAGES"
    board = plan.options.target or DEFAULT_BOARD
    return f"tutelage deploy USER@BOARD --board {board} --model {model}"


# -- input ------------------------------------------------------------------------------------


def find_source(model: Path) -> CompileSource:
    """Return the quantised file of a path, with the description in a model.toml beside it.

    Parameters
    ----------
    model : quantised .xmodel, or a directory with quantised.xmodel

    Raises
    ------
    CompileUsageError
        The file does not exist.
    DpuError
        model.toml cannot be used, or has the checksum of another file.
    """
    folder = model if model.is_dir() else model.parent
    path = folder / QUANTISED if model.is_dir() else model
    if not path.exists():
        what = f"{path}: no such file"
        hint = ": `tutelage export` writes it" if model.is_dir() else ""
        raise CompileUsageError(what + hint)
    if path.name != QUANTISED or not (folder / DESCRIPTION).is_file():
        return CompileSource(path, None)
    description = read_description(folder / DESCRIPTION)
    if QUANTISED in description.checksums:
        check_files(folder, {QUANTISED: description.checksums[QUANTISED]})
    return CompileSource(path, description)


def _read_quantised(path: Path) -> Graph:
    graph = Graph.deserialize(path)
    parts = dpu_parts(graph)
    if parts:
        made = "a DPU" if not parts[0].has_attr("dpu_name") else parts[0].get_attr("dpu_name")
        made = next(map(describe, fingerprints_of(graph)), made)  # the name may be wrong
        raise CompileUsageError(f"{path}: already compiled, for {made}: give the quantised file")
    if not any(op.get_type() == "fix" for op in graph.get_ops()):
        raise CompileUsageError(f"{path}: not quantised (no fix ops): quantise it first")
    return graph


def _check_output(source: CompileSource, output: Path) -> None:
    """Raise CompileUsageError if the result would overwrite the source, or another model."""
    if output.exists() and not output.is_dir():
        raise CompileUsageError(f"{output}: not a directory: give a directory with --output")
    result = output / COMPILED
    if result.exists() and result.samefile(source.path):
        raise CompileUsageError(
            f"{source.path}: the result would overwrite it: give another directory with --output"
        )
    if source.description is None and (output / DESCRIPTION).exists():
        raise CompileUsageError(
            f"{output}: its {DESCRIPTION} describes another model: give another --output"
        )


def _find_target(options: CompileOptions) -> tuple[Target, vai.Compiler | None]:
    target = load_target(options.target or DEFAULT_BOARD)
    own = options.compiler in ("", OWN)
    given = {"--compiler": not own, "--image": options.image, "--arch": options.arch}
    named = [name for name, value in given.items() if value]
    if target.is_emulator:
        if named:
            raise CompileUsageError(f"{named[0]} is for a board, not for the emulator")
        return target, None
    if options.compiler == OWN and options.image:
        raise CompileUsageError(
            f"--image is for AMD's compiler: leave it out, or give --compiler {AMD}"
        )
    if own and not options.image:
        if options.arch is not None:
            target = target.with_arch(options.arch)
        target.fingerprint  # noqa: B018 - raises if it is not known
        return target, None
    if not target.arch:
        raise CompileUsageError(f"the {target.name}'s profile has no target for AMD's compiler")
    program = None if options.compiler in ("", AMD) else Path(options.compiler)
    return target, vai.find_compiler(target, program, options.image)


# -- the compilers ----------------------------------------------------------------------------


def _run_own(plan: CompilePlan) -> BoardModel | None:
    from tutelage.dpu.compiler.board.graph import compile_for_board
    from tutelage.dpu.compiler.emulation import compile_graph

    try:
        if plan.target.is_emulator:
            compile_graph(plan.graph).serialize(plan.job.result)
            return None
        found = compile_for_board(plan.graph, plan.target.fingerprint)
        found.graph.serialize(plan.job.result)
        return found
    except DpuError as error:
        raise CompileError(f"{plan.source.path}: {error}") from error


def _run_amd(plan: CompilePlan, compiler: vai.Compiler, say: Say) -> None:
    vai.write_arch(compiler, plan.target, plan.job)
    command = vai.command_line(compiler, plan.target, plan.job)
    say(f"log: {plan.log}")
    say(f"running {shlex.join(command)}")
    try:
        vai.run_compiler(compiler, command, plan.job, plan.log, plan.options.limit)
    except CompileError:
        for line in vai.last_lines(plan.log):
            say(f"  {line}")
        raise


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Raise CompileError of one line for a file that cannot be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        place = error.filename or output
        raise CompileError(f"{place}: {error.strerror or error}: give another --output") from error


# -- output -----------------------------------------------------------------------------------


def _origin(plan: CompilePlan, graph: Graph) -> dict[str, str]:
    """Return compiler, version, target and date of the result, for model.toml."""
    number = fingerprint_of(dpu_parts(graph)[0])
    from tutelage.dpu.compiler.board.graph import COMPILER

    own = EMULATOR_COMPILER if plan.target.is_emulator else COMPILER
    origin = {
        "compiler": plan.compiler.text if plan.compiler else own,
        "version": vai.version(plan.log, graph) if plan.compiler else tutelage.__version__,
        "target": plan.target.name,
        "fingerprint": "" if number is None else f"{number:#x}",
        "date": datetime.date.today().isoformat(),
    }
    return {key: value for key, value in origin.items() if value}


def _install(plan: CompilePlan, scratch: Path, origin: dict[str, str]) -> str:
    """Move the result and its description into place; return the SHA-256 of the result.

    Between the two moves the description has the old checksum: a reader at that moment gets an
    error instead of a wrong result.
    """
    checksum = sha256_of(plan.job.result)
    if plan.source.description is not None:
        description = _described(plan, plan.source.description, checksum, origin)
        write_description(scratch / DESCRIPTION, description)
    plan.job.result.replace(plan.output / COMPILED)
    if plan.source.description is not None:
        (scratch / DESCRIPTION).replace(plan.output / DESCRIPTION)
    return checksum


def _described(
    plan: CompilePlan, source: Description, checksum: str, origin: dict[str, str]
) -> Description:
    """Return the source's description with the result's checksum and `provenance.compile`.

    Checksums of files that are not beside the result are left out, since a reader checks them all.
    """
    kept = {
        name: checksum
        for name, checksum in source.checksums.items()
        if (plan.output / name).is_file()
    }
    return replace(
        source,
        provenance={**source.provenance, "compile": origin},
        checksums={**kept, COMPILED: checksum},
    )
