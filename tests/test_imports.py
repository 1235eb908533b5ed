"""Imports go in one direction: app -> board -> dpu -> core, host -> dpu, core; without cycles."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

FORBIDDEN = {
    "core": {"app", "board", "dpu", "host"},
    "dpu": {"app", "board", "host", "pynq"},  # pynq has a stand-in in board/
    "board": {"app", "host"},
    "app": {"host"},
    "host": {"app", "board"},
}


def imported(path: Path) -> set[str]:
    """Modules that a file imports, also inside functions and by import_module.

    Modules of this project are given by their package ("dpu.ops"), others by their top-level name.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"tutelage.{alias.name}" for alias in node.names}
                if node.module == "tutelage"
                else {node.module}
            )
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            names |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
    return {name.split(".")[1 if name.startswith("tutelage.") else 0] for name in names}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_run_one_way(repo_root: Path, package: str) -> None:
    files = sorted((repo_root / package).rglob("*.py"))
    assert files
    wrong = {str(path): imported(path) & FORBIDDEN[package] for path in files}
    assert not {path: names for path, names in wrong.items() if names}


def at_module_level(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when a module is loaded: not those in functions or for type checkers."""
    for node in ast.iter_child_nodes(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif not typing_only and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from at_module_level(node)


def module_graph(root: Path, packages: Iterable[str]) -> dict[str, set[str]]:
    """The modules of the packages, each with those that it imports at module level."""
    paths = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            paths[".".join(("tutelage", *parts)).removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        wanted: set[str] = set()
        for node in at_module_level(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                wanted |= inner & paths.keys() or {node.module}
        graph[name] = wanted & paths.keys() - {name}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that form an import cycle; [] without any."""
    left = {name: set(wanted) for name, wanted in graph.items()}
    while free := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in free:
            del left[name]
    if not left:
        return []
    way = [min(left)]
    while (following := min(left[way[-1]] & left.keys())) not in way:
        way.append(following)
    return [*way[way.index(following) :], following]


def test_no_modules_import_each_other_in_a_circle(repo_root: Path) -> None:
    graph = module_graph(repo_root, sorted(FORBIDDEN))
    assert len(graph) > 100 and graph["tutelage.app.sources.by_uri"]
    assert cycle_in(graph) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    for name, text in {
        "a": "from tutelage.core import b\n",
        "b": "try:\n    from tutelage.core.c import x\nexcept ImportError:\n    pass\n",
        "c": "import tutelage.core.a\n",
        "d": "from tutelage.core.a import x\n",
        "e": "def f():\n    from tutelage.core import f\n",
        "f": "from tutelage.core import e\n",
    }.items():
        (tmp_path / "core").mkdir(exist_ok=True)
        (tmp_path / "core" / f"{name}.py").write_text(text)
    core = "tutelage.core"
    graph = module_graph(tmp_path, ["core"])
    assert cycle_in(graph) == [f"{core}.a", f"{core}.b", f"{core}.c", f"{core}.a"]
    (tmp_path / "core/c.py").write_text("if TYPE_CHECKING:\n    import tutelage.core.a\n")
    assert cycle_in(module_graph(tmp_path, ["core"])) == []


# Packages that only some runs need, and the files that may import them: in a function, or where
# the application imports the file only on request.
OPTIONAL = {
    "psutil": {"board/system.py"},
    "rich": {"app/outputs/terminal.py"},
    "starlette": {"app/web"},
    "uvicorn": {"app/web"},
    "pynq": {"board/overlay/commands.py", "board/power/sources/pmbus.py"},
    "pynvml": {"board/power/sources/nvml.py"},
    "pandas": {"board/stand_ins/pynq.py"},
}


def test_the_board_needs_no_more_than_it_has(repo_root: Path) -> None:
    """Code for the board imports only numpy, OpenCV and the standard library at its top."""
    heavy = {"onnx", "onnxruntime", "openvino", "torch", "google", *OPTIONAL}
    for package in ("app", "board", "core"):
        for path in (repo_root / package).rglob("*.py"):
            name = str(path.relative_to(repo_root))
            allowed = {key for key, files in OPTIONAL.items() if name.startswith(tuple(files))}
            assert not imported(path) & (heavy - allowed), path


def test_the_application_starts_without_optional_packages(repo_root: Path) -> None:
    code = "import sys, tutelage.app.classify; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    # Although --help has imported every source, output and power sensor.
    heavy = {*OPTIONAL, "http", "ssl", "onnx", "onnxruntime", "openvino", "torch"}
    assert not loaded & (heavy - {"psutil"})


def test_the_stand_ins_of_the_accelerator_import_nothing_of_the_board(repo_root: Path) -> None:
    """The shim uses board/stand_ins as a folder; only a script's `import pynq` leads there."""
    code = (
        "import sys; from tutelage.dpu.runtime import shim; shim.install()\n"
        "above = tuple(f'tutelage.{name}' for name in ('app', 'board', 'host'))\n"
        "import pynq_dpu, runner, vart, vitis_ai_library, xir\n"
        "print(*(m for m in sys.modules if m.startswith(above)))\n"
        "import pynq; print(*(m for m in sys.modules if m in (*above, 'tutelage.board.power')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\ntutelage.board tutelage.board.power\n"


LEVELS = ({"xmodel"}, {"ops", "isa"}, {"engine"}, {"compiler", "runtime"}, {"inspect"}, {"predict"})
"""The folders of dpu/ from the ground up: each may import those before it."""


def folders_of_dpu(node: ast.AST) -> set[str]:
    """Return the folders of dpu/ that an import statement names."""
    if isinstance(node, ast.Import):
        names = {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
        names = {f"{node.module}.{alias.name}" for alias in node.names}
    else:
        return set()
    return {name.split(".")[2] for name in names if name.startswith("tutelage.dpu.")}


def test_the_folders_of_dpu_import_from_the_ground_up(repo_root: Path) -> None:
    """Also in functions, and for imports for type checkers only."""
    level = {folder: number for number, folders in enumerate(LEVELS) for folder in folders}
    for folder, number in level.items():
        above = {other for other in level if level[other] > number}
        for path in (repo_root / "dpu" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                assert not folders_of_dpu(node) & above, f"{path}:{getattr(node, 'lineno', 0)}"


def test_the_ops_of_the_board_need_nothing_else_of_dpu(repo_root: Path) -> None:
    """A release has dpu/ops alone: no protobuf, no ONNX, nothing of the emulation."""
    code = (
        "import pkgutil, sys, tutelage.dpu.ops as ops\n"
        "for module in pkgutil.iter_modules(ops.__path__):\n"
        "    __import__(f'tutelage.dpu.ops.{module.name}')\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {m.split(".")[2] for m in loaded if m.startswith("tutelage.dpu.")} == {"ops"}
    assert not {m.split(".")[0] for m in loaded} & {"onnx", "onnxruntime", "google", "cv2", "torch"}
