"""`import tutelage` imports no package; each of its names is imported on first use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tutelage
from tests.docs import markdown
from tutelage.core.commands import installation


def _run(code: str, repo_root: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=repo_root, check=True, text=True,
                          capture_output=True)  # fmt: skip
    return done.stdout


def test_importing_it_imports_nothing_else(repo_root: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import tutelage; dir(tutelage)\n"
        "print(*sorted(name for name in set(sys.modules) - before if '.' not in name))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('tutelage.')))"
    )
    first, second = _run(code, repo_root).split("\n")[:2]
    assert not set(first.split()) & {"numpy", "cv2", "torch", "psutil", "onnx", "typer", "rich"}
    assert second == ""


def test_inference_imports_nothing_of_training(repo_root: Path) -> None:
    pytest.importorskip("google.protobuf", reason="needs the emulation's packages")
    code = (
        "import sys, tutelage; tutelage.load(); tutelage.open, tutelage.output, tutelage.Power\n"
        "tutelage.predict('app/demo/model.xmodel')\n"
        "print(*(name for name in sys.modules if name in ('torch', 'accelerate', 'typer')))"
    )
    assert _run(code, repo_root) == "\n"


def test_every_name_is_there() -> None:
    pytest.importorskip("accelerate", reason="host/ needs PyTorch and accelerate")
    pytest.importorskip("google.protobuf", reason="needs the emulation's packages")
    for name in tutelage.__all__:
        assert callable(getattr(tutelage, name)) and name in dir(tutelage), name
    assert set(tutelage.__all__) == set(tutelage._PLACES)
    assert not hasattr(tutelage, "nothing")
    with pytest.raises(AttributeError, match="module 'tutelage' has no attribute 'nothing'"):
        tutelage.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("train", "torch", "host"), ("quantise", "torch", "host"), ("load", "cv2", "pc")],
)
def test_a_missing_package_is_named_with_its_extra(
    name: str, package: str, extra: str, repo_root: Path
) -> None:
    code = (
        f"import sys, tutelage; sys.modules[{package!r}] = None\n"
        f"try: tutelage.{name}\n"
        "except ImportError as error: print(error)"
    )
    expected = f"tutelage.{name} needs the package {package}: {installation(extra)}\n"
    assert _run(code, repo_root) == expected


def test_the_readme_s_program(repo_root: Path, tmp_path: Path) -> None:
    """Run it with the demo in place of the user's own model."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV")
    pytest.importorskip("google.protobuf", reason="needs the emulation's packages")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "ptq").symlink_to(repo_root / "app" / "demo")
    video = cv2.VideoWriter(
        str(tmp_path / "walk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 64)
    )
    for path in sorted((repo_root / "app/demo/images/Bag").iterdir())[:3]:
        video.write(cv2.resize(cv2.imread(str(path)), (64, 64)))
    video.release()
    (tmp_path / "mine.py").write_text(markdown.files(repo_root / "README.md")["mine.py"])
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, text=True, check=True,
                          capture_output=True, env=environment)  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        [f"walk.mp4#{index:06d}", "Bag"] for index in range(3)
    ]
    assert " J, " in lines[3]
    assert (tmp_path / "seen.mp4").stat().st_size
