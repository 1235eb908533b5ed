"""Fixtures for all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import tutelage.app  # noqa: F401  (silences OpenCV, which must come before a test imports it)

# For PyTorch here and in processes that tests start: two threads on one busy core wait for each
# other and are a hundred times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background makes them ignore Ctrl-C, and so would every
# process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The duration of an example depends on the load of the machine. The gate tries the same examples
# each time, so that it fails only because of the change that it judges.
settings.register_profile(
    "any load", deadline=None, derandomize=bool(os.environ.get("TUTELAGE_TEST_SAME_EXAMPLES"))
)
settings.load_profile("any load")

ROOT = Path(__file__).resolve().parent.parent
FAKE_BOARD = Path(__file__).resolve().parent / "fake_board"

# The smallest file that looks like an .xmodel: a graph with only a name.
NAME_ONLY_XMODEL = b"\x0a\x04fake"


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """AMD's example models and data, which are beside the repository and never in it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (AMD's example models), which is not part of the repository")
    return folder


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo's compiled-form .xmodel, which is part of the repository."""
    return ROOT / "app" / "demo" / "model.xmodel"


@pytest.fixture
def emulator_model(demo_model: Path, tmp_path: Path, emulation: None) -> Path:
    """The demo compiled for the emulator: it has no DPU code, so boards refuse it."""
    from tutelage.dpu.compiler.emulation import compile_graph
    from tutelage.dpu.xmodel.graph import Graph

    path = tmp_path / "emulator.xmodel"
    compile_graph(Graph.deserialize(demo_model.with_name("quantised.xmodel"))).serialize(path)
    return path


@pytest.fixture
def unsorted_model(demo_model: Path, tmp_path: Path, emulation: None) -> Path:
    """The demo's model with its ops in reverse order, on which AMD's XIR crashes."""
    from tutelage.dpu.xmodel.file import read_graph, write_graph

    proto, path = read_graph(demo_model), tmp_path / "unsorted.xmodel"
    nodes = list(proto.op_node)
    del proto.op_node[:]
    proto.op_node.extend(reversed(nodes))
    write_graph(proto, path)
    return path


@pytest.fixture(scope="session")
def emulation() -> None:
    """For tests of app/ and board/ that run the emulation, which a board does not have."""
    pytest.importorskip("google.protobuf", reason="needs the emulation's packages")


@pytest.fixture
def fake_board(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put the stand-ins for vart and xir on the path; return their folder."""
    from tutelage.board.provider import find_provider

    monkeypatch.syspath_prepend(str(FAKE_BOARD))
    for name in ("xir", "vart"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    find_provider.cache_clear()
    yield FAKE_BOARD
    find_provider.cache_clear()
    for name in ("xir", "vart"):
        sys.modules.pop(name, None)


@pytest.fixture
def fake_model(tmp_path: Path) -> Path:
    """A file that the stand-in for xir accepts as its model."""
    path = tmp_path / "net.xmodel"
    path.write_bytes(NAME_ONLY_XMODEL)
    return path
